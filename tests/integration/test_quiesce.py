"""quiesce with a guest agent that runs in a guest: file systems are frozen and thawed,
whatever happens."""

import os
import re
import signal

import libvirt

from lib import jobs, sent, store
from lib.domain import MIB, qemu_img
from lib.guest import Guest
from lib.host import Failure, wait_for
from lib.runner import limit

QUIESCE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_QUIESCE
C = '<domaincheckpoint><name>{}</name></domaincheckpoint>'
STATUS = 'guest-fsfreeze-status'
FREEZE, THAW = 'virDomainFSFreeze', 'virDomainFSThaw'


def guest_with_files(host):
    """A guest whose disk has a mounted file system that a load writes to."""
    guest = Guest(host, disks={'vda': 32 * MIB}, agent=True, start=False)
    raw = os.path.join(host.images, 'files.raw')
    with open(raw, 'wb') as out:
        out.truncate(32 * MIB)
    if os.system(f'mkfs.ext4 -q -F {raw}') != 0:
        raise Failure('mkfs.ext4 failed')
    qemu_img('convert', '-f', 'raw', '-O', 'qcow2', raw, guest.disks['vda'].path)
    guest.start()
    guest.mount()
    guest.start_files(length=MIB, delay_usec=2000)
    return guest


def error_of(call, *args):
    try:
        call(*args)
    except libvirt.libvirtError as error:
        return error.get_error_code(), error.get_error_message()
    return None


def writes_on(guest):
    before = guest.load_status()[0]
    wait_for(lambda: guest.load_status()[0] > before + 3, 'the guest writes on', 60)


def order(host, act):
    """What our daemon asked of the guest's agent and QEMU while act() ran, in order."""
    before = len(list(sent.calls(host.calls_log)))
    act()
    found = []
    for name, arguments in list(sent.calls(host.calls_log))[before:]:
        command = re.search(r'"execute":"([\w-]+)"', arguments)
        if command or name in (FREEZE, THAW):
            found.append(command.group(1) if command else name)
    return [what for what in found if not what.startswith(('query-', 'x-'))]


def names(dom):
    return sorted(c.getName() for c in dom.listAllCheckpoints())


@limit(240)
def test_with_a_guest_agent(host):
    """Frozen for the moment of the creation, thawed after it, after a failure and after
    our death; an agent that is not there, or does not answer, is an error of libvirt's
    and no checkpoint."""
    points = os.path.join(host.work, 'points.log')
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS_LOG': points})
    guest = guest_with_files(host)
    dom = host.connect(ours=True).lookupByName(guest.name)
    stock = error_of(guest.dom.fsFreeze)
    for _ in range(2):
        assert error_of(dom.checkpointCreateXML, C.format('c0'), QUIESCE) == stock
    with open(points) as passed:
        assert passed.read().split() == ['settle/jobs'], 'that was the first look'
    pid = guest.start_agent()
    dom.checkpointCreateXML(C.format('c1'), QUIESCE)
    assert guest.agent(STATUS) == 'thawed'
    writes_on(guest)
    with open(host.calls_log) as log:
        calls = log.read()
    assert FREEZE in calls and THAW in calls
    # It fails: nothing was frozen for that.
    assert error_of(dom.checkpointCreateXML, C.format('c1'), QUIESCE)[0] == \
        libvirt.VIR_ERR_OPERATION_FAILED
    assert guest.agent(STATUS) == 'thawed'
    # We die while it is frozen; the next daemon thaws.
    host.stop_daemon()
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': 'quiesce/frozen@1=exit'})
    dom = host.connect(ours=True).lookupByName(guest.name)
    assert error_of(dom.checkpointCreateXML, C.format('c2'), QUIESCE)
    host.wait_daemon()
    assert guest.agent(STATUS) == 'frozen'
    host.start_daemon()
    wait_for(lambda: guest.agent(STATUS) == 'thawed', 'the next daemon thaws', 60)
    writes_on(guest)
    dom = host.connect(ours=True).lookupByName(guest.name)
    assert names(dom) == ['c1'], names(dom)
    # It is there and says nothing.
    guest.command('kill', pid, int(signal.SIGSTOP))
    assert error_of(dom.checkpointCreateXML, C.format('c2'), QUIESCE)[0] == \
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE
    assert names(dom) == ['c1']
    guest.command('kill', pid, int(signal.SIGCONT))
    wait_for(lambda: guest.agent(STATUS) == 'thawed', 'the agent is back', 60)
    dom.checkpointCreateXML(C.format('c2'), QUIESCE)
    writes_on(guest)
    mark = os.path.join(store.folder(host, guest), 'frozen')
    assert names(dom) == ['c1', 'c2'] and not os.path.exists(mark)


def left(host, guest):
    """What a creation must not leave."""
    return [name for name in os.listdir(store.folder(host, guest))
            if name.endswith('.tmp') or name == 'frozen'] + guest.stray()


def rest(host, guest):
    assert guest.agent(STATUS) == 'thawed'
    assert not left(host, guest), left(host, guest)


def between(commands):
    """What was sent between freeze and thaw."""
    return commands[commands.index(FREEZE) + 1:
                    commands.index(THAW)]


