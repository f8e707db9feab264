"""Two hosts with one store and the same disks: their operations on one domain never
overlap, and what a host that died was doing another one settles.

Each host has a libvirtd of its own, with a host_uuid of its own, and a daemon of ours;
the domain is defined on both, as a cluster's manager does it.
"""

import glob
import os
import signal
import threading

import libvirt

from lib import session, store
from lib.domain import MIB, VM
from lib.host import Failure, wait_for
from lib.kills import Case
from lib.oracle import Oracle
from lib.otherhost import OtherHost
from lib.runner import limit
from lib.sweepops import OPERATIONS

C = '<domaincheckpoint><name>{}</name></domaincheckpoint>'
DISKS = {'vda': 4 * MIB, 'vdb': 2 * MIB}
# Copies, the points from which on the disk is on another file, and their last ones.
MOVES = {'finish': (75, 155), 'mirror-end': (75, 190), 'pivot': (75, 210)}
SHARE = 2


def other_host(host):
    there = OtherHost(host)
    there.images = host.images
    return there


def defined_there(there, vm):
    """The domain of vm on the other host, on a connection of ours."""
    there.connect().defineXML(vm.conn.lookupByName(vm.name).XMLDesc(
        libvirt.VIR_DOMAIN_XML_INACTIVE))
    return there.connect(ours=True).lookupByName(vm.name)


class Call(threading.Thread):
    """A call that may have to wait; result() is what it said."""

    def __init__(self, call, *args):
        super().__init__(daemon=True)
        self.call, self.args, self.error = call, args, None
        self.start()

    def run(self):
        try:
            self.call(*self.args)
        except libvirt.libvirtError as error:
            self.error = error

    def result(self):
        self.join(60)
        if self.is_alive():
            raise Failure('the call does not return')
        return self.error


class Held:
    """A daemon that stops at its Nth fault point until go()."""

    def __init__(self, host, number):
        self.host = host
        self.gate = os.path.join(host.work, 'gate')
        self.log = os.path.join(host.logs, 'faults.log')
        for path in (self.gate, self.log):
            if os.path.exists(path):
                os.unlink(path)
        host.stop_daemon()
        host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'*@{number}=hold:{self.gate}',
                               'VIRT_CHECKPOINT_FAULTS_LOG': self.log})
        self.number = number

    def passed(self):
        try:
            with open(self.log) as log:
                return log.read().split()
        except FileNotFoundError:
            return []

    def reached(self):
        wait_for(lambda: len(self.passed()) >= self.number, 'the daemon holds')

    def go(self):
        with open(self.gate, 'w'):
            pass


def waits_for_lock(host, vm):
    """TRUE while somebody waits for the domain's lock, by the kernel's own list."""
    try:
        inode = os.stat(os.path.join(store.folder(host, vm), 'lock')).st_ino
    except FileNotFoundError:
        return False
    with open('/proc/locks') as locks:
        return any(' -> ' in line and f':{inode} ' in line for line in locks)


@limit(180)
def test_operations_never_overlap(host):
    """While one host is in the middle of an operation, another's on the same domain
    waits and changes nothing; other domains go on; then both are whole."""
    there = other_host(host)
    host.start_daemon()
    there.start_daemon()
    # It never ran, so no host has a better right to it.
    oracle = Oracle(host, VM(host, disks=DISKS, start=False), host.random)
    oracle.create(sorted(DISKS))
    apart = VM(there, 'apart', {'vda': MIB}, start=False)
    dom = defined_there(there, oracle.vm)
    for number, act in enumerate((
            lambda: oracle.dom.checkpointCreateXML(C.format('here1')),
            lambda: oracle.dom.checkpointLookupByName('here1').delete())):
        oracle.events.close()
        held = Held(host, host.random.randrange(3, 12))
        oracle.connect()
        here = Call(act)
        held.reached()
        before = held.passed()
        waiting = Call(dom.checkpointCreateXML, C.format(f'there{number}'))
        wait_for(lambda: waits_for_lock(host, oracle.vm), 'the other host waits')
        free = there.connect(ours=True).lookupByName('apart')
        free.checkpointCreateXML(C.format('c1'))
        free.checkpointLookupByName('c1').delete()
        assert waiting.is_alive() and here.is_alive() and held.passed() == before
        held.go()
        for call in (here, waiting):
            if call.result():
                raise call.result()
    names = [record.name for record in store.records(host, oracle.vm)]
    assert names == ['c1', 'there0', 'there1'], names
    for name in names[1:]:
        oracle.about_to_create(name, sorted(DISKS))
        oracle.moments.append(oracle.creating)
    oracle.start_guest()
    oracle.write(3)
    oracle.check(copies=True)
    apart.dom.undefine()


