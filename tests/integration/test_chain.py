"""Chains of incremental copies under a guest that never stops writing."""

import os

from lib import images, jobs
from lib.domain import MIB
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
        # QEMU closes no descriptor set while the guest is suspended.
        wait_for(lambda: not self.guest.stray(), 'nothing of ours is left in QEMU')


@limit(420)
def test_thirty_finishes_in_a_chain(host):
    """Nothing is missing after 30 incremental copies of a disk that is written to."""
    Chain(host).run(30)


@slow
@limit(5400)
def test_three_hundred_finishes_in_a_chain(host):
    """The same 300 times."""
    Chain(host).run(300)
