"""The guest is left alone: whatever becomes of a target before the mirror is ready.

A Linux guest writes all the time and notes how long each write took.  Meanwhile targets
get full, fail, stand still, their servers stop or die, in the bulk pass and in the live
one, and in QEMU's own bitmap mirror, which has one phase before it is ready.  No write may
fail, the guest may not pause, and no write may take longer than without a mirror, by more
than what a busy machine does to any.
"""

import contextlib
import os
import time

import libvirt

from lib import jobs
from lib.domain import MIB, qemu_img
from lib.guest import Guest, check_records
from lib.host import Failure, wait_for
from lib.images import RawView
from lib.native import emulator
from lib.runner import limit
from lib.scene import Scene
from lib.targets import Loop, Nbd, block_xml, fill, freezing_place, small_place

SIZE = 48 * MIB
REGION = 8 * MIB  # the writer's
NOISE = 0.4


class Trouble:
    """A target, and what becomes of it: begin() at the right moment, then the job goes on
    or fails."""

    fails = True

    def __init__(self, path, xml=None):
        self.path = path
        self.xml = xml

    def begin(self):
        pass

    def end(self):
        pass


@contextlib.contextmanager
def full_file(host):
    """A qcow2 file whose file system gets full."""
    with small_place(host, 64 * MIB) as place:
        trouble = Trouble(os.path.join(place, 'replica.qcow2'))
        qemu_img('create', '-q', '-f', 'qcow2', trouble.path, str(SIZE))
        trouble.begin = lambda: fill(place)
        yield trouble


@contextlib.contextmanager
def failing_device(host):
    """A raw device whose writes fail."""
    with small_place(host, 64 * MIB) as place:
        loop = Loop(host, 'device', SIZE)
        loop.file = os.path.join(place, 'device')
        with loop:
            trouble = Trouble(loop.path, block_xml(loop.path, 'raw'))
            trouble.begin = lambda: fill(place)
            yield trouble


@contextlib.contextmanager
def stuck_file(host):
    """A qcow2 file whose file system stands still for a while, and goes on."""
    with freezing_place(host, 64 * MIB) as (place, freeze):
        trouble = Trouble(os.path.join(place, 'replica.qcow2'))
        qemu_img('create', '-q', '-f', 'qcow2', trouble.path, str(SIZE))
        trouble.fails = False
        trouble.begin = freeze
        trouble.end = lambda: freeze(False)
        yield trouble


@contextlib.contextmanager
def stopped_server(host):
    """An NBD server that stops for a while, and goes on."""
    with Nbd(host, 'stopped', SIZE) as server:
        trouble = Trouble(server.path, server.xml)
        trouble.fails = False
        trouble.begin = server.hold
        trouble.end = lambda: server.hold(False)
        yield trouble


@contextlib.contextmanager
def dead_server(host):
    """An NBD server that is killed."""
    with Nbd(host, 'dead', SIZE) as server:
        trouble = Trouble(server.path, server.xml)
        trouble.begin = lambda: server.stop(9)
        yield trouble


TROUBLES = (stopped_server, full_file, stuck_file, failing_device, dead_server)
# Into NBD exports QEMU's own bitmap mirror is not used, dialect B not into raw devices.
NATIVE = {'A': (full_file, stuck_file, failing_device), 'B': (full_file, stuck_file)}
WAITING = (stopped_server, stuck_file)


def copying(scene, live):
    """Waits for the phase in question."""
    if live:
        wait_for(lambda: '<mirror' in scene.vm.dom.XMLDesc(), 'the live mirror begins')
    elif '<mirror' in scene.vm.dom.XMLDesc():
        raise Failure('the bulk pass was too short')
    info = scene.dom.blockJobInfo('vda', 0)
    if not info or info['cur'] == info['end']:
        raise Failure(f'the copy was too short: {info}')


def start(scene, trouble, live, finish):
    """Some seconds of each phase: what the bulk pass copies, what was written since, to
    places that the target does not have yet."""
    vm = scene.vm
    scene.dom.checkpointCreateXML('<domaincheckpoint><name>c0</name></domaincheckpoint>')
    vm.write(10 * MIB, 6 * MIB, 0x11)
    jobs.start_copy(scene.dom, 'vda', trouble.path, xml=trouble.xml, bitmap='c0',
                    checkpoint='c1', bandwidth=8 * MIB if live else MIB, finish=finish)
    if live:
        vm.write(24 * MIB, 16 * MIB, 0x22)
        scene.dom.blockJobSetSpeed('vda', 2 * MIB,
                                   libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES)
    copying(scene, live)


