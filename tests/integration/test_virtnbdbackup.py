"""virtnbdbackup, unmodified, through us: what it restores is the disk at its moment."""

import glob
import os
import shutil
import subprocess

from lib import images
from lib.domain import MIB, VM
from lib.host import Failure, wait_for
from lib.runner import Skip, limit

DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}


class Tool:
    """The tool and one of its backup folders."""

    def __init__(self, host, vm, name='backup'):
        for program in ('virtnbdbackup', 'virtnbdrestore'):
            if not shutil.which(program):
                raise Skip(f'{program} is not installed')
        self.host, self.vm = host, vm
        self.folder = os.path.join(host.images, name)
        self.moments = []  # [(level, {target: model})]

    def _run(self, program, *args, check=True):
        command = ['/usr/bin/' + program, '-U', self.host.uri(ours=True), '-n', *args]
        # The tool leaves logs of qemu-img where temporary files go.
        env = dict(os.environ, HOME=self.host.work, TMPDIR=self.host.work)
        done = subprocess.run(command, capture_output=True, text=True, timeout=100,
                              check=False, stdin=subprocess.DEVNULL,
                              cwd=self.host.work, env=env)
        if check and done.returncode != 0:
            raise Failure(f'{" ".join(command)}: {done.stderr[-1500:]}')
        return done

    def backup(self, level, *args, check=True):
        models = {t: d.model.copy() for t, d in self.vm.disks.items()}
        done = self._run('virtnbdbackup', '-d', self.vm.name, '-l', level, '-o',
                         self.folder, '-S', self.host.images, '-f',
                         os.path.join(self.host.work, 'tool.sock'), *args, check=check)
        if done.returncode == 0:
            self.moments.append((level, models))
        return done

    def dump(self):
        """The tool's own look at what it has written."""
        done = self._run('virtnbdrestore', '-i', self.folder, '-o', 'dump', '-L',
                         os.path.join(self.host.logs, 'dump.log'))
        return done.stdout + done.stderr

    def restore(self, until=None, sequence=None, target=None):
        out = os.path.join(self.host.images, 'restored')
        args = ['-L', os.path.join(self.host.logs, 'restore.log'), '-f',
                os.path.join(self.host.work, 'restore.sock')]
        if until:
            args += ['-u', until]
        if sequence:
            args += ['-s', ','.join(sequence), '-d', target]
        for _ in range(5):
            shutil.rmtree(out, ignore_errors=True)
            done = self._run('virtnbdrestore', '-i', self.folder, '-o', out, *args,
                             check=False)
            # The tool may connect before its own qemu-nbd listens.
            if done.returncode == 0 or 'Unable to connect nbd server' not in done.stderr:
                break
        if done.returncode != 0:
            raise Failure(f'virtnbdrestore {args}: {done.stderr[-1500:]}')
        return out

    def check(self, models, **how):
        """What is restored is what the models say."""
        out = self.restore(**how)
        for target, model in models.items():
            if how.get('target') not in (None, target):
                continue
            found = glob.glob(os.path.join(out, f'*{target}*'))
            if len(found) != 1:
                raise Failure(f'{target} was restored to {os.listdir(out)}')
            images.expect_content(found[0], model, f'restored {target}')

    def check_all(self):
        """The moments of the chain, or some of them, and the end of it."""
        chain = [models for level, models in self.moments if level in ('full', 'inc')]
        # Not the last: the whole restore is that, and a difference may have its name.
        for number, models in enumerate(chain[:-1]):
            if self.host.all or self.host.random.random() < 0.3:
                self.check(models, until=f'virtnbdbackup.{number}')
        self.check(chain[-1])

    def files(self, target, kind):
        return sorted(glob.glob(os.path.join(self.folder, f'{target}.{kind}.*data')),
                      key=os.path.getmtime)


