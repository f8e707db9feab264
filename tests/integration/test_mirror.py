"""The incremental mirror: copies judged by content, errors, aborts, pivots, crashes."""

import glob
import os
import signal
import subprocess
import threading
import time

import libvirt

from lib import images, jobs, store
from lib.domain import CLUSTER, MIB, VM, qemu_img
from lib.faults import Sweep
from lib.host import Failure, wait_for
from lib.oracle import Oracle
from lib.runner import Skip, limit, sample, slow
from lib.scene import Scene

REUSE = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT


def test_full_copy_and_incremental_finish(host):
    """A full copy with a checkpoint, then increments, hold the disk of their moment."""
    scene = Scene(host)
    vm = scene.vm
    vm.write(0, 8 * MIB, 0x11)
    path = os.path.join(host.images, 'replica.qcow2')
    scene.copy(path, checkpoint='c1')
    images.expect_content(path, vm.disks['vda'].model, 'full copy')
    scene.settled()
    for step in range(1, 4):
        vm.write(step * MIB, 3 * CLUSTER, 0x20 + step)
        vm.write(30 * MIB + step * 512, 512, 0x30 + step)
        scene.copy(path, bitmap=f'c{step}', checkpoint=f'c{step + 1}')
        images.expect_content(path, vm.disks['vda'].model, f'increment {step}')
        scene.settled()
    vm.verify()


def test_raw_target(host):
    """A raw file takes full and incremental copies that finish."""
    scene = Scene(host)
    vm = scene.vm
    vm.write(MIB, 4 * MIB, 0x41)
    path = scene.path('replica.raw', fmt='raw')
    scene.copy(path, checkpoint='c1', fmt='raw')
    images.expect_content(path, vm.disks['vda'].model, 'full', fmt='raw')
    vm.write(2 * MIB, 512, 0x42)
    vm.zero(3 * MIB, CLUSTER)
    scene.copy(path, bitmap='c1', checkpoint='c2', fmt='raw')
    images.expect_content(path, vm.disks['vda'].model, 'increment', fmt='raw')
    scene.settled()


def refused(scene, code, path, text='', target='vda', fmt='qcow2', flags=REUSE, **params):
    """The call is refused with that code, and nothing of it is left."""
    before = sorted(os.listdir(scene.host.images))
    try:
        jobs.start_copy(scene.dom, target, path, flags=flags, fmt=fmt, **params)
    except libvirt.libvirtError as error:
        if error.get_error_code() != code or text not in str(error):
            raise Failure(f'refused with {error.get_error_code()}: {error}') from None
    else:
        raise Failure(f'not refused: {path} {params}')
    if sorted(os.listdir(scene.host.images)) != before:
        raise Failure(f'files changed: {sorted(os.listdir(scene.host.images))}')
    scene.settled()


