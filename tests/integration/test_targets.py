"""What an incremental copy can go to, and from: proofs by content."""

import json
import os

import libvirt
import libvirt_qemu

from lib import images, jobs
from lib.domain import MIB, VM, qemu_img
from lib.host import Failure, wait_for
from lib.native import emulator
from lib.runner import limit
from lib.scene import Scene
from lib.targets import (Loop, Nbd, block_xml, certificates, expect_device, fill,
                         small_place)

PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
SIZE = 16 * MIB


def error_of(scene):
    """What the daemon tells of the last copy of vda that failed."""
    return json.loads(libvirt_qemu.qemuMonitorCommand(scene.dom, json.dumps({
        'execute': 'virtcheckpoint-job-error', 'arguments': {'disk': 'vda'}}),
        0))['return'].get('message', '')


def pivot(scene, target='vda'):
    """Waits until a mirror is ready, and moves the guest."""
    jobs.wait_ready(scene.events, target)
    scene.dom.blockJobAbort(target, PIVOT)
    jobs.wait_end(scene.events, scene.dom, target)


def test_raw_block_device(host):
    """A block device takes full copies, increments and, of the disk's size, mirrors."""
    with Loop(host, 'device', SIZE + 3 * MIB) as loop, Loop(host, 'same', SIZE) as same:
        scene = Scene(host, disks={'vda': SIZE})
        vm, xml = scene.vm, block_xml(loop.path, 'raw')
        vm.write(MIB, 4 * MIB, 0x11)
        scene.copy(loop.path, xml=xml, flags=0, checkpoint='c1')
        expect_device(loop, vm.disks['vda'].model, 'full')
        vm.write(2 * MIB, 512, 0x12)
        vm.zero(3 * MIB, MIB)
        scene.copy(loop.path, xml=xml, bitmap='c1', checkpoint='c2')
        expect_device(loop, vm.disks['vda'].model, 'increment')
        vm.write(6 * MIB, MIB, 0x13)
        # As a file: what is there decides, as in stock blockcopy.
        jobs.start_copy(scene.dom, 'vda', same.path, checkpoint='c3', fmt='raw')
        jobs.wait_ready(scene.events, 'vda')
        vm.write(8 * MIB, MIB, 0x14)
        scene.dom.blockJobAbort('vda', 0)
        scene.events.wait('vda', 'canceled')
        expect_device(same, vm.disks['vda'].model, 'mirror')
        try:
            jobs.start_copy(scene.dom, 'vda', loop.path, xml=xml, bitmap='c2')
            raise Failure('a live mirror to a larger device was begun')
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
                raise
        scene.settled()
        vm.destroy()
        scene.copy(loop.path, xml=xml, bitmap='c2')
        expect_device(loop, vm.disks['vda'].model, 'of a guest that is off')
        scene.settled()


@limit(180)
def test_qcow2_on_block_devices(host):
    """The guest moves onto a block device with qcow2, and back; increments stay right."""
    with Loop(host, 'first', 2 * SIZE) as first, Loop(host, 'second', 2 * SIZE) as second:
        first.format(SIZE)
        second.format(SIZE)
        host.daemon_options = ['--overlay-dir', host.images]
        scene = Scene(host, disks={'vda': SIZE})
        vm, plain = scene.vm, scene.vm.disks['vda'].path
        replica = scene.path('replica.qcow2')
        vm.write(0, 4 * MIB, 0x21)
        scene.copy(replica, checkpoint='c0')
        for turn, device in enumerate((first, second, None)):
            vm.write((turn + 1) * MIB, MIB, 0x31 + turn)
            path = device.path if device else plain
            xml = block_xml(path, 'qcow2') if device else None
            if turn == 0:
                jobs.start_copy(scene.dom, 'vda', path, xml=xml, checkpoint='p0')
            elif turn == 1:
                scene.copy(path, xml=xml, checkpoint='p1')
                vm.write(12 * MIB, 512, 0x41)
                jobs.start_copy(scene.dom, 'vda', path, xml=xml, bitmap='p1')
            else:
                jobs.start_copy(scene.dom, 'vda', path, bitmap='p0')
            vm.write(14 * MIB + turn * 512, 512, 0x51)
            pivot(scene)
            vm.disks['vda'].path = path
            scene.settled()
            vm.write(9 * MIB + turn * 512, 512, 0x61)
            vm.verify()
            scene.copy(replica, bitmap='c0')
            images.expect_content(replica, vm.disks['vda'].model, f'replica {turn}')
            scene.settled()
            if turn == 1:
                vm.restart()
                vm.verify()
        vm.destroy()
        images.expect_content(plain, vm.disks['vda'].model, 'the image at last')


