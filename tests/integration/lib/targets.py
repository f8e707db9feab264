"""What copies can go to besides files: block devices, NBD servers, encrypted images."""

import os
import subprocess

from .domain import qemu_img
from .host import Failure
from .runner import Skip


class Loop:
    """A block device of a size, for a with block; it is gone when nobody has it open."""

    def __init__(self, host, name, size):
        self.size = size
        self.file = os.path.join(host.images, name)
        self.path = None
        self._held = -1

    def __enter__(self):
        if os.geteuid() != 0:
            raise Skip('a loop device needs root')
        with open(self.file, 'wb') as file:
            file.truncate(self.size)
        done = subprocess.run(['losetup', '-f', '--show', self.file], capture_output=True,
                              text=True, check=False)
        self.path = done.stdout.strip()
        if done.returncode != 0:
            raise Skip(f'no loop device: {done.stderr.strip()}')
        self._held = os.open(self.path, os.O_RDONLY)
        # From here on the kernel detaches it at its last close, whoever is killed.
        subprocess.run(['losetup', '-d', self.path], check=True)
        return self

    def __exit__(self, *_):
        os.close(self._held)

    def format(self, virtual_size):
        """Makes it a qcow2 image."""
        qemu_img('create', '-q', '-f', 'qcow2', self.path, str(virtual_size))


def block_xml(path, fmt):
    return (f"<disk type='block' device='disk'><driver name='qemu' type='{fmt}'/>"
            f"<source dev='{path}'/><backingStore/></disk>")


def expect_device(loop, model, what):
    """Raises unless a raw device begins with what the model says."""
    from . import images
    part = loop.file + '.part'
    with open(loop.path, 'rb') as device, open(part, 'wb') as out:
        left = model.size
        while left:
            data = device.read(min(left, 1 << 20))
            if not data:
                raise Failure(f'{what}: {loop.path} is too short')
            if data.count(0) == len(data):
                out.seek(len(data), os.SEEK_CUR)
            else:
                out.write(data)
            left -= len(data)
        out.truncate(model.size)
    images.expect_content(part, model, what, fmt='raw')
    os.unlink(part)


__all__ = ['Loop', 'block_xml', 'expect_device']
