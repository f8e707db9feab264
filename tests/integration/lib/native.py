"""Guests whose QEMU has a bitmap mirror of its own (interposer.py), and copies of them."""

import json
import os

from . import images
from .domain import MIB, VM
from .host import Failure
from .scene import Scene

INTERPOSER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'interposer.py')


def emulator(dialect, control='', confined=''):
    """What makes any VM one with that dialect."""
    return {'emulator': INTERPOSER, 'emulator_env': {
        'QMP_INTERPOSER': dialect, 'QMP_INTERPOSER_CONTROL': control,
        'QMP_INTERPOSER_CONFINED': confined}}


class NativeVM(VM):
    """dialect: A or B, or "dead": shown as A, and refused."""

    finish_follows = True

    def __init__(self, host, dialect, name='vm', *args, **options):
        self.control = os.path.join(host.work, f'{name}-control')
        super().__init__(host, name, *args, **emulator(dialect, self.control), **options)

    def fail_at(self, offset):
        """The next bitmap mirror fails when it writes there."""
        with open(self.control, 'w', encoding='ascii') as control:
            json.dump({'fail-at': offset}, control)


class NativeScene(Scene):
    """One of them and our daemon; a replica as of checkpoint c1."""

    def __init__(self, host, dialect, name='vm', daemon=True, size=16 * MIB, **options):
        super().__init__(host, NativeVM(host, dialect, name, {'vda': size}, **options),
                         daemon)
        self.vm.write(0, 2 * MIB, 0x11)
        self.replica = os.path.join(host.images, f'{name}-replica.qcow2')
        self.copy(self.replica, checkpoint='c1')

    def count(self):
        """How many copies have gone QEMU's own way so far."""
        return self.host.daemon_log().count("copying by QEMU's own bitmap mirror")

    def expect_native(self, before, wanted=1):
        if self.count() != before + wanted:
            raise Failure(f'{self.count() - before} native copies, not {wanted}')

    def expect_replica(self, what, model=None):
        images.expect_content(self.replica, model or self.vm.disks['vda'].model, what)
