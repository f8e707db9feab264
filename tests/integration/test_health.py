"""checkpoint-check: what is said of each kind of damage, and that it mends it."""

import glob
import hashlib
import json
import os
import shutil

import libvirt
import libvirt_qemu

from lib import images, jobs, paths, store
from lib.domain import MIB, VM, qemu_img
from lib.host import Failure, wait_for
from lib.oracle import Oracle
from lib.runner import limit

DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}


def oracle_of(host, **options):
    host.start_daemon()
    return Oracle(host, VM(host, disks=DISKS, **options), host.random)


def command(dom, name, **arguments):
    """One of the daemon's monitor commands, as any binding sends it."""
    reply = libvirt_qemu.qemuMonitorCommand(
        dom, json.dumps({'execute': f'virtcheckpoint-{name}', 'arguments': arguments}), 0)
    return json.loads(reply)['return']


def check(oracle):
    return command(oracle.dom, 'check')


def virsh(host, *args):
    """checkpoint-check as a user types it: (exit status, output)."""
    done = host.virsh('checkpoint-check', *args, ours=True, program=paths.VIRSH, check=False)
    return done.returncode, done.stdout + done.stderr


def told(report):
    """What is said to be wrong: (what, disk, checkpoint) each."""
    return sorted((p['problem'], p.get('disk', ''), p.get('checkpoint', ''))
                  for p in report['problems'])


def of(report, target):
    """checkpoint -> what is said of it, of one disk."""
    disk = [d for d in report['disks'] if d['disk'] == target]
    return {c['checkpoint']: c for c in disk[0]['checkpoints']} if disk else {}


def state(oracle):
    """Everything that a check could change."""
    found = {}
    for path in glob.glob(os.path.join(store.folder(oracle.host, oracle.vm), '*')):
        with open(path, 'rb') as file:
            found[path] = (os.stat(path).st_mtime_ns, hashlib.sha256(file.read()).digest())
    if oracle.running():
        found['bitmaps'] = sorted(oracle.vm.all_bitmaps())
        found['stray'] = oracle.vm.stray()
    else:
        for disk in oracle.vm.disks.values():
            found[disk.path] = os.stat(disk.path).st_mtime_ns
    return found


def test_healthy_on_and_off(host):
    """A sound domain: exit status 0, each part of each checkpoint, nothing changed."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.vm.write(0, 3 * 65536, 1)
    oracle.create(['vda'])
    oracle.vm.write(65536, 512, 2)
    for running in (True, False):
        if not running:
            oracle.stop_guest()
        before = state(oracle)
        report = check(oracle)
        assert report['health'] == 'healthy' and not report['problems'], report
        assert report['running'] == running
        vda, vdb = of(report, 'vda'), of(report, 'vdb')
        assert list(vda) == ['c2', 'c1'] and list(vdb) == ['c1'], report
        assert vda['c1']['changed'] == 3 * 65536 and vda['c2']['changed'] == 65536, vda
        assert [s['good'] for s in vda['c1']['sidecars']] == [True], vda
        status, text = virsh(host, 'vm')
        assert status == 0 and 'healthy' in text and 'records, 64.0 KiB' in text, text
        assert state(oracle) == before


def test_exit_statuses(host):
    """0 healthy, 1 cannot tell, 2 wrong; stock's daemon, a wrong word, a wrong name: 1."""
    oracle = oracle_of(host)
    assert virsh(host, 'vm')[0] == 0
    oracle.create(['vda', 'vdb'])
    assert virsh(host, 'vm')[0] == 0
    oracle.vm.transaction(('block-dirty-bitmap-add', {
        'node': oracle.vm.top(), 'name': 'virtcheckpoint.' + 'a' * 32}))
    status, text = virsh(host, 'vm')
    assert status == 2 and 'mend with: virsh checkpoint-check vm --repair' in text, text
    oracle.stop_guest()
    os.rename(oracle.vm.disks['vdb'].path, oracle.vm.disks['vdb'].path + '.away')
    status, text = virsh(host, 'vm')
    assert status == 1 and 'vdb: cannot look into the disk' in text, text
    assert of(check(oracle), 'vda')['c1']['health'] == 'healthy'
    os.rename(oracle.vm.disks['vdb'].path + '.away', oracle.vm.disks['vdb'].path)
    status, text = virsh(host, 'nosuch')
    assert status == 1 and "failed to get domain 'nosuch'" in text, text
    assert virsh(host, 'vm', '--nosuch')[0] == 1
    status, text = virsh(host, 'vm', '--json')
    assert status == 0 and json.loads(text)['health'] == 'healthy', text


