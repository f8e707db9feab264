"""Every ending of a copy in every phase, for every kind of target: one table.

A cell is (ending, phase, kind of target).  impossible() says of each one that is not run
why it cannot happen.  A run without --all takes some cells by its seed; all cells of a
run share one guest, so each begins where another one ended.

Of QEMU's own bitmap mirror there is a table of its own: its target makes no difference,
but it has phases of its own.  Before it is ready that is one, 'bulk'; a pivot takes it
through the ordinary way's, 'relay' stands for these.
"""

import itertools
import json
import os
import signal
import subprocess

import libvirt
import libvirt_qemu

from lib import images, jobs, paths
from lib.domain import MIB, VM, qemu_img
from lib.host import Failure, wait_for
from lib.native import emulator
from lib.runner import Skip, limit, slow
from lib.scene import Scene
from lib.targets import Loop, Nbd, block_xml

SIZE = 16 * MIB
PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
PHASES = ('preparing', 'overlaying', 'bulk', 'live', 'ready', 'committing')
ENDINGS = ('finish', 'pivot', 'abort', 'timeout', 'interrupt', 'quit', 'destroy', 'kill',
           'full', 'gone', 'source error')
KINDS = ('qcow2', 'raw', 'block', 'nbd')
POINTS = {'preparing': 'mirror/overlay-created', 'overlaying': 'mirror/after-snapshot',
          'live': 'mirror/before-copy', 'committing': 'mirror/before-commit'}
NATIVE_PHASES = ('preparing', 'bulk', 'ready', 'relay')
NATIVE_POINTS = {'preparing': 'mirror/before-native', 'relay': 'mirror/native-left'}
UNANSWERED = ('preparing', 'overlaying')


def impossible(ending, phase, kind):
    """Why a cell is not run, or None."""
    if ending == 'finish' and phase not in ('bulk', 'ready'):
        return 'a copy finishes out of its bulk pass, or when it is stopped as ready'
    if ending in ('timeout', 'interrupt') and phase in ('preparing', 'overlaying'):
        return 'virsh waits for the answer to its call first: then it is the bulk pass'
    if ending in ('timeout', 'interrupt') and phase in ('ready', 'committing'):
        return 'virsh has stopped waiting, or has asked for the end already'
    if ending == 'full' and phase not in ('bulk', 'live', 'ready'):
        return 'nothing is written to the target'
    if ending == 'gone' and phase not in ('bulk', 'live', 'ready'):
        return 'nothing is read from or written to the target'
    if ending == 'gone' and kind == 'block':
        return 'a device that is open does not go away; it fails, as a full one does'
    if ending == 'gone' and kind != 'nbd' and phase != 'live':
        return 'the file is open: its name may go, and it is as good as before'
    if ending == 'source error' and phase != 'bulk':
        return 'only the bulk pass reads the source'
    if ending == 'source error' and kind != 'qcow2':
        return 'what is read is read before any target: one kind stands for all'
    return None


def impossible_native(ending, phase):
    """The same of QEMU's own bitmap mirror."""
    if ending == 'finish' and phase not in ('bulk', 'ready'):
        return 'a copy finishes by itself when it is ready, or is stopped then'
    if ending in ('timeout', 'interrupt') and phase != 'bulk':
        return 'virsh waits from its call on until the job is ready'
    if ending == 'full' and phase not in ('bulk', 'ready'):
        return 'nothing is written to the target; the relay is the ordinary way'
    if ending == 'gone':
        return 'the file is open: its name may go, and it is as good as before'
    if ending == 'source error':
        return 'one job reads and writes; which of them failed it does not tell'
    return None


def cells():
    return [cell for cell in itertools.product(ENDINGS, PHASES, KINDS)
            if not impossible(*cell)]


def native_cells():
    return [(ending, phase, 'qcow2') for ending in ENDINGS for phase in NATIVE_PHASES
            if not impossible_native(ending, phase)]


