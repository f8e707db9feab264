"""Rows of the sweep's table in which the file systems of a guest are frozen by its agent.

The guest boots Linux, so a cell takes some twenty seconds.  What is frozen is a file
system that nobody writes to, on a disk that no checkpoint has: the oracle knows of the
others what they contain.
"""

import os

import libvirt

from .domain import MIB
from .guest import Guest
from .host import Failure, wait_for
from .sweepops import Create
from .sweeprecover import Recover

STATUS = 'guest-fsfreeze-status'


def _files(host, name):
    """A read-only disk with an empty file system."""
    path = os.path.join(host.images, f'files-{name}.raw')
    with open(path, 'wb') as out:
        out.truncate(MIB)
    if os.system(f'mkfs.ext2 -q -F {path}') != 0:
        raise Failure('mkfs.ext2 failed')
    return f"""<disk type='file' device='disk'><driver name='qemu' type='raw'/>
      <source file='{path}'/><target dev='vdc' bus='virtio'/><readonly/></disk>"""


class Quiesce(Create):
    """A checkpoint of both disks while file systems are frozen."""

    usual = 45
    seconds = 400
    flags = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_QUIESCE

    def guest(self, host, name, disks):
        return Guest(host, name, disks, agent=True, extra_devices=_files(host, name))

    def setup(self, case):
        self._ready(case)
        super().setup(case)

    def _ready(self, case):
        """This QEMU's guest has its agent, and something to be frozen."""
        if not self._has_agent(case):
            case.vm.start_agent()
            case.vm.mount('vdc')
            case.agent = case.host.qemu_pid(case.vm.name)

    def _has_agent(self, case):
        return case.agent and case.agent == case.host.qemu_pid(case.vm.name)

    def settle(self, case):
        """A guest that was started anew starts its agent, too: until that can be asked
        its mark is kept, for a while."""
        if case.vm.dom.isActive():
            self._ready(case)

    def judge(self, case):
        """Whoever froze it has thawed it."""
        if case.vm.dom.isActive() and self._has_agent(case):
            wait_for(lambda: case.vm.agent(STATUS) == 'thawed', 'it is thawed', 15)

    def again(self, case):
        self._ready(case)
        super().again(case)
        self.judge(case)


AGENTS = {o.name: o for o in (
    Quiesce('quiesce'),
    Recover('recover-quiesce', Quiesce('quiesce'), 'quiesce/frozen', usual=56))}