def test_rights_are_those_of_a_monitor_command(host):
    """A read-only connection is refused as libvirt refuses; others' commands pass."""
    oracle = oracle_of(host)
    assert oracle.vm.qmp('query-version')
    reply = libvirt_qemu.qemuMonitorCommand(oracle.dom, '{"execute":"query-version"}', 0)
    assert 'qemu' in json.loads(reply)['return'], reply
    done = host.virsh('-r', 'checkpoint-check', 'vm', ours=True, program=paths.VIRSH,
                      check=False)
    assert done.returncode == 1 and 'read only access prevents' in done.stderr, done
    try:
        command(oracle.dom, 'nosuch')
        raise Failure('an unknown command was answered')
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
    oracle.stop_guest()
    assert command(oracle.dom, 'check')['health'] == 'healthy'


def test_killed_qemu_is_told_before_and_after_it_is_settled(host):
    """The lost segment: which checkpoints of which disk, while off and when on again."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(3)
    oracle.create(['vda'])
    oracle.write(3)
    oracle.vm.kill_qemu()
    mend = 'virsh checkpoint-check vm --heal --disk vda --against REPLICA.xml'
    for restart in (False, True):
        if restart:
            oracle.vm.start(oracle.dom)
            wait_for(lambda: len(oracle.vm.bitmaps()) == 1, 'tracking starts anew')
        report = check(oracle)
        assert ('lost', 'vda', 'c2') in told(report), report
        assert ('lost', 'vdb', 'c1') in told(report), report
        assert report['health'] == 'wrong'
        assert mend in [p.get('command') for p in report['problems']], report
        assert {c['health'] for c in of(report, 'vda').values()} == {'wrong'}
        status, text = virsh(host, 'vm')
        assert status == 2 and mend in text, text
    try:
        oracle.finish(oracle.moments[0], 'vda')
        raise Failure('changes that are lost were copied')
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT or \
                mend not in str(error):
            raise
    oracle.moments = []
    name = oracle.create(['vda', 'vdb'])
    oracle.write(3)
    oracle.finish(oracle.moments[0], 'vda')
    assert of(check(oracle), 'vda')[name]['health'] == 'healthy'


def replica_xml(path, fmt='qcow2'):
    return (f"<disk type='file'><driver type='{fmt}'/><source file='{path}'/></disk>")


def keep(oracle, target, moment, fmt='qcow2'):
    """A kept copy: the disk as of that moment, made by somebody else."""
    path = os.path.join(oracle.host.images, f'kept-{target}-{moment.name}.{fmt}')
    images.write_image(path, moment.models[target], fmt)
    return path


def heal_start(oracle, target, path, checkpoint=None, fmt='qcow2'):
    arguments = {'disk': target, 'against': replica_xml(path, fmt)}
    if checkpoint:
        arguments['checkpoint'] = checkpoint
    command(oracle.dom, 'heal', **arguments)


def heal_end(oracle, target):
    """How the heal ended: its last state."""
    def over():
        state = command(oracle.dom, 'query-heal', disk=target)
        return state if state['state'] != 'running' else None
    return wait_for(over, 'the heal is over')


def heal(oracle, target, path, checkpoint=None, fmt='qcow2'):
    heal_start(oracle, target, path, checkpoint, fmt)
    state = heal_end(oracle, target)
    assert state['state'] == 'completed', state
    assert state['done'] == state['total'] == oracle.vm.disks[target].size, state
    return state


def lose(oracle):
    """QEMU is killed and started again; tracking has begun anew."""
    oracle.vm.kill_qemu()
    oracle.vm.start(oracle.dom)
    wait_for(lambda: len(oracle.vm.bitmaps()) == 1, 'tracking starts anew')


def resync(oracle):
    """After a crash the guest reads what the image holds, not all that it wrote."""
    for target, disk in oracle.vm.disks.items():
        raw = os.path.join(oracle.host.work, f'{target}.raw')
        qemu_img('convert', '-U', '-O', 'raw', disk.path, raw)
        with open(raw, 'rb') as file:
            data = file.read()
        disk.model.sectors = bytearray(data[::512])
        images.expect_content(disk.path, disk.model, 'after the crash', force=True)


def incremental_from_all(oracle, target):
    """A finished copy onto a kept image of each checkpoint is the disk, byte for byte."""
    for moment in [m for m in oracle.moments if target in m.models]:
        oracle.finish(moment, target)


def test_heal_makes_all_checkpoints_usable(host):
    """Lost changes found again: each checkpoint of the disk, older and newer, copies
    right, whichever older replica was compared, and the other disk is left alone."""
    oracle = oracle_of(host)
    for _ in range(3):
        oracle.create(['vda', 'vdb'])
        oracle.write(5)
    kept = [keep(oracle, 'vda', moment) for moment in oracle.moments]
    lose(oracle)
    resync(oracle)
    oracle.write(5)
    state = heal(oracle, 'vda', kept[0], 'c1')
    assert {c['health'] for c in of(check(oracle), 'vda').values()} == {'healthy'}
    assert {c['health'] for c in of(check(oracle), 'vdb').values()} == {'wrong'}
    assert 0 < state['differing'] < oracle.vm.disks['vda'].size
    oracle.create(['vda', 'vdb'])
    oracle.write(5)
    incremental_from_all(oracle, 'vda')


def test_heal_needs_no_name_for_a_replica_of_ours(host):
    """The replica that a copy with a checkpoint left, untouched, by virsh, as typed."""
    oracle = oracle_of(host)
    oracle.create(['vda'])
    oracle.write(4)
    path = os.path.join(host.images, 'replica.qcow2')
    name = oracle._name()
    oracle.about_to_create(name, ['vda'])
    jobs.start_copy(oracle.dom, 'vda', path, None, name, True)
    jobs.wait_end(oracle.events, oracle.dom, 'vda')
    oracle.moments.append(oracle.creating)
    oracle.write(4)
    lose(oracle)
    resync(oracle)
    xml = os.path.join(host.work, 'replica.xml')
    with open(xml, 'w') as out:
        out.write(replica_xml(path))
    status, text = virsh(host, 'vm', '--heal', '--disk', 'vda', '--against', xml)
    assert status == 0 and 'healthy' in text, text
    incremental_from_all(oracle, 'vda')
    lose(oracle)
    resync(oracle)
    with open(path, 'r+b') as file:
        file.write(b'QFI')
    status, text = virsh(host, 'vm', '--heal', '--disk', 'vda', '--against', xml)
    assert status == 1 and 'was written to since' in text, text
    status, text = virsh(host, 'vm', '--heal', '--disk', 'vda', '--against', xml,
                         '--checkpoint', name)
    assert status == 0, text
    incremental_from_all(oracle, 'vda')


def test_heal_while_the_guest_writes_all_the_time(host):
    """Large clusters, a compressed replica, writes before, during and after the
    comparison, a checkpoint in between: nothing is missed."""
    held = os.path.join(host.work, 'go-on')
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'heal/begun=hold:{held}'})
    vm = VM(host, disks=DISKS, create_options=('-o', 'cluster_size=512k'))
    oracle = Oracle(host, vm, host.random)
    oracle.write(6)
    oracle.create(['vda'])
    oracle.write(4)
    oracle.create(['vda'])
    oracle.write(4)
    kept = keep(oracle, 'vda', oracle.moments[0])
    small = kept + '.small'
    qemu_img('convert', '-c', '-O', 'qcow2', kept, small)
    lose(oracle)
    resync(oracle)
    oracle.write(4)
    heal_start(oracle, 'vda', small, 'c1')
    oracle.write(6)
    oracle.create(['vda'])
    oracle.write(6)
    with open(held, 'w'):
        pass
    oracle.write(6)
    assert heal_end(oracle, 'vda')['state'] == 'completed'
    oracle.write(2)
    incremental_from_all(oracle, 'vda')


def test_heal_of_a_guest_that_is_off(host):
    """Lost and healed while off, against a raw replica; then it starts and goes on."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(4)
    oracle.create(['vda', 'vdb'])
    oracle.write(4)
    oracle.vm.kill_qemu()
    resync(oracle)
    for target in ('vda', 'vdb'):
        heal(oracle, target, keep(oracle, target, oracle.moments[0], 'raw'), 'c1', 'raw')
    assert check(oracle)['health'] == 'healthy', check(oracle)
    incremental_from_all(oracle, 'vdb')
    oracle.vm.start(oracle.dom)
    oracle.write(4)
    oracle.check(copies=True)
    incremental_from_all(oracle, 'vda')


