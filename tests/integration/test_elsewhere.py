"""A guest that went to a host with another store, where a management stack redefines its
checkpoints: they are listed there, and inconsistent; nothing is removed on either host,
and back home they are what they were.
"""

import glob
import os

import libvirt

from lib import images, store
from lib.backups import Backup
from lib.domain import qemu_img
from lib.host import Failure, wait_for
from lib.otherhost import OtherHost
from lib.runner import limit
from test_health import check, command, heal_end, replica_xml, told
from test_migration import (DISKS_TOO, INCONSISTENT, P2P, REDEFINE, VALIDATE, Journey,
                            code)

SIZE = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE


class Trip(Journey):
    """Two checkpoints, and their XML as a management stack keeps it."""

    def __init__(self, host, apart=False, ours=True, there=None, name='vm'):
        super().__init__(host, False, apart, ours, there, name)
        self.texts = []
        for name in ('c1', 'c2'):
            self.mark(name)
            self.write()
        for name in ('c1', 'c2'):
            self.texts.append(self.dom.checkpointLookupByName(name).getXMLDesc())
        self.home = dict(self.at)

    def kept(self):
        """Every record, sidecar and name of a bitmap in the other host's store."""
        found = {}
        for path in glob.glob(os.path.join(self.there.state, self.vm.uuid, '*')):
            if os.path.basename(path) not in ('lock', 'host'):
                with open(path, 'rb') as file:
                    found[path] = file.read()
        return found

    def migrate(self):
        """With our daemons away if it goes past them, and with the disks if they are
        the hosts' own."""
        for disk in self.vm.disks.values() if self.apart else ():
            qemu_img('create', '-q', '-f', 'qcow2',
                     os.path.join(self.there.images, os.path.basename(disk.path)),
                     str(disk.size))
        daemons = (self.here, self.there) if not self.ours else ()
        for each in daemons:
            each.kill_daemon()
        # Host to host where the other one listens for that.
        way = P2P if daemons and isinstance(self.there, OtherHost) else 0
        self.go((DISKS_TOO if self.apart else 0) | way, connect=False)
        for each in daemons:
            each.start_daemon()
        self.connect()

    def redefine(self):
        for text in self.texts:
            self.dom.checkpointCreateXML(text, REDEFINE)
        assert [self.dom.checkpointLookupByName(name).getXMLDesc()
                for name in ('c1', 'c2')] == self.texts

    def refused(self, name, text, target='vda'):
        """Whoever uses the checkpoint learns which it is and what can be done."""
        checkpoint = self.dom.checkpointLookupByName(name)
        for call in (lambda: self.copy(name, target),
                     lambda: Backup(self.vm, self.dom, name, disks=[target]).begin(),
                     lambda: checkpoint.getXMLDesc(SIZE),
                     lambda: self.dom.checkpointCreateXML(text, REDEFINE | VALIDATE)):
            try:
                call()
            except libvirt.libvirtError as error:
                if error.get_error_code() != INCONSISTENT or not all(
                        word in str(error) for word in
                        (f"'{self.vm.name}'", f"'{target}'", f"'{name}'", 'full copy')):
                    raise
            else:
                raise Failure(f'{name} was used')

    def works(self, name):
        self.mark(name)
        self.write()
        for target in self.vm.disks:
            self.copy(name, target)


def there_and_back(trip):
    trip.migrate()
    kept = trip.kept()
    assert trip.names() == []
    assert code(trip.dom.checkpointCreateXML, trip.texts[0], REDEFINE | VALIDATE) == \
        INCONSISTENT
    assert trip.names() == []
    seen = check(trip)
    assert told(seen) == [('stray-bitmap', t, '') for t in sorted(trip.vm.disks)], seen
    assert all('another store' in p['text'] and 'full copy' in p['text'] and
               not p.get('command') for p in seen['problems']), seen
    trip.redefine()
    assert trip.names() == ['c1', 'c2'] and not trip.vm.dom.listAllCheckpoints()
    # Again, as before each backup.
    trip.redefine()
    for name, text in zip(('c1', 'c2'), trip.texts):
        trip.refused(name, text)
    seen = check(trip)
    for target in trip.vm.disks:
        assert {('lost', target, 'c1'), ('lost', target, 'c2')} <= set(told(seen)), seen
    assert any('--heal' in (p.get('command') or '') for p in seen['problems']), seen
    trip.works('c3')
    for name, text in zip(('c1', 'c2'), trip.texts):
        trip.refused(name, text)
    assert trip.kept() == kept
    trip.migrate()
    kept = trip.kept()
    trip.at = dict(trip.home)
    trip.check()
    trip.works('c4')
    assert trip.kept() == kept


