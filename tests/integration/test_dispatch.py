"""The extended calls: what a client of libvirt's API sees through us, beside stock."""

import json
import os
import signal
import subprocess

import libvirt

from lib import paths, rpc
from lib.domain import MIB, VM
from lib.host import Process, wait_for
from lib.jobs import Events, start_copy, target_xml, wait_end, wait_ready
from lib.runner import Skip

C = '<domaincheckpoint><name>{}</name></domaincheckpoint>'


def outcome(call, *args):
    """What the call returns, or the code, domain, level and first line of its error."""
    try:
        return call(*args)
    except libvirt.libvirtError as error:
        return (error.get_error_code(), error.get_error_domain(),
                error.get_error_level(), error.get_error_message().split('\n')[0])


def names(call, *args):
    """The names of a list, sorted: without a flag the order is nobody's promise."""
    found = outcome(call, *args)
    if isinstance(found, tuple):
        return found
    return sorted(checkpoint.getName() for checkpoint in found)


def checkpoint_calls(dom):
    """Checkpoint calls in every way that flags, names and order can be wrong."""
    seen = []

    def note(what, value):
        seen.append((what, value))

    create = dom.checkpointCreateXML
    for xml in ('<x/>', '<domaincheckpoint>', ''):
        note(xml, outcome(create, xml, 0))
    for flags in (1, 3, 4, 5, 6, 8, 1 << 20):
        note(f'create with flags {flags}', outcome(create, '<x/>', flags))
    note('create with an unknown disk', outcome(
        create, '<domaincheckpoint><disks><disk name="vdz"/></disks></domaincheckpoint>',
        0))
    note('an empty list', names(dom.listAllCheckpoints, 0))
    for name in ('a', 'b', 'c'):
        note(name, create(C.format(name), 0).getName())
    note('again', outcome(create, C.format('a'), 0))
    for flags in (0, 1, 2, 3, 4, 8, 12, 16, 1 << 20):
        note(f'list {flags}', names(dom.listAllCheckpoints, flags))
    note('in order', [c.getName() for c in dom.listAllCheckpoints(2)])
    for name in ('a', 'b', 'c'):
        checkpoint = dom.checkpointLookupByName(name)
        for flags in (0, 1, 2, 4, 5, 8, 9, 16):
            note(f'children of {name} {flags}', names(checkpoint.listAllChildren, flags))
        note('parent', outcome(lambda c=checkpoint: c.getParent().getName()))
        note('parent flags', outcome(checkpoint.getParent, 1))
        for flags in (8, 16):
            note('xml flags', outcome(checkpoint.getXMLDesc, flags))
        for flags in (5, 7, 8):
            note('delete flags', outcome(checkpoint.delete, flags))
    note('lookup', outcome(dom.checkpointLookupByName, 'no-such', 0))
    note('lookup flags', outcome(dom.checkpointLookupByName, 'a', 1))
    stale = dom.checkpointLookupByName('b')
    note('delete', outcome(stale.delete, 0))
    for call in (stale.delete, stale.getXMLDesc, stale.getParent, stale.listAllChildren):
        note('of a deleted one', outcome(call, 0))
    note('moved up', dom.checkpointLookupByName('c').getParent().getName())
    note('children only', outcome(dom.checkpointLookupByName('a').delete, 4))
    note('left', names(dom.listAllCheckpoints, 0))
    return seen


def test_domains_with_checkpoints_are_listed(host):
    """The filters of a list of domains count checkpoints of either kind."""
    VM(host, name='none', disks={'vda': MIB})
    theirs = VM(host, name='theirs', disks={'vda': MIB})
    theirs.dom.checkpointCreateXML(C.format('t'))
    VM(host, name='ours', disks={'vda': MIB})
    host.start_daemon()
    conn = host.connect(ours=True)
    conn.lookupByName('ours').checkpointCreateXML(C.format('o'))

    def listed(*filters):
        return sorted(host.virsh('list', '--all', '--name', *filters, ours=True).split())

    assert listed('--with-checkpoint') == ['ours', 'theirs']
    assert listed('--without-checkpoint') == ['none']
    assert listed() == ['none', 'ours', 'theirs']
    # Libvirt's own stay usable beside ours.
    dom = conn.lookupByName('theirs')
    assert names(dom.listAllCheckpoints) == ['t']
    checkpoint = dom.checkpointLookupByName('t')
    assert '<name>t</name>' in checkpoint.getXMLDesc()
    checkpoint.delete()
    assert listed('--with-checkpoint') == ['ours']