def test_refusals_before_anything(host):
    """What cannot work is refused with libvirt's code before anything is begun."""
    cdrom = f'''<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
      <disk type='file' device='disk'><driver name='qemu' type='raw'/>
      <source file='{host.images}/plain.raw'/><target dev='vdb' bus='virtio'/></disk>
      <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
      <source file='{host.images}/ro.qcow2'/><target dev='vdc' bus='virtio'/><readonly/>
      </disk>'''
    qemu_img('create', '-q', '-f', 'raw', f'{host.images}/plain.raw', '1M')
    qemu_img('create', '-q', '-f', 'qcow2', f'{host.images}/ro.qcow2', '1M')
    scene = Scene(host, VM(host, extra_devices=cdrom))
    vm, good = scene.vm, scene.path('good.qcow2')
    scene.copy(good, checkpoint='c1')
    refused(scene, libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT, good, 'nope', bitmap='nope')
    refused(scene, libvirt.VIR_ERR_INVALID_ARG, good, 'REUSE_EXT', bitmap='c1', flags=0)
    refused(scene, libvirt.VIR_ERR_SYSTEM_ERROR, good + '.no', 'missing', bitmap='c1')
    refused(scene, libvirt.VIR_ERR_CONFIG_UNSUPPORTED, good, 'already exists',
            checkpoint='c2', flags=0)
    refused(scene, libvirt.VIR_ERR_INVALID_ARG, scene.path('small.qcow2', size=MIB),
            'size', bitmap='c1')
    refused(scene, libvirt.VIR_ERR_INVALID_ARG, vm.disks['vda'].path, 'itself',
            bitmap='c1')
    os.link(vm.disks['vda'].path, f'{host.images}/other-name')
    refused(scene, libvirt.VIR_ERR_INVALID_ARG, f'{host.images}/other-name', 'itself',
            bitmap='c1')
    refused(scene, libvirt.VIR_ERR_INVALID_ARG, good, 'vdz', target='vdz', bitmap='c1')
    refused(scene, libvirt.VIR_ERR_OPERATION_INVALID, good, 'sda', target='sda',
            bitmap='c1')
    refused(scene, libvirt.VIR_ERR_CONFIG_UNSUPPORTED, good, 'qcow2', target='vdb',
            bitmap='c1')
    refused(scene, libvirt.VIR_ERR_OPERATION_INVALID, good, 'read-only', target='vdc',
            checkpoint='c2')
    raw = scene.path('r.raw', fmt='raw')
    refused(scene, libvirt.VIR_ERR_OPERATION_FAILED, raw, '', bitmap='c1')
    qemu_img('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', good,
             f'{host.images}/backed.qcow2')
    refused(scene, libvirt.VIR_ERR_CONFIG_UNSUPPORTED, f'{host.images}/backed.qcow2',
            'refers', bitmap='c1')
    other = VM(host, 'other', {'vda': vm.disks['vda'].size})
    refused(scene, libvirt.VIR_ERR_RESOURCE_BUSY, other.disks['vda'].path, 'in use',
            bitmap='c1')
    other.destroy()
    refused(scene, libvirt.VIR_ERR_INVALID_ARG, good, 'a/b', bitmap='c1',
            checkpoint='a/b')
    try:
        jobs.start_copy(scene.dom, 'vda', good, bitmap='c1', checkpoint='c1')
        raise Failure('a checkpoint was made twice')
    except libvirt.libvirtError as error:
        if 'already exists' not in str(error):
            raise
    scene.settled()
    vm.destroy()
    try:
        jobs.start_copy(scene.dom, 'vda', good, bitmap='c1')
        raise Failure('the domain is off')
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise


def test_live_mirror_stopped_when_ready(host):
    """Stopped at READY the target is the disk at that moment, and its checkpoint."""
    scene = Scene(host)
    vm, path = scene.vm, os.path.join(host.images, 'replica.qcow2')
    vm.write(0, 4 * MIB, 0x51)
    jobs.start_copy(scene.dom, 'vda', path, checkpoint='c1')
    jobs.wait_ready(scene.events, 'vda')
    info = scene.dom.blockJobInfo('vda', 0)
    if info['type'] != libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY or info['cur'] != info['end']:
        raise Failure(f'a ready mirror is shown as {info}')
    vm.write(5 * MIB, MIB, 0x52)
    scene.dom.blockJobAbort('vda', 0)
    scene.events.wait('vda', 'canceled')
    if scene.dom.blockJobInfo('vda', 0):
        raise Failure('the job is still there')
    images.expect_content(path, vm.disks['vda'].model, 'mirror')
    scene.settled()
    vm.write(6 * MIB, 512, 0x53)
    scene.copy(path, bitmap='c1')
    images.expect_content(path, vm.disks['vda'].model, 'increment')
    scene.settled()
    if [kind for *_, kind in scene.events.seen()]:
        raise Failure(f'more events than a copy has: {scene.events.seen()}')


def slow_bulk(scene, path, **params):
    """A copy whose bulk pass takes long; returns when it copies."""
    jobs.start_copy(scene.dom, 'vda', path, bandwidth=MIB, **params)


