"""Looking at images at rest: content against a model, bitmaps, differences.

None of this shares code with the daemon: the qcow2 reader here follows the format's
specification.  An image that a running guest has open shows what was flushed only, so
look at it when the guest is off, suspended, or when the image is no longer in use.
"""

import json
import os
import struct
import subprocess
import tempfile
import time

from .domain import CLUSTER, SECTOR, Model, qemu_img
from .host import Failure

BITMAPS_EXTENSION = 0x23852875
IN_USE = 1
AUTO = 2


def info(path, force=False):
    return json.loads(qemu_img('info', *(['-U'] if force else []), '--output=json', path))


def in_use(path):
    """TRUE while a QEMU has it open for writing."""
    done = subprocess.run(['qemu-img', 'info', path], capture_output=True,
                          text=True, check=False)
    return done.returncode != 0 and '"write" lock' in done.stderr


class RawView:
    """The content of any image as a raw file, for the length of a with block."""

    def __init__(self, path, fmt='qcow2', force=False):
        self.path, self.format, self.force = path, fmt, force
        self.raw = None

    def __enter__(self):
        handle, self.raw = tempfile.mkstemp(prefix='raw-', dir=os.path.dirname(self.path))
        os.close(handle)
        qemu_img('convert', *(['-U'] if self.force else []), '-f', self.format, '-O',
                 'raw', self.path, self.raw)
        return self.raw

    def __exit__(self, *_):
        os.unlink(self.raw)


