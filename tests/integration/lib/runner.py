"""Runs tests: every function test_* of a file, each on a fresh PrivateHost.

A test is `def test_what(host)`; its docstring is the sentence it proves.  It fails by
raising, and is skipped by raising Skip.  `@slow` tests run with --all only; `@limit(N)`
gives a test N seconds instead of 120.  Each file runs in a place of its own
(session.py), two at a time, and nothing a test does can make the run hang: a test that
does not end is shot with its stacks printed, and the rest of its file goes on.
`@sample` tests are those that --sample runs: ./check has them run once more with the
programs of the sanitizers' build.

A failed test in which the stock libvirtd crashed or the stock QEMU hit an assertion of
its own tells nothing of us: it runs once more, the last of all, and the total names it.
Any other failure is final.
"""

import faulthandler
import fnmatch
import glob
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import traceback

import libvirt

from . import paths, sanitize, sent, session
from .host import PrivateHost

LIMIT = 120
SLOWER = 3  # another build may be, one with sanitizers is
GROUPS = {'test_rules.py': 1}


class Skip(Exception):
    """The test cannot run here; the text says why."""


def slow(test):
    test.slow = True
    return test


def sample(test):
    test.sample = True
    return test


def limit(seconds, whole=None):
    """How long a test may take, and how long with --all if that is another one."""
    def mark(test):
        test.limit, test.whole_limit = seconds, whole or seconds
        return test
    return mark


class Options:
    def __init__(self, run_all=False, seed=None, only=None, jobs=2, sample_only=False,
                 hours=0.0, last=False):
        self.all = run_all
        self.last = last
        self.sample = sample_only
        self.hours = hours
        self.seed = seed if seed is not None else random.SystemRandom().randrange(10**6)
        self.only = only
        self.jobs = jobs


# Inside: one file's tests

def _events():
    libvirt.virEventRegisterDefaultImpl()

    def loop():
        while True:
            libvirt.virEventRunDefaultImpl()
    threading.Thread(target=loop, daemon=True).start()


def _load(path):
    name = os.path.basename(path)[:-3]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return [(f'{name}.{key}', value) for key, value in vars(module).items()
            if key.startswith('test_') and callable(value)]


def _say(text):
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def _run_one(name, test, work, options):
    """Runs one test; prints its details, then its result line."""
    started = time.monotonic()
    host, failure, skipped, died = None, None, None, ''
    try:
        host = PrivateHost(work)
        host.seed, host.all, host.hours = options.seed, options.all, options.hours
        sanitize.prepare(host.logs)
        host.random = random.Random(f'{options.seed} {name}')
        if not getattr(test, 'no_libvirtd', False):
            host.start_libvirtd()
        test(host)
    except Skip as skip:
        skipped = str(skip)
    except BaseException:
        failure = traceback.format_exc()
    if host:
        try:
            died = host.stock_died()
            host.close()
            sent.keep(host, name)
            found = sanitize.findings(host.logs)
            if found:
                failure, died = (failure or '') + found, ''
        except Exception:
            failure = (failure or '') + traceback.format_exc()
        if failure:
            host.save_logs(os.path.join(paths.cache('failed'), name))
    spent = time.monotonic() - started
    if failure:
        for line in failure.rstrip().splitlines():
            _say('#   ' + line)
        _say(f'#   seed {options.seed}; logs in {paths.cache("failed")}/{name}')
        if host and host.daemon_log():
            for line in host.daemon_log().splitlines()[-15:]:
                _say('#   daemon: ' + line)
        if died and not options.last:
            _say(f'again {name}: {died}')
        else:
            _say(f'not ok {name} ({spent:.1f} s)')
    elif skipped is not None:
        _say(f'skip {name}: {skipped}')
    else:
        _say(f'ok {name} ({spent:.1f} s)')


def worker(path, names, options):
    """Runs the named tests of one file, inside."""
    work = session.inside()
    if sanitize.is_tsan(paths.DAEMON):
        sanitize.fixed_addresses()
    libvirt.registerErrorHandler(lambda *_: None, None)
    _events()
    for name, test in _load(path):
        if name not in names:
            continue
        kind = 'whole_limit' if options.all else 'limit'
        seconds = getattr(test, kind, LIMIT) * (SLOWER if paths.TESTED != paths.BUILD
                                                   else 1)
        _say(f'begin {name}')
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.stderr)
        _run_one(name, test, work, options)
        faulthandler.cancel_dump_traceback_later()
    sys.stdout.flush()
    os._exit(0)


# Outside: all files

