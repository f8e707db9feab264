"""Options of stock blockcopy with our parameters: each does what it does, or is refused."""

import os

import libvirt

from lib import images, jobs
from lib.domain import CLUSTER, MIB, qemu_img
from lib.host import Failure
from lib.native import NativeScene
from lib.scene import Scene

REUSE = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
SYNC = libvirt.VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES


def refused(scene, code, text, path, **params):
    try:
        jobs.start_copy(scene.dom, 'vda', path, **params)
    except libvirt.libvirtError as error:
        if error.get_error_code() != code or text not in str(error):
            raise
        return
    raise Failure(f'not refused: {params}')


def mirrored(scene, path, **params):
    """A mirror to its READY; what libvirt asked QEMU for."""
    with open(scene.host.libvirtd_log, errors='replace') as log:
        log.seek(0, os.SEEK_END)
        jobs.start_copy(scene.dom, 'vda', path, **params)
        jobs.wait_ready(scene.events, 'vda')
        asked = [line for line in log if 'blockdev-mirror' in line]
    if not asked:
        raise Failure('libvirt was not asked for a mirror')
    return asked[0].replace(' ', '').replace('\\', '')


def test_granularity_buffer_and_writes(host):
    """They reach the mirror phase; without one, or out of QEMU's limits, they are refused."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    vm = scene.vm
    vm.write(0, 4 * MIB, 0x11)
    path = scene.path('replica.qcow2')
    scene.copy(path, checkpoint='c1')
    arg = libvirt.VIR_ERR_INVALID_ARG
    for params, code, text in (
            ({'flags': REUSE | libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW}, arg, 'SHALLOW'),
            ({'granularity': 65536, 'finish': True}, arg, 'no mirror phase'),
            ({'buf_size': 1 << 20, 'finish': True}, arg, 'no mirror phase'),
            ({'flags': REUSE | SYNC, 'finish': True}, arg, 'no mirror phase'),
            ({'granularity': 3}, arg, 'power of 2'),
            ({'granularity': 1 << 30}, arg, 'at most'),
            ({'flags': REUSE | 1 << 20}, arg, 'unsupported flags')):
        params = {name.replace('_', '-'): value for name, value in params.items()}
        refused(scene, code, text, path, bitmap='c1', **params)
    vm.write(MIB, MIB, 0x12)
    asked = mirrored(scene, path, bitmap='c1', granularity=131072, bandwidth=64 * MIB,
                     flags=REUSE | SYNC, **{'buf-size': 2 * MIB})
    for word in ('"granularity":131072', f'"buf-size":{2 * MIB}',
                 '"copy-mode":"write-blocking"', f'"speed":{64 * MIB}'):
        if word not in asked:
            raise Failure(f'no {word} in {asked}')
    vm.write(2 * MIB, MIB, 0x13)
    scene.dom.blockJobAbort('vda', 0)
    scene.events.wait('vda', 'canceled')
    images.expect_content(path, vm.disks['vda'].model)
    scene.settled()


def test_progress(host):
    """It never falls, never shows more than there is, and is whole when the job is ready."""
    scene = Scene(host, disks={'vda': 16 * MIB})
    scene.vm.write(0, 16 * MIB, 0x11)
    path = scene.path('replica.qcow2')
    seen, ready = [], False
    jobs.start_copy(scene.dom, 'vda', path, checkpoint='c1', bandwidth=16 * MIB)
    while not ready or len(seen) < 3:
        ready = bool(scene.events.seen())
        info = scene.dom.blockJobInfo('vda', 0)
        seen.append((info['cur'], info['end']))
        if not ready and info['cur'] == info['end'] and not scene.events.seen():
            # READY is told as soon as the job shows it.
            scene.events.wait('vda', 'ready', timeout=5)
            ready = True
    shares = [cur / end for cur, end in seen]
    if any(b < a for a, b in zip(shares, shares[1:])) or shares[-1] != 1:
        raise Failure(f'{seen}')
    if any(end > 16 * MIB for _, end in seen):
        raise Failure(f'more than the disk: {seen}')
    scene.dom.blockJobAbort('vda', 0)


def test_delta_images(host):
    """An empty target takes the difference, and gives the disk on top of a kept copy."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    vm = scene.vm
    vm.write(0, 8 * MIB, 0x11)
    kept = scene.path('kept.qcow2')
    scene.copy(kept, checkpoint='c1')

    def delta(size):
        path = os.path.join(host.images, f'delta-{size}-{vm.disks["vda"].model.size}.qcow2')
        if os.path.exists(path):
            os.unlink(path)
        qemu_img('create', '-q', '-f', 'qcow2', '-o', f'cluster_size={size}', path,
                 str(vm.disks['vda'].size))
        return path

    def put_on(path):
        qemu_img('rebase', '-u', '-f', 'qcow2', '-b', kept, '-F', 'qcow2', path)
        images.expect_content(path, vm.disks['vda'].model, path)
        if '2M' not in path and os.stat(path).st_blocks * 512 > 4 * MIB:
            raise Failure(f'{path} is no delta')

    # Writes of a sector: the rest of each cluster is what the kept copy has.
    for at in range(5):
        vm.write(at * MIB + 4096, 512, 0x20 + at)
    for size in ('4k', '64k', '2M'):
        path = delta(size)
        scene.copy(path, bitmap='c1')
        put_on(path)
    arg = libvirt.VIR_ERR_INVALID_ARG
    path = delta('2M')
    refused(scene, arg, 'granularity', path, bitmap='c1', granularity=65536)
    refused(scene, arg, 'SYNCHRONOUS', path, bitmap='c1', flags=REUSE | SYNC)
    for size in ('64k', '2M'):
        path = delta(size)
        jobs.start_copy(scene.dom, 'vda', path, bitmap='c1')
        jobs.wait_ready(scene.events, 'vda')
        vm.write(6 * MIB + 8192, 512, 0x31)
        vm.write(20 * MIB + CLUSTER + 512, 512, 0x32)
        scene.dom.blockJobAbort('vda', 0)
        scene.events.wait('vda', 'canceled')
        put_on(path)
    # One that holds something is no delta: it may have any granularity.
    jobs.start_copy(scene.dom, 'vda', kept, bitmap='c1', granularity=4096)
    jobs.wait_ready(scene.events, 'vda')
    scene.dom.blockJobAbort('vda', 0)
    scene.events.wait('vda', 'canceled')
    images.expect_content(kept, vm.disks['vda'].model, 'the copy')
    scene.settled()


def test_deltas_where_qemu_has_a_mirror(host):
    """QEMU's own mirror writes granules: clusters that are larger go the ordinary way."""
    scene = NativeScene(host, 'A')
    scene.vm.write(4096, 512, 0x21)
    scene.vm.write(3 * MIB + 4096, 512, 0x22)
    for size, native in (('64k', 1), ('2M', 0)):
        path, before = os.path.join(host.images, f'delta-{size}.qcow2'), scene.count()
        qemu_img('create', '-q', '-f', 'qcow2', '-o', f'cluster_size={size}', path,
                 str(scene.vm.disks['vda'].size))
        scene.copy(path, bitmap='c1')
        scene.expect_native(before, native)
        qemu_img('rebase', '-u', '-f', 'qcow2', '-b', scene.replica, '-F', 'qcow2', path)
        images.expect_content(path, scene.vm.disks['vda'].model, path)
    scene.settled()