def watch(scene, seconds):
    """The guest answers and runs for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        scene.vm.load_status()
        if scene.vm.dom.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            raise Failure(f'the guest is {scene.vm.dom.state()}')
        time.sleep(0.1)


def end(scene, trouble, finish):
    """The job goes on without a limit, or fails."""
    try:
        scene.dom.blockJobSetSpeed('vda', 0, 0)
    except libvirt.libvirtError:
        if not trouble.fails:  # else the job may have ended by now
            raise
    if trouble.fails:
        scene.events.wait('vda', 'failed', timeout=60)
    elif finish:
        jobs.wait_end(scene.events, scene.dom, 'vda')
    else:
        jobs.wait_ready(scene.events, 'vda')
        scene.dom.blockJobAbort('vda', 0)
        scene.events.wait('vda', 'canceled')


def cell(scene, make, live, finish, seconds):
    """One trouble in one phase; returns the longest write meanwhile."""
    with make(scene.host) as trouble:
        start(scene, trouble, live, finish)
        trouble.begin()
        watch(scene, seconds)
        trouble.end()
        end(scene, trouble, finish)
        longest = scene.vm.slowest_write()
        scene.await_settled()
        names = [c.getName() for c in scene.dom.listAllCheckpoints()]
        if names != (['c0'] if trouble.fails else ['c0', 'c1']):
            raise Failure(f'checkpoints: {names}')
        for name in names:
            scene.dom.checkpointLookupByName(name).delete()
    return longest


def run_cells(scene, cells):
    """(trouble, live, finish) of each, while the guest writes."""
    vm = scene.vm
    hold = 30 if scene.host.all else 3
    vm.start_writer(length=REGION, flush_every=500, delay_usec=1000)
    vm.slowest_write()
    measured = time.monotonic() + 2
    wait_for(lambda: time.monotonic() > measured, 'some writes are measured')
    usual = vm.slowest_write()
    for make, live, finish in cells:
        waits = make in WAITING
        longest = cell(scene, make, live, finish, hold if waits else 0.5)
        print(f'#   {make.__name__}, {"live" if live else "bulk"}, '
              f'{"finish" if finish else "mirror"}: longest write {longest * 1000:.0f} ms, '
              f'without a mirror {usual * 1000:.0f} ms', flush=True)
        # A machine that is busy delays a write now and then; a stuck one waits to the end.
        if longest > usual + max(NOISE, (hold if waits else 4) / 2):
            raise Failure(f'{make.__name__}: a write took {longest:.2f} s')
    vm.stop_load()
    vm.destroy()
    with RawView(vm.disks['vda'].path) as raw:
        check_records(raw, 0, REGION, 1)


@limit(900)
def test_targets_in_trouble(host):
    """Full, failing, stuck, dead, before READY: the guest's writes go on as ever."""
    host.daemon_options = ['--overlay-dir', host.images]
    scene = Scene(host, Guest(host, disks={'vda': SIZE}))
    cells = [(make, live, not live) for make in TROUBLES for live in (False, True)]
    run_cells(scene, cells if host.all else host.random.sample(cells, 3))


def native(host, dialect):
    scene = Scene(host, Guest(host, disks={'vda': SIZE}, **emulator(dialect)))
    cells = [(make, False, finish) for make in NATIVE[dialect] for finish in (True, False)]
    if not host.all:
        cells = host.random.sample(cells, 2)
    run_cells(scene, cells)
    count = host.daemon_log().count("copying by QEMU's own bitmap mirror")
    if count != len(cells):
        raise Failure(f'{count} copies of {len(cells)} by the bitmap mirror')


@limit(600)
def test_targets_in_trouble_dialect_a(host):
    """The same while QEMU's own bitmap mirror copies."""
    native(host, 'A')


@limit(600)
def test_targets_in_trouble_dialect_b(host):
    """The same with a working bitmap."""
    native(host, 'B')
