"""A power cut: what was not synced is gone, everywhere at once.

While a Power lives, what of a host survives a boot is on ext4 file systems in files, one
for each folder, so that a sync in one of them makes nothing durable in another.  They
commit by themselves only after ten minutes: until then a file holds what somebody synced
and what the kernel wrote back on its own.

A cut has one moment.  First every process of the place stands still, then each file
system is shut down without its log (EXT4_IOC_SHUTDOWN, as xfstests has it): from there
on the kernel writes nothing to it, and only now are the processes killed.  So whoever
acts on another's death does so in vain.  Then the files are copied as they are, put
back when the file systems are unmounted, and mounted again: the journals are replayed,
as at a boot.  What is on no disk is gone, too: libvirt's folder in /run.

Two of ext4's habits would hide mistakes: a file's data are written when it is renamed
over another one (noauto_da_alloc), and a disk's own cache is not lost here, for the
kernel's writes to a loop device are in its file at once.  The first is turned off, the
second is the disk's business: whoever syncs through ext4 flushes it.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import struct
import subprocess

from . import session
from .host import wait_for

ROOM = 512 << 20  # sparse
MKFS = ('mkfs.ext4', '-q', '-F', '-b', '4096', '-J', 'size=8', '-E',
        'lazy_itable_init=0,lazy_journal_init=0')
OPTIONS = 'loop,commit=600,noauto_da_alloc'
SHUTDOWN = 0x8004587d  # EXT4_IOC_SHUTDOWN
BLKFLSBUF = 0x1261
WITHOUT_LOG = struct.pack('i', 2)
# In memory, as the place's /run is: there a flush of the disk costs nothing.
DISKS = '/run/power'


def possible():
    """Only root can mount."""
    return session.is_root()


def _run(*command):
    subprocess.run(command, check=True)


class _Disk:
    """A folder that is a file system of its own."""

    def __init__(self, name, folder):
        self.folder = folder
        self._file = os.path.join(DISKS, name)
        self._kept = self._file + '.kept'
        with open(self._file, 'w') as out:
            out.truncate(ROOM)
        _run(*MKFS, self._file)
        first = self._file + '.first'
        os.makedirs(first, exist_ok=True)
        _run('mount', '-o', 'loop,' + OPTIONS, self._file, first)
        # It goes with its last user: us, however we end.
        self._device = f'/dev/loop{os.minor(os.stat(first).st_dev)}'
        self._handle = os.open(self._device, os.O_RDONLY)
        os.rmdir(os.path.join(first, 'lost+found'))
        _run('cp', '-a', folder + '/.', first)
        _run('umount', first)
        self._mount()

    def _mount(self):
        _run('mount', '-o', OPTIONS, self._device, self.folder)

    def _unmount(self):
        """Not lazily: it would be mounted on, shut down as it is."""
        wait_for(lambda: subprocess.run(['umount', self.folder], check=False,
                                        capture_output=True).returncode == 0,
                 f'{self.folder} is unmounted')

    def _ask(self, call):
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            call(handle)
        finally:
            os.close(handle)

    def sync(self):
        libc = ctypes.CDLL(None, use_errno=True)

        def syncfs(handle):
            if libc.syncfs(handle) != 0:
                raise OSError(ctypes.get_errno(), 'syncfs', self.folder)
        self._ask(syncfs)

    def stop(self):
        """Nothing is written to it any more."""
        self._ask(lambda handle: fcntl.ioctl(handle, SHUTDOWN, WITHOUT_LOG))

    def come_back(self):
        """With what was in the file when it stopped, on the same device: files are known
        by its number, too."""
        _run('cp', '--sparse=always', self._file, self._kept)
        self._unmount()
        fcntl.ioctl(self._handle, BLKFLSBUF, 0)
        _run('cp', '--sparse=always', self._kept, self._file)
        os.unlink(self._kept)
        self._mount()

    def remove(self):
        """What it holds stays in the folder, for whoever looks at what failed."""
        last = self._file + '.last'
        _run('cp', '-a', self.folder, last)
        self._unmount()
        os.close(self._handle)
        os.unlink(self._file)
        _run('cp', '-a', last + '/.', self.folder)
        shutil.rmtree(last)


def _moves(pid):
    """Whether a thread of the process still acts.  One that waits in the kernel (D, as
    in vfork() for a child that stands still) has the signal before it, and stops then."""
    try:
        return any(session.state(f'{pid}/task/{thread}') not in 'DTZX'
                   for thread in os.listdir(f'/proc/{pid}/task'))
    except OSError:
        return False


class Power:
    """The power of a host; libvirtd must not run when this is made."""

    def __init__(self, host):
        self._host = host
        host.power = self
        os.makedirs(DISKS, exist_ok=True)
        folders = {'images': host.images, 'state': host.state,
                   'etc': session.FOLDERS['etc'], 'lib': session.FOLDERS['lib']}
        self._disks = {}
        for name, folder in folders.items():
            self._disks[name] = _Disk(name, folder)

    def settle(self, *names):
        """What these disks have, or all, is on them: it was done long ago."""
        for name in names or self._disks:
            self._disks[name].sync()

    def cut(self):
        """Nobody runs afterwards, and what was not synced is gone."""
        self._stop_all()
        for disk in self._disks.values():
            disk.stop()
        self._kill_all()
        for disk in self._disks.values():
            disk.come_back()
        self._clear_run()

    def _others(self):
        """All processes of the place but its first, our parent, and this one."""
        return [int(entry) for entry in os.listdir('/proc') if entry.isdigit() and
                int(entry) not in (os.getpid(), os.getppid())]

    def _signal_all(self, number):
        for pid in self._others():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def _stop_all(self):
        """Again for those that were started meanwhile."""
        def still():
            moving = [pid for pid in self._others() if _moves(pid)]
            if moving:
                self._signal_all(signal.SIGSTOP)
            return not moving
        wait_for(still, 'everybody stands still', step=0.001)

    def _kill_all(self):
        self._signal_all(signal.SIGKILL)
        wait_for(lambda: all(session.state(pid) in 'ZX' for pid in self._others()),
                 'everybody is dead', step=0.001)
        self._host.kill_daemon()
        self._host.kill_libvirtd()

    def _clear_run(self):
        """It is in memory."""
        for entry in os.scandir(self._host.run):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    def close(self):
        """No file systems of their own any more; libvirtd must not run."""
        self._host.power = None
        while self._disks:
            self._disks.popitem()[1].remove()