def trips(host, apart):
    """Through us and past us with --all, else one of the two, drawn."""
    there = OtherHost(host, False, apart)
    both = (True, False)
    for ours in both if host.all else [host.random.choice(both)]:
        yield Trip(host, apart, ours, there, f'vm{ours:d}')


@limit(240)
def test_shared_disks(host):
    """The disks are shared, the store is not; what is known on a host stays so when the
    guest comes there again."""
    for trip in trips(host, False):
        there_and_back(trip)
        trip.migrate()
        trip.refused('c1', trip.texts[0])
        trip.dom.checkpointLookupByName('c1').delete()
        trip.dom.checkpointLookupByName('c2').delete()
        assert trip.names() == ['c3']
        trip.vm.destroy()


@limit(240)
def test_copied_disks(host):
    """Nothing is shared: libvirt copies the disks and the bits of the active bitmap."""
    for trip in trips(host, True):
        there_and_back(trip)
        trip.vm.destroy()


def test_after_new_checkpoints(host):
    """Redefined behind one that was made there: that one goes on being usable."""
    trip = Trip(host)
    trip.migrate()
    trip.works('c3')
    trip.redefine()
    assert trip.names() == ['c1', 'c2', 'c3']
    trip.copy('c3')
    trip.works('c4')
    trip.copy('c3')
    for name, text in zip(('c1', 'c2'), trip.texts):
        trip.refused(name, text)
    records = store.records(trip.here, trip.vm)
    assert [r.name for r in records] == ['c1', 'c2', 'c3', 'c4'], records


def test_healed(host):
    """A replica of the newest heals it: then it has all that changed on both hosts."""
    trip = Trip(host)
    trip.migrate()
    trip.redefine()
    path = os.path.join(host.images, 'replica.qcow2')
    images.write_image(path, trip.at['c2']['vda'])
    command(trip.dom, 'heal', disk='vda', against=replica_xml(path), checkpoint='c2')
    trip.write()
    assert heal_end(trip, 'vda')['state'] == 'completed'
    trip.write()
    trip.copy('c2')
    trip.refused('c1', trip.texts[0])


def test_guest_is_off(host):
    """A guest that is off, its disks on storage of both hosts, defined on the next."""
    trip = Trip(host)
    trip.vm.destroy()
    trip.there.connect().defineXML(trip.vm.dom.XMLDesc(
        libvirt.VIR_DOMAIN_XML_INACTIVE))
    trip.here, trip.there = trip.there, trip.here
    trip.vm.host = trip.here
    trip.vm.reconnect()
    trip.connect()
    kept = trip.kept()
    trip.redefine()
    for name, text in zip(('c1', 'c2'), trip.texts):
        assert code(trip.dom.checkpointCreateXML, text,
                    REDEFINE | VALIDATE) == INCONSISTENT, name
    trip.mark('c3')
    trip.vm.start(trip.dom)
    trip.write()
    trip.copy('c3')
    for name, text in zip(('c1', 'c2'), trip.texts):
        trip.refused(name, text)
    assert trip.kept() == kept


def test_stopped_anywhere(host):
    """A daemon that dies while it takes one leaves no checkpoint that knows too little."""
    there = OtherHost(host, share=False)
    points = ('elsewhere/recorded', 'elsewhere/linked')
    for number, point in enumerate(points if host.all else [host.random.choice(points)]):
        trip = Trip(host, there=there, name=f'vm{number}')
        trip.migrate()
        trip.works('c3')
        trip.here.stop_daemon()
        trip.here.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'{point}=exit'})
        trip.connect()
        assert code(trip.redefine) != 0
        wait_for(lambda: not trip.here.daemon_running(), f'it ends at {point}')
        trip.here.wait_daemon()
        trip.here.start_daemon()
        trip.connect()
        trip.copy('c3')
        trip.redefine()
        trip.copy('c3')
        trip.refused('c1', trip.texts[0])
        trip.works('c4')
