"""Keeps what each test made the daemon and libvirtd send, for test_rules.py.

One JSON object a line:
  {"by": "domain", "name": ..., "uuid": ..., "disks": [...]}          the test's guests
  {"by": "daemon", "domain": ..., "sent": {...}, "reply": {...}}      our QMP
  {"by": "call", "name": "virDomainBlockCommit", "arguments": "..."}  our libvirt calls
  {"by": "libvirtd", "monitor": ..., "sent": {...}}                   all of QMP as
      libvirtd passed it on, ours, the test's and its own
"""

import glob
import json
import os
import re
import shutil

from . import paths

STAMP = re.compile(r'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d')
CALL = re.compile(r'^\S+ \S+: \d+: debug : (vir(?:Domain|Connect)\w+):\d+ : (.*)$', re.S)
MONITOR = re.compile(
    r'QEMU_MONITOR_SEND_MSG: mon=(\S+) msg=(.*?)(?:\\r\\n|\r)?(?: fd=-?\d+)?$', re.S)


def folder():
    return paths.cache('sent')


def forget():
    shutil.rmtree(folder(), ignore_errors=True)


def _messages(path):
    """The messages of a libvirt log; one may span lines."""
    try:
        with open(path, errors='replace') as log:
            message = ''
            for line in log:
                if STAMP.match(line):
                    if message:
                        yield message.rstrip('\n')
                    message = line
                else:
                    message += line
            if message:
                yield message.rstrip('\n')
    except FileNotFoundError:
        return


def _brief_node(node):
    return {'node-name': node.get('node-name'), 'ro': node.get('ro'),
            'dirty-bitmaps': [{key: b.get(key) for key in (
                'name', 'recording', 'persistent', 'inconsistent', 'busy', 'count')}
                for b in node.get('dirty-bitmaps', [])]}


def _brief_graph(graph):
    return {'nodes': [{key: n.get(key) for key in ('id', 'name', 'type')}
                      for n in graph.get('nodes', [])],
            'edges': [{key: e.get(key) for key in ('parent', 'child')}
                      for e in graph.get('edges', [])]}


def brief(entry):
    """An entry of the daemon's log with only what rules look at of the reply."""
    sent, reply = entry['sent'], entry.get('reply') or {}
    if 'error' in reply:
        kept = {'error': reply['error']}
    elif sent.get('execute') == 'query-named-block-nodes' and \
            isinstance(reply.get('return'), list):
        kept = {'return': [_brief_node(node) for node in reply['return']]}
    elif sent.get('execute') == 'query-block' and isinstance(reply.get('return'), list):
        kept = {'return': [{'inserted': _brief_node(device['inserted'])}
                           for device in reply['return'] if device.get('inserted')]}
    elif sent.get('execute') == 'query-jobs' and isinstance(reply.get('return'), list):
        kept = {'return': [{key: job.get(key) for key in ('id', 'type', 'status')}
                           for job in reply['return']]}
    elif sent.get('execute') == 'x-debug-query-block-graph' and \
            isinstance(reply.get('return'), dict):
        kept = {'return': _brief_graph(reply['return'])}
    else:
        kept = {'return': {}} if 'return' in reply else {}
    return {'by': 'daemon', 'domain': entry.get('domain'), 'sent': sent, 'reply': kept}


def _daemon(path):
    try:
        with open(path, errors='replace') as log:
            for line in log:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and isinstance(entry.get('sent'), dict):
                    yield brief(entry)
    except FileNotFoundError:
        return


def calls(path):
    """(name, arguments) of the calls in our daemon's log of them, in order."""
    for message in _messages(path):
        found = CALL.match(message)
        if found:
            yield found.group(1), found.group(2)


def _libvirtd(path):
    for message in _messages(path):
        found = MONITOR.search(message)
        if found:
            try:
                sent = json.loads(found.group(2))
            except ValueError:
                continue
            if not sent.get('execute', '').startswith('query-'):
                yield {'by': 'libvirtd', 'monitor': found.group(1), 'sent': sent}


def keep(host, name):
    """Condenses the logs of a finished test into one file."""
    with open(os.path.join(folder(), name + '.jsonl'), 'w') as out:
        for vm in host.guests:
            out.write(json.dumps({'by': 'domain', 'name': vm.name, 'uuid': vm.uuid,
                                  'disks': list(vm.disks)}) + '\n')
        for entry in _daemon(host.qmp_log):
            out.write(json.dumps(entry) + '\n')
        for call, arguments in calls(host.calls_log):
            out.write(json.dumps({'by': 'call', 'name': call, 'arguments': arguments}) +
                      '\n')
        for entry in _libvirtd(host.libvirtd_log):
            out.write(json.dumps(entry) + '\n')


def all_kept():
    """(test name, entries) of every test that ran."""
    for path in sorted(glob.glob(os.path.join(folder(), '*.jsonl'))):
        with open(path) as kept:
            yield os.path.basename(path)[:-6], [json.loads(line) for line in kept]
