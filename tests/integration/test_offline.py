"""Guests that are off: the same calls, the same bits, and nothing is left behind."""

import base64
import glob
import os
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree

import libvirt

from lib import images, jobs, store
from lib.domain import CLUSTER, MIB, VM, qemu_img
from lib.faults import Sweep
from lib.host import Failure, wait_for
from lib.kills import refused_by_lock
from lib.oracle import Oracle
from lib.runner import limit, sample, slow
from lib.targets import Nbd, fill, small_place

SIZE = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE | libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}
# All that these tests start has it: without root they share the list of processes with
# whatever else runs.
MARK = 'VIRT_CHECKPOINT_TESTS_OF'
os.environ[MARK] = str(os.getpid())


def oracle_of(host, disks=None, env=None, **options):
    host.start_daemon(env=env or {})
    return Oracle(host, VM(host, disks=disks or DISKS, **options), host.random)


def expect_error(code, text, call, *args):
    try:
        call(*args)
    except libvirt.libvirtError as error:
        if error.get_error_code() != code or text not in error.get_error_message():
            raise Failure(f'{error.get_error_code()}: {error}') from error
        return
    raise Failure(f'no error {code} with "{text}"')


def checkpoint_xml(name):
    return f'<domaincheckpoint><name>{name}</name></domaincheckpoint>'


def storage_daemons():
    """Process ids and command lines of the storage daemons that these tests started."""
    mark = f'{MARK}={os.getpid()}'.encode()
    found = {}
    for path in glob.glob('/proc/[0-9]*'):
        try:
            with open(f'{path}/cmdline', 'rb') as file:
                line = file.read().split(b'\0')
            if os.path.basename(line[0]) != b'qemu-storage-daemon':
                continue
            with open(f'{path}/environ', 'rb') as file:
                if mark in file.read().split(b'\0'):
                    found[int(path.split('/')[2])] = line
        except OSError:
            continue
    return found


def none_left():
    wait_for(lambda: not storage_daemons(), 'the storage daemon is gone')


def sizes(oracle, name):
    xml = oracle.dom.checkpointLookupByName(name).getXMLDesc(SIZE)
    return {d.get('name'): int(d.get('size')) for d in
            ElementTree.fromstring(xml).iter('disk') if d.get('size')}


def delete(oracle, name):
    oracle.dom.checkpointLookupByName(name).delete(0)
    oracle.moments = [m for m in oracle.moments if m.name != name]
    oracle.check()


def test_made_off_seen_on_and_back(host):
    """Checkpoints made while off are there when the guest runs, and the other way."""
    oracle = oracle_of(host)
    oracle.write(4)
    for _ in range(3):
        oracle.stop_guest()
        oracle.create(['vda', 'vdb'])
        oracle.check()
        oracle.create(['vda'])
        oracle.check()
        oracle.start_guest()
        oracle.check()
        oracle.write(4)
        oracle.create(['vda', 'vdb'])
        oracle.write(4)
        oracle.check()
    none_left()


@sample
def test_deletions_while_off(host):
    """Newest, middle, oldest, all: sets stay complete, the last takes its bitmap along."""
    oracle = oracle_of(host)
    for _ in range(5):
        oracle.create(['vda', 'vdb'])
        oracle.write(4)
    oracle.stop_guest()
    oracle.create(['vda', 'vdb'])
    names = [m.name for m in oracle.moments]
    for name in (names[5], names[2], names[0], names[4], names[1]):
        delete(oracle, name)
    oracle.start_guest()
    oracle.check()
    oracle.write(4)
    oracle.stop_guest()
    oracle.create(['vda'])
    for moment in list(oracle.moments):
        delete(oracle, moment.name)
    none_left()
    wait_for(lambda: not os.path.exists(store.folder(host, oracle.vm)), 'folder goes')


