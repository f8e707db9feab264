"""Random sequences of everything, judged by content after each step.

The oracle keeps a copy of the model for every checkpoint: what each disk held at its
moment.  From that follows what must be true at rest, whatever came before:

 * each disk that a checkpoint covers has exactly one bitmap of ours, on its top node,
   recording; every other disk has none, and QEMU has no helper of ours left;
 * for every checkpoint and disk the bits since it, read from the sidecars and bitmaps
   themselves, cover every cluster in which the disk differs from that moment;
 * an incremental copy onto an image of that moment makes it equal to the disk, and so
   does an incremental backup.
"""

import os
import time

import libvirt

from . import backups, images, jobs, store
from .domain import CLUSTER, MIB, SECTOR
from .host import Failure, wait_for


class Moment:
    """A checkpoint: when, and what each covered disk held."""

    def __init__(self, name, models):
        self.name = name
        self.models = models  # target -> Model; covered disks only


class Oracle:
    """One domain, its checkpoints and the random operations on them."""

    def __init__(self, host, vm, rng, log=None):
        self.host, self.vm, self.rng = host, vm, rng
        self.moments = []  # oldest first
        self.done = []  # what was done, for a failure's report
        self.overlays = {}  # target -> [layers below the top, the newest last]
        self._number = 0
        self._log = log
        self.creating = None  # the Moment that a call was asked to make last
        self.copying = None  # the target of the last copy
        self.conn = self.dom = self.events = None
        self.connect()

    # Connections

    def connect(self):
        """A connection through our daemon and its events; also after restarts."""
        self.conn = self.host.connect(ours=True)
        self.dom = self.conn.lookupByName(self.vm.name)
        self.events = jobs.Events(self.conn)

    def running(self):
        return bool(self.vm.dom.isActive())

    def say(self, text):
        self.done.append(text)
        if self._log:
            self._log(text)

    # Choosing

    def _name(self):
        self._number += 1
        return f'c{self._number}'

    def _disk(self):
        return self.rng.choice(sorted(self.vm.disks))

    def _range(self, target):
        """A random range, whole clusters or not, small or not."""
        size = self.vm.disks[target].size
        unit = self.rng.choice([SECTOR, 4096, CLUSTER, CLUSTER])
        length = unit * self.rng.choice([1, 1, 2, 3, 7, 16])
        offset = self.rng.randrange(0, (size - length) // unit + 1) * unit
        return offset, length

    def path(self, what):
        return os.path.join(self.host.images, f'{what}-{time.monotonic_ns()}.qcow2')

    # Operations; each leaves the models right

    def write(self, count=None):
        """Some writes, zeroes and discards to any disk; a guest that is off has none."""
        if not self.running():
            return
        for _ in range(count or self.rng.randrange(1, 6)):
            target = self._disk()
            offset, length = self._range(target)
            kind = self.rng.choice(['write', 'write', 'write', 'zero', 'unmap', 'discard'])
            self.say(f'{kind} {target} {offset} {length}')
            if kind == 'write':
                self.vm.write(offset, length, self.rng.randrange(1, 256), target)
            elif kind == 'discard':
                self.vm.discard(offset, length, target)
            else:
                self.vm.zero(offset, length, target, unmap=kind == 'unmap')

    def create(self, disks=None):
        """A checkpoint of all disks, or of some."""
        name = self._name()
        targets = disks or sorted(self.vm.disks)
        if not disks and len(targets) > 1 and self.rng.random() < 0.3:
            targets = [self._disk()]
        self.say(f'create {name} of {targets}')
        xml = ''.join(f"<disk name='{t}' checkpoint="
                      f"'{'bitmap' if t in targets else 'no'}'/>"
                      for t in sorted(self.vm.disks))
        self.about_to_create(name, targets)
        self.dom.checkpointCreateXML(
            f'<domaincheckpoint><name>{name}</name><disks>{xml}</disks>'
            '</domaincheckpoint>', 0)
        self.moments.append(self.creating)
        return name

    def about_to_create(self, name, targets):
        self.creating = Moment(name, {t: self.vm.disks[t].model.copy() for t in targets})

    def delete(self):
        """The oldest, the newest or one in the middle; rarely its children, too."""
        if not self.moments:
            return
        at = self.rng.randrange(len(self.moments))
        name = self.moments[at].name
        flags = 0
        if self.rng.random() < 0.15:
            flags = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN
        self.say(f'delete {name} flags {flags}')
        self.dom.checkpointLookupByName(name).delete(flags)
        if flags:
            del self.moments[at:]
        else:
            del self.moments[at]

    def _since(self, target):
        """A random checkpoint that covers the disk, or None."""
        fitting = [m for m in self.moments if target in m.models]
        return self.rng.choice(fitting) if fitting else None

    def _start_copy(self, target, moment, path, checkpoint, finish):
        """Starts an incremental copy onto an image of the moment, or a full one."""
        if moment:
            images.write_image(path, moment.models[target])
        self.say(f'copy {target} since {moment and moment.name} checkpoint {checkpoint} '
                 f'{"finish" if finish else "mirror"} to {os.path.basename(path)}')
        self.copying = path
        if checkpoint:
            self.about_to_create(checkpoint, [target])
        jobs.start_copy(self.dom, target, path, moment and moment.name, checkpoint, finish)
        if checkpoint and finish:
            self.moments.append(self.creating)

    def finish(self, moment=None, target=None, checkpoint=None):
        """A copy that ends by itself: it is the disk at the time of the call."""
        if moment is None:
            target = target or self._disk()
            moment = self._since(target)
            if self.rng.random() < 0.4 or moment is None:
                checkpoint = self._name()
            if moment and self.rng.random() < 0.1:
                moment, checkpoint = None, self._name()  # a full copy
        path = self.path('finish')
        self._start_copy(target, moment, path, checkpoint, True)
        at_call = self.vm.disks[target].model.copy()
        if self.rng.random() < 0.5 and not self.vm.finish_follows:
            self.write()
        jobs.wait_end(self.events, self.dom, target)
        images.expect_content(path, at_call, f'finished copy of {target}')
        os.unlink(path)

    def mirror(self, target=None, pivot=None):
        """A live mirror that ends in a pivot, or in a copy that stands for that time; so
        does the checkpoint that comes with it."""
        target = target or self._disk()
        if self.overlays.get(target) or not self.running():
            return
        moment = self._since(target)
        pivot = self.rng.random() < 0.6 if pivot is None else pivot
        checkpoint = None
        if self.rng.random() < 0.4 or moment is None:
            checkpoint = self._name()
        path = self.path('mirror')
        self._start_copy(target, moment, path, checkpoint, False)
        self.write()
        jobs.wait_ready(self.events, target)
        self.write()
        disk = self.vm.disks[target]
        flags = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT if pivot else 0
        self.say('pivot' if pivot else 'end the mirror')
        at_end = disk.model.copy()
        if checkpoint:
            self.about_to_create(checkpoint, [target])
        self.dom.blockJobAbort(target, flags)
        wait_for(lambda: not self.dom.blockJobInfo(target, 0), f'{target}: job ends')
        self.events.wait(target, 'completed' if pivot else 'canceled', timeout=20)
        if checkpoint:
            self.moments.append(self.creating)
        if pivot:
            os.unlink(disk.path)
            disk.path = path
            if self.vm.source(target) != path:
                raise Failure(f'{target} is on {self.vm.source(target)}, not on {path}')
            self.vm.verify(target)
        else:
            images.expect_content(path, at_end, f'mirror of {target}')
            os.unlink(path)

    def backup(self):
        """A backup of some disks, push or pull, in full or since any checkpoint, maybe
        with a checkpoint of its own; a push may be aborted, and takes it back."""
        if not self.running():
            return
        targets = [t for t in sorted(self.vm.disks) if self.rng.random() < 0.8] or ['vda']
        since, bases = {}, {}
        for target in targets:
            moment = self._since(target)
            if moment and self.rng.random() < 0.8:
                since[target], bases[target] = moment.name, moment.models[target]
        # QEMU 7.2 dies when a client leaves an export of a disk with an iothread.
        push = self.rng.random() < 0.4 or self.vm.iothread
        name = self._name() if self.rng.random() < 0.5 else None
        self.say(f'{"push" if push else "pull"} of {targets} since {since} checkpoint {name}')
        if name:
            self.about_to_create(name, sorted(self.vm.disks))
        one = backups.Backup(self.vm, self.dom, since, name, targets, push).begin()
        if self.rng.random() < 0.5:
            self.write()
        if push and self.rng.random() < 0.3:
            self._abort(one)
            # It may have been over before.
            if name in [c.getName() for c in self.dom.listAllCheckpoints()]:
                self.moments.append(self.creating)
            return
        if name:
            self.moments.append(self.creating)
        one.end(bases)

    def _abort(self, one):
        self.say('abort the push')
        try:
            self.dom.abortJob()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                raise
        one.wait()
        one.clean()

    def snapshot(self):
        """An external snapshot by stock virsh on the stock socket."""
        target = self._disk()
        layers = self.overlays.setdefault(target, [])
        if len(layers) >= 2 or not self.running():
            return
        path = self.path('overlay')
        specs = []
        for other in sorted(self.vm.disks):
            specs += ['--diskspec', f'{other},snapshot=external,file={path}'
                      if other == target else f'{other},snapshot=no']
        self.say(f'stock snapshot of {target}')
        self.host.virsh('snapshot-create-as', self.vm.name, '--no-metadata', '--disk-only',
                        '--atomic', *specs)
        layers.append(self.vm.disks[target].path)
        self.vm.disks[target].path = path

    def commit(self):
        """An active commit of the newest overlay by stock virsh."""
        target = self._disk()
        layers = self.overlays.get(target)
        if not layers or not self.running():
            return
        base = layers.pop()
        self.say(f'stock commit of {target}')
        self.host.virsh('blockcommit', self.vm.name, target, '--base', base, '--active',
                        '--pivot', '--wait')
        os.unlink(self.vm.disks[target].path)
        self.vm.disks[target].path = base

    def restart_guest(self):
        self.say('restart the guest')
        if self.running():
            self.vm.destroy()
        self.start_guest()

    def stop_guest(self):
        """From now on it is off."""
        if self.running():
            self.say('stop the guest')
            self.vm.destroy()

    def start_guest(self):
        """Through our daemon, as users do, or past it."""
        if not self.running():
            ours = self.rng.random() < 0.5
            self.say('start the guest' + (' through us' if ours else ''))
            self.vm.start(self.dom if ours else None)

    def restart_daemon(self):
        """Our daemon ends, or is killed, and starts again."""
        kill = self.rng.random() < 0.5
        self.say('kill the daemon' if kill else 'restart the daemon')
        self.events.close()
        if kill:
            self.host.kill_daemon()
        else:
            self.host.stop_daemon()
        self.host.start_daemon()
        self.connect()
        self._looked()

    def _looked(self):
        """Waits for the new daemon's first look: a commit past us that ended with the old
        one and a snapshot before that look lose a segment without need (segments.md).
        Whoever asks for sizes waits."""
        flags = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE
        for moment in self.moments[-1:]:
            try:
                self.dom.checkpointLookupByName(moment.name).getXMLDesc(flags)
            except libvirt.libvirtError:
                pass  # as where tracking was lost, or the store's disk is full

    def restart_libvirtd(self):
        self.say('restart libvirtd')
        self.events.close()
        self.host.restart_libvirtd()
        self.vm.reconnect()
        self.connect()

    STEPS = (('write', 30), ('create', 14), ('delete', 6), ('finish', 10), ('mirror', 6),
             ('backup', 8), ('snapshot', 4), ('commit', 5), ('restart_guest', 3),
             ('restart_daemon', 3))

    def step(self):
        names, weights = zip(*self.STEPS)
        getattr(self, self.rng.choices(names, weights)[0])()

    # Judging

    def check_list(self):
        """The daemon lists exactly our checkpoints."""
        listed = {c.getName() for c in self.dom.listAllCheckpoints()}
        wanted = {m.name for m in self.moments}
        if listed != wanted:
            raise Failure(f'listed {sorted(listed)}, not {sorted(wanted)}')

    def check_rest(self, covered_disks=None):
        """One bitmap per covered disk and nothing else of ours in QEMU or the images."""
        if covered_disks is None:
            covered_disks = {t for m in self.moments for t in m.models}

        def wrong_off():
            found = []
            for target, disk in self.vm.disks.items():
                ours = {name: b for name, b in images.bitmaps(disk.path).items()
                        if name.startswith('virtcheckpoint')}
                covered = target in covered_disks
                if len(ours) != covered:
                    found.append(f'{target}: bitmaps {sorted(ours)}')
                found += [f'{target}: {name} does not record'
                          for name, b in ours.items() if not b.recording or b.in_use]
            return found

        def wrong():
            if not self.running():
                # What settles in the background writes the images.
                with store.locked(self.host, self.vm):
                    return wrong_off()
            found = list(self.vm.stray())
            for target in self.vm.disks:
                ours = self.vm.bitmaps(target)
                covered = target in covered_disks
                if len(ours) != covered:
                    found.append(f'{target}: bitmaps {sorted(ours)}')
                found += [f'{target}: {name} does not record'
                          for name, b in ours.items()
                          if not b['recording'] or not b['persistent'] or
                          b.get('inconsistent')]
            return found
        # Parking goes on after the answer.
        end = time.monotonic() + 20
        while wrong():
            if time.monotonic() > end:
                raise Failure(f'not at rest: {wrong()}')
            time.sleep(0.05)

    def check_sets(self):
        """Each checkpoint's bits cover all that differs."""
        models = {(target, moment.name): model for moment in self.moments
                  for target, model in moment.models.items()}
        found = store.since_each(self.host, self.vm, models)
        for moment in self.moments:
            for target, model in moment.models.items():
                changed = model.differing(self.vm.disks[target].model)
                covered = found[target, moment.name]
                if not changed <= covered:
                    missing = sorted(changed - covered)
                    raise Failure(f'{target} since {moment.name}: {len(missing)} changed '
                                  f'clusters are in no bitmap: {missing[:20]}')

    def check_copies(self):
        """An incremental finish since a checkpoint makes its kept copy right; of a dozen,
        when there are more: how long a test takes must not hang on what it drew."""
        pairs = [(m, target) for m in self.moments for target in m.models]
        for moment, target in self.rng.sample(pairs, min(12, len(pairs))):
            self.finish(moment, target)

    def check(self, copies=False):
        self.check_list()
        self.check_rest()
        self.check_sets()
        for target, disk in self.vm.disks.items():
            if self.running():
                self.vm.verify(target)
            else:
                images.expect_content(disk.path, disk.model, target, force=True)
        if copies:
            self.check_copies()
            self.check_rest()

    def run(self, seconds, every=8):
        """Random steps for some time; returns how many."""
        steps, end = 0, time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                for _ in range(every):
                    self.step()
                    steps += 1
                self.check(copies=self.rng.random() < 0.2)
            self.check(copies=True)
        except BaseException:
            with open(os.path.join(self.host.logs, 'oracle-steps.log'), 'w') as out:
                out.write('\n'.join(self.done) + '\n')
            raise
        return steps


__all__ = ['MIB', 'Moment', 'Oracle']
