"""Parity: the same calls against the stock daemon and through us, on twin guests.

A script is a function of one Player.  It is played twice; what each call printed,
returned or refused is compared after names, uuids, paths, ids and times of both guests
have been made alike.  docs/differences.md lists the differences that are meant: a row
`pattern`, stock, ours, why, for names of calls.  One that is on no row fails the test,
and so does a row whose calls do not differ.
"""

import difflib
import fnmatch
import os
import re
import subprocess

import libvirt

from . import paths
from .host import Failure

LIST = os.path.join(paths.TOP, 'docs', 'differences.md')
# What no two runs have in common.
PATTERNS = (
    (re.compile(r'\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}'), 'DATE'),
    (re.compile(r'\b1[6-9]\d{8}\b'), 'TIME'),
    (re.compile(r"(<domain [^>]*\bid=')\d+"), r'\1ID'),
    (re.compile(r'/[\w/.-]*/domaincheckpoint\.rng'), 'SCHEMA'),
    (re.compile(r'/tmp/virsh\w+'), 'EDITED'),
)


class Player:
    """One of the twins: its guest, its connection, and what it has seen so far.

    Attributes: conn, dom, vm, ours, seen ({call: outcome}).
    """

    def __init__(self, host, vm, ours, other):
        self.host = host
        self.vm = vm
        self.ours = ours
        self.other = other
        self.seen = {}
        self.connect()

    def connect(self):
        self.conn = self.host.connect(ours=self.ours)
        self.dom = self.conn.lookupByName(self.vm.name)

    def alike(self, value):
        """A value as text in which nothing is a guest's own."""
        text = value if isinstance(value, str) else repr(value)
        text = re.sub(rf'^{self.other}\n', '', text, flags=re.MULTILINE)
        for own, common in ((self.host.front, 'SOCKET'), (self.host.backend, 'SOCKET'),
                            (self.vm.uuid, 'UUID'), (self.vm.name, 'GUEST')):
            text = text.replace(own, common)
        for pattern, common in PATTERNS:
            text = pattern.sub(common, text)
        return text

    def note(self, call, value):
        if call in self.seen:
            raise Failure(f'two calls are named {call}')
        self.seen[call] = self.alike(value)

    def api(self, call, function, *args):
        """Notes what a call of the API returns or how it fails; returns that."""
        try:
            value = function(*args)
        except libvirt.libvirtError as error:
            value = None
            self.note(call, f'error {error.get_error_code()} of '
                            f'{error.get_error_domain()}, level '
                            f'{error.get_error_level()}: {error.get_error_message()}')
        else:
            self.note(call, self._show(value))
        return value

    def _show(self, value):
        if isinstance(value, libvirt.virDomainCheckpoint):
            return f'checkpoint {value.getName()} of {value.getDomain().name()}'
        if isinstance(value, list):
            # In an order that nobody promises, unless the caller takes care of it.
            return str(sorted(self._show(v) for v in value))
        return value if isinstance(value, str) else repr(value)

    def order(self, call, function, *args):
        """As api(), for a list whose order is promised."""
        def names():
            return ' '.join(checkpoint.getName() for checkpoint in function(*args))
        self.api(call, names)

    def virsh(self, call, *args, env=None):
        """Notes status, output and errors of a stock virsh."""
        done = subprocess.run(
            [paths.stock_virsh(), '-c', self.host.uri(self.ours), *args],
            capture_output=True, text=True, errors='backslashreplace', timeout=60,
            stdin=subprocess.DEVNULL, check=False, env=dict(os.environ, **(env or {})))
        self.note(call, f'status {done.returncode}\n{done.stdout}{done.stderr}')

    def lookup(self, name):
        """A checkpoint, without a note; None if there is none."""
        try:
            return self.dom.checkpointLookupByName(name)
        except libvirt.libvirtError:
            return None

    def forget(self, name):
        """Deletes a checkpoint if it is there, without a note."""
        checkpoint = self.lookup(name)
        if checkpoint:
            checkpoint.delete()

    def file(self, name, text):
        path = os.path.join(self.host.work, name)
        with open(path, 'wb') as out:
            out.write(text if isinstance(text, bytes) else text.encode())
        return path


def rows():
    """[(pattern, text only)] of docs/differences.md."""
    found = []
    with open(LIST) as text:
        for line in text:
            cells = [cell.strip() for cell in line.split('|')]
            if len(cells) >= 6 and cells[1].startswith('`'):
                found += [(pattern, cells[2].startswith('text'))
                          for pattern in re.findall('`([^`]+)`', cells[1])]
    if not found:
        raise Failure(f'{LIST} lists nothing')
    return found


def _code(outcome):
    """The part of an outcome that is not words."""
    match = re.match(r'(error \d+ of \d+, level \d+):|(status -?\d+)\n', outcome)
    return match.group(0) if match else outcome


def _difference(call, stock, ours):
    lines = difflib.unified_diff(stock.splitlines(), ours.splitlines(), 'stock', 'ours',
                                 lineterm='', n=1)
    return '\n'.join([f'--- {call} ---', *lines])


def compare(stock, ours):
    """Raises unless both have seen the same but for what is listed; returns how many
    calls were compared."""
    different, failures = set(), []
    if list(stock.seen) != list(ours.seen):
        raise Failure(f'other calls: {set(stock.seen) ^ set(ours.seen)}')
    for call, outcome in stock.seen.items():
        got = ours.seen[call]
        if got == outcome:
            continue
        different.add(call)
        if not any(fnmatch.fnmatchcase(call, pattern) and
                   (not text or _code(outcome) == _code(got)) for pattern, text in rows()):
            failures.append(_difference(call, outcome, got))
    for pattern, _ in rows():
        calls = set(fnmatch.filter(stock.seen, pattern))
        if calls and not calls & different:
            failures.append(f'{pattern} is listed and does not differ')
    if failures:
        raise Failure(f'{len(failures)} differences:\n' + '\n'.join(failures))
    return len(stock.seen)