class Run:
    """Counts and prints what the workers say."""

    def __init__(self, options):
        self.options = options
        self.passed = self.failed = self.skipped = 0
        self.again = []  # (path, name), where a stock program died
        self._lock = threading.Lock()
        self._sessions = []
        self._stopping = False

    def _count(self, line):
        kind = line.split(' ', 1)[0]
        self.passed += kind == 'ok'
        self.failed += kind == 'not'
        self.skipped += kind == 'skip'

    def _finish(self, lines):
        with self._lock:
            self._count(lines[-1])
            print('\n'.join(lines), flush=True)

    def skip(self, name, why):
        self._finish([f'skip {name}: {why}'])

    def _read(self, path, stream, todo):
        """Reads one worker to its end; returns the test in which it died."""
        current, lines = None, []
        for line in stream:
            line = line.rstrip('\n')
            if line.startswith('begin '):
                current, lines = line[6:], []
                continue
            lines.append(line)
            if current and line.startswith(('ok ', 'not ok ', 'skip ', 'again ')):
                if line.startswith('again '):
                    self.again.append((path, current))
                self._finish(lines)
                todo.remove(current)
                current, lines = None, []
        if current is None and lines:
            print('\n'.join(lines), flush=True)
        return current, lines

    def run_file(self, path, names):
        todo = list(names)
        while todo and not self._stopping:
            command = [sys.executable, sys.argv[0], '--worker', path, '--seed',
                       str(self.options.seed), '--names', ','.join(todo)]
            if self.options.all:
                command += ['--all', '--hours', str(self.options.hours)]
            if self.options.last:
                command.append('--last')
            place = session.outside(command, stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                    text=True, errors='replace')
            self._sessions.append(place)
            try:
                died, lines = self._read(path, place.process.stdout, todo)
                place.process.wait()
                if self._stopping:
                    return
                if died is None and todo:
                    died, lines = todo[0], lines + ['the file could not be run']
                if died:
                    folder = os.path.join(paths.cache('failed'), died)
                    shutil.rmtree(folder, ignore_errors=True)
                    shutil.copytree(os.path.join(place.work, 'logs'), folder,
                                    dirs_exist_ok=True) if os.path.isdir(
                                        os.path.join(place.work, 'logs')) else None
                    self._finish([f'#   {line}' for line in lines] +
                                 [f'not ok {died}: it ended or was stopped (time limit)'])
                    todo.remove(died)
            finally:
                place.close()
                self._sessions.remove(place)

    def stop(self):
        self._stopping = True
        for place in list(self._sessions):
            place.close()


def discover(files, options):
    """[(path, [(name, test)])] of the wanted files, rules last."""
    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    found = []
    for path in files or sorted(glob.glob(os.path.join(folder, 'test_*.py'))):
        path = os.path.abspath(path)
        tests = [(name, test) for name, test in _load(path)
                 if (not options.only or fnmatch.fnmatch(name, f'*{options.only}*')) and
                 (not options.sample or getattr(test, 'sample', False))]
        found.append((path, tests))
    return sorted(found, key=lambda f: GROUPS.get(os.path.basename(f[0]), 0))


def _run_group(run, group):
    """Runs files two at a time, those that may take longest first."""
    queue = sorted(group, key=lambda f: -f[2])
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                if not queue:
                    return
                path, names, _ = queue.pop(0)
            run.run_file(path, names)
    threads = [threading.Thread(target=work) for _ in range(run.options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)


def main(files, options):
    """Runs all; returns the process's exit status."""
    run = Run(options)
    print(f'integration: seed {options.seed}', flush=True)
    groups = {0: [], 1: []}
    for path, tests in discover(files, options):
        names, weight = [], 0
        for name, test in tests:
            if getattr(test, 'slow', False) and not options.all:
                run.skip(name, 'runs with --all')
            else:
                names.append(name)
                weight += getattr(test, 'limit', LIMIT // 10)
        if names:
            groups[GROUPS.get(os.path.basename(path), 0)].append(
                (path, names, weight))
    if not files and not options.only and not options.sample:
        sent.forget()
    started = time.monotonic()
    try:
        for key in sorted(groups):
            _run_group(run, groups[key])
        options.last = True
        for path, name in run.again:
            run.run_file(path, [name])
    except BaseException:
        run.stop()
        raise
    finally:
        session.mop_up()
    if run.again:
        print('integration: run again because a stock program died: ' +
              ', '.join(name for _, name in run.again))
    print(f'integration: {run.passed} passed, {run.failed} failed, {run.skipped} skipped '
          f'in {time.monotonic() - started:.0f} s', flush=True)
    return 1 if run.failed else 0