@sample
def test_abort_in_the_bulk_pass(host):
    """Aborted early: cancelled, the guest back on its image, no checkpoint, no target."""
    scene = Scene(host)
    vm = scene.vm
    vm.write(0, 16 * MIB, 0x91)
    path = os.path.join(host.images, 'replica.qcow2')
    for finish in (True, False):
        slow_bulk(scene, path, checkpoint='c1', finish=finish)
        vm.write(MIB, MIB, 0x92)
        try:
            scene.dom.blockJobAbort('vda', libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
            raise Failure('pivoted before it was ready')
        except libvirt.libvirtError as error:
            wanted = libvirt.VIR_ERR_OPERATION_INVALID if finish else \
                libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
            if error.get_error_code() != wanted:
                raise
        try:
            slow_bulk(scene, path + '2', checkpoint='c2')
            raise Failure('two jobs on one disk')
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:
                raise
        flags = 0 if finish else libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC
        scene.dom.blockJobAbort('vda', flags)
        scene.events.wait('vda', 'canceled')
        if scene.dom.blockJobInfo('vda', 0) or os.path.exists(path):
            raise Failure('something is left')
        if scene.dom.listAllCheckpoints():
            raise Failure('the checkpoint stayed')
        scene.settled()
        vm.verify()


def test_speed_and_progress(host):
    """The speed can be changed; progress only grows and ends with the job."""
    scene = Scene(host)
    vm = scene.vm
    vm.write(0, 16 * MIB, 0xa1)
    path = scene.path('replica.qcow2')
    slow_bulk(scene, path, checkpoint='c1')
    seen = []
    started = time.monotonic()
    while True:
        info = scene.dom.blockJobInfo('vda', libvirt.VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES)
        seen.append((info['cur'], info['end'], info['bandwidth']))
        if info['cur'] == info['end']:
            break
        if len(seen) == 10:
            scene.dom.blockJobSetSpeed('vda', 4 * MIB,
                                       libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES)
        if len(seen) == 30:
            scene.dom.blockJobSetSpeed('vda', 0, 0)
        time.sleep(0.03)
    if time.monotonic() - started > 20:
        raise Failure('the new speed had no effect')
    shares = [cur / end for cur, end, _ in seen]
    if any(b < a for a, b in zip(shares, shares[1:])):
        raise Failure(f'progress fell: {seen}')
    if not {MIB, 4 * MIB, 0} <= {speed for *_, speed in seen}:
        raise Failure(f'speeds shown: {seen}')
    scene.events.wait('vda', 'ready')
    scene.dom.blockJobAbort('vda', 0)
    images.expect_content(path, vm.disks['vda'].model)
    scene.settled()


def test_two_disks_at_once(host):
    """Mirrors of several disks run side by side."""
    scene = Scene(host, disks={'vda': 32 * MIB, 'vdb': 16 * MIB})
    vm = scene.vm
    paths = {}
    for target in vm.disks:
        vm.write(0, 8 * MIB, 0xb1, target)
        paths[target] = scene.path(f'replica-{target}.qcow2', target)
        jobs.start_copy(scene.dom, target, paths[target], checkpoint=f'c-{target}',
                        finish=True, bandwidth=8 * MIB)
    wait_for(lambda: len(scene.events.seen()) == 2, 'both copies end')
    if {(target, status) for _, target, _, status in scene.events.seen()} != \
            {(target, 'completed') for target in vm.disks}:
        raise Failure(f'events: {scene.events.seen()}')
    for target, disk in vm.disks.items():
        images.expect_content(paths[target], disk.model, target)
    scene.settled()


def test_checkpoints_during_a_copy(host):
    """Checkpoints are made and deleted while a copy runs, and stay right."""
    scene = Scene(host)
    vm = scene.vm
    vm.write(0, 8 * MIB, 0xc1)
    replica, second = scene.path('replica.qcow2'), scene.path('second.qcow2')
    scene.copy(second, checkpoint='c0')
    slow_bulk(scene, replica, checkpoint='c1', finish=True)
    moment = vm.disks['vda'].model.copy()
    vm.write(MIB, MIB, 0xc2)
    scene.dom.checkpointCreateXML('<domaincheckpoint><name>m1</name></domaincheckpoint>')
    vm.write(2 * MIB, MIB, 0xc3)
    scene.dom.checkpointCreateXML('<domaincheckpoint><name>m2</name></domaincheckpoint>')
    vm.write(10 * MIB, MIB, 0xc4)
    scene.dom.checkpointLookupByName('m1').delete()
    scene.dom.blockJobSetSpeed('vda', 0, 0)
    jobs.wait_end(scene.events, scene.dom, 'vda')
    images.expect_content(replica, moment, 'replica')
    scene.settled()
    scene.copy(replica, bitmap='c1')
    images.expect_content(replica, vm.disks['vda'].model, 'from c1')
    scene.copy(second, bitmap='c0')
    images.expect_content(second, vm.disks['vda'].model, 'from c0')
    scene.settled()


def test_target_full(host):
    """A full target fails the copy; the guest writes on."""
    scene = Scene(host)
    vm = scene.vm
    place = os.path.join(host.work, 'small')
    os.makedirs(place)
    if os.geteuid() != 0:
        raise Skip('a small file system needs root')
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'none', place], check=True)
    try:
        vm.write(0, 16 * MIB, 0xd1)
        path = os.path.join(place, 'replica.qcow2')
        jobs.start_copy(scene.dom, 'vda', path, checkpoint='c1', finish=True)
        vm.write(MIB, 4 * MIB, 0xd2)
        scene.events.wait('vda', 'failed')
        if vm.dom.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            raise Failure(f'the guest is {vm.dom.state()}')
        vm.verify()
        if os.path.exists(path) or scene.dom.listAllCheckpoints():
            raise Failure('target or checkpoint stayed')
        scene.settled()
    finally:
        subprocess.run(['umount', '-l', place], check=True)