def test_sizes_while_off(host):
    """size is the same, exactly, whether the guest runs or not."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.vm.write(0, 3 * CLUSTER, 1)
    oracle.create(['vda'])
    oracle.vm.write(2 * CLUSTER, 2 * CLUSTER, 2)
    oracle.vm.write(512, 512, 2, target='vdb')
    running = {name: sizes(oracle, name) for name in ('c1', 'c2')}
    oracle.stop_guest()
    assert {name: sizes(oracle, name) for name in ('c1', 'c2')} == running
    assert running['c1'] == {'vda': 4 * CLUSTER, 'vdb': CLUSTER}, running
    oracle.check()
    none_left()


def test_redefine_and_validate_while_off(host):
    """Redefining with validate looks into the images; a broken one is told."""
    oracle = oracle_of(host, disks={'vda': 4 * MIB})
    oracle.create(['vda'])
    oracle.write(2)
    oracle.stop_guest()
    flags = (libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE |
             libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE)
    xml = oracle.dom.checkpointLookupByName('c1').getXMLDesc(0)
    oracle.dom.checkpointCreateXML(xml, flags)
    path = oracle.vm.disks['vda'].path
    qemu_img('bitmap', '--remove', path, list(images.bitmaps(path))[0])
    expect_error(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, 'vda',
                 oracle.dom.checkpointCreateXML, xml, flags)


def test_storage_daemon_is_confined(host):
    """Our user, one capability, no way to more, and no network."""
    go = os.path.join(host.images, 'go')
    oracle = oracle_of(host, env={'VIRT_CHECKPOINT_FAULTS': f'offline/opened=hold:{go}'})
    oracle.stop_guest()
    creating = jobs.Later(oracle.dom.checkpointCreateXML, checkpoint_xml('held'), 0)
    wait_for(storage_daemons, 'the storage daemon runs')
    pid = list(storage_daemons())[0]
    with open(f'/proc/{pid}/status') as file:
        status = dict(line.split(':\t', 1) for line in file.read().splitlines()
                      if ':\t' in line)
    assert set(status['Uid'].split()) == {str(os.geteuid())}, status['Uid']
    assert status['NoNewPrivs'].strip() == '1'
    if os.geteuid() == 0:
        assert int(status['CapEff'], 16) == 1 << 1, status['CapEff']
        assert int(status['CapBnd'], 16) == 1 << 1, status['CapBnd']
        assert os.readlink(f'/proc/{pid}/ns/net') != os.readlink('/proc/self/ns/net')
    with open(go, 'w'):
        pass
    assert creating.join() is None
    none_left()


def test_locked_image_is_told(host):
    """Somebody else has the image open: a clear error, and nothing half done."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(4)
    oracle.stop_guest()
    socket = os.path.join(host.images, 'other.sock')
    other = subprocess.Popen(['qemu-nbd', '-t', '-k', socket, oracle.vm.disks['vdb'].path])
    try:
        wait_for(lambda: os.path.exists(socket), 'the other has it open')
        expect_error(libvirt.VIR_ERR_RESOURCE_BUSY, 'lock',
                     oracle.dom.checkpointCreateXML, checkpoint_xml('no'), 0)
    finally:
        other.terminate()
        other.wait()
    none_left()
    oracle.check()
    oracle.create(['vda', 'vdb'])
    oracle.start_guest()
    oracle.check()


def ours_in_images(oracle):
    return {target: len([name for name in images.bitmaps(disk.path)
                         if name.startswith('virtcheckpoint')])
            for target, disk in oracle.vm.disks.items()}


def delete_in_vain(host, oracle, why):
    """The last checkpoint goes, but not the bitmaps: the log names the images and says
    why."""
    oracle.dom.checkpointLookupByName(oracle.moments.pop().name).delete(0)
    none_left()
    told = [line for line in host.daemon_log().splitlines()
            if 'warning: ' in line and 'bitmaps that nobody needs' in line]
    assert ours_in_images(oracle) == {'vda': 1, 'vdb': 1}, ours_in_images(oracle)
    assert len(told) == 2, told
    for (target, disk), line in zip(oracle.vm.disks.items(), told):
        assert all(part in line for part in (oracle.vm.name, target, disk.path, why)), line


def takes_them_out(oracle):
    """The next operation does."""
    oracle.create(['vda'])
    assert ours_in_images(oracle) == {'vda': 1, 'vdb': 0}, ours_in_images(oracle)
    oracle.check()