def refused(code, text, call, *args):
    try:
        call(*args)
    except libvirt.libvirtError as error:
        if error.get_error_code() != code or text not in error.get_error_message():
            raise Failure(f'{error.get_error_code()}: {error}') from error
        return
    raise Failure(f'no error {code} with "{text}"')


def test_what_heal_refuses(host):
    """Whatever could put too little into the lost segment, before anything is read."""
    oracle = oracle_of(host)
    invalid, wrong = libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_OPERATION_INVALID
    for _ in range(2):
        oracle.create(['vda'])
        oracle.write(4)
    first = keep(oracle, 'vda', oracle.moments[0])
    refused(wrong, "no changes of disk 'vda' are lost", heal_start, oracle, 'vda', first,
            'c1')
    lose(oracle)
    oracle.create(['vda'])
    image = oracle.vm.disks['vda'].path
    refused(invalid, 'after the loss', heal_start, oracle, 'vda', first, 'c3')
    refused(invalid, 'say with', heal_start, oracle, 'vda', first)
    refused(invalid, 'itself', heal_start, oracle, 'vda', image, 'c1')
    refused(invalid, 'not found', heal_start, oracle, 'vdx', first, 'c1')
    refused(wrong, 'no checkpoint covers', heal_start, oracle, 'vdb', first, 'c1')
    refused(libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT, "'c9'", heal_start, oracle, 'vda', first,
            'c9')
    short = os.path.join(host.images, 'short.qcow2')
    qemu_img('create', '-q', '-f', 'qcow2', short, str(MIB))
    refused(invalid, 'bytes', heal_start, oracle, 'vda', short, 'c1')
    lose(oracle)
    refused(invalid, 'lost twice', heal_start, oracle, 'vda', first, 'c1')
    # Two losses: the later one by a replica from between them, then the earlier one.
    resync(oracle)
    assert state(oracle)
    oracle.moments = oracle.moments[:2]
    oracle.dom.checkpointLookupByName('c3').delete(0)
    heal(oracle, 'vda', first, 'c1')
    incremental_from_all(oracle, 'vda')


