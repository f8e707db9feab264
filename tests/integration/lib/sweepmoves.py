"""Rows of the sweep's table in which bits are left in an image, or given up for the state
that an image holds inside itself.
"""

import libvirt

from . import store
from .sweepops import Delete, Operation, listed

METADATA_ONLY = libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY


class Leave(Delete):
    """Metadata alone: the bits stay in the image under the checkpoint's name."""

    def act(self, case):
        case.maybe = {self.which: [m for m in case.oracle.moments if m.name == self.which]}
        case.oracle.dom.checkpointLookupByName(self.which).delete(METADATA_ONLY)

    def again(self, case):
        if self.which in listed(case):
            case.oracle.dom.checkpointLookupByName(self.which).delete(METADATA_ONLY)
        case.oracle.moments = [m for m in case.oracle.moments if m.name != self.which]


class Revert(Operation):
    """To an internal snapshot: the bitmaps go before it, and tracking begins anew."""

    loses = True
    still = True
    usual = 27

    def setup(self, case):
        super().setup(case)
        case.undefine = libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        case.vm.dom.snapshotCreateXML('<domainsnapshot><name>s</name></domainsnapshot>', 0)
        case.oracle.connect()

    def act(self, case):
        dom = case.oracle.dom
        dom.revertToSnapshot(dom.snapshotLookupByName('s'))
        case.vm._started()

    def written(self, case):
        pass

    def again(self, case):
        """What was not lost before is now."""
        self.act(case)
        listed(case)
        for moment in case.oracle.moments:
            for target in store.lost(case.host, case.vm, moment.name):
                moment.models.pop(target, None)


MOVES = {o.name: o for o in (
    Leave('leave', 'c2', 20), Revert('revert'))}
