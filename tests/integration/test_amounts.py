"""How much an incremental copy writes, and from how far back it can start."""

import json
import os
import xml.etree.ElementTree as ElementTree

import libvirt

from lib import images, jobs, store
from lib.domain import CLUSTER, MIB, VM
from lib.host import Failure, wait_for


def allocated(path):
    return os.stat(path).st_blocks * 512


def test_blocks_written_are_those_of_dirty_granules(host):
    """A target's file grows by at most 1.05 times the dirty granules."""
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


def asked(host, vm, act):
    """The commands that QEMU got from our daemon while act() ran."""
    with open(host.qmp_log, encoding='utf-8') as log:
        log.seek(0, os.SEEK_END)
        act()
        entries = [json.loads(line) for line in log]
    return [e['sent']['execute'] for e in entries if e.get('domain') == vm.uuid]


def test_questions_to_qemu_are_few(host):
    """On disks without layers a create sends 8 commands and 2 for each further disk, a
    delete in the middle one; a finish less than a hundred."""
    host.start_daemon()
    vm = VM(host, disks={'vda': 64 * MIB, 'vdb': 16 * MIB})
    dom = host.connect(ours=True).lookupByName(vm.name)
    events = jobs.Events(dom.connect())

    def create(name):
        vm.write(CLUSTER, 512, 1)
        dom.checkpointCreateXML(f'<domaincheckpoint><name>{name}</name></domaincheckpoint>')

    def finish():
        path = os.path.join(host.images, 'target.qcow2')
        images.qemu_img('create', '-q', '-f', 'qcow2', path, str(64 * MIB))
        jobs.start_copy(dom, 'vda', path, 'c1', 'c4', finish=True)
        jobs.wait_end(events, dom, 'vda')

    create('c1')
    create('c2')
    for what, most, act in (
            ('create', 10, lambda: create('c3')),
            ('delete', 1, lambda: dom.checkpointLookupByName('c2').delete()),
            ('finish', 100, finish)):
        # Whether a job has ended is asked as long as it takes.
        commands = [name for name in asked(host, vm, act) if name != 'query-jobs']
        if not 0 < len(commands) <= most:
            raise Failure(f'{what}: {len(commands)} commands: {commands}')


def many(host, count):
    """A guest with so many checkpoints, "c0" and on, and a cluster written after each."""
    host.start_daemon()
    vm = VM(host)
    dom = host.connect(ours=True).lookupByName(vm.name)
    for number in range(count):
        dom.checkpointCreateXML(
            f'<domaincheckpoint><name>c{number}</name></domaincheckpoint>', 0)
        vm.write(number * MIB, CLUSTER, 1 + number)
    return vm, dom


def sizes_since_first(dom):
    xml = dom.checkpointLookupByName('c0').getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE)
    return [int(d.get('size')) for d in ElementTree.fromstring(xml).iter('disk')
            if d.get('size')]


def test_the_size_since_the_first_of_many(host):
    """Whoever asks what changed since long ago has few questions sent to the guest's
    QEMU, whatever the number of checkpoints, and gets the right answer."""
    vm, dom = many(host, 60)
    sizes = []
    commands = asked(host, vm, lambda: sizes.extend(sizes_since_first(dom)))
    if sizes != [60 * CLUSTER]:
        raise Failure(f'{sizes}, not {60 * CLUSTER}')
    if not 0 < len(commands) <= 20:
        raise Failure(f'{len(commands)} commands: {commands}')


def left_over(host, vm):
    """Files in the domain's folder that no record names, and what is left in QEMU."""
    named = {'lock', 'journal', 'host'}
    for record in store.records(host, vm):
        named.add(os.path.basename(record.path))
        for segment in record.segments.values():
            named |= set(segment.sidecars)
    return sorted(set(os.listdir(store.folder(host, vm))) - named) + vm.stray()


def test_killed_with_a_united_sidecar(host):
    """The daemon is killed when the bits of many are in a file that no record names, by a
    question and by a copy: nothing is left of it, and the bits are right."""
    vm, dom = many(host, 50)
    target = os.path.join(host.images, 'target.qcow2')

    def copy():
        images.write_image(target, base)
        jobs.start_copy(dom, 'vda', target, 'c0', finish=True)

    base = vm.disks['vda'].model.copy()
    for number in range(50):
        base.fill(number * MIB, CLUSTER, 0)
    for act in (lambda: sizes_since_first(dom), copy):
        host.restart_daemon(env={'VIRT_CHECKPOINT_FAULTS': 'load/united@1=exit'})
        dom = host.connect(ours=True).lookupByName(vm.name)
        try:
            act()
        except libvirt.libvirtError:
            pass
        host.wait_daemon()
        if not [name for name in left_over(host, vm) if name.endswith('.0.qcow2')]:
            raise Failure(f'no united sidecar is there: {left_over(host, vm)}')
        host.start_daemon()
        dom = host.connect(ours=True).lookupByName(vm.name)
        if sizes_since_first(dom) != [50 * CLUSTER]:
            raise Failure(f'{sizes_since_first(dom)}')
        wait_for(lambda: not left_over(host, vm), 'nothing is left over')
    events = jobs.Events(dom.connect())
    copy()
    jobs.wait_end(events, dom, 'vda')
    images.expect_content(target, vm.disks['vda'].model)
    if left_over(host, vm):
        raise Failure(f'left over: {left_over(host, vm)}')