def test_bitmaps_in_a_locked_image_are_told(host):
    """The last checkpoint goes while somebody else has an image open."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.stop_guest()
    socket = os.path.join(host.images, 'other.sock')
    other = subprocess.Popen(['qemu-nbd', '-t', '-k', socket, oracle.vm.disks['vdb'].path])
    try:
        wait_for(lambda: os.path.exists(socket), 'the other has it open')
        delete_in_vain(host, oracle, 'lock')
    finally:
        other.terminate()
        other.wait()
    takes_them_out(oracle)


def test_bitmaps_that_an_error_leaves_are_told(host):
    """An error is none of a storage daemon that died: only the next operation tries
    again."""
    log = os.path.join(host.work, 'passed')
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.stop_guest()
    host.restart_daemon(env={'VIRT_CHECKPOINT_FAULTS': 'offline/in-use@1=fail',
                             'VIRT_CHECKPOINT_FAULTS_LOG': log})
    oracle.connect()
    delete_in_vain(host, oracle, 'offline/in-use')
    assert count(log, 'offline/in-use') == 1
    takes_them_out(oracle)


def start_past_us(host, target, point):
    """A guest with a checkpoint of two disks is started on the stock socket when a creation
    for one of them has passed the point; returns what that start and the creation say."""
    go, log = (os.path.join(host.work, f'{target}-{name}') for name in ('go', 'log'))
    host.start_daemon()
    oracle = Oracle(host, VM(host, f'vm-{target}', DISKS), host.random)
    oracle.create(['vda', 'vdb'])
    oracle.write(4)
    oracle.stop_guest()
    oracle.events.close()
    host.restart_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'{point}@1=hold:{go}',
                             'VIRT_CHECKPOINT_FAULTS_LOG': log})
    oracle.connect()
    disks = ''.join(f"<disk name='{t}' checkpoint='{'bitmap' if t == target else 'no'}'/>"
                    for t in DISKS)
    oracle.about_to_create('held', [target])
    creating = jobs.Later(oracle.dom.checkpointCreateXML, '<domaincheckpoint><name>held'
                          f'</name><disks>{disks}</disks></domaincheckpoint>', 0)
    wait_for(lambda: reached(log, point), 'it is held')
    started = jobs.Later(oracle.vm.dom.create).join()
    with open(go, 'w'):
        pass
    created = creating.join()
    if created is None:
        oracle.moments.append(oracle.creating)
    if started and not refused_by_lock(started):
        raise Failure(f'a start meanwhile: {started!r}')
    none_left()
    oracle.check()
    oracle.start_guest()
    oracle.check()
    oracle.write(4)
    oracle.check(copies=True)
    oracle.vm.destroy()
    oracle.events.close()
    host.stop_daemon()
    return started, created


def test_a_start_past_us_loses_nothing(host):
    """A start on the stock socket while one disk is worked on is refused at the first
    image already: none stays marked as in use, and all is there at the next start."""
    assert start_past_us(host, 'vdb', 'offline/copied')[0]


def test_a_start_past_us_just_before(host):
    """One that comes when no image is open yet is refused at the first of them as well, or
    gets them all, and we are refused: whatever disk is worked on nothing is lost."""
    started, created = start_past_us(host, 'vdb', 'offline/guarded')
    assert started and not created, (started, created)
    started, created = start_past_us(host, 'vda', 'offline/guarded')
    assert not started and created, (started, created)
    assert created.get_error_code() == libvirt.VIR_ERR_RESOURCE_BUSY, created


def test_a_start_through_us_goes_first(host):
    """One that was let through finds no image open, whoever comes before libvirt shows it:
    a creation waits, and is one of the guest that runs.  A second start that fails takes
    nothing from the first."""
    go, log = (os.path.join(host.work, name) for name in ('go', 'points'))
    oracle = oracle_of(host, env={
        'VIRT_CHECKPOINT_FAULTS': f'start/settled@1=hold:{go},start/settled@2=fail',
        'VIRT_CHECKPOINT_FAULTS_LOG': log})
    oracle.create(['vda', 'vdb'])
    oracle.write(4)
    oracle.stop_guest()
    started = jobs.Later(oracle.dom.create)
    wait_for(lambda: reached(log, 'start/settled'), 'it is let through')
    expect_error(libvirt.VIR_ERR_OPERATION_FAILED, 'start/settled', oracle.dom.create)
    before = count(log, 'offline/guarded')
    oracle.about_to_create('meanwhile', ['vda', 'vdb'])
    created = jobs.Later(oracle.dom.checkpointCreateXML, checkpoint_xml('meanwhile'), 0)
    time.sleep(1)
    opened = count(log, 'offline/guarded') - before
    with open(go, 'w'):
        pass
    assert not opened, 'a creation opens images of a guest that is about to start'
    for call in (started, created):
        error = call.join()
        if error:
            raise error
    oracle.moments.append(oracle.creating)
    oracle.write(4)
    oracle.check(copies=True)


def test_missing_image_is_told(host):
    """An image that was moved: a clear error, and nothing half done."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(4)
    oracle.stop_guest()
    path = oracle.vm.disks['vdb'].path
    os.rename(path, path + '.moved')
    expect_error(libvirt.VIR_ERR_OPERATION_FAILED, path,
                 oracle.dom.checkpointCreateXML, checkpoint_xml('no'), 0)
    none_left()
    os.rename(path + '.moved', path)
    oracle.check()
    oracle.create(['vda', 'vdb'])
    oracle.check()