@limit(180)
def test_what_runs_elsewhere_is_left_alone(host):
    """The domain runs on one host; on the other one, where it is defined, too, whatever
    would change its checkpoints is refused and changes nothing, from the first on."""
    there = other_host(host)
    host.start_daemon()
    oracle = Oracle(host, VM(host, disks=DISKS), host.random)
    oracle.write(3)
    oracle.create(sorted(DISKS))
    there.start_daemon()
    dom = defined_there(there, oracle.vm)
    for call in (lambda: dom.checkpointCreateXML(C.format('c2')),
                 dom.checkpointLookupByName('c1').delete):
        try:
            call()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or \
                    'last on another host' not in str(error):
                raise
        else:
            raise Failure('not refused')
    assert [c.getName() for c in dom.listAllCheckpoints()] == ['c1']
    oracle.write(3)
    oracle.check(copies=True)


@limit(180)
def test_the_first_checkpoint_names_its_host(host):
    """Even if the daemon dies as soon as it is recorded: on another host, where the
    domain is defined, too, it is left alone."""
    there = other_host(host)
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': 'create/ready=exit'})
    vm = VM(host, disks=DISKS)
    call = Call(host.connect(ours=True).lookupByName(vm.name).checkpointCreateXML,
                C.format('c1'))
    wait_for(lambda: not host.daemon_running(), 'the daemon ends')
    host.wait_daemon()
    assert call.result()
    assert [r.name for r in store.records(host, vm)] == ['c1']
    there.start_daemon()
    error = Call(defined_there(there, vm).checkpointCreateXML, C.format('c2')).result()
    assert error and 'last on another host' in str(error), error


class Takeover(Case):
    """A case of the sweep (kills.py) in which the whole host dies, and another one
    starts the guest and goes on; then the first one comes back.

    old: the manager of the two knows the definition from before the operation only, and
    starts the guest through us; else the latest one.
    """

    # Whose libvirt may have those that it lent to a backup.
    undefine = libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA

    def __init__(self, host, there, operation, number, old=False):
        super().__init__(host, operation, number, 'host')
        self.first, self.there = host, there
        self.old, self.definition = old, None

    def _at(self, host):
        self.host = self.vm.host = self.oracle.host = host

    def _start_daemon(self, **options):
        """One with faults runs the operation."""
        if 'env' in options:
            self.definition = self.vm.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        super()._start_daemon(**options)

    def _started(self, dom):
        return super()._started(self.oracle.dom if self.old else dom)

    def _disturb(self):
        """Nothing of the host lives on, not even by a moment."""
        if not self.old:
            self.definition = self.vm.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        pids = [self.host.qemu_pid(self.vm.name), self.operation.qemu(self)]
        self.host.kill_daemon()
        self.host.kill_libvirtd()
        for pid in filter(None, pids):
            if session.state(pid) != 'Z':
                os.kill(pid, signal.SIGKILL)
        for pid in filter(None, pids):
            wait_for(lambda pid=pid: session.state(pid) == 'Z', 'it is dead')
        self._release()
        self.there.connect().defineXML(self.definition)
        self._at(self.there)
        self.there.start_daemon()

    def _up_again(self):
        """A guest that is off is this host's once it ran here."""
        super()._up_again()
        if self.operation.off and self.host is not self.first:
            self.vm.start(self.oracle.dom)
            self.vm.destroy()

    def _again(self):
        """The dead host comes back in the meantime: it has nothing to say."""
        if self.host is not self.first:
            self.first.start_libvirtd()
            self.first.start_daemon()
        super()._again()

    def close(self):
        if self.host is not self.first:
            super().close()
            self._at(self.first)
        super().close()


def take_over(host, there, name, number, old=False):
    """One case, judged."""
    case = Takeover(host, there, OPERATIONS[name], number, old)
    try:
        reached = case.run()
    except Exception as error:
        raise Failure(f'{name}:{number} at {case.point}, old={old}: {error}') from error
    finally:
        case.close()
    print(f'#   {name}:{number} at {case.point if reached else "the end"}'
          f'{", by an old definition" if old else ""}', flush=True)


@limit(900)
def test_a_host_dies_and_another_goes_on(host):
    """Random cases: the operation, where it was, and what the next host made of it."""
    there = other_host(host)
    for _ in range(40 if host.all else SHARE):
        name = host.random.choice(list(OPERATIONS))
        take_over(host, there, name, host.random.randrange(1, OPERATIONS[name].usual))
    assert not glob.glob(os.path.join(host.images, '*'))


@limit(900)
def test_the_disk_was_on_another_file(host):
    """The same while a copy has the disk on its overlay or its target: nothing is lost,
    whether the next host's definition is the last one or from before the copy."""
    there = other_host(host)
    for number in range(24 if host.all else SHARE):
        name = host.random.choice(list(MOVES))
        take_over(host, there, name, host.random.randrange(*MOVES[name]), number % 2 == 0)
    assert not glob.glob(os.path.join(host.images, '*'))
