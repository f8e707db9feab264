"""Stock jobs around a guest with checkpoints: job x where it was sent x what follows.

Whatever stock libvirt does to a disk, afterwards each checkpoint of ours either covers
every cluster that differs, for sizes, incremental backups and incremental copies alike,
or says of that disk that it is inconsistent.  Where bits can be carried they must be.
"""

import fnmatch
import os
import xml.etree.ElementTree as ElementTree

import libvirt

from lib import images, jobs
from lib.backups import Backup
from lib.domain import CLUSTER, MIB, VM, qemu_img
from lib.host import Failure, wait_for
from lib.oracle import Oracle
from lib.runner import limit

DISKS = {'vda': 8 * MIB, 'vdb': 4 * MIB}
INCONSISTENT = libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT
SIZE = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE | libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
CELLS = 8  # of the part that always runs


class Cell:
    """One guest with two checkpoints, and a job on vda sent through dom."""

    def __init__(self, host, where, number, bus='virtio'):
        self.host, self.where = host, where
        self.vm = VM(host, f'vm{number}', DISKS, bus=bus)
        self.oracle = Oracle(host, self.vm, host.random)
        self.layers = [self.vm.disks['vda'].path]
        self.oracle.write(3)
        self.oracle.create(['vda', 'vdb'])
        self.vm.write(0, CLUSTER, 1)
        self.oracle.write(3)
        self.oracle.create(['vda', 'vdb'])
        self.vm.write(CLUSTER, CLUSTER, 2)

    @property
    def dom(self):
        """The guest as the job's client has it."""
        if self.where == 'through us':
            return self.oracle.dom
        return self.vm.dom

    def path(self, what):
        return os.path.join(self.host.images, f'{self.vm.name}-{what}.qcow2')

    def scribble(self):
        self.vm.write(self.host.random.randrange(0, 100) * CLUSTER, CLUSTER,
                      self.host.random.randrange(1, 256))
        self.oracle.write(2)

    def snapshot(self, path=None):
        path = path or self.path(f'layer{len(self.layers)}')
        self.vm.snapshot('vda', path, self.dom)
        self.layers.append(path)
        self.vm.disks['vda'].path = path

    def chain(self, count):
        """Overlays, with writes below and above, until there are count layers."""
        while len(self.layers) < count:
            self.scribble()
            self.snapshot()
        self.scribble()

    def gone(self):
        wait_for(lambda: not self.dom.blockJobInfo('vda', 0), 'the job ends')

    def source(self):
        self.vm.disks['vda'].path = self.vm.source('vda')


# The jobs.  They return 'kept', or 'any' when the bits may be lost, 'all' of all disks.

def snapshot(cell):
    cell.snapshot()
    cell.scribble()
    cell.snapshot()
    return 'kept'


def pull_all(cell):
    cell.chain(3)
    cell.dom.blockPull('vda', 0, 0)
    cell.gone()
    return 'kept'


def pull_from_the_middle(cell):
    cell.chain(4)
    cell.dom.blockRebase('vda', cell.layers[1], 0, 0)
    cell.gone()
    return 'kept'


def commit_active(cell, base):
    cell.chain(5)
    cell.vm.commit('vda', cell.layers[base], cell.dom)
    cell.source()
    return 'kept'


def commit_range(cell, base, top):
    cell.chain(5)
    cell.dom.blockCommit('vda', cell.layers[base], cell.layers[top], 0, 0)
    cell.gone()
    return 'kept'


def commit_of(base, top):
    """The job that commits layers top to base + 1 of a chain of five into base."""
    def commit(cell):
        if top < 4:
            return commit_range(cell, base, top)
        return commit_active(cell, base)
    commit.__name__ = f'commit_{top}_into_{base}_of_5'
    return commit


COMMITS = tuple(commit_of(base, top) for top in range(1, 5) for base in range(top))


def commit_and_delete(cell):
    """As backup tools end theirs: the overlay goes at once."""
    cell.chain(2)
    cell.vm.commit('vda', cell.layers[0], cell.dom)
    os.unlink(cell.layers[1])
    cell.source()
    return 'kept'


def copied(cell, path, fmt='qcow2', flags=0, pivot=True, backing=None, kept='kept'):
    """A plain copy, written to while it runs, and its end."""
    xml = jobs.target_xml(path, fmt)
    if backing:
        xml = xml.replace('<backingStore/>', '')  # libvirt finds it in the header
    # Ours takes it without; a stock client needs it for a persistent guest.
    flags |= libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    cell.dom.blockCopy('vda', xml, {}, flags)
    cell.scribble()
    if pivot:
        cell.vm.pivot('vda', cell.dom)
        cell.source()
        cell.vm.disks['vda'].format = fmt
        return kept
    wait_for(lambda: ready(cell.dom), 'the copy is ready')
    cell.dom.blockJobAbort('vda', 0)
    cell.gone()
    return 'kept'


