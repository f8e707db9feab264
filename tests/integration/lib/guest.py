"""Guest: a real Linux, small enough for TCG, whose writes a test commands.

The kernel is the distribution's cloud kernel, its package unpacked and not installed;
the initramfs holds guestd (tests/guest/guestd.c) and the modules for virtio disks.
Both are built once and kept in the build folder.
"""

import fcntl
import glob
import json
import lzma
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

import libvirt
import libvirt_qemu

from . import paths
from .domain import CLUSTER, SECTOR, VM
from .host import Failure, wait_for

BLOCK = 4096
WANTED = ('virtio_pci', 'virtio_blk', 'virtio_scsi', 'sd_mod', 'ext4',
          'virtio_console')  # or built in
AGENT = '/usr/sbin/qemu-ga'
MASK = (1 << 64) - 1


def _run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise Failure(f'{" ".join(command)}: {(done.stderr or done.stdout).strip()}')
    return done.stdout


# Building

def _kernel_package():
    """The name of the newest cloud kernel's package."""
    arch = _run('dpkg', '--print-architecture').strip()
    for line in _run('apt-cache', 'depends', f'linux-image-cloud-{arch}').splitlines():
        found = re.match(r'\s*Depends: (linux-image-\S+)', line)
        if found:
            return found.group(1)
    raise Failure('no cloud kernel among the packages')


def _unpack_kernel(folder):
    """(kernel image, folder of its modules), in folder, or the host's own at worst."""
    root = os.path.join(folder, 'root')
    try:
        _run('apt-get', 'download', _kernel_package(), cwd=folder)
        package = glob.glob(os.path.join(folder, '*.deb'))[0]
        _run('dpkg', '-x', package, root)
        os.unlink(package)
        return (glob.glob(os.path.join(root, 'boot', 'vmlinuz-*'))[0],
                os.path.join(root, 'lib', 'modules'))
    except (Failure, FileNotFoundError) as failure:
        for kernel in sorted(glob.glob('/boot/vmlinuz-*'), reverse=True):
            modules = '/lib/modules/' + os.path.basename(kernel)[len('vmlinuz-'):]
            if os.access(kernel, os.R_OK) and os.path.isdir(modules):
                return kernel, modules
        raise Failure(f'no kernel for the guest: {failure}') from None


def _modules(root):
    """Paths of the wanted modules and what those need, in the order to load them."""
    available = {}
    for path in glob.glob(os.path.join(root, '**', '*.ko*'), recursive=True):
        name = os.path.basename(path).split('.')[0].replace('-', '_')
        available[name] = path
    order = []

    def add(name):
        if name in order or name not in available:
            return
        depends = re.search(rb'\0depends=([^\0]*)\0', _module_bytes(available[name]))
        for other in depends.group(1).decode().split(',') if depends else ():
            add(other.replace('-', '_'))
        order.append(name)
    for name in WANTED:
        add(name)
    return [available[name] for name in order]


def _module_bytes(path):
    with open(path, 'rb') as module:
        data = module.read()
    return lzma.decompress(data) if path.endswith('.xz') else data


def _cpio(entries):
    """A newc archive of (name, mode, bytes)."""
    out = bytearray()
    for number, (name, mode, data) in enumerate(entries + [('TRAILER!!!', 0, b'')], 1):
        raw = name.encode() + b'\0'
        out += b'070701' + b''.join(b'%08X' % field for field in (
            number, mode, 0, 0, 1, 0, len(data), 0, 0, 5, 1, len(raw), 0)) + raw
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def _build(folder):
    kernel, module_folder = _unpack_kernel(folder)
    guestd = os.path.join(folder, 'guestd')
    _run('cc', '-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', '-D_GNU_SOURCE', '-static',
         '-o', guestd, os.path.join(paths.TOP, 'tests', 'guest', 'guestd.c'), '-pthread')
    modules = _modules(module_folder)
    names = [f'/mod{i}.ko' for i in range(len(modules))]
    entries = [('dev', 0o040755, b''), ('dev/console', 0o020600, b''),
               ('modules', 0o100644, '\n'.join(names).encode() + b'\n')]
    with open(guestd, 'rb') as binary:
        entries.append(('init', 0o100755, binary.read()))
    entries += [(name[1:], 0o100644, _module_bytes(path))
                for name, path in zip(names, modules)]
    with open(os.path.join(folder, 'initrd'), 'wb') as out:
        out.write(_cpio(entries))
    shutil.copy(kernel, os.path.join(folder, 'vmlinuz'))
    shutil.rmtree(os.path.join(folder, 'root'), ignore_errors=True)


def _unpack_agent(folder):
    """The guest agent's program, unpacked in folder, or the installed one."""
    try:
        _run('apt-get', 'download', 'qemu-guest-agent', cwd=folder)
        _run('dpkg', '-x', glob.glob(os.path.join(folder, 'qemu-guest-agent*.deb'))[0],
             os.path.join(folder, 'agent'))
        return os.path.join(folder, 'agent' + AGENT)
    except Failure:
        if os.access(AGENT, os.X_OK):
            return AGENT
        raise


