"""A disk with errors under the store (baddisk.c), and folders where files should be.

Whatever is refused, the daemon starts, guests start and end, what can be read is told,
and nothing is lost: once the disk is well all goes on, without a restart.
"""

import errno
import os

import libvirt

from lib import paths, store
from lib.domain import MIB, VM
from lib.host import Failure, wait_for
from lib.oracle import Oracle
from lib.runner import limit
from test_health import check, command

DISKS = {'vda': 8 * MIB}
# Number, which calls (baddisk.c); with r the store cannot be read by the next daemon.
TROUBLES = [(errno.EIO, 'w'), (errno.EIO, 's'), (errno.EACCES, 'w'), (errno.EIO, 'rw'),
            (errno.EACCES, 'rw')]


class BadDisk:
    """For daemons that are started from now on."""

    def __init__(self, host):
        self.switch = os.path.join(host.work, 'bad-disk')
        library = os.path.join(paths.BUILD, 'tests', 'baddisk.so')
        if not os.path.exists(library):
            raise Failure(f'{library} is missing: it is of the plain build')
        host.daemon_env.update({
            'LD_PRELOAD': library,
            'BAD_DISK': self.switch,
            # Another build's daemon would want its sanitizer to be the first library.
            'ASAN_OPTIONS': os.environ.get('ASAN_OPTIONS', '') +
            ':verify_asan_link_order=0'})

    def breaks(self, number, calls, part):
        with open(self.switch + '.new', 'w') as out:
            out.write(f'{number} {calls} {part}')
        os.rename(self.switch + '.new', self.switch)

    def is_well(self):
        os.unlink(self.switch)


def oracle_of(host, count=3):
    host.start_daemon()
    oracle = Oracle(host, VM(host, disks=DISKS), host.random)
    for _ in range(count):
        oracle.create()
        oracle.write(2)
    oracle.check()
    return oracle


def refused(call, *why):
    """With one of these texts."""
    try:
        call()
    except libvirt.libvirtError as error:
        if not any(text in str(error) for text in why):
            raise Failure(f'{error}; not: {why}') from error
        return
    raise Failure(f'not refused: {why}')


def changes_are_refused(oracle, second, why):
    """Where a record cannot be read it is as if it were not there."""
    refused(oracle.create, why)
    for call in (lambda: oracle.finish(oracle.moments[-1], 'vda'), second.delete):
        refused(call, why, 'no domain checkpoint')


def guest_goes_on(oracle):
    oracle.write(2)
    oracle.vm.destroy()
    oracle.vm.start(oracle.dom)
    oracle.write(2)


def all_is_well(oracle):
    oracle.create()
    oracle.write(2)
    oracle.check(copies=True)


@limit(300)
def test_the_disk_has_errors(host):
    """It begins under a running daemon, lasts over the start of the next one, ends."""
    disk = BadDisk(host)
    oracle = oracle_of(host)
    for number, calls in TROUBLES if host.all else [host.random.choice(TROUBLES)]:
        print(f'#   {errno.errorcode[number]} {calls}', flush=True)
        second = oracle.dom.checkpointLookupByName('c2')
        disk.breaks(number, calls, host.state)
        changes_are_refused(oracle, second, os.strerror(number))
        if 'r' not in calls:
            oracle.check_list()
        guest_goes_on(oracle)
        oracle.events.close()
        host.restart_daemon()
        oracle.connect()
        if 'r' in calls:
            refused(oracle.dom.listAllCheckpoints, os.strerror(number))
        else:
            oracle.check_list()
            changes_are_refused(oracle, oracle.dom.checkpointLookupByName('c2'),
                                os.strerror(number))
        guest_goes_on(oracle)
        disk.is_well()
        all_is_well(oracle)


@limit(300)
def test_one_file_cannot_be_read(host):
    """One record, for a while: its checkpoint alone is missing, the log names the file,
    the newest goes on; then it is back, and nothing was lost."""
    disk = BadDisk(host)
    numbers = [errno.EIO, errno.EACCES]
    for number in numbers if host.all else [host.random.choice(numbers)]:
        oracle = oracle_of(host)
        bad = [r for r in store.records(host, oracle.vm) if r.name == 'c2'][0]
        name = os.path.basename(bad.path)
        oracle.events.close()
        host.stop_daemon()
        disk.breaks(number, 'r', name)
        host.start_daemon()
        oracle.connect()
        listed = {c.getName() for c in oracle.dom.listAllCheckpoints()}
        assert listed == {'c1', 'c3'}, listed
        oracle.finish(oracle.moments[-1], 'vda')
        if name not in host.daemon_log():
            raise Failure('the log does not name the file')
        oracle.create()
        oracle.write(2)
        oracle.finish(oracle.moments[-1], 'vda')
        disk.is_well()
        wait_for(lambda: len(oracle.dom.listAllCheckpoints()) == 4, 'it is back')
        oracle.check(copies=True)
        oracle.events.close()
        host.stop_daemon()
        oracle.vm.destroy()
        oracle.vm.dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        os.unlink(oracle.vm.disks['vda'].path)