def test_a_loss_while_it_is_healed(host):
    """QEMU dies in the middle: the heal fails, says so, and the next one works."""
    held = os.path.join(host.work, 'go-on-after-a-loss')
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'heal/begun=hold:{held}'})
    oracle = Oracle(host, VM(host, disks=DISKS), host.random)
    oracle.create(['vda'])
    oracle.write(4)
    first = keep(oracle, 'vda', oracle.moments[0])
    lose(oracle)
    heal_start(oracle, 'vda', first, 'c1')
    refused(libvirt.VIR_ERR_OPERATION_INVALID, 'being healed already', heal_start, oracle,
            'vda', first, 'c1')
    lose(oracle)
    resync(oracle)
    with open(held, 'w'):
        pass
    failed = heal_end(oracle, 'vda')
    assert failed['state'] == 'failed' and 'lost once more' in failed['error'], failed
    assert of(check(oracle), 'vda')['c1']['health'] == 'wrong'
    os.unlink(held)
    heal_start(oracle, 'vda', first, 'c1')
    command(oracle.dom, 'cancel-heal', disk='vda')
    with open(held, 'w'):
        pass
    assert heal_end(oracle, 'vda')['state'] == 'cancelled'
    heal(oracle, 'vda', first, 'c1')
    incremental_from_all(oracle, 'vda')


# Damage: done behind the daemon's back, told by check, mended by the command it names.
# Each returns what must be told: (problem, disk, checkpoint), and 'repair' or 'heal'.

def folder_file(oracle, name):
    return os.path.join(store.folder(oracle.host, oracle.vm), name)


def sidecar(oracle, name):
    return folder_file(oracle, record(oracle, name).segments['vda'].sidecars[0])


def record(oracle, name):
    return {r.name: r for r in store.records(oracle.host, oracle.vm)}[name]


def record_path(oracle, name):
    for path in glob.glob(folder_file(oracle, '*.checkpoint.xml')):
        if store.Record(path).name == name:
            return path
    raise Failure(f'no record of {name}')


def stray_bitmap(oracle):
    oracle.vm.transaction(('block-dirty-bitmap-add', {
        'node': oracle.vm.top(), 'name': 'virtcheckpoint.' + 'a' * 32}))
    oracle.vm.write(MIB, 65536, 7)
    return ('stray-bitmap', 'vda', ''), 'repair'


