"""Guests that are off on disks other than files: each opens its storage daemon."""

import os
import socket
import subprocess

import libvirt

from lib import images
from lib.domain import CLUSTER, MIB, qemu_img
from lib.host import wait_for
from lib.runner import Skip
from lib.tls import make_keys

SIZE = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE | libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN


def define(host, disk):
    """A guest that is off, on a disk of this type and source, through our daemon."""
    host.connect().defineXML(f"""<domain type='qemu'><name>vm</name>
        <memory unit='MiB'>32</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>
        <devices>{disk}<controller type='usb' model='none'/></devices></domain>""")
    host.start_daemon()
    return host.connect(ours=True).lookupByName('vm')


def disk(kind, source, fmt='qcow2'):
    return (f"<disk type='{kind}' device='disk'><driver name='qemu' type='{fmt}'/>{source}"
            "<target dev='vda' bus='virtio'/></disk>")


def judge(dom, path, write, delete=True):
    """Two checkpoints with a write of three clusters between them by write(), all of
    them seen; and nothing stays in the image after they were deleted.  path: of the
    image, or what makes a file of it."""
    def bitmaps():
        return images.bitmaps(path() if callable(path) else path)

    def create(name):
        dom.checkpointCreateXML(
            f'<domaincheckpoint><name>{name}</name></domaincheckpoint>', 0)

    create('c1')
    write()
    create('c2')
    size = dom.checkpointLookupByName('c1').getXMLDesc(SIZE)
    assert f"size='{3 * CLUSTER}'" in size, size
    assert "size='0'" in dom.checkpointLookupByName('c2').getXMLDesc(SIZE)
    assert [b.recording for b in bitmaps().values()] == [True]
    if not delete:
        return
    for name in ('c1', 'c2'):
        dom.checkpointLookupByName(name).delete(0)
    assert not bitmaps(), bitmaps()


def qemu_io(*args, path=None):
    subprocess.run(['qemu-io', *args, '-c', f'write 0 {3 * CLUSTER}',
                    *([path] if path else [])], check=True, capture_output=True)


def test_volume_of_a_pool(host):
    """A volume is what its pool says: a file here; a pool that is not active is told."""
    folder = os.path.join(host.images, 'pool')
    os.makedirs(folder)
    stock = host.connect()
    pool = stock.storagePoolDefineXML(f"<pool type='dir'><name>tank</name><target><path>"
                                      f'{folder}</path></target></pool>', 0)
    path = os.path.join(folder, 'vol.qcow2')
    qemu_img('create', '-q', '-f', 'qcow2', path, str(4 * MIB))
    dom = define(host, disk('volume', "<source pool='tank' volume='vol.qcow2'/>"))
    try:
        dom.checkpointCreateXML('<domaincheckpoint/>', 0)
        raise AssertionError('created on a pool that is not active')
    except libvirt.libvirtError as error:
        assert 'tank' in str(error), error
    pool.create(0)
    judge(dom, path, lambda: qemu_io('-f', 'qcow2', path=path))
    dom.create()  # and the guest takes the same file
    dom.checkpointCreateXML('<domaincheckpoint><name>on</name></domaincheckpoint>', 0)
    dom.destroy()
    dom.checkpointLookupByName('on').delete(0)
    assert not images.bitmaps(path)


def loop_device(host, path):
    """A block device on a file, gone with the test's process namespace or before."""
    done = subprocess.run(['losetup', '--show', '-f', path], capture_output=True, text=True,
                          check=False) if host.system else None
    if not done or done.returncode != 0:
        raise Skip('no loop device: needs root')
    return done.stdout.strip()


def test_block_device(host):
    """qcow2 on a block device."""
    path = os.path.join(host.images, 'device')
    with open(path, 'wb') as file:
        file.truncate(8 * MIB)
    device = loop_device(host, path)
    try:
        qemu_img('create', '-q', '-f', 'qcow2', device, str(4 * MIB))
        dom = define(host, disk('block', f"<source dev='{device}'/>"))
        judge(dom, device, lambda: qemu_io('-f', 'qcow2', path=device))
    finally:
        subprocess.run(['losetup', '-d', device], check=True)