def hold(scene, point):
    """Makes the daemon wait at a point of its next job; returns what lets it go on."""
    path = os.path.join(scene.host.work, 'go')
    scene.events.close()
    scene.host.restart_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'{point}=hold:{path}'})
    scene.connect()

    def release():
        with open(path, 'w', encoding='ascii'):
            pass
    return release


def passed(scene, point):
    """Waits until the daemon has come to a point (of the faults log)."""
    log = os.path.join(scene.host.logs, 'faults.log')

    def seen():
        return os.path.exists(log) and point in open(log, encoding='ascii').read().split()
    wait_for(seen, f'the daemon comes to {point}')


def test_guest_destroyed_in_the_bulk_pass(host):
    """The job fails, the image is whole, the guest starts on it again."""
    scene = Scene(host)
    vm, path = scene.vm, scene.path('replica.qcow2')
    vm.write(0, 16 * MIB, 0xe1)
    scene.copy(path, checkpoint='c1')
    for name in ('destroy', 'kill'):
        vm.write(0, 16 * MIB, 0xe2)
        slow_bulk(scene, path, bitmap='c1', checkpoint='c2', finish=True)
        vm.write(3 * MIB, MIB, 0xe3)
        vm.flush() if hasattr(vm, 'flush') else None
        if name == 'destroy':
            vm.destroy()
        else:
            vm.dom.suspend()
            vm.kill_qemu()
        scene.events.wait('vda', 'failed')
        wait_for(lambda: not scene.job_files(), 'the job is settled')
        scene.settled()
        images.expect_content(vm.disks['vda'].path, vm.disks['vda'].model, name)
        vm.start()
        vm.disks['vda'].alias = ''
        vm.verify()
        vm.write(5 * MIB, MIB, 0xe4)
        if name == 'destroy':
            if [c.getName() for c in scene.dom.listAllCheckpoints()] != ['c1']:
                raise Failure('the checkpoint of a failed job stayed')
            scene.copy(path, bitmap='c1')
            images.expect_content(path, vm.disks['vda'].model, 'afterwards')
    scene.settled()


@sample
def test_guest_destroyed_as_a_mirror(host):
    """The same in the live phase and when it is ready."""
    scene = Scene(host)
    vm, path = scene.vm, scene.path('replica.qcow2')
    vm.write(0, 16 * MIB, 0xf1)
    jobs.start_copy(scene.dom, 'vda', path, checkpoint='c1')
    jobs.wait_ready(scene.events, 'vda')
    vm.write(MIB, MIB, 0xf2)
    vm.destroy()
    scene.events.wait('vda', 'failed')
    wait_for(lambda: not scene.job_files(), 'the job is settled')
    scene.settled()
    images.expect_content(vm.disks['vda'].path, vm.disks['vda'].model)
    vm.start()
    vm.disks['vda'].alias = ''
    scene.copy(path, checkpoint='c1')
    images.expect_content(path, vm.disks['vda'].model)
    scene.settled()


def test_started_past_us_in_the_offline_commit(host):
    """A guest that comes up on the overlay while that is committed keeps its file, and
    what it writes."""
    gate, log = os.path.join(host.work, 'gate'), os.path.join(host.work, 'points')
    point = 'mirror/after-offline-commit'
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'{point}=hold:{gate}',
                           'VIRT_CHECKPOINT_FAULTS_LOG': log})
    scene = Scene(host, daemon=False)
    vm, path = scene.vm, scene.path('replica.qcow2')
    vm.write(0, 4 * MIB, 0xa1)
    jobs.start_copy(scene.dom, 'vda', path, checkpoint='c1')
    jobs.wait_ready(scene.events, 'vda')
    vm.write(MIB, MIB, 0xa2)
    vm.destroy()
    wait_for(lambda: point in open(log).read().split(), 'the overlay is committed')
    vm.start()
    vm.disks['vda'].alias = ''
    with open(gate, 'w', encoding='ascii'):
        pass
    vm.write(3 * MIB, MIB, 0xa3)
    scene.events.wait('vda', 'failed')
    scene.await_settled()
    vm.write(5 * MIB, MIB, 0xa4)
    vm.verify()
    vm.destroy()
    vm.start()
    vm.disks['vda'].alias = ''
    vm.verify()
    scene.copy(path, checkpoint='c2')
    images.expect_content(path, vm.disks['vda'].model)


