"""What copies can go to besides files: block devices, NBD servers, encrypted images; and
file systems that get full."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess

from .domain import MIB, qemu_img
from .host import Failure, wait_for
from .runner import Skip


@contextlib.contextmanager
def small_place(host, size):
    """A file system of a size."""
    if os.geteuid() != 0:
        raise Skip('a small file system needs root')
    place = os.path.join(host.work, 'small')
    os.makedirs(place, exist_ok=True)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'none', place],
                   check=True)
    try:
        yield place
    finally:
        subprocess.run(['umount', '-l', place], check=True)


@contextlib.contextmanager
def freezing_place(host, size):
    """A file system of a size, and what makes all that writes to it wait: freeze(),
    freeze(False)."""
    if os.geteuid() != 0:
        raise Skip('a file system of our own needs root')
    place, image = os.path.join(host.work, 'freezing'), os.path.join(host.work, 'ext4')
    os.makedirs(place, exist_ok=True)
    with open(image, 'wb') as file:
        file.truncate(size)
    subprocess.run(['mkfs.ext4', '-q', '-O', '^has_journal', image], check=True)
    mounted = subprocess.run(['mount', '-o', 'loop', image, place], check=False)
    if mounted.returncode != 0:
        raise Skip('no loop device')
    frozen = False

    def freeze(stop=True):
        nonlocal frozen
        if stop != frozen:
            subprocess.run(['fsfreeze', '-f' if stop else '-u', place], check=True)
            frozen = stop
    try:
        yield place, freeze
    finally:
        freeze(False)
        subprocess.run(['umount', '-l', place], check=True)


def fill(place):
    """Leaves no room at all, by a file 'filler'."""
    with open(os.path.join(place, 'filler'), 'wb', buffering=0) as filler:
        for step in (MIB, 4096):
            try:
                while True:
                    filler.write(bytes(step))
            except OSError:
                continue


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


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def _openssl(folder, *args):
    done = subprocess.run(['openssl', *args], cwd=folder, capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise Failure(f'openssl {" ".join(args)}: {done.stderr}')


def certificates(host):
    """Makes a CA, a server's and a client's certificates; (server's, client's folder)."""
    ca = os.path.join(host.work, 'pki-ca')
    os.makedirs(ca)
    key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout']
    _openssl(ca, 'req', '-x509', *key, 'ca-key.pem', '-out', 'ca-cert.pem', '-days', '2',
             '-subj', '/CN=authority', '-addext', 'keyUsage=critical,keyCertSign')
    folders = []
    for side in ('server', 'client'):
        folder = os.path.join(host.work, f'pki-{side}')
        os.makedirs(folder)
        shutil.copy(os.path.join(ca, 'ca-cert.pem'), folder)
        with open(os.path.join(ca, f'{side}.ext'), 'w', encoding='ascii') as text:
            text.write('basicConstraints=critical,CA:FALSE\n'
                       'keyUsage=critical,digitalSignature,keyEncipherment\n'
                       f'extendedKeyUsage={side}Auth\n'
                       'subjectAltName=DNS:localhost,IP:127.0.0.1\n')
        _openssl(ca, 'req', *key, f'{folder}/{side}-key.pem', '-out', f'{side}.csr',
                 '-subj', '/CN=localhost')
        _openssl(ca, 'x509', '-req', '-in', f'{side}.csr', '-CA', 'ca-cert.pem', '-CAkey',
                 'ca-key.pem', '-CAcreateserial', '-days', '2', '-extfile', f'{side}.ext',
                 '-out', f'{folder}/{side}-cert.pem')
        folders.append(folder)
    return folders


class Nbd:
    """qemu-nbd serving an image for a with block, over a Unix socket or TCP.

    Attributes: path (the image), xml (the destination of a copy), pid.
    """

    def __init__(self, host, name, size, served='raw', tcp=False, fmt='raw', tls=None,
                 options=()):
        self.path = os.path.join(host.images, name)
        self.served = served  # format of the image; its content is the export
        self.socket = None if tcp else os.path.join(host.work, name + '.sock')
        self.port = free_port() if tcp else None
        self.tls = tls  # folder of the server's certificates
        self.options = options
        self._process = None
        self._log = os.path.join(host.logs, f'{name}-nbd.log')
        where = (f"<host name='localhost' port='{self.port}'/>" if tcp else
                 f"<host transport='unix' socket='{self.socket}'/>")
        self.xml = (f"<disk type='network' device='disk'><driver name='qemu' type='{fmt}'/>"
                    f"<source protocol='nbd' name='replica'"
                    f"{self._tls_word()}>{where}</source><backingStore/></disk>")
        if not os.path.exists(self.path):
            qemu_img('create', '-q', '-f', served, self.path, str(size))

    def _tls_word(self):
        return " tls='yes'" if self.tls else ''

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def pid(self):
        return self._process.pid

    def start(self):
        where = ['-b', '127.0.0.1', '-p', str(self.port)] if self.port else \
            ['-k', self.socket]
        tls = ['--object', f'tls-creds-x509,id=t,endpoint=server,dir={self.tls}',
               '--tls-creds', 't'] if self.tls else []
        with open(self._log, 'ab') as log:
            self._process = subprocess.Popen(
                ['qemu-nbd', '-t', '-e', '8', '-f', self.served, '-x', 'replica', *where,
                 *tls, *self.options, self.path], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log)

        def answers():
            if self._process.poll() is not None:
                with open(self._log, errors='replace') as log:
                    raise Failure(f'qemu-nbd: {log.read()}')
            probe = socket.socket(socket.AF_INET if self.port else socket.AF_UNIX)
            with probe:
                try:
                    probe.connect(('127.0.0.1', self.port) if self.port else self.socket)
                    return True
                except OSError:
                    return False
        wait_for(answers, 'qemu-nbd answers')

    def stop(self, signum=signal.SIGTERM):
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signum)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                # qemu-nbd 7.2 may hang at its end after clients that broke off; what it
                # was told to flush is in the file.
                self._process.kill()
                self._process.wait()
        self._process = None

    def hold(self, stopped=True):
        """Stops the server's process, or lets it go on."""
        self._process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)


__all__ = ['Loop', 'Nbd', 'block_xml', 'certificates', 'expect_device', 'free_port']
