"""A copy that was cut short goes on where it ended, and starts over where it must."""

import os
import subprocess

import libvirt

from lib import images, jobs, store
from lib.domain import CLUSTER, MIB, qemu_img
from lib.host import Failure, wait_for
from lib.native import NativeScene
from lib.runner import Skip
from lib.scene import Scene
from lib.targets import Loop, Nbd, block_xml, expect_device

DIRTY = 12 * MIB


def begun(host, first=DIRTY, **params):
    """A replica as of c1, then writes; the copy of them is cut short by an abort."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    path = scene.path('replica.qcow2')
    scene.vm.write(0, 4 * MIB, 0x11)
    scene.copy(path, checkpoint='c1')
    scene.vm.write(MIB, first, 0x12)
    cut(scene, path, **params)
    return scene, path


def cut(scene, path, left=None, **params):
    """Aborts a copy when some of it is there; returns how much that is at least."""
    jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', bandwidth=4 * MIB, **params)
    wait_for(lambda: scene.dom.blockJobInfo('vda', 0)['cur'] >= 3 * MIB, 'some is copied')
    done = scene.dom.blockJobInfo('vda', 0)['cur']
    scene.dom.blockJobAbort('vda', 0)
    scene.events.wait('vda', 'canceled')
    scene.settled()
    return done


def resumes(scene):
    folder = store.folder(scene.host, scene.vm)
    return [name for name in os.listdir(folder) if name.endswith('.resume.xml') or
            '.rest.' in name]


def measured(scene, path, bitmap='c1', **params):
    """The same call to its end, the bytes of its bulk pass."""
    before = scene.host.copied_bytes()
    jobs.start_copy(scene.dom, 'vda', path, bitmap=bitmap, finish=True, **params)
    jobs.wait_end(scene.events, scene.dom, 'vda')
    images.expect_content(path, scene.vm.disks['vda'].model, 'after the second call')
    scene.settled()
    if resumes(scene):
        raise Failure(f'left in the store: {resumes(scene)}')
    return scene.host.copied_bytes() - before


def expect(copied, least, most):
    if not least <= copied <= most:
        raise Failure(f'{copied} bytes were copied, not {least} to {most}')
    print(f'#   {copied} bytes', flush=True)


def check_tracking(scene, path):
    """What was tracked meanwhile is complete: another increment from c1 is right."""
    scene.vm.write(20 * MIB, CLUSTER, 0x19)
    other = scene.path('other.qcow2')
    scene.copy(other, checkpoint='later')
    scene.vm.write(21 * MIB, CLUSTER, 0x1a)
    scene.copy(path, bitmap='c1')
    images.expect_content(path, scene.vm.disks['vda'].model, 'from c1 again')
    scene.copy(other, bitmap='later')
    images.expect_content(other, scene.vm.disks['vda'].model, 'from later')
    scene.settled()


def test_goes_on_after_an_abort(host):
    """With a checkpoint, without one and as a mirror: only what is missing is copied."""
    scene, path = begun(host, finish=True, checkpoint='c2')
    # What was written meanwhile: some of what is there, some of what is not.
    scene.vm.write(2 * MIB, CLUSTER, 0x21)
    scene.vm.write(28 * MIB, CLUSTER, 0x31)
    expect(measured(scene, path), 2 * CLUSTER, DIRTY - 3 * MIB + 4 * CLUSTER)
    scene.vm.write(MIB, DIRTY, 0x41)
    cut(scene, path)
    scene.vm.write(2 * MIB, CLUSTER, 0x51)
    expect(measured(scene, path, checkpoint='c2'), CLUSTER, DIRTY - 3 * MIB + 4 * CLUSTER)
    if [c.getName() for c in scene.dom.listAllCheckpoints()] != ['c1', 'c2']:
        raise Failure('a checkpoint too many')
    check_tracking(scene, path)


def test_goes_on_twice_and_as_a_pivot(host):
    """Cut short again and again, across a daemon, checkpoints and a restart of the guest."""
    scene, path = begun(host, finish=True)
    vm = scene.vm
    vm.write(28 * MIB, CLUSTER, 0x21)
    scene.dom.checkpointCreateXML('<domaincheckpoint><name>m1</name></domaincheckpoint>')
    vm.write(2 * MIB, 3 * CLUSTER, 0x22)
    cut(scene, path, checkpoint='c2')
    scene.dom.checkpointCreateXML('<domaincheckpoint><name>m2</name></domaincheckpoint>')
    scene.dom.checkpointLookupByName('m1').delete()
    scene.events.close()
    host.restart_daemon()
    vm.restart()
    scene.connect()
    vm.write(29 * MIB, CLUSTER, 0x23)
    before = host.copied_bytes()
    jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', checkpoint='c2')
    jobs.wait_ready(scene.events, 'vda')
    vm.write(3 * MIB, CLUSTER, 0x24)
    scene.dom.blockJobAbort('vda', libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    jobs.wait_end(scene.events, scene.dom, 'vda')
    vm.disks['vda'].path = path
    expect(host.copied_bytes() - before, CLUSTER, DIRTY - 6 * MIB + 8 * CLUSTER)
    scene.settled()
    vm.verify()
    vm.destroy()
    images.expect_content(path, vm.disks['vda'].model, 'the guest is on the target')


def test_goes_on_when_a_full_target_got_room(host):
    """A target that was full is made larger; the same call copies the rest."""
    if os.geteuid() != 0:
        raise Skip('a small file system needs root')
    scene = Scene(host, disks={'vda': 32 * MIB})
    place = os.path.join(host.work, 'small')
    os.makedirs(place)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'none', place], check=True)
    try:
        path = os.path.join(place, 'replica.raw')
        qemu_img('create', '-q', '-f', 'raw', path, str(32 * MIB))
        scene.copy(scene.path('first.qcow2'), checkpoint='c1')
        scene.vm.write(MIB, DIRTY, 0x12)
        for least, room in ((0, '8m'), (6 * MIB, '20m')):
            subprocess.run(['mount', '-o', f'remount,size={room}', place], check=True)
            before = host.copied_bytes()
            jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', finish=True, fmt='raw')
            scene.vm.write(2 * MIB, CLUSTER, 0x13)
            status = scene.events.wait('vda', 'failed', 'completed')
            if (status == 'completed') != (least > 0):
                raise Failure(f'the copy {status} with {room}')
            if not least:
                scene.await_settled()
                moment = scene.vm.disks['vda'].model.copy()
        subprocess.run(['mount', '-o', 'remount,size=80m', place], check=True)
        images.expect_content(path, moment, fmt='raw')
        expect(host.copied_bytes() - before, CLUSTER, DIRTY - 6 * MIB)
        scene.settled()
    finally:
        subprocess.run(['umount', '-l', place], check=True)


def test_goes_on_after_the_daemon_was_replaced(host):
    """The daemon that sees the copy fail need not be the one that started it."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    path = scene.path('replica.qcow2')
    scene.copy(path, checkpoint='c1')
    scene.vm.write(MIB, DIRTY, 0x12)
    jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', bandwidth=4 * MIB, finish=True)
    wait_for(lambda: scene.dom.blockJobInfo('vda', 0)['cur'] >= 3 * MIB, 'some is copied')
    scene.events.close()
    host.kill_daemon()
    scene.vm.write(28 * MIB, CLUSTER, 0x13)
    host.start_daemon()
    scene.connect()
    wait_for(lambda: scene.dom.blockJobInfo('vda', 0), 'the job is taken up')
    scene.dom.blockJobAbort('vda', 0)
    scene.events.wait('vda', 'canceled')
    scene.settled()
    expect(measured(scene, path), 2 * CLUSTER, DIRTY - 3 * MIB + 4 * CLUSTER)
    check_tracking(scene, path)


