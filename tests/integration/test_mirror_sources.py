"""What is copied from: buses, iothreads, chains of images, several disks at a time."""

import os
import subprocess

import libvirt

from lib import images, jobs
from lib.domain import MIB, VM, qemu_img
from lib.guest import Guest
from lib.host import Failure, wait_for
from lib.runner import slow
from lib.scene import Scene

PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
SIZE = 16 * MIB
SCSI = "<controller type='scsi' index='0' model='virtio-scsi'>%s</controller>"
# What the guest's disks are on.
BUSES = {'virtio': {'bus': 'virtio'},
         'virtio, iothread': {'bus': 'virtio', 'iothread': True},
         'scsi': {'bus': 'scsi', 'extra_devices': SCSI % ''},
         'scsi, iothread': {'bus': 'scsi', 'iothread': True,
                            'extra_devices': SCSI % "<driver iothread='1'/>"},
         'sata': {'bus': 'sata'}}


def chained(host, name):
    """A guest with two disks on that bus, the first of them on top of two images."""
    options = dict(BUSES[name])
    # QEMU 7.2 may die of qemu-io on a disk with an iothread: there Linux writes.
    kind = Guest if options.get('iothread') else VM
    letters = 'vd' if options['bus'] == 'virtio' else 'sd'
    vm = kind(host, disks={f'{letters}a': SIZE, f'{letters}b': SIZE}, start=False,
              **options)
    disk, below = vm.disks[f'{letters}a'], None
    for layer in range(2):
        path = os.path.join(host.images, f'layer{layer}.qcow2')
        on = ['-F', 'qcow2', '-b', below] if below else []
        qemu_img('create', '-q', '-f', 'qcow2', *on, path, str(SIZE))
        offset, byte = (layer * 2 + 1) * MIB, 0x71 + layer
        subprocess.run(['qemu-io', '-f', 'qcow2', '-c',
                        f'write -q -P {byte:#x} {offset} {3 * MIB}', path], check=True)
        disk.model.fill(offset, 3 * MIB, byte)
        below = path
    qemu_img('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', below, disk.path,
             str(SIZE))
    vm.start()
    return vm


def at_once(scene, targets, paths, end, **params):
    """A copy of each disk, begun before the first has ended; end: what to do then."""
    for target in targets:
        names = {key: f'{value}-{target}' for key, value in params.items()}
        jobs.start_copy(scene.dom, target, paths[target], finish=end == 'finish',
                        bandwidth=4 * MIB, **names)
    for target in targets:
        scene.dom.blockJobSetSpeed(target, 0, 0)
    wanted = {(target, 'completed' if end == 'finish' else 'ready') for target in targets}
    wait_for(lambda: len(scene.events.seen()) >= len(targets), f'{wanted}', 60)
    seen = {(target, status) for _, target, _, status in scene.events.seen()}
    if seen != wanted:
        raise Failure(f'events {seen}, not {wanted}')
    scene.events.forget()


def change(vm, step):
    for target in vm.disks:
        vm.write((step + 6) * MIB, 2 * MIB, 0x11 + step, target)
        vm.write(512 * (2 * step + 1), 512, 0x21 + step, target)
        vm.zero(MIB + step * 65536, 65536, target)


def copies_of(host, name):
    """All kinds of copies of the disks of one guest, side by side."""
    scene = Scene(host, chained(host, name))
    vm, targets = scene.vm, list(scene.vm.disks)
    paths = {t: os.path.join(host.images, f'replica-{t}.qcow2') for t in targets}

    def expect(what):
        for target in targets:
            images.expect_content(paths[target], vm.disks[target].model,
                                  f'{name}, {what}, {target}')
    change(vm, 0)
    at_once(scene, targets, paths, 'finish', checkpoint='c1')
    expect('full')
    scene.settled()
    change(vm, 1)
    at_once(scene, targets, paths, 'finish', bitmap='c1', checkpoint='c2')
    expect('increment')
    scene.settled()
    change(vm, 2)
    at_once(scene, targets, paths, 'ready', bitmap='c2', checkpoint='c3')
    change(vm, 3)
    old = {}
    for target in targets:
        scene.dom.blockJobAbort(target, PIVOT)
        jobs.wait_end(scene.events, scene.dom, target)
        old[target], vm.disks[target].path = vm.disks[target].path, paths[target]
        vm.disks[target].alias = ''
    scene.settled()
    change(vm, 4)
    # The images that the guest has left are its replicas now, chains and all.
    other = {t: scene.path(f'other-{t}.qcow2', t) for t in targets}
    at_once(scene, targets, other, 'finish', checkpoint='c4')
    for target in targets:
        vm.verify(target)
        images.expect_content(other[target], vm.disks[target].model, f'{name}, {target}')
    scene.settled()
    try:
        jobs.start_copy(scene.dom, targets[0], old[targets[0]],
                        bitmap=f'c2-{targets[0]}')
        raise Failure('a target that is not complete in itself was taken')
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_CONFIG_UNSUPPORTED:
            raise
    pivot_back(scene, targets[1], old[targets[1]])


def pivot_back(scene, target, path):
    """The second disk's old image takes it back: it is the disk of when the mirror began,
    not of the pivot."""
    vm = scene.vm
    jobs.start_copy(scene.dom, target, path, bitmap=f'c2-{target}')
    jobs.wait_ready(scene.events, target)
    vm.write(14 * MIB, MIB, 0x5a, target)
    scene.dom.blockJobAbort(target, PIVOT)
    jobs.wait_end(scene.events, scene.dom, target)
    vm.disks[target].path = path
    vm.disks[target].alias = ''
    scene.settled()
    vm.verify(target)


def test_sources(host):
    """Two disks at a time, one with a chain below it, on a bus or another."""
    name = host.random.choice([bus for bus in BUSES if 'iothread' not in bus])
    print(f'#   {name}', flush=True)
    copies_of(host, name)


@slow
def test_virtio(host):
    """The same on virtio-blk."""
    copies_of(host, 'virtio')


@slow
def test_virtio_iothread(host):
    """The same with an iothread."""
    copies_of(host, 'virtio, iothread')


@slow
def test_scsi(host):
    """The same on virtio-scsi."""
    copies_of(host, 'scsi')


@slow
def test_scsi_iothread(host):
    """The same with an iothread."""
    copies_of(host, 'scsi, iothread')


@slow
def test_sata(host):
    """The same on SATA."""
    copies_of(host, 'sata')
