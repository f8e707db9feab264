"""Sweeps: the daemon is stopped dead at every point that an operation passes.

The daemon names the points between its side effects (VIRT_CHECKPOINT_FAULTS_LOG); a
sweep first learns which of them an operation passes, then repeats it once for each,
with the daemon ending there as by SIGKILL.  After each stop a plain daemon is started,
and the oracle judges what it made of what was left.
"""

import os
import time

import libvirt

from . import jobs
from .domain import MIB, VM
from .host import Failure, wait_for
from .oracle import Oracle


class Stop:
    """One point: its name, and at which of its hits to stop."""

    def __init__(self, name, hit):
        self.name, self.hit = name, hit

    def __str__(self):
        return f'{self.name}@{self.hit}'


class Sweep:
    """One operation, stopped at each of its points.

    setup(oracle) brings a fresh guest to where act(oracle) is to be stopped;
    after(oracle) is what happens before anybody settles it.
    """

    def __init__(self, host, setup, act, disks=None, make_vm=VM, after=None):
        self.host, self.setup, self.act, self.make_vm = host, setup, act, make_vm
        self.after = after
        self.disks = disks or {'vda': 16 * MIB, 'vdb': 4 * MIB}
        self._count = 0

    def _fresh(self):
        """A new guest, set up, with the daemon stopped."""
        self._count += 1
        self.host.start_daemon()
        vm = self.make_vm(self.host, f'vm{self._count}', self.disks)
        oracle = Oracle(self.host, vm, self.host.random)
        self.setup(oracle)
        oracle.check_rest()
        oracle.events.close()
        self.host.stop_daemon()
        return oracle

    def points(self):
        """The points that the operation passes, in order."""
        oracle = self._fresh()
        log = os.path.join(self.host.logs, 'faults.log')
        self.host.start_daemon(env={'VIRT_CHECKPOINT_FAULTS_LOG': log})
        oracle.connect()
        self.act(oracle)
        oracle.check_rest()
        self.host.stop_daemon()
        oracle.vm.destroy()
        hits, found = {}, []
        with open(log) as passed:
            for name in passed.read().split():
                hits[name] = hits.get(name, 0) + 1
                found.append(Stop(name, hits[name]))
        return found

    def _stopped(self, oracle, stop):
        """Acts with a daemon that ends at stop; TRUE if it did."""
        env = {'VIRT_CHECKPOINT_FAULTS': f'{stop}=exit'}
        try:
            self.host.start_daemon(env=env)
            oracle.connect()
            self.act(oracle)
            oracle.check_rest()
        except (libvirt.libvirtError, Failure):
            wait_for(lambda: not self.host.daemon_running(),
                     f'the daemon stops at {stop}, or the operation succeeds', 5)
        if self.host.daemon_running():
            self.host.stop_daemon()
            return False
        self.host.wait_daemon()
        return True

    def _end_copy(self, oracle, target):
        """A copy outlives the daemon: a finish ends by itself, a mirror is ended."""
        def over():
            return not jobs.shown(oracle.dom, target)
        try:
            wait_for(over, 'the copy ends by itself', 3)
        except Failure:
            if oracle.creating:  # a mirror makes its checkpoint when it is ended
                oracle.creating.models = {target: oracle.vm.disks[target].model.copy()}
            oracle.dom.blockJobAbort(target, 0)
            wait_for(over, f'{target}: the copy ends', 60)

    def _settle(self, oracle, before):
        """A plain daemon; the oracle learns what became of what was in doubt."""
        if self.after:
            self.after(oracle)
        if not self.host.daemon_running():
            self.host.start_daemon()
        oracle.connect()
        for target in oracle.vm.disks:
            self._end_copy(oracle, target)
            source = oracle.vm.source(target)
            known = [oracle.vm.disks[target].path, oracle.copying]
            if source not in known:
                raise Failure(f'{target} is left on {source}')
            oracle.vm.disks[target].path = source
        # What is told of the copy that was stopped must not be taken for the next one's.
        oracle.events.close()
        oracle.connect()
        listed = {c.getName() for c in oracle.dom.listAllCheckpoints()}
        known = {m.name: m for m in before}
        known.update({m.name: m for m in oracle.moments})
        if oracle.creating and oracle.creating.name not in known:
            known[oracle.creating.name] = oracle.creating
        oracle.moments = [m for m in known.values() if m.name in listed]
        oracle.check(copies=True)
        oracle.create()
        oracle.write()
        oracle.check(copies=False)

    def run(self, share=1.0):
        """All points, or a random share of them; returns how many stopped it."""
        points = self.points()
        if not points:
            raise Failure('the operation passes no point')
        chosen = [p for p in points if self.host.random.random() < share] or points[:1]
        stopped = 0
        for stop in chosen:
            oracle = self._fresh()
            before = list(oracle.moments)
            started = time.monotonic()
            try:
                stopped += self._stopped(oracle, stop)
                oracle.events.close()
                self._settle(oracle, before)
            except Exception as error:
                raise Failure(f'stopped at {stop}: {error}') from error
            finally:
                oracle.events.close()
                self.host.stop_daemon()
            oracle.vm.destroy()
            print(f'#   {stop}: {time.monotonic() - started:.1f} s', flush=True)
        return stopped
