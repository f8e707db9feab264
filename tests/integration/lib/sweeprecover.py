"""Rows of the sweep's table in which somebody dies while a death is being repaired.

The operation is held at a point, the daemon or all parties die there, and a new daemon
begins to settle: its points are the row's.
"""

import os
import signal
import threading

import libvirt

from . import store
from .host import Failure, wait_for
from .sweepops import Copy, Create, Delete, Off, Operation, listed


class Recover(Operation):
    """What became of an operation that was killed at a point is settled."""

    background = 0.5

    def __init__(self, name, inner, point, all_die=False, usual=60):
        super().__init__(name)
        self.inner, self.point, self.all_die, self.usual = inner, point, all_die, usual
        self.off, self.copies, self.leaves = inner.off, inner.copies, inner.leaves
        self.loses = all_die and not inner.off
        self.ahead, self.seconds = all_die, inner.seconds

    def guest(self, host, name, disks):
        return self.inner.guest(host, name, disks)

    def setup(self, case):
        self.inner.setup(case)

    def between(self, case):
        """The first death."""
        log, gate = case.gate + '-first.log', case.gate + '-first'
        case.host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS': f'{self.point}=hold:{gate}',
                                    'VIRT_CHECKPOINT_FAULTS_LOG': log})
        case.oracle.connect()
        thread = threading.Thread(target=self._attempt, args=(case,), daemon=True)
        thread.start()
        wait_for(lambda: self._passed(log), f'{self.point} is reached', 60)
        self._die(case)
        thread.join(60)
        if thread.is_alive():
            raise Failure(f'{self.inner.name} does not return')
        case.error = None

    def _attempt(self, case):
        try:
            self.inner.act(case)
        except (libvirt.libvirtError, Failure):
            pass

    def _passed(self, log):
        try:
            with open(log) as points:
                return self.point in points.read().split()
        except FileNotFoundError:
            return False

    def _die(self, case):
        case.oracle.events.close()
        if not self.all_die:
            case.host.kill_daemon()
            return
        pid = self.inner.qemu(case)
        if pid:
            os.kill(pid, signal.SIGKILL)
        case.host.kill_daemon()
        case.host.kill_libvirtd()
        case.host.start_libvirtd()
        case.vm.reconnect()
        wait_for(lambda: not case.vm.dom.isActive(), 'libvirt notices QEMU\'s death')

    def act(self, case):
        """Until no operation is recorded; a mirror that goes on is ended."""
        listed(case)
        case.end_copies()

        def settled():
            return case.quiet() and all(
                record.state == 'ready' for record in store.records(case.host, case.vm))
        wait_for(settled, 'what was recorded is settled', 30, 0.05)

    def written(self, case):
        if case.vm.dom.isActive():
            self.inner.written(case)

    def settle(self, case):
        self.inner.settle(case)

    def judge(self, case):
        self.inner.judge(case)

    def again(self, case):
        self.inner.again(case)

    def qemu(self, case):
        return self.inner.qemu(case) if self.off or case.vm.dom.isActive() else None


RECOVERIES = {o.name: o for o in (
    Recover('recover-create', Create('create'), 'qmp/transaction/after', usual=56),
    Recover('recover-delete', Delete('delete-middle', 'c2'), 'delete/handed-over', usual=12),
    Recover('recover-finish', Copy('finish', 'finish'), 'mirror/before-commit-pivot', True, 35),
    Recover('recover-pivot', Copy('pivot', 'pivot'), 'mirror/before-pivot', True, 68),
    Recover('recover-off', Off('off-create', Create('create'), 72), 'offline/opened', True, 72))}
