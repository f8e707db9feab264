"""What stock clients see on the event API they see from us: the same script on twin guests,
all kinds of events of each, in order."""

import difflib
import os
import threading

import libvirt

from lib import jobs, store
from lib.backups import Backup
from lib.domain import MIB, VM
from lib.host import Failure, wait_for

C = '<domaincheckpoint><name>{}</name></domaincheckpoint>'
REDEFINE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
UNDEFINE = libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
CHILDREN = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN
KINDS = {name[len('VIR_DOMAIN_EVENT_ID_'):]: getattr(libvirt, name)
         for name in dir(libvirt) if name.startswith('VIR_DOMAIN_EVENT_ID_') and
         name != 'VIR_DOMAIN_EVENT_ID_LAST'}
UNDEFINED = f'LIFECYCLE [{libvirt.VIR_DOMAIN_EVENT_UNDEFINED}, 0]'
TRANSIENT = libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB


class Seen:
    """Every event of one domain on one connection, as text in which nothing is its own."""

    def __init__(self, conn, vm):
        self._vm, self._events = vm, []
        self._lock = threading.Lock()
        for name, kind in KINDS.items():
            conn.domainEventRegisterAny(None, kind, self._take, name)

    def _take(self, _conn, dom, *rest):
        *values, name = rest
        if dom.UUIDString() != self._vm.uuid:
            return
        if name == 'JOB_COMPLETED':  # its numbers are of the moment
            values = [sorted(set(values[0]) & {'operation', 'success', 'disk_total'})]
        text = f'{name} {values}'.replace(self._vm.name, 'GUEST')
        with self._lock:
            self._events.append(text)

    def all(self):
        with self._lock:
            return list(self._events)


def destroy(host, vm, dom):
    """Between operations of ours: libvirt says CONTROL_ERROR when a guest is destroyed
    while anybody's question is at its monitor, one that follows an event, too."""
    with store.locked(host, vm):
        dom.destroy()


def play(host, vm, conn):
    dom = conn.lookupByName(vm.name)
    for name in ('a', 'b', 'c'):
        dom.checkpointCreateXML(C.format(name))
        vm.write(0, 65536, 1)
    text = dom.checkpointLookupByName('b').getXMLDesc()
    dom.checkpointCreateXML(text, REDEFINE)
    dom.checkpointLookupByName('b').delete()
    backup = Backup(vm, dom, since='a', push=True, checkpoint='d',
                    disks=['vda']).begin()
    backup.wait()
    backup.clean()
    path = os.path.join(host.images, vm.name + '.copy')
    dom.blockCopy('vda', jobs.target_xml(path), {}, TRANSIENT)
    wait_for(lambda: "<mirror" in dom.XMLDesc() and "ready='yes'" in dom.XMLDesc(),
             'the copy is ready')
    dom.blockJobAbort('vda', 0)
    vm.snapshot('vda', path + '.overlay', dom)
    vm.commit('vda', vm.disks['vda'].path, dom)
    dom.suspend()
    dom.checkpointCreateXML(C.format('e'))
    dom.resume()
    dom.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, 'x', None, None)
    dom.checkpointLookupByName('a').delete(CHILDREN)
    dom.checkpointCreateXML(C.format('f'))
    destroy(host, vm, dom)
    dom.create()
    vm._started()
    dom.checkpointLookupByName('f').getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE)
    destroy(host, vm, dom)
    dom.undefineFlags(UNDEFINE)


def test_events(host):
    """Checkpoints, backups, jobs and the life of a domain: the same events in the same
    order, and none besides."""
    host.start_daemon()
    found = []
    for name, ours in (('twin0', False), ('twin1', True)):
        vm = VM(host, name, disks={'vda': 4 * MIB, 'vdb': MIB})
        conn = host.connect(ours=ours)
        seen = Seen(conn, vm)
        play(host, vm, conn)
        wait_for(lambda: seen.all()[-1:] == [UNDEFINED], 'the last event')
        found.append(seen.all())
    stock, ours = found
    kinds = {text.split()[0] for text in stock}
    assert {'LIFECYCLE', 'BLOCK_JOB', 'BLOCK_JOB_2', 'JOB_COMPLETED'} <= kinds, kinds
    if stock != ours:
        raise Failure('\n'.join(difflib.unified_diff(stock, ours, 'stock', 'ours',
                                                     lineterm='')))
