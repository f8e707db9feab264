"""More rows of the sweep's table: copies by other ways, and what heals them.

By QEMU's own bitmap mirror, to an NBD server, compared at the end, since a checkpoint of
libvirt's own; and heals.
"""

import json
import os

import libvirt
import libvirt_qemu

from . import images, jobs, store
from .host import Failure, wait_for
from .kills import LOSES
from .native import NativeVM
from .oracle import Oracle
from .sweepops import Copy, Operation, restart
from .targets import Nbd

METADATA_ONLY = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY


class NativeCopy(Copy):
    """A copy by QEMU's own bitmap mirror, of either dialect."""

    def setup(self, case):
        sizes = {target: disk.size for target, disk in case.vm.disks.items()}
        name = case.vm.name
        case.oracle.events.close()
        case.vm.destroy()
        case.vm.dom.undefineFlags(0)
        case.vm = NativeVM(case.host, case.host.random.choice('AB'), name + 'n', sizes)
        case.oracle = Oracle(case.host, case.vm, case.host.random)
        super().setup(case)

    def act(self, case):
        log = case.host.daemon_log()
        super().act(case)
        if "copying by QEMU's own bitmap mirror" not in case.host.daemon_log()[len(log):]:
            raise Failure('it did not go by the bitmap mirror')


class NbdCopy(Copy):
    """A copy to an NBD server, whose bulk pass is in a storage daemon."""

    def __init__(self, name, kind):
        super().__init__(name, kind)
        self.server = None

    def start(self, case, path=None, finish=True, **params):
        base = [m for m in case.oracle.moments if m.name == case.base][0]
        name = f'export{len(case.known)}'
        images.write_image(os.path.join(case.host.images, name), base.models[case.disk])
        self.server = Nbd(case.host, name, case.vm.disks[case.disk].size, served='qcow2')
        self.server.start()
        return super().start(case, self.server.path, finish, xml=self.server.xml, **params)

    def judge(self, case):
        self.server.stop()
        super().judge(case)

    def again(self, case):
        super().again(case)
        self.server.stop()


class VerifiedCopy(Copy):
    """A copy that is compared before it ends."""

    def start(self, case, path=None, finish=True, **params):
        return super().start(case, path, finish, verify=True, **params)


class CopySinceTheirs(Copy):
    """A copy since a checkpoint that libvirt made itself, past us."""

    theirs = 'theirs'

    def mark(self, case):
        self.moment = case.moment(self.theirs)
        case.vm.dom.checkpointCreateXML(
            f'<domaincheckpoint><name>{self.theirs}</name></domaincheckpoint>', 0)
        case.write()

    def setup(self, case):
        super().setup(case)
        self.mark(case)

    def act(self, case):
        case.oracle.moments.append(self.moment)
        case.base = self.theirs
        try:
            super().act(case)
        finally:
            case.base = 'c1'
            case.oracle.moments.remove(self.moment)

    def settle(self, case):
        """Their checkpoint is none of the oracle's: it is judged here, and goes."""
        case.end_copies()
        wait_for(case.quiet, 'no copy is recorded', 30)
        self.drop(case, case.party in LOSES)

    def drop(self, case, killed=False):
        """Copies since it are right; a QEMU that is killed makes its bitmap inconsistent,
        which is told."""
        path, model = case.path('since-theirs'), case.vm.disks[case.disk].model
        case.known.add(path)
        images.write_image(path, self.moment.models[case.disk])
        case.oracle.events.forget()
        try:
            jobs.start_copy(case.oracle.dom, case.disk, path, self.theirs, finish=True)
        except libvirt.libvirtError as error:
            if not killed or \
                    error.get_error_code() != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT:
                raise
        else:
            jobs.wait_end(case.oracle.events, case.oracle.dom, case.disk)
            images.expect_content(path, model, 'a copy since theirs')
        os.unlink(path)
        one = case.vm.dom.checkpointLookupByName(self.theirs)
        one.delete(METADATA_ONLY if killed else 0)
        if killed:
            for node, name in case.vm.all_bitmaps():
                if name == self.theirs:
                    case.vm.qmp('block-dirty-bitmap-remove', node=node, name=name)

    def again(self, case):
        restart(case)
        self.mark(case)
        case.error, case.maybe = None, {}
        self.act(case)
        self.keep(case)
        case._follow_disks()
        self.drop(case)


class Heal(Operation):
    """What a QEMU that was killed took with it is found by comparing with a replica."""

    usual = 40
    loses = True

    def setup(self, case):
        super().setup(case)
        self.whole = case.oracle.moments[0]
        self.model = self.whole.models[case.disk]
        self.replica = case.path('kept')
        case.known.add(self.replica)
        images.write_image(self.replica, self.model)
        case.vm.kill_qemu()
        case.vm.start(case.oracle.dom)
        wait_for(lambda: len(case.vm.bitmaps()) == 1, 'tracking starts anew')
        case.write()

    def _command(self, case, name, **arguments):
        return json.loads(libvirt_qemu.qemuMonitorCommand(case.oracle.dom, json.dumps({
            'execute': f'virtcheckpoint-{name}', 'arguments': arguments}), 0))['return']

    def act(self, case):
        self._command(case, 'heal', disk=case.disk, checkpoint=case.base, against=(
            f"<disk type='file'><driver type='qcow2'/><source file='{self.replica}'/>"
            '</disk>'))

        def over():
            state = self._command(case, 'query-heal', disk=case.disk)
            return state if state['state'] != 'running' else None
        state = wait_for(over, 'the heal is over')
        if state['state'] != 'completed':
            raise Failure(f'the heal: {state}')

    def settle(self, case):
        """It goes on without its client, while its daemon lives."""
        def over():
            try:
                return self._command(case, 'query-heal', disk=case.disk)['state'] != 'running'
            except libvirt.libvirtError:
                return True  # this daemon knows of none
        wait_for(over, 'the heal is over', 60)

    def written(self, case):
        pass

    def again(self, case):
        if case.disk in store.lost(case.host, case.vm, case.base):
            self.act(case)
        if case.disk in store.lost(case.host, case.vm, case.base):
            raise Failure('healed, and still lost')
        self.whole.models[case.disk] = self.model


COPIES = {o.name: o for o in (
    NativeCopy('native-finish', 'finish'), NativeCopy('native-end', 'end'),
    NativeCopy('native-pivot', 'pivot'), NbdCopy('nbd-finish', 'finish'),
    NbdCopy('nbd-end', 'end'), VerifiedCopy('verify', 'finish'),
    CopySinceTheirs('theirs-finish', 'finish'), CopySinceTheirs('theirs-pivot', 'pivot'),
    Heal('heal'))}
