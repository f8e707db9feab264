"""Backups through us: libvirt runs them, from checkpoints of ours."""

import os
import signal
import subprocess
import threading
import time

import libvirt

from lib import jobs, store
from lib.backups import Backup
from lib.domain import CLUSTER, MIB, VM
from lib.faults import Sweep
from lib.host import Failure, wait_for
from lib.oracle import Oracle
from lib.runner import Skip, limit, sample

DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}


def oracle_of(host, disks=None, **options):
    host.start_daemon()
    return Oracle(host, VM(host, disks=disks or DISKS, **options), host.random)


def expect_error(code, text, call, *args):
    try:
        call(*args)
    except libvirt.libvirtError as error:
        if (code is not None and error.get_error_code() != code) or \
                text not in error.get_error_message() or 'virtcheckpoint.' in str(error):
            raise Failure(f'{error.get_error_code()}: {error}') from error
        return
    raise Failure(f'no error {code} with "{text}"')


def chain(oracle, count):
    for _ in range(count):
        oracle.create(sorted(oracle.vm.disks))
        oracle.write(3)


def backup(oracle, **options):
    return Backup(oracle.vm, oracle.dom, **options)


def stock_checkpoints(oracle):
    """What libvirt itself knows, seen past us."""
    return [c.getName() for c in oracle.vm.dom.listAllCheckpoints()]


def at_rest(oracle):
    oracle.check()
    assert stock_checkpoints(oracle) == [], stock_checkpoints(oracle)


def test_full_backups(host):
    """Pull and push in full, as stock."""
    oracle = oracle_of(host)
    oracle.write(5)
    for push in (False, True):
        backup(oracle, push=push).begin().end()
        backup(oracle, push=push, disks=['vdb']).begin().end()
    at_rest(oracle)


def test_incremental_since_any(host):
    """Every checkpoint is a base, again and again, pull and push."""
    oracle = oracle_of(host)
    oracle.write(4)
    chain(oracle, 4)
    for moment in list(oracle.moments) * 2:
        for push in (False, True):
            one = backup(oracle, since=moment.name, push=push).begin()
            if not push:
                assert one.shown() == {moment.name}, one.shown()
            oracle.check_list()
            assert stock_checkpoints(oracle) == []
            one.end(moment.models)
        oracle.write(2)
    at_rest(oracle)


def test_each_disk_since_its_own(host):
    """Per disk another base, one in full, one left out."""
    oracle = oracle_of(host, {'vda': 16 * MIB, 'vdb': 4 * MIB, 'vdc': 4 * MIB})
    chain(oracle, 3)
    first, _, last = oracle.moments
    bases = {'vda': first.models['vda'], 'vdb': last.models['vdb']}
    for push in (False, True):
        one = backup(oracle, since={'vda': first.name, 'vdb': last.name}, push=push)
        one.begin()
        if not push:
            assert one.shown() == {first.name, last.name}, one.shown()
        one.end(bases)
    one = backup(oracle, since=first.name, disks=['vdb']).begin()
    one.end(first.models)
    at_rest(oracle)


def with_checkpoint(oracle, name, since=None, push=False, disks=None):
    """A backup that makes checkpoint name of all disks or of some."""
    targets = disks or sorted(oracle.vm.disks)
    oracle.about_to_create(name, targets)
    one = backup(oracle, since=since, checkpoint=name, push=push, checkpoint_disks=disks)
    one.begin()
    oracle.moments.append(oracle.creating)
    return one


@sample
def test_checkpoint_in_the_same_call(host):
    """A chain of backups, each with its checkpoint: each is ours, with one bitmap."""
    oracle = oracle_of(host)
    oracle.write(4)
    with_checkpoint(oracle, 'b0').end()
    for number in range(1, 5):
        oracle.write(3)
        base = oracle.moments[-1]
        one = with_checkpoint(oracle, f'b{number}', since=base.name, push=number % 2 == 0)
        oracle.write(2)
        oracle.check_list()
        oracle.check_sets()
        one.end(base.models)
        at_rest(oracle)
    names = [c.getName() for c in oracle.dom.listAllCheckpoints(
        libvirt.VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL)]
    assert names == ['b0', 'b1', 'b2', 'b3', 'b4'], names
    oracle.check(copies=True)