def test_who_takes_bitmaps_out_dies(host):
    """A creation is taken back by a daemon that dies while the bitmaps that nobody needs
    are still in the images: the next one takes them out, and nobody has to ask."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(3)
    oracle.stop_guest()
    log = os.path.join(host.work, 'points.log')
    host.restart_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'offline/opened@1=hold:{log}.gate',
                             'VIRT_CHECKPOINT_FAULTS_LOG': log})
    oracle.connect()
    call = jobs.Later(oracle.dom.checkpointCreateXML, checkpoint_xml('no'), 0)
    wait_for(lambda: os.path.exists(log) and 'offline/opened' in open(log).read(), 'it holds')
    for pid in storage_daemons():
        os.kill(pid, signal.SIGKILL)
    host.kill_daemon()
    assert call.join()
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': 'offline/restarted@1=exit'}, wait=False)
    host.wait_daemon()
    assert any(len(images.bitmaps(d.path)) > 1 for d in oracle.vm.disks.values())
    host.start_daemon()
    oracle.check_rest()
    oracle.connect()
    oracle.check(copies=True)
    assert 'released' not in os.listdir(store.folder(host, oracle.vm))


def test_the_last_goes_while_a_base_has_its_bitmap(host):
    """A bitmap of no use below the top of a guest that is off stays ours, without any
    checkpoint, until a commit makes its image writable."""
    oracle = oracle_of(host, disks={'vda': 16 * MIB})
    oracle.create()
    oracle.snapshot()
    oracle.write(3)
    oracle.stop_guest()
    oracle.dom.checkpointLookupByName(oracle.moments[0].name).delete(0)
    oracle.moments.clear()
    assert 'released' in os.listdir(store.folder(host, oracle.vm))
    oracle.start_guest()
    oracle.commit()
    oracle.check()
    wait_for(lambda: not os.path.exists(store.folder(host, oracle.vm)), 'the folder goes')


def test_full_image_is_told(host):
    """An image that cannot take its bitmap: a clear error, and nothing half done."""
    with small_place(host, 16 * MIB) as place:
        vm = VM(host, disks=DISKS, start=False)
        vm.disks['vdb'].path = shutil.move(vm.disks['vdb'].path, place)
        vm.dom = vm.conn.defineXML(vm.xml().replace(
            '</name>', f'</name><uuid>{vm.uuid}</uuid>', 1))
        host.start_daemon()
        oracle = Oracle(host, vm, host.random)
        fill(place)
        expect_error(libvirt.VIR_ERR_OPERATION_FAILED, "disk 'vdb'",
                     oracle.dom.checkpointCreateXML, checkpoint_xml('no'), 0)
        none_left()
        oracle.check_list()
        oracle.check_rest()
        os.unlink(os.path.join(place, 'filler'))
        oracle.create(['vda', 'vdb'])
        oracle.start_guest()
        oracle.write(4)
        oracle.check()
        vm.destroy()


def test_paused_and_saved_guests(host):
    """A paused guest runs; one whose memory was saved is off, with the disks it had."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(3)
    oracle.vm.dom.suspend()
    oracle.create(['vda', 'vdb'])
    oracle.check_list()
    oracle.check_sets()
    oracle.vm.dom.resume()
    oracle.write(3)
    # A paused QEMU lets go of no descriptor: settling asks again.
    oracle.restart_daemon()
    oracle.check()
    oracle.vm.dom.managedSave(0)
    assert oracle.vm.dom.hasManagedSaveImage(0)
    oracle.check()
    oracle.create(['vda', 'vdb'])
    oracle.check()
    oracle.finish(oracle.moments[0], 'vda', 'saved')
    delete(oracle, oracle.moments[1].name)
    assert oracle.vm.dom.hasManagedSaveImage(0)
    oracle.start_guest()
    assert not oracle.vm.dom.hasManagedSaveImage(0)
    oracle.check()
    oracle.write(3)
    oracle.check()


def count(log, point):
    try:
        with open(log) as file:
            return file.read().split().count(point)
    except FileNotFoundError:
        return 0


def reached(log, point):
    return count(log, point) > 0


def test_killed_with_its_storage_daemon(host):
    """Both are killed in the middle: what was copied before is not lost."""
    for point in ('offline/kept', 'offline/in-use', 'offline/opened', 'create/transaction'):
        go = os.path.join(host.images, 'go')
        host.start_daemon()
        oracle = Oracle(host, VM(host, f'vm-{point.replace("/", "-")}', DISKS), host.random)
        oracle.create(['vda', 'vdb'])
        oracle.write(4)
        oracle.stop_guest()
        host.stop_daemon()
        log = os.path.join(host.logs, f'{oracle.vm.name}-faults.log')
        host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'{point}@1=hold:{go}',
                               'VIRT_CHECKPOINT_FAULTS_LOG': log})
        oracle.connect()
        thread = jobs.Later(oracle.dom.checkpointCreateXML, checkpoint_xml('never'), 0)
        wait_for(lambda: reached(log, point), f'{point} is reached')
        for pid in storage_daemons():
            os.kill(pid, signal.SIGKILL)
        host.kill_daemon()
        thread.join()
        host.start_daemon()
        oracle.connect()
        oracle.check()
        oracle.create(['vda', 'vdb'])
        oracle.start_guest()
        oracle.check()
        oracle.write(4)
        oracle.check()
        oracle.vm.destroy()
        host.stop_daemon()


def test_a_guest_between_two_daemons(host):
    """Both are killed with images open, and a guest runs past us before we are back: what
    it wrote is in no bitmap, and that is told; other disks lose nothing."""
    go = os.path.join(host.images, 'go')
    log = os.path.join(host.logs, 'faults.log')
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(4)
    oracle.stop_guest()
    host.stop_daemon()
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'offline/in-use@1=hold:{go}',
                           'VIRT_CHECKPOINT_FAULTS_LOG': log})
    oracle.connect()
    xml = ("<domaincheckpoint><name>never</name><disks><disk name='vda' checkpoint='bitmap'/>"
           "<disk name='vdb' checkpoint='no'/></disks></domaincheckpoint>")
    thread = jobs.Later(oracle.dom.checkpointCreateXML, xml, 0)
    wait_for(lambda: reached(log, 'offline/in-use'), 'the image is open')
    for pid in storage_daemons():
        os.kill(pid, signal.SIGKILL)
    host.kill_daemon()
    thread.join()
    oracle.vm.start(oracle.vm.dom)
    oracle.write(4)
    oracle.vm.destroy()
    host.start_daemon()
    oracle.connect()
    oracle.dom.listAllCheckpoints()
    wait_for(lambda: store.lost(host, oracle.vm, 'c1'), 'the loss is recorded')
    assert store.lost(host, oracle.vm, 'c1') == {'vda'}, store.lost(host, oracle.vm, 'c1')
    oracle.check_rest()
    del oracle.moments[0].models['vda']
    oracle.check_sets()
    oracle.create(['vda', 'vdb'])
    oracle.start_guest()
    oracle.write(4)
    oracle.check()