def on_device(vm, path):
    """Starts a guest that is off with its disk on a block device."""
    xml = vm.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    old = vm.disks['vda'].path
    vm.conn.defineXML(xml.replace("<disk type='file'", "<disk type='block'", 1)
                      .replace(f"<source file='{old}'/>", f"<source dev='{path}'/>"))
    vm.disks['vda'].path = path
    vm.start()


def test_block_devices_that_are_refused(host):
    """In use, too small, of another size, below the domain itself: refused, unchanged."""
    with Loop(host, 'small', SIZE - MIB) as small, Loop(host, 'good', 2 * SIZE) as good:
        scene = Scene(host, disks={'vda': SIZE})
        vm = scene.vm
        scene.copy(scene.path('replica.qcow2'), checkpoint='c1')

        def refused(path, code, fmt='raw'):
            try:
                jobs.start_copy(scene.dom, 'vda', path, xml=block_xml(path, fmt),
                                bitmap='c1', finish=True)
            except libvirt.libvirtError as error:
                if error.get_error_code() != code:
                    raise
            else:
                raise Failure(f'{path} was not refused')
            scene.settled()
        refused(small.path, libvirt.VIR_ERR_INVALID_ARG)
        good.format(SIZE + MIB)
        refused(good.path, libvirt.VIR_ERR_INVALID_ARG, 'qcow2')
        refused('/dev/null', libvirt.VIR_ERR_CONFIG_UNSUPPORTED)
        refused('/dev/loop-that-is-not', libvirt.VIR_ERR_SYSTEM_ERROR)
        good.format(SIZE)
        other = VM(host, 'other', {'vda': SIZE}, start=False)
        on_device(other, good.path)
        refused(good.path, libvirt.VIR_ERR_RESOURCE_BUSY, 'qcow2')
        other.destroy()
        scene.copy(good.path, xml=block_xml(good.path, 'qcow2'), bitmap='c1')
        # Writes that are made during a copy must not go into /dev.
        vm.destroy()
        on_device(vm, good.path)
        refused(small.path, libvirt.VIR_ERR_OPERATION_INVALID)


def expect_server(server, model, what):
    """Raises unless the image that a server serves holds what the model says; the server
    must have let go of it."""
    server.stop()
    images.expect_content(server.path, model, what, fmt=server.served)
    server.start()


def test_nbd(host):
    """An NBD export takes full copies, increments and mirrors: Unix socket and TCP."""
    scene = Scene(host, disks={'vda': SIZE})
    vm = scene.vm
    for turn, options in enumerate(({}, {'tcp': True, 'served': 'qcow2'})):
        with Nbd(host, f'replica{turn}', SIZE, **options) as server:
            vm.write(MIB, 4 * MIB, 0x11 + turn)
            scene.copy(server.path, xml=server.xml, checkpoint=f'a{turn}')
            expect_server(server, vm.disks['vda'].model, 'full')
            vm.write(2 * MIB, 512, 0x21 + turn)
            vm.zero(3 * MIB, MIB)
            scene.copy(server.path, xml=server.xml, bitmap=f'a{turn}',
                       checkpoint=f'b{turn}')
            expect_server(server, vm.disks['vda'].model, 'increment')
            scene.copy(server.path, xml=server.xml, bitmap=f'b{turn}')
            scene.settled()
            vm.write(6 * MIB, MIB, 0x31 + turn)
            jobs.start_copy(scene.dom, 'vda', server.path, xml=server.xml,
                            bitmap=f'b{turn}', checkpoint=f'c{turn}')
            jobs.wait_ready(scene.events, 'vda')
            vm.write(8 * MIB, MIB, 0x41 + turn)
            scene.dom.blockJobAbort('vda', 0)
            scene.events.wait('vda', 'canceled')
            expect_server(server, vm.disks['vda'].model, 'mirror')
            scene.settled()
            vm.destroy()
            scene.copy(server.path, xml=server.xml, bitmap=f'c{turn}')
            expect_server(server, vm.disks['vda'].model, 'of a guest that is off')
            vm.start()
            vm.disks['vda'].alias = ''