def test_started_past_us_and_gone_again(host):
    """Such a guest that ends before anybody looks again loses nothing of what it wrote."""
    gates, log = os.path.join(host.work, 'gate'), os.path.join(host.work, 'points')
    points = ('mirror/after-offline-commit', 'mirror/started-past-us')
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': ','.join(
        f'{point}@1=hold:{gates}{i}' for i, point in enumerate(points)),
        'VIRT_CHECKPOINT_FAULTS_LOG': log})
    scene = Scene(host, daemon=False)
    vm, path = scene.vm, scene.path('replica.qcow2')
    vm.write(0, 4 * MIB, 0xb1)
    jobs.start_copy(scene.dom, 'vda', path, checkpoint='c1')
    jobs.wait_ready(scene.events, 'vda')
    vm.write(MIB, MIB, 0xb2)
    vm.destroy()
    wait_for(lambda: points[0] in open(log).read().split(), 'the overlay is committed')
    vm.start()
    vm.disks['vda'].alias = ''
    vm.write(3 * MIB, MIB, 0xb3)
    with open(gates + '0', 'w', encoding='ascii'):
        pass
    wait_for(lambda: points[1] in open(log).read().split(), 'the guest is seen')
    vm.write(5 * MIB, MIB, 0xb4)
    vm.destroy()
    with open(gates + '1', 'w', encoding='ascii'):
        pass
    scene.events.wait('vda', 'failed')
    scene.await_settled()
    images.expect_content(vm.disks['vda'].path, vm.disks['vda'].model)
    vm.start()
    vm.disks['vda'].alias = ''
    vm.verify()
    scene.copy(path, checkpoint='c2')
    images.expect_content(path, vm.disks['vda'].model)


