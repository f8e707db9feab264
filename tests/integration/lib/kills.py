"""One case of the sweep's table: an operation, one of its points, who dies there.

The daemon holds at its Nth fault point; the guest writes; somebody is killed or the
guest is cut off; what died is started again, and the daemon goes on if it lives.  Then
everything is judged by content: a Case knows the few states that each thing may be in.
"""

import glob
import os
import shutil
import signal
import threading
import time
import xml.etree.ElementTree as ElementTree

import libvirt

from . import images, jobs, session, store
from .domain import CLUSTER, MIB
from .host import Failure, wait_for
from .oracle import Moment, Oracle
from .power import Power, possible

PARTIES = ('daemon', 'libvirtd', 'qemu', 'all', 'destroy', 'front')
LEFT_OUT = ''  # a line for whoever prints what was run
if possible():
    PARTIES += ('power',)
else:
    LEFT_OUT = '#   power is left out: only root can mount\n'
# Whose end may cost the active segment: bitmaps are in QEMU's memory only.
LOSES = ('qemu', 'all', 'host', 'power')
# QEMU is about to move to another file, and the definition names that already: a guest
# that dies there is put right before a start through us (docs/internals/mirror.md).
AHEAD = ('mirror/config-fixed', 'mirror/before-pivot', 'mirror/before-commit-pivot')
DISKS = {'vda': 4 * MIB, 'vdb': 2 * MIB}
SIZE = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE | libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN


def refused_by_lock(error):
    """QEMU did not get an image's lock, or had ended of that before libvirt reached its
    monitor, and libvirt says just that, or the last line of what QEMU said."""
    text = error.get_error_message()
    return any(part in text for part in ('lock', 'connect to monitor socket',
                                         'another process using the image'))