@limit(240)
def test_frozen_for_the_transaction_only(host):
    """Everything is open before the freeze, and the thaw comes right after the
    transaction; what fails before it freezes nothing, what fails with it leaves
    nothing."""
    host.start_daemon()
    guest = guest_with_files(host)
    guest.start_agent()

    def create(name, fault=None):
        """The order of things; the error is in failed."""
        host.restart_daemon(env={'VIRT_CHECKPOINT_FAULTS': fault} if fault else {})
        dom = host.connect(ours=True).lookupByName(guest.name)
        failed.clear()
        found = order(host, lambda: failed.append(
            error_of(dom.checkpointCreateXML, C.format(name), QUIESCE)))
        there.append(names(dom))
        return found

    failed, there = [], []
    create('c1')
    assert failed == [None], failed
    found = create('c2')
    assert failed == [None] and there[-1] == ['c1', 'c2'], (failed, there)
    assert between(found) == ['transaction', 'guest-ping'], found
    opened = found[:found.index(FREEZE)]
    assert 'blockdev-add' in opened and 'add-fd' in opened, found
    # The second one removes the bitmap that was parked.
    assert found.count('transaction') == 2, found
    rest(host, guest)
    # The name is taken, the record cannot be written: nobody was frozen.
    for name, fault in (('c2', None), ('c3', 'create/recorded=fail')):
        found = create(name, fault)
        assert failed[0] and FREEZE not in found, (failed, found)
        rest(host, guest)
    # The freeze fails after the sidecar was opened: that is closed.
    found = create('c3', 'quiesce/frozen@1=fail')
    assert failed[0] and there[-1] == ['c1', 'c2'], (failed, there)
    assert 'transaction' not in found and 'blockdev-del' in found, found
    rest(host, guest)
    # So does the transaction.
    found = create('c3', 'qmp/transaction/before@1=fail')
    assert failed[0] and there[-1] == ['c1', 'c2'], (failed, there)
    assert between(found) == ['guest-ping'], found
    rest(host, guest)
    # No sidecar can be opened: the checkpoint is parked later, after the thaw.
    found = create('c3', 'sidecar/attached@1=fail')
    assert failed == [None] and there[-1] == ['c1', 'c2', 'c3'], (failed, there)
    assert between(found) == ['transaction', 'guest-ping'], found
    assert 'blockdev-add' in found[found.index(THAW):], found
    rest(host, guest)
    writes_on(guest)


@limit(300)
def test_whoever_dies_while_it_is_frozen(host):
    """Libvirtd, both daemons, QEMU: the guest writes on, without being asked, and no
    checkpoint is left of what was not answered."""
    gate, log = os.path.join(host.work, 'go'), os.path.join(host.work, 'points.log')
    host.start_daemon()
    guest = guest_with_files(host)
    agent = guest.start_agent()
    host.connect(ours=True).lookupByName(guest.name).checkpointCreateXML(C.format('c1'), 0)

    def frozen():
        """A creation is held there; whoever asked for it."""
        for path in (gate, log):
            if os.path.exists(path):
                os.unlink(path)
        host.restart_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'quiesce/frozen@1=hold:{gate}',
                                 'VIRT_CHECKPOINT_FAULTS_LOG': log})
        dom = host.connect(ours=True).lookupByName(guest.name)
        call = jobs.Later(dom.checkpointCreateXML, C.format('no'), QUIESCE)
        wait_for(lambda: os.path.exists(log) and 'quiesce/frozen' in open(log).read().split(),
                 'it is frozen', 60)
        return call

    def goes_on(call):
        assert call.join()
        guest.reconnect()
        wait_for(lambda: guest.agent(STATUS) == 'thawed', 'it is thawed', 60)
        writes_on(guest)
        dom = host.connect(ours=True).lookupByName(guest.name)
        assert names(dom) == ['c1'], names(dom)
        wait_for(lambda: not left(host, guest), 'nothing is left')
    call = frozen()
    host.kill_libvirtd()
    host.start_libvirtd()
    with open(gate, 'w'):
        pass
    goes_on(call)
    call = frozen()
    host.kill_daemon()
    host.kill_libvirtd()
    host.start_libvirtd()
    host.start_daemon()
    goes_on(call)
    # The agent is busy when the next daemon asks it: it is asked again.
    call = frozen()
    guest.command('kill', agent, int(signal.SIGSTOP))
    host.kill_daemon()
    before = len(host.daemon_log())
    host.start_daemon()
    wait_for(lambda: 'may stay frozen' in host.daemon_log()[before:], 'nobody answers', 60)
    guest.command('kill', agent, int(signal.SIGCONT))
    goes_on(call)
    call = frozen()
    guest.kill_qemu()
    with open(gate, 'w'):
        pass
    assert call.join()
    guest.start(host.connect(ours=True).lookupByName(guest.name))
    dom = host.connect(ours=True).lookupByName(guest.name)
    wait_for(lambda: 'frozen' not in os.listdir(store.folder(host, guest)), 'it is forgotten')
    assert names(dom) == ['c1'], names(dom)
