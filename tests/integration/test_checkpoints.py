"""Checkpoints of running guests: whatever is created, deleted, killed or restarted, each
covered disk has one recording bitmap of ours and every set of changes is complete."""

import os
import signal
import threading
import time
import xml.etree.ElementTree as ElementTree

import libvirt

from lib import store
from lib.domain import CLUSTER, MIB, VM
from lib.faults import Sweep
from lib.host import Failure, wait_for
from lib.oracle import Oracle
from lib.runner import limit, sample

CHILDREN = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN
CHILDREN_ONLY = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN_ONLY
METADATA_ONLY = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
SIZE = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE | libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}


def oracle_of(host, disks=None, **options):
    host.start_daemon()
    return Oracle(host, VM(host, disks=disks or DISKS, **options), host.random)


def expect_error(code, text, call, *args):
    try:
        call(*args)
    except libvirt.libvirtError as error:
        if error.get_error_code() != code or text not in error.get_error_message():
            raise Failure(f'{error.get_error_code()}: {error}') from error
        return
    raise Failure(f'no error {code} with "{text}"')


def chain(oracle, count):
    """Checkpoints c1 ... of all disks with writes in between."""
    for _ in range(count):
        oracle.create(sorted(oracle.vm.disks))
        oracle.write(3)
    return [moment.name for moment in oracle.moments]


def delete(oracle, name, flags=0):
    at = [m.name for m in oracle.moments].index(name)
    oracle.dom.checkpointLookupByName(name).delete(flags)
    if flags & (CHILDREN | CHILDREN_ONLY):
        del oracle.moments[at + (1 if flags & CHILDREN_ONLY else 0):]
    else:
        del oracle.moments[at]
    oracle.check()


def held(host, oracle, point):
    """A creation by a daemon that holds at point until what is returned is called."""
    gate = os.path.join(host.work, 'gate')
    passed = os.path.join(host.work, 'passed')
    host.restart_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'{point}@1=hold:{gate}',
                             'VIRT_CHECKPOINT_FAULTS_LOG': passed})
    oracle.connect()
    creating = threading.Thread(target=oracle.create, args=(sorted(oracle.vm.disks),))
    creating.start()
    wait_for(lambda: os.path.exists(passed) and point in open(passed).read(),
             f'the creation is at {point}')

    def go_on():
        with open(gate, 'w'):
            pass
        creating.join()
    return go_on


def helpers(vm):
    """Names of the nodes of open sidecars that QEMU's user named."""
    return [node['node-name'] for node in vm.qmp('query-named-block-nodes', flat=True)
            if node['node-name'].startswith('virtcheckpoint-sc-') and
            node['drv'] == 'qcow2' and node['node-name'].endswith('.0')]


def test_what_failed_is_settled_without_being_asked(host):
    """A frozen bitmap whose parking failed would die with QEMU: nobody calls, and it is
    parked all the same, also when that fails once more."""
    host.start_daemon(env={
        'VIRT_CHECKPOINT_FAULTS': 'park/released@1=fail,settle/jobs@2=fail'})
    oracle = Oracle(host, VM(host, disks={'vda': 8 * MIB}), host.random)
    oracle.create()
    oracle.write()
    oracle.create()
    assert len(oracle.vm.bitmaps('vda')) == 2
    wait_for(lambda: len(oracle.vm.bitmaps('vda')) == 1, 'it is parked', 30)
    oracle.check()


def test_a_refused_creation_unsettles_nothing(host):
    """A name that is taken is the client's mistake: there is nothing to repair."""
    log = os.path.join(host.work, 'points.log')
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS_LOG': log})
    oracle = Oracle(host, VM(host, disks={'vda': 8 * MIB}), host.random)
    oracle.create()

    def settled():
        with open(log) as points:
            return points.read().split().count('settle/jobs')
    before = settled()
    try:
        oracle.dom.checkpointCreateXML(
            f'<domaincheckpoint><name>{oracle.moments[0].name}</name></domaincheckpoint>')
        raise Failure('the name is taken')
    except libvirt.libvirtError as error:
        assert 'already exists' in str(error), error
    oracle.create()
    if settled() != before:
        raise Failure('it was settled')


def test_a_creation_whose_sidecars_are_gone(host):
    """QEMU refuses what would fill them: the checkpoint is made without, and parked."""
    oracle = oracle_of(host)
    chain(oracle, 2)
    go_on = held(host, oracle, 'sidecar/attached')
    found = helpers(oracle.vm)
    if len(found) != 1:
        raise Failure(f'open sidecars: {found}')
    oracle.vm.qmp('blockdev-del', **{'node-name': found[0]})
    go_on()
    oracle.write()
    oracle.check(copies=True)
    if len(oracle.moments) != 3 or 'created without parking ahead' not in host.daemon_log():
        raise Failure(f'{oracle.moments}: the creation was not refused at first')