class Case:
    """A guest with its oracle, an operation on it, and what each thing may be.

    point: a number, or a name: the first time that it is passed.
    oracle.moments are checkpoints that must be there; maybe[name] are those that may
    be, each a list of Moments of which one must fit; targets[disk] is a copy's file.
    """

    undefine = 0  # flags; libvirt has none of its checkpoints left

    def __init__(self, host, operation, point, party):
        self.host, self.operation, self.party = host, operation, party
        self.number = point
        self.point = None  # its name, once it was reached
        self.maybe = {}
        self.targets = {}
        self.made, self.base, self.disk = 'made', 'c1', 'vda'  # what operations name
        self.known = set()  # files that may lie about
        self.error = None  # what the interrupted call said
        self.oracle = self.vm = None
        self.agent = None  # the QEMU in which its guest's agent was started
        self.gate = os.path.join(host.work, f'gate-{time.monotonic_ns()}')
        self._log = self.gate + '.log'
        self._writes = 0
        self._crashes = 0
        self._dead = None

    # The guest

    def write(self, flush=True):
        """One cluster of each disk; durable, so that a killed QEMU cannot lose it."""
        if not self.vm.dom.isActive():
            return
        self._writes += 1
        for target, disk in sorted(self.vm.disks.items()):
            at = self._writes * CLUSTER % disk.size
            self.vm.write(at, CLUSTER, self.host.random.randrange(1, 256), target)
            if flush:
                self.vm.flush(target)

    def fill(self):
        """All of vda: what a copy of it takes some time for."""
        self.vm.write(0, self.vm.disks['vda'].size, 0x77)
        self.vm.flush()

    def create(self, name):
        """A checkpoint of all disks that must be there from now on."""
        moment = self.moment(name)
        self.oracle.dom.checkpointCreateXML(
            f'<domaincheckpoint><name>{name}</name></domaincheckpoint>', 0)
        self.oracle.moments.append(moment)
        return moment

    def moment(self, name, targets=None):
        return Moment(name, {t: self.vm.disks[t].model.copy()
                             for t in targets or sorted(self.vm.disks)})

    def path(self, what):
        return os.path.join(self.host.images, f'{self.vm.name}-{what}')

    # The case

    def _start_daemon(self, **options):
        if self.party == 'front':
            self.host.front = os.path.join(self.host.run, 'virtqemud-sock')
            options['supervise'] = True
        supervise = ['--supervise'] if options.pop('supervise', False) else []
        self.host.start_daemon(*supervise, **options)

    def _kill_daemon(self):
        if self.party != 'front':
            self.host.kill_daemon()
            return
        # The supervisor starts another worker; the socket never goes away.
        for worker in session.children(self.host.daemon_pid()):
            os.kill(worker, signal.SIGKILL)

    def passed(self):
        """Names of the points passed so far, in order."""
        try:
            with open(self._log) as log:
                return log.read().split()
        except FileNotFoundError:
            return []

    def _held_at(self):
        """The name of the point, once it is reached."""
        names = self.passed()
        if self.number in names:
            return self.number
        if isinstance(self.number, int) and len(names) >= self.number:
            return names[self.number - 1]
        return None

    def _act(self):
        try:
            self.operation.act(self)
        except (libvirt.libvirtError, Failure) as error:
            self.error = error

    def _reached(self, thread):
        """TRUE when the daemon holds; FALSE if the operation ended before, and what it
        left to be done in the background."""
        ended = None
        while True:
            self.point = self._held_at()
            if self.point:
                return True
            if not thread.is_alive():
                ended = ended or time.monotonic()
                if time.monotonic() > ended + self.operation.background:
                    self._release()
                    return False
            time.sleep(0.005)

    def _release(self):
        with open(self.gate, 'w'):
            pass

    def _kill_qemu(self, notice):
        pid = self.operation.qemu(self)
        if not pid:
            return
        self._dead = pid
        os.kill(pid, signal.SIGKILL)
        if notice and self.vm.dom.isActive():
            wait_for(lambda: not self.vm.dom.isActive(), 'libvirt notices QEMU\'s death')

    def _disturb(self):
        """The party dies, the daemon goes on if it lives, what died is started."""
        early = self.host.random.random() < 0.5
        if self.party in ('daemon', 'front'):
            self._kill_daemon()
            self._release()
            if self.party == 'daemon':
                self._start_daemon()
        elif self.party == 'libvirtd':
            self.host.kill_libvirtd()
            if early:
                self._release()
            self.host.start_libvirtd()
            self._release()
        elif self.party == 'qemu':
            self._kill_qemu(not early)
            self._release()
        elif self.party == 'all':
            self._kill_qemu(False)
            self.host.kill_daemon()
            self.host.kill_libvirtd()
            self.host.start_libvirtd()
            self._start_daemon()
        elif self.party == 'power':
            self.host.power.cut()
            self.host.start_libvirtd()
            self._start_daemon()
        elif self.party == 'destroy':
            self._destroy()
            self._release()

    def _returns(self, thread):
        """TRUE when the call has returned.  Libvirt 9.0 may answer neither a backup's
        begin in whose course the guest is destroyed nor that destroy
        (docs/internals/backup.md): it is ended then, and the call must return."""
        stuck = self.operation.hangs_libvirt and self.party == 'destroy'
        thread.join(30 if stuck else 60)
        if stuck and thread.is_alive():
            print('#   libvirtd does not answer: it is ended', flush=True)
            self.host.restart_libvirtd(signal.SIGKILL)
            thread.join(30)
        return not thread.is_alive()

    def _destroy(self):
        """The guest is off afterwards."""
        failed = []

        def cut():
            try:
                self.vm.destroy()
            except libvirt.libvirtError as error:
                failed.append(error)
        thread = threading.Thread(target=cut, daemon=True)
        thread.start()
        if not self._returns(thread):
            raise Failure('the guest cannot be destroyed')
        if failed and self.vm.conn.isAlive():
            raise failed[0]
        if failed:
            self.vm.reconnect()
            failed.clear()
            cut()
        if failed and self.vm.dom.isActive():
            raise failed[0]

    def _await(self, thread):
        """Waits until the operation returns."""
        if not self._returns(thread):
            raise Failure(f'{self.operation.name} does not return')

    def _power_on(self):
        """What can be cut."""
        self.host.kill_libvirtd()
        Power(self.host)
        self.host.start_libvirtd()

    def settle_disks(self, *names):
        """What a user did long ago, or libvirt by its own order, is on these disks."""
        if self.host.power:
            self.host.power.settle(*names)

    def _goes_on_writing(self):
        """What the guest flushes takes along what others did in that file system."""
        return self.party != 'power' or self.host.random.random() < 0.5

    def run(self):
        """TRUE if the point was reached; raises Failure with what is wrong."""
        if self.party == 'power':
            self._power_on()
        self._start_daemon()
        self.vm = self.operation.guest(self.host, f'sweep{time.monotonic_ns()}', DISKS)
        self.oracle = Oracle(self.host, self.vm, self.host.random)
        self.operation.setup(self)
        self.oracle.events.close()
        self.host.stop_daemon()
        self.operation.between(self)
        # Libvirt 9.0 renames its files and does not sync the folder.
        self.settle_disks('etc', 'lib')
        where = self.number if isinstance(self.number, str) else f'*@{self.number}'
        self._start_daemon(env={
            'VIRT_CHECKPOINT_FAULTS': f'{where}=hold:{self.gate}',
            'VIRT_CHECKPOINT_FAULTS_LOG': self._log})
        thread = threading.Thread(target=self._act, daemon=True)
        self.oracle.connect()
        thread.start()
        reached = self._reached(thread)
        if reached:
            if not self.operation.still and self._goes_on_writing():
                self.write()
                self.operation.written(self)
            self._disturb()
        self._await(thread)
        if not reached and self.error:
            raise Failure(f'undisturbed, and {self.error}')
        self._judge()
        return reached

    # The judge

    def _up_again(self):
        """All parties run; the guest was started through us or past us."""
        if not self.host.daemon_running():
            raise Failure('the daemon ended by itself')
        if not self.host.libvirtd_running():
            self.host.start_libvirtd()  # 9.0 may die of a QEMU that died before it
        self.vm.reconnect()
        self.oracle.connect()
        # Until libvirt has noticed a dead QEMU every question ends in its monitor.
        wait_for(lambda: not self._dead or not self.vm.dom.isActive() or
                 self.host.qemu_pid(self.vm.name) != self._dead,
                 'libvirt notices the death of QEMU')
        if self.operation.off or self.vm.dom.isActive():
            return
        ours = self.host.random.random() < 0.5 or self.point in AHEAD or self.operation.ahead
        dom = self.oracle.dom if ours else self.vm.dom
        wait_for(lambda: self._started(dom), 'the guest starts', 30, 0.2)

    def _started(self, dom):
        """Past us somebody may meet the lock of an image that is being looked into; and
        libvirt 9.0 may take the new QEMU for dead, too, when the old one died under a
        monitor command (checkpoint_checkpoints.c)."""
        try:
            self.vm.start(dom)
        except libvirt.libvirtError as error:
            if dom is self.vm.dom and refused_by_lock(error):
                return False
            if self._dead and 'domain is no longer running' in error.get_error_message():
                return False
            if not self.vm.dom.isActive():
                raise
        return True

    def end_copies(self):
        for target in self.targets:
            def over(target=target):
                return not jobs.shown(self.oracle.dom, target)
            try:
                wait_for(over, 'the copy ends by itself', 3)
            except Failure:
                self._end_mirror(target, over)

    def _end_mirror(self, target, over):
        def attempt():
            try:
                self.oracle.dom.blockJobAbort(target, 0)
            except libvirt.libvirtError:
                return over()
            return True
        wait_for(attempt, f'{target}: the copy can be ended', 60, 0.1)
        # Its checkpoint stands for the moment at which the copy is ended.
        for moments in self.maybe.values():
            moments.append(self.moment(moments[0].name, list(moments[0].models)))
        wait_for(over, f'{target}: the copy ends', 60)

    def _follow_disks(self):
        """Each disk is on its file or on a copy's, by either definition."""
        for target, disk in self.vm.disks.items():
            known = [disk.path] + [self.targets[t] for t in self.targets if t == target]
            live = self.vm.source(target)
            saved = self.vm.source(target, inactive=True)
            if live not in known or saved != live:
                raise Failure(f'{target}: is on {live}, defined as {saved}; known {known}')
            self.known.add(disk.path)
            disk.path = live

    def _fits(self, moment):
        """What is wrong with a checkpoint that stands for this moment, or None."""
        for target, model in moment.models.items():
            if target in store.lost(self.host, self.vm, moment.name):
                continue
            changed = model.differing(self.vm.disks[target].model)
            covered = store.since(self.host, self.vm, target, moment.name)
            if not changed <= covered:
                return f'{target} since {moment.name}: {sorted(changed - covered)} missing'
        return None

    def _learn_list(self):
        """Which of the checkpoints in doubt exist, and for which moment they stand."""
        listed = {c.getName() for c in self.oracle.dom.listAllCheckpoints()}
        must = {m.name for m in self.oracle.moments}
        if not must - set(self.maybe) <= listed or not listed <= must | set(self.maybe):
            raise Failure(f'listed {sorted(listed)}, not {sorted(must)} and maybe '
                          f'{sorted(self.maybe)}')
        self.oracle.moments = [m for m in self.oracle.moments if m.name in listed]
        for name, moments in self.maybe.items():
            if name not in listed or name in {m.name for m in self.oracle.moments}:
                continue
            wrong = [self._fits(moment) for moment in moments]
            if None not in wrong:
                raise Failure(f'{name} stands for no moment: {wrong}')
            self.oracle.moments.append(moments[wrong.index(None)])

    def _told(self, name):
        """The disks of which a client that asks for sizes is told of a loss."""
        one = self.oracle.dom.checkpointLookupByName(name)
        covered = {d.get('name') for d in ElementTree.fromstring(
            one.getXMLDesc(SIZE & ~libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE)).iter('disk')
            if d.get('checkpoint') == 'bitmap'}
        try:
            root = ElementTree.fromstring(one.getXMLDesc(SIZE))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT:
                raise
            return covered
        return covered - {d.get('name') for d in root.iter('disk') if d.get('size')}

    def _settle(self):
        """Whoever asks for sizes waits for what goes on with the domain, and settles it.
        A deletion whose client lost its connection may be about to end."""
        for one in self.oracle.dom.listAllCheckpoints():
            try:
                self._told(one.getName())
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT or \
                        one.getName() not in self.maybe:
                    raise

    def _qemu_died(self):
        """By our hand or its own: QEMU 7.2 ends with an assertion when a guest is
        destroyed while a backup runs."""
        crashes = self.host.domain_log(self.vm.name).count('Assertion')
        before, self._crashes = self._crashes, crashes
        return crashes > before or (self.party in LOSES and not self.operation.off)

    def _judge_loss(self):
        """Lost is only what may be, and whoever asks is told so."""
        may = self.operation.loses or self._qemu_died()
        for moment in list(self.oracle.moments):
            lost = store.lost(self.host, self.vm, moment.name)
            if lost & set(moment.models) and not may:
                raise Failure(f'{moment.name}: {lost} lost')
            told = self._told(moment.name)
            if told != lost:
                raise Failure(f'{moment.name}: lost {lost}, told {told}')
            for target in lost & set(moment.models):
                del moment.models[target]

    def _files(self):
        """Files that nobody should have left."""
        found = []
        known = {d.path for d in self.vm.disks.values()} | self.known
        for path in glob.glob(os.path.join(self.host.images, self.vm.name + '*')):
            if path not in known:
                found.append(os.path.basename(path))
        folder = store.folder(self.host, self.vm)
        used = {'lock', 'journal', 'released', 'host'}
        for record in store.records(self.host, self.vm):
            if record.state != 'ready':
                found.append(f'{record.name} is {record.state}')
            used.add(os.path.basename(record.path))
            for segment in record.segments.values():
                used |= set(segment.sidecars)
        if os.path.isdir(folder):
            found += [name for name in os.listdir(folder) if name not in used and
                      not any(part in name for part in self.operation.leaves)]
        return found + self._theirs()

    def _theirs(self):
        """What libvirt's next start takes for checkpoints of its own: it is lent some for
        a backup only."""
        folder = os.path.join(session.FOLDERS['lib'], 'qemu', 'checkpoint', self.vm.name)
        theirs = self.undefine & libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        if theirs or not os.path.isdir(folder):
            return []
        return os.listdir(folder)

    def _judge_rest(self):
        covered = {t for r in store.records(self.host, self.vm) for t in r.segments}
        self.oracle.check_rest(covered)
        try:
            wait_for(lambda: not self._files(), 'nothing is left over', 15)
        except Failure:
            raise Failure(f'left over: {self._files()}') from None

    def _judge(self):
        self.oracle.events.close()
        self._up_again()
        self.operation.settle(self)
        self.end_copies()
        wait_for(self.quiet, 'no copy is recorded', 30)
        self._settle()
        self._follow_disks()
        self._learn_list()
        self._judge_loss()
        self._judge_all()
        self.operation.judge(self)
        self._again()

    def quiet(self):
        folder = store.folder(self.host, self.vm)
        return not glob.glob(os.path.join(folder, '*.job.xml'))

    def _judge_all(self):
        self._judge_rest()
        self.oracle.check_list()
        self.oracle.check_sets()
        for target, disk in self.vm.disks.items():
            if self.vm.dom.isActive():
                self.vm.verify(target)
            else:
                images.expect_content(disk.path, disk.model, target, force=True)

    def _again(self):
        """The same operation works now, and so does everything else."""
        self.operation.again(self)
        self._follow_disks()
        self.write()
        self.create('afterwards')
        self.write()
        path = self.path('afterwards')
        self.known.add(path)
        images.write_image(path, self.oracle.moments[-1].models['vda'])
        self.oracle.events.forget()
        jobs.start_copy(self.oracle.dom, 'vda', path, 'afterwards', finish=True)
        jobs.wait_end(self.oracle.events, self.oracle.dom, 'vda')
        images.expect_content(path, self.vm.disks['vda'].model, 'the copy afterwards')
        os.unlink(path)
        self.oracle.dom.checkpointLookupByName('afterwards').delete(0)
        self.oracle.moments.pop()
        self._judge_all()

    def close(self):
        """Whatever happened: all parties up, nothing left of the guest."""
        self._release()
        if self.oracle:
            self.oracle.events.close()
        try:
            self._end_daemon()
        finally:
            self.host.kill_libvirtd()
            self.host.start_libvirtd()
        self._forget()
        if self.host.power:
            self.host.kill_libvirtd()
            self.host.power.close()
            self.host.start_libvirtd()

    def _end_daemon(self):
        """A worker serves on without its supervisor, so that must start none while both
        are killed."""
        workers = []
        if self.party == 'front' and self.host.daemon_running():
            pid = self.host.daemon_pid()
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: session.state(pid) in 'TZ', 'the supervisor stands still')
            workers = session.children(pid)
        self.host.kill_daemon()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)

    def _forget(self):
        if self.party == 'front' and os.path.exists(self.host.front):
            os.unlink(self.host.front)
        self.host.front = os.path.join(self.host.run, 'virtcheckpointd-sock')
        for path in glob.glob(self.gate + '*'):
            os.unlink(path)
        if not self.vm:
            return
        pid = self.host.qemu_pid(self.vm.name)
        if pid and os.path.exists(f'/proc/{pid}'):
            os.kill(pid, signal.SIGKILL)
        self.vm.reconnect()
        wait_for(lambda: not self.vm.dom.isActive(), 'libvirt notices QEMU\'s death')
        try:
            self.vm.dom.undefineFlags(self.undefine)
        except libvirt.libvirtError:
            # What failed may have left libvirt's checkpoint; the next case begins anew.
            self.vm.dom.undefineFlags(
                self.undefine | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        shutil.rmtree(store.folder(self.host, self.vm), ignore_errors=True)
        for path in glob.glob(os.path.join(self.host.images, '*')):
            os.unlink(path)
