"""The emulator that shows a bitmap mirror does what the patches of QEMU do."""

import os

import libvirt

from lib import images, jobs
from lib.domain import CLUSTER, MIB, qemu_img
from lib.host import Failure, wait_for
from lib.native import NativeVM

SIZE = 4 * MIB
DIRTY = 8  # clusters, in the bitmap when a job of the table starts


# The emulator: what the patches do, in QMP

class Rig:
    """One bitmap mirror in bare QMP: vda to a target that lacks 8 dirty clusters."""

    def __init__(self, vm, dialect, serial):
        self.vm, self.dialect = vm, dialect
        self.node = vm.top()
        self.model = vm.disks['vda'].model
        self.path = os.path.join(vm.host.images, f'{vm.name}-rig{serial}.qcow2')
        qemu_img('create', '-q', '-f', 'qcow2', self.path, str(SIZE))
        vm.qmp('blockdev-add', **{
            'driver': 'qcow2', 'node-name': 't',
            'file': {'driver': 'file', 'filename': self.path}})
        self._byte = serial % 200 + 1
        self._full_copy()
        vm.qmp('block-dirty-bitmap-add', node=self.node, name='u')
        for index in range(DIRTY):
            self.write(2 * index)

    def _full_copy(self):
        self.vm.qmp('blockdev-backup', **{'job-id': 'full', 'device': self.node,
                                          'target': 't', 'sync': 'full',
                                          'auto-dismiss': False})
        self.await_status('concluded', 'full')
        self.vm.qmp('job-dismiss', id='full')

    def write(self, cluster):
        self._byte = self._byte % 250 + 1
        self.vm.write(cluster * CLUSTER, CLUSTER, self._byte)

    def start(self, mode, **options):
        if self.dialect == 'B':
            options.update({'sync': 'full'})
        else:
            options.update({'sync': 'bitmap', 'bitmap-mode': mode})
        self.vm.qmp('blockdev-mirror', **{
            'job-id': 'j', 'device': self.node, 'target': 't', 'bitmap': 'u',
            'auto-dismiss': False, **options})

    def job(self, name='j'):
        return next((j for j in self.vm.qmp('query-jobs') if j['id'] == name), None)

    def await_status(self, status, name='j'):
        wait_for(lambda: self.job(name)['status'] == status, f'{name} is {status}')
        return self.job(name)

    def is_idle(self):
        """TRUE if the target has all; QEMU shows a job's own bitmap without a name."""
        return not any(b['count'] for b in self.vm.nodes()[self.node]['dirty-bitmaps']
                       if not b.get('name')) and \
            self.job()['current-progress'] == self.job()['total-progress']

    def bitmap(self):
        return next(b for b in self.vm.nodes()[self.node]['dirty-bitmaps']
                    if b.get('name') == 'u')

    def expect_busy(self, busy):
        found = self.bitmap()
        if found['busy'] != busy or found['recording'] != (not busy or
                                                           self.dialect == 'A'):
            raise Failure(f'bitmap: {found}')

    def end(self, count, equal):
        """After the job: the bitmap's clusters, and maybe the target's content."""
        self.expect_busy(False)
        found = self.bitmap()['count'] // CLUSTER
        if found != count:
            raise Failure(f'{found} clusters are dirty, not {count}')
        self.vm.qmp('job-dismiss', id='j')
        self.close()
        if equal:
            images.expect_content(self.path, self.model, 'target')

    def close(self):
        if self.job():
            raise Failure(f'left: {self.job()}')
        self.vm.qmp('blockdev-del', **{'node-name': 't'})
        self.vm.qmp('block-dirty-bitmap-remove', node=self.node, name='u')
        if self.vm.all_bitmaps() or self.vm.stray():
            raise Failure(f'left: {self.vm.all_bitmaps()} {self.vm.stray()}')


