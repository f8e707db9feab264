"""Random sequences of everything at once, judged by content (lib/oracle.py)."""

import os

from lib.domain import MIB, VM
from lib.guest import Guest
from lib.oracle import Oracle
from lib.runner import limit, slow

CI_SECONDS = 5 * 60
ALL_SECONDS = 300 * 60
PARTS = 3


def run(host, seconds, kind=VM, **options):
    host.start_daemon()
    vm = kind(host, disks={'vda': 48 * MIB, 'vdb': 8 * MIB}, **options)
    oracle = Oracle(host, vm, host.random)
    steps = oracle.run(seconds)
    print(f'#   {steps} steps, {len(oracle.done)} actions', flush=True)


@limit(CI_SECONDS // PARTS + 400)
def test_random_sequences(host):
    """Any mix of writes, checkpoints, copies, snapshots and restarts loses nothing."""
    run(host, CI_SECONDS / PARTS)


@limit(CI_SECONDS // PARTS + 400)
def test_random_sequences_with_an_iothread(host):
    """The same done by Linux, with the disks' requests on a thread of their own."""
    run(host, CI_SECONDS / PARTS, Guest, iothread=True)


@limit(CI_SECONDS // PARTS + 400)
def test_random_sequences_with_small_clusters(host):
    """The same on images whose clusters are smaller than the bitmaps' granules."""
    run(host, CI_SECONDS / PARTS, create_options=('-o', 'cluster_size=4k'))


@slow
@limit(ALL_SECONDS + 600)
def test_random_sequences_for_hours(host):
    """The same for long."""
    run(host, ALL_SECONDS)


def test_commit_and_snapshot_between_two_looks(host):
    """Bits that a commit took down stay known, whatever the next overlay is called."""
    host.start_daemon()
    vm = VM(host, disks={'vda': 16 * MIB})
    oracle = Oracle(host, vm, host.random)
    path = vm.disks['vda'].path
    for number, name in enumerate(('other', 'overlay', 'overlay')):
        if number:
            vm.commit(base=path)
            os.unlink(vm.disks['vda'].path)
        vm.disks['vda'].path = vm.snapshot(path=os.path.join(host.images, name))
        vm.write(number * MIB, 65536, 1)
        oracle.create(['vda'])
        vm.write((8 + number) * MIB, 65536, 2)
    oracle.check(copies=True)
