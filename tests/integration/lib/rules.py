"""What must never be sent to QEMU or libvirt, judged from what was sent (sent.py).

Each of these killed a guest, lost its writes or deleted its image once.  The rules need
no knowledge of how the daemon works: they follow which bitmaps QEMU showed last and
what was sent since, per QEMU.
"""

import re

FORBIDDEN = {
    'blockdev-set-active': 'takes a running guest down',
    'blockdev-reopen': 'to read-only, makes a guest\'s writes fail',
    'x-blockdev-change': 'leaves libvirt behind',
    'device_del': 'is libvirt\'s business',
    'quit': 'ends the guest',
    'stop': 'pauses the guest',
}


class Bitmap:
    def __init__(self, recording, persistent, read_only=False):
        self.recording = recording
        self.persistent = persistent
        self.read_only = read_only


class Monitor:
    """What one QEMU is known to have, as its messages go by."""

    def __init__(self):
        self.bitmaps = {}  # (node, name) -> Bitmap
        self.read_only = {}  # node -> bool
        self.used = None  # nodes that something is above of, when last looked
        self.broken = []
        self.streaming = False  # a block pull was there, when last looked
        self.sampled = {}  # (node, name): merged from an active bitmap while disabled

    # Looking

    def see(self, nodes):
        """All of a QEMU's nodes."""
        self.bitmaps = {}
        self.see_some(nodes)

    def see_some(self, nodes):
        """Some of them: what was seen of the others still counts."""
        for node in nodes:
            for key in [k for k in self.bitmaps if k[0] == node['node-name']]:
                del self.bitmaps[key]
            name = node['node-name']
            self.read_only[name] = bool(node['ro'])
            for b in node['dirty-bitmaps']:
                if b['name']:
                    self.bitmaps[name, b['name']] = Bitmap(
                        b['recording'] and not b['inconsistent'], b['persistent'],
                        bool(node['ro']))

    def see_graph(self, graph):
        names = {node['id']: node['name'] for node in graph.get('nodes', [])}
        self.used = {names.get(edge['child']) for edge in graph.get('edges', [])}

    def _sources(self, data):
        for source in data.get('bitmaps', []):
            if isinstance(source, str):
                yield data['node'], source
            else:
                yield source['node'], source['name']

    # Judging one action

    def _merge(self, data, break_):
        target = data['node'], data['target']
        sources = list(self._sources(data))
        if not sources:
            break_('merges nothing: QEMU dies of it')
        for source in sources:
            bitmap = self.bitmaps.get(source)
            if bitmap is None:
                break_(f'merges {source}, which was not seen')
                continue
            if not bitmap.recording or self.read_only.get(source[0], False):
                continue
            successors = [key for key, other in self.bitmaps.items() if key != source and
                          key[0] == source[0] and other.recording]
            same = self.bitmaps.get(target)
            if same and same.recording and target[0] != source[0] and \
                    target[1] == source[1] and self.used is not None and \
                    source[0] not in self.used:
                # The layer's own bitmap, which records where the guest writes now, takes
                # over what it had on an overlay that has left the chain: nobody writes
                # through a node that has nothing above it.
                continue
            if not successors:
                if self.bitmaps.get(target) and not self.bitmaps[target].persistent and \
                        target[0] == source[0]:
                    # Counting: allowed as long as nobody copies by it.
                    self.sampled[target] = source
                else:
                    break_(f'merges the active {source} before its successor was added')

    def _enable(self, data, break_):
        if (data['node'], data['name']) not in self.bitmaps:
            break_(f'enables {data["node"]}/{data["name"]}, which was not seen')

    def _backup(self, data, break_):
        bitmap = data.get('bitmap')
        if bitmap and (data['device'], bitmap) in self.sampled:
            break_(f'copies by {bitmap}, which lacks what was written since its merge')
        if bitmap and not self.read_only.get(data['device'], False):
            break_(f'copies from {data["device"]}, which the guest writes to')
        if bitmap and data.get('bitmap-mode') != 'always':
            break_('copies with another bitmap-mode than always')

    def _mirror(self, data, break_):
        bitmap = self.bitmaps.get((data['device'], data.get('bitmap')))
        if not data.get('bitmap'):
            return
        if data.get('bitmap-mode', 'always') != 'always':
            break_('mirrors with another bitmap-mode than always')
        if bitmap is None or not bitmap.recording:
            break_(f'mirrors by {data["bitmap"]}, which was not seen recording')
        if (data['device'], data['bitmap']) in self.sampled:
            break_(f'mirrors by {data["bitmap"]}, which lacks what was written meanwhile')

    def _commit(self, data, break_):
        if not data.get('base') and not data.get('base-node'):
            break_('commits without a named base')

    def action(self, kind, data, break_):
        """Judges one action as it is sent, then applies what it does."""
        key = data.get('node'), data.get('name')
        if kind == 'block-dirty-bitmap-merge':
            self._merge(data, break_)
        elif kind == 'block-dirty-bitmap-enable':
            self._enable(data, break_)
            if key in self.bitmaps:
                self.bitmaps[key].recording = True
        elif kind in ('blockdev-backup', 'drive-backup'):
            self._backup(data, break_)
        elif kind == 'blockdev-mirror':
            self._mirror(data, break_)
        elif kind == 'block-commit':
            self._commit(data, break_)
        elif kind == 'block-dirty-bitmap-add':
            self.bitmaps[key] = Bitmap(not data.get('disabled', False),
                                       data.get('persistent', False))
        elif kind == 'block-dirty-bitmap-disable' and key in self.bitmaps:
            self.bitmaps[key].recording = False
        elif kind == 'block-dirty-bitmap-remove':
            self.bitmaps.pop(key, None)
            self.sampled.pop(key, None)
        elif kind == 'migrate' and str(data.get('uri', '')).startswith('exec:'):
            break_('migrates to a command')
        elif kind == 'query-named-block-nodes' and self.streaming:
            break_('looks at the nodes while a block pull is there: QEMU dies of it')
        elif kind in FORBIDDEN:
            break_(f'{kind}: {FORBIDDEN[kind]}')

    def message(self, sent, reply, break_):
        """Judges one command; what failed is judged as well, but changes nothing."""
        kind, data = sent.get('execute'), sent.get('arguments', {})
        before = {key: Bitmap(b.recording, b.persistent) for key, b in
                  self.bitmaps.items()}
        if kind == 'transaction':
            for action in data.get('actions', []):
                self.action(action['type'], action.get('data', {}), break_)
        else:
            self.action(kind, data, break_)
        if 'error' in reply:
            self.bitmaps = before
        elif kind == 'query-named-block-nodes' and isinstance(reply.get('return'), list):
            self.see(reply['return'])
        elif kind == 'query-block' and isinstance(reply.get('return'), list):
            self.see_some([device['inserted'] for device in reply['return']])
        elif kind == 'query-jobs' and isinstance(reply.get('return'), list):
            self.streaming = any(job['type'] == 'stream' or
                                 (job['type'] == 'create' and job['status'] != 'concluded')
                                 for job in reply['return'])
        elif kind == 'x-debug-query-block-graph' and isinstance(reply.get('return'), dict):
            self.see_graph(reply['return'])


