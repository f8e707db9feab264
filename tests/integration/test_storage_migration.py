"""Storage migration around a guest with checkpoints: what is copied x how x where it was
sent x what follows.

Libvirt hands a list of bitmaps from host to host with the disks that it copies.  After
it each checkpoint of ours covers every cluster that differs, for sizes, incremental
backups and incremental copies alike, or says of that disk that it is inconsistent.
"""

import fnmatch
import os
import shutil

import libvirt

from lib.backups import Backup
from lib.domain import qemu_img
from lib.host import Failure
from lib.otherhost import OtherHost
from lib.runner import limit
from test_matrix import SIZE, attempt
from test_migration import DISKS_TOO, INCREMENT, P2P, Journey

CELLS = 1  # of the part that always runs


class Cell(Journey):
    """A guest with two checkpoints and an overlay, or not, on its first disk."""

    def __init__(self, host, there, name, way, where):
        super().__init__(host, apart=True, ours=where == 'through us', there=there,
                         name=name)
        self.way = WAYS[way]
        for name in ('c1', 'c2'):
            self.mark(name)
            self.write()
        self.layers = {t: [d.path] for t, d in self.vm.disks.items()}

    def snapshot(self):
        """One that nobody looks at."""
        disk = self.vm.disks['vda']
        disk.path = self.vm.snapshot('vda', os.path.join(self.images, self.vm.name + '.ov'))
        self.layers['vda'].append(disk.path)
        self.write()

    def over(self, path):
        return os.path.join(self.there.images, os.path.basename(path))

    def prepare(self, target, below):
        """What the other host must have: an empty top, on what is below it here, as a
        copy of the file or as another one of its content."""
        *lower, top = self.layers[target]
        backing = ()
        for path in lower:
            below(path, self.over(path))
            backing = ('-F', 'qcow2', '-b', path)
        qemu_img('create', '-q', '-u', '-f', 'qcow2', *backing, self.over(top),
                 str(self.vm.disks[target].size))

    def leave(self, flags, below):
        for target in sorted(self.vm.disks):
            self.prepare(target, below)
        self.go(flags)

    def known(self, name):
        """The disks of which it is known how much changed since."""
        found = set()
        for target in self.vm.disks:
            def look():
                text = self.dom.checkpointLookupByName(name).getXMLDesc(SIZE)
                if f"name='{target}'" in text and \
                        'size=' in text.split(f"name='{target}'")[1].split('/>')[0]:
                    found.add(target)
            attempt(look)
        return found

    def backup(self, name, target):
        Backup(self.vm, self.dom, since=name, disks=[target]).begin().end(self.at[name])

    def follow(self):
        """The disks and checkpoints that are lost."""
        lost = []
        for name in sorted(self.at):
            known = self.known(name)
            for target in sorted(self.vm.disks):
                seen = {attempt(self.backup, name, target),
                        attempt(self.copy, name, target),
                        'kept' if target in known else 'lost'}
                if len(seen) > 1:
                    raise Failure(f'{target} since {name}: it depends on who asks')
                if seen == {'lost'}:
                    lost.append(f'{target} since {name}')
        return lost


def by_copy(path, other):
    shutil.copyfile(path, other)


def by_content(path, other):
    """Without the bitmaps that the file itself has."""
    qemu_img('convert', '-U', '-O', 'qcow2', path, other)


def everything(cell):
    cell.leave(DISKS_TOO | cell.way, by_copy)


def everything_of_a_chain(cell):
    cell.snapshot()
    cell.leave(DISKS_TOO | cell.way, by_copy)


def overlay_on_a_copied_file(cell):
    cell.snapshot()
    cell.leave(INCREMENT | cell.way, by_copy)


def overlay_on_copied_content(cell):
    cell.snapshot()
    cell.leave(INCREMENT | cell.way, by_content)


KINDS = (everything, everything_of_a_chain, overlay_on_a_copied_file,
         overlay_on_copied_content)
WAYS = {'direct': 0, 'host to host': P2P}
PLACES = ('through us', 'past us')


def judge(cell, kind, where):
    kind(cell)
    cell.vm.verify('vda')
    lost = cell.follow()
    if lost and where == 'through us':
        raise Failure(f'the bits of {lost} are lost')
    cell.mark('c3')
    cell.write()
    for target in sorted(cell.vm.disks):
        if attempt(cell.backup, 'c3', target) != 'kept':
            raise Failure(f'{target}: a new checkpoint does not work')
    cell.vm.destroy()
    return f'sizes, backup, copy: {"lost: " + ", ".join(lost) if lost else "all kept"}'


@limit(1200)
def test_storage_migration(host):
    """All cells, those that the pattern VIRT_CHECKPOINT_MATRIX takes, or one of them
    drawn by the seed."""
    there = OtherHost(host, apart=True)
    cells = [(kind, way, where) for kind in KINDS for way in WAYS for where in PLACES]
    names = {cell: f'{cell[0].__name__.replace("_", " ")}, {cell[1]}, {cell[2]}'
             for cell in cells}
    pattern = os.environ.get('VIRT_CHECKPOINT_MATRIX')
    if pattern:
        cells = [cell for cell in cells if fnmatch.fnmatch(names[cell], pattern)]
    elif not host.all:
        cells = host.random.sample(cells, CELLS)
    failed = []
    for number, (kind, way, where) in enumerate(cells):
        try:
            line = judge(Cell(host, there, f'vm{number}', way, where), kind, where)
        except (Failure, libvirt.libvirtError) as error:
            line = f'FAILED: {error}'
            failed.append(names[kind, way, where])
        print(f'#   {names[kind, way, where]}: {line}', flush=True)
    if failed:
        raise Failure(f'{len(failed)} cells failed: {failed}')
