"""quiesce with a guest agent that runs in a guest: file systems are frozen and thawed,
whatever happens."""

import os
import signal

import libvirt

from lib import store
from lib.domain import MIB, qemu_img
from lib.guest import Guest
from lib.host import Failure, wait_for
from lib.runner import limit

QUIESCE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_QUIESCE
C = '<domaincheckpoint><name>{}</name></domaincheckpoint>'
STATUS = 'guest-fsfreeze-status'


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


def names(dom):
    return sorted(c.getName() for c in dom.listAllCheckpoints())


@limit(240)
def test_with_a_guest_agent(host):
    """Frozen for the moment of the creation, thawed after it, after a failure and after
    our death; an agent that is not there, or does not answer, is an error of libvirt's
    and no checkpoint."""
    host.start_daemon()
    guest = guest_with_files(host)
    dom = host.connect(ours=True).lookupByName(guest.name)
    stock = error_of(guest.dom.fsFreeze)
    assert error_of(dom.checkpointCreateXML, C.format('c0'), QUIESCE) == stock
    pid = guest.start_agent()
    dom.checkpointCreateXML(C.format('c1'), QUIESCE)
    assert guest.agent(STATUS) == 'thawed'
    writes_on(guest)
    with open(host.calls_log) as log:
        calls = log.read()
    assert 'virDomainFSFreeze' in calls and 'virDomainFSThaw' in calls
    # It fails after the freeze.
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
