"""A place to run a private libvirt in, of which nothing is left.

outside() starts a command there and Session.close() ends all of it; the command calls
inside() first thing.  As root the place is a mount and a process namespace: /run is a
fresh tmpfs, libvirt's other folders are ours, and when its first process ends, whatever
runs in it is killed by the kernel.  As an ordinary user the folders come from XDG
variables, and the processes are found as descendants, orphans included.

The host's own folders are never written to, and no mount point is made in them.
"""

import ctypes
import fcntl
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# libvirt's packages own these, so they exist wherever there is a libvirtd.
FOLDERS = {'lib': '/var/lib/libvirt', 'etc': '/etc/libvirt', 'log': '/var/log/libvirt',
           'cache': '/var/cache/libvirt'}
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def is_root():
    return os.geteuid() == 0


def _prctl(option, value):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'prctl')


def _die_with_parent():
    """In a new process: as root the kernel then ends all that runs in the place; an
    ordinary user's first process needs a signal that it can act on."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL if is_root() else signal.SIGTERM)


def state(pid):
    """Its letter, as of proc(5); Z when it is gone."""
    try:
        with open(f'/proc/{pid}/stat', 'rb') as stat:
            return stat.read().rpartition(b')')[2].split()[0].decode()
    except OSError:
        return 'Z'


def children(pid):
    """The direct children of a process."""
    found = []
    for entry in os.listdir('/proc'):
        if not entry.isdigit():
            continue
        try:
            with open(f'/proc/{entry}/stat', 'rb') as stat:
                fields = stat.read().rpartition(b')')[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != b'Z':
            found.append(int(entry))
    return found


def kill_descendants(pid, spare=()):
    """Kills everything below pid by id, not the processes in spare."""
    for _ in range(100):
        targets, queue = [], [pid]
        while queue:
            for child in children(queue.pop()):
                if child not in spare:
                    targets.append(child)
                    queue.append(child)
        if not targets:
            return
        for target in targets:
            try:
                os.kill(target, signal.SIGKILL)
            except ProcessLookupError:
                pass
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        time.sleep(0.01)


def _sweep():
    """Removes the folders of places whose maker was killed: nobody locks them."""
    for lock in glob.glob(os.path.join(tempfile.gettempdir(), 'vc-*', 'lock')):
        try:
            with open(lock, 'r+') as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(os.path.dirname(lock), ignore_errors=True)
        except OSError:
            continue


class Session:
    """One place, seen from outside: a work folder and the process in it."""

    def __init__(self, command, env=None, **popen):
        _sweep()
        self.work = tempfile.mkdtemp(prefix='vc-')
        os.chmod(self.work, 0o755)
        self._lock = open(os.path.join(self.work, 'lock'), 'w')
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        full = dict(os.environ, VIRT_CHECKPOINT_TEST_WORK=self.work, **(env or {}))
        if is_root():
            command = ['unshare', '--mount', '--propagation', 'private', '--pid', '--fork',
                       '--kill-child=SIGKILL', '--mount-proc'] + list(command)
        try:
            self.process = subprocess.Popen(command, env=full, start_new_session=True,
                                            preexec_fn=_die_with_parent, **popen)
        except OSError:
            shutil.rmtree(self.work)
            self._lock.close()
            raise

    def close(self):
        """Kills what still runs there and removes the folder."""
        if self.process.poll() is None:
            kill_descendants(self.process.pid)
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.work, ignore_errors=True)
        self._lock.close()


def outside(command, env=None, **popen):
    """Starts command in a place of its own; it must call inside() before all else."""
    if not is_root():
        # Orphans of the place become our children, so that mop_up() finds them.
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
    return Session(command, env, **popen)


def mop_up():
    """An ordinary user's last step: kills orphans that a killed place left."""
    if not is_root():
        kill_descendants(os.getpid())


def _mount(*args):
    subprocess.run(['mount'] + list(args), check=True)


def _make_folders(work):
    """Root: libvirt's folders become ours, in this namespace only."""
    _mount('-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/run')
    os.makedirs('/run/lock')
    for name, target in FOLDERS.items():
        if not os.path.isdir(target):
            sys.exit(f'{target} does not exist: is libvirt installed?')
        source = os.path.join(work, name)
        os.makedirs(source, exist_ok=True)
        _mount('--bind', source, target)


def _make_user_folders(work):
    for name, variable in (('run', 'XDG_RUNTIME_DIR'), ('etc', 'XDG_CONFIG_HOME'),
                           ('lib', 'XDG_DATA_HOME'), ('cache', 'XDG_CACHE_HOME'),
                           ('state', 'XDG_STATE_HOME')):
        folder = os.path.join(work, name)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.environ[variable] = folder
    os.environ['HOME'] = work


def _reap_until(child):
    """The place's init: collects orphans, ends as child ends."""
    while True:
        try:
            pid, status = os.wait()
        except InterruptedError:
            continue
        if pid == child:
            if not is_root():
                kill_descendants(os.getpid())
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def inside():
    """Sets the place up; returns its work folder, in the process that does the work."""
    work = os.environ['VIRT_CHECKPOINT_TEST_WORK']
    for name in ('LIBVIRT_DEFAULT_URI', 'VIRSH_DEFAULT_CONNECT_URI', 'LIBVIRT_AUTOSTART'):
        os.environ.pop(name, None)
    if is_root():
        _make_folders(work)
    else:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        _make_user_folders(work)
    child = os.fork()
    if child:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: os.kill(child, signal.SIGKILL))
        _reap_until(child)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return work