def kept_copy(oracle, target='vda'):
    """An image of the disk as of now."""
    path = os.path.join(oracle.host.images, f'replica-{target}.qcow2')
    images.write_image(path, oracle.vm.disks[target].model)
    return path


def test_incremental_copies_while_off(host):
    """finish with bitmap, with checkpoint, full: the target is the disk, events come."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(6)
    oracle.stop_guest()
    oracle.finish(oracle.moments[0], 'vda')
    oracle.finish(oracle.moments[0], 'vdb', 'next')
    oracle.check(copies=True)
    oracle.finish(None, 'vda')
    oracle.start_guest()
    oracle.write(6)
    oracle.check(copies=True)
    oracle.stop_guest()
    oracle.check(copies=True)
    none_left()


@sample
def test_copy_while_off_can_be_watched_and_aborted(host):
    """Progress, speed, a start that is refused, pivot refused, abort."""
    oracle = oracle_of(host, disks={'vda': 64 * MIB})
    path = kept_copy(oracle)
    oracle.create(['vda'])
    oracle.vm.write(0, 32 * MIB, 7)
    oracle.stop_guest()
    jobs.start_copy(oracle.dom, 'vda', path, 'c1', 'c2', True, bandwidth=MIB)
    info = oracle.dom.blockJobInfo('vda', 0)
    assert info['type'] == libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY, info
    assert info['end'] == 32 * MIB, info
    expect_error(libvirt.VIR_ERR_OPERATION_INVALID, 'copied', oracle.dom.create)
    try:
        oracle.vm.dom.create()
        raise Failure('started on a disk that is being copied')
    except libvirt.libvirtError as error:
        assert refused_by_lock(error), error
    expect_error(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, 'block job',
                 oracle.dom.checkpointCreateXML, checkpoint_xml('no'), 0)
    assert sizes(oracle, 'c1') == {'vda': 32 * MIB}
    expect_error(libvirt.VIR_ERR_OPERATION_INVALID, 'finish', oracle.dom.blockJobAbort,
                 'vda', libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    oracle.dom.blockJobAbort('vda', 0)
    assert oracle.events.wait('vda', 'canceled', 'completed') == 'canceled'
    none_left()
    oracle.check()
    jobs.start_copy(oracle.dom, 'vda', path, 'c1', 'c2', True, bandwidth=MIB)
    oracle.dom.blockJobSetSpeed('vda', 0, 0)
    jobs.wait_end(oracle.events, oracle.dom, 'vda')
    images.expect_content(path, oracle.vm.disks['vda'].model)
    oracle.about_to_create('c2', ['vda'])
    oracle.moments.append(oracle.creating)
    oracle.check()
    none_left()
    oracle.start_guest()
    oracle.check()


def encrypted(path):
    """A LUKS qcow2; on a busy machine QEMU 7.2 now and then cannot measure its key."""
    for _ in range(20):
        try:
            return qemu_img('create', '-q', '--object', 'secret,id=s,data=sesame', '-f',
                            'qcow2', '-o', 'encrypt.format=luks,encrypt.key-secret=s,'
                            'encrypt.iter-time=10', path, str(4 * MIB))
        except Failure as error:
            if 'CPU usage' not in str(error):
                raise
    raise Failure('no LUKS image can be made')


def expect_no_secret(secret):
    """Nobody sees it in a storage daemon's arguments or environment."""
    pid = list(wait_for(storage_daemons, 'a storage daemon runs'))[0]
    shown = b''
    for name in ('cmdline', 'environ'):
        with open(f'/proc/{pid}/{name}', 'rb') as file:
            shown += file.read()
    assert b'luks' in shown and secret not in shown, shown
    assert base64.b64encode(secret) not in shown, shown


def test_encrypted_disk_while_off(host):
    """The passphrase comes from libvirt's secret, and nobody can see it."""
    path = os.path.join(host.images, 'secret.qcow2')
    encrypted(path)
    stock = host.connect()
    secret = stock.secretDefineXML(
        "<secret ephemeral='no' private='no'><usage type='volume'>"
        f'<volume>{path}</volume></usage></secret>')
    secret.setValue(b'sesame')
    stock.defineXML(
        f"""<domain type='qemu'><name>vm</name><memory unit='MiB'>32</memory>
        <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
        <source file='{path}'><encryption format='luks'><secret type='passphrase'
        uuid='{secret.UUIDString()}'/></encryption></source>
        <target dev='vda' bus='virtio'/></disk></devices></domain>""")
    go = os.path.join(host.images, 'go')
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'offline/opened=hold:{go}'})
    dom = host.connect(ours=True).lookupByName('vm')
    creating = jobs.Later(dom.checkpointCreateXML, checkpoint_xml('c1'), 0)
    expect_no_secret(b'sesame')
    with open(go, 'w'):
        pass
    assert creating.join() is None
    dom.checkpointCreateXML(checkpoint_xml('c2'), 0)
    assert "size='0'" in dom.checkpointLookupByName('c1').getXMLDesc(SIZE)
    assert [b.recording for b in images.bitmaps(path).values()] == [True]
    for name in ('c1', 'c2'):
        dom.checkpointLookupByName(name).delete(0)
    assert not images.bitmaps(path)
    none_left()


