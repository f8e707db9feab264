"""Keeps what each test made the daemon and libvirtd send, for test_rules.py.

One JSON object a line, in order of sending:
  {"by": "daemon", "domain": ..., "sent": {...}, "reply": {...}}    our QMP
  {"by": "call", "name": "virDomainBlockCommit", "arguments": "..."}  our libvirt calls
  {"by": "libvirtd", "sent": {...}}                                   all of QMP, as
      libvirtd passed it on, ours and its own
"""

import glob
import json
import os
import re
import shutil

from . import paths

CALL = re.compile(r': (vir(?:Domain|Connect)\w+):\d+ : (.*)$')
MONITOR = re.compile(r'QEMU_MONITOR_SEND_MSG: mon=(\S+) msg=(.*?)(?:\\r\\n|\r)?(?: fd=-?\d+)?$')


def folder():
    return paths.cache('sent')


def forget():
    shutil.rmtree(folder(), ignore_errors=True)


def _lines(path):
    try:
        with open(path, errors='replace') as log:
            yield from log
    except FileNotFoundError:
        return


def _daemon(path):
    for line in _lines(path):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        reply = entry.get('reply')
        if isinstance(entry.get('sent'), dict) and isinstance(reply, dict):
            # Long answers are of use only where a rule looks things up in them.
            entry['by'] = 'daemon'
            yield entry


def _calls(path):
    for line in _lines(path):
        found = CALL.search(line.rstrip('\n'))
        if found:
            yield {'by': 'call', 'name': found.group(1), 'arguments': found.group(2)}


def _libvirtd(path):
    for line in _lines(path):
        found = MONITOR.search(line.rstrip('\n'))
        if found:
            try:
                yield {'by': 'libvirtd', 'monitor': found.group(1),
                       'sent': json.loads(found.group(2))}
            except ValueError:
                continue


def keep(host, name):
    """Condenses the logs of a finished test into one file."""
    with open(os.path.join(folder(), name + '.jsonl'), 'w') as out:
        for entry in _daemon(host.qmp_log):
            out.write(json.dumps(entry) + '\n')
        for entry in _calls(host.calls_log):
            out.write(json.dumps(entry) + '\n')
        for entry in _libvirtd(host.libvirtd_log):
            out.write(json.dumps(entry) + '\n')


def all_kept():
    """(test name, entries) of every test that ran."""
    for path in sorted(glob.glob(os.path.join(folder(), '*.jsonl'))):
        with open(path) as kept:
            yield os.path.basename(path)[:-6], [json.loads(line) for line in kept]