def test_nbd_with_tls(host):
    """The certificates are those that qemu.conf has for libvirt's NBD disks."""
    server_pki, client_pki = certificates(host)
    scene = Scene(host, disks={'vda': SIZE})
    vm = scene.vm
    with Nbd(host, 'replica', SIZE, tcp=True, tls=server_pki) as server:
        vm.write(MIB, 4 * MIB, 0x11)
        try:
            scene.copy(server.path, xml=server.xml, checkpoint='c1')
            raise Failure('copied without certificates')
        except libvirt.libvirtError:
            scene.settled()
        with open(os.path.join(host.config, 'qemu.conf'), 'a', encoding='ascii') as conf:
            conf.write(f'nbd_tls_x509_cert_dir = "{client_pki}"\n')
        host.restart_libvirtd()
        vm.reconnect()
        scene.connect()
        scene.copy(server.path, xml=server.xml, checkpoint='c1')
        expect_server(server, vm.disks['vda'].model, 'full')
        vm.write(2 * MIB, 512, 0x12)
        scene.copy(server.path, xml=server.xml, bitmap='c1', checkpoint='c2')
        expect_server(server, vm.disks['vda'].model, 'increment')
        jobs.start_copy(scene.dom, 'vda', server.path, xml=server.xml, bitmap='c2')
        jobs.wait_ready(scene.events, 'vda')
        vm.write(8 * MIB, MIB, 0x13)
        scene.dom.blockJobAbort('vda', 0)
        scene.events.wait('vda', 'canceled')
        expect_server(server, vm.disks['vda'].model, 'mirror')
        scene.settled()


def test_pivot_to_nbd(host):
    """The guest moves to qcow2 on an NBD export, and is tracked there."""
    scene = Scene(host, disks={'vda': SIZE})
    vm, plain = scene.vm, scene.vm.disks['vda'].path
    replica = scene.path('replica.qcow2')
    vm.write(0, 4 * MIB, 0x11)
    scene.copy(replica, checkpoint='c0')
    with Nbd(host, 'export', 2 * SIZE, fmt='qcow2') as server:
        qcow2 = f'nbd+unix:///replica?socket={server.socket}'
        qemu_img('create', '-q', '-f', 'qcow2', qcow2, str(SIZE))
        vm.write(MIB, MIB, 0x12)
        jobs.start_copy(scene.dom, 'vda', qcow2, xml=server.xml, checkpoint='p0')
        vm.write(2 * MIB, MIB, 0x13)
        pivot(scene)
        vm.write(3 * MIB, MIB, 0x14)
        vm.verify()
        for inactive in (0, libvirt.VIR_DOMAIN_XML_INACTIVE):
            if server.socket not in vm.dom.XMLDesc(inactive):
                raise Failure('the definition does not have the new disk')
        if scene.job_files() or vm.stray():
            raise Failure('something is left of the job')
        vm.restart()
        vm.disks['vda'].alias = ''
        vm.verify()
        if len(vm.bitmaps()) != 1:
            raise Failure(f'bitmaps: {vm.bitmaps()}')
        vm.destroy()


class Luks:
    """An encrypted image and libvirt's secret for it."""

    def __init__(self, host, name, size, fmt='raw'):
        self.host, self.format = host, fmt
        self.path = os.path.join(host.images, name)
        self.clear = self.path + '.clear'
        self._create(size)
        secret = host.connect().secretDefineXML(
            "<secret ephemeral='no' private='no'><usage type='volume'>"
            f'<volume>{self.path}</volume></usage></secret>')
        secret.setValue(b'sesame')
        self.xml = (f"<disk type='file' device='disk'><driver name='qemu' type='{fmt}'/>"
                    f"<source file='{self.path}'><encryption format='luks'>"
                    f"<secret type='passphrase' uuid='{secret.UUIDString()}'/>"
                    "</encryption></source><backingStore/></disk>")

    def _create(self, size):
        prefix = 'encrypt.' if self.format == 'qcow2' else ''
        options = (f'{prefix}key-secret=s,{prefix}iter-time=10' +
                   (',encrypt.format=luks' if prefix else ''))
        for _ in range(20):
            try:
                return qemu_img('create', '-q', '--object', 'secret,id=s,data=sesame', '-f',
                                'luks' if self.format == 'raw' else 'qcow2', '-o', options,
                                self.path, str(size))
            except Failure as error:  # on a busy machine it cannot measure the key's cost
                if 'CPU usage' not in str(error):
                    raise
        raise Failure('no LUKS image can be made')

    def expect(self, model, what):
        options = (f'driver=luks,key-secret=s,file.filename={self.path}'
                   if self.format == 'raw' else
                   f'driver=qcow2,encrypt.key-secret=s,file.filename={self.path}')
        qemu_img('convert', '--object', 'secret,id=s,data=sesame', '--image-opts', options,
                 '-O', 'raw', self.clear)
        images.expect_content(self.clear, model, what, fmt='raw')