def test_checkpoint_of_some_disks(host):
    """The checkpoint's disks are its own, not the backup's; names are checked."""
    oracle = oracle_of(host)
    with_checkpoint(oracle, 'b0', disks=['vdb']).end()
    oracle.write(3)
    with_checkpoint(oracle, 'b1', disks=['vda']).end()
    at_rest(oracle)
    one = backup(oracle, checkpoint='b1')
    expect_error(libvirt.VIR_ERR_OPERATION_FAILED, 'b1 already exists', one.begin)
    one = backup(oracle, checkpoint='b2', checkpoint_disks=['vdz'])
    one.checkpoint_xml = lambda: ("<domaincheckpoint><name>b2</name><disks>"
                                  "<disk name='vdz'/></disks></domaincheckpoint>")
    expect_error(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "no disk named 'vdz'", one.begin)
    assert not one.running()
    at_rest(oracle)


def slow_down(vm):
    """The backup's job, as soon as QEMU has it."""
    def slowed():
        ids = [job['id'] for job in vm.qmp('query-jobs') if job['type'] == 'backup']
        for job in ids:
            vm.qmp('block-job-set-speed', device=job, speed=MIB)
        return ids
    wait_for(slowed, 'the job is slow', 30, 0.001)


def test_looking_up_during_a_push(host):
    """Its end decides about its checkpoint, so each look asks whether it ended: libvirt
    alone, not QEMU."""
    host.start_daemon()
    oracle = Oracle(host, VM(host, disks={'vda': 1280 * MIB}), host.random)
    oracle.vm.write(0, 1024 * MIB, 7)
    slow = threading.Thread(target=slow_down, args=(oracle.vm,))
    slow.start()
    one = with_checkpoint(oracle, 'b0', push=True)
    slow.join()
    assert one.running()

    def looks():
        oracle.dom.checkpointLookupByName('b0')
        assert [c.getName() for c in oracle.dom.listAllCheckpoints()] == ['b0']
    looks()
    with open(host.qmp_log) as log:
        before = log.read()
    began = time.monotonic()
    for _ in range(20):
        looks()
    print(f'#   {(time.monotonic() - began) * 25:.1f} ms a look', flush=True)
    with open(host.qmp_log) as log:
        assert log.read() == before
    assert one.running()
    oracle.moments.pop()
    one.abort()
    assert not oracle.dom.listAllCheckpoints()


def small_folder(host):
    """On a file system that is full at once."""
    if not host.system:
        raise Skip('needs root: a small file system')
    path = os.path.join(host.work, 'full')
    os.makedirs(path, exist_ok=True)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=256k', 'none', path], check=True)
    return path


def reached(host, point):
    try:
        with open(os.path.join(host.logs, 'points.log')) as file:
            return point in file.read().split()
    except FileNotFoundError:
        return False


def test_failed_push_takes_its_checkpoint_back(host):
    """Aborted, out of space, guest stopped or killed: no window is skipped."""
    oracle = oracle_of(host)
    chain(oracle, 1)
    full = small_folder(host)
    for end in ('full', 'stop', 'kill'):
        oracle.vm.write(0, 4 * MIB, 7)
        oracle.about_to_create('gone', sorted(oracle.vm.disks))
        one = backup(oracle, since='c1', checkpoint='gone', push=True)
        one.paths['vda'] = os.path.join(full, 'target.qcow2')
        one.begin()
        if end == 'full':
            one.wait()
            wait_for(lambda: 'gone' not in listed(oracle), 'the checkpoint goes')
            oracle.check()
        elif end == 'stop':
            oracle.vm.destroy()
            wait_for(lambda: 'gone' not in listed(oracle), 'the checkpoint goes')
            oracle.vm.start()
            oracle.check()
        else:
            oracle.vm.kill_qemu()
            wait_for(lambda: 'gone' not in listed(oracle), 'the checkpoint goes')
            oracle.vm.start()
        one.clean()
    assert stock_checkpoints(oracle) == []


