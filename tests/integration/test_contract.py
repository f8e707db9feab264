"""The checkpoint contract in the life of a domain: disks come, go, are replaced and
resized; libvirt's own checkpoints beside ours; the documented form of the XML."""

import os
import xml.etree.ElementTree as ElementTree

import libvirt

from lib import store
from lib.domain import CLUSTER, MIB, VM, qemu_img
from lib.host import Failure, wait_for

NO_DOMAIN = libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
SIZE = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE | NO_DOMAIN
REDEFINE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
VALIDATE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}
C = '<domaincheckpoint><name>{}</name></domaincheckpoint>'


def guest(host, **options):
    host.start_daemon()
    vm = VM(host, disks=dict(DISKS), **options)
    return vm, host.connect(ours=True).lookupByName(vm.name)


def sizes(dom, name):
    """{disk: bytes changed since the checkpoint}; a disk that is not there has none."""
    text = dom.checkpointLookupByName(name).getXMLDesc(SIZE)
    return {disk.get('name'): int(disk.get('size'))
            for disk in ElementTree.fromstring(text).iter('disk') if disk.get('size')}


def covered(dom, name):
    text = dom.checkpointLookupByName(name).getXMLDesc(NO_DOMAIN)
    return [disk.get('name') for disk in ElementTree.fromstring(text).iter('disk')
            if disk.get('checkpoint') == 'bitmap']


def code(call, *args):
    try:
        call(*args)
    except libvirt.libvirtError as error:
        return error.get_error_code()
    return 0


def extra_disk(host, target, size=4 * MIB, name='extra'):
    path = os.path.join(host.images, f'{name}-{target}.qcow2')
    qemu_img('create', '-q', '-f', 'qcow2', path, str(size))
    return f'''<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
      <source file='{path}'/><target dev='{target}' bus='scsi'/></disk>'''


SCSI = "<controller type='scsi' model='virtio-scsi'/>"


def test_disks_that_come_and_go(host):
    """A new disk is not covered by older checkpoints; one that went leaves the rest."""
    vm, dom = guest(host, extra_devices=SCSI)
    dom.checkpointCreateXML(C.format('c1'))
    vm.write(0, CLUSTER, 1)
    new = extra_disk(host, 'sda')
    dom.attachDevice(new)
    dom.checkpointCreateXML(C.format('c2'))
    assert covered(dom, 'c1') == ['vda', 'vdb'], covered(dom, 'c1')
    assert covered(dom, 'c2') == ['vda', 'vdb', 'sda'], covered(dom, 'c2')
    assert sizes(dom, 'c1') == {'vda': CLUSTER, 'vdb': 0}, sizes(dom, 'c1')
    assert sizes(dom, 'c2') == {'vda': 0, 'vdb': 0, 'sda': 0}, sizes(dom, 'c2')
    dom.detachDevice(new)
    wait_for(lambda: "dev='sda'" not in dom.XMLDesc(), 'the disk is gone')
    vm.write(CLUSTER, CLUSTER, 2)
    assert sizes(dom, 'c2') == {'vda': CLUSTER, 'vdb': 0}, sizes(dom, 'c2')
    dom.checkpointCreateXML(C.format('c3'))
    assert covered(dom, 'c3') == ['vda', 'vdb']
    # Another image under the old name: nothing is known of it, and nothing is claimed.
    dom.attachDevice(extra_disk(host, 'sda', name='other'))
    # The others of that checkpoint still have their sizes.
    assert sizes(dom, 'c2') == {'vda': CLUSTER, 'vdb': 0}, sizes(dom, 'c2')
    text = dom.checkpointLookupByName('c2').getXMLDesc(NO_DOMAIN)
    assert code(dom.checkpointCreateXML, text, REDEFINE | VALIDATE) == \
        libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT
    assert sizes(dom, 'c3') == {'vda': 0, 'vdb': 0}
    dom.checkpointCreateXML(C.format('c4'))
    assert covered(dom, 'c4') == ['vda', 'vdb', 'sda']
    assert sizes(dom, 'c4') == {'vda': 0, 'vdb': 0, 'sda': 0}
    for name in ('c2', 'c1', 'c4', 'c3'):
        dom.checkpointLookupByName(name).delete()
    assert not dom.listAllCheckpoints()


