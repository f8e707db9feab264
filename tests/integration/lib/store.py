"""The daemon's store, read independently of it: which bits make up which checkpoint."""

import contextlib
import fcntl
import glob
import os
import xml.etree.ElementTree as ElementTree

from . import images
from .host import Failure


class Segment:
    """The changes of one disk from a checkpoint to the next: names of its parts."""

    def __init__(self, element):
        self.target = element.get('disk')
        self.lost = element.get('lost') == 'yes'
        self.bitmaps = [b.get('name') for b in element.iter('bitmap')]
        self.sidecars = [s.get('file') for s in element.iter('sidecar')]


class Record:
    def __init__(self, path):
        root = ElementTree.parse(path).getroot()
        self.path = path
        self.state = root.findtext('state')
        definition = root.find('domaincheckpoint')
        self.name = definition.findtext('name')
        self.parent = definition.findtext('parent/name')
        self.segments = {s.target: s for s in map(Segment, root.iter('segment'))}


def folder(host, vm):
    return os.path.join(host.state, vm.uuid)


@contextlib.contextmanager
def locked(host, vm):
    """No operation of the daemon on the domain while this lasts; nothing is known of a
    domain without a folder."""
    try:
        lock = open(os.path.join(folder(host, vm), 'lock'), 'r+')
    except FileNotFoundError:
        yield
        return
    with lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


def records(host, vm):
    """The records of a domain, oldest first."""
    found = {}
    for path in glob.glob(os.path.join(folder(host, vm), '*.checkpoint.xml')):
        record = Record(path)
        found[record.name] = record
    order, parent = [], None
    while len(order) < len(found):
        following = [r for r in found.values() if r.parent == parent and r not in order]
        if len(following) != 1:
            raise Failure(f'{len(following)} records follow {parent}')
        order.append(following[0])
        parent = following[0].name
    return order


def _live(vm, name):
    """The clusters of a bitmap on every node of the running guest that has it."""
    nodes = [node for node, bitmap in vm.all_bitmaps() if bitmap == name]
    if not nodes:
        raise Failure(f'bitmap {name} is on no node')
    return set().union(*(images.live_bitmap(vm, node, name).clusters() for node in nodes))


def _chain(path):
    while path:
        yield path
        path = images.info(path).get('full-backing-filename')


def _at_rest(vm, target, name):
    found = [bitmap for path in _chain(vm.disks[target].path)
             for bitmap in [images.bitmaps(path).get(name)] if bitmap]
    if not found or any(bitmap.in_use for bitmap in found):
        raise Failure(f'bitmap {name} is not in the images')
    return set().union(*(bitmap.clusters() for bitmap in found))


def since(host, vm, target, name):
    """The 64 KiB clusters that the daemon knows as changed since a checkpoint."""
    with locked(host, vm):
        return _since(host, vm, target, name, {})


def since_each(host, vm, wanted):
    """The same for several (disk, checkpoint), by one look: each bitmap is read once."""
    with locked(host, vm):
        read = {}
        return {(target, name): _since(host, vm, target, name, read)
                for target, name in wanted}


def lost(host, vm, name):
    """The disks of a checkpoint of which some changes since it are said to be lost."""
    chain = records(host, vm)
    at = [record.name for record in chain].index(name)
    return {target for target in chain[at].segments
            if any(target in r.segments and r.segments[target].lost for r in chain[at:])}


def _bitmap(vm, target, bitmap):
    return _live(vm, bitmap) if vm.dom.isActive() else _at_rest(vm, target, bitmap)


def _since(host, vm, target, name, read):
    """read: the clusters of bitmaps that were read already."""
    chain = records(host, vm)
    names = [record.name for record in chain]
    if name not in names:
        raise Failure(f'no record of {name}, but of {names}')
    clusters = set()
    for record in chain[names.index(name):]:
        segment = record.segments.get(target)
        if segment is None:
            continue
        if segment.lost:
            raise Failure(f'{target}: the segment of {record.name} is lost')
        for sidecar in segment.sidecars:
            bits = images.bitmaps(os.path.join(folder(host, vm), sidecar))
            if list(bits) != [sidecar.partition('.qcow2')[0]] or \
                    list(bits.values())[0].in_use:
                raise Failure(f'{sidecar}: {list(bits)} in use')
            clusters |= list(bits.values())[0].clusters()
        for bitmap in segment.bitmaps:
            if (target, bitmap) not in read:
                read[target, bitmap] = _bitmap(vm, target, bitmap)
            clusters |= read[target, bitmap]
    return clusters