def read_only_calls(dom):
    """What a read-only connection may do, and may not."""
    checkpoint = dom.checkpointLookupByName('a')
    seen = [outcome(dom.checkpointCreateXML, C.format('x'), 0),
            outcome(checkpoint.delete, 0),
            outcome(dom.blockJobAbort, 'vda', 0),
            outcome(dom.blockCopy, 'vda', '<disk/>', {'bitmap': 'a'}, 2),
            outcome(dom.undefineFlags, 16),
            names(dom.listAllCheckpoints, 0),
            names(checkpoint.listAllChildren, 0),
            outcome(checkpoint.getParent)]
    for flags in (1, 3, 5, 9):
        seen.append(outcome(checkpoint.getXMLDesc, flags))
    seen.append('<name>a</name>' in checkpoint.getXMLDesc(2))
    return seen


def beside(host, call):
    """call() on a guest through stock libvirt, and on one through us: both results."""
    stock = VM(host, name='stock')
    ours = VM(host, name='ours')
    host.start_daemon()
    results = []
    for vm, through in ((stock, False), (ours, True)):
        dom = host.connect(ours=through).lookupByName(vm.name)
        seen = call(dom)
        results.append([repr(item).replace(vm.name, 'NAME').replace(vm.uuid, 'UUID')
                        for item in seen])
    return results


def test_checkpoint_calls_answer_as_stock(host):
    """Flags, lists, errors with code, domain and text are those of stock libvirt."""
    stock, ours = beside(host, checkpoint_calls)
    differ = [(one, other) for one, other in zip(stock, ours) if one != other]
    assert not differ and len(stock) == len(ours), differ


def test_read_only_connections(host):
    """Read-only connections read and are refused the rest in libvirt's words."""
    results = []
    for name, through in (('stock', False), ('ours', True)):
        vm = VM(host, name=name)
        if through:
            host.start_daemon()
        host.connect(ours=through).lookupByName(name).checkpointCreateXML(C.format('a'))
        conn = host.connect(ours=through, readonly=True)
        results.append(read_only_calls(conn.lookupByName(name)))
        flagged = libvirt.openReadOnly(host.uri(ours=through))
        results.append(read_only_calls(flagged.lookupByName(name)))
        flagged.close()
        assert vm.dom.listAllCheckpoints() == [] or not through
    assert results[0] == results[2], (results[0], results[2])
    assert results[1] == results[3], (results[1], results[3])


RULES = '''polkit.addRule(function(action, subject) {
    if (action.id.indexOf('org.libvirt.') != 0)
        return polkit.Result.NOT_HANDLED;
    var name = action.lookup('domain_name') || '';
    return name.indexOf('no-') == 0 && action.id == 'org.libvirt.api.domain.' + name.slice(3)
        ? polkit.Result.NO : polkit.Result.YES;
});
'''
RIGHTS = ('checkpoint', 'block-write', 'read', 'getattr', 'fs-freeze')
# Run as an ordinary user: polkit lets root do everything.
CALLS = '''
import json, sys, libvirt
libvirt.registerErrorHandler(lambda *_: None, None)
conn = libvirt.open(sys.argv[1])
seen = {}
def note(domain, what, call, *args):
    try:
        call(*args)
        seen[domain + ' ' + what] = 0
    except libvirt.libvirtError as error:
        seen[domain + ' ' + what] = error.get_error_code()
for line in sys.argv[2:]:
    name, uuid = line.split('=')
    try:
        dom = conn.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        seen[name + ' lookup'] = error.get_error_code()
        continue
    xml = '<domaincheckpoint><name>{}</name></domaincheckpoint>'
    note(name, 'create', dom.checkpointCreateXML, xml.format('made'), 0)
    note(name, 'quiesce', dom.checkpointCreateXML, xml.format('a'), 2)
    note(name, 'list', dom.listAllCheckpoints, 0)
    try:
        a = dom.checkpointLookupByName('a')
        note(name, 'xml', a.getXMLDesc, 0)
        note(name, 'children', a.listAllChildren, 0)
        note(name, 'delete', a.delete, 0)
    except libvirt.libvirtError as error:
        seen[name + ' look up'] = error.get_error_code()
    note(name, 'copy', dom.blockCopy, 'vdz', '<disk/>', {'checkpoint': 'c'}, 0)
print(json.dumps(seen))
'''


