"""Chains of incremental copies under a guest that never stops writing."""

import os

from lib import images, jobs
from lib.domain import CLUSTER, MIB, VM
from lib.guest import Guest, check_records
from lib.host import Failure, wait_for
from lib.runner import limit, slow

REGION = 4 * MIB
SEED = 11


class Chain:
    """A Linux guest with a writer, its replica, and the copies of one into the other."""

    def __init__(self, host):
        self.host = host
        host.start_daemon()
        self.guest = Guest(host, disks={'vda': 32 * MIB}, iothread=True)
        self.guest.write(REGION, 20 * MIB, 9)
        self.guest.start_writer(length=REGION, seed=SEED)
        self.dom = host.connect(ours=True).lookupByName(self.guest.name)
        self.events = jobs.Events(self.dom.connect())
        self.replica = os.path.join(host.images, 'replica.qcow2')
        self.last = 0
        self.copy(0)

    def copy(self, number):
        jobs.start_copy(self.dom, 'vda', self.replica, f'c{number - 1}' if number else None,
                        f'c{number}', finish=True)
        jobs.wait_end(self.events, self.dom, 'vda')

    def check_moment(self):
        """The replica is of one moment, later than the last one looked at."""
        with images.RawView(self.replica) as raw:
            last = check_records(raw, 0, REGION, SEED)
        if last <= self.last:
            raise Failure(f'the replica is of record {last}, the last was {self.last}')
        self.last = last

    def run(self, count):
        for number in range(1, count):
            wait_for(lambda: self.guest.load_status()[0] > self.last + 20, 'it writes')
            self.copy(number)
            if number % 5 == 0 or number < 3:
                self.check_moment()
        self.guest.dom.suspend()
        self.copy(count)
        self.check_moment()
        missing = images.diff(self.guest.source(), self.replica)
        if missing:
            raise Failure(f'{len(missing)} clusters are not in the replica')
        self.guest.dom.resume()
        done, flushed = self.guest.stop_load()
        assert done == flushed >= self.last


@limit(420)
def test_thirty_finishes_in_a_chain(host):
    """Nothing is missing after 30 incremental copies of a disk that is written to."""
    Chain(host).run(30)


@slow
@limit(5400)
def test_three_hundred_finishes_in_a_chain(host):
    """The same 300 times."""
    Chain(host).run(300)


def allocated(path):
    return os.stat(path).st_blocks * 512


def test_copied_bytes_are_those_of_dirty_granules(host):
    """An incremental finish writes at most 1.05 times the dirty granules."""
    host.start_daemon()
    vm = VM(host, disks={'vda': 1024 * MIB})
    dom = host.connect(ours=True).lookupByName(vm.name)
    events = jobs.Events(dom.connect())
    dom.checkpointCreateXML('<domaincheckpoint><name>c1</name></domaincheckpoint>', 0)
    # Nothing is on the disk yet, so a target without a single block is right.
    targets = {fmt: os.path.join(host.images, f'target.{fmt}') for fmt in ('raw', 'qcow2')}
    for fmt, path in targets.items():
        images.qemu_img('create', '-q', '-f', fmt, path, str(1024 * MIB))
    empty = {fmt: allocated(path) for fmt, path in targets.items()}
    for i in range(60):
        vm.write(i * 17 * MIB + 4096 * (i % 7), 512, 1 + i)
    vm.write(1000 * MIB + 512, MIB, 200)
    dirty = 60 + 17
    for fmt, path in targets.items():
        before = host.copied_bytes()
        jobs.start_copy(dom, 'vda', path, 'c1', finish=True, fmt=fmt)
        jobs.wait_end(events, dom, 'vda')
        if host.copied_bytes() - before > dirty * CLUSTER * 1.05:
            raise Failure(f'{fmt}: QEMU copied {host.copied_bytes() - before} bytes')
        images.expect_content(path, vm.disks['vda'].model, fmt=fmt)
        tables = 4 * CLUSTER if fmt == 'qcow2' else 0
        copied = allocated(path) - empty[fmt] - tables
        if copied > dirty * CLUSTER * 1.05:
            raise Failure(f'{fmt}: {copied} bytes for {dirty} granules')


def test_copy_since_the_first_of_fifty_checkpoints(host):
    """A copy since long ago joins all segments since, and is right."""
    host.start_daemon()
    vm = VM(host)
    dom = host.connect(ours=True).lookupByName(vm.name)
    events = jobs.Events(dom.connect())
    base = vm.disks['vda'].model.copy()
    for number in range(50):
        dom.checkpointCreateXML(
            f'<domaincheckpoint><name>c{number}</name></domaincheckpoint>', 0)
        vm.write(number * MIB, CLUSTER, 1 + number)
    target = os.path.join(host.images, 'target.qcow2')
    images.write_image(target, base)
    jobs.start_copy(dom, 'vda', target, 'c0', finish=True)
    jobs.wait_end(events, dom, 'vda')
    images.expect_content(target, vm.disks['vda'].model)
