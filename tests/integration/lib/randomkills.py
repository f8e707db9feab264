"""Random operations, and at random moments somebody is killed.

One guest lives through all of it.  Between two kills the oracle does random things
undisturbed (oracle.py); then one operation is begun, some time passes, somebody dies,
and a Case (kills.py) judges what became of it.  The seed says what is done and when
somebody dies; how far the operation was by then is chance.
"""

import os
import threading
import time

import libvirt

from . import store, sweepops
from .domain import MIB, VM
from .kills import LEFT_OUT, PARTIES, Case
from .oracle import Oracle

DISKS = {'vda': 8 * MIB, 'vdb': 2 * MIB}
KEPT = 6  # checkpoints: more only cost time


class LossyOracle(Oracle):
    """An oracle of a guest whose tracking may have been lost: such a checkpoint has no
    model of the disk anymore, and covers it all the same."""

    STEPS = (('write', 10), ('create', 5), ('delete', 3), ('finish', 2), ('mirror', 1),
             ('backup', 2), ('snapshot', 1), ('commit', 2), ('restart_guest', 1),
             ('restart_daemon', 1))

    def check_rest(self, covered_disks=None):
        if covered_disks is None:
            covered_disks = {t for r in store.records(self.host, self.vm)
                             for t in r.segments}
        super().check_rest(covered_disks)


class Killing(Case):
    """A guest, and the kills that it lives through."""

    def __init__(self, host):
        super().__init__(host, None, 0, 'daemon')
        self.kills = {party: 0 for party in PARTIES}
        if 'power' in PARTIES:
            self._power_on()
        self._start_daemon()
        self.vm = VM(host, 'killed', DISKS)
        self.oracle = LossyOracle(host, self.vm, host.random)
        self._names = 0

    def _operation(self):
        """A random one that the guest's state allows."""
        rng = self.host.random
        self._names += 1
        self.made = f'k{self._names}'
        self.disk = rng.choice(sorted(self.vm.disks))
        kinds = [sweepops.Create('create')] * 3
        if self.oracle.moments:
            one = rng.choice(self.oracle.moments).name
            kinds += [sweepops.Delete('delete', one)] * 2
        bases = [m.name for m in self.oracle.moments if self.disk in m.models]
        if bases and not self.oracle.overlays.get(self.disk):
            self.base = rng.choice(bases)
            kinds += [sweepops.Copy(kind, kind) for kind in ('finish', 'end', 'pivot')]
        whole = [m.name for m in self.oracle.moments if len(m.models) == len(self.vm.disks)]
        if whole and rng.random() < 0.5:
            self.base = rng.choice(whole)
            return rng.choice([sweepops.Push('push'), sweepops.Pull('pull')])
        return rng.choice(kinds)

    def _quietly(self):
        """What the oracle does while nobody dies."""
        for _ in range(self.host.random.randrange(0, 4)):
            self.oracle.step()
        while len(self.oracle.moments) > KEPT:
            self.oracle.delete()
        for target, disk in self.vm.disks.items():
            self.vm.reads(0, 512, disk.model.sectors[0], target)
            self.vm.flush(target)
        # Files that the oracle removed; what stock did past us, which syncs no folder.
        self.settle_disks('images', 'etc', 'lib')

    def one(self):
        """One kill, and what became of everything."""
        rng = self.host.random
        self._quietly()
        self.operation = self._operation()
        self.party = rng.choice([p for p in PARTIES if p != 'front'])
        self.targets, self.maybe, self.error = {}, {}, None
        self.known = {path for layers in self.oracle.overlays.values() for path in layers}
        what = f'{self.operation.name} {self.made} since {self.base} of {self.disk}'
        self.oracle.say(f'{self.party} dies in {what}')
        thread = threading.Thread(target=self._act, daemon=True)
        thread.start()
        time.sleep(rng.random() ** 2 * 0.6)
        self._disturb()
        self._await(thread)
        self._judge()
        self._tidy()
        self.kills[self.party] += 1

    def _again(self):
        """The next round shows that everything works."""

    def _restart_guest(self):
        """Rarely that job outlives the guest, and nothing starts before libvirtd ends."""
        try:
            self.oracle.restart_guest()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_OPERATION_TIMEOUT:
                raise
            self.host.restart_libvirtd()
            self.vm.reconnect()
            self.oracle.connect()
            self.vm.start()

    def _tidy(self):
        # The end of a mirror that the judge ended is not that of the next copy.
        self.oracle.events.forget()
        disks = {disk.path for disk in self.vm.disks.values()}
        layers = {path for found in self.oracle.overlays.values() for path in found}
        for path in self.known - disks - layers:
            if os.path.exists(path):
                os.unlink(path)
        if isinstance(self.operation, sweepops.Push):
            self.operation.backup.clean()
            # Libvirt 9.0, killed where it begins a backup, comes back with a job that
            # is none of QEMU's, and no snapshot is possible until the guest's next start.
            if self.party in ('libvirtd', 'all') and self.vm.dom.isActive():
                self._restart_guest()
        if not self.vm.dom.isActive():
            self.vm.start()

    def run(self, kills, seconds):
        """Until so many kills, or so much time; raises at the first thing wrong."""
        end = time.monotonic() + seconds
        done = 0
        try:
            while done < kills and time.monotonic() < end:
                self.one()
                done += 1
        except BaseException:
            with open(os.path.join(self.host.logs, 'oracle-steps.log'), 'w') as out:
                out.write('\n'.join(self.oracle.done) + '\n')
            raise
        finally:
            print(f'{LEFT_OUT}#   {done} kills: ' + ', '.join(
                f'{count} {party}' for party, count in self.kills.items() if count),
                flush=True)
        return done