def end_ready(rig, mode, command, kept, **arguments):
    """Ended when ready, after the guest wrote one new and one dirty cluster."""
    rig.start(mode)
    rig.expect_busy(True)
    rig.await_status('ready')
    rig.write(0)
    rig.write(1)
    if 'on-success' in kept:  # by force: what the target lacks then is not copied
        wait_for(rig.is_idle, 'all is copied')
    rig.vm.qmp(command, **arguments)
    rig.await_status('concluded')
    rig.end(DIRTY + 1 if mode in kept else 0, True)


def end_soft(rig, mode):
    """Cancelled softly when ready: the job drains and has succeeded."""
    end_ready(rig, mode, 'block-job-cancel', ('never',), device='j')


def end_forced(rig, mode):
    """Cancelled by force when ready: nothing is missing, but it is no success."""
    end_ready(rig, mode, 'block-job-cancel', ('never', 'on-success'), device='j',
              force=True)


def end_job_cancel(rig, mode):
    """The same by the other command."""
    end_ready(rig, mode, 'job-cancel', ('never', 'on-success'), id='j')


def end_pending(rig, mode, command, kept):
    rig.start(mode, **{'auto-finalize': False})
    rig.await_status('ready')
    rig.write(0)
    rig.write(1)
    rig.vm.qmp('block-job-cancel', device='j')
    rig.await_status('pending')
    rig.expect_busy(True)
    rig.vm.qmp(command, id='j')
    rig.await_status('concluded')
    rig.end(DIRTY + 1 if mode in kept else 0, True)


def end_finalized(rig, mode):
    """The bitmap changes when the job is finalized."""
    end_pending(rig, mode, 'job-finalize', ('never',))


def end_pending_cancel(rig, mode):
    """The simulated failure of QEMU's test: cancelled with all data copied."""
    end_pending(rig, mode, 'job-cancel', ('never', 'on-success'))


def end_early(rig, mode):
    """Cancelled in mid-copy."""
    rig.start(mode, speed=CLUSTER)
    wait_for(lambda: rig.job()['current-progress'] >= CLUSTER, 'it copies')
    rig.write(0)  # copied first
    rig.write(1)
    rig.vm.qmp('job-cancel', id='j')
    copied = rig.await_status('concluded')['current-progress'] // CLUSTER
    if not 0 < copied < DIRTY:
        raise Failure(f'{copied} clusters were copied')
    rig.end(DIRTY - copied + 2 if mode == 'always' else DIRTY + 1, False)


def end_written_to(rig, mode):
    """The guest writes while it copies: it is ready when that is copied, too, and what
    the emulator does for it is in no bitmap."""
    rig.vm.qmp('block-dirty-bitmap-add', node=rig.node, name='other')
    rig.start(mode, speed=CLUSTER)
    wait_for(lambda: rig.job()['current-progress'] >= CLUSTER, 'it copies')
    rig.write(0)  # copied first
    rig.write(1)
    rig.write(3)
    rig.vm.qmp('block-job-set-speed', device='j', speed=0)
    if rig.await_status('ready')['current-progress'] < (DIRTY + 3) * CLUSTER:
        raise Failure(f'ready, but {rig.job()}')
    rig.write(5)
    other = next(b for b in rig.vm.nodes()[rig.node]['dirty-bitmaps']
                 if b.get('name') == 'other')
    if other['count'] != 4 * CLUSTER:
        raise Failure(f'a bitmap of somebody else: {other}')
    rig.vm.qmp('block-dirty-bitmap-remove', node=rig.node, name='other')
    rig.vm.qmp('block-job-cancel', device='j')
    rig.await_status('concluded')
    rig.end(DIRTY + 3 if mode == 'never' else 0, True)


def end_error(rig, mode):
    """The target fails at the 4th of the dirty clusters."""
    rig.vm.fail_at(6 * CLUSTER)
    rig.start(mode)
    if 'error' not in rig.await_status('concluded'):
        raise Failure('it did not fail')
    rig.end(DIRTY - 3 if mode == 'always' else DIRTY, False)