class Target:
    """A place for a copy that holds the disk as of the base; a with block."""

    def __init__(self, table, kind, small=False):
        self.table, self.kind = table, kind
        self.host = table.host
        table.count += 1
        self.folder = self.host.images
        self.name = f'target-{table.count}'
        self.server = self.loop = self.mounted = None
        self.fmt = 'qcow2' if kind == 'qcow2' else 'raw'
        if small:
            self.folder = self.mounted = os.path.join(self.host.work, self.name)
            os.makedirs(self.mounted)
            subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=48m', 'none', self.mounted],
                           check=True)
        self.path = os.path.join(self.folder, self.name)
        self.xml = None

    def __enter__(self):
        if self.kind == 'block':
            self.loop = Loop(self.host, self.name, SIZE)
            self.loop.file = os.path.join(self.folder, self.name)
            self.loop.__enter__()
            self.path = self.loop.path
            self.xml = block_xml(self.path, 'raw')
        if self.mounted and self.loop:
            pass  # it has no block yet
        elif self.mounted:  # what is there already needs no room
            qemu_img('create', '-q', '-f', self.fmt, self.path, str(SIZE))
        else:
            qemu_img('convert', '-n' if self.loop else '-q', '-f', 'raw', '-O', self.fmt,
                     self.table.base_copy, self.path)
        if self.kind == 'nbd':
            self.server = Nbd(self.host, self.name, SIZE)
            if self.mounted:
                self.server.path = self.path
            self.server.start()
            self.xml = self.server.xml
        return self

    def __exit__(self, *_):
        if self.server:
            self.server.stop()
        if self.loop:
            self.loop.__exit__()
        if self.mounted:
            subprocess.run(['umount', '-l', self.mounted], check=True)

    def fill(self):
        """Leaves no room, not even for what is there already to be written anew."""
        used = os.stat(self.loop.file if self.loop else self.path).st_blocks * 512
        subprocess.run(['mount', '-o', f'remount,size={max(used, 65536)}', self.mounted],
                       check=True)

    def go(self):
        if self.server:
            self.server.stop(signal.SIGKILL)
        else:
            os.unlink(self.path)