def unnamed(host, vm):
    """Sidecars that no record names."""
    named = {s for r in store.records(host, vm) for g in r.segments.values()
             for s in g.sidecars}
    return {name for name in os.listdir(store.folder(host, vm))
            if name.endswith('.qcow2')} - named


@limit(240)
def test_a_merge_of_sidecars_that_fails(host):
    """What a merge in the background leaves when it fails is gone with the next
    operation, and costs no bits."""
    for point in ('compact/written', 'compact/saved', 'collect/after-unlink'):
        what = point.replace('/', '-')
        oracle = oracle_of(host, name=what)
        passed = os.path.join(host.work, f'passed-{what}')
        host.restart_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'{point}@1=fail',
                                 'VIRT_CHECKPOINT_FAULTS_LOG': passed})
        oracle.connect()
        chain(oracle, 3)
        oracle.dom.checkpointLookupByName(oracle.moments.pop(1).name).delete()
        wait_for(lambda: point in open(passed).read(), f'the merge is at {point}')
        sizes(oracle, oracle.moments[0].name)
        wait_for(lambda: not unnamed(host, oracle.vm), f'{point}: nothing is left')
        oracle.check(copies=True)
        oracle.vm.destroy()
        host.stop_daemon()


def sizes(oracle, name):
    xml = oracle.dom.checkpointLookupByName(name).getXMLDesc(SIZE)
    return {d.get('name'): int(d.get('size')) for d in
            ElementTree.fromstring(xml).iter('disk') if d.get('size')}


@sample
def test_each_deletion_keeps_every_other_checkpoint(host):
    """Middle, oldest, newest, with children, children only: sets stay complete."""
    oracle = oracle_of(host)
    names = chain(oracle, 8)
    oracle.check()
    for name in (names[3], names[0], names[7], names[5]):
        delete(oracle, name)
        oracle.write(2)
    delete(oracle, names[4], CHILDREN_ONLY)
    delete(oracle, names[2], CHILDREN)
    chain(oracle, 2)
    oracle.check()
    for moment in list(oracle.moments):
        delete(oracle, moment.name)
    # The folder may still hold its lock for a moment.
    wait_for(lambda: not os.path.exists(store.folder(host, oracle.vm)), 'folder goes')


def test_a_deletion_finds_what_does_not_record(host):
    """A bitmap that went behind our back: the deletion of another checkpoint, or of its
    own, says so at once, and tracking begins anew with it."""
    oracle = oracle_of(host)
    for which in (1, -1):
        names = chain(oracle, 3)
        [gone] = oracle.vm.bitmaps()
        oracle.vm.qmp('block-dirty-bitmap-remove', node=oracle.vm.top(), name=gone)
        oracle.dom.checkpointLookupByName(names.pop(which)).delete(0)
        assert len(oracle.vm.bitmaps()) == 1, oracle.vm.bitmaps()
        for name in names:
            told = store.lost(host, oracle.vm, name)
            assert told == {'vda'}, (name, told)
            oracle.dom.checkpointLookupByName(name).delete(0)
        oracle.moments = []
    chain(oracle, 2)
    oracle.check(copies=True)


def test_sidecars_are_merged_after_deletions(host):
    """However many checkpoints were deleted: one sidecar per frozen segment and disk."""
    oracle = oracle_of(host)
    names = chain(oracle, 7)
    for name in names[1:6]:
        delete(oracle, name)

    def merged():
        return all(len(s.sidecars) <= 1 and (not s.bitmaps or len(s.bitmaps) == 1)
                   for r in store.records(host, oracle.vm) for s in r.segments.values())
    wait_for(merged, 'sidecars are merged')
    oracle.check()


def test_sizes_are_exact(host):
    """size is the bytes of the clusters written since, per disk, exactly."""
    oracle = oracle_of(host)
    oracle.vm.write(0, MIB, 1)
    oracle.create(['vda', 'vdb'])
    oracle.vm.write(0, 3 * CLUSTER, 1)
    oracle.create(['vda'])
    oracle.vm.write(2 * CLUSTER, 2 * CLUSTER, 2)
    oracle.vm.write(512, 512, 2, target='vdb')
    assert sizes(oracle, 'c1') == {'vda': 4 * CLUSTER, 'vdb': CLUSTER}, sizes(oracle, 'c1')
    assert sizes(oracle, 'c2') == {'vda': 2 * CLUSTER}, sizes(oracle, 'c2')
    delete(oracle, 'c2')
    assert sizes(oracle, 'c1') == {'vda': 4 * CLUSTER, 'vdb': CLUSTER}, sizes(oracle, 'c1')


