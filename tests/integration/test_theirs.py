"""Checkpoints that libvirt made itself, as the base of copies beside ours; and ours,
once their metadata was given up: what redefines them finds their bits in the images."""

import os

import libvirt

from lib import images, jobs
from lib.backups import Backup
from lib.domain import CLUSTER, MIB, VM
from lib.host import Failure, wait_for

C = '<domaincheckpoint><name>{}</name></domaincheckpoint>'
DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}


class Scene:
    """A guest, a client of ours, and what each disk held at each checkpoint."""

    def __init__(self, host, **options):
        self.host = host
        host.start_daemon()
        self.vm = VM(host, disks=dict(DISKS), **options)
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

    def check(self, *names):
        for name in names:
            for target in self.vm.disks:
                self.copy(name, target)
            self.backup(name)


def test_copies_since_libvirts_own(host):
    """A copy begins at a checkpoint of libvirt's: below overlays, beside ours, mirrored,
    aborted and pivoted; libvirt's bitmaps stay as they are and complete."""
    scene = Scene(host)
    vm = scene.vm
    scene.mark('theirs', vm.dom)
    scene.write()
    scene.mark('ours')
    scene.write()
    scene.check('theirs', 'ours')
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
