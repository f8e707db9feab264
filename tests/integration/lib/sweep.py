"""The sweep's table: operation x point x who dies there, judged by content (kills.py)."""

import collections
import os
import time
import traceback

from . import paths
from .host import Failure
from .kills import LEFT_OUT, PARTIES, Case
from .runner import limit
from .sweepagent import AGENTS
from .sweepcopies import COPIES
from .sweepmoves import MOVES
from .sweepops import OPERATIONS as OTHERS
from .sweeprecover import RECOVERIES

OPERATIONS = {**OTHERS, **MOVES, **COPIES, **RECOVERIES, **AGENTS}

ROW_HOURS = 3


class Beyond(Exception):
    """An operation has fewer points."""


class Refused(Case):
    """Nobody dies: what lies behind the point fails.  The daemon goes on."""

    def _start_daemon(self, **options):
        env = dict(options.pop('env', {}))
        if env:
            where = f'*@{self.number}' if isinstance(self.number, int) else \
                f'{self.number}@1'
            env['VIRT_CHECKPOINT_FAULTS'] = f'{where}=fail'
        super()._start_daemon(env=env, **options)

    def _reached(self, thread):
        """The point may lie behind the operation: then it is the judge that meets it."""
        if not super()._reached(thread):
            raise Beyond
        thread.join(60)
        return True


class Undisturbed(Case):
    """An operation that nobody disturbs: which points it passes."""

    def __init__(self, host, operation):
        super().__init__(host, operation, 10 ** 6, 'daemon')
        self.points = []

    def _reached(self, thread):
        reached = super()._reached(thread)
        self.points = self.passed()
        return reached


def repeats(points, number):
    """TRUE if what there is at the point is what there was at the one before it: each
    side effect has a point after it, so none lies just before a point that is named for
    what comes next."""
    last = points[number - 1].rsplit('/', 1)[-1]
    return number > 1 and (last == 'before' or last.startswith('before-'))


COLUMNS = PARTIES + ('error',)


def parties(name):
    """A guest that is off cannot be destroyed."""
    return [p for p in COLUMNS if p != 'destroy' or not OPERATIONS[name].off]


class Kept:
    """A table that takes longer than one run: a folder with the cells that passed, and
    the points of the rows.  It knows of no tree: whoever keeps it says which cells a
    change concerns.  Several runs may share it, each with its own part of the cells."""

    def __init__(self, folder):
        self.folder = folder
        self.points = {}
        os.makedirs(folder, exist_ok=True)

    def lines(self, name):
        try:
            with open(os.path.join(self.folder, name)) as kept:
                return kept.read().splitlines()
        except FileNotFoundError:
            return []

    def cells(self):
        """{(operation, number, party)}"""
        return {(name, int(number), party) for name, number, party in (
            line.split()[:3] for line in self.lines('cells'))}

    def add(self, how, name, number, party, point):
        """how: the file of those that passed, failed, or lie beyond the end."""
        with open(os.path.join(self.folder, how), 'a') as kept:
            kept.write(f'{name} {number} {party} {point}\n')

    def learn(self, name, find):
        """The points of a row: what is kept, or what find() returns."""
        self.points[name] = self.lines(f'points-{name}')
        if not self.points[name]:
            self.points[name] = find()
            with open(os.path.join(self.folder, f'points-{name}'), 'w') as kept:
                kept.write('\n'.join(self.points[name]) + '\n')

    def around(self, name, number, party):
        """Who dies between which two points."""
        return (*self.points[name][max(number - 2, 0):number], party)

    def named(self, name, number, party):
        """The operation, the point by its name, who dies there: a point may be passed
        many times in one operation, for each disk, sidecar or command."""
        points = self.points[name]
        return name, points[number - 1] if number <= len(points) else None, party

    def next(self, cells, random):
        """Of these cells one that did not pass yet, and of those one of whose name, and
        then around which, the fewest did; None when all have passed."""
        passed = [cell for cell in self.cells() if cell[0] in self.points]
        named = collections.Counter(self.named(*cell) for cell in passed)
        around = collections.Counter(self.around(*cell) for cell in passed)
        left = list(set(cells).difference(passed))
        random.shuffle(left)
        return min(left, key=lambda cell: (named[self.named(*cell)],
                                           around[self.around(*cell)]), default=None)