def test_resized_disks(host):
    """A disk that grows keeps its checkpoints, those before and after."""
    vm, dom = guest(host)
    dom.checkpointCreateXML(C.format('c1'))
    vm.write(0, CLUSTER, 1)
    dom.checkpointCreateXML(C.format('c2'))
    vm.write(MIB, CLUSTER, 2)
    dom.blockResize('vda', 32 * MIB, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    vm.disks['vda'].model.sectors.extend(bytes(16 * MIB // 512))
    vm.disks['vda'].size = vm.disks['vda'].model.size = 32 * MIB
    dom.checkpointCreateXML(C.format('c3'))
    vm.write(24 * MIB, CLUSTER, 3)

    def expect(*wanted):
        for name, count in wanted:
            found = sizes(dom, name)['vda']
            if found < count * CLUSTER:
                raise Failure(f'{name}: {found // CLUSTER} clusters, not {count}')
    expect(('c1', 3), ('c2', 2), ('c3', 1))
    dom.checkpointLookupByName('c2').delete()
    expect(('c1', 3), ('c3', 1))
    vm.restart()
    expect(('c1', 3), ('c3', 1))
    redefined = dom.checkpointLookupByName('c1').getXMLDesc()
    dom.checkpointCreateXML(redefined, REDEFINE | VALIDATE)


def test_a_transient_domain_comes_back(host):
    """The same UUID is the same domain: its checkpoints are there again, and validate."""
    vm, dom = guest(host)
    dom.checkpointCreateXML(C.format('c1'))
    vm.write(0, CLUSTER, 1)
    dom.checkpointCreateXML(C.format('c2'))
    texts = [dom.checkpointLookupByName(name).getXMLDesc() for name in ('c1', 'c2')]
    xml = dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    dom.undefineFlags(0)
    # A transient domain now: it ends, and is created again.
    conn = host.connect(ours=True)
    conn.lookupByUUIDString(vm.uuid).destroy()
    assert code(conn.lookupByUUIDString, vm.uuid) == libvirt.VIR_ERR_NO_DOMAIN
    dom = conn.createXML(xml)
    vm.dom = vm.conn.lookupByUUIDString(vm.uuid)
    vm._started()
    # What clients do before each backup.
    for text in texts:
        dom.checkpointCreateXML(text, REDEFINE | VALIDATE)
    assert sorted(c.getName() for c in dom.listAllCheckpoints()) == ['c1', 'c2']
    assert sizes(dom, 'c1')['vda'] == CLUSTER
    dom.destroy()


def test_nothing_is_left_after_undefine(host):
    """Undefine with the flag for checkpoints leaves no file of ours."""
    vm, dom = guest(host)
    for name in ('c1', 'c2', 'c3'):
        dom.checkpointCreateXML(C.format(name))
        vm.write(0, CLUSTER, 1)
    vm.destroy()
    assert code(dom.undefine) == libvirt.VIR_ERR_OPERATION_INVALID
    dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
    wait_for(lambda: not os.path.exists(store.folder(host, vm)), 'the folder is gone')


def test_a_mark_of_a_freeze_is_settled(host):
    """What a daemon that died may have frozen is thawed by the next one, once."""
    vm, dom = guest(host)
    dom.checkpointCreateXML(C.format('c1'))
    host.kill_daemon()
    mark = os.path.join(store.folder(host, vm), 'frozen')
    with open(mark, 'w'):
        pass
    host.start_daemon()
    wait_for(lambda: not os.path.exists(mark), 'the mark goes')
    assert 'may stay frozen' in host.daemon_log()
    host.connect(ours=True).lookupByName(vm.name).checkpointCreateXML(C.format('c2'))


def test_libvirts_own_beside_ours(host):
    """Libvirt's checkpoints are listed, dumped and deleted; names are taken on both
    sides; deleting ours leaves theirs."""
    vm, dom = guest(host)
    vm.dom.checkpointCreateXML(C.format('theirs'))
    theirs = vm.bitmaps('vda', ours=False)
    assert list(theirs) == ['theirs'], theirs
    assert code(dom.checkpointCreateXML, C.format('theirs')) == \
        libvirt.VIR_ERR_OPERATION_FAILED
    dom.checkpointCreateXML(C.format('ours'))
    assert sorted(c.getName() for c in dom.listAllCheckpoints()) == ['ours', 'theirs']
    assert [c.getName() for c in vm.dom.listAllCheckpoints()] == ['theirs']
    vm.write(0, CLUSTER, 1)
    assert sizes(dom, 'theirs')['vda'] == CLUSTER
    assert sizes(dom, 'ours')['vda'] == CLUSTER
    text = dom.checkpointLookupByName('theirs').getXMLDesc()
    dom.checkpointCreateXML(text, REDEFINE | VALIDATE)
    dom.checkpointLookupByName('ours').delete()
    assert 'theirs' in vm.bitmaps('vda', ours=False)
    dom.checkpointLookupByName('theirs').delete()
    assert not vm.bitmaps('vda', ours=False)


# The shapes that the format's documentation shows, in words of our own.
REQUEST = '''<domaincheckpoint>
  <description>before the upgrade</description>
  <disks>
    <disk name='vda' checkpoint='bitmap'/>
    <disk name='vdb' checkpoint='no'/>
  </disks>
</domaincheckpoint>'''


def test_documented_examples(host):
    """A request with a description and disks; the full form that comes back is accepted
    as it is, and comes back equal."""
    vm, dom = guest(host)
    first = dom.checkpointCreateXML(REQUEST)
    full = first.getXMLDesc()
    root = ElementTree.fromstring(full)
    assert root.findtext('description') == 'before the upgrade'
    assert root.findtext('name') == root.findtext('creationTime') == first.getName()
    assert [(d.get('name'), d.get('checkpoint'), d.get('bitmap'))
            for d in root.iter('disk') if d.get('checkpoint')] == [
                ('vda', 'bitmap', first.getName()), ('vdb', 'no', None)]
    assert root.find('domain/uuid').text == vm.uuid
    again = dom.checkpointCreateXML(full, REDEFINE | VALIDATE)
    assert again.getXMLDesc() == full
    named = dom.checkpointCreateXML(
        "<domaincheckpoint><name>1525889631</name><disks><disk name='vda' "
        "checkpoint='bitmap' bitmap='1525889631'/></disks></domaincheckpoint>")
    root = ElementTree.fromstring(named.getXMLDesc())
    assert root.findtext('parent/name') == first.getName()
    dom.checkpointCreateXML(named.getXMLDesc(), REDEFINE)
