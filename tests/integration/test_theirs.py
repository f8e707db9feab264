"""Checkpoints that libvirt made itself, as the base of copies beside ours; and ours,
once their metadata was given up: what redefines them finds their bits in the images."""

import os

import libvirt

from lib import images, jobs, store
from lib.backups import Backup
from lib.domain import CLUSTER, MIB, VM
from lib.host import Failure, wait_for
from lib.runner import limit

C = '<domaincheckpoint><name>{}</name></domaincheckpoint>'
REDEFINE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
VALIDATE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
METADATA_ONLY = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
UNDEFINE = libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}


class Scene:
    """A guest, a client of ours, and what each disk held at each checkpoint."""

    def __init__(self, host, name='vm', disks=None):
        self.host = host
        if not host.daemon_running():
            host.start_daemon()
        self.vm = VM(host, name, disks=dict(disks or DISKS))
        self.at = {}
        self.connect()

    def connect(self):
        self.conn = self.host.connect(ours=True)
        self.dom = self.conn.lookupByName(self.vm.name)
        self.events = jobs.Events(self.conn)

    def mark(self, name, dom=None):
        """A checkpoint, made through us or, with the stock handle, by libvirt."""
        (dom or self.dom).checkpointCreateXML(C.format(name))
        self.at[name] = {t: d.model.copy() for t, d in self.vm.disks.items()}

    def write(self, count=3):
        for target, disk in self.vm.disks.items():
            for _ in range(count):
                at = self.host.random.randrange(disk.size // CLUSTER) * CLUSTER
                self.vm.write(at, CLUSTER, self.host.random.randrange(1, 256), target)

    def copy(self, since, target='vda'):
        """An increment onto the disk as of a checkpoint, judged."""
        path = os.path.join(self.host.images, f'{since}-{target}.copy')
        images.write_image(path, self.at[since][target])
        jobs.start_copy(self.dom, target, path, bitmap=since, finish=True)
        jobs.wait_end(self.events, self.dom, target)
        images.expect_content(path, self.vm.disks[target].model, f'copy since {since}')
        os.unlink(path)

    def backup(self, since):
        Backup(self.vm, self.dom, since=since).begin().end(self.at[since])

    def texts(self, *names):
        """What a client keeps of them."""
        return {name: self.dom.checkpointLookupByName(name).getXMLDesc()
                for name in names}

    def define_again(self):
        """The domain under its uuid, with the same images; it runs."""
        vm = self.vm
        vm.dom = vm.conn.defineXML(
            vm.xml().replace('</name>', f'</name><uuid>{vm.uuid}</uuid>', 1))
        vm.start()
        self.connect()

    def gone(self):
        folder = store.folder(self.host, self.vm)
        wait_for(lambda: not os.path.exists(folder), 'the store forgets the domain')
        for disk in self.vm.disks.values():
            left = [name for name in images.bitmaps(disk.path)
                    if name.startswith('virtcheckpoint')]
            if left:
                raise Failure(f'{disk.path} has {left}')

    def check(self, *names):
        """What changed since: a copy of one disk, a backup of both."""
        for name in names:
            self.copy(name, self.host.random.choice(sorted(self.vm.disks)))
        self.backup(names[0])


def test_copies_since_libvirts_own(host):
    """A copy begins at a checkpoint of libvirt's: below overlays, beside ours, mirrored,
    aborted and pivoted; libvirt's bitmaps stay as they are and complete."""
    scene = Scene(host)
    vm = scene.vm
    scene.mark('theirs', vm.dom)
    scene.write()
    scene.mark('ours')
    scene.write()
    scene.copy('theirs')
    vm.snapshot('vda')
    scene.write()
    scene.check('theirs', 'ours')
    path = os.path.join(host.images, 'mirror.qcow2')
    images.write_image(path, scene.at['theirs']['vdb'])
    jobs.start_copy(scene.dom, 'vdb', path, bitmap='theirs')
    jobs.wait_ready(scene.events, 'vdb')
    scene.write()
    vm.pivot('vdb', scene.dom)
    jobs.wait_end(scene.events, scene.dom, 'vdb')
    vm.disks['vdb'].path = path
    scene.write()
    scene.check('theirs', 'ours')
    assert [c.getName() for c in vm.dom.listAllCheckpoints()] == ['theirs']


def test_redefined_after_an_undefine(host):
    """Undefine leaves no file of ours; of the domain that is defined again each
    checkpoint is redefined, validated or not, and knows all that changed since."""
    scene = Scene(host)
    for name in ('c1', 'c2', 'c3'):
        scene.mark(name)
        scene.write()
    texts = scene.texts('c1', 'c2', 'c3')
    scene.vm.destroy()
    scene.dom.undefineFlags(UNDEFINE)
    scene.gone()
    scene.define_again()
    scene.write()
    assert not scene.dom.listAllCheckpoints()
    for name, text in texts.items():
        scene.dom.checkpointCreateXML(text, REDEFINE | (VALIDATE if name != 'c2' else 0))
    assert sorted(c.getName() for c in scene.dom.listAllCheckpoints()) == sorted(texts)
    assert scene.dom.checkpointLookupByName('c3').getParent().getName() == 'c2'
    scene.check('c1', 'c2', 'c3')
    scene.mark('c4')
    scene.write()
    scene.check('c1', 'c4')


def test_redefined_after_their_metadata_went(host):
    """A delete of the metadata alone leaves the bits, of a guest that runs or is off; the
    one in the middle is redefined below its old parent, which is ours."""
    scene = Scene(host)
    for name in ('c1', 'c2', 'c3'):
        scene.mark(name)
        scene.write()
    texts = scene.texts('c2', 'c3')
    scene.dom.checkpointLookupByName('c2').delete(METADATA_ONLY)
    assert list(scene.vm.bitmaps('vda', ours=False)).count('c2') == 1
    scene.write()
    scene.vm.destroy()
    scene.dom.checkpointLookupByName('c3').delete(METADATA_ONLY)
    scene.vm.start()
    scene.write()
    assert [c.getName() for c in scene.dom.listAllCheckpoints()] == ['c1']
    for name in ('c2', 'c3'):
        scene.dom.checkpointCreateXML(texts[name], REDEFINE | VALIDATE)
    assert len(scene.vm.bitmaps('vda')) == 1
    scene.check('c1', 'c2', 'c3')
    # One of which nothing is left is no checkpoint, whoever its parent is.
    wrong = texts['c2'].replace("'c2'", "'c9'").replace('<name>c2<', '<name>c9<')
    try:
        scene.dom.checkpointCreateXML(wrong, REDEFINE)
        raise Failure('a checkpoint without bits was taken')
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT:
            raise


def test_undefined_while_it_runs(host):
    """A running domain whose metadata is to go keeps its checkpoints until it ends, past
    us; one that is only made transient keeps them for its return."""
    scene = Scene(host)
    vm = scene.vm
    scene.mark('c1')
    texts = scene.texts('c1')
    scene.write()
    xml = scene.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    scene.dom.undefineFlags(0)
    vm.conn.lookupByUUIDString(vm.uuid).destroy()
    vm.dom = vm.conn.defineXML(xml)
    vm.start()
    scene.connect()
    scene.write()
    scene.check('c1')
    scene.dom.undefineFlags(UNDEFINE)
    scene.mark('c2')
    scene.check('c2')
    host.kill_daemon()
    scene.write()
    vm.conn.lookupByUUIDString(vm.uuid).destroy()
    host.start_daemon()
    scene.gone()
    scene.define_again()
    assert not scene.dom.listAllCheckpoints()
    for name in ('c1', 'c2'):
        scene.dom.checkpointCreateXML(texts.get(name) or C.format(name).replace(
            '</name>', '</name><creationTime>1700000000</creationTime>'),
            REDEFINE | (VALIDATE if name in texts else 0))
    scene.check('c1')


def undefined(host, number, env):
    """A guest of two checkpoints is undefined under a daemon with env; what is left is
    settled by a plain one, and redefined.  TRUE if the daemon ended on the way."""
    scene = Scene(host, f'vm{number}', {'vda': 4 * MIB})
    for name in ('c1', 'c2'):
        scene.mark(name)
        scene.write()
    texts = scene.texts('c1', 'c2')
    scene.vm.destroy()
    host.stop_daemon()
    try:
        host.start_daemon(env=env)  # which settles, and may end in that
        scene.connect()
        scene.dom.undefineFlags(UNDEFINE)
    except (libvirt.libvirtError, Failure):
        wait_for(lambda: not host.daemon_running(), 'the daemon has ended')
    ended = not host.daemon_running()
    if ended:
        host.wait_daemon()
    else:
        host.stop_daemon()
    host.start_daemon()
    if scene.vm.name in [d.name() for d in scene.vm.conn.listAllDomains()]:
        host.connect(ours=True).lookupByName(scene.vm.name).undefineFlags(UNDEFINE)
    scene.gone()
    scene.define_again()
    for text in texts.values():
        scene.dom.checkpointCreateXML(text, REDEFINE | VALIDATE)
    scene.write()
    scene.backup('c1')
    scene.backup('c2')
    scene.vm.destroy()
    return ended


@limit(600)
def test_stopped_while_undefining(host):
    """The daemon stops dead between any two steps of an undefine: no bit is lost and no
    file stays."""
    log = os.path.join(host.logs, 'faults.log')
    undefined(host, 0, {'VIRT_CHECKPOINT_FAULTS_LOG': log})
    with open(log) as passed:
        names = passed.read().split()
    points = [f'{name}@{names[:at + 1].count(name)}' for at, name in enumerate(names)]
    assert any(point.startswith('leave/') for point in points), points
    chosen = points if host.all else host.random.sample(points, 3)
    for number, point in enumerate(chosen, 1):
        try:
            assert undefined(host, number, {'VIRT_CHECKPOINT_FAULTS': f'{point}=exit'})
        except Exception as error:
            raise Failure(f'stopped at {point}: {error}') from error
    print(f'#   {len(chosen)} of {len(points)} points', flush=True)
