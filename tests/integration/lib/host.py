"""PrivateHost: a libvirtd, and a virtcheckpointd in front of it, for one test."""

import glob
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
import uuid

import libvirt

from . import paths, session

QEMU_CONF = '''\
security_driver = "none"
stdio_handler = "file"
namespaces = []
cgroup_controllers = []
'''
LIBVIRTD_CONF = '''\
log_filters = "2:qemu.qemu_monitor"
log_outputs = "2:file:{log}"
host_uuid = "{uuid}"
auth_unix_rw = "none"
auth_unix_ro = "none"
'''
UCRED = struct.Struct('3i')  # pid, uid, gid: who called listen()


class Failure(Exception):
    """What a test saw is not what it must see."""


def wait_for(condition, what, timeout=20.0, step=0.02):
    """Returns the first true value of condition(); raises after timeout seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f'timed out after {timeout} s: {what}')
        time.sleep(step)


def _accepts(path, process):
    """Whether process listens on path.  A killed daemon's child may hold the old socket
    for a moment more, and takes connections that nobody will answer."""
    probe = socket.socket(socket.AF_UNIX)
    try:
        probe.connect(path)
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        return UCRED.unpack(peer)[0] == process.popen.pid
    except OSError:
        return False
    finally:
        probe.close()


class Process:
    """A program that a test starts, kills and starts again; its output goes to a log."""

    def __init__(self, name, log):
        self.name = name
        self.log = log
        self.popen = None

    def start(self, command, env=None):
        if self.running():
            raise Failure(f'{self.name} runs already')
        with open(self.log, 'ab') as log:
            self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                          stderr=log, env=dict(os.environ, **(env or {})))

    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def end(self, signum, timeout=30):
        """Sends signum and waits; returns the exit status, None if it did not run."""
        if self.popen is None:
            return None
        if self.popen.poll() is None:
            self.popen.send_signal(signum)
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                raise Failure(f'{self.name} did not end on signal {signum}') from None
        status, self.popen = self.popen.returncode, None
        return status


class PrivateHost:
    """A fresh host in the folder that session.inside() prepared.

    Attributes: work (removed at the end), images (a folder for disks), state (the
    daemon's store root), qmp_log (what the daemon sent to QEMU), calls_log (libvirt
    calls of the daemon), backend and front (sockets).
    """

    def __init__(self, work):
        self.work = work
        self.system = session.is_root()
        self.images = os.path.join(work, 'img')
        self.state = os.path.join(work, 'vc-state')
        self.logs = os.path.join(work, 'logs')
        self.qmp_log = os.path.join(self.logs, 'qmp.jsonl')
        self.calls_log = os.path.join(self.logs, 'calls.log')
        self.libvirtd_log = os.path.join(self.logs, 'libvirtd-debug.log')
        self._place()
        self.backend = os.path.join(self.run, 'libvirt-sock')
        self.front = os.path.join(self.run, 'virtcheckpointd-sock')
        self.libvirtd_options = []
        self.daemon_options = []
        self.daemon_env = {}
        self.uuid = str(uuid.uuid4())
        self._libvirtd = Process('libvirtd', os.path.join(work, 'logs', 'libvirtd.log'))
        self._daemon = Process('virtcheckpointd',
                               os.path.join(work, 'logs', 'virtcheckpointd.log'))
        self.power = None  # a Power (power.py) while its disks are mounted
        self.guests = []  # of any name, for the judges of what was sent
        self._connections = []
        self._wipe()
        self._prepare()

    # Files

    def _place(self):
        """Libvirt's folders."""
        if self.system:
            self.run, self.config = '/run/libvirt', '/etc/libvirt'
            self.cache, self.domain_logs = '/var/cache/libvirt', '/var/log/libvirt/qemu'
            self.pids = '/run/libvirt/qemu'
        else:
            self.run = os.path.join(os.environ['XDG_RUNTIME_DIR'], 'libvirt')
            self.config = os.path.join(os.environ['XDG_CONFIG_HOME'], 'libvirt')
            self.cache = os.path.join(os.environ['XDG_CACHE_HOME'], 'libvirt')
            self.domain_logs = os.path.join(self.cache, 'qemu', 'log')
            self.pids = os.path.join(self.run, 'qemu', 'run')

    def _enter(self, command):
        """The command that runs another one on this host."""
        return command

    def _folders(self):
        if self.system:
            return list(session.FOLDERS.values()) + ['/run/libvirt']
        return [os.environ[name] for name in ('XDG_RUNTIME_DIR', 'XDG_CONFIG_HOME',
                                              'XDG_DATA_HOME', 'XDG_CACHE_HOME')]

    def _wipe(self):
        for folder in self._folders() + [self.images, self.state, self.logs]:
            for entry in os.scandir(folder) if os.path.isdir(folder) else ():
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
        # What the test before left beside the folders, such as the gate of a held point.
        for entry in os.scandir(self.work):
            if entry.is_file(follow_symlinks=False) and entry.name != 'lock':
                os.unlink(entry.path)

    def _prepare(self):
        for folder in (self.images, self.state, self.logs, self.run, self.config,
                       os.path.join(self.cache, 'qemu')):
            os.makedirs(folder, exist_ok=True)
        # libvirt probes QEMU for seconds unless it finds what it saw last time.
        os.symlink(paths.cache('capabilities-' + ('system' if self.system else 'user')),
                   os.path.join(self.cache, 'qemu', 'capabilities'))
        with open(os.path.join(self.config, 'qemu.conf'), 'w') as conf:
            conf.write(QEMU_CONF)
            if self.system:
                conf.write('user = "root"\ngroup = "root"\n')
        with open(os.path.join(self.config, 'libvirtd.conf'), 'w') as conf:
            conf.write(LIBVIRTD_CONF.format(log=self.libvirtd_log, uuid=self.uuid))

    # libvirtd

    def start_libvirtd(self):
        self._libvirtd.start(self._enter(
            [paths.program('libvirtd'), '-f', os.path.join(self.config, 'libvirtd.conf'),
             '-p', os.path.join(self.run, 'libvirtd.pid'), *self.libvirtd_options]))
        wait_for(lambda: _accepts(self.backend, self._libvirtd),
                 'libvirtd answers', 60)

    def stop_libvirtd(self):
        return self._libvirtd.end(signal.SIGTERM)

    def kill_libvirtd(self):
        return self._libvirtd.end(signal.SIGKILL)

    def libvirtd_running(self):
        return self._libvirtd.running()

    def restart_libvirtd(self, signum=signal.SIGTERM):
        self._libvirtd.end(signum)
        self.start_libvirtd()

    # virtcheckpointd

    def start_daemon(self, *options, env=None, wait=True):
        """Starts our daemon; options and env are added to daemon_options, daemon_env."""
        full = {'VIRT_CHECKPOINT_LOG': 'debug', 'VIRT_CHECKPOINT_LOG_QMP': self.qmp_log,
                'LIBVIRT_DEBUG': '1', 'LIBVIRT_LOG_FILTERS': '1:libvirt 4:*',
                'LIBVIRT_LOG_OUTPUTS': f'1:file:{self.calls_log}'}
        full.update(self.daemon_env)
        full.update(env or {})
        self._daemon.start(self._enter(
            [paths.DAEMON, '--socket', self.front, '--backend', self.backend,
             '--state-dir', self.state, '--verbose', *self.daemon_options, *options]),
            full)
        if wait:
            wait_for(lambda: _accepts(self.front, self._daemon) or
                     not self._daemon.running(),
                     'virtcheckpointd answers')
            if not self._daemon.running():
                raise Failure('virtcheckpointd ended: ' + self.daemon_log()[-2000:])

    def stop_daemon(self):
        return self._daemon.end(signal.SIGTERM)

    def kill_daemon(self):
        return self._daemon.end(signal.SIGKILL)

    def restart_daemon(self, signum=signal.SIGTERM, **options):
        self._daemon.end(signum)
        self.start_daemon(**options)

    def daemon_running(self):
        return self._daemon.running()

    def daemon_pid(self):
        return self._daemon.popen.pid

    def wait_daemon(self, timeout=30):
        """Waits until the daemon has ended by itself; returns its exit status."""
        wait_for(lambda: not self._daemon.running(), 'virtcheckpointd ends', timeout)
        return self._daemon.end(signal.SIGTERM)

    def daemon_log(self):
        try:
            with open(self._daemon.log, errors='replace') as log:
                return log.read()
        except FileNotFoundError:
            return ''

    # Clients

    def uri(self, ours=False):
        kind = 'system' if self.system else 'session'
        return f'qemu:///{kind}?socket={self.front if ours else self.backend}'

    def connect(self, ours=False, readonly=False):
        """A new connection: to the stock daemon, or through ours."""
        uri = self.uri(ours)
        if readonly:
            # libvirt's session daemon has no read-only socket.
            path = uri.partition('socket=')[2] + '-ro'
            conn = libvirt.openReadOnly(uri + '-ro' if os.path.exists(path) else uri)
        else:
            conn = libvirt.open(uri)
        self._connections.append(conn)
        return conn

    def virsh(self, *args, ours=False, program=None, check=True, timeout=120, **run):
        """Runs the stock virsh (or program); returns its output."""
        command = [program or paths.stock_virsh(), '-q', '-c', self.uri(ours), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                              check=False, stdin=subprocess.DEVNULL, **run)
        if check and done.returncode != 0:
            raise Failure(f'virsh {" ".join(args)}: {done.stderr.strip()}')
        return done.stdout if check else done

    # Guests

    def qemu_pid(self, name):
        """The process of a running domain, None if there is none."""
        try:
            with open(os.path.join(self.pids, name + '.pid')) as pid:
                return int(pid.read())
        except (FileNotFoundError, ValueError):
            return None

    def domain_log(self, name):
        try:
            with open(os.path.join(self.domain_logs, name + '.log'), errors='replace') as f:
                return f.read()
        except FileNotFoundError:
            return ''

    def copied_bytes(self):
        """What QEMU's backup and mirror jobs copied so far, by its own events."""
        with open(self.libvirtd_log, errors='replace') as log:
            return sum(int(offset) for offset in re.findall(
                r'"BLOCK_JOB_COMPLETED", "data": \{"device": "[^"]*", "len": \d+, '
                r'"offset": (\d+), "speed": \d+, "type": "(?:backup|mirror)"', log.read()))

    def stock_died(self):
        """What ended by itself though it is not ours: one line, '' if nothing did.  Ask
        before close()."""
        status = self._libvirtd.popen and self._libvirtd.popen.poll()
        if status is not None and status < 0:
            return f'libvirtd ended by signal {-status}'
        for path in glob.glob(self.domain_logs + '/*.log'):
            with open(path, errors='replace') as log:
                died = re.search(r"qemu-system.*Assertion `.*' failed", log.read())
            if died:
                return died.group(0)
        return ''

    def close(self):
        """Ends everything, guests too, in the order that loses nothing of the logs."""
        for conn in self._connections:
            try:
                conn.close()
            except libvirt.libvirtError:
                pass
        self._connections = []
        try:
            self._daemon.end(signal.SIGTERM)
        finally:
            self._libvirtd.end(signal.SIGKILL)
            session.kill_descendants(os.getppid(), spare=(os.getpid(),))
            session.kill_descendants(os.getpid())
            if self.power:
                self.power.close()

    def save_logs(self, folder):
        """Copies every log to folder, for a test that failed."""
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        for path in glob.glob(self.logs + '/*') + glob.glob(self.domain_logs + '/*.log'):
            shutil.copy(path, folder)
        if os.path.isdir(self.state):
            shutil.copytree(self.state, os.path.join(folder, 'state'), symlinks=True,
                            ignore=lambda _, names: [n for n in names if 'qcow2' in n])