def ready(dom):
    info = dom.blockJobInfo('vda', 0)
    return info and info['cur'] == info['end'] and info['end']


def copy_full(cell):
    return copied(cell, cell.path('copy'))


def copy_full_finished(cell):
    return copied(cell, cell.path('copy'), pivot=False)


def copy_reused(cell, fmt='qcow2', pivot=True):
    qemu_img('create', '-q', '-f', fmt, cell.path('copy'), str(DISKS['vda']))
    return copied(cell, cell.path('copy'), fmt, libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT,
                  pivot, kept='any' if fmt == 'raw' else 'kept')


def copy_reused_finished(cell):
    return copy_reused(cell, pivot=False)


def copy_raw(cell):
    return copied(cell, cell.path('copy'), fmt='raw', kept='any')


def copy_raw_finished(cell):
    return copied(cell, cell.path('copy'), fmt='raw', pivot=False)


def copy_raw_reused(cell):
    return copy_reused(cell, fmt='raw')


def copy_raw_reused_finished(cell):
    return copy_reused(cell, fmt='raw', pivot=False)


def copy_of_a_chain(cell):
    cell.chain(3)
    return copied(cell, cell.path('copy'))


def copy_shallow(cell, pivot=True):
    """Onto a file that has the same layers below."""
    cell.chain(3)
    path = cell.path('copy')
    qemu_img('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', cell.layers[1], path)
    return copied(cell, path, backing=cell.layers[1], pivot=pivot,
                  flags=libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW |
                  libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT)


def copy_shallow_finished(cell):
    return copy_shallow(cell, pivot=False)


def copy_shallow_new(cell, pivot=True):
    """Onto a file that libvirt makes."""
    cell.chain(3)
    return copied(cell, cell.path('copy'), backing=cell.layers[1], pivot=pivot,
                  flags=libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW)


def copy_shallow_new_finished(cell):
    return copy_shallow_new(cell, pivot=False)


def copy_shallow_to_flat(cell):
    """The relay's copy by another's hand: the target has what is below already."""
    cell.scribble()
    lower = cell.vm.disks['vda'].model.copy()

    images.write_image(cell.path('copy'), lower)
    cell.snapshot()
    cell.scribble()
    return copied(cell, cell.path('copy'), flags=libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW |
                  libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT,
                  kept='kept' if cell.where == 'through us' else 'any')


def deleted(cell, copy):
    """A copy, and nothing but it is left: past us that may be unseen."""
    below = list(cell.layers)
    copy(cell)
    for path in cell.layers[len(below) - 1:]:
        os.unlink(path)
    return 'kept' if cell.where == 'through us' else 'any'


def copy_full_and_delete(cell):
    return deleted(cell, copy_full)


def copy_shallow_and_delete(cell):
    cell.chain(2)
    return deleted(cell, copy_of_the_top)


def copy_of_the_top(cell):
    path = cell.path('copy')
    qemu_img('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', cell.layers[0], path)
    return copied(cell, path, backing=cell.layers[0],
                  flags=libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW |
                  libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT)


def copy_shallow_to_flat_and_delete(cell):
    return deleted(cell, copy_shallow_to_flat)


def save_and_restore(cell):
    path = cell.path('saved')
    cell.dom.save(path)
    cell.conn = cell.dom.connect()
    cell.conn.restore(path)
    cell.vm._started()
    return 'kept'


def managed_save(cell):
    cell.dom.managedSave(0)
    cell.dom.create()
    cell.vm._started()
    return 'kept'