def test_another_push_is_not_ours(host):
    """Ours fails while we do not look; what somebody's past us did before and after it is
    not taken for its end."""
    go = os.path.join(host.images, 'go')
    host.daemon_env = {'VIRT_CHECKPOINT_FAULTS': f'backup/running=hold:{go}',
                       'VIRT_CHECKPOINT_FAULTS_LOG': os.path.join(host.logs, 'points.log')}
    oracle = oracle_of(host)
    chain(oracle, 1)
    oracle.vm.write(0, 8 * MIB, 7)
    stock = Backup(oracle.vm, oracle.vm.dom, push=True).begin()
    stock.wait()
    stock.clean()
    one = backup(oracle, since='c1', checkpoint='gone', push=True)
    one.paths['vda'] = os.path.join(small_folder(host), 'target.qcow2')
    begin = jobs.Later(one.begin)
    wait_for(lambda: reached(host, 'backup/running'), 'ours was begun')
    one.wait()
    stock = Backup(oracle.vm, oracle.vm.dom, push=True).begin()
    stock.wait()
    stock.clean()
    with open(go, 'w'):
        pass
    begin.join()
    wait_for(lambda: 'gone' not in listed(oracle), 'the checkpoint goes')
    at_rest(oracle)


def listed(oracle):
    return [c.getName() for c in oracle.dom.listAllCheckpoints()]


def test_broken_chain_refuses_that_disk_only(host):
    """After QEMU's death the disk says so; the others are backed up from it all the same,
    and so is it, in full."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(3)
    # Only the disk whose newest segment is the first one's loses it for that checkpoint.
    oracle.vm.restart()
    oracle.create(['vda'])
    first, second = oracle.moments
    oracle.vm.kill_qemu()
    oracle.vm.start()
    for name, disks in ((first.name, ['vda']), (first.name, ['vdb']), (second.name, ['vda'])):
        expect_error(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, f"disk '{disks[0]}'",
                     backup(oracle, since=name, disks=disks).begin)
    expect_error(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, "'vdb'",
                 backup(oracle, since=second.name, disks=['vdb']).begin)
    oracle.moments = []
    oracle.create(['vdb'])
    third = oracle.moments[-1]
    oracle.vm.write(0, 3 * CLUSTER, 9, target='vdb')
    expect_error(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, "'vda'",
                 backup(oracle, since=third.name).begin)
    one = backup(oracle, since={'vdb': third.name}).begin()
    one.end(third.models)
    one = backup(oracle, since=third.name, disks=['vdb'], push=True).begin()
    one.end(third.models)
    assert stock_checkpoints(oracle) == []


def test_refused_by_libvirt(host):
    """What libvirt refuses leaves nothing, and speaks of the client's names."""
    oracle = oracle_of(host)
    chain(oracle, 2)
    one = backup(oracle, since='c1', checkpoint='b1')
    one.xml = lambda: one.__class__.xml(one).replace("transport='unix'",
                                                     "transport='none'")
    expect_error(None, '', one.begin)
    expect_error(libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT, "'nobody'",
                 backup(oracle, since='nobody').begin)
    running = backup(oracle, since='c1').begin()
    expect_error(None, 'already', backup(oracle, since='c2', checkpoint='b1').begin)
    running.end(oracle.moments[0].models)
    at_rest(oracle)


def test_stock_checkpoints_are_passed_on(host):
    """A base that libvirt made itself, past us; its checkpoints are left alone."""
    oracle = oracle_of(host)
    oracle.vm.dom.checkpointCreateXML(
        '<domaincheckpoint><name>theirs</name></domaincheckpoint>', 0)
    base = {t: d.model.copy() for t, d in oracle.vm.disks.items()}
    oracle.write(3)
    one = backup(oracle, since='theirs').begin()
    assert one.shown() == {'theirs'}
    one.end(base)
    with_checkpoint(oracle, 'b1', since='theirs').end(base)
    oracle.write(3)
    both = {'vda': 'theirs', 'vdb': 'b1'}
    one = backup(oracle, since=both).begin()
    assert one.shown() == {'theirs', 'b1'}
    one.end({'vda': base['vda'], 'vdb': oracle.moments[0].models['vdb']})
    assert sorted(listed(oracle)) == ['b1', 'theirs']
    assert stock_checkpoints(oracle) == ['theirs']
    oracle.check_sets()
    oracle.check_rest()


