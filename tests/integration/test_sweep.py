"""The sweep: operation x point x who dies there, judged by content (lib/kills.py).

VIRT_CHECKPOINT_SWEEP=OPERATION:N:PARTY runs one case again, as its line names it;
VIRT_CHECKPOINT_SWEEP=NUMBER runs that many random ones.
"""

import os
import time
import traceback

from lib import paths
from lib.host import Failure
from lib.kills import PARTIES, Case
from lib.runner import limit, slow
from lib.sweepops import OPERATIONS

WANTED = os.environ.get('VIRT_CHECKPOINT_SWEEP', '10')
ALL_HOURS = 12


class Table:
    """What was run, and how it went: one row an operation, one column a party."""

    def __init__(self, host):
        self.host = host
        self.cells = {}  # (operation, party) -> [passed, failed]
        self.failures = []

    def run(self, name, number, party):
        """One case; FALSE if the operation has fewer points."""
        case = Case(self.host, OPERATIONS[name], number, party)
        started = time.monotonic()
        wrong, reached = None, True
        try:
            reached = case.run()
        except Exception:
            wrong = traceback.format_exc().strip()
        if wrong:
            folder = os.path.join(paths.cache('failed'), f'sweep-{name}-{number}-{party}')
            self.host.save_logs(folder)
            with open(os.path.join(folder, 'wrong'), 'w') as out:
                out.write(wrong + '\n')
        case.close()
        line = f'{name}:{number}:{party} at {case.point or "the end"}'
        if reached:
            cell = self.cells.setdefault((name, party), [0, 0])
            cell[bool(wrong)] += 1
            print(f'#   {line}: {"FAILED" if wrong else "ok"} '
                  f'{time.monotonic() - started:.1f} s', flush=True)
        if wrong:
            self.failures.append(f'{line}: {wrong}')
            print(f'#     {wrong.splitlines()[-1]}', flush=True)
        return reached

    def show(self):
        print(f'#   {"":16}' + ''.join(f'{p:>10}' for p in PARTIES))
        total = [0, 0]
        for name in OPERATIONS:
            row = ''
            for party in PARTIES:
                passed, failed = self.cells.get((name, party), (0, 0))
                total = [total[0] + passed, total[1] + failed]
                row += f'{f"{passed}/{passed + failed}" if passed + failed else "-":>10}'
            if row.strip('- '):
                print(f'#   {name:16}{row}')
        print(f'#   {total[0]} passed, {total[1]} failed', flush=True)

    def judge(self):
        self.show()
        if self.failures:
            raise Failure('\n'.join(self.failures))
        if not self.cells:
            raise Failure('no point was reached')


def parties(name):
    """A guest that is off cannot be destroyed."""
    return [p for p in PARTIES if p != 'destroy' or not OPERATIONS[name].off]


@limit(90 if ':' in WANTED else 60 * int(WANTED))
def test_somebody_dies_somewhere(host):
    """Random cases of the table."""
    table = Table(host)
    if ':' in WANTED:
        name, number, party = WANTED.split(':')
        table.run(name, int(number), party)
    else:
        for _ in range(int(WANTED)):
            name = host.random.choice(sorted(OPERATIONS))
            table.run(name, host.random.randrange(1, OPERATIONS[name].usual + 1),
                      host.random.choice(parties(name)))
    table.judge()


@slow
@limit(ALL_HOURS * 3600)
def test_anybody_dies_anywhere(host):
    """The whole table."""
    table = Table(host)
    for name in OPERATIONS:
        number, left = 1, True
        while left:
            left = [table.run(name, number, party) for party in parties(name)]
            left = any(left)
            number += 1
    table.judge()