def _expected(model, offset, length):
    sectors = model.sectors[offset // SECTOR:(offset + length) // SECTOR]
    if sectors.count(sectors[0]) == len(sectors):
        return bytes([sectors[0]]) * length
    return b''.join(bytes([byte]) * SECTOR for byte in sectors)


def differences(path, model, fmt='qcow2', force=False):
    """The 64 KiB clusters in which an image is not what the model says, as a set."""
    found = set()
    with RawView(path, fmt, force) as raw, open(raw, 'rb') as data:
        size = os.fstat(data.fileno()).st_size
        if size != model.size:
            raise Failure(f'{path}: {size} bytes, not {model.size}')
        for offset in range(0, size, CLUSTER):
            got = data.read(CLUSTER)
            if got != _expected(model, offset, len(got)):
                found.add(offset // CLUSTER)
    return found


def expect_content(path, model, what='image', fmt='qcow2', force=False):
    """Raises unless the image holds exactly what the model says."""
    wrong = differences(path, model, fmt, force)
    if wrong:
        raise Failure(f'{what}: {path}: {len(wrong)} clusters differ, the first at '
                      f'{min(wrong) * CLUSTER}: {sorted(wrong)[:20]}')


def diff(first, second, first_format='qcow2', second_format='qcow2'):
    """The 64 KiB clusters in which two images differ, as a set."""
    found = set()
    with RawView(first, first_format, True) as a, \
            RawView(second, second_format, True) as b, \
            open(a, 'rb') as one, open(b, 'rb') as two:
        index = 0
        while True:
            x, y = one.read(CLUSTER), two.read(CLUSTER)
            if x != y:
                found.add(index)
            if not x and not y:
                return found
            index += 1


def write_image(path, model, fmt='qcow2'):
    """A new image with the model's content: a kept copy of a moment."""
    raw = path + '.raw-source'
    model.write_raw(raw)
    try:
        qemu_img('convert', '-f', 'raw', '-O', fmt, raw, path)
    finally:
        os.unlink(raw)


class Bitmap:
    """One bitmap of a qcow2 file: name, granularity, flags, granules (a set)."""

    def __init__(self, name, granularity, flags, granules):
        self.name = name
        self.granularity = granularity
        self.in_use = bool(flags & IN_USE)
        self.recording = bool(flags & AUTO)
        self.granules = granules

    def clusters(self):
        """The 64 KiB clusters that it covers."""
        if self.granularity == CLUSTER:
            return set(self.granules)
        if self.granularity < CLUSTER:
            return {g * self.granularity // CLUSTER for g in self.granules}
        per = self.granularity // CLUSTER
        return {g * per + i for g in self.granules for i in range(per)}


def _bits(image, table, entries, cluster, granules):
    """The set bits of one bitmap, from its table."""
    found = set()
    image.seek(table)
    offsets = struct.unpack(f'>{entries}Q', image.read(entries * 8))
    for index, entry in enumerate(offsets):
        first = index * cluster * 8
        offset = entry & 0x00fffffffffffe00
        if offset:
            image.seek(offset)
            data = image.read(cluster)
            for at, byte in enumerate(data):
                for bit in range(8) if byte else ():
                    if byte >> bit & 1 and first + at * 8 + bit < granules:
                        found.add(first + at * 8 + bit)
        elif entry & 1:
            found.update(range(first, min(first + cluster * 8, granules)))
    return found


def bitmaps(path):
    """All bitmaps of a qcow2 version 3 file, by name.  Read while somebody writes it the
    directory may be half a one: then once more, for a while."""
    for _ in range(100):
        try:
            return _bitmaps(path)
        except (struct.error, UnicodeDecodeError):
            time.sleep(0.02)
    return _bitmaps(path)


def _bitmaps(path):
    found = {}
    with open(path, 'rb') as image:
        header = image.read(104)
        magic, version = struct.unpack_from('>4sI', header)
        if magic != b'QFI\xfb' or version != 3:
            raise Failure(f'{path}: no qcow2 version 3')
        cluster = 1 << struct.unpack_from('>I', header, 20)[0]
        size = struct.unpack_from('>Q', header, 24)[0]
        at = struct.unpack_from('>I', header, 100)[0]
        while True:
            image.seek(at)
            kind, length = struct.unpack('>II', image.read(8))
            if kind == 0:
                return found
            if kind == BITMAPS_EXTENSION:
                count, _, dir_size, directory = struct.unpack('>IIQQ', image.read(24))
                break
            at += 8 + (length + 7) // 8 * 8
        image.seek(directory)
        entries = image.read(dir_size)
        at = 0
        for _ in range(count):
            table, length, flags, _, bits, name_size, extra = struct.unpack_from(
                '>QIIBBHI', entries, at)
            start = at + 24 + extra
            name = entries[start:start + name_size].decode()
            at = (start + name_size + 7) // 8 * 8
            granules = (size + (1 << bits) - 1) >> bits
            found[name] = Bitmap(name, 1 << bits, flags,
                                 _bits(image, table, length, cluster, granules))
    return found


def live_bitmap(vm, node, name):
    """The granules of a bitmap in a running QEMU, active or not.

    QEMU copies it into a throw-away file, so it needs no NBD server and changes
    nothing.  The merge source may be active: nothing is lost from the original.
    """
    shown = vm.nodes()[node]
    size = shown['image']['virtual-size']
    granularity = next(b['granularity'] for b in shown['dirty-bitmaps']
                       if b.get('name') == name)
    path = os.path.join(vm.host.images, 'peek.qcow2')
    qemu_img('create', '-q', '-f', 'qcow2', path, str(size))
    try:
        vm.qmp('blockdev-add', **{'node-name': 'peek', 'driver': 'qcow2',
                                  'file': {'driver': 'file', 'filename': path}})
        try:
            vm.transaction(
                ('block-dirty-bitmap-add', {'node': 'peek', 'name': 'bits',
                                            'granularity': granularity,
                                            'persistent': True, 'disabled': True}),
                ('block-dirty-bitmap-merge', {'node': 'peek', 'target': 'bits',
                                              'bitmaps': [{'node': node, 'name': name}]}))
        finally:
            vm.qmp('blockdev-del', **{'node-name': 'peek'})
        return bitmaps(path)['bits']
    finally:
        os.unlink(path)


__all__ = ['AUTO', 'Bitmap', 'IN_USE', 'Model', 'RawView', 'bitmaps', 'diff',
           'differences', 'expect_content', 'info', 'live_bitmap', 'write_image']