@sample
def test_errors_are_those_of_libvirt(host):
    """Code and text of refusals, and that nothing is left of them."""
    oracle = oracle_of(host)
    create = oracle.dom.checkpointCreateXML
    oracle.create(['vda'])

    def xml(name, disks=''):
        return f'<domaincheckpoint><name>{name}</name>{disks}</domaincheckpoint>'
    expect_error(libvirt.VIR_ERR_OPERATION_FAILED, 'domain moment c1 already exists',
                 create, xml('c1'), 0)
    expect_error(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "no disk named 'vdz'", create,
                 xml('c2', "<disks><disk name='vdz'/></disks>"), 0)
    expect_error(libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT, 'no domain checkpoint with matching',
                 oracle.dom.checkpointLookupByName, 'c2')
    expect_error(libvirt.VIR_ERR_INVALID_ARG, 'mutually exclusive',
                 oracle.dom.checkpointLookupByName('c1').delete, CHILDREN | CHILDREN_ONLY)
    oracle.check()
    oracle.vm.destroy()
    oracle.conn = host.connect(ours=True)
    oracle.dom = oracle.conn.lookupByName(oracle.vm.name)
    expect_error(libvirt.VIR_ERR_OPERATION_INVALID, 'domain is not running',
                 oracle.dom.checkpointCreateXML, xml('c2'),
                 libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_QUIESCE)
    assert '<name>c1</name>' in oracle.dom.checkpointLookupByName('c1').getXMLDesc(0)
    oracle.check()


def test_delete_while_off(host):
    """Deleting is a matter of records: it works while the guest is off."""
    oracle = oracle_of(host)
    names = chain(oracle, 4)
    oracle.vm.destroy()
    for name in (names[1], names[3]):
        oracle.dom.checkpointLookupByName(name).delete(0)
    oracle.moments = [oracle.moments[0], oracle.moments[2]]
    oracle.check_sets()
    oracle.vm.start()
    oracle.check()
    oracle.vm.destroy()
    for name in (names[0], names[2]):
        oracle.dom.checkpointLookupByName(name).delete(0)
    oracle.moments = []
    oracle.vm.start()
    oracle.check()


def test_metadata_only_leaves_the_bits(host):
    """Parts go to the older checkpoint; the image has the bits under the checkpoint's
    name, which nothing that we do to others touches."""
    oracle = oracle_of(host, disks={'vda': 16 * MIB})
    names = chain(oracle, 2)
    for name in reversed(names):
        delete(oracle, name, METADATA_ONLY)
    oracle.check_list()
    left = set(oracle.vm.bitmaps(ours=False))
    assert left == set(names), left
    oracle.restart_daemon()
    oracle.create()
    oracle.write(3)
    oracle.create()
    oracle.write(3)
    oracle.check_sets()
    assert len(oracle.vm.bitmaps()) == 1
    for moment in list(oracle.moments):
        oracle.dom.checkpointLookupByName(moment.name).delete(0)
    assert set(oracle.vm.bitmaps(ours=False)) == left


def test_quiet_domain_has_no_folder(host):
    """A domain without checkpoints leaves nothing in the store."""
    oracle = oracle_of(host)
    oracle.vm.restart()
    assert oracle.dom.listAllCheckpoints() == []
    assert not os.path.exists(store.folder(host, oracle.vm))


