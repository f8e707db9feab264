"""checkpoint-check: what is said of each kind of damage, and that it mends it."""

import glob
import hashlib
import json
import os

import libvirt
import libvirt_qemu

from lib import paths, store
from lib.domain import MIB, VM
from lib.host import Failure, wait_for
from lib.oracle import Oracle

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