def test_network_disk_while_off(host):
    """qcow2 behind NBD; a kind that cannot be opened is named."""
    path = os.path.join(host.images, 'remote.qcow2')
    socket = os.path.join(host.images, 'remote.sock')
    qemu_img('create', '-q', '-f', 'qcow2', path, str(4 * MIB))
    os.truncate(path, 8 * MIB)  # what is behind NBD does not grow
    server = subprocess.Popen(['qemu-nbd', '-t', '-f', 'raw', '-k', socket, '-x', 'a', path])
    try:
        wait_for(lambda: os.path.exists(socket), 'the server listens')
        xml = """<domain type='qemu'><name>vm</name><memory unit='MiB'>32</memory>
            <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
            <disk type='network' device='disk'><driver name='qemu' type='qcow2'/>%s
            <target dev='vda' bus='virtio'/></disk></devices></domain>"""
        stock = host.connect()
        dom = stock.defineXML(xml % f"""<source protocol='nbd' name='a'><host
            transport='unix' socket='{socket}'/></source>""")
        uuid = f'<uuid>{dom.UUIDString()}</uuid>'
        host.start_daemon()
        ours = host.connect(ours=True).lookupByName('vm')
        ours.checkpointCreateXML(checkpoint_xml('c1'), 0)
        ours.checkpointCreateXML(checkpoint_xml('c2'), 0)
        assert "size='0'" in ours.checkpointLookupByName('c1').getXMLDesc(SIZE)
        none_left()
        for name in ('c1', 'c2'):
            ours.checkpointLookupByName(name).delete(0)
        stock.defineXML((xml % """<source protocol='sheepdog' name='a'><host
            name='h'/></source>""").replace('</name>', '</name>' + uuid))
        expect_error(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "disk 'vda'",
                     ours.checkpointCreateXML, checkpoint_xml('c1'), 0)
    finally:
        server.terminate()
        server.wait()
    assert not images.bitmaps(path)


def network_guest(host, server):
    """A domain whose disk is qcow2 behind this server."""
    server.stop()
    qemu_img('create', '-q', '-f', 'qcow2', server.path, str(4 * MIB))
    os.truncate(server.path, 8 * MIB)  # what is behind NBD does not grow
    server.start()
    return host.connect().defineXML(
        f"""<domain type='qemu'><name>vm</name><memory unit='MiB'>32</memory>
        <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
        {server.xml.replace('</disk>', "<target dev='vda' bus='virtio'/></disk>")}
        </devices></domain>""")


@slow
@limit(400)
def test_server_that_hangs_while_off(host):
    """A server that hangs, before images are opened or while they are open, is waited for
    so long, and named; when it answers again everything works."""
    go, log = os.path.join(host.images, 'go'), os.path.join(host.logs, 'faults.log')
    with Nbd(host, 'remote.qcow2', 4 * MIB, fmt='qcow2') as server:
        network_guest(host, server)
        host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'offline/in-use@2=hold:{go}',
                               'VIRT_CHECKPOINT_FAULTS_LOG': log})
        dom = host.connect(ours=True).lookupByName('vm')
        dom.checkpointCreateXML(checkpoint_xml('c1'), 0)
        server.hold()
        expect_error(libvirt.VIR_ERR_OPERATION_TIMEOUT, "disk 'vda'",
                     dom.checkpointCreateXML, checkpoint_xml('c2'), 0)
        none_left()
        server.hold(False)
        hung = jobs.Later(dom.checkpointCreateXML, checkpoint_xml('c2'), 0)
        wait_for(lambda: count(log, 'offline/in-use') == 2, 'the image is open again')
        server.hold()
        with open(go, 'w'):
            pass
        error = hung.join(300)
        assert error and "disk 'vda'" in error.get_error_message(), error
        none_left()
        server.hold(False)
        assert 'c2' not in [c.getName() for c in dom.listAllCheckpoints()]
        dom.checkpointCreateXML(checkpoint_xml('c2'), 0)
        for one in dom.listAllCheckpoints():
            one.delete(0)
        none_left()
    assert not images.bitmaps(server.path)