class Table:
    """One guest, its base checkpoint, and a file with the disk as of that."""

    points = POINTS
    waiting = ('preparing', 'overlaying', 'live', 'committing')  # phases held at a point
    emulator = {}

    def __init__(self, host):
        self.host = host
        self.scene = Scene(host, self.make_vm('vm', {'vda': SIZE}))
        self.vm = self.scene.vm
        self.count = 0
        self.base = None
        self.base_copy = os.path.join(host.images, 'base.raw')
        self.gate = os.path.join(host.work, 'gate')
        self.log = os.path.join(host.work, 'passed')
        self.vm.write(0, 2 * MIB, 0x11)
        self.renew()

    def make_vm(self, name, disks, **options):
        return VM(self.host, name, disks, **self.emulator, **options)

    def renew(self):
        """A new base: what was tracked before may have ended with a QEMU."""
        self.count += 1
        old, self.base = self.base, f'base{self.count}'
        if os.path.exists(self.base_copy):
            os.unlink(self.base_copy)
        qemu_img('create', '-q', '-f', 'raw', self.base_copy, str(SIZE))
        self.scene.copy(self.base_copy, checkpoint=self.base, fmt='raw')
        if old:
            self.scene.dom.checkpointLookupByName(old).delete()

    def write(self, offset, length):
        self.vm.write(offset, length, self.host.random.randrange(1, 255))

    def native_copies(self):
        return self.host.daemon_log().count("copying by QEMU's own bitmap mirror")

    # Into a phase

    def daemon(self, point=None):
        """A new daemon; it waits at that point."""
        for path in (self.gate, self.log):
            if os.path.exists(path):
                os.unlink(path)
        env = {'VIRT_CHECKPOINT_FAULTS_LOG': self.log}
        if point:
            env['VIRT_CHECKPOINT_FAULTS'] = f'{point}=hold:{self.gate}'
        self.scene.events.close()
        self.host.restart_daemon(env=env)
        self.scene.connect()

    def release(self):
        with open(self.gate, 'w', encoding='ascii'):
            pass

    def await_point(self, phase):
        def seen():
            return os.path.exists(self.log) and \
                self.points[phase] in open(self.log, encoding='ascii').read().split()
        wait_for(seen, f'the daemon comes to {self.points[phase]}')

    def begin(self, target, phase, **params):
        """Starts a copy and returns when it is in the phase; the call, if it waits."""
        params.update(bitmap=self.base, xml=target.xml, fmt=target.fmt,
                      flags=libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT)
        args = (self.scene.dom, 'vda', target.path)

        def start():
            jobs.start_copy(*args, **params)
        if phase in UNANSWERED:
            call = jobs.Later(start)
            self.await_point(phase)
            return call
        start()
        if phase in ('ready', 'relay'):
            jobs.wait_ready(self.scene.events, 'vda')
        if phase == 'relay':
            # The answer comes with the end, which is judged by the events.
            jobs.Later(self.scene.dom.blockJobAbort, 'vda', PIVOT)
            self.await_point(phase)
        elif phase == 'committing':
            self.await_point(phase)
        elif phase == 'live':
            self.await_point(phase)
            self.write(8 * MIB, 6 * MIB)
            self.scene.dom.blockJobSetSpeed('vda', 1, 0)
        return None

    def go_live(self):
        """Lets the copy of the overlay begin, and waits until it copies."""
        self.release()
        wait_for(lambda: self.vm.dom.blockJobInfo('vda', 0), 'libvirt copies')
        info = self.scene.dom.blockJobInfo('vda', 0)
        if info['cur'] >= info['end']:
            raise Failure(f'ready too early: {info}')

    # After it

    def ended(self, *wanted):
        status = self.scene.events.wait('vda', 'completed', 'failed', 'canceled')
        if status not in wanted:
            raise Failure(f'the copy {status}, not one of {wanted}')
        why = self.why()
        if (status == 'failed') != bool(why):
            raise Failure(f'the copy {status}, and why is {why}')
        return status

    def why(self):
        """What the daemon tells of the last copy that failed."""
        return json.loads(libvirt_qemu.qemuMonitorCommand(self.scene.dom, json.dumps({
            'execute': 'virtcheckpoint-job-error', 'arguments': {'disk': 'vda'}}),
            0))['return'].get('message')

    def restart(self, at_rest):
        """The guest is off: the image is whole, nothing is left; it starts again."""
        wait_for(lambda: not self.vm.dom.isActive(), 'libvirt knows that it is off')
        wait_for(lambda: not self.scene.job_files(), 'the job is settled')
        self.scene.settled()
        images.expect_content(self.vm.disks['vda'].path, at_rest, 'the image at rest')
        self.vm.start()
        self.vm.disks['vda'].alias = ''

    def judge(self, killed=False):
        """The guest runs, tracked, with nothing left; its base checkpoint is good."""
        scene, vm = self.scene, self.vm
        scene.await_settled()
        wait_for(lambda: not scene.dom.blockJobInfo('vda', 0), 'no job is shown')
        if vm.dom.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            raise Failure(f'the guest is {vm.dom.state()}')
        vm.verify()
        self.write(14 * MIB, MIB)
        again = os.path.join(self.host.images, 'again.raw')
        qemu_img('convert', '-f', 'raw', '-O', 'raw', self.base_copy, again)
        try:
            scene.copy(again, bitmap=self.base, fmt='raw')
            images.expect_content(again, vm.disks['vda'].model, 'since the base', fmt='raw')
        except libvirt.libvirtError as error:
            # A QEMU that is killed takes its recording bitmap with it: that is told.
            if not killed or \
                    error.get_error_code() != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT:
                raise
            self.renew()
        os.unlink(again)
        listed = [c.getName() for c in scene.dom.listAllCheckpoints()]
        if listed != [self.base]:
            raise Failure(f'checkpoints: {listed}')
        scene.settled()


class NativeTable(Table):
    """The guest's QEMU shows a bitmap mirror of its own."""

    points = NATIVE_POINTS
    waiting = ('preparing', 'relay')

    def __init__(self, host):
        self.emulator = emulator(host.random.choice('AB'))
        super().__init__(host)

def refuse_pivot(table, *codes):
    try:
        table.scene.dom.blockJobAbort('vda', PIVOT)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in codes:
            raise
        return
    raise Failure('pivoted')


