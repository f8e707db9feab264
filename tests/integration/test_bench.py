"""The benchmarks run, and print a table; what they measure is not judged here."""

import importlib.machinery
import importlib.util
import os

from lib import domain, paths
from lib.runner import limit


def load(name):
    loader = importlib.machinery.SourceFileLoader(
        f'bench_{name}', os.path.join(paths.TOP, 'bench', name))
    bench = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(bench)
    return bench


def test_heal_bench(host):
    """bench/heal heals against both formats and measures both sides."""
    bench = load('heal')
    found = bench.run(host, 16 * domain.MIB, 1)
    assert len(list(bench.table(found, 16 * domain.MIB))) == 3
    assert all(value > 0 for sides in found.values() for side in sides for value in side)


def test_checkpoints_bench(host):
    """bench/checkpoints measures both sides at two numbers of checkpoints."""
    bench = load('checkpoints')
    model, numbers = domain.Model, [1, 2]
    try:
        ours, stock = bench.run(host, numbers, 64 * domain.MIB)
    finally:
        domain.Model = model
    lines = list(bench.table(ours, stock, numbers))
    assert len(lines) == 2 + 3 * len(bench.ROWS), lines
    for side in (ours, stock):
        assert all(value > 0 for row in side.found.values() for value in row.values())


@limit(300)
def test_mirror_bench(host):
    """bench/mirror measures copies of a small disk; an idle guest's are not too large."""
    bench = load('mirror')
    del bench.PATTERNS['1 MiB']
    model = domain.Model
    try:
        rows = bench.run(host, 64 * domain.MIB, [10])
    finally:
        domain.Model = model
    assert len(list(bench.table(rows))) == 2 + len(rows) == 6
    for row in rows:
        assert row['seconds'] > 0 and row['stock'] > 0, row
        assert 'bytes' not in bench.judge(row), row