@slow
@limit(400)
def test_server_that_hangs_when_we_die(host):
    """A storage daemon that cannot close a hanging server's image when we are killed gets
    its time, and is killed by our successor; then the domain can be worked on."""
    go, log = os.path.join(host.images, 'go'), os.path.join(host.logs, 'faults.log')
    with Nbd(host, 'remote.qcow2', 4 * MIB, fmt='qcow2') as server:
        dom = network_guest(host, server)
        host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'offline/in-use@2=hold:{go}',
                               'VIRT_CHECKPOINT_FAULTS_LOG': log})
        ours = host.connect(ours=True).lookupByName('vm')
        ours.checkpointCreateXML(checkpoint_xml('c1'), 0)
        none_left()
        hung = jobs.Later(ours.checkpointCreateXML, checkpoint_xml('c2'), 0)
        wait_for(lambda: count(log, 'offline/in-use') == 2, 'the image is open')
        left = list(storage_daemons())[0]
        server.hold()
        host.kill_daemon()
        hung.join()
        host.start_daemon()
        ours = host.connect(ours=True).lookupByName('vm')
        waits = jobs.Later(ours.checkpointCreateXML, checkpoint_xml('c3'), 0)
        assert left in storage_daemons()
        wait_for(lambda: left not in storage_daemons(), 'it is killed', 120)
        server.hold(False)
        error = waits.join(200)
        assert not error, error
        none_left()
        assert [c.getName() for c in ours.listAllCheckpoints()] == ['c1', 'c3']
        # What is on a server shows no times: who wrote to it since is not known.
        expect_error(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, "disk 'vda'",
                     ours.checkpointLookupByName('c1').getXMLDesc, SIZE)
        assert "size='0'" in ours.checkpointLookupByName('c3').getXMLDesc(SIZE)
        for one in ours.listAllCheckpoints():
            one.delete(0)
        none_left()
        dom.undefine()
    assert not images.bitmaps(server.path)


def test_only_finishing_copies_while_off(host):
    """A live mirror needs a guest."""
    oracle = oracle_of(host, disks={'vda': 4 * MIB})
    oracle.create(['vda'])
    path = kept_copy(oracle)
    oracle.stop_guest()
    expect_error(libvirt.VIR_ERR_OPERATION_INVALID, 'not running', jobs.start_copy,
                 oracle.dom, 'vda', path, 'c1')
    expect_error(libvirt.VIR_ERR_OPERATION_INVALID, 'not running',
                 oracle.dom.checkpointCreateXML, checkpoint_xml('no'),
                 libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_QUIESCE)


def interrupted_copy(host, end):
    """A copy is half done when the daemon ends by this."""
    oracle = oracle_of(host, disks={'vda': 64 * MIB, 'vdb': MIB})
    path = kept_copy(oracle)
    oracle.create(['vda', 'vdb'])
    oracle.vm.write(0, 32 * MIB, 7)
    oracle.stop_guest()
    oracle.about_to_create('c2', ['vda'])
    jobs.start_copy(oracle.dom, 'vda', path, 'c1', 'c2', True, bandwidth=16 * MIB)
    wait_for(lambda: oracle.dom.blockJobInfo('vda', 0)['cur'] >= 4 * MIB, 'a part is copied')
    oracle.dom.blockJobSetSpeed('vda', 1, 0)
    oracle.events.close()
    end()
    none_left()
    return oracle, path


def test_copy_while_off_survives_the_daemon(host):
    """A daemon that ends leaves a copy to its successor, which copies what is left; one
    that is killed one that begins again.  Both end as if nothing had happened."""
    for end, most in ((host.stop_daemon, 28 * MIB), (host.kill_daemon, 32 * MIB)):
        oracle, path = interrupted_copy(host, end)
        host.start_daemon()
        oracle.connect()
        info = oracle.dom.blockJobInfo('vda', 0)
        assert info['type'] == libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY, info
        expect_error(libvirt.VIR_ERR_OPERATION_INVALID, 'copied', oracle.dom.create)
        wait_for(lambda: storage_daemons(), 'it goes on')
        wait_for(lambda: oracle.dom.blockJobInfo('vda', 0)['end'] <= most, 'what is left is known')
        oracle.dom.blockJobSetSpeed('vda', 0, 0)
        jobs.wait_end(oracle.events, oracle.dom, 'vda')
        oracle.moments.append(oracle.creating)
        images.expect_content(path, oracle.vm.disks['vda'].model)
        none_left()
        oracle.check()
        oracle.start_guest()
        oracle.check(copies=True)
        oracle.vm.destroy()
        oracle.vm.dom.undefine()
        oracle.events.close()
        host.stop_daemon()
        os.unlink(path)