def end_pivot(rig, mode):
    """Completed: the guest is on the target, the bitmap stays and sees nothing more."""
    rig.start(mode)
    rig.await_status('ready')
    rig.write(0)
    rig.write(1)
    rig.vm.qmp('job-complete', id='j')
    rig.await_status('concluded')
    node = rig.node
    if rig.vm.top() != 't':
        raise Failure(f'the guest is on {rig.vm.top()}')
    rig.write(3)
    found = next(b for b in rig.vm.nodes()[node]['dirty-bitmaps'] if b.get('name') == 'u')
    if found['count'] != (9 * CLUSTER if mode == 'never' else 0) or found['busy']:
        raise Failure(f'bitmap after the pivot: {found}')
    rig.vm.verify()


ENDS = (end_soft, end_forced, end_job_cancel, end_finalized, end_pending_cancel,
        end_early, end_written_to, end_error)


def run_table(host, dialect, modes):
    vm = NativeVM(host, dialect, disks={'vda': SIZE})
    serial = 0
    for mode in modes:
        for end in ENDS + ((end_pivot,) if mode == modes[-1] else ()):
            serial += 1
            try:
                end(Rig(vm, dialect, serial), mode)
            except Exception as error:
                raise Failure(f'{mode}, {end.__name__}: {error}') from error


def test_table_of_dialect_a(host):
    """Modes x ends: the interposer keeps the bitmap as the downstream series does."""
    run_table(host, 'A', ('never', 'on-success', 'always'))


def test_table_of_dialect_b(host):
    """The same for the posted series, where the bitmap is the job's own."""
    run_table(host, 'B', ('always',))


# The emulator: what the patches refuse

def refusals_a():
    """Every call of QEMU's own test that cannot be right."""
    modes = (None, 'on-success', 'never', 'always')
    for sync in ('incremental', 'bitmap', 'full', 'top', 'none'):
        for bitmap in (None, 'unknown', 'u'):
            for mode in modes:
                good = {'incremental': bitmap == 'u' and mode in (None, 'on-success'),
                        'bitmap': bitmap == 'u' and mode is not None}.get(
                            sync, not bitmap and not mode)
                if not good:
                    yield {'sync': sync, 'bitmap': bitmap, 'bitmap-mode': mode}
    yield {'sync': 'bitmap', 'bitmap': 'u', 'bitmap-mode': 'always', 'granularity': CLUSTER}
    yield {'sync': 'bitmap', 'bitmap': 'u', 'bitmap-mode': 'always', 'device': 't'}


def refusals_b():
    yield {'sync': 'full', 'bitmap': 'unknown'}
    for sync in ('top', 'none', 'bitmap', 'incremental'):
        for bitmap in ('unknown', 'u'):
            yield {'sync': sync, 'bitmap': bitmap}
    yield {'sync': 'full', 'bitmap': 'u', 'bitmap-mode': 'always'}
    yield {'sync': 'full', 'bitmap': 'u', 'granularity': CLUSTER}
    yield {'sync': 'full', 'bitmap': 'fine'}
    yield {'sync': 'full', 'bitmap': 'off'}


def refused(vm, command, **arguments):
    try:
        vm.qmp(command, **arguments)
    except Failure:
        return
    raise Failure(f'not refused: {command} {arguments}')


