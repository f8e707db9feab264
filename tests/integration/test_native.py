"""Copies by QEMU's own bitmap mirror, where there is one; it is shown by interposer.py."""

import os
import signal
import subprocess

import libvirt

from lib import images, jobs
from lib.domain import CLUSTER, MIB, qemu_img
from lib.faults import Sweep
from lib.host import Failure, wait_for
from lib.native import NativeScene, NativeVM
from lib.oracle import Moment
from lib.runner import Skip, limit, slow

REUSE = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT
PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT


# The table of QEMU's own bitmap-mirror test

class Round:
    """Writes as in that test: over whole clusters, and over their edges."""

    def __init__(self, vm):
        self.vm, self.byte = vm, 0x30

    def write(self, *ranges):
        for offset, length in ranges:
            self.byte = self.byte % 200 + 1
            self.vm.write(offset, length, self.byte)

    def first(self):
        self.write((0, CLUSTER), (MIB - CLUSTER // 2, CLUSTER), (8 * MIB, CLUSTER),
                   (8 * MIB + CLUSTER // 2, CLUSTER), (16 * MIB - 2 * CLUSTER, CLUSTER))

    def second(self):
        self.write((CLUSTER // 2, CLUSTER), (MIB, CLUSTER), (8 * MIB - CLUSTER, CLUSTER))

    def third(self):
        self.write((3 * CLUSTER, CLUSTER), (MIB + CLUSTER // 2, 2 * CLUSTER),
                   (16 * MIB - CLUSTER, CLUSTER))


def copy_with_writes(scene, rounds, live, **params):
    """A copy during which the guest writes, before it is ready and when it is."""
    jobs.start_copy(scene.dom, 'vda', scene.replica, finish=not live, bandwidth=CLUSTER,
                    **params)
    rounds.second()
    scene.dom.blockJobSetSpeed('vda', 0, 0)
    if not live:
        jobs.wait_end(scene.events, scene.dom, 'vda')
        return
    jobs.wait_ready(scene.events, 'vda')
    rounds.third()
    scene.dom.blockJobAbort('vda', 0)
    scene.events.wait('vda', 'canceled')


def fail_first(scene, failure, **params):
    """The first copy of the table, which fails or not."""
    if failure == 'intermediate':
        scene.vm.fail_at(MIB)
    if failure != 'simulated':
        jobs.start_copy(scene.dom, 'vda', scene.replica, finish=True, **params)
    else:
        # All data is copied, and the job ends in failure all the same.
        jobs.start_copy(scene.dom, 'vda', scene.replica, **params)
        jobs.wait_ready(scene.events, 'vda')
        job, = scene.vm.qmp('query-jobs')
        scene.vm.qmp('job-cancel', id=job['id'])
    status = scene.events.wait('vda', 'completed', 'failed')
    if (status == 'completed') != (failure == 'none'):
        raise Failure(f'the first copy {status}')
    wait_for(lambda: not scene.dom.blockJobInfo('vda', 0), 'the job is gone')


def run_table(host, dialect, mode, failure, live):
    """One run.  What a bitmap-mode says of the bitmap our callers say by checkpoints:
    never: none is made, the base stays; on-success: the next copy's base is made, and
    taken back on failure; always: the same call goes on where the failed one ended."""
    name = f'{dialect}-{mode}-{failure}-{"live" if live else "finish"}'
    scene = NativeScene(host, dialect, name)
    rounds, base, before = Round(scene.vm), 'c1', scene.count()
    made = {'bitmap': 'c1'} if mode == 'never' else {'bitmap': 'c1', 'checkpoint': 'c2'}
    rounds.first()
    at = host.copied_bytes()
    fail_first(scene, failure, **made)
    if failure == 'none':
        scene.expect_replica('first')
        if host.copied_bytes() - at != 6 * CLUSTER:
            raise Failure(f'{host.copied_bytes() - at} bytes were copied')
    listed = [c.getName() for c in scene.dom.listAllCheckpoints()]
    if ('c2' in listed) != (mode != 'never' and failure == 'none'):
        raise Failure(f'checkpoints: {listed}')
    scene.settled()
    if 'c2' in listed:
        base = 'c2'
    if mode == 'on-success' and failure != 'none':
        os.unlink(scene.replica)  # as if it had never been: from what was the base's
        qemu_img('create', '-q', '-f', 'qcow2', scene.replica, str(16 * MIB))
        scene.copy(scene.replica, checkpoint='c0')
        base = 'c0'
    copy_with_writes(scene, rounds, live, bitmap=base,
                     **({} if mode == 'never' else {'checkpoint': 'c3'}))
    goes_on = f"'{name}', disk 'vda': the copy to" in host.daemon_log()
    if goes_on != (failure != 'none' and mode != 'on-success'):
        raise Failure(f'it went on: {goes_on}')
    scene.expect_replica('second')
    scene.settled()
    rounds.third()
    scene.copy(scene.replica, bitmap=base if mode == 'never' else 'c3')
    scene.expect_replica('third')
    scene.vm.verify()
    scene.settled()
    scene.expect_native(before, 3)
    scene.events.close()
    scene.vm.destroy()


@limit(900)
def test_table(host):
    """Modes x failures x ways to end, with writes during the copies; judged by content."""
    runs = [(dialect, mode, failure, live) for dialect in 'AB'
            for mode in ('never', 'on-success', 'always')
            for failure in ('none', 'simulated', 'intermediate') for live in (False, True)]
    chosen = runs if host.all else host.random.sample(runs, 2)
    host.start_daemon()
    host.start_daemon = lambda: None
    for run in chosen:
        try:
            run_table(host, *run)
        except Exception as error:
            raise Failure(f'{run}: {error}') from error


# What the table does not have

def test_pivots_by_relay(host):
    """A ready job is left for libvirt's copy, which pivots; tracking goes on."""
    scene = NativeScene(host, 'A')
    vm, first, second = scene.vm, scene.vm.disks['vda'].path, scene.replica
    scene.replica = os.path.join(host.images, 'third.qcow2')
    scene.copy(scene.replica, checkpoint='c0')
    for turn, target in enumerate((second, first)):
        before = scene.count()
        vm.write((turn + 3) * MIB, MIB, 0x20 + turn)
        jobs.start_copy(scene.dom, 'vda', target, bitmap='c1', checkpoint=f'p{turn}',
                        **{'bandwidth': MIB} if turn else {})
        jobs.wait_ready(scene.events, 'vda')
        vm.write(8 * MIB, MIB, 0x30 + turn)
        scene.dom.blockJobAbort('vda', PIVOT)
        jobs.wait_end(scene.events, scene.dom, 'vda')
        vm.disks['vda'].path = target
        scene.expect_native(before)
        scene.settled()
        vm.write(9 * MIB + turn * 512, 512, 0x40 + turn)
        vm.verify()
        scene.copy(scene.replica, bitmap='c0')
        scene.expect_replica(f'third {turn}')
    vm.restart()
    vm.disks['vda'].alias = ''
    vm.verify()


def test_pivot_refused(host):
    """A pivot that would end tracking is refused, and the job stays ready."""
    scene = NativeScene(host, 'A')
    raw = os.path.join(host.images, 'replica.raw')
    qemu_img('convert', '-O', 'raw', scene.replica, raw)
    old = os.path.join(host.images, 'old.qcow2')
    qemu_img('convert', '-O', 'qcow2', '-o', 'compat=0.10', scene.replica, old)
    for path, fmt in ((raw, 'raw'), (old, 'qcow2')):
        refused_pivot(host, scene, path, fmt)


def refused_pivot(host, scene, raw, fmt):
    before = scene.count()
    made = 'c2' if fmt == 'raw' else 'c3'
    jobs.start_copy(scene.dom, 'vda', raw, bitmap='c1', checkpoint=made, fmt=fmt)
    jobs.wait_ready(scene.events, 'vda')
    for _ in range(2):
        try:
            scene.dom.blockJobAbort('vda', PIVOT)
            raise Failure('the pivot was not refused')
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                raise
    scene.vm.write(5 * MIB, MIB, host.random.randrange(1, 250))
    info = scene.dom.blockJobInfo('vda', 0)
    if info['cur'] != info['end']:
        raise Failure(f'a ready job is shown as {info}')
    scene.dom.blockJobAbort('vda', 0)
    scene.events.wait('vda', 'canceled')
    images.expect_content(raw, scene.vm.disks['vda'].model, raw, fmt=fmt)
    scene.expect_native(before)
    scene.settled()


def went_the_ordinary_way(scene, target, fmt='qcow2', **params):
    before = scene.count()
    scene.vm.write(6 * MIB, MIB, scene.host.random.randrange(1, 250))
    jobs.start_copy(scene.dom, 'vda', target, finish=True, fmt=fmt, bitmap='c1', **params)
    jobs.wait_end(scene.events, scene.dom, 'vda')
    images.expect_content(target, scene.vm.disks['vda'].model, target, fmt=fmt)
    scene.expect_native(before, 0)
    scene.settled()
    return scene.host.daemon_log().count("no bitmap mirror of QEMU's")


def test_ordinary_way_where_qemu_refuses(host):
    """What shows the member and refuses the job is asked once; the copy is made."""
    scene = NativeScene(host, 'dead')
    for checkpoint in ('c2', 'c3'):
        asked = went_the_ordinary_way(scene, scene.replica, checkpoint=checkpoint)
        if asked != 1:
            raise Failure(f'asked {asked} times')
    scene.vm.restart()
    scene.vm.disks['vda'].alias = ''
    if went_the_ordinary_way(scene, scene.replica) != 2:
        raise Failure('another QEMU was not asked')


def test_schema_is_asked_once_for_each_qemu(host):
    """What a QEMU can do is known of the next guest with the same, and of no other."""
    asked = []
    for name, dialect in (('first', 'A'), ('second', 'A'), ('other', 'B')):
        scene = NativeScene(host, dialect, name)
        for target in ('once', 'again'):
            scene.replica = scene.path(f'{name}-{target}.qcow2')
            scene.vm.write(3 * MIB, MIB, 0x21)
            images.write_image(scene.replica, scene.vm.disks['vda'].model)
            before = scene.count()
            scene.copy(scene.replica, bitmap='c1')
            scene.expect_native(before)
            scene.vm.restart()
            scene.vm.disks['vda'].alias = ''
        with open(host.qmp_log, encoding='utf-8') as log:
            asked.append(log.read().count('"sent":{"execute":"query-qmp-schema"'))
        host.start_daemon = lambda: None
    if asked != [1, 1, 2]:
        raise Failure(f'asked {asked} times')


def test_ordinary_way_where_qemu_would_die(host):
    """Dialect B is not given a target whose clusters it cannot divide by."""
    scene = NativeScene(host, 'B')
    raw = os.path.join(host.images, 'replica.raw')
    qemu_img('convert', '-O', 'raw', scene.replica, raw)
    went_the_ordinary_way(scene, raw, fmt='raw')
    large = os.path.join(host.images, 'large.qcow2')
    qemu_img('convert', '-O', 'qcow2', '-o', 'cluster_size=128k', scene.replica, large)
    went_the_ordinary_way(scene, large)
    before = scene.count()
    jobs.start_copy(scene.dom, 'vda', scene.replica, bitmap='c1', granularity=CLUSTER)
    jobs.wait_ready(scene.events, 'vda')
    scene.dom.blockJobAbort('vda', 0)
    scene.events.wait('vda', 'canceled')
    scene.expect_native(before, 0)
    scene.copy(scene.replica, bitmap='c1')
    scene.expect_native(before)
    scene.expect_replica('qcow2')


def test_options(host):
    """Speed, buffer and synchronous writes reach QEMU's job."""
    scene = NativeScene(host, 'A')
    scene.vm.write(3 * MIB, MIB, 0x21)
    jobs.start_copy(scene.dom, 'vda', scene.replica, bitmap='c1', bandwidth=8 * MIB,
                    flags=REUSE | libvirt.VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES,
                    **{'buf-size': MIB})
    jobs.wait_ready(scene.events, 'vda')
    scene.vm.write(4 * MIB, MIB, 0x22)
    scene.dom.blockJobAbort('vda', 0)
    scene.events.wait('vda', 'canceled')
    scene.expect_replica('replica')
    with open(host.qmp_log, encoding='utf-8') as log:
        sent, = [line for line in log if '"execute":"blockdev-mirror"' in
                 line.replace(': ', ':')]
    for text in ('"copy-mode":"write-blocking"', f'"speed":{8 * MIB}', f'"buf-size":{MIB}'):
        if text not in sent.replace(': ', ':'):
            raise Failure(f'no {text} in {sent}')


def test_aborted_early(host):
    """Aborted before it is ready: cancelled, no checkpoint, and the base still serves."""
    scene = NativeScene(host, 'A')
    for live in (False, True):
        scene.vm.write(3 * MIB, 4 * MIB, 0x21 + live)
        jobs.start_copy(scene.dom, 'vda', scene.replica, bitmap='c1', checkpoint='c2',
                        finish=not live, bandwidth=MIB)
        scene.vm.write(MIB, MIB, 0x31)
        scene.dom.blockJobAbort('vda', 0)
        scene.events.wait('vda', 'canceled')
        if [c.getName() for c in scene.dom.listAllCheckpoints()] != ['c1']:
            raise Failure('the checkpoint stayed')
        scene.settled()
    scene.copy(scene.replica, bitmap='c1', checkpoint='c2')
    scene.expect_replica('afterwards')
    scene.settled()


def test_target_full(host):
    """A full target fails the job, before it is ready or after; the guest writes on."""
    if os.geteuid() != 0:
        raise Skip('a small file system needs root')
    scene = NativeScene(host, 'A')
    place = os.path.join(host.work, 'small')
    os.makedirs(place)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=5m', 'none', place], check=True)
    try:
        path = os.path.join(place, 'replica.qcow2')
        qemu_img('convert', '-O', 'qcow2', scene.replica, path)
        for early in (False, True):
            if early:
                scene.vm.write(4 * MIB, 6 * MIB, 0x22)
            jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', checkpoint='c2')
            if not early:
                jobs.wait_ready(scene.events, 'vda')
            scene.vm.write(4 * MIB, 6 * MIB, 0x31 + early)
            scene.events.wait('vda', 'failed')
            if scene.vm.dom.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
                raise Failure(f'the guest is {scene.vm.dom.state()}')
            if [c.getName() for c in scene.dom.listAllCheckpoints()] != ['c1']:
                raise Failure('the checkpoint stayed')
            scene.settled()
        scene.vm.verify()
        scene.copy(scene.replica, bitmap='c1')
        scene.expect_replica('elsewhere')
    finally:
        subprocess.run(['umount', '-l', place], check=True)


def test_guest_gone(host):
    """A guest that stops, before the job is ready or after, is on its own image still."""
    scene = NativeScene(host, 'A')
    vm = scene.vm
    for ready in (False, True):
        vm.write(3 * MIB, 4 * MIB, 0x21 + ready)
        jobs.start_copy(scene.dom, 'vda', scene.replica, bitmap='c1', checkpoint='c2',
                        **{} if ready else {'bandwidth': MIB})
        if ready:
            jobs.wait_ready(scene.events, 'vda')
        vm.destroy()
        scene.events.wait('vda', 'failed')
        wait_for(lambda: not scene.job_files(), 'the job is settled')
        scene.settled()
        images.expect_content(vm.disks['vda'].path, vm.disks['vda'].model, 'the disk')
        vm.start()
        vm.disks['vda'].alias = ''
        scene.copy(scene.replica, bitmap='c1')
        scene.expect_replica('afterwards')


def restarts(host, end):
    """The daemon (or libvirtd) goes while the job copies, and when it is ready."""
    scene = NativeScene(host, 'A')
    vm = scene.vm
    for turn in range(2):
        vm.write(3 * MIB, 4 * MIB, 0x21 + turn)
        jobs.start_copy(scene.dom, 'vda', scene.replica, bitmap='c1' if not turn else 'c2',
                        checkpoint=f'c{turn + 2}', finish=not turn,
                        **{} if turn else {'bandwidth': MIB})
        if turn:
            jobs.wait_ready(scene.events, 'vda')
        vm.write(MIB, MIB, 0x31 + turn)
        scene.events.close()
        end(scene)
        scene.connect()
        wait_for(lambda: scene.dom.blockJobInfo('vda', 0), 'the job is taken up')
        vm.write(10 * MIB, MIB, 0x41 + turn)
        if turn:
            wait_for(lambda: scene.dom.blockJobInfo('vda', 0)['cur'] ==
                     scene.dom.blockJobInfo('vda', 0)['end'], 'ready again')
            scene.dom.blockJobAbort('vda', 0)
            scene.events.wait('vda', 'canceled')
        else:
            scene.dom.blockJobSetSpeed('vda', 0, 0)
            jobs.wait_end(scene.events, scene.dom, 'vda')
        scene.expect_replica(f'turn {turn}')
        scene.settled()
    vm.write(5 * MIB, 512, 0x51)
    scene.copy(scene.replica, bitmap='c3')
    scene.expect_replica('afterwards')


def test_daemon_killed(host):
    """Another daemon takes the job up where it is."""
    def end(_scene):
        host.restart_daemon(signal.SIGKILL)
    restarts(host, end)


def test_libvirtd_killed(host):
    """QEMU copies on below libvirt, and the job goes on with the next one."""
    def end(scene):
        host.restart_libvirtd(signal.SIGKILL)
        scene.vm.reconnect()
    restarts(host, end)


def test_pivot_after_a_daemon(host):
    """A job that another daemon made ready pivots all the same."""
    scene = NativeScene(host, 'A')
    vm = scene.vm
    vm.write(3 * MIB, MIB, 0x21)
    jobs.start_copy(scene.dom, 'vda', scene.replica, bitmap='c1')
    jobs.wait_ready(scene.events, 'vda')
    scene.events.close()
    host.restart_daemon(signal.SIGKILL)
    vm.write(4 * MIB, MIB, 0x22)
    scene.connect()

    def pivot():
        try:
            scene.dom.blockJobAbort('vda', PIVOT)
            return True
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:
                raise
            return False
    wait_for(pivot, 'it is ready again')
    vm.disks['vda'].path = scene.replica
    scene.settled()
    vm.verify()


def sweep(host, finish, share):
    """The daemon ends at points of a copy; the oracle judges what the next one makes."""
    def setup(oracle):
        oracle.write(4)
        oracle.create(['vda'])
        oracle.write(4)

    def act(oracle):
        if not finish:
            oracle.mirror('vda', pivot=True)
            return
        base = oracle.moments[0]
        path = os.path.join(host.images, f'{oracle.vm.name}-swept.qcow2')
        images.write_image(path, base.models['vda'])
        oracle.copying = path
        oracle.about_to_create('swept', ['vda'])
        jobs.start_copy(oracle.dom, 'vda', path, base.name, 'swept', finish=True)
        oracle.moments.append(Moment('swept', {'vda': oracle.vm.disks['vda'].model.copy()}))
        jobs.wait_end(oracle.events, oracle.dom, 'vda')
        images.expect_content(path, oracle.vm.disks['vda'].model, 'finished copy')

    def make_vm(*args):
        return NativeVM(args[0], host.random.choice('AB'), *args[1:])
    stops = Sweep(host, setup, act, {'vda': 8 * MIB}, make_vm).run(share)
    print(f'#   {stops} stops', flush=True)


@limit(300)
def test_daemon_stopped_somewhere_in_a_finish(host):
    """Stopped at some points of a copy by QEMU's mirror, the next daemon settles it."""
    sweep(host, True, 0.02)


@limit(300)
def test_daemon_stopped_somewhere_in_a_pivot(host):
    """The same for one that pivots."""
    sweep(host, False, 0.015)


@slow
@limit(3000)
def test_daemon_stopped_anywhere_in_a_finish(host):
    """Stopped at every point of a copy by QEMU's mirror."""
    sweep(host, True, 1.0)


@slow
@limit(3000)
def test_daemon_stopped_anywhere_in_a_pivot(host):
    """Stopped at every point of one that pivots."""
    sweep(host, False, 1.0)