def orphan_sidecar(oracle):
    shutil.copy(sidecar(oracle, 'c1'), folder_file(oracle, 'f' * 32 + '.1.qcow2'))
    return ('unneeded-file', '', ''), 'repair'


def truncated_sidecar(oracle):
    os.truncate(sidecar(oracle, 'c2'), 4096)
    return ('bad-sidecar', 'vda', 'c2'), 'heal'


def removed_sidecar(oracle):
    os.unlink(sidecar(oracle, 'c2'))
    return ('bad-sidecar', 'vda', 'c2'), 'heal'


def swapped_sidecar(oracle):
    """Whole, but another checkpoint's; a copy since it is refused."""
    shutil.copy(sidecar(oracle, 'c1'), sidecar(oracle, 'c2'))
    path = oracle.path('refused')
    images.write_image(path, oracle.moments[1].models['vda'])
    try:
        jobs.start_copy(oracle.dom, 'vda', path, 'c2', None, True)
    except libvirt.libvirtError as error:
        assert os.path.basename(sidecar(oracle, 'c2')) in str(error), error
        return ('bad-sidecar', 'vda', 'c2'), 'heal'
    raise Failure('bits of another checkpoint were taken')


def removed_bitmap(oracle):
    name = list(oracle.vm.bitmaps())[0]
    oracle.vm.qmp('block-dirty-bitmap-remove', node=oracle.vm.top(), name=name)
    return ('lost', 'vda', oracle.moments[-1].name), 'heal'


def unreadable_record(oracle):
    with open(record_path(oracle, 'c2'), 'w') as file:
        file.write('<virtcheckpoint')
    return ('bad-record', '', ''), 'repair'


def removed_record(oracle):
    os.unlink(record_path(oracle, 'c2'))
    return ('gap', '', 'c1'), 'repair'


def mend(oracle, how, first):
    """What the report said, to the letter, with the replica's name put in."""
    report = check(oracle)
    problem = [p for p in report['problems'] if how in p.get('command', '')][0]
    words = problem['command'].split()[2:]
    if how == 'heal':
        xml = os.path.join(oracle.host.work, 'replica.xml')
        with open(xml, 'w') as out:
            out.write(replica_xml(first))
        words = [xml if w == 'REPLICA.xml' else w for w in words] + ['--checkpoint', 'c1']
    return virsh(oracle.host, *words)


@limit(240)
def test_each_damage_is_told_and_mended(host):
    """Check names disk, checkpoint and command; that command, as it stands, mends it;
    afterwards copies since each checkpoint are right."""
    damages = [stray_bitmap, orphan_sidecar, truncated_sidecar, removed_sidecar,
               swapped_sidecar, removed_bitmap, unreadable_record, removed_record]
    host.start_daemon()
    for number, damage in enumerate(damages if host.all else
                                    host.random.sample(damages, 4)):
        oracle = Oracle(host, VM(host, f'vm{number}', DISKS), host.random)
        for _ in range(4):
            oracle.create(['vda'])
            oracle.write(3)
            oracle.vm.write(0, 65536, len(oracle.moments))
        first = keep(oracle, 'vda', oracle.moments[0])
        oracle.say(damage.__name__)
        (problem, disk, checkpoint), how = damage(oracle)
        found = told(check(oracle))
        assert (problem, disk, checkpoint) in found, (damage.__name__, found)
        status, text = mend(oracle, how, first)
        if problem in ('bad-record', 'gap'):
            assert status == 2 and ('lost', 'vda', 'c1') in told(check(oracle)), text
            status, text = mend(oracle, 'heal', first)
            oracle.moments = [m for m in oracle.moments if m.name != 'c2']
        assert status == 0, (damage.__name__, text)
        incremental_from_all(oracle, 'vda')
        assert check(oracle)['health'] == 'healthy', check(oracle)
        oracle.vm.destroy()