def test_start_past_us_while_a_copy_runs(host):
    """It is refused at the first image, which loses nothing; a second copy gets at its
    disk meanwhile, and when the copies are over nothing is locked."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(6)
    oracle.vm.write(0, 2 * MIB, 5, 'vdb')
    path = kept_copy(oracle, 'vdb')
    oracle.stop_guest()
    jobs.start_copy(oracle.dom, 'vdb', path, 'c1', None, True, bandwidth=MIB // 8)
    for _ in range(2):
        try:
            oracle.vm.dom.create()
            raise Failure('started while a disk is being copied')
        except libvirt.libvirtError as error:
            assert refused_by_lock(error), error
        if len(oracle.moments) == 1:
            oracle.finish(oracle.moments[0], 'vda', 'next')
    assert jobs.shown(oracle.dom, 'vdb')
    oracle.dom.blockJobSetSpeed('vdb', 0, 0)
    jobs.wait_end(oracle.events, oracle.dom, 'vdb')
    oracle.check()
    oracle.create(['vda', 'vdb'])
    oracle.start_guest()
    oracle.check(copies=True)


def test_copy_while_off_of_a_disk_that_changed(host):
    """A guest ran before the next daemon was there: the copy failed, its checkpoint is
    gone, what the guest wrote is known."""
    oracle, _path = interrupted_copy(host, host.random.choice((host.stop_daemon,
                                                               host.kill_daemon)))
    oracle.vm.start(oracle.vm.dom)
    oracle.write(4)
    if host.random.random() < 0.5:
        oracle.vm.destroy()
    go = os.path.join(host.images, 'go')
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'mirror/cleaning@1=hold:{go}'})
    oracle.connect()
    with open(go, 'w'):
        pass
    status = oracle.events.wait('vda', 'completed', 'failed', 'canceled')
    assert status == 'failed', status
    wait_for(lambda: not jobs.shown(oracle.dom, 'vda'), 'the copy is given up')
    oracle.check()
    oracle.start_guest()
    oracle.check(copies=True)


def sweep(host, act, before=2, after=None, share=0.2):
    def setup(oracle):
        for _ in range(before):
            oracle.create(['vda', 'vdb'])
            oracle.write(3)
        oracle.stop_guest()

    def act_off(oracle):
        oracle.stop_guest()
        act(oracle)
    assert Sweep(host, setup, act_off, DISKS, after=after).run(1.0 if host.all else share)
    none_left()


@limit(900)
def test_stopped_while_creating(host):
    """The daemon stops dead at every point of a creation of two disks, all off."""
    sweep(host, lambda oracle: oracle.create(['vda', 'vdb']))


@limit(900)
def test_stopped_while_deleting_all(host):
    """The daemon stops dead at every point of deleting the only checkpoint."""
    def act(oracle):
        oracle.dom.checkpointLookupByName(oracle.moments[0].name).delete(0)
        oracle.moments = []
    sweep(host, act, before=1)


def start_at_once(oracle):
    """The guest starts before anybody has settled what was left, and writes; through us it
    is settled first."""
    if oracle.host.random.random() < 0.5:
        oracle.host.start_daemon()
        oracle.connect()
        oracle.vm.start(oracle.dom)
        oracle.events.close()
    else:
        none_left()
        oracle.vm.start()
    oracle.write(3)


@limit(900)
def test_started_after_a_stop_while_creating(host):
    """The daemon stops dead at a point of a creation, and the guest starts at once."""
    sweep(host, lambda oracle: oracle.create(['vda', 'vdb']), 1, start_at_once, 0.04)


@limit(900)
def test_started_after_a_stop_while_deleting(host):
    """The same in a deletion of the newest of two."""
    def act(oracle):
        oracle.dom.checkpointLookupByName(oracle.moments[-1].name).delete(0)
        oracle.moments.pop()
    sweep(host, act, 2, start_at_once, 0.05)


@limit(1800)
def test_stopped_while_copying(host):
    """The daemon stops dead at every point of a copy with a checkpoint."""
    def act(oracle):
        oracle.finish(oracle.moments[0], 'vda', oracle._name())
    sweep(host, act, before=1, share=0.1)


@limit(600)
def test_random_sequence(host):
    """Random operations with the guest off and on."""
    oracle = oracle_of(host)
    oracle.STEPS = (('write', 24), ('create', 16), ('delete', 10), ('snapshot', 3),
                    ('commit', 4), ('finish', 8), ('stop_guest', 9), ('start_guest', 9),
                    ('restart_daemon', 3))
    for step in range(300 if host.all else 70):
        oracle.step()
        if step % 6 == 5:
            oracle.check()
    oracle.check()
    none_left()


def test_looking_up_during_a_copy(host):
    """A copy that this daemon began leaves nothing in doubt: whoever looks up a
    checkpoint meanwhile waits for no settling."""
    log = os.path.join(host.logs, 'points.log')
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS_LOG': log})
    oracle = Oracle(host, VM(host, disks={'vda': 64 * MIB}), host.random)
    oracle.create()
    path = oracle.path('target')
    images.write_image(path, oracle.moments[0].models['vda'])
    oracle.vm.write(0, 32 * MIB, 7)
    oracle.stop_guest()
    oracle.events.forget()
    jobs.start_copy(oracle.dom, 'vda', path, 'c1', 'c2', True, bandwidth=MIB)

    def settlings():
        with open(log) as points:
            return points.read().split().count('settle/jobs')
    before = settlings()
    for _ in range(10):
        for name in ('c1', 'c2'):
            oracle.dom.checkpointLookupByName(name).getXMLDesc()
        oracle.dom.listAllCheckpoints()
    assert settlings() == before and jobs.shown(oracle.dom, 'vda')
    oracle.dom.blockJobAbort('vda', 0)
    wait_for(lambda: not jobs.shown(oracle.dom, 'vda'), 'the copy ends')