def run_finish(table, phase, target):
    if phase == 'bulk':
        table.begin(target, phase, finish=True, checkpoint='mark')
        wanted, moment = 'completed', table.vm.disks['vda'].model.copy()
        if not table.emulator:  # which follows the disk to its end
            table.write(3 * MIB, MIB)
    else:
        table.begin(target, phase, checkpoint='mark')
        table.write(3 * MIB, MIB)
        moment = table.vm.disks['vda'].model.copy()
        table.scene.dom.blockJobAbort('vda', 0)
        wanted = 'canceled'
    table.ended(wanted)
    wait_for(lambda: not table.scene.dom.blockJobInfo('vda', 0), 'the job is over')
    if not target.loop and not target.server:
        images.expect_content(target.path, moment, 'the target', fmt=target.fmt)
    table.scene.dom.checkpointLookupByName('mark').delete()


def run_pivot(table, phase, target):
    if phase == 'relay':
        table.begin(target, phase)
        table.write(3 * MIB, MIB)
        table.release()
        table.ended('completed')
        table.vm.disks['vda'].path = target.path
        return
    call = table.begin(target, phase, finish=phase == 'committing',
                       bandwidth=MIB if phase == 'bulk' else 0)
    if phase == 'live':
        table.go_live()
    if phase == 'ready' and target.fmt == 'qcow2':
        table.write(3 * MIB, MIB)
        table.scene.dom.blockJobAbort('vda', PIVOT)
        table.ended('completed')
        table.vm.disks['vda'].path = target.path
        return
    refuse_pivot(table, libvirt.VIR_ERR_BLOCK_COPY_ACTIVE,
                 libvirt.VIR_ERR_OPERATION_INVALID)
    table.write(3 * MIB, MIB)
    table.release()
    if call and call.join():
        raise Failure('the copy was not begun')
    if phase != 'committing':
        table.scene.dom.blockJobAbort('vda', 0)
    table.ended('completed' if phase == 'committing' else 'canceled')


def run_abort(table, phase, target):
    # Slow, where it must not be ready before the abort is seen.
    call = table.begin(target, phase, bandwidth=MIB if phase in ('bulk',) + UNANSWERED else 0,
                       checkpoint='mark' if phase not in ('ready', 'relay') else None,
                       finish=phase == 'committing' or
                       phase not in ('live', 'ready', 'relay') and
                       table.host.random.random() < .5)
    if phase == 'live':
        table.go_live()
    table.write(3 * MIB, MIB)
    abort = jobs.Later(table.scene.dom.blockJobAbort, 'vda', 0)
    if phase in table.waiting and phase != 'live':
        wait_for(abort.running, 'the abort waits')
        table.release()
    failed = abort.join()
    if call:
        # Nobody has an answer yet: the job ends with the call or right after it.
        error = call.join()
        if not error:
            table.ended('canceled')
    elif phase == 'relay':
        # The pivot was asked for first.
        if failed and failed.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise failed
        if table.ended('completed', 'canceled') == 'completed':
            table.vm.disks['vda'].path = target.path
    elif failed:
        raise failed
    else:
        table.ended('completed' if phase == 'committing' else 'canceled')
    if phase == 'committing':
        table.scene.dom.checkpointLookupByName('mark').delete()