def unreadable_newest(host, disk, number):
    """c3's record cannot be read by the next daemon; (oracle, its file)."""
    oracle = oracle_of(host)
    bad = [r for r in store.records(host, oracle.vm) if r.name == 'c3'][0].path
    oracle.events.close()
    host.stop_daemon()
    disk.breaks(number, 'r', os.path.basename(bad))
    host.start_daemon()
    oracle.connect()
    return oracle, bad


@limit(300)
def test_the_newest_cannot_be_read_for_a_while(host):
    """Nothing is called lost meanwhile, over restarts of guest and daemon; what would
    cost tracking is refused with the cause; with the file all is as it was."""
    disk = BadDisk(host)
    number = host.random.choice([errno.EIO, errno.EACCES])
    oracle, bad = unreadable_newest(host, disk, number)
    why = os.strerror(number)
    for _ in range(2):
        assert {c.getName() for c in oracle.dom.listAllCheckpoints()} == {'c1', 'c2'}
        refused(oracle.create, why)
        refused(oracle.dom.checkpointLookupByName('c2').delete, why)
        refused(lambda: oracle.finish(oracle.moments[0], 'vda'), why)
        problems = [(p['problem'], os.path.basename(bad) in p['text'])
                    for p in check(oracle)['problems']]
        assert problems == [('bad-record', True)], problems
        guest_goes_on(oracle)
        oracle.events.close()
        host.restart_daemon()
        oracle.connect()
    disk.is_well()
    assert not any(store.lost(host, oracle.vm, name) for name in ('c1', 'c2', 'c3'))
    all_is_well(oracle)


@limit(300)
def test_the_newest_cannot_be_read_any_more(host):
    """A repair gives it up: what it stood for is lost, and nothing is refused."""
    disk = BadDisk(host)
    oracle, bad = unreadable_newest(host, disk, errno.EIO)
    refused(oracle.create, os.strerror(errno.EIO))
    command(oracle.dom, 'repair')
    assert not os.path.exists(bad) and store.lost(host, oracle.vm, 'c2') == {'vda'}
    refused(lambda: oracle.finish(oracle.moments[1], 'vda'), 'lost')
    for name in ('c1', 'c2'):
        oracle.dom.checkpointLookupByName(name).delete()
    oracle.moments = []
    all_is_well(oracle)


@limit(300)
def test_deleting_beside_one_that_cannot_be_read(host):
    """What takes part in a deletion may be in the file: then it waits."""
    disk = BadDisk(host)
    oracle = oracle_of(host)
    bad = [r for r in store.records(host, oracle.vm) if r.name == 'c2'][0].path
    oracle.events.close()
    host.stop_daemon()
    disk.breaks(errno.EIO, 'r', os.path.basename(bad))
    host.start_daemon()
    oracle.connect()
    for name in ('c1', 'c3'):
        refused(oracle.dom.checkpointLookupByName(name).delete, os.strerror(errno.EIO))
    disk.is_well()
    oracle.dom.checkpointLookupByName('c3').delete()
    oracle.moments.pop()
    all_is_well(oracle)


@limit(300)
def test_folders_where_files_should_be(host):
    """Whichever file it is: the daemon starts, the guest and other domains' checkpoints
    go on, what cannot be done says why; with the file all is there."""
    oracle = oracle_of(host)
    other = VM(host, 'other', {'vda': MIB})
    domain = store.folder(host, oracle.vm)
    names = [os.path.join(domain, name) for name in ('lock', 'journal', 'host')]
    names.append(os.path.join(host.state, 'reserve'))
    for path in names if host.all else host.random.sample(names, 2):
        print(f'#   {os.path.basename(path)}', flush=True)
        oracle.events.close()
        host.stop_daemon()
        os.rename(path, path + '-kept')
        os.mkdir(path)
        host.start_daemon()
        oracle.connect()
        oracle.check_list()
        guest_goes_on(oracle)
        one = host.connect(ours=True).lookupByName('other')
        one.checkpointCreateXML('<domaincheckpoint><name>o</name></domaincheckpoint>')
        one.checkpointLookupByName('o').delete()
        if os.path.basename(path) in ('lock', 'journal'):
            refused(oracle.create, path)
        os.rmdir(path)
        os.rename(path + '-kept', path)
        oracle.create()
    all_is_well(oracle)
