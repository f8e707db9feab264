"""Backups by libvirt, begun through either daemon: push and pull, judged by content."""

import os
import subprocess
import time
import xml.etree.ElementTree as ElementTree

import libvirt

from . import images
from .domain import CLUSTER, qemu_img
from .host import Failure, wait_for

NO_JOB = libvirt.VIR_ERR_NO_DOMAIN_BACKUP


class Backup:
    """One backup of some disks of a VM; the domain is the client's handle.

    since: a checkpoint's name, or {target: name or None}.  A pull backup is served on a
    Unix socket until end() or abort(); a push one is awaited by end().
    """

    def __init__(self, vm, dom, since=None, checkpoint=None, disks=None, push=False,
                 checkpoint_disks=None, flags=0):
        self.vm, self.dom, self.push = vm, dom, push
        self.disks = disks or sorted(vm.disks)
        self.since = since if isinstance(since, dict) else dict.fromkeys(self.disks, since)
        self.whole = since if isinstance(since, str) else None
        self.checkpoint = checkpoint
        self.checkpoint_disks = checkpoint_disks
        self.flags = flags
        stamp = time.monotonic_ns()
        self.paths = {t: os.path.join(vm.host.images, f'backup-{stamp}-{t}.qcow2')
                      for t in self.disks}
        self.socket = os.path.join(vm.host.work, f'nbd-{stamp}.sock')
        self.models = None

    def server(self):
        return f"<server transport='unix' socket='{self.socket}'/>"

    def attributes(self, target):
        """More of what a disk's element says; overridden."""
        return ''

    def xml(self):
        inner = f'<incremental>{self.whole}</incremental>' if self.whole else ''
        if not self.push:
            inner += self.server()
        disks = ''
        for target in sorted(self.vm.disks):
            if target not in self.disks:
                disks += f"<disk name='{target}' backup='no'/>"
                continue
            mode = ''
            if not self.whole and self.since.get(target):
                mode = f"backupmode='incremental' incremental='{self.since[target]}'"
            elif not self.since.get(target):
                mode = "backupmode='full'"
            kind = ('target' if self.push else 'scratch')
            disks += (f"<disk name='{target}' backup='yes' type='file' {mode} "
                      f"{self.attributes(target)}><driver type='qcow2'/><{kind} file='{self.paths[target]}'/>"
                      '</disk>')
        mode = 'push' if self.push else 'pull'
        return f"<domainbackup mode='{mode}'>{inner}<disks>{disks}</disks></domainbackup>"

    def checkpoint_xml(self):
        if not self.checkpoint:
            return None
        disks = ''
        if self.checkpoint_disks is not None:
            disks = '<disks>' + ''.join(
                f"<disk name='{t}' checkpoint="
                f"'{'bitmap' if t in self.checkpoint_disks else 'no'}'/>"
                for t in sorted(self.vm.disks)) + '</disks>'
        return (f'<domaincheckpoint><name>{self.checkpoint}</name>{disks}'
                '</domaincheckpoint>')

    def begin(self):
        self.models = {t: d.model.copy() for t, d in self.vm.disks.items()}
        self.dom.backupBegin(self.xml(), self.checkpoint_xml(), self.flags)
        return self

    def running(self):
        try:
            self.dom.backupGetXMLDesc(0)
            return True
        except libvirt.libvirtError as error:
            if error.get_error_code() != NO_JOB:
                raise
            return False

    def shown(self):
        """The names of checkpoints in the job's XML, as the client reads it."""
        root = ElementTree.fromstring(self.dom.backupGetXMLDesc(0))
        names = {e.text for e in root.iter('incremental')}
        return names | {d.get('incremental') for d in root.iter('disk')
                        if d.get('incremental')}

    # What the backup holds

    def export(self, target):
        return f'nbd+unix:///{target}?socket={self.socket}'

    def bitmap(self, target):
        return 'backup-' + target

    def image(self, target):
        """The export, as arguments of qemu-img."""
        return [self.export(target)]

    def dirty(self, target):
        """The 64 KiB clusters that a pull backup calls changed."""
        done = subprocess.run(
            ['nbdinfo', '--map=qemu:dirty-bitmap:' + self.bitmap(target),
             self.export(target)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f'nbdinfo: {done.stderr}')
        found = set()
        for line in done.stdout.splitlines():
            offset, length, kind = line.split()[:3]
            if int(kind) & 1:
                found.update(range(int(offset) // CLUSTER,
                                   (int(offset) + int(length) - 1) // CLUSTER + 1))
        return found

    def judge(self, target, base=None):
        """What was backed up on top of the base model is the disk at the begin."""
        wanted = self.models[target]
        if self.push:
            path = self.paths[target]
            if base is None:
                images.expect_content(path, wanted, f'backup of {target}')
                return
            lower = path + '.base'
            images.write_image(lower, base)
            qemu_img('rebase', '-u', '-F', 'qcow2', '-b', lower, path)
            images.expect_content(path, wanted, f'incremental backup of {target}')
            os.unlink(lower)
            return
        copy = self.paths[target] + '.copy'
        qemu_img('convert', '-O', 'raw', *self.image(target), copy)
        images.expect_content(copy, wanted, f'export of {target}', 'raw')
        os.unlink(copy)
        if base is not None:
            missing = wanted.differing(base) - self.dirty(target)
            if missing:
                raise Failure(f'{target}: {len(missing)} changed clusters are not called '
                              f'so: {sorted(missing)[:20]}')

    # Ends

    def wait(self, timeout=60):
        wait_for(lambda: not self.running(), 'the backup ends', timeout)

    def abort(self):
        self.dom.abortJob()
        self.wait()
        self.clean()

    def clean(self):
        for path in self.paths.values():
            if os.path.exists(path):
                os.unlink(path)

    def end(self, bases=None):
        """Judges it (bases: what the incremental parts go on top of) and ends it."""
        if self.push:
            self.wait()
            # Libvirt shows no job a moment before QEMU gives up the images.
            wait_for(lambda: not any(map(images.in_use, self.paths.values())),
                     'the targets are closed')
        for target in self.disks:
            base = (bases or {}).get(target) if self.since.get(target) else None
            self.judge(target, base)
        if not self.push:
            self.dom.abortJob()
            self.wait()
        self.clean()


__all__ = ['Backup']