def test_pivot_that_fails_is_an_error(host):
    """A guest that is ended in the pivot: the call says so, the image is whole."""
    gate, log = os.path.join(host.work, 'gate'), os.path.join(host.work, 'points')
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'mirror/before-pivot=hold:{gate}',
                           'VIRT_CHECKPOINT_FAULTS_LOG': log})
    scene = Scene(host, daemon=False)
    vm, path = scene.vm, scene.path('replica.qcow2')
    vm.write(0, 4 * MIB, 0xe1)
    jobs.start_copy(scene.dom, 'vda', path, checkpoint='c1')
    jobs.wait_ready(scene.events, 'vda')
    call = jobs.Later(scene.dom.blockJobAbort, 'vda',
                      libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    wait_for(lambda: 'mirror/before-pivot' in open(log, encoding='ascii').read(),
             'the pivot begins')
    vm.destroy()
    with open(gate, 'w', encoding='ascii'):
        pass
    error = call.join()
    if not error or error.get_error_code() != libvirt.VIR_ERR_OPERATION_FAILED or \
            'failed while pivoting' not in str(error):
        raise Failure(f'the pivot of a guest that was ended: {error!r}')
    wait_for(lambda: not scene.job_files(), 'the job is settled')
    scene.settled()
    images.expect_content(vm.disks['vda'].path, vm.disks['vda'].model)


def test_daemon_restart_in_the_bulk_pass(host):
    """The job survives a restart and a SIGKILL of the daemon."""
    scene = Scene(host)
    vm, path = scene.vm, scene.path('replica.qcow2')
    for turn, end in enumerate((host.stop_daemon, host.kill_daemon)):
        vm.write(0, 8 * MIB, 0x11 + turn)
        params = {'bitmap': 'c0'} if turn else {}
        slow_bulk(scene, path, checkpoint=f'c{turn}', finish=True, **params)
        moment = vm.disks['vda'].model.copy()
        vm.write(MIB, MIB, 0x21 + turn)
        scene.events.close()
        end()
        vm.write(2 * MIB, MIB, 0x31 + turn)
        host.start_daemon()
        scene.connect()
        wait_for(lambda: scene.dom.blockJobInfo('vda', 0), 'the job is taken up')
        scene.dom.blockJobSetSpeed('vda', 0, 0)
        jobs.wait_end(scene.events, scene.dom, 'vda')
        images.expect_content(path, moment, 'replica')
        scene.settled()
        vm.verify()


def test_daemon_restart_when_ready(host):
    """A ready mirror survives, can be stopped and pivoted by the next daemon."""
    scene = Scene(host)
    vm, path = scene.vm, scene.path('replica.qcow2')
    for turn in range(2):
        vm.write(turn * MIB, MIB, 0x41 + turn)
        jobs.start_copy(scene.dom, 'vda', path, checkpoint=f'c{turn}')
        jobs.wait_ready(scene.events, 'vda')
        scene.events.close()
        host.kill_daemon()
        vm.write(9 * MIB, MIB, 0x51 + turn)
        host.start_daemon()
        scene.connect()
        wait_for(lambda: scene.dom.blockJobInfo('vda', 0), 'the job is taken up')
        wait_for(lambda: scene.dom.blockJobInfo('vda', 0)['cur'] ==
                 scene.dom.blockJobInfo('vda', 0)['end'], 'ready again')
        if turn:
            scene.dom.blockJobAbort('vda', libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
            vm.disks['vda'].path = path
        else:
            scene.dom.blockJobAbort('vda', 0)
        scene.settled()
        if not turn:
            images.expect_content(path, vm.disks['vda'].model)
        vm.verify()


def test_libvirtd_restart_in_the_bulk_pass(host):
    """The copy goes on below libvirt; the job ends when libvirt is back."""
    scene = Scene(host)
    vm, path = scene.vm, scene.path('replica.qcow2')
    vm.write(0, 4 * MIB, 0x61)
    slow_bulk(scene, path, checkpoint='c1', finish=True)
    moment = vm.disks['vda'].model.copy()
    vm.write(MIB, MIB, 0x62)
    host.restart_libvirtd(signal.SIGKILL)
    vm.reconnect()
    scene.connect()
    scene.dom.blockJobSetSpeed('vda', 0, 0)
    jobs.wait_end(scene.events, scene.dom, 'vda')
    images.expect_content(path, moment, 'replica')
    scene.settled()
    vm.verify()


def test_foreign_snapshot_during_a_copy(host):
    """A snapshot that someone puts on top meanwhile stays, the overlay goes."""
    scene = Scene(host)
    vm, path = scene.vm, scene.path('replica.qcow2')
    vm.write(0, 4 * MIB, 0x71)
    slow_bulk(scene, path, checkpoint='c1', finish=True)
    moment = vm.disks['vda'].model.copy()
    vm.write(MIB, MIB, 0x72)
    top = vm.snapshot()
    vm.write(2 * MIB, MIB, 0x73)
    scene.dom.blockJobSetSpeed('vda', 0, 0)
    jobs.wait_end(scene.events, scene.dom, 'vda')
    images.expect_content(path, moment, 'replica')
    base = vm.disks['vda'].path
    vm.disks['vda'].path = top
    scene.settled()
    vm.verify()
    vm.commit(base=base)
    vm.disks['vda'].path = base
    vm.verify()
    scene.copy(path, bitmap='c1')
    images.expect_content(path, vm.disks['vda'].model, 'increment')
    scene.settled()


def kill_libvirtd_in(host, rounds, point):
    """Copies in whose calls to libvirtd that dies, each with a guest of its own."""
    gate, log = os.path.join(host.work, 'gate'), os.path.join(host.work, 'passed')
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'{point}=hold:{gate}',
                           'VIRT_CHECKPOINT_FAULTS_LOG': log})
    pivots = 'pivot' in point and 'commit' not in point
    for turn in range(rounds):
        scene = Scene(host, VM(host, f'vm{turn}', {'vda': 8 * MIB}), daemon=False)
        vm = scene.vm
        vm.write(0, 2 * MIB, 0x21)
        path = scene.path(f'{vm.name}-replica.qcow2')
        with open(gate, 'w', encoding='ascii'):
            pass
        scene.copy(path, checkpoint='c1')
        vm.write(MIB, MIB, 0x22)
        if pivots:
            jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', checkpoint='c2')
            jobs.wait_ready(scene.events, 'vda')
            vm.write(3 * MIB, MIB, 0x23)
        os.unlink(gate)
        os.unlink(log)
        client = threading.Thread(target=attempt, args=(scene, path, pivots), daemon=True)
        client.start()
        wait_for(lambda: os.path.exists(log) and point in open(log).read().split(),
                 f'the daemon comes to {point}')
        with open(gate, 'w', encoding='ascii'):
            pass
        delay = 0.010 + host.random.random() * 0.012  # the hold looks every 10 ms
        time.sleep(delay)
        host.restart_libvirtd(signal.SIGKILL)
        client.join(30)
        vm.reconnect()
        scene.connect()
        settle_killed(scene, path, pivots, delay)
        vm.dom.destroy()


