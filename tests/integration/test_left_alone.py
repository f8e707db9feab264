"""The guest is left alone: whatever becomes of a target before the mirror is ready.

A Linux guest writes all the time and notes how long each write took.  Meanwhile targets
get full, fail, their servers stop or die, in the bulk pass and in the live one.  No write
may fail, the guest may not pause, and no write may take longer than without a mirror, by
more than what a busy machine does to any.
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
from lib.runner import limit
from lib.scene import Scene
from lib.targets import Loop, Nbd, block_xml, fill, small_place

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


TROUBLES = (stopped_server, full_file, failing_device, dead_server)


def copying(scene, live):
    """Waits for the phase in question."""
    if live:
        wait_for(lambda: '<mirror' in scene.vm.dom.XMLDesc(), 'the live mirror begins')
    elif '<mirror' in scene.vm.dom.XMLDesc():
        raise Failure('the bulk pass was too short')


def cell(scene, make, live, seconds):
    """One trouble in one phase; returns the longest write meanwhile."""
    vm = scene.vm
    with make(scene.host) as trouble:
        # Some seconds of each phase: what the bulk pass copies, what was written since,
        # to places that the target does not have yet.
        scene.dom.checkpointCreateXML(
            '<domaincheckpoint><name>c0</name></domaincheckpoint>')
        vm.write(10 * MIB, 6 * MIB, 0x11)
        jobs.start_copy(scene.dom, 'vda', trouble.path, xml=trouble.xml, bitmap='c0',
                        checkpoint='c1', bandwidth=8 * MIB if live else MIB,
                        finish=not live)
        if live:
            vm.write(24 * MIB, 16 * MIB, 0x22)
            scene.dom.blockJobSetSpeed('vda', 2 * MIB,
                                       libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES)
        copying(scene, live)
        trouble.begin()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            vm.load_status()
            if vm.dom.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
                raise Failure(f'the guest is {vm.dom.state()}')
            time.sleep(0.1)
        trouble.end()
        try:
            scene.dom.blockJobSetSpeed('vda', 0, 0)
        except libvirt.libvirtError:
            if not trouble.fails:  # else the job may have ended by now
                raise
        if trouble.fails:
            scene.events.wait('vda', 'failed', timeout=60)
        elif live:
            jobs.wait_ready(scene.events, 'vda')
            scene.dom.blockJobAbort('vda', 0)
            scene.events.wait('vda', 'canceled')
        else:
            jobs.wait_end(scene.events, scene.dom, 'vda')
        longest = vm.slowest_write()
        scene.await_settled()
        names = [c.getName() for c in scene.dom.listAllCheckpoints()]
        if names != (['c0'] if trouble.fails else ['c0', 'c1']):
            raise Failure(f'checkpoints: {names}')
        for name in names:
            scene.dom.checkpointLookupByName(name).delete()
    return longest


@limit(600)
def test_targets_in_trouble(host):
    """Full, failing, stopped, dead, before READY: the guest's writes go on as ever."""
    host.daemon_options = ['--overlay-dir', host.images]
    scene = Scene(host, Guest(host, disks={'vda': SIZE}))
    vm = scene.vm
    hold = 30 if host.all else 3
    cells = [(make, live) for make in TROUBLES for live in (False, True)]
    if not host.all:
        cells = host.random.sample(cells[:2], 1) + host.random.sample(cells[2:], 2)
    vm.start_writer(length=REGION, flush_every=500, delay_usec=1000)
    vm.slowest_write()
    end = time.monotonic() + 2
    wait_for(lambda: time.monotonic() > end, 'some writes are measured')
    usual = vm.slowest_write()
    for make, live in cells:
        stopped = make is stopped_server
        longest = cell(scene, make, live, hold if stopped else 0.5)
        print(f'#   {make.__name__}, {"live" if live else "bulk"}: longest write '
              f'{longest * 1000:.0f} ms, without a mirror {usual * 1000:.0f} ms', flush=True)
        # A machine that is busy delays a write now and then; a stuck one waits to the end.
        if longest > usual + max(NOISE, (hold if stopped else 4) / 2):
            raise Failure(f'{make.__name__}: a write took {longest:.2f} s')
    vm.stop_load()
    vm.destroy()
    with RawView(vm.disks['vda'].path) as raw:
        check_records(raw, 0, REGION, 1)
