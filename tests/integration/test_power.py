"""The power cut of the harness (lib/power.py): what it leaves, and what it does not; and
the cells of the sweep that it broke once."""

import os

from lib import jobs, paths
from lib.domain import CLUSTER, MIB, VM
from lib.host import Failure
from lib.kills import Case
from lib.oracle import Oracle
from lib.power import Power, possible
from lib.runner import Skip, limit
from lib.sweepops import OPERATIONS

ROUNDS = 5


def powered(host):
    if not possible():
        raise Skip('only root can mount')
    host.kill_libvirtd()
    power = Power(host)
    host.start_libvirtd()
    return power


def write(path, text, sync=False):
    with open(path, 'w') as out:
        out.write(text)
        out.flush()
        if sync:
            os.fsync(out.fileno())


def sync_folder(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def read(path):
    try:
        with open(path) as found:
            return found.read()
    except FileNotFoundError:
        return None


def replace(path, text):
    """Durably."""
    write(path + '.new', text, sync=True)
    os.rename(path + '.new', path)
    sync_folder(os.path.dirname(path))


def one_round(power, folder):
    """What is there after a cut, of each way to write.  A sync takes along all that was
    named or removed before it, as ext4 has one journal: those come first."""
    path = os.path.join(folder, 'file-')
    for name in ('overwritten', 'renamed', 'removed'):
        replace(path + name, 'old')
    power.settle()
    replace(path + 'durable', 'new')
    write(path + 'renamed.new', 'new', sync=True)
    write(path + 'written', 'new')
    write(path + 'overwritten', 'new')
    os.rename(path + 'renamed.new', path + 'renamed')
    os.unlink(path + 'removed')
    power.cut()
    found = {name: read(path + name) for name in ('durable', 'written', 'overwritten',
                                                  'renamed', 'removed')}
    for name in os.listdir(folder):
        if name.startswith('file-'):
            os.unlink(os.path.join(folder, name))
    return found


def test_only_what_was_synced_outlives_a_cut(host):
    """In each of the folders: a file that was synced, renamed and its folder synced is
    there; what was only written, overwritten, renamed or removed is as it was."""
    power = powered(host)
    for folder in (host.images, host.state, host.config, '/var/lib/libvirt'):
        # Somebody on this machine may call sync(2), and the kernel may write on its own.
        for _ in range(ROUNDS):
            found = one_round(power, folder)
            assert found['durable'] == 'new', found
            if found == {'durable': 'new', 'written': None, 'overwritten': 'old',
                         'renamed': 'old', 'removed': 'old'}:
                break
        else:
            raise Failure(f'{folder}: too much is there: {found}')


def test_a_sync_is_of_one_folder(host):
    """A sync in one folder makes nothing durable in another."""
    power = powered(host)
    for _ in range(ROUNDS):
        write(os.path.join(host.images, 'lost'), 'x')
        replace(os.path.join(host.state, 'kept'), 'x')
        power.cut()
        assert read(os.path.join(host.state, 'kept')) == 'x'
        if not read(os.path.join(host.images, 'lost')):
            break
    else:
        raise Failure('the other folder was written')


def test_a_guest_keeps_what_it_flushed(host):
    """After a cut a running guest is off, libvirt has its definition, its disk holds
    what the guest flushed, and what it did not flush is not there."""
    power = powered(host)
    vm = VM(host, disks={'vda': 4 * MIB})
    vm.write(0, CLUSTER, 1)
    vm.flush()
    power.settle('etc', 'lib')
    for number in range(ROUNDS):
        vm.write(CLUSTER, CLUSTER, 2)
        pid = host.qemu_pid(vm.name)
        power.cut()
        assert not os.path.exists(f'/proc/{pid}')
        host.start_libvirtd()
        vm.reconnect()
        assert not vm.dom.isActive()
        vm.start()
        assert vm.reads(0, CLUSTER, 1)
        if vm.reads(CLUSTER, CLUSTER, 0):
            break
    else:
        raise Failure('what was not flushed is there')
    vm.disks['vda'].model.fill(CLUSTER, CLUSTER, 0)
    vm.verify()


class Quiet(Case):
    """The guest writes nothing while the daemon is held: nor is anything synced so."""

    def _goes_on_writing(self):
        return False


def run_cells(host, *cells, kind=Case):
    """Cases of the sweep: operation, the first such point, who dies."""
    if not possible():
        raise Skip('only root can mount')
    for name, point, party in cells:
        case = kind(host, OPERATIONS[name], point, party)
        try:
            assert case.run(), f'{name} does not pass {point}'
        except Exception as error:
            raise Failure(f'{name}:{point}:{party}: {error}') from error
        finally:
            case.close()


@limit(300)
def test_what_is_flushed_to_an_overlay_outlives_a_cut(host):
    """A guest flushed to the overlay of a copy just after its snapshot: it is on the
    overlay, or that is committed, and nothing is lost."""
    run_cells(host, ('finish', 'mirror/source-parked', 'power'),
              ('pivot', 'mirror/copy-begun', 'power'))


@limit(300)
def test_what_is_flushed_just_before_a_pivot_is_not_lost(host):
    """The definition names the next file already, QEMU is on the overlay: whatever ends
    QEMU there, the guest has what it flushed."""
    run_cells(host, ('finish', 'mirror/before-commit-pivot', 'qemu'),
              ('finish', 'mirror/before-commit-pivot', 'destroy'),
              ('finish', 'mirror/before-commit-pivot', 'power'),
              ('pivot', 'mirror/before-pivot', 'power'))


@limit(300)
def test_images_of_a_guest_that_is_off_are_known_after_a_cut(host):
    """A cut while they are open read-write loses no tracking."""
    run_cells(host, ('off-create', 'offline/in-use', 'power'),
              ('off-create', 'offline/opened', 'power'),
              ('off-finish', 'create/transaction', 'power'))


@limit(120)
def test_an_overlay_that_libvirt_removed_stays_away(host):
    """A cut right after a copy has forgotten itself brings no overlay back."""
    run_cells(host, ('finish', 'remove/after-unlink', 'power'), kind=Quiet)


@limit(120)
def test_what_libvirt_was_lent_does_not_come_back(host):
    """A cut in a backup leaves libvirt no checkpoint under a name of ours, in no file."""
    run_cells(host, ('push', 'backup/begun', 'power'))


@limit(120)
def test_a_replica_is_known_after_a_cut(host):
    """A replica, on a disk of its own, that a copy wrote to in place is known as what
    that left it as, and heals what the cut lost, without being told."""
    power = powered(host)
    host.start_daemon()
    oracle = Oracle(host, VM(host, disks={'vda': 4 * MIB}), host.random)
    replica = '/var/lib/libvirt/replica.qcow2'
    for name, since in (('c1', None), ('c2', 'c1'), ('c3', 'c2')):
        oracle.vm.write(0, MIB, int(name[1]))
        oracle.events.forget()
        jobs.start_copy(oracle.dom, 'vda', replica, since, name, finish=True)
        jobs.wait_end(oracle.events, oracle.dom, 'vda')
    oracle.events.close()
    power.settle('etc')
    power.cut()
    host.start_libvirtd()
    host.start_daemon()
    oracle.vm.reconnect()
    oracle.connect()
    oracle.vm.start(oracle.dom)
    xml = os.path.join(host.work, 'replica.xml')
    write(xml, jobs.target_xml(replica))
    text = host.virsh('checkpoint-check', oracle.vm.name, '--heal', '--disk', 'vda',
                      '--against', xml, ours=True, program=paths.VIRSH)
    assert 'healthy' in text, text
    oracle.vm.verify()