def start_polkit(host):
    """A bus and polkit with our rules, in this mount namespace; returns them."""
    polkitd = '/usr/lib/polkit-1/polkitd'
    if not host.system or not paths.program('dbus-daemon') or \
            not os.access(polkitd, os.X_OK):
        raise Skip('needs root, dbus-daemon and polkitd')
    rules = os.path.join(host.work, 'lib', 'rules.d')
    os.makedirs(rules, exist_ok=True)
    with open(os.path.join(rules, '00-test.rules'), 'w') as file:
        file.write(RULES)
    for path in (host.work, os.path.join(host.work, 'lib'), rules):
        os.chmod(path, 0o755)
    subprocess.run(['mount', '--bind', rules, '/etc/polkit-1/rules.d'], check=True)
    os.makedirs('/run/dbus', exist_ok=True)
    bus = Process('dbus-daemon', os.path.join(host.logs, 'dbus.log'))
    bus.start([paths.program('dbus-daemon'), '--system', '--nofork', '--nopidfile'])
    wait_for(lambda: os.path.exists('/run/dbus/system_bus_socket'), 'the bus is there')
    polkit = Process('polkitd', os.path.join(host.logs, 'polkitd.log'))
    polkit.start([polkitd, '--no-debug'])
    names = ['dbus-send', '--system', '--print-reply', '--dest=org.freedesktop.DBus', '/',
             'org.freedesktop.DBus.ListNames']
    wait_for(lambda: b'PolicyKit1' in subprocess.run(names, capture_output=True,
                                                     check=False).stdout, 'polkit is there')
    return polkit, bus


def test_rights_are_asked_of_libvirt(host):
    """Whom libvirt's access control denies one right is denied just the calls of it."""
    helpers = start_polkit(host)
    try:
        with open(os.path.join(host.config, 'libvirtd.conf'), 'a') as conf:
            conf.write('access_drivers = ["polkit"]\n')
        host.restart_libvirtd()
        host.start_daemon()
        conn = host.connect(ours=True)
        guests = {}
        for name in [f'no-{right}' for right in RIGHTS] + ['all']:
            guests[name] = VM(host, name=name, disks={'vda': MIB})
            conn.lookupByName(name).checkpointCreateXML(C.format('a'))
        done = subprocess.run(
            ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups',
             '/usr/bin/python3', '-c', CALLS, host.uri(ours=True),
             *(f'{name}={vm.uuid}' for name, vm in guests.items())],
            capture_output=True, text=True, timeout=60, check=False,
            env={'PATH': os.environ['PATH'], 'HOME': '/nonexistent'})
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        denied = {what for what, code in seen.items()
                  if code == libvirt.VIR_ERR_ACCESS_DENIED}
        assert denied == {
            'no-checkpoint create', 'no-checkpoint quiesce', 'no-checkpoint delete',
            'no-block-write copy', 'no-read list', 'no-read look up',
            'no-getattr lookup', 'no-fs-freeze quiesce'}, seen
        for name in guests:
            left = {c.getName() for c in conn.lookupByName(name).listAllCheckpoints()}
            assert ('made' in left) == (name not in ('no-checkpoint', 'no-getattr')), name
            kept = name in ('no-checkpoint', 'no-read', 'no-getattr')
            assert ('a' in left) == kept, (name, left)
    finally:
        host.stop_daemon()
        for helper in helpers:
            helper.end(signal.SIGTERM)