def scribble(host, vm):
    """Writes to each disk: the tool overlooks --until at a file without data."""
    targets = sorted(vm.disks)
    for target in targets + host.random.choices(targets, k=2):
        size = vm.disks[target].size
        length = host.random.choice([512, 65536, 3 * 65536])
        at = host.random.randrange(0, (size - length) // 512) * 512
        vm.write(at, length, host.random.randrange(1, 256), target)


def started(host):
    host.start_daemon()
    vm = VM(host, disks=DISKS)
    tool = Tool(host, vm)
    scribble(host, vm)
    return vm, tool


def names(host, vm):
    return [c.getName() for c in
            host.connect(ours=True).lookupByName(vm.name).listAllCheckpoints()]


@limit(400)
def test_full_incremental_differential(host):
    """A chain of backups, each restored byte by byte; its checkpoints are ours."""
    vm, tool = started(host)
    tool.backup('full')
    for _ in range(3):
        scribble(host, vm)
        tool.backup('inc')
    assert names(host, vm) == [f'virtnbdbackup.{i}' for i in range(4)], names(host, vm)
    assert len(vm.bitmaps()) == 1 and not vm.dom.listAllCheckpoints()
    for _ in range(2):
        scribble(host, vm)
        tool.backup('diff')
        # The newest full, all increments, and this difference.
        for target in vm.disks:
            files = tool.files(target, 'full') + tool.files(target, 'inc') + \
                tool.files(target, 'diff')[-1:]
            tool.check(tool.moments[-1][1], sequence=[os.path.basename(f) for f in files],
                       target=target)
    scribble(host, vm)
    tool.backup('inc')
    tool.check_all()
    # A difference has the name of the checkpoint that the next increment will make, and
    # the tool stops at the first file of a name.
    first = next(models for level, models in tool.moments if level == 'diff')
    tool.check(first, until='virtnbdbackup.4')
    assert 'virtnbdbackup.3' in tool.dump(), tool.dump()
    vm.verify()


@limit(400)
def test_guest_and_daemon_restarted_in_between(host):
    """The chain goes on after a restart of the guest, of us and of libvirtd."""
    vm, tool = started(host)
    tool.backup('full')
    scribble(host, vm)
    vm.restart()
    scribble(host, vm)
    tool.backup('inc')
    host.kill_daemon()
    scribble(host, vm)
    host.start_daemon()
    tool.backup('inc')
    host.restart_libvirtd()
    vm.reconnect()
    scribble(host, vm)
    tool.backup('inc')
    tool.check_all()


@limit(400)
def test_killed_qemu_starts_over(host):
    """After the death of QEMU an increment is refused, a new chain works."""
    vm, tool = started(host)
    tool.backup('full')
    scribble(host, vm)
    tool.backup('inc')
    scribble(host, vm)
    vm.kill_qemu()
    vm.start()
    for target, disk in vm.disks.items():
        settle_model(vm, target, disk)
    done = tool.backup('inc', check=False)
    if done.returncode == 0 or 'create a new checkpoint' not in done.stderr:
        raise Failure(f'an increment over lost changes: {done.stderr[-800:]}')
    tool.check_all()
    again = Tool(host, vm, 'again')
    again.backup('full')
    scribble(host, vm)
    again.backup('inc')
    again.check_all()
    assert names(host, vm) == ['virtnbdbackup.0', 'virtnbdbackup.1'], names(host, vm)
    assert not vm.dom.listAllCheckpoints()


def settle_model(vm, target, disk):
    """What a killed QEMU had not flushed is gone: the disk says what it holds."""
    for offset, length, byte in list(disk.model.runs()):
        for at in range(offset, offset + length, 65536):
            size = min(65536, offset + length - at)
            if not vm.reads(at, size, byte, target):
                vm.write(at, size, byte, target)


@limit(400)
def test_killed_daemon_during_a_backup(host):
    """The tool fails while we are killed, and its next try is right."""
    vm, tool = started(host)
    tool.backup('full')
    scribble(host, vm)
    host.stop_daemon()
    host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': 'backup/adopted=exit'})
    done = tool.backup('inc', check=False)
    assert done.returncode != 0, 'the call was answered'
    host.wait_daemon()
    host.start_daemon()
    wait_for(lambda: names(host, vm) == ['virtnbdbackup.0'], 'the checkpoint goes')
    host.virsh('domjobabort', vm.name, check=False)
    for partial in glob.glob(os.path.join(tool.folder, '*.partial')):
        os.unlink(partial)
    scribble(host, vm)
    tool.backup('inc')
    scribble(host, vm)
    tool.backup('inc')
    tool.check_all()