def _snapshot(arguments, domains, break_):
    name = re.search(r'name=([^,]+), uuid', arguments)
    disks = domains.get(name.group(1), []) if name else []
    listed = dict(re.findall(
        r"<disk\s+name=['\"]([^'\"]+)['\"]\s+snapshot=['\"](\w+)['\"]", arguments))
    for disk in disks:
        if disk not in listed:
            break_(f'snapshot does not list disk {disk}')
    if disks and sum(kind != 'no' for kind in listed.values()) != 1:
        break_(f'snapshot of other than one disk: {listed}')


def _call(entry, domains, break_):
    name, arguments = entry['name'], entry['arguments']
    if name == 'virDomainSnapshotCreateXML':
        _snapshot(arguments, domains, break_)
    elif name in ('virDomainBlockCommit', 'virDomainBlockRebase', 'virDomainBlockPull'):
        base = re.search(r'base=([^,]*)', arguments)
        if not base or base.group(1) in ('(null)', '<null>', ''):
            break_(f'{name} without a named base')
    elif name in ('virDomainSuspend', 'virDomainDestroy', 'virDomainReset',
                  'virDomainUndefine'):
        break_(f'{name} is for clients only')


def broken(entries):
    """The rules that one test's messages broke, as sentences."""
    found = []
    monitors = {}
    domains = {e['name']: e['disks'] for e in entries if e['by'] == 'domain'}
    for entry in entries:
        def break_(text, entry=entry):
            found.append(f'{text}: {str(entry.get("sent") or entry.get("arguments"))[:300]}')
        if entry['by'] == 'daemon':
            monitor = monitors.setdefault(entry['domain'], Monitor())
            monitor.message(entry['sent'], entry['reply'], break_)
        elif entry['by'] == 'call':
            _call(entry, domains, break_)
        elif entry['by'] == 'libvirtd':
            sent = entry['sent']
            actions = sent.get('arguments', {}).get('actions', [])
            for data in [a.get('data', {}) for a in actions
                         if a['type'] == 'block-dirty-bitmap-merge'] + (
                             [sent['arguments']] if sent.get('execute') ==
                             'block-dirty-bitmap-merge' else []):
                if not data.get('bitmaps'):
                    break_('an empty merge reached QEMU')
    return found