class Table:
    """What was run, and how it went: one row an operation, one column a party."""

    def __init__(self, host):
        self.host = host
        self.cells = {}  # (operation, party) -> [passed, failed]
        self.failures = []
        self.points = {}  # operation -> (its points, those that were run)

    def _attempt(self, case, what):
        """FALSE if the operation has fewer points; None if it failed."""
        try:
            return case.run()
        except Beyond:
            return False
        except Exception:
            wrong = traceback.format_exc().strip()
        folder = os.path.join(paths.cache('failed'), f'sweep-{what}')
        self.host.save_logs(folder)
        with open(os.path.join(folder, 'wrong'), 'w') as out:
            out.write(wrong + '\n')
        self.failures.append(f'{what} at {case.point or "the end"}: {wrong}')
        print(f'#     {wrong.splitlines()[-1]}', flush=True)
        return None

    def run(self, name, number, party):
        """One case; FALSE if the operation has fewer points."""
        kind = Refused if party == 'error' else Case
        case = kind(self.host, OPERATIONS[name], number, party)
        started = time.monotonic()
        reached = self._attempt(case, f'{name}-{number}-{party}')
        case.close()
        if reached is not False:
            cell = self.cells.setdefault((name, party), [0, 0])
            cell[reached is None] += 1
            print(f'#   {name}:{number}:{party} at {case.point or "the end"}: '
                  f'{"ok" if reached else "FAILED"} {time.monotonic() - started:.1f} s',
                  flush=True)
        return reached is not False

    def _points(self, name):
        """Those that an operation passes when nobody disturbs it."""
        case = Undisturbed(self.host, OPERATIONS[name])
        self._attempt(case, f'{name}-undisturbed')
        case.close()
        return case.points

    def rest(self, folder, hours, part, parts, names=OPERATIONS):
        """What a kept table lacks, for some time; of the cells every parts-th."""
        kept, end = Kept(folder), time.monotonic() + hours * 3600
        for name in names:
            kept.learn(name, lambda name=name: self._points(name))
        cells = [(name, number, party) for name, points in kept.points.items()
                 for number in range(1, len(points) + 1) if not repeats(points, number)
                 for party in parties(name)][part::parts]
        tried = set()
        while time.monotonic() < end:
            cell = kept.next([c for c in cells if c not in tried], self.host.random)
            if cell is None:
                break
            tried.add(cell)
            before = len(self.failures)
            reached = self.run(*cell)
            failed = len(self.failures) > before
            kept.add('failed' if failed else 'cells' if reached else 'beyond', *cell,
                     kept.points[cell[0]][cell[1] - 1])
        passed = kept.cells()
        print(f'#   {len(passed)} cells of this table have passed; of this part '
              f'{len(set(cells) - passed)} of {len(cells)} have not; by the points\' names '
              f'{len({kept.named(*cell) for cell in set(cells) & passed})} of '
              f'{len({kept.named(*cell) for cell in cells})} have', flush=True)

    def row(self, name, share=1.0, only=None):
        """All points of an operation, or a random share of them; all parties, or one."""
        points = self._points(name)
        numbers = [n for n in range(1, len(points) + 1)
                   if not repeats(points, n) and self.host.random.random() < share]
        self.points[name] = (len(points), len(numbers))
        for number in numbers:
            for party in [only] if only else parties(name):
                self.run(name, number, party)

    def draw(self, name):
        """One random cell."""
        random = self.host.random
        while not self.run(name, random.randrange(1, OPERATIONS[name].usual + 1),
                           random.choice(parties(name))):
            pass

    def show(self):
        print(f'#   {"":18}{"points":>9}' + ''.join(f'{p:>10}' for p in COLUMNS))
        total = [0, 0]
        for name in OPERATIONS:
            row = ''
            for party in COLUMNS:
                passed, failed = self.cells.get((name, party), (0, 0))
                total = [total[0] + passed, total[1] + failed]
                row += f'{f"{passed}/{passed + failed}" if passed + failed else "-":>10}'
            if row.strip('- '):
                all_of_it, taken = self.points.get(name, (0, 0))
                points = f'{taken}/{all_of_it}' if all_of_it else ''
                print(f'#   {name:18}{points:>9}{row}')
        print(f'{LEFT_OUT}#   {total[0]} passed, {total[1]} failed', flush=True)

    def judge(self):
        self.show()
        if self.failures:
            raise Failure('\n'.join(self.failures))
        if not self.cells:
            raise Failure('no point was reached')


def _row_test(name):
    @limit(OPERATIONS[name].seconds, whole=ROW_HOURS * 3600)
    def test(host):
        table = Table(host)
        if host.all:
            table.row(name)
        else:
            table.draw(name)
        table.judge()
    test.__doc__ = f'{name}: anybody dies at any point; without --all at a random one.'
    return test


def row_tests(wanted):
    """One test a row, for each operation that is wanted."""
    return {f'test_row_{name.replace("-", "_")}': _row_test(name)
            for name, operation in OPERATIONS.items() if wanted(operation)}