def test_killed_qemu_loses_only_the_active_segment(host):
    """After SIGKILL of QEMU old checkpoints say so, new ones work, for that disk alone."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.write(4)
    oracle.create(['vda'])
    oracle.write(4)
    oracle.vm.kill_qemu()
    wait_for(lambda: not oracle.vm.dom.isActive(), 'libvirt notices')
    oracle.vm.start()

    def lost():
        return {(r.name, t) for r in store.records(host, oracle.vm)
                for t, s in r.segments.items() if s.lost}
    wait_for(lambda: lost() == {('c2', 'vda'), ('c1', 'vdb')}, 'the loss is recorded')
    oracle.check_rest()
    for name in ('c1', 'c2'):
        expect_error(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, oracle.vm.name,
                     oracle.dom.checkpointLookupByName(name).getXMLDesc, SIZE)
    for target, disk in oracle.vm.disks.items():
        # What was not flushed is gone, with the model of it.
        disk.model.fill(0, disk.size, 7)
        oracle.vm.write(0, disk.size, 7, target)
    oracle.moments = []
    oracle.create(['vda', 'vdb'])
    oracle.write(4)
    oracle.check_sets()
    assert sizes(oracle, 'c3')
    for name in ('c1', 'c2'):
        oracle.dom.checkpointLookupByName(name).delete(0)
    oracle.check()


def test_snapshot_below_is_parked(host):
    """Layers that stock virsh puts on and commits again: nothing is lost or doubled."""
    oracle = oracle_of(host)
    base = oracle.vm.disks['vda'].path
    for round_ in range(2):
        oracle.create(['vda'])
        oracle.write(4)
        overlay = oracle.vm.snapshot('vda')
        oracle.vm.disks['vda'].path = overlay
        oracle.write(4)
        oracle.check()
        oracle.create(['vda', 'vdb'])
        oracle.write(4)
        oracle.check()
        if round_:
            delete(oracle, oracle.moments[-1].name)
        oracle.vm.commit('vda', base=base)
        oracle.vm.disks['vda'].path = base
        oracle.write(4)
        oracle.check()
    for moment in list(oracle.moments):
        delete(oracle, moment.name)


def test_foreign_checkpoints_are_left_alone(host):
    """Libvirt's own checkpoints beside ours: names do not clash, bitmaps stay."""
    oracle = oracle_of(host)
    oracle.create(['vda'])
    oracle.vm.dom.checkpointCreateXML(
        "<domaincheckpoint><name>theirs</name><disks><disk name='vda' "
        "checkpoint='bitmap'/></disks></domaincheckpoint>", 0)
    expect_error(libvirt.VIR_ERR_OPERATION_FAILED, 'domain moment theirs already exists',
                 oracle.dom.checkpointCreateXML,
                 '<domaincheckpoint><name>theirs</name></domaincheckpoint>', 0)
    oracle.write(3)
    oracle.create(['vda'])
    oracle.check_rest()
    oracle.check_sets()
    assert 'theirs' in oracle.vm.bitmaps('vda', ours=False)
    for moment in oracle.moments:
        oracle.dom.checkpointLookupByName(moment.name).delete(0)
    assert list(oracle.vm.bitmaps('vda', ours=False)) == ['theirs']


@sample
def test_restarts_change_nothing(host):
    """Guest, daemon and libvirtd end, are killed and start again: still at rest."""
    oracle = oracle_of(host)
    chain(oracle, 3)
    for act in (oracle.restart_daemon, oracle.restart_libvirtd, oracle.restart_guest,
                oracle.restart_daemon):
        act()
        oracle.check()
        oracle.create()
        oracle.write()
    oracle.check()


@limit(200)
def test_a_frozen_guest_holds_up_nobody_else(host):
    """Libvirt's client stalls all threads of a connection on which one waits."""
    host.start_daemon()
    frozen = VM(host, 'frozen', disks={'vda': 4 * MIB})
    oracle = Oracle(host, VM(host, 'free', disks={'vda': 4 * MIB}), host.random)
    xml = '<domaincheckpoint><name>{}</name></domaincheckpoint>'
    stuck = host.connect(ours=True).lookupByName('frozen')
    pid = host.qemu_pid('frozen')
    os.kill(pid, signal.SIGSTOP)
    threads = [threading.Thread(target=stuck.checkpointCreateXML, args=(xml.format(n),))
               for n in ('f1', 'f2')]
    try:
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        begun = time.monotonic()
        for _ in range(5):
            oracle.create()
        took = time.monotonic() - begun
    finally:
        os.kill(pid, signal.SIGCONT)
        for thread in threads:
            thread.join()
    if took > 15:
        raise Failure(f'5 checkpoints of another guest took {took:.1f} s')
    oracle.check()
    if sorted(c.getName() for c in stuck.listAllCheckpoints()) != ['f1', 'f2']:
        raise Failure('the frozen guest lost a checkpoint')
    frozen.destroy()


def test_random_sequence(host):
    """Random writes, creates, deletes, snapshots, commits and restarts."""
    oracle = oracle_of(host)
    oracle.STEPS = (('write', 30), ('create', 16), ('delete', 10), ('snapshot', 5),
                    ('commit', 6), ('restart_guest', 3), ('restart_daemon', 3),
                    ('restart_libvirtd', 1))
    steps, end = 0, 400 if host.all else 90
    for steps in range(end):
        oracle.step()
        if steps % 6 == 5:
            oracle.check()
    oracle.check()


def sweep(host, act, before=3):
    def setup(oracle):
        chain(oracle, before)
    stopped = Sweep(host, setup, act).run(1.0 if host.all else 0.06)
    assert stopped


@limit(600)
def test_stopped_while_creating(host):
    """The daemon stops dead at every point of a creation."""
    sweep(host, lambda oracle: oracle.create(['vda', 'vdb']), before=1)


@limit(600)
def test_stopped_while_deleting_the_middle(host):
    """The daemon stops dead at every point of deleting a checkpoint in the middle."""
    sweep(host, lambda oracle: delete(oracle, 'c2'))


@limit(600)
def test_stopped_while_deleting_the_newest(host):
    """The daemon stops dead at every point of deleting the newest checkpoint."""
    sweep(host, lambda oracle: delete(oracle, 'c2'), before=2)