def test_encrypted_targets(host):
    """LUKS, by itself and in qcow2, takes full copies, increments and mirrors."""
    scene = Scene(host, disks={'vda': SIZE})
    vm = scene.vm
    for turn, fmt in enumerate(('raw', 'qcow2')):
        target = Luks(host, f'secret.{fmt}', SIZE, fmt)
        vm.write(MIB, 4 * MIB, 0x11 + turn)
        scene.copy(target.path, xml=target.xml, checkpoint=f'a{turn}')
        target.expect(vm.disks['vda'].model, 'full')
        vm.write(2 * MIB, 512, 0x21 + turn)
        scene.copy(target.path, xml=target.xml, bitmap=f'a{turn}', checkpoint=f'b{turn}')
        target.expect(vm.disks['vda'].model, 'increment')
        vm.write(6 * MIB, MIB, 0x31 + turn)
        jobs.start_copy(scene.dom, 'vda', target.path, xml=target.xml, bitmap=f'b{turn}')
        jobs.wait_ready(scene.events, 'vda')
        vm.write(8 * MIB, MIB, 0x41 + turn)
        scene.dom.blockJobAbort('vda', 0)
        scene.events.wait('vda', 'canceled')
        scene.settled()
        target.expect(vm.disks['vda'].model, 'mirror')
        if 'sesame' in host.daemon_log():
            raise Failure('the passphrase is in the log')


def test_copy_in_a_storage_daemon_survives(host):
    """A copy to NBD goes on after a restart of our daemon, a SIGKILL, and libvirtd's."""
    scene = Scene(host, disks={'vda': SIZE})
    vm = scene.vm
    with Nbd(host, 'replica', SIZE) as server:
        vm.write(0, 8 * MIB, 0x11)
        scene.copy(server.path, xml=server.xml, checkpoint='c0')
        for turn, end in enumerate((host.stop_daemon, host.kill_daemon,
                                    host.restart_libvirtd)):
            vm.write(MIB, 4 * MIB, 0x21 + turn)
            jobs.start_copy(scene.dom, 'vda', server.path, xml=server.xml, finish=True,
                            bitmap=f'c{turn}', checkpoint=f'c{turn + 1}', bandwidth=MIB)
            moment = vm.disks['vda'].model.copy()
            vm.write(2 * MIB, MIB, 0x31 + turn)
            scene.events.close()
            end()
            if end == host.restart_libvirtd:
                vm.reconnect()
            else:
                host.start_daemon()
            vm.write(3 * MIB, MIB, 0x41 + turn)
            scene.connect()
            wait_for(lambda: scene.dom.blockJobInfo('vda', 0), 'the job is taken up')
            scene.dom.blockJobSetSpeed('vda', 0, 0)
            jobs.wait_end(scene.events, scene.dom, 'vda')
            server.stop()
            images.expect_content(server.path, moment, f'replica {turn}', fmt='raw')
            server.start()
            scene.settled()
            vm.verify()


def test_server_that_stops(host):
    """An abort does not wait for a server that is stuck; one that dies fails the copy."""
    scene = Scene(host, disks={'vda': SIZE})
    vm = scene.vm
    with Nbd(host, 'replica', SIZE) as server:
        vm.write(0, 8 * MIB, 0x11)
        scene.copy(server.path, xml=server.xml, checkpoint='c0')
        for name in ('stuck', 'dead'):
            for finish in (True, False):
                vm.write(0, 8 * MIB, 0x21)
                jobs.start_copy(scene.dom, 'vda', server.path, xml=server.xml,
                                bitmap='c0', checkpoint='c1', finish=finish,
                                bandwidth=MIB)
                if name == 'stuck':
                    server.hold()
                    vm.write(MIB, MIB, 0x22)
                    scene.dom.blockJobAbort('vda', 0)
                    scene.events.wait('vda', 'canceled')
                    server.hold(False)
                else:
                    server.stop(9)
                    vm.write(MIB, MIB, 0x23)
                    scene.dom.blockJobSetSpeed('vda', 0, 0)
                    scene.events.wait('vda', 'failed')
                    server.start()
                if [c.getName() for c in scene.dom.listAllCheckpoints()] != ['c0']:
                    raise Failure('the checkpoint of a job that did not end stayed')
                scene.settled()
                vm.verify()
        scene.copy(server.path, xml=server.xml, bitmap='c0')
        expect_server(server, vm.disks['vda'].model, 'afterwards')


