"""Scene: a guest, our daemon, a client of it, and what must be true after a copy."""

import os
import time

from . import jobs, store
from .domain import VM, qemu_img
from .host import Failure, wait_for


class Scene:
    """A guest, our daemon, a connection through it, and its block job events."""

    def __init__(self, host, vm=None, daemon=True, **options):
        self.host = host
        self.vm = vm or VM(host, **options)
        if daemon:
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
        if self.job_files():
            raise Failure(f'a job is recorded: {self.job_files()}')
        if self.vm.dom.isActive():
            if self.vm.stray():
                raise Failure(f'left in QEMU: {self.vm.stray()}')
            self.expect_bitmaps()

    def await_settled(self, timeout=20):
        """The same, once what goes on in the background is done."""
        end = time.monotonic() + timeout
        while True:
            try:
                return self.settled()
            except Failure:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def job_files(self):
        folder = store.folder(self.host, self.vm)
        found = os.listdir(folder) if os.path.isdir(folder) else []
        return [name for name in found if name.endswith('.job.xml')]

    def expect_bitmaps(self):
        """One active bitmap of ours on each covered disk, none elsewhere."""
        covered = {target for record in store.records(self.host, self.vm)
                   for target in record.segments}

        def at_rest():
            for target in self.vm.disks:
                found = self.vm.bitmaps(target)
                active = [b for b in found.values() if b['recording'] and b['persistent']]
                if len(found) != len(active) or len(active) != (target in covered):
                    return False
            return True
        # Parking goes on after the answer.
        wait_for(at_rest, 'one bitmap of ours on each covered disk')