def expect_refusals(rig, cases):
    vm, node = rig.vm, rig.node
    vm.qmp('block-dirty-bitmap-add', node=node, name='fine', granularity=CLUSTER // 2)
    vm.qmp('block-dirty-bitmap-add', node=node, name='off', disabled=True)
    count = 0
    for case in cases:
        case = {key: value for key, value in case.items() if value is not None}
        refused(vm, 'blockdev-mirror', **{'job-id': 'j', 'device': node, 'target': 't',
                                          **case})
        count += 1
        if rig.job() or rig.bitmap()['count'] != DIRTY * CLUSTER or rig.bitmap()['busy']:
            raise Failure(f'{case}: {rig.job()} {rig.bitmap()}')
    # What the job holds nobody else may use.
    rig.start('always')
    rig.await_status('ready')
    for command in ('remove', 'clear', 'disable'):
        refused(vm, f'block-dirty-bitmap-{command}', node=node, name='u')
        refused(vm, 'transaction', actions=[{
            'type': f'block-dirty-bitmap-{command}', 'data': {'node': node, 'name': 'u'}}])
    refused(vm, 'block-dirty-bitmap-merge', node=node, target='u', bitmaps=['off'])
    refused(vm, 'block-dirty-bitmap-merge', node=node, target='off', bitmaps=['u'])
    refused(vm, 'blockdev-backup', **{'job-id': 'k', 'device': node, 'target': 't',
                                      'sync': 'incremental', 'bitmap': 'u'})
    vm.qmp('block-dirty-bitmap-add', node=node, name='other')
    vm.qmp('block-job-cancel', device='j')
    rig.await_status('concluded')
    for name in ('fine', 'off', 'other'):
        vm.qmp('block-dirty-bitmap-remove', node=node, name=name)
    rig.end(0, True)
    return count


def test_refusals_of_dialect_a(host):
    """All calls that QEMU's own test has refused are refused, and no job is left."""
    vm = NativeVM(host, 'A', disks={'vda': SIZE})
    count = expect_refusals(Rig(vm, 'A', 1), refusals_a())
    if count != 10 + 9 + 3 * 11 + 2:
        raise Failure(f'{count} cases')


def test_refusals_of_dialect_b(host):
    """The same for dialect B; a raw target is what kills that QEMU."""
    vm = NativeVM(host, 'B', disks={'vda': SIZE})
    expect_refusals(Rig(vm, 'B', 1), refusals_b())
    rig = Rig(vm, 'B', 2)
    raw = os.path.join(host.images, 'raw')
    qemu_img('create', '-q', '-f', 'raw', raw, str(SIZE))
    vm.qmp('blockdev-add', **{'driver': 'file', 'node-name': 'raw', 'filename': raw})
    try:
        vm.qmp('blockdev-mirror', **{'job-id': 'j', 'device': rig.node, 'target': 'raw',
                                     'sync': 'full', 'bitmap': 'u'})
    except libvirt.libvirtError:
        pass
    wait_for(lambda: not vm.dom.isActive(), 'QEMU is dead')


def test_refusals_of_a_dead_dialect(host):
    """The packages that show dialect A and do not have it."""
    rig = Rig(NativeVM(host, 'dead', disks={'vda': SIZE}), 'A', 1)
    refused(rig.vm, 'blockdev-mirror', **{
        'job-id': 'j', 'device': rig.node, 'target': 't', 'sync': 'bitmap', 'bitmap': 'u',
        'bitmap-mode': 'always'})
    rig.close()


def test_interposer_is_not_noticed(host):
    """Stock things work through it: checkpoints, copies by descriptor, libvirtd again."""
    vm = NativeVM(host, 'A', disks={'vda': SIZE})
    host.start_daemon()
    conn = host.connect(ours=True)
    dom = conn.lookupByName(vm.name)
    events = jobs.Events(conn)
    path = os.path.join(host.images, 'replica.qcow2')
    vm.write(0, MIB, 1)
    jobs.start_copy(dom, 'vda', path, checkpoint='c1', finish=True)
    jobs.wait_end(events, dom, 'vda')
    images.expect_content(path, vm.disks['vda'].model, 'replica')
    host.restart_libvirtd()
    vm.reconnect()
    vm.write(MIB, MIB, 2)
    vm.verify()
    vm.kill_qemu()
    vm.start()
    vm.disks['vda'].alias = ''
    vm.destroy()