def test_repair_of_a_guest_that_is_off(host):
    """A stray bitmap in an image at rest: merged, removed; a healthy domain stays so."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(3)
    stray_bitmap(oracle)
    oracle.vm.qmp('block-dirty-bitmap-remove', node=oracle.vm.top(),
                  name='virtcheckpoint.' + 'a' * 32)
    oracle.stop_guest()
    disk = oracle.vm.disks['vda'].path
    qemu_img('bitmap', '--add', disk, 'virtcheckpoint.' + 'a' * 32)
    assert ('stray-bitmap', 'vda', '') in told(check(oracle))
    status, text = virsh(host, 'vm', '--repair')
    assert status == 0 and 'Repaired:' in text, text
    assert len(images.bitmaps(disk)) == 1
    before = state(oracle)
    assert virsh(host, 'vm', '--repair')[0] == 0
    assert {k: v for k, v in state(oracle).items() if k.endswith('.xml')} == \
        {k: v for k, v in before.items() if k.endswith('.xml')}
    oracle.start_guest()
    oracle.check(copies=True)


def test_checkpoints_of_libvirts_own_are_named_and_left_alone(host):
    """They are no problem, and neither check nor repair touches them."""
    oracle = oracle_of(host)
    oracle.create(['vda'])
    oracle.vm.dom.checkpointCreateXML('<domaincheckpoint><name>theirs</name>'
                                      '</domaincheckpoint>', 0)
    report = check(oracle)
    assert report['health'] == 'healthy' and report['libvirt'] == ['theirs'], report
    status, text = virsh(host, 'vm', '--repair')
    assert status == 0 and "libvirt's own: theirs" in text, text
    assert [c.getName() for c in oracle.vm.dom.listAllCheckpoints()] == ['theirs']
    assert 'theirs' in oracle.vm.bitmaps(ours=False)


HEAL_POINTS = ('heal/planned', 'flush/attached', 'flush/done', 'heal/opened', 'heal/begun',
               'heal/scanned', 'sidecar/filled', 'heal/written', 'heal/saved')
REPAIR_POINTS = (('repair/lost', removed_record), ('repair/linked', removed_record),
                 ('repair/set-aside', unreadable_record), ('repair/stray', stray_bitmap))


def stopped(host, oracle, point, act, *args):
    """Acts with a daemon that ends at the point; a plain one runs afterwards."""
    host.stop_daemon()
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'{point}=exit'})
    oracle.connect()
    try:
        act(*args)
    except libvirt.libvirtError:
        pass
    wait_for(lambda: not host.daemon_running(), f'the daemon ends at {point}')
    host.wait_daemon()
    host.start_daemon()
    oracle.connect()


@limit(300)
def test_heal_stopped_anywhere(host):
    """A daemon that dies while it heals leaves a lost segment or a healed one, and the
    same command again heals it."""
    oracle = oracle_of(host)
    for _ in range(2):
        oracle.create(['vda'])
        oracle.write(3)
    first = keep(oracle, 'vda', oracle.moments[0])
    for point in HEAL_POINTS if host.all else host.random.sample(HEAL_POINTS, 3):
        oracle.say(point)
        lose(oracle)
        resync(oracle)
        stopped(host, oracle, point, heal_start, oracle, 'vda', first, 'c1')
        oracle.write(2)
        if check(oracle)['health'] != 'healthy':
            assert {what for what, _, _ in told(check(oracle))} == {'lost'}, check(oracle)
            heal(oracle, 'vda', first, 'c1')
        assert check(oracle)['health'] == 'healthy', check(oracle)
        assert not oracle.vm.stray(), oracle.vm.stray()
        incremental_from_all(oracle, 'vda')


@limit(300)
def test_repair_stopped_anywhere(host):
    """The same of a repair; what was called lost stays lost until it is healed."""
    host.start_daemon()
    points = REPAIR_POINTS if host.all else host.random.sample(REPAIR_POINTS, 2)
    for number, (point, damage) in enumerate(points):
        oracle = Oracle(host, VM(host, f'vm{number}', DISKS), host.random)
        for _ in range(3):
            oracle.create(['vda'])
            oracle.write(3)
        first = keep(oracle, 'vda', oracle.moments[0])
        damage(oracle)
        stopped(host, oracle, point, lambda dom=oracle: command(dom.dom, 'repair'))
        command(oracle.dom, 'repair')
        if damage is not stray_bitmap:
            assert ('lost', 'vda', 'c1') in told(check(oracle)), check(oracle)
            heal(oracle, 'vda', first, 'c1')
            oracle.moments = [m for m in oracle.moments if m.name != 'c2']
        assert check(oracle)['health'] == 'healthy', check(oracle)
        incremental_from_all(oracle, 'vda')
        oracle.vm.destroy()