def attempt(scene, path, pivots):
    """What libvirtd dies in; it fails or not."""
    try:
        if pivots:
            scene.dom.blockJobAbort('vda', libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        else:
            jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', checkpoint='c2',
                            finish=True)
    except libvirt.libvirtError:
        pass


def end_job(scene):
    try:
        scene.dom.blockJobAbort('vda', 0)
    except libvirt.libvirtError as error:
        if 'still being ended' not in str(error):
            raise


def end_hidden_qemu(vm):
    """Ends a QEMU that libvirt lost, in order: it writes out what it holds."""
    for entry in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{entry}/cmdline', encoding='ascii') as cmdline:
                words = cmdline.read().split('\0')
        except (OSError, UnicodeDecodeError):
            continue
        if '-uuid' in words and words[words.index('-uuid') + 1] == vm.uuid:
            os.kill(int(entry), signal.SIGTERM)
            wait_for(lambda: not os.path.exists(f'/proc/{entry}/exe'), 'QEMU ends')


def settle_killed(scene, path, pivots, delay):
    """After libvirtd was killed: one image, all content, and tracking that holds."""
    vm, host = scene.vm, scene.host
    try:
        hidden = not vm.dom.isActive()
        if hidden:  # libvirtd could not read its status file: QEMU runs all the same
            end_hidden_qemu(vm)
            wait_for(lambda: not scene.job_files(), 'the job ends after QEMU')
            vm.start()
            vm.disks['vda'].alias = ''
        end = time.monotonic() + 20
        while scene.job_files() and time.monotonic() < end:
            info = scene.dom.blockJobInfo('vda', 0)
            if pivots and info and info['cur'] == info['end']:
                end_job(scene)
            time.sleep(0.05)
        if scene.job_files():
            raise Failure('the job does not end')
        wrong = vm.source() != vm.source(inactive=True)
        vm.disks['vda'].path = vm.source(inactive=True)
        if wrong:  # libvirt does not know where the guest is until it starts again
            vm.destroy()
            vm.start()
            vm.disks['vda'].alias = ''
        vm.verify()
        scene.await_settled()
        wait_for(lambda: not scene.dom.blockJobInfo('vda', 0), 'clients know that it ended')
        scene.events.close()
        scene.connect()
        listed = [c.getName() for c in scene.dom.listAllCheckpoints()]
        vm.write(5 * MIB, CLUSTER, 0x24)
        replica = scene.path(f'{vm.name}-again.qcow2')
        since = 'c1' if path != vm.disks['vda'].path else None
        if since:
            os.rename(path, replica)
        try:
            scene.copy(replica, bitmap=since, checkpoint='c9')
        except libvirt.libvirtError as error:
            # Writes of a guest that nobody could ask are in no bitmap: that is told.
            if error.get_error_code() != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT or \
                    not (hidden or wrong):
                raise
            scene.copy(replica, checkpoint='c9')
        images.expect_content(replica, vm.disks['vda'].model, 'replica')
        print(f'#   {delay * 1000:.0f} ms: {"wrong definition, " if wrong else ""}'
              f'{"shown shut off, " if hidden else ""}{listed}', flush=True)
    except (Failure, libvirt.libvirtError) as error:
        print(f'#   {delay * 1000:.0f} ms: {error}', flush=True)
        raise


@limit(300)
def test_libvirtd_killed_in_its_snapshot(host):
    """The guest ends on its own image, whole."""
    kill_libvirtd_in(host, 40 if host.all else 5, 'mirror/before-snapshot')


@limit(300)
def test_libvirtd_killed_in_its_commit(host):
    """The same for the commit's pivot."""
    kill_libvirtd_in(host, 40 if host.all else 5, 'mirror/before-commit-pivot')


@limit(300)
def test_libvirtd_killed_in_its_pivot(host):
    """Wherever the guest is then, the next start finds what it wrote."""
    kill_libvirtd_in(host, 40 if host.all else 5, 'mirror/before-pivot')


def sweep_copy(host, finish, share):
    """Two checkpoints, writes, and the copy of vda that is stopped."""
    def setup(oracle):
        oracle.write(4)
        oracle.create(['vda'])
        oracle.write(4)

    def act(oracle):
        if finish:
            oracle.finish(oracle.moments[0], 'vda', 'swept')
        else:
            oracle.mirror('vda', pivot=True)
    print(f'#   {Sweep(host, setup, act, {"vda": 8 * MIB}).run(share)} stops', flush=True)


