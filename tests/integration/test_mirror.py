"""The incremental mirror: copies judged by content, errors, aborts, pivots, crashes."""

import os
import threading
import time

import libvirt

from lib import images, jobs, store
from lib.domain import CLUSTER, MIB, VM, qemu_img
from lib.host import Failure, wait_for
from lib.runner import limit, slow

REUSE = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT


class Scene:
    """A guest, our daemon, a connection through it, and its block job events."""

    def __init__(self, host, vm=None, **options):
        self.host = host
        self.vm = vm or VM(host, **options)
        host.start_daemon()
        self.connect()

    def connect(self):
        self.conn = self.host.connect(ours=True)
        self.dom = self.conn.lookupByName(self.vm.name)
        self.events = jobs.Events(self.conn)

    def path(self, name, target='vda', size=None, fmt='qcow2'):
        """An empty target of the disk's size."""
        path = os.path.join(self.host.images, name)
        qemu_img('create', '-q', '-f', fmt, path,
                 str(size or self.vm.disks[target].size))
        return path

    def copy(self, path, target='vda', **params):
        """A copy that finishes, to its end."""
        jobs.start_copy(self.dom, target, path, finish=True, **params)
        jobs.wait_end(self.events, self.dom, target)

    def settled(self, *targets):
        """Raises unless nothing of a job is left anywhere."""
        for target in targets or self.vm.disks:
            disk = self.vm.disks[target]
            for inactive in (False, True):
                if self.vm.source(target, inactive) != disk.path:
                    raise Failure(f'{target} is on {self.vm.source(target, inactive)}, '
                                  f'not on {disk.path} (inactive: {inactive})')
        left = [name for name in os.listdir(self.host.images) if '.virtcheckpoint-' in name]
        if left:
            raise Failure(f'overlays left: {left}')
        folder = store.folder(self.host, self.vm)
        found = os.listdir(folder) if os.path.isdir(folder) else []
        if [name for name in found if name.endswith('.job.xml')]:
            raise Failure(f'a job is recorded: {found}')
        if self.vm.dom.isActive():
            if self.vm.stray():
                raise Failure(f'left in QEMU: {self.vm.stray()}')
            self.expect_bitmaps()

    def expect_bitmaps(self):
        """One active bitmap of ours on each covered disk, none elsewhere."""
        covered = {target for record in store.records(self.host, self.vm)
                   for target in record.segments}
        for target in self.vm.disks:
            found = self.vm.bitmaps(target)
            active = [b for b in found.values() if b['recording'] and b['persistent']]
            if len(found) != len(active) or len(active) != (target in covered):
                raise Failure(f'{target}: bitmaps {found}')


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