def judge_after_kill(oracle, guest_died):
    """Nothing that was made for the call is left, and backups go on."""
    wait_for(lambda: stock_checkpoints(oracle) == [], 'libvirt has none of ours')
    if guest_died:  # what its QEMU recorded went with it
        expect_error(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, "'vda'",
                     backup(oracle, since='c1').begin)
        oracle.moments = []
    oracle.create(['vda', 'vdb'])
    oracle.write(3)
    moment = oracle.moments[-1]
    backup(oracle, since=moment.name, push=True).begin().end(moment.models)
    # Bitmaps: the guest's QEMU, and what it writes into the images when it ends.
    for target in oracle.vm.disks:
        wait_for(lambda t=target: len(oracle.vm.bitmaps(t)) == 1, f'{target} has one bitmap')
    oracle.vm.restart()
    oracle.check_rest()
    assert stock_checkpoints(oracle) == [], stock_checkpoints(oracle)


KILLED = (('qemu',), ('libvirtd',), ('daemon', 'libvirtd'), ('daemon', 'qemu', 'libvirtd'))


@limit(300)
def test_killed_while_materialised(host):
    """QEMU, libvirtd, both daemons or all are killed when libvirt has just been told of a
    checkpoint of ours: bitmap and checkpoint do not outlive the call."""
    for who in KILLED if host.all else host.random.sample(KILLED, 2):
        name = '-'.join(who)
        go = os.path.join(host.images, 'go-' + name)
        log = os.path.join(host.logs, 'points.log')
        if os.path.exists(log):
            os.unlink(log)
        host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'backup/redefined@1=hold:{go}',
                               'VIRT_CHECKPOINT_FAULTS_LOG': log})
        oracle = Oracle(host, VM(host, name, DISKS), host.random)
        chain(oracle, 2)
        begin = jobs.Later(backup(oracle, since='c1').begin)
        wait_for(lambda: reached(host, 'backup/redefined'), 'the checkpoint is there')
        assert len(stock_checkpoints(oracle)) == 1
        if 'daemon' in who:
            host.kill_daemon()
        if 'qemu' in who:
            os.kill(host.qemu_pid(name), signal.SIGKILL)
        if 'libvirtd' in who:
            host.restart_libvirtd(signal.SIGKILL)
            oracle.vm.reconnect()
        with open(go, 'w'):
            pass
        if begin.join() is None:
            raise Failure(f'{name} killed, and the backup began')
        if 'daemon' not in who:
            host.stop_daemon()
        host.start_daemon()
        wait_for(lambda: 'qemu' not in who or not oracle.vm.dom.isActive(), 'it is off')
        if 'qemu' in who:
            oracle.vm.start()
        oracle.connect()
        judge_after_kill(oracle, 'qemu' in who)
        oracle.events.close()
        oracle.vm.destroy()
        host.stop_daemon()


class BackupSweep(Sweep):
    """A job that libvirt began goes on without its client: here it is ended."""

    def _settle(self, oracle, before):
        self.host.start_daemon()
        try:
            oracle.vm.dom.abortJob()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                raise
        self.host.stop_daemon()
        super()._settle(oracle, before)
        if stock_checkpoints(oracle):
            raise Failure(f'libvirt has {stock_checkpoints(oracle)}')


def swept(oracle):
    oracle.write(3)
    oracle.create(sorted(oracle.vm.disks))
    oracle.write(3)


def pull_with_checkpoint(oracle):
    base = oracle.moments[0]
    with_checkpoint(oracle, 'made', since=base.name).end(base.models)


def push_with_checkpoint(oracle):
    base = oracle.moments[0]
    with_checkpoint(oracle, 'made', since=base.name, push=True).end(base.models)
    wait_for(lambda: not os.path.exists(os.path.join(
        store.folder(oracle.host, oracle.vm), 'backup.xml')), 'the job is concluded')


@limit(900)
def test_daemon_dies_at_every_step_of_a_pull(host):
    """No window is skipped and nothing stays, wherever our daemon is killed."""
    assert BackupSweep(host, swept, pull_with_checkpoint).run(1.0 if host.all else 0.05)


@limit(900)
def test_daemon_dies_at_every_step_of_a_push(host):
    """The same of a push backup, until its end is concluded."""
    assert BackupSweep(host, swept, push_with_checkpoint).run(1.0 if host.all else 0.05)
