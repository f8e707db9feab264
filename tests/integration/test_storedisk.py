"""The disk under the store: full, read-only, unreadable, of another version.

Nothing that needs no writing stops: guests run, start and end, checkpoints are listed.
What cannot be done is refused with the cause and changes nothing; and as soon as the
disk is well again, all of it goes on, without a restart.
"""

import contextlib
import os
import subprocess

import libvirt

from lib import images, jobs, session
from lib.domain import MIB, VM
from lib.host import Failure, wait_for
from lib.oracle import Oracle
from lib.runner import Skip, limit

DISKS = {'vda': 8 * MIB, 'vdb': 8 * MIB}


@contextlib.contextmanager
def own_disk(host, size='32m'):
    """The store is a file system of its own."""
    if not session.is_root():
        raise Skip('a file system of its own needs root')
    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size},mode=700', 'tmpfs',
                    host.state], check=True)
    try:
        yield
    finally:
        host.kill_daemon()
        subprocess.run(['umount', '-l', host.state], check=True)


def remount(host, how):
    subprocess.run(['mount', '-o', f'remount,{how}', host.state], check=True)


def fill(host, leave=0):
    """Leaves so many bytes in the store's file system."""
    path = os.path.join(host.state, 'filler')
    with open(path, 'wb', buffering=0) as out:
        try:
            while True:
                out.write(b'x' * 4096)
        except OSError:
            pass
        out.truncate(max(0, out.tell() - leave))
    return path


def refused(call, why):
    """A call that cannot be done says so."""
    try:
        call()
    except libvirt.libvirtError as error:
        if why not in str(error):
            raise Failure(f'{error}; not: {why}') from error
        return
    raise Failure(f'not refused: {why}')


def attempt(call, why):
    """A call that can be done or cannot: then it says so.  True: it was done."""
    try:
        call()
    except libvirt.libvirtError as error:
        if why not in str(error):
            raise
        return False
    return True


def filled_oracle(host):
    host.start_daemon()
    oracle = Oracle(host, VM(host, disks=DISKS), host.random)
    for _ in range(3):
        oracle.create(sorted(DISKS))
        oracle.write(3)
    oracle.check()
    return oracle


def delete(oracle, at):
    oracle.dom.checkpointLookupByName(oracle.moments[at].name).delete(0)
    del oracle.moments[at]


def copy(oracle):
    oracle.finish(oracle.moments[-1], 'vda')


def well_again(oracle):
    """Everything works, and nothing was lost."""
    oracle.create(sorted(DISKS))
    oracle.write(3)
    oracle.check(copies=True)


@limit(300)
def test_the_disk_is_full(host):
    """What needs room is refused or done, what makes room is done, guests start and
    end; nothing is lost, and with the room all works again."""
    full = 'No space left on device'
    with own_disk(host):
        oracle = filled_oracle(host)
        for leave in (0, 4096, 16384, 65536) if host.all else (0, 16384):
            filler = fill(host, leave)
            done = [attempt(oracle.create, full), attempt(lambda: copy(oracle), full)]
            if leave == 0 and any(done):
                raise Failure(f'done without room: {done}')
            oracle.write(3)
            delete(oracle, 1)
            oracle.check_list()
            oracle.restart_guest()
            oracle.restart_daemon()
            oracle.restart_guest()
            oracle.check_list()
            os.unlink(filler)
            well_again(oracle)


@limit(300)
def test_a_copy_meets_a_full_disk(host):
    """A mirror whose store becomes full on the way ends as if it were not."""
    with own_disk(host):
        oracle = filled_oracle(host)
        for pivot in (True, False):
            path = oracle.path('mirror')
            moment = oracle.moments[-1]
            images.write_image(path, moment.models['vda'])
            jobs.start_copy(oracle.dom, 'vda', path, moment.name, None, False)
            filler = fill(host)
            jobs.wait_ready(oracle.events, 'vda')
            oracle.write(3)
            disk = oracle.vm.disks['vda']
            oracle.dom.blockJobAbort(
                'vda', libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT if pivot else 0)
            at_end = disk.model.copy()
            wait_for(lambda: not oracle.dom.blockJobInfo('vda', 0), 'the job ends')
            oracle.events.wait('vda', 'completed' if pivot else 'canceled', timeout=20)
            if pivot:
                disk.path = path
                oracle.vm.verify('vda')
            else:
                images.expect_content(path, at_end, 'mirror')
            os.unlink(filler)
            well_again(oracle)


@limit(300)
def test_the_disk_cannot_be_written(host):
    """The daemon starts, lists, and passes all else on; guests start and end.  What
    needs the store is refused, until it can be written again."""
    with own_disk(host):
        oracle = filled_oracle(host)
        oracle.events.close()
        host.stop_daemon()
        remount(host, 'ro')
        host.start_daemon()
        oracle.connect()
        oracle.check_list()
        oracle.dom.checkpointLookupByName('c1').getXMLDesc(0)
        for call in (oracle.create, lambda: copy(oracle), lambda: delete(oracle, 0)):
            refused(call, 'Read-only file system')
        oracle.write(2)
        oracle.vm.destroy()
        oracle.vm.start(oracle.dom)
        oracle.write(2)
        oracle.check_list()
        remount(host, 'rw')
        well_again(oracle)


@limit(300)
def test_another_version_of_the_store(host):
    """The daemon starts, touches nothing there, and passes all else on; a client hears
    why there are no checkpoints.  Where the marker is right again all is there."""
    host.start_daemon()
    oracle = Oracle(host, VM(host, disks=DISKS), host.random)
    oracle.create(sorted(DISKS))
    oracle.write(3)
    oracle.events.close()
    host.stop_daemon()
    marker = os.path.join(host.state, 'virtcheckpoint-store')
    with open(marker, encoding='ascii') as source:
        text = source.read()
    for other in ('virtcheckpoint-store 99\n', '', None):
        os.unlink(marker)
        if other is None:
            os.mkdir(marker)
        else:
            with open(marker, 'w', encoding='ascii') as out:
                out.write(other)
        before = everything(host.state)
        host.start_daemon()
        oracle.connect()
        refused(oracle.dom.listAllCheckpoints, host.state)
        for call in (oracle.create, lambda: copy(oracle)):
            refused(call, host.state)
        oracle.write(2)
        oracle.vm.destroy()
        oracle.vm.start(oracle.dom)
        oracle.write(2)
        if everything(host.state) != before:
            raise Failure(f'{other}: the store was changed')
        if other is None:
            os.rmdir(marker)
        with open(marker, 'w', encoding='ascii') as out:
            out.write(text)
        well_again(oracle)
        oracle.events.close()
        host.stop_daemon()


def everything(folder):
    """Each file below folder with its size and time."""
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            full = os.path.join(path, name)
            stat = os.stat(full)
            found[full] = stat.st_size, stat.st_mtime_ns
    return found