def _agent_entries(program):
    """What of an initramfs the agent needs: itself and its libraries, as they are here."""
    files = {AGENT: program}
    for path in re.findall(r'(/\S+) \(0x', _run('ldd', program)):
        files[path] = path
    entries, made = [], set()
    for name, source in sorted(files.items()):
        parts = name[1:].split('/')
        for depth in range(1, len(parts)):
            folder = '/'.join(parts[:depth])
            if folder not in made:
                made.add(folder)
                entries.append((folder, 0o040755, b''))
        with open(source, 'rb') as data:
            entries.append((name[1:], 0o100755, data.read()))
    return entries


def build_agent():
    """An initramfs like build()'s, and qemu-guest-agent in it."""
    _, initrd = build()
    both = initrd + '-agent'
    with open(os.path.join(paths.cache(), 'guest.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(both):
            with tempfile.TemporaryDirectory(dir=paths.cache()) as folder, \
                    open(both + '.tmp', 'wb') as out, open(initrd, 'rb') as first:
                data = first.read()
                out.write(data + bytes(-len(data) % 512))
                out.write(_cpio(_agent_entries(_unpack_agent(folder))))
            os.rename(both + '.tmp', both)
    return both


def build():
    """(kernel, initramfs), made when missing or older than guestd."""
    place = os.path.join(paths.cache(), 'guest')
    kernel, initrd = os.path.join(place, 'vmlinuz'), os.path.join(place, 'initrd')
    source = os.path.join(paths.TOP, 'tests', 'guest', 'guestd.c')
    with open(os.path.join(paths.cache(), 'guest.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(os.path.getmtime(source), os.path.getmtime(__file__))
        if not os.path.exists(initrd) or os.path.getmtime(initrd) < newest:
            folder = tempfile.mkdtemp(prefix='guest-', dir=paths.cache())
            try:
                _build(folder)
            except BaseException:
                shutil.rmtree(folder)
                raise
            shutil.rmtree(place, ignore_errors=True)
            os.rename(folder, place)
    return kernel, initrd


# What a load wrote

def mix(value):
    """guestd's function from a number to a block."""
    value = (value + 0x9e3779b97f4a7c15) & MASK
    value = ((value ^ (value >> 30)) * 0xbf58476d1ce4e5b9) & MASK
    value = ((value ^ (value >> 27)) * 0x94d049bb133111eb) & MASK
    return value ^ (value >> 31)


def check_records(raw, offset, length, seed, first=1):
    """Judges a writer's region in a raw image; returns the last record in it.

    Records are written one at a time and in order, so at every moment the region shows
    records first..N and no later one: each block its last record up to N.  Raises if
    the image shows anything else, so it is from no moment at all.
    """
    blocks = length // BLOCK
    seen = {}
    with open(raw, 'rb') as image:
        image.seek(offset)
        for index in range(blocks):
            data = image.read(BLOCK)
            number = int.from_bytes(data[8:16], 'little')
            if number:
                if data != data[:16] * (BLOCK // 16) or \
                        int.from_bytes(data[:8], 'little') != index:
                    raise Failure(f'block {index} of the writer is torn or misplaced')
                seen[index] = number
    last = max(seen.values(), default=first - 1)
    expected = {}
    for number in range(first, last + 1):
        expected[mix(seed + number) % blocks] = number
    wrong = {i for i in set(seen) | set(expected) if seen.get(i) != expected.get(i)}
    if wrong:
        i = min(wrong)
        raise Failure(f'{len(wrong)} blocks are not of the moment of record {last}: block '
                      f'{i} (cluster {(offset + i * BLOCK) // CLUSTER}) holds '
                      f'{seen.get(i)}, not {expected.get(i)}')
    return last


class Guest(VM):
    """A VM that boots Linux; write, zero and discard run inside it.

    agent: it has a channel for qemu-guest-agent, which start_agent() starts.
    """

    def __init__(self, host, name='guest', disks=None, agent=False, **options):
        self.kernel, self.initrd = build()
        if agent:
            self.initrd = build_agent()
            options.setdefault('memory', 160)
        self._port = os.path.join(host.work, f'{name}.port')
        self._console = os.path.join(host.logs, f'{name}-console.log')
        self._socket = None
        self._buffer = b''
        self._ids = 0
        os_xml = (f"<kernel>{self.kernel}</kernel><initrd>{self.initrd}</initrd>"
                  "<cmdline>console=ttyS1 quiet panic=-1 tsc=reliable</cmdline>")
        extra = options.pop('extra_devices', '') + f"""<serial type='unix'><source mode='bind' path='{self._port}'/>
              <target port='0'/></serial>
            <serial type='file'><source path='{self._console}'/>
              <target port='1'/></serial>"""
        if agent:
            extra += """<channel type='unix'>
              <target type='virtio' name='org.qemu.guest_agent.0'/></channel>"""
        options.setdefault('memory', 96)
        super().__init__(host, name, disks, os_xml=os_xml, extra_devices=extra, **options)

    def start(self, dom=None):
        super().start(dom)
        self.attach()

    def attach(self, timeout=60):
        """Waits until the guest answers."""
        self._hang_up()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(self._port)
        self._buffer = b''

        def answers():
            try:
                self.command('ping', timeout=0.3)
                return True
            except TimeoutError:
                return False
        try:
            wait_for(answers, 'the guest answers', timeout)
        except Failure:
            with open(self._console, errors='replace') as console:
                raise Failure('the guest does not answer; its console: ' +
                              console.read()[-2000:]) from None

    def _hang_up(self):
        if self._socket:
            self._socket.close()
            self._socket = None

    def destroy(self):
        self._hang_up()
        super().destroy()

    def command(self, *words, timeout=60):
        """Sends a command; returns the words of its result."""
        self._ids += 1
        self._socket.sendall(f'{self._ids} {" ".join(map(str, words))}\n'.encode())
        end = time.monotonic() + timeout
        while True:
            line, newline, rest = self._buffer.partition(b'\n')
            if newline:
                self._buffer = rest
                answer = line.decode(errors='replace').split()
                # Before guestd runs, the terminal echoes what it is sent.
                if answer[:1] != [str(self._ids)] or answer[1] not in ('ok', 'err'):
                    continue
                if answer[1] != 'ok':
                    raise Failure(f'guest: {" ".join(map(str, words))}: '
                                  f'{" ".join(answer[2:])}')
                return answer[2:]
            self._socket.settimeout(max(end - time.monotonic(), 0.001))
            data = self._socket.recv(4096)
            if not data:
                raise Failure('the guest is gone')
            self._buffer += data

    # The model's operations, done by Linux

    def write(self, offset, length, byte, target='vda'):
        self.command('write', f'/dev/{target}', offset, length, byte)
        self.disks[target].model.fill(offset, length, byte)

    def zero(self, offset, length, target='vda', unmap=False):
        self.command('zero', f'/dev/{target}', offset, length)
        self.disks[target].model.fill(offset, length, 0)

    def _change(self, target, command, offset, length):
        self.command('discard', f'/dev/{target}', offset, length)

    def reads(self, offset, length, byte, target='vda'):
        try:
            self.command('verify', f'/dev/{target}', offset, length, byte)
            return True
        except Failure as failure:
            if 'differs at' not in str(failure):
                raise
            return False

    def flush(self, target='vda'):
        self.command('flush', f'/dev/{target}')

    # The agent

    def start_agent(self):
        """Starts it; libvirt has it connected.  Returns its pid in the guest."""
        port = wait_for(self._agent_port, 'the guest has the channel', 30)
        pid = int(self.command('run', AGENT, '-m', 'virtio-serial', '-p', port, '-t', '/dev',
                               '-f', '/dev/ga.pid')[0])
        wait_for(lambda: self.agent('guest-ping') == {}, 'the agent answers', 60)
        return pid

    def _agent_port(self):
        """The device of the channel: Linux counts it with all its virtio devices."""
        for number in range(8):
            path = f'/dev/vport{number}p1'
            try:
                self.command('flush', path)
                return path
            except Failure as failure:
                if 'No such file' not in str(failure):
                    return path
        return None

    def agent(self, command):
        """What the agent answers to a command, past us; None without an answer."""
        try:
            return json.loads(libvirt_qemu.qemuAgentCommand(
                self.dom, json.dumps({'execute': command}), 5, 0))['return']
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
                raise
            return None

    # Loads

    def start_writer(self, number=0, target='vda', offset=0, length=None, seed=1, first=1,
                     flush_every=50, delay_usec=0):
        """Records one after the other, for check_records(); runs until stop_load()."""
        self.command('load', number, 'writer', f'/dev/{target}', offset,
                     length or self.disks[target].size - offset, seed, first, flush_every,
                     delay_usec)

    def start_files(self, number=0, folder='/mnt', length=1024 * 1024, seed=1, first=1,
                    flush_every=20, delay_usec=0):
        """The same as files of a mounted file system, with a log of the records."""
        self.command('load', number, 'files', folder, 0, length, seed, first, flush_every,
                     delay_usec)

    def load_status(self, number=0):
        """(last record written, last record flushed)."""
        done, flushed = self.command('status', number)
        return int(done), int(flushed)

    def slowest_write(self, number=0):
        """Seconds that the writer's longest write took since this was last asked."""
        return int(self.command('slowest', number)[0]) / 1e6

    def stop_load(self, number=0):
        done, flushed = self.command('stop', number)
        return int(done), int(flushed)

    def mount(self, target='vda', folder='/mnt'):
        self.command('mount', f'/dev/{target}', folder)

    def unmount(self, folder='/mnt'):
        self.command('umount', folder)

    def power_off(self):
        self.command('poweroff')
        self._hang_up()
        wait_for(lambda: not self.dom.isActive(), 'the guest powers off')


__all__ = ['BLOCK', 'Guest', 'SECTOR', 'build', 'check_records', 'mix']
