"""The sweep: operation x point x who dies there, judged by content (lib/sweep.py).

VIRT_CHECKPOINT_SWEEP=OPERATION:N:PARTY runs one case again, as its line names it;
=OPERATION all of that row, =OPERATION:* or :SHARE (0.5) all points or a random share of
them, and =OPERATION:SHARE:PARTY with one party only; =NUMBER runs that many random cases.
"""

import os

from lib.runner import limit
from lib.sweep import OPERATIONS, Table, row_tests

WANTED = os.environ.get('VIRT_CHECKPOINT_SWEEP', '4')
HOUR = 3600


def run(table, random):
    """What is wanted of the table."""
    name, which, party = (WANTED.split(':') + [None, None])[:3]
    if name.isdigit():
        for _ in range(int(name)):
            table.draw(random.choice(sorted(OPERATIONS)))
    elif which and which.isdigit():
        table.run(name, int(which), party)
    else:
        table.row(name, 1.0 if which in (None, '*') else float(which), party)


@limit(60 * int(WANTED) if WANTED.isdigit() else 4 * HOUR)
def test_somebody_dies_somewhere(host):
    """Random cases of the table."""
    table = Table(host)
    run(table, host.random)
    table.judge()


globals().update(row_tests(lambda operation: not operation.copies))
