"""The sweep: operation x point x who dies there, judged by content (lib/sweep.py).

VIRT_CHECKPOINT_SWEEP=OPERATION:N:PARTY runs one case again, as its line names it, and
=OPERATION:POINT:PARTY one at the first point of that name;
=OPERATION all of that row, =OPERATION:* or :SHARE (0.5) all points or a random share of
them, and =OPERATION:SHARE:PARTY with one party only; =NUMBER runs that many random cases.
VIRT_CHECKPOINT_SWEEP_KEPT=FOLDER:HOURS:K/N runs for HOURS what FOLDER does not name as
passed, the K-th of N parts, of all rows or of VIRT_CHECKPOINT_SWEEP=OPERATION[,...].
"""

import os

from lib.host import Failure
from lib.runner import limit
from lib.sweep import OPERATIONS, Table, parties, row_tests

# Cells in which something was found once, by the name of the point.
FOUND = (('create', 'park/released', 'error'), ('delete-middle', 'compact/written', 'error'),
         ('finish', 'mirror/config-fixed', 'qemu'), ('mirror-end', 'delete/handed-over', 'error'),
         ('pivot', 'qmp/blockdev-add/after', 'error'), ('pivot', 'mirror/after-snapshot', 'power'),
         ('off-create', 'offline/closed', 'power'), ('off-delete', 'offline/in-use', 'error'))
WANTED = os.environ.get('VIRT_CHECKPOINT_SWEEP', '4')
KEPT = os.environ.get('VIRT_CHECKPOINT_SWEEP_KEPT')
HOUR = 3600


def run(table, random):
    """What is wanted of the table."""
    name, which, party = (WANTED.split(':') + [None, None])[:3]
    if name.isdigit():
        for _ in range(int(name)):
            table.draw(random.choice(sorted(OPERATIONS)))
    elif which is None or which == '*' or '.' in which:
        table.row(name, float(which) if which and '.' in which else 1.0, party)
    else:
        table.run(name, int(which) if which.isdigit() else which, party)


@limit(150 * int(WANTED) if WANTED.isdigit() and not KEPT else 12 * HOUR)
def test_somebody_dies_somewhere(host):
    """Random cases of the table."""
    table = Table(host)
    if KEPT:
        folder, hours, part = KEPT.split(':')
        rows = OPERATIONS if WANTED.isdigit() else WANTED.split(',')
        table.rest(folder, float(hours), *map(int, part.split('/')), rows)
    else:
        run(table, host.random)
    table.judge()


@limit(300)
def test_what_was_found_once(host):
    """Cells that failed before something was mended."""
    table = Table(host)
    for name, point, party in FOUND:
        if party in parties(name) and not table.run(name, point, party):
            raise Failure(f'{name} does not pass {point}')
    table.judge()


globals().update(row_tests(lambda operation: not operation.copies))