def test_a_mirror_is_one_copy_job(host):
    """Information, speed, events and aborts are those of one copy, whatever runs inside."""
    vm = VM(host, disks={'vda': 32 * MIB})
    vm.write(0, 8 * MIB, 5)
    host.start_daemon()
    conn = host.connect(ours=True)
    dom = conn.lookupByName('vm')
    events = Events(conn)
    path = os.path.join(host.images, 'copy.qcow2')
    start_copy(dom, 'vda', path, checkpoint='a', bandwidth=MIB)
    info = dom.blockJobInfo('vda', 0)
    assert (info['type'], info['bandwidth']) == (2, 1), info
    dom.blockJobSetSpeed('vda', 3 * MIB, 1)
    assert dom.blockJobInfo('vda', 1)['bandwidth'] == 3 * MIB
    assert dom.blockJobInfo('vda', 0)['bandwidth'] == 3
    dom.blockJobSetSpeed('vda', 0)
    wait_ready(events, 'vda')
    info = dom.blockJobInfo('vda', 0)
    assert info['type'] == 2 and info['cur'] == info['end'], info
    dom.blockJobAbort('vda', 0)
    assert events.wait('vda', 'canceled') and dom.blockJobInfo('vda', 0) == {}
    vm.write(MIB, MIB, 6)
    start_copy(dom, 'vda', path, bitmap='a', checkpoint='b', finish=True)
    wait_end(events, dom, 'vda')
    start_copy(dom, 'vda', path, bitmap='b')
    wait_ready(events, 'vda')
    dom.blockJobAbort('vda', libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    wait_end(events, dom, 'vda')
    assert not events.seen() and vm.source() == path
    assert names(dom.listAllCheckpoints, 0) == ['a', 'b']
    stock = outcome(vm.dom.blockJobAbort, 'vda', 0)
    assert outcome(dom.blockJobAbort, 'vda', 0) == stock, stock


def guarded_calls(vm, dom):
    """What libvirt refuses, or not, of a domain whose disk vda has a copy job."""
    snapshot = ('<domainsnapshot><disks><disk name="{}" snapshot="external"/>'
                '<disk name="{}" snapshot="no"/></disks></domainsnapshot>')
    backup = '<domainbackup><disks><disk name="{}" type="file"/></disks></domainbackup>'
    device = ('<disk type="file" device="disk"><driver name="qemu" type="qcow2"/>'
              '<source file="{}"/><target dev="{}" bus="virtio"/></disk>')
    disk = device.format(vm.disks['vda'].path, 'vda')
    copy = target_xml(os.path.join(vm.host.images, 'other.qcow2'))
    return [
        outcome(dom.blockCopy, 'vda', copy, None, 4),
        outcome(dom.blockPull, 'vda', 0, 0),
        outcome(dom.blockRebase, 'vda', None, 0, 0),
        outcome(dom.snapshotCreateXML, '<domainsnapshot/>', 16),
        outcome(dom.snapshotCreateXML, snapshot.format('vda', 'vdb'), 16),
        isinstance(outcome(dom.snapshotCreateXML, snapshot.format('vdb', 'vda'), 16 | 64),
                   libvirt.virDomainSnapshot),
        outcome(dom.backupBegin, backup.format('vda'), None),
        outcome(dom.detachDevice, disk),
        outcome(dom.detachDeviceFlags, disk, 1),
        outcome(dom.detachDeviceAlias, 'virtio-disk0', 1),
        outcome(dom.managedSave, 0),
        outcome(dom.save, '/nonexistent/image'),
        outcome(dom.detachDeviceFlags, device.format('/none', 'vdx'), 1),
        outcome(dom.blockJobAbort, 'vdb', 0),
        outcome(dom.blockJobInfo, 'vdb', 0),
        outcome(dom.blockJobInfo, 'vdx', 0),
    ]


def test_a_mirrored_disk_is_guarded(host):
    """What libvirt refuses of a disk with a copy job it is refused with a mirror, too."""
    disks = {'vda': 16 * MIB, 'vdb': 16 * MIB}
    stock = VM(host, name='stock', disks=disks)
    stock.dom.blockCopy('vda', target_xml(os.path.join(host.images, 'stock.qcow2')), None,
                        libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
    want = guarded_calls(stock, stock.dom)
    stock.dom.blockJobAbort('vda', 0)
    ours = VM(host, name='ours', disks=disks)
    ours.write(0, 8 * MIB, 1)
    host.start_daemon()
    conn = host.connect(ours=True)
    dom = conn.lookupByName('ours')
    events = Events(conn)
    # In the bulk pass, of which libvirt knows nothing, and when libvirt mirrors.
    start_copy(dom, 'vda', os.path.join(host.images, 'ours.qcow2'), checkpoint='a',
               bandwidth=MIB)
    for ready in (False, True):
        if ready:
            dom.blockJobSetSpeed('vda', 0)
            wait_ready(events, 'vda')
        got = guarded_calls(ours, dom)
        differ = [pair for pair in zip(want, got) if pair[0] != pair[1]]
        assert not differ, (ready, differ)
    refused = outcome(dom.blockResize, 'vda', 32 * MIB, 1)
    assert refused[0] == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE, refused
    dom.blockJobAbort('vda', 0)
    dom.blockResize('vda', 32 * MIB, 1)


def test_copy_parameters(host):
    """Wrong parameters are refused before anything starts, libvirt's in its own words."""
    vm = VM(host, disks={'vda': MIB})
    host.start_daemon()
    uri = host.uri().split('?')[0]
    stock, ours = rpc.Client(host.backend, uri), rpc.Client(host.front, uri)

    def copy(client, *params, uuid=vm.uuid, flags=0):
        status, reply = client.call(345, rpc.domain(uuid) + rpc.text('vda') +
                                    rpc.text('<disk/>') + rpc.u32(len(params)) +
                                    b''.join(params) + rpc.u32(flags))
        assert status == 1
        return rpc.error(reply)

    checkpoint = rpc.param('checkpoint', 7, rpc.text('c'))
    bitmap = rpc.param('bitmap', 7, rpc.text('c'))
    speed = rpc.param('bandwidth', 4, rpc.u64(1))
    for params in ((speed, speed), (rpc.param('bandwidth', 2, rpc.u32(1)),),
                   (rpc.param('zzz', 7, rpc.text('')),),
                   (rpc.param('granularity', 2, rpc.u32(3)),),
                   (rpc.param('zzz', 9, b''),), [rpc.param('z', 1, rpc.u32(1))] * 16):
        want = copy(stock, *params)
        assert copy(ours, *params[:15], checkpoint) == want, params
        assert copy(ours, *params) == want, params
    for params, why in (
            ((checkpoint, checkpoint), "parameter 'checkpoint' occurs multiple times"),
            ((rpc.param('bitmap', 4, rpc.u64(1)),),
             "invalid type 'ullong' for parameter 'bitmap', expected 'string'"),
            ((rpc.param('finish', 6, rpc.u32(1)),), "parameter 'finish' needs parameter"),
            ((bitmap,), "parameter 'bitmap' needs flag")):
        code, _, message, _ = copy(ours, *params)
        assert code == libvirt.VIR_ERR_INVALID_ARG and why in message, message
    nobody = '00000000-0000-0000-0000-000000000001'
    assert copy(ours, checkpoint, uuid=nobody) == copy(stock, uuid=nobody)
    assert copy(ours, checkpoint, flags=1 << 20) == copy(stock, flags=1 << 20)
    # What cannot be decoded is libvirt's to answer.
    for procedure in (9, 231, 345, 411, 412, 413, 414, 415, 416, 417):
        assert ours.call(procedure, rpc.u32(9)) == stock.call(procedure, rpc.u32(9))
    stock.close()
    ours.close()


def test_the_event_comes_before_the_answer(host):
    """The end of an aborted mirror is told first, then the abort is answered."""
    vm = VM(host, disks={'vda': 16 * MIB})
    vm.write(0, 8 * MIB, 1)
    host.start_daemon()
    client = rpc.Client(host.front, host.uri().split('?')[0])
    dom = rpc.domain(vm.uuid)
    status, reply = client.call(316, rpc.u32(16) + rpc.u32(1) + dom)
    assert status == 0
    callback = rpc.Reader(reply).number()
    status, reply = client.call(345, dom + rpc.text('vda') + rpc.text(
        target_xml(os.path.join(host.images, 'copy.qcow2'))) + rpc.u32(2) +
        rpc.param('checkpoint', 7, rpc.text('c')) +
        rpc.param('bandwidth', 4, rpc.u64(MIB)) + rpc.u32(0))
    assert status == 0, rpc.error(reply)
    abort = client.send(237, dom + rpc.text('vda') + rpc.u32(0))
    procedure, kind, serial, status, payload = client.receive()
    assert (procedure, kind, serial, status) == (339, rpc.MESSAGE, 1, 0)
    event = rpc.Reader(payload)
    assert event.number() == callback
    assert event.domain() == ('vm', vm.dom.ID())
    assert (event.text(), event.number(), event.number()) == ('vda', 2, 2)
    assert client.receive()[:4] == (237, rpc.REPLY, abort, 0)
    client.close()