def test_starts_over_where_the_target_cannot_be_trusted(host):
    """Changed by someone, replaced, another checkpoint, QEMU gone: all is copied again."""
    scene, path = begun(host, finish=True)
    vm = scene.vm

    def touched():
        subprocess.run(['qemu-io', '-f', 'qcow2', '-c', 'write -P 0x77 2M 64k', path],
                       check=True, stdout=subprocess.DEVNULL)

    def replaced():
        qemu_img('convert', '-O', 'qcow2', path, path + '.new')
        os.rename(path + '.new', path)

    ways = [touched, replaced]
    for change in ways if host.all else [host.random.choice(ways)]:
        change()
        expect(measured(scene, path), DIRTY, DIRTY + 3 * CLUSTER)
        vm.write(MIB, DIRTY, 0x13)
        cut(scene, path, finish=True)
    # The same target, another base: c1 is not what the rest was made for.
    scene.copy(scene.path('second.qcow2'), checkpoint='c2')
    scene.dom.checkpointLookupByName('c1').delete()
    if resumes(scene):
        raise Failure(f'kept without its checkpoint: {resumes(scene)}')
    scene.copy(path, checkpoint='c1')
    vm.write(MIB, DIRTY, 0x14)
    jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', bandwidth=4 * MIB, finish=True)
    wait_for(lambda: scene.dom.blockJobInfo('vda', 0)['cur'] >= 3 * MIB, 'some is copied')
    vm.destroy()
    scene.events.wait('vda', 'failed')
    wait_for(lambda: not scene.job_files(), 'the job is settled')
    if resumes(scene):
        raise Failure('a rest is kept of what a dead QEMU had not written')
    vm.start()
    vm.disks['vda'].alias = ''
    expect(measured(scene, path), DIRTY, DIRTY + 3 * CLUSTER)
    check_tracking(scene, path)


