"""Live migration between two hosts, through us and past us: the guest arrives, and its
checkpoints with it where the store and the bits are shared; nothing is removed anywhere."""

import os

import libvirt

from lib import images, jobs
from lib.domain import CLUSTER, MIB, VM, qemu_img
from lib.host import Failure, wait_for
from lib.otherhost import OtherHost

C = '<domaincheckpoint><name>{}</name></domaincheckpoint>'
DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}
REDEFINE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
VALIDATE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
INCONSISTENT = libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT
INVALID = libvirt.VIR_ERR_OPERATION_INVALID
P2P = libvirt.VIR_MIGRATE_PEER2PEER
DISKS_TOO = libvirt.VIR_MIGRATE_NON_SHARED_DISK
INCREMENT = libvirt.VIR_MIGRATE_NON_SHARED_INC
MIGRATE = (libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST |
           libvirt.VIR_MIGRATE_UNSAFE)


def code(call, *args):
    try:
        call(*args)
    except libvirt.libvirtError as error:
        return error.get_error_code()
    return 0


class Journey:
    """A guest that goes from host to host.

    here: where it runs now; there: the other one; ours: by clients of ours.
    """

    def __init__(self, host, share=True, apart=False, ours=True, there=None, name='vm'):
        self.here, self.there = host, there or OtherHost(host, share, apart)
        self.ours, self.apart = ours, apart
        self.work, self.images = host.work, host.images
        for each in (self.here, self.there):
            if not each.daemon_running():
                each.start_daemon()
        self.vm = VM(host, name, dict(DISKS))
        self.at = {}
        self.trips = 0
        self.connect()

    def connect(self):
        self.conn = self.here.connect(ours=True)
        self.dom = self.conn.lookupByName(self.vm.name)
        self.events = jobs.Events(self.conn)

    def mark(self, name):
        self.dom.checkpointCreateXML(C.format(name))
        self.at[name] = {t: d.model.copy() for t, d in self.vm.disks.items()}

    def write(self, count=3):
        for target, disk in self.vm.disks.items():
            for _ in range(count):
                at = self.here.random.randrange(disk.size // CLUSTER) * CLUSTER
                self.vm.write(at, CLUSTER, self.here.random.randrange(1, 256), target)

    def names(self):
        return sorted(c.getName() for c in self.dom.listAllCheckpoints())

    def go(self, flags=0, connect=True):
        """Migrates; the guest writes on afterwards, where it is then."""
        self.trips += 1
        place = os.path.join(self.work, f'{self.vm.name}-{self.trips}.sock')
        params = {libvirt.VIR_MIGRATE_PARAM_URI: 'unix:' + place}
        if flags & (DISKS_TOO | INCREMENT):
            params[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = 'unix:' + place + '.nbd'
        dom = self.here.connect(ours=self.ours).lookupByName(self.vm.name)
        if flags & P2P:
            dom.migrateToURI3(self.there.tcp, params, MIGRATE | flags)
        else:
            dom.migrate3(self.there.connect(ours=self.ours), params, MIGRATE | flags)
        assert not dom.isActive()
        self.here, self.there = self.there, self.here
        self.vm.host = self.here
        self.vm.reconnect()
        self.vm._started()
        if connect:
            self.connect()
        self.write()

    def copy(self, since, target='vda'):
        """An increment onto the disk as of a checkpoint, judged."""
        name = f'{since}-{target}.copy'
        path = os.path.join(self.images, name)
        # What the host calls so may be another file.
        found = os.path.join(self.here.images, name) if self.apart else path
        images.write_image(found, self.at[since][target])
        jobs.start_copy(self.dom, target, path, bitmap=since, finish=True,
                        flags=libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT)
        jobs.wait_end(self.events, self.dom, target)
        images.expect_content(found, self.vm.disks[target].model, f'copy since {since}')
        os.unlink(found)

    def check(self):
        """All checkpoints are there, and none knows too little."""
        if self.names() != sorted(self.at):
            raise Failure(f'there are {self.names()}')
        for name in self.at:
            self.copy(name, self.here.random.choice(sorted(self.vm.disks)))


def test_shared_there_and_back(host):
    """Store and disks are shared: all checkpoints are usable where the guest is. What it
    left behind can be undefined: that does not concern them."""
    trip = Journey(host)
    for name in ('c1', 'c2'):
        trip.mark(name)
        trip.write()
    text = trip.dom.checkpointLookupByName('c1').getXMLDesc()
    trip.go()
    trip.check()
    trip.dom.checkpointCreateXML(text, REDEFINE | VALIDATE)
    trip.mark('c3')
    trip.write()
    left = trip.there.connect(ours=True).lookupByName(trip.vm.name)
    assert code(left.checkpointLookupByName('c1').delete) == INVALID
    left.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
    trip.go()
    trip.check()
    trip.vm.restart()
    trip.write()
    trip.check()


def test_from_host_to_host_past_us(host):
    """Libvirt's daemons migrate it among themselves, and our daemons are away."""
    trip = Journey(host, ours=False)
    trip.mark('c1')
    trip.write()
    for each in (trip.here, trip.there):
        each.kill_daemon()
    trip.go(P2P, connect=False)
    for each in (trip.here, trip.there):
        each.start_daemon()
    trip.connect()
    trip.check()
    trip.mark('c2')
    trip.write()
    trip.check()


def test_store_not_shared(host):
    """Without our records there is nothing to use; back home all is as it was, and what
    was written elsewhere counts."""
    trip = Journey(host, share=False)
    for name in ('c1', 'c2'):
        trip.mark(name)
        trip.write()
    text = trip.dom.checkpointLookupByName('c1').getXMLDesc()
    trip.go()
    assert trip.names() == [], trip.names()
    assert code(trip.dom.checkpointCreateXML, text, REDEFINE | VALIDATE) == INCONSISTENT
    trip.dom.checkpointCreateXML(C.format('elsewhere'))
    trip.write()
    trip.go()
    trip.check()


def copied(host, share):
    trip = Journey(host, share=share, apart=True)
    for name in ('c1', 'c2'):
        trip.mark(name)
        trip.write()
    # A migration that fails leaves everything as it was.
    assert code(trip.go, DISKS_TOO) != 0
    trip.write()
    trip.check()
    for disk in trip.vm.disks.values():
        qemu_img('create', '-q', '-f', 'qcow2',
                 os.path.join(trip.there.images, os.path.basename(disk.path)),
                 str(disk.size))
    trip.go(DISKS_TOO)
    left = [os.path.join(trip.there.images, os.path.basename(disk.path))
            for disk in trip.vm.disks.values()]
    # QEMU takes no bitmap of a name that the image has.
    wait_for(lambda: not any(images.bitmaps(path) for path in left),
             'what stays behind has no bitmaps')
    if share:
        trip.check()
    else:
        assert trip.names() == [], trip.names()
    trip.go(DISKS_TOO)
    trip.check()


def test_disks_copied(host):
    """The disks are copied, the store is shared: libvirt takes the bits along."""
    copied(host, True)


def test_disks_copied_store_not_shared(host):
    """Nothing is shared: back home all is known again, what came back included."""
    copied(host, False)


def refusals(trip, vm, dom, start):
    """What is said to a client while a mirror runs."""
    uri = trip.there.tcp
    there = trip.there.connect()
    migrations = {
        'direct': lambda: dom.migrate3(there, {}, MIGRATE),
        'direct, plain': lambda: dom.migrate2(there, None, MIGRATE),
        'host to host': lambda: dom.migrateToURI3(uri, {}, MIGRATE | P2P),
        'host to host, plain': lambda: dom.migrateToURI(uri, MIGRATE | P2P)}
    seen = {}

    def ask(calls):
        start(os.path.join(trip.images, f'{vm.name}-{len(seen)}.copy'))
        for name, call in calls.items():
            try:
                call()
                seen[name] = 'done'
            except libvirt.libvirtError as error:
                seen[name] = (error.get_error_code(), error.get_error_domain(),
                              error.get_error_message())
        dom.blockJobAbort('vda', 0)
    ask(migrations)
    snapshot = dom.snapshotCreateXML(
        "<domainsnapshot><name>s</name><disks><disk name='vda' snapshot='external'/>"
        '</disks></domainsnapshot>', libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
    ask({'revert': lambda: dom.revertToSnapshot(snapshot)})
    return seen


def test_refused_while_a_mirror_runs(host):
    """Migrating and reverting are refused as libvirt refuses them with its own job."""
    trip = Journey(host)
    twin = VM(host, 'twin', disks={'vda': 4 * MIB})

    def ours(path):
        trip.events.forget()
        jobs.start_copy(trip.dom, 'vda', path, checkpoint=os.path.basename(path))
        jobs.wait_ready(trip.events, 'vda')

    def stock(path):
        twin.dom.blockCopy('vda', jobs.target_xml(path), {},
                           libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
    seen = refusals(trip, trip.vm, trip.dom, ours)
    wanted = refusals(trip, twin, twin.dom, stock)
    assert seen == wanted, (seen, wanted)