def test_device_that_fails_while_a_mirror_is_ended(host):
    """What the device did not take is told as a failure, and no checkpoint promises it:
    libvirt calls such a copy cancelled, as one that ends well."""
    with small_place(host, 24 * MIB) as place:
        loop = Loop(host, 'device', SIZE)
        loop.file = os.path.join(place, 'device')
        with loop:
            scene = Scene(host, disks={'vda': SIZE})
            vm, xml = scene.vm, block_xml(loop.path, 'raw')
            # Of an empty disk, so that the device has no block that could be written.
            scene.dom.checkpointCreateXML(
                '<domaincheckpoint><name>c1</name></domaincheckpoint>')
            vm.write(MIB, MIB, 0x11)
            jobs.start_copy(scene.dom, 'vda', loop.path, xml=xml, bitmap='c1',
                            checkpoint='c2')
            jobs.wait_ready(scene.events, 'vda')
            fill(place)
            vm.write(6 * MIB, 6 * MIB, 0x12)
            scene.dom.blockJobAbort('vda', 0)
            scene.events.wait('vda', 'failed')
            if [c.getName() for c in scene.dom.listAllCheckpoints()] != ['c1']:
                raise Failure('the checkpoint stayed')
            if 'rror' not in error_of(scene):
                raise Failure(f'why is {error_of(scene)}')
            scene.await_settled()
            os.unlink(os.path.join(place, 'filler'))
            scene.copy(loop.path, xml=xml, bitmap='c1', checkpoint='c2')
            expect_device(loop, vm.disks['vda'].model, 'with room')


def test_descriptor_that_is_refused(host):
    """Where QEMU may not have the target's descriptor the copy goes another way."""
    host.daemon_env = {'VIRT_CHECKPOINT_FAULTS': 'mirror/target-fd=fail'}
    scene = Scene(host, disks={'vda': SIZE})
    vm = scene.vm
    path = os.path.join(host.images, 'replica.qcow2')
    vm.write(MIB, 4 * MIB, 0x11)
    scene.copy(path, checkpoint='c1')
    if 'does not take' not in host.daemon_log():
        raise Failure('the descriptor was taken')
    images.expect_content(path, vm.disks['vda'].model, 'full')
    vm.write(2 * MIB, 512, 0x12)
    scene.copy(path, bitmap='c1', checkpoint='c2')
    images.expect_content(path, vm.disks['vda'].model, 'increment')
    vm.write(4 * MIB, MIB, 0x13)
    jobs.start_copy(scene.dom, 'vda', path, bitmap='c2')
    pivot(scene)
    vm.disks['vda'].path = path
    scene.settled()
    vm.write(9 * MIB, MIB, 0x14)
    vm.verify()


def confined(host, dialect, how):
    """A guest whose QEMU may not have a replica; copies there, in full and since."""
    name = f'{dialect}-{how}'
    path = os.path.join(host.images, f'{name}-replica.qcow2')
    scene = Scene(host, VM(host, name, {'vda': SIZE},
                           **emulator(dialect, confined=f'{how}:{path}')))
    vm = scene.vm
    vm.write(MIB, 4 * MIB, 0x11)
    scene.copy(path, checkpoint='c1')
    images.expect_content(path, vm.disks['vda'].model, 'full')
    log = len(host.daemon_log())
    vm.write(2 * MIB, 512, 0x12)
    scene.copy(path, bitmap='c1', checkpoint='c2')
    images.expect_content(path, vm.disks['vda'].model, 'increment')
    told = host.daemon_log()[log:]
    wanted = ['does not take', f"copying to '{path}' in a storage daemon"]
    if dialect != 'none':
        wanted.append("no bitmap mirror of QEMU's")
    for words in wanted:
        if words not in told:
            raise Failure(f'the log does not say: {words}')
    scene.settled()
    vm.write(4 * MIB, MIB, 0x13)
    jobs.start_copy(scene.dom, 'vda', path, bitmap='c2')
    pivot(scene)
    vm.disks['vda'].path = path
    scene.settled()
    vm.write(9 * MIB, MIB, 0x14)
    vm.verify()
    scene.events.close()


@limit(240)
def test_descriptor_that_confinement_keeps(host):
    """QEMU does not get the descriptor, or none that it may write by, and says so: the
    copy goes by a storage daemon, by itself, and only the log tells."""
    host.start_daemon()
    host.start_daemon = lambda: None
    cells = [(dialect, how) for dialect in ('none', 'A') for how in ('drop', 'read-only')]
    for dialect, how in cells if host.all else host.random.sample(cells, 2):
        confined(host, dialect, how)