def virsh(table, target, *options):
    xml = os.path.join(table.host.work, 'target.xml')
    with open(xml, 'w', encoding='ascii') as text:
        text.write(target.xml or jobs.target_xml(target.path, target.fmt))
    return subprocess.Popen(
        [paths.VIRSH, '-c', table.host.uri(ours=True), 'blockcopy', table.vm.name, 'vda',
         '--xml', xml, '--reuse-external', '--bitmap', table.base, '--checkpoint', 'mark',
         '--wait', *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_stopped(table, phase, target, *options, signum=None):
    slow_bulk = ['--bandwidth', '1'] if phase == 'bulk' else []
    with virsh(table, target, *slow_bulk, *options) as client:
        if phase == 'live':
            table.await_point(phase)
            table.write(8 * MIB, 6 * MIB)
            table.scene.dom.blockJobSetSpeed('vda', 1, 0)
            table.go_live()
        else:
            wait_for(lambda: table.scene.dom.blockJobInfo('vda', 0), 'the job runs')
        if signum:
            client.send_signal(signum)
        out, err = client.communicate(timeout=60)
    if client.returncode == 0 or 'Copy aborted' not in out:
        raise Failure(f'virsh: {client.returncode}, {out}, {err}')
    table.ended('canceled')


def run_timeout(table, phase, target):
    run_stopped(table, phase, target, '--timeout', '2' if phase == 'live' else '1')


def run_interrupt(table, phase, target):
    run_stopped(table, phase, target, signum=signal.SIGINT)


def run_off(table, phase, target, end):
    call = table.begin(target, phase, bandwidth=MIB if phase == 'bulk' else 0,
                       finish=phase == 'committing', checkpoint='mark')
    if phase == 'live':
        table.go_live()
    table.write(3 * MIB, MIB)
    end()
    table.release()
    at_rest = table.vm.disks['vda'].model.copy()
    if call:
        if not call.join():
            raise Failure('the copy was begun though the guest is off')
    else:
        table.ended('completed' if phase == 'committing' else 'failed')
    table.restart(at_rest)
    listed = [c.getName() for c in table.scene.dom.listAllCheckpoints()]
    if ('mark' in listed) != (phase == 'committing'):
        raise Failure(f'checkpoints: {listed}')
    if 'mark' in listed:
        table.scene.dom.checkpointLookupByName('mark').delete()


def run_quit(table, phase, target):
    """QEMU ends by itself, as when the guest powers off."""
    def end():
        try:
            libvirt_qemu.qemuMonitorCommand(table.vm.dom, '{"execute": "quit"}', 0)
        except libvirt.libvirtError:
            pass  # it may be gone before it answers
        wait_for(lambda: not table.vm.dom.isActive(), 'QEMU has ended')
    run_off(table, phase, target, end)


def run_destroy(table, phase, target):
    run_off(table, phase, target, table.vm.destroy)


def run_kill(table, phase, target):
    def end():
        table.vm.dom.suspend()  # writes out what it holds, as a guest's flush does
        table.vm.kill_qemu()
    run_off(table, phase, target, end)


def run_full(table, phase, target):
    if phase == 'bulk':
        target.fill()
        table.begin(target, phase, finish=True, checkpoint='mark')
        table.write(3 * MIB, MIB)
    else:
        table.begin(target, phase, checkpoint='mark')
        target.fill()
        if phase == 'live':
            table.release()
        table.write(3 * MIB, 3 * MIB)
        table.write(9 * MIB, 3 * MIB)
    if target.loop and phase == 'ready':
        # What a device could not write down is told when it is flushed: at the end.
        try:
            table.scene.dom.blockJobAbort('vda', 0)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_FAILED:
                raise
    table.ended('failed')


def run_gone(table, phase, target):
    table.begin(target, phase, bandwidth=MIB if phase == 'bulk' else 0, checkpoint='mark')
    target.go()
    if phase == 'live':
        table.release()
    table.write(3 * MIB, MIB)
    table.ended('failed')


def run_source_error(table, phase, target):
    """Blocks of the source cannot be read: of an image below it, where errors are made."""
    host, trigger = table.host, os.path.join(table.host.work, 'trigger')
    base, where = os.path.join(host.images, 'bad.raw'), os.path.join(host.work, 'bad.sock')
    with open(base, 'wb') as file:
        file.write(b'\x31' * (8 * MIB))
    with open(trigger, 'w', encoding='ascii'):
        pass
    os.unlink(trigger)
    with subprocess.Popen(['nbdkit', '-f', '-U', where, '--filter=error', 'file', base,
                           'error-pread=EIO', 'error-pread-rate=100%',
                           f'error-pread-file={trigger}']) as server:
        try:
            wait_for(lambda: os.path.exists(where), 'nbdkit serves')
            bad_source(table, trigger, f'nbd+unix:///?socket={where}')
        finally:
            server.kill()


def bad_source(table, trigger, url):
    """A guest of its own, whose image has that base."""
    host = table.host
    vm = VM(host, 'bad', {'vda': 8 * MIB}, start=False)
    disk, path = vm.disks['vda'], os.path.join(host.images, 'bad-copy.qcow2')
    qemu_img('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', url, disk.path)
    disk.model.fill(0, disk.size, 0x31)
    vm.start()
    scene = Scene(host, vm, daemon=False)
    for broken in (True, False):
        if broken:
            with open(trigger, 'w', encoding='ascii'):
                pass
        else:
            os.unlink(trigger)
        jobs.start_copy(scene.dom, 'vda', path, checkpoint='mark', finish=True)
        vm.write(3 * MIB, MIB, 0x32 + broken)
        status = scene.events.wait('vda', 'completed', 'failed')
        if (status == 'failed') != broken:
            raise Failure(f'with a source that is {"bad" if broken else "good"}: {status}')
        scene.await_settled()
        if broken and (os.path.exists(path) or scene.dom.listAllCheckpoints()):
            raise Failure('the target or the checkpoint of a copy that failed stayed')
    scene.copy(path, bitmap='mark')
    images.expect_content(path, vm.disks['vda'].model, 'when it can be read again')
    vm.verify()
    vm.destroy()
    scene.events.close()
    table.scene.events.forget()  # it hears of all guests


RUNS = {'finish': run_finish, 'pivot': run_pivot, 'abort': run_abort,
        'timeout': run_timeout, 'interrupt': run_interrupt, 'quit': run_quit,
        'destroy': run_destroy, 'kill': run_kill, 'full': run_full, 'gone': run_gone,
        'source error': run_source_error}


def run_cell(table, ending, phase, kind):
    """One ending in one phase, to one kind of target."""
    if ending == 'full':
        table.renew()  # so that the writes made here need room
    table.write(MIB, MIB if phase == 'live' else 5 * MIB)
    table.daemon(table.points.get(phase))
    with Target(table, kind, small=ending == 'full') as target:
        before = table.native_copies()
        RUNS[ending](table, phase, target)
        if table.emulator and phase != 'preparing' and table.native_copies() == before:
            raise Failure('it did not go by the bitmap mirror')
        table.judge(killed=ending == 'kill')
        if table.vm.disks['vda'].path == target.path:
            table.vm.verify()


def run_cells(host, chosen, make=Table):
    if os.geteuid() != 0:
        raise Skip('small file systems and loop devices need root')
    table = make(host)
    for ending, phase, kind in chosen:
        print(f'#   {ending}, {phase}, {kind}', flush=True)
        try:
            run_cell(table, ending, phase, kind)
        except Exception as error:
            raise Failure(f'{ending} in {phase} to {kind}: {error}') from error


@limit(240)
def test_some_endings(host):
    """A few cells of the table, by the seed."""
    chosen = []
    for ending in host.random.sample(ENDINGS, 4):
        chosen.append(host.random.choice([c for c in cells() if c[0] == ending]))
    run_cells(host, chosen)


@limit(240)
def test_some_endings_of_the_bitmap_mirror(host):
    """The same of QEMU's own bitmap mirror."""
    run_cells(host, host.random.sample(native_cells(), 3), NativeTable)


@slow
@limit(1200)
def test_every_ending_of_the_bitmap_mirror(host):
    """Every cell of that table, in either dialect."""
    for ending, phase in itertools.product(ENDINGS, NATIVE_PHASES):
        if impossible_native(ending, phase):
            print(f'#   not run: {ending}, {phase}: {impossible_native(ending, phase)}',
                  flush=True)
    run_cells(host, native_cells(), NativeTable)


@slow
@limit(2400)
def test_every_ending(host):
    """Every cell of the table that can happen; it prints why the others cannot."""
    why = {}
    for cell in itertools.product(ENDINGS, PHASES, KINDS):
        reason = impossible(*cell)
        if reason:
            why.setdefault(reason, []).append(cell)
    for reason, found in why.items():
        print(f'#   {len(found)} cells not run: {reason}', flush=True)
    chosen = cells()
    host.random.shuffle(chosen)
    run_cells(host, chosen)
