"""The operations of the sweep's table.

Each says how a guest is brought to where it begins, how it is done once (by a client
that polls and may get an error at any moment), and how it is done again.
"""

import time

import libvirt

from . import backups, images, jobs, session
from .domain import MIB, VM
from .host import Failure, wait_for

REDEFINE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE


class Operation:
    """usual: how many points it passes, about; off: the guest is shut off at the end."""

    usual = 42
    seconds = 120  # the most that a random cell of it takes
    background = 0.1  # seconds for which it goes on after the answer
    off = False
    loses = False  # the setup has cost a segment already
    leaves = ()  # parts of names of what may be left in the domain's folder
    ahead = False  # the definition may name a file that the guest does not run on yet
    copies = False  # its row is one of test_sweep_copies.py
    still = False  # what the guest writes meanwhile would be in doubt
    hangs_libvirt = False  # stock 9.0 may not answer when the guest is destroyed in it

    def __init__(self, name):
        self.name = name

    def guest(self, host, name, disks):
        """It runs."""
        return VM(host, name, disks)

    def setup(self, case):
        case.write()
        case.create('c1')
        case.write()

    def between(self, case):
        """While no daemon runs."""

    def act(self, case):
        raise NotImplementedError

    def written(self, case):
        """The guest wrote while the operation was held: a moment may be either."""
        for name, moments in case.maybe.items():
            moments.append(case.moment(name, list(moments[0].models)))

    def settle(self, case):
        """After everything is up again: ends what goes on by itself."""

    def judge(self, case):
        """What is special after the kill."""

    def again(self, case):
        """Done now, whatever became of it; leaves the oracle right."""
        case.error = None
        case.maybe = {}
        self.act(case)
        self.keep(case)

    def keep(self, case):
        """What the act made belongs to the oracle now."""
        for moments in case.maybe.values():
            case.oracle.moments.append(moments[0])
        case.maybe = {}

    def qemu(self, case):
        """The process that `qemu` kills."""
        return case.host.qemu_pid(case.vm.name)


def listed(case):
    return {c.getName() for c in case.oracle.dom.listAllCheckpoints()}


def restart(case):
    """Only a new c1 is there."""
    for moment in case.oracle.moments:
        case.oracle.dom.checkpointLookupByName(moment.name).delete(0)
    case.oracle.moments = []
    case.create(case.base)
    case.write()


class Create(Operation):
    """A checkpoint of both disks, the previous one parked."""

    flags = 0

    def act(self, case):
        case.maybe = {case.made: [case.moment(case.made)]}
        case.oracle.dom.checkpointCreateXML(
            f'<domaincheckpoint><name>{case.made}</name></domaincheckpoint>', self.flags)

    def again(self, case):
        if case.made in listed(case):
            case.oracle.dom.checkpointLookupByName(case.made).delete(0)
            case.oracle.moments = [m for m in case.oracle.moments if m.name != case.made]
        super().again(case)


class CreateAfterSnapshot(Create):
    """The same, after a snapshot past us: the layer below is parked as well."""

    usual = 75

    def setup(self, case):
        super().setup(case)
        case.known.add(case.vm.disks['vda'].path)
        case.vm.disks['vda'].path = case.vm.snapshot(path=case.path('overlay'))
        case.write()


class Delete(Operation):
    """One of three checkpoints."""

    background = 1.0

    def __init__(self, name, which, usual=16):
        super().__init__(name)
        self.which, self.usual = which, usual

    def setup(self, case):
        for name in ('c1', 'c2', 'c3'):
            case.write()
            case.create(name)
        case.write()

    def act(self, case):
        case.maybe = {self.which: [m for m in case.oracle.moments if m.name == self.which]}
        case.oracle.dom.checkpointLookupByName(self.which).delete(0)

    def written(self, case):
        pass

    def again(self, case):
        if self.which in listed(case):
            case.oracle.dom.checkpointLookupByName(self.which).delete(0)
        case.oracle.moments = [m for m in case.oracle.moments if m.name != self.which]


class DeleteOnly(Delete):
    """The only checkpoint: tracking ends, the folder goes."""

    def setup(self, case):
        Operation.setup(self, case)


class Redefine(Operation):
    """A new description for the checkpoint."""

    usual = 3

    def act(self, case):
        one = case.oracle.dom.checkpointLookupByName('c1')
        xml = one.getXMLDesc(0).replace('</name>', '</name><description>x</description>', 1)
        case.oracle.dom.checkpointCreateXML(xml, REDEFINE)

    def again(self, case):
        self.act_again(case)

    def act_again(self, case):
        one = case.oracle.dom.checkpointLookupByName('c1')
        xml = one.getXMLDesc(0)
        if '<description>' not in xml:
            self.act(case)
            xml = one.getXMLDesc(0)
        if '<description>x</description>' not in xml:
            raise Failure(f'the description is not there: {xml[:300]}')