@limit(300)
def test_daemon_stopped_somewhere_in_a_finish(host):
    """Stopped at some points of an incremental finish, the next daemon settles it."""
    sweep_copy(host, True, 0.06)


@limit(300)
def test_daemon_stopped_somewhere_in_a_pivot(host):
    """The same for a live mirror that pivots."""
    sweep_copy(host, False, 0.04)


@slow
@limit(3000)
def test_daemon_stopped_anywhere_in_a_finish(host):
    """Stopped at every point of an incremental finish."""
    sweep_copy(host, True, 1.0)


@slow
@limit(3000)
def test_daemon_stopped_anywhere_in_a_pivot(host):
    """Stopped at every point of a live mirror that pivots."""
    sweep_copy(host, False, 1.0)


def killed_in_its_bulk(host, then=''):
    """A guest that was writing to a copy's overlay is off, and that is about to go: the
    oracle, the overlay, what lets the daemon go on; then: what else happens to that."""
    log = os.path.join(host.work, 'points.log')
    go = os.path.join(host.work, 'go')
    host.start_daemon()
    vm = VM(host, disks={'vda': 16 * MIB})
    oracle = Oracle(host, vm, host.random)
    oracle.create()
    vm.write(0, 8 * MIB, 0x31)
    path = oracle.path('target')
    images.write_image(path, oracle.moments[0].models['vda'])
    jobs.start_copy(oracle.dom, 'vda', path, oracle.moments[0].name, finish=True,
                    bandwidth=MIB)
    overlay = wait_for(lambda: vm.source('vda') != vm.disks['vda'].path and
                       vm.source('vda'), 'it is on the overlay')
    vm.write(MIB, MIB, 0x32)
    vm.flush()
    oracle.events.close()
    host.kill_daemon()
    vm.kill_qemu()
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'mirror/cleaning@1=hold:{go}{then}',
                           'VIRT_CHECKPOINT_FAULTS_LOG': log})
    wait_for(lambda: os.path.exists(log) and 'mirror/cleaning' in open(log).read().split(),
             'it is about to be cleaned', 60)
    return oracle, overlay, go


def start_on(vm, overlay):
    """Past us, by a definition from before, and it writes."""
    vm.conn.createXML(vm.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace(
        vm.disks['vda'].path, overlay))
    assert vm.source('vda') == overlay
    vm.write(3 * MIB, MIB, 0x33)


def given_up(host, oracle):
    """The copy is, and the guest has its disk."""
    oracle.connect()
    wait_for(lambda: not [name for name in os.listdir(store.folder(host, oracle.vm))
                          if name.endswith('.job.xml')], 'the copy is given up', 60)


def test_started_past_us_while_its_overlay_goes(host):
    """A start past us read the definition before that went back to the source: the guest
    has the overlay, keeps it, and it is committed like any other."""
    oracle, overlay, go = killed_in_its_bulk(host)
    vm, source = oracle.vm, oracle.vm.disks['vda'].path
    start_on(vm, overlay)
    with open(go, 'w'):
        pass
    given_up(host, oracle)
    assert vm.source('vda') == source == vm.source('vda', inactive=True), vm.source('vda')
    vm.verify('vda')
    vm.destroy()
    vm.start(vm.dom)
    vm.verify('vda')
    assert not os.path.exists(overlay)


def test_gone_again_when_its_overlay_goes(host):
    """As above; and we die when the overlay has its last name, and that guest before we
    are back: what it wrote is there, wherever we die while we bring it back."""
    oracle, overlay, go = killed_in_its_bulk(host, ',mirror/overlay-renamed@1=exit')
    vm, source = oracle.vm, oracle.vm.disks['vda'].path
    start_on(vm, overlay)
    vm.flush()
    with open(go, 'w'):
        pass
    wait_for(lambda: not os.path.exists(overlay), 'the overlay is renamed')
    host.wait_daemon()
    vm.kill_qemu()
    for point in ('needed', 'named', 'back'):
        host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'mirror/left-{point}@1=exit'})
        host.wait_daemon()
    host.start_daemon()
    given_up(host, oracle)
    assert vm.source('vda', inactive=True) == source
    assert not glob.glob(f'{overlay}*'), glob.glob(f'{overlay}*')
    vm.start(vm.dom)
    vm.verify('vda')
