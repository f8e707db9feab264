"""What an incremental copy can go to, and from: proofs by content."""

import libvirt

from lib import images, jobs
from lib.domain import MIB, VM
from lib.host import Failure
from lib.runner import limit
from lib.scene import Scene
from lib.targets import Loop, block_xml, expect_device

PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
SIZE = 16 * MIB


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