def resize(cell):
    disk = cell.vm.disks['vda']
    cell.dom.blockResize('vda', disk.size + 2 * MIB,
                         libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    grow(disk, disk.size + 2 * MIB)
    for moment in cell.oracle.moments:
        moment.models['vda'] = grown(moment.models['vda'], disk.size)
    cell.vm.write(disk.size - CLUSTER, CLUSTER, 9)
    return 'kept'


def grow(disk, size):
    disk.model = grown(disk.model, size)
    disk.size = size


def grown(model, size):
    copy = model.copy()
    copy.sectors += bytes((size - model.size) // 512)
    copy.size = size
    return copy


def detach_and_attach(cell):
    """The other disk goes and comes back."""
    xml = disk_xml(cell, 'vdb')
    cell.dom.detachDevice(xml)
    wait_for(lambda: "dev='vdb'" not in cell.vm.dom.XMLDesc(0), 'vdb is gone')
    cell.vm.write(0, CLUSTER, 77)
    cell.dom.attachDevice(xml)
    cell.vm.disks['vdb'].alias = ''
    return 'any'


def internal_snapshot_and_revert(cell):
    """QEMU does not go back while it has bitmaps: through us they are given up first;
    past us libvirt leaves the guest off, its disks as they were."""
    cell.dom.snapshotCreateXML('<domainsnapshot><name>s</name></domainsnapshot>', 0)
    kept = {t: d.model.copy() for t, d in cell.vm.disks.items()}
    cell.scribble()
    try:
        cell.dom.revertToSnapshot(cell.dom.snapshotLookupByName('s'), 0)
        for target, disk in cell.vm.disks.items():
            disk.model = kept[target]
    except libvirt.libvirtError as error:
        if cell.where == 'through us':
            raise Failure(f'revert: {error}') from error
    if not cell.vm.dom.isActive():
        cell.vm.dom.create()
    cell.vm._started()
    return 'all'


def external_snapshot_and_revert(cell):
    """Libvirt 9.0 does not go back to an external snapshot; a refused call costs nothing.
    A later one that does is noticed."""
    path = cell.path('snapshot')
    cell.dom.snapshotCreateXML(
        f"""<domainsnapshot><name>e</name><disks><disk name='vda' snapshot='external'>
        <source file='{path}'/></disk><disk name='vdb' snapshot='no'/></disks>
        </domainsnapshot>""", libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
    cell.layers.append(path)
    cell.vm.disks['vda'].path = path
    kept = cell.vm.disks['vda'].model.copy()
    cell.scribble()
    try:
        cell.dom.revertToSnapshot(cell.dom.snapshotLookupByName('e'), 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_CONFIG_UNSUPPORTED:
            raise
        return 'kept'
    cell.vm.disks['vda'].model = kept
    cell.source()
    if not cell.vm.dom.isActive():
        cell.vm.dom.create()
    cell.vm._started()
    return 'any'


def detach_under_a_copy(cell):
    """The other disk goes while a copy of ours runs on it, of which libvirt does not
    know: refused through us; past us the copy ends, and the disk can come back."""
    cell.vm.write(0, 2 * MIB, 66, target='vdb')
    xml = disk_xml(cell, 'vdb')
    path = cell.path('copy')
    moment = cell.oracle.moments[0]
    images.write_image(path, moment.models['vdb'])
    jobs.start_copy(cell.oracle.dom, 'vdb', path, moment.name, finish=True,
                    bandwidth=256 * 1024)
    try:
        cell.dom.detachDevice(xml)
        refused = False
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:
            raise
        refused = True
    if refused != (cell.where == 'through us'):
        raise Failure(f'refused: {refused}')
    if refused:
        cell.oracle.dom.blockJobAbort('vdb', 0)
    cell.oracle.events.wait('vdb', 'failed', 'canceled')
    wait_for(lambda: not cell.vm.stray(), 'nothing of the copy is left')
    if not refused:
        wait_for(lambda: "dev='vdb'" not in cell.vm.dom.XMLDesc(0), 'vdb is gone')
        cell.dom.attachDevice(xml)
        cell.vm.disks['vdb'].alias = ''
    cell.vm.verify('vdb')
    return 'kept' if refused else 'any'


def disk_xml(cell, target):
    xml = [d for d in cell.vm.dom.XMLDesc(0).split('<disk ') if f"dev='{target}'" in d][0]
    return '<disk ' + xml.split('</disk>')[0] + '</disk>'


def restart(cell):
    cell.dom.destroy()
    cell.dom.create()
    cell.vm._started()
    return 'kept'


JOBS = (snapshot, pull_all, pull_from_the_middle, *COMMITS, commit_and_delete,
        copy_full, copy_full_finished, copy_reused, copy_reused_finished, copy_raw,
        copy_raw_finished, copy_raw_reused, copy_raw_reused_finished, copy_of_a_chain,
        copy_shallow, copy_shallow_finished, copy_shallow_new, copy_shallow_new_finished,
        copy_shallow_to_flat, copy_full_and_delete, copy_shallow_and_delete,
        copy_shallow_to_flat_and_delete, save_and_restore, managed_save, resize, restart,
        detach_and_attach, internal_snapshot_and_revert, external_snapshot_and_revert,
        detach_under_a_copy)
ON_SCSI = (detach_and_attach, detach_under_a_copy)  # there it needs no help of the guest
UNSEEN = 'past us, unseen'  # while no daemon of ours runs
PLACES = ('through us', 'past us', UNSEEN)


def attempt(call, *args):
    """'kept', or 'lost' when the call says that the checkpoint is inconsistent."""
    try:
        call(*args)
        return 'kept'
    except libvirt.libvirtError as error:
        if error.get_error_code() != INCONSISTENT:
            raise
        if 'disk \'vd' not in str(error):
            raise Failure(f'names no disk: {error}') from error
        return 'lost'


def backup_since(cell, moment, target):
    one = Backup(cell.vm, cell.oracle.dom, since=moment.name, disks=[target]).begin()
    one.end(moment.models)


def sized(cell, moment):
    """The disks of which it is known how much changed since."""
    seen = {}

    def look(*_):
        text = cell.oracle.dom.checkpointLookupByName(moment.name).getXMLDesc(SIZE)
        seen.update((disk.get('name'), disk.get('size'))
                    for disk in ElementTree.fromstring(text).iter('disk'))
    attempt(look, cell, moment)
    return {target for target, size in seen.items() if size is not None}


def follow(cell):
    """What each checkpoint still is, per disk: by backup and by copy."""
    found = {}
    cell.oracle.events.forget()
    for moment in list(cell.oracle.moments):
        known = sized(cell, moment)
        for target in sorted(moment.models):
            by_backup = attempt(backup_since, cell, moment, target)
            by_copy = 'kept'
            if cell.vm.disks[target].format == 'qcow2':
                by_copy = attempt(cell.oracle.finish, moment, target)
            else:
                by_copy = by_backup
            by_size = 'kept' if target in known else 'lost'
            if not by_backup == by_copy == by_size:
                raise Failure(f'{target} since {moment.name}: size {by_size}, backup '
                              f'{by_backup}, copy {by_copy}')
            found[moment.name, target] = by_backup
    return found


def judge(host, job, where, number):
    """One cell; returns its line."""
    cell = Cell(host, where, number, 'scsi' if job in ON_SCSI else 'virtio')
    if where == UNSEEN:
        cell.oracle.events.close()
        host.kill_daemon()
    wanted = job(cell)
    if where == UNSEEN:
        host.start_daemon()
        cell.oracle.connect()
    cell.scribble()
    cell.vm.verify('vda')
    found = follow(cell)
    lost = sorted(f'{target} since {name}' for (name, target), state in found.items()
                  if state == 'lost')
    if lost and wanted == 'kept':
        raise Failure(f'the bits of {lost} are lost')
    if wanted != 'all' and job not in ON_SCSI and \
            'lost' in [state for (_, target), state in found.items() if target == 'vdb']:
        raise Failure('the other disk lost its bits')
    # A new checkpoint works on every disk that can have one.
    disks = [t for t, d in sorted(cell.vm.disks.items()) if d.format == 'qcow2']
    cell.oracle.moments = []
    cell.oracle.create(disks)
    cell.scribble()
    for target in disks:
        if attempt(backup_since, cell, cell.oracle.moments[0], target) != 'kept':
            raise Failure(f'{target}: a new checkpoint does not work')
    cell.oracle.events.close()
    cell.vm.destroy()
    return f'sizes, backup, copy: {"lost: " + ", ".join(lost) if lost else "all kept"}'


@limit(2400)
def test_matrix(host):
    """Every job, through us, past us and unseen: all cells, those that the pattern
    VIRT_CHECKPOINT_MATRIX takes, or a part of them drawn by the seed."""
    host.start_daemon()
    cells = [(job, where) for job in JOBS for where in PLACES
             if (job, where) != (detach_under_a_copy, UNSEEN)]
    pattern = os.environ.get('VIRT_CHECKPOINT_MATRIX')
    if pattern:
        cells = [(job, where) for job, where in cells
                 if fnmatch.fnmatch(f'{job.__name__}: {where}', pattern)]
    elif not host.all:
        cells = host.random.sample(cells, CELLS)
    failed = []
    for number, (job, where) in enumerate(cells):
        try:
            line = judge(host, job, where, number)
        except (Failure, libvirt.libvirtError) as error:
            line = f'FAILED: {error}'
            failed.append((job.__name__, where))
            host.restart_daemon()
        print(f'#   {job.__name__.replace("_", " ")}, {where}: {line}', flush=True)
    if failed:
        raise Failure(f'{len(failed)} cells failed: {failed}')
