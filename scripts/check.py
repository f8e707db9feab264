#!/usr/bin/python3
"""The work of ./check: build, unit and style tests, the same under sanitizers, integration.

Every single case counts, as each program reports it.  A step that cannot run at all
counts as one failure, and the rest still runs where that makes sense.
"""

import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INTEGRATION = os.path.join(TOP, 'tests', 'integration')
sys.path.insert(0, INTEGRATION)
sys.dont_write_bytecode = True

from lib import sanitize  # noqa: E402

BUILD = os.path.join(TOP, 'build')
ASAN = os.path.join(BUILD, 'asan')
TSAN = os.path.join(BUILD, 'tsan')
# What is drawn without --seed.  The same from run to run, so that a red run is the doing
# of what changed; other draws are looked at with --seed, and a new number is a commit.
SEED = 20261120
TOTAL = re.compile(r'^integration: (\d+) passed, (\d+) failed, (\d+) skipped')


class Counts:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def add(self, passed, failed, skipped):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped

    def __str__(self):
        return f'{self.passed} passed, {self.failed} failed, {self.skipped} skipped'


def step(what):
    print(f'== {what}', flush=True)


def run(*command, env=None, before=None):
    return subprocess.run(command, cwd=TOP, check=False, stdin=subprocess.DEVNULL,
                          env=dict(os.environ, **(env or {})),
                          preexec_fn=before).returncode


def build(folder, *options):
    """Configures folder if need be and builds; TRUE if all went well."""
    if not os.path.exists(os.path.join(folder, 'build.ninja')):
        if run('meson', 'setup', *options, folder) != 0:
            return False
    return run('meson', 'compile', '-C', folder) == 0


def cases(folder):
    """(passed, failed, skipped) of the last meson test run, case by case."""
    path = os.path.join(folder, 'meson-logs', 'testlog.junit.xml')
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).iter('testcase'):
        if case.find('failure') is not None or case.find('error') is not None:
            failed += 1
        elif case.find('skipped') is not None:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def meson_test(folder, counts, *options, env=None, before=None):
    path = os.path.join(folder, 'meson-logs', 'testlog.junit.xml')
    if os.path.exists(path):
        os.unlink(path)
    status = run('meson', 'test', '-C', folder, '--no-rebuild', '--print-errorlogs',
                 *options, env=env, before=before)
    passed, failed, skipped = cases(folder) if os.path.exists(path) else (0, 0, 0)
    if status != 0 and failed == 0:
        failed = 1
    counts.add(passed, failed, skipped)


def tidy(counts):
    step('clang-tidy')
    failed = run(os.path.join(TOP, 'scripts', 'check-tidy.sh'), BUILD) != 0
    counts.add(not failed, failed, 0)


def asan(counts):
    step('unit tests under ASan and UBSan')
    if not build(ASAN, '--buildtype=debug', '-Db_sanitize=address,undefined',
                 '-Db_lundef=false'):
        counts.add(0, 1, 0)
        return
    meson_test(ASAN, counts, '--no-suite', 'style', '--timeout-multiplier', '4', env={
        'ASAN_OPTIONS': 'detect_leaks=1:verify_asan_link_order=0',
        'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1'})


def tsan(counts, options):
    """Without --all what has threads of ours in it: the rest has nothing to show."""
    what = 'unit tests' if options.all else 'unit tests with threads'
    step(f'{what} under TSan')
    if not build(TSAN, '--buildtype=debug', '-Db_sanitize=thread', '-Db_lundef=false'):
        counts.add(0, 1, 0)
        return
    meson_test(TSAN, counts, *(('--no-suite', 'style') if options.all else
                               ('--suite', 'threads')), '--timeout-multiplier', '4',
               before=sanitize.fixed_addresses)
    step('integration tests under TSan, ' + ('a sample' if options.all else 'one file'))
    integration(counts, options, '--build', TSAN,
                *(('--sample',) if options.all else
                  (os.path.join(INTEGRATION, 'test_dispatch.py'),)))


def integration(counts, options, *more):
    command = ['/usr/bin/python3', os.path.join(INTEGRATION, 'run.py'), *more]
    if options.all:
        command.append('--all')
    if options.seed is not None:
        command += ['--seed', str(options.seed)]
    process = subprocess.Popen(command, cwd=TOP, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, text=True, errors='replace')
    total = None
    for line in process.stdout:
        print(line, end='', flush=True)
        total = TOTAL.match(line) or total
    status = process.wait()
    passed, failed, skipped = map(int, total.groups()) if total else (0, 1, 0)
    if status != 0 and failed == 0:
        failed = 1
    counts.add(passed, failed, skipped)


def main():
    parser = argparse.ArgumentParser(prog='./check', description=__doc__)
    parser.add_argument('--all', action='store_true', help='the slow tests, too')
    parser.add_argument('--seed', type=int, default=SEED,
                        help=f'of the random sequences; {SEED} without it')
    options = parser.parse_args()
    # Python-based tools must find the system's interpreter and its modules.
    os.environ['PATH'] = '/usr/bin:/bin:/usr/sbin:/sbin:' + os.environ.get('PATH', '')
    os.environ['LC_ALL'] = 'C.UTF-8'
    counts = Counts()
    started = time.monotonic()
    step('build')
    if build(BUILD):
        step('unit and style tests')
        meson_test(BUILD, counts)
        tidy(counts)
        asan(counts)
        step('integration tests')
        integration(counts, options)
        step('integration tests under ASan and UBSan' + ('' if options.all else ', a sample'))
        integration(counts, options, '--build', ASAN,
                    *(() if options.all else ('--sample',)))
        tsan(counts, options)
    else:
        counts.add(0, 1, 0)
    print(f'== {time.monotonic() - started:.0f} s')
    print(counts, flush=True)
    return 1 if counts.failed or not counts.passed else 0


if __name__ == '__main__':
    sys.exit(main())