def test_goes_on_while_the_guest_is_off(host):
    """A copy of a guest that is off goes on as well, also when the guest ran in between."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    vm, path = scene.vm, scene.path('replica.qcow2')
    scene.copy(path, checkpoint='c1')
    vm.write(MIB, DIRTY, 0x12)
    vm.destroy()
    cut(scene, path, finish=True, checkpoint='c2')
    vm.start()
    vm.disks['vda'].alias = ''
    vm.write(28 * MIB, CLUSTER, 0x13)
    vm.destroy()
    jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', finish=True, bandwidth=MIB)
    info = scene.dom.blockJobInfo('vda', 0)
    scene.dom.blockJobSetSpeed('vda', 0, 0)
    jobs.wait_end(scene.events, scene.dom, 'vda')
    images.expect_content(path, vm.disks['vda'].model, 'after the second call')
    expect(info['end'], CLUSTER, DIRTY - 3 * MIB + 4 * CLUSTER)


def starts_over(scene, path, xml, judge):
    """The same call again copies all of it, to what cannot tell whether it was changed."""
    scene.vm.write(MIB, DIRTY, scene.host.random.randrange(1, 250))
    cut(scene, path, xml=xml, finish=True)
    if resumes(scene):
        raise Failure(f'kept: {resumes(scene)}')
    jobs.start_copy(scene.dom, 'vda', path, xml=xml, bitmap='c1', finish=True,
                    bandwidth=4 * MIB)
    info = scene.dom.blockJobInfo('vda', 0)
    scene.dom.blockJobSetSpeed('vda', 0, 0)
    jobs.wait_end(scene.events, scene.dom, 'vda')
    expect(info['end'], DIRTY, DIRTY + 3 * CLUSTER)
    judge(scene.vm.disks['vda'].model)
    scene.settled()


def test_starts_over_on_devices_and_servers(host):
    """A device shows no times, a server may have gone and come back: nothing is guessed."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    scene.dom.checkpointCreateXML('<domaincheckpoint><name>c1</name></domaincheckpoint>')
    with Loop(host, 'device', 32 * MIB) as loop:
        starts_over(scene, loop.path, block_xml(loop.path, 'raw'),
                    lambda model: expect_device(loop, model, 'the device'))
    with Nbd(host, 'export', 32 * MIB) as server:
        def judge(model):
            server.stop()
            images.expect_content(server.path, model, 'the export', fmt='raw')
        starts_over(scene, server.path, server.xml, judge)


def test_goes_on_by_qemus_own_mirror(host):
    """What QEMU's bitmap mirror left is what the next one copies; the ordinary way, too."""
    scene = NativeScene(host, host.random.choice('AB'), size=32 * MIB)
    vm, path, before = scene.vm, scene.replica, scene.count()
    for turn, ways in enumerate(({}, {'verify': True})):
        vm.write(MIB, DIRTY, 0x21 + turn)
        cut(scene, path, finish=True)
        vm.write(2 * MIB, CLUSTER, 0x31)
        vm.write(28 * MIB, CLUSTER, 0x32)
        expect(measured(scene, path, **ways), 2 * CLUSTER, DIRTY - 3 * MIB + 4 * CLUSTER)
    scene.expect_native(before, 3)
    check_tracking(scene, path)
