"""Block pulls beside us: QEMU 7.2 dies of a look at its nodes until one is dismissed."""

import threading

import libvirt

from lib import jobs
from lib.domain import CLUSTER, MIB, VM
from lib.host import Failure, wait_for
from lib.oracle import Oracle

SIZE = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE | libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
PULLS = 8


class Looker:
    """A client that asks for sizes all the time, each of which looks at the nodes."""

    def __init__(self, host, name, checkpoint):
        self.looks = 0
        self._checkpoint = host.connect(ours=True).lookupByName(name) \
            .checkpointLookupByName(checkpoint)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            try:
                self._checkpoint.getXMLDesc(SIZE)
                self.looks += 1
            except libvirt.libvirtError:
                continue  # a disk may change under a look; it is asked again

    def end(self):
        self._stop.set()
        self._thread.join(30)


def pull(oracle, dom, clusters, bandwidth):
    vm = oracle.vm
    vm.disks['vda'].path = vm.snapshot('vda')
    vm.write(oracle.rng.randrange(0, 64) * CLUSTER, clusters * CLUSTER,
             oracle.rng.randrange(1, 256))
    vm.disks['vda'].path = vm.snapshot('vda')
    vm.write(oracle.rng.randrange(0, 100) * CLUSTER, CLUSTER, oracle.rng.randrange(1, 256))
    dom.blockPull('vda', bandwidth, 0)
    # Not by asking libvirt in a loop: it is about who else asks.
    oracle.pulls.wait('vda', 'completed', 'failed')


def test_looks_beside_pulls(host):
    """Pulls through us (with --all past us, too: rules.md has the window that is left)
    beside clients that look at the checkpoints: the guest lives, every bit is there."""
    host.start_daemon()
    oracle = Oracle(host, VM(host, disks={'vda': 8 * MIB}), host.random)
    oracle.pulls = jobs.Events(host.connect(ours=True),
                               libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL)
    oracle.create(['vda'])
    lookers = [Looker(host, 'vm', 'c1') for _ in range(2)]
    for number in range(PULLS):
        if number % 2 or not host.all:
            pull(oracle, oracle.dom, 1, 0)
        else:
            # One past us takes its time: nobody can know of it in its first moment.
            pull(oracle, oracle.vm.dom, 32, 16)
        if not oracle.vm.dom.isActive():
            raise Failure(f'the guest died in pull {number}')
    for looker in lookers:
        looker.end()
        assert looker.looks > 0
    oracle.check(copies=True)


def test_pull_that_is_not_dismissed(host):
    """One that is concluded is waited for as one that runs: a look would end the guest."""
    host.start_daemon()
    vm = VM(host, disks={'vda': 8 * MIB})
    oracle = Oracle(host, vm, host.random)
    oracle.create(['vda'])
    vm.disks['vda'].path = vm.snapshot('vda')
    vm.qmp('block-stream', device=vm.top(), **{
        'job-id': 'theirs', 'auto-dismiss': False})
    wait_for(lambda: vm.qmp('query-jobs')[0]['status'] == 'concluded', 'the pull')
    checkpoint = oracle.dom.checkpointLookupByName('c1')
    try:
        checkpoint.getXMLDesc(SIZE)
        raise Failure('a size beside a pull')
    except libvirt.libvirtError as error:
        assert error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID, error
        assert f"block pull 'theirs' of domain '{vm.uuid}' must end first" in str(error), error
    vm.qmp('job-dismiss', id='theirs')
    checkpoint.getXMLDesc(SIZE)
    oracle.check(copies=True)