class Copy(Operation):
    """An incremental copy with a checkpoint; finish, or a mirror ended or pivoted."""

    usual = 170
    copies = True

    def __init__(self, name, kind):
        super().__init__(name)
        self.kind = kind

    def start(self, case, path=None, finish=True, **params):
        """Starts it onto an image as of the base; onto path, what is there."""
        case.oracle.events.forget()
        if not path:
            path = case.path(f'target{len(case.known)}')
            base = [m for m in case.oracle.moments if m.name == case.base][0]
            images.write_image(path, base.models[case.disk])
            case.settle_disks('images')
        case.known.add(path)
        case.targets = {case.disk: path}
        case.maybe = {case.made: [case.moment(case.made, [case.disk])]}
        jobs.start_copy(case.oracle.dom, case.disk, path, case.base, case.made, finish,
                        **params)
        return path

    def act(self, case):
        events, dom = case.oracle.events, case.oracle.dom
        self.start(case, finish=self.kind == 'finish')
        if self.kind != 'finish':
            jobs.wait_ready(events, case.disk)
            dom.blockJobAbort(case.disk, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
                              if self.kind == 'pivot' else 0)
            wait_for(lambda: not jobs.shown(dom, case.disk), 'the copy ends', 30)
        else:
            jobs.wait_end(events, dom, case.disk)

    def judge(self, case):
        """A checkpoint that came with a copy promises the copy."""
        path = case.targets.get(case.disk)
        made = [m for m in case.oracle.moments if m.name == case.made]
        if not made or case.vm.disks[case.disk].path == path or case.disk not in made[0].models:
            return
        candidates = case.maybe[case.made]
        wrong = [images.differences(path, m.models[case.disk]) for m in candidates
                 if case.disk in m.models]
        if all(wrong):
            raise Failure(f'{case.made} is there, but the copy differs: {wrong}')

    def again(self, case):
        """Since a base that is whole: where tracking was lost, a new one."""
        restart(case)
        super().again(case)


class Abort(Copy):
    """A copy that is aborted in its bulk pass: its checkpoint is taken back."""

    usual = 175
    leaves = ('.resume.xml', '.rest.')

    def cut(self, case):
        """Starts a copy that takes long, and aborts it when some of it is there."""
        dom = case.oracle.dom
        case.fill()
        path = self.start(case, finish=self.kind == 'finish', bandwidth=MIB)
        wait_for(lambda: jobs.shown(dom, case.disk).get('cur', MIB) >= MIB, 'some is copied')
        dom.blockJobAbort(case.disk, 0)
        wait_for(lambda: not jobs.shown(dom, case.disk), 'the copy ends', 30)
        return path

    def act(self, case):
        self.cut(case)

    def keep(self, case):
        case.maybe = {}


class Resume(Abort):
    """The same call again goes on where the aborted one ended."""

    def __init__(self, name, kind):
        super().__init__(name, kind)
        self.path = None

    def setup(self, case):
        super().setup(case)
        self.path = self.cut(case)
        case.maybe = {}
        case.targets = {}

    def act(self, case):
        self.start(case, self.path)
        jobs.wait_end(case.oracle.events, case.oracle.dom, case.disk)

    def again(self, case):
        self.path = None
        super().again(case)

    def keep(self, case):
        Operation.keep(self, case)


class Push(Operation):
    """A push backup with a checkpoint: libvirt makes one and it becomes ours."""

    usual = 80
    push = True
    hangs_libvirt = True

    def act(self, case):
        self.backup = backups.Backup(case.vm, case.oracle.dom, case.base, case.made, push=self.push)
        case.maybe = {case.made: [case.moment(case.made)]}
        self.backup.begin()
        if not self.push:
            case.oracle.dom.abortJob()
        self.backup.wait()

    def settle(self, case):
        """A job that libvirt began goes on without its client; or begins late, when a
        dead daemon's call still waited inside libvirtd."""
        self.backup.dom = case.oracle.dom
        quiet = time.monotonic()
        while time.monotonic() < quiet + 0.5:
            if self.backup.running():
                self._abort(case)
                quiet = time.monotonic()
            time.sleep(0.05)

    def _abort(self, case):
        try:
            case.vm.dom.abortJob()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                raise

    def again(self, case):
        self.backup.clean()
        restart(case)
        super().again(case)
        self.backup.clean()


class Pull(Push):
    push = False


class Start(Operation):
    """The guest starts after its QEMU was killed: the loss is recorded, tracking
    begins anew."""

    usual = 23
    background = 0.5
    loses = True

    def between(self, case):
        case.vm.kill_qemu()

    def act(self, case):
        case.vm.start(case.oracle.dom)
        listed(case)

    def again(self, case):
        case.vm.destroy()
        self.act(case)


class Off(Operation):
    """An operation on a guest that is off; `qemu` is the storage daemon."""

    off = True

    def __init__(self, name, inner, usual):
        super().__init__(name)
        self.inner, self.usual = inner, usual
        self.copies = inner.copies

    def setup(self, case):
        self.inner.setup(case)
        case.vm.destroy()

    def act(self, case):
        self.inner.act(case)

    def written(self, case):
        pass

    def judge(self, case):
        self.inner.judge(case)

    def again(self, case):
        self.inner.again(case)

    def qemu(self, case):
        queue, pid = [case.host.daemon_pid()], None
        while queue:
            for child in session.children(queue.pop()):
                queue.append(child)
                with open(f'/proc/{child}/comm') as comm:
                    if comm.read().startswith('qemu-storage'):
                        pid = child
        return pid


OPERATIONS = {o.name: o for o in (
    Create('create'), CreateAfterSnapshot('create-overlay'),
    Delete('delete-oldest', 'c1', 16), Delete('delete-middle', 'c2', 79),
    Delete('delete-newest', 'c3', 12), DeleteOnly('delete-only', 'c1', 15),
    Redefine('redefine'), Copy('finish', 'finish'), Copy('mirror-end', 'end'),
    Copy('pivot', 'pivot'), Abort('abort', 'finish'), Abort('abort-mirror', 'mirror'),
    Resume('resume', 'finish'), Push('push'), Pull('pull'), Start('start-after-loss'),
    Off('off-create', Create('create'), 72),
    Off('off-delete', DeleteOnly('delete-only', 'c1', 15), 32),
    Off('off-finish', Copy('finish', 'finish'), 133))}