def test_slice_of_a_file(host):
    """qcow2 in a part of a file; what is around it is left alone."""
    path = os.path.join(host.images, 'sliced')
    image = path + '.qcow2'
    qemu_img('create', '-q', '-f', 'qcow2', image, str(2 * MIB))
    with open(image, 'rb') as inner, open(path, 'wb') as file:
        file.write(b'\xaa' * MIB + inner.read())
        file.truncate(9 * MIB)
        file.seek(9 * MIB)
        file.write(b'\xbb' * MIB)
    dom = define(host, disk('file', f"""<source file='{path}'><slices><slice type='storage'
        offset='{MIB}' size='{8 * MIB}'/></slices></source>"""))

    def cut():
        with open(path, 'rb') as file, open(image, 'wb') as inner:
            file.seek(MIB)
            inner.write(file.read(8 * MIB))
        return image
    judge(dom, cut, lambda: qemu_io(
        '--image-opts', path=f'driver=qcow2,file.driver=raw,file.offset={MIB},'
        f'file.size={8 * MIB},file.file.driver=file,file.file.filename={path}'))
    with open(path, 'rb') as file:
        assert file.read(MIB) == b'\xaa' * MIB
        file.seek(9 * MIB)
        assert file.read() == b'\xbb' * MIB


class Server:
    """qemu-nbd for a file with a qcow2 in it, with TLS or not."""

    def __init__(self, host, path, keys=None):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.port = probe.getsockname()[1]
        os.truncate(path, 8 * MIB)  # what is behind NBD does not grow
        tls = ['--object', f'tls-creds-x509,id=t,endpoint=server,dir={keys}', '--tls-creds',
               't'] if keys else []
        self.process = subprocess.Popen(['qemu-nbd', '-t', '-f', 'raw', '-x', 'a', '-b',
                                         '127.0.0.1', '-p', str(self.port), *tls, path])
        wait_for(self._listens, 'the server listens')

    def _listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(('127.0.0.1', self.port)) == 0

    def end(self):
        self.process.terminate()
        self.process.wait()


def test_nbd_with_tls(host):
    """NBD over TCP with TLS: the certificates are where libvirt's qemu.conf says."""
    keys = make_keys(os.path.join(host.work, 'keys'))
    with open(os.path.join(host.config, 'qemu.conf'), 'a') as conf:
        conf.write(f'nbd_tls_x509_cert_dir = "{keys}"\n')
    host.restart_libvirtd()
    path = os.path.join(host.images, 'remote.qcow2')
    qemu_img('create', '-q', '-f', 'qcow2', path, str(4 * MIB))
    server = Server(host, path, keys)
    try:
        dom = define(host, disk('network', f"""<source protocol='nbd' name='a' tls='yes'>
            <host name='127.0.0.1' port='{server.port}'/></source>"""))
        judge(dom, path, lambda: qemu_io(
            '--object', f'tls-creds-x509,id=t,endpoint=client,dir={keys}', '--image-opts',
            path='driver=qcow2,file.driver=nbd,file.server.type=inet,'
            f'file.server.host=127.0.0.1,file.server.port={server.port},file.export=a,'
            'file.tls-creds=t'), delete=False)
    finally:
        server.end()


def test_remote_image_with_one_below(host):
    """What a remote image has below it stands in its header, read by a daemon of its
    own."""
    base = os.path.join(host.images, 'base.qcow2')
    path = os.path.join(host.images, 'remote.qcow2')
    qemu_img('create', '-q', '-f', 'qcow2', base, str(4 * MIB))
    qemu_img('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base, path)
    server = Server(host, path)
    try:
        dom = define(host, disk('network', f"""<source protocol='nbd' name='a'>
            <host name='127.0.0.1' port='{server.port}'/></source>"""))
        judge(dom, path, lambda: qemu_io('-f', 'qcow2', path=f'json:{{"driver":"qcow2",'
              f'"file":{{"driver":"nbd","server":{{"type":"inet","host":"127.0.0.1",'
              f'"port":"{server.port}"}},"export":"a"}}}}'), delete=False)
    finally:
        server.end()
