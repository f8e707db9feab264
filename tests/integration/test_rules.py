"""What must never be sent was not sent, by any test that ran before these."""

from lib import rules, sent
from lib.host import Failure
from lib.runner import Skip

SEEN = {'by': 'daemon', 'domain': 'd', 'sent': {'execute': 'query-named-block-nodes'},
        'reply': {'return': [
            {'node-name': 'top', 'ro': False, 'dirty-bitmaps': [
                {'name': 'A', 'recording': True, 'persistent': True,
                 'inconsistent': False}]},
            {'node-name': 'frozen', 'ro': True, 'dirty-bitmaps': [
                {'name': 'A', 'recording': True, 'persistent': True,
                 'inconsistent': False}]}]}}


DISKS = {'by': 'daemon', 'domain': 'd', 'sent': {'execute': 'query-block'},
         'reply': {'return': [{'inserted': {'node-name': 'top', 'ro': False, 'dirty-bitmaps': [
             {'name': name, 'recording': name == 'B', 'persistent': True,
              'inconsistent': False} for name in 'BC']}}]}}


TWO_LAYERS = {'by': 'daemon', 'domain': 'd', 'sent': {'execute': 'query-named-block-nodes'},
              'reply': {'return': [
                  {'node-name': name, 'ro': False, 'dirty-bitmaps': [
                      {'name': 'A', 'recording': True, 'persistent': True,
                       'inconsistent': False}]} for name in ('over', 'base')]}}


def graph(*edges):
    """What is above what: ('device', 'over') for a disk that the guest has."""
    names = sorted({name for edge in edges for name in edge} | {'over', 'base'})
    return {'by': 'daemon', 'domain': 'd', 'sent': {'execute': 'x-debug-query-block-graph'},
            'reply': {'return': {
                'nodes': [{'id': i, 'name': n, 'type': 'block-driver'}
                          for i, n in enumerate(names)],
                'edges': [{'parent': names.index(a), 'child': names.index(b)}
                          for a, b in edges]}}}


def command(execute, /, **arguments):
    return {'by': 'daemon', 'domain': 'd', 'reply': {'return': {}},
            'sent': {'execute': execute, 'arguments': {
                key.replace('_', '-'): value for key, value in arguments.items()}}}


def transaction(*actions):
    return command('transaction', actions=[{'type': t, 'data': d} for t, d in actions])


def add(name, **more):
    return 'block-dirty-bitmap-add', dict({'node': 'top', 'name': name}, **more)


def merge(target, *sources, node='top'):
    return 'block-dirty-bitmap-merge', {'node': node, 'target': target, 'bitmaps': [
        {'node': n, 'name': b} for n, b in sources]}


def call(name, arguments):
    return {'by': 'call', 'name': name, 'arguments': arguments}


def never(what, *entries):
    if not rules.broken([{'by': 'domain', 'name': 'vm', 'disks': ['vda', 'vdb']}, SEEN,
                         *entries]):
        raise Failure(f'not noticed: {what}')


def fine(what, *entries):
    wrong = rules.broken([{'by': 'domain', 'name': 'vm', 'disks': ['vda', 'vdb']}, SEEN,
                          *entries])
    if wrong:
        raise Failure(f'{what}: {wrong}')


def test_each_break_would_be_noticed(host):
    """The judge itself: every forbidden message is found, its right form is not."""
    never('empty merge', transaction(add('w'), merge('w')))
    never('enable of the unseen', command('block-dirty-bitmap-enable', node='top', name='B'))
    never('merge of the unseen', transaction(add('w'), merge('w', ('top', 'B'))))
    never('merge before add', transaction(add('w', persistent=True, disabled=True),
                                          merge('w', ('top', 'A')), add('B')))
    fine('merge after add', transaction(add('B', persistent=True),
                                        add('w', persistent=True, disabled=True),
                                        merge('w', ('top', 'A'))))
    fine('merge of the frozen', transaction(
        ('block-dirty-bitmap-add', {'node': 'sidecar', 'name': 'bits', 'disabled': True}),
        merge('bits', ('frozen', 'A'), node='sidecar')))
    fine('merge of what the disks showed', DISKS,
         transaction(add('w', disabled=True), merge('w', ('top', 'C'))))
    never('merge of what the disks show no longer', DISKS,
          transaction(add('w', disabled=True), merge('w', ('top', 'A'))))
    fine('a merge of what they do not show', DISKS,
         transaction(add('w', disabled=True), merge('w', ('frozen', 'A'))))
    sample = transaction(add('n', disabled=True), merge('n', ('top', 'A')))
    fine('counting', sample, command('block-dirty-bitmap-remove', node='top', name='n'))
    never('copy by a count', sample, command(
        'blockdev-backup', device='top', target='t', bitmap='n', bitmap_mode='always'))
    back = transaction(merge('A', ('over', 'A'), node='base'))
    fine('bits of an overlay that has left', TWO_LAYERS, graph(('device', 'base')), back)
    never('bits of the disk itself', TWO_LAYERS,
          graph(('device', 'over'), ('over', 'base')), back)
    never('bits of a layer in the chain', TWO_LAYERS,
          graph(('device', 'base'), ('base', 'over')), back)
    never('bits of a layer not looked for', TWO_LAYERS, back)
    pull = dict(command('query-jobs'), reply={'return': [
        {'id': 'pull-vda', 'type': 'stream', 'status': 'running'}]})
    never('a look beside a pull', pull, SEEN)
    never('a look beside a pull that is not dismissed', dict(pull, reply={'return': [
        {'id': 'pull-vda', 'type': 'stream', 'status': 'concluded'}]}), SEEN)
    never('a look beside a creation', dict(pull, reply={'return': [
        {'id': 'create-libvirt-5-format', 'type': 'create', 'status': 'running'}]}), SEEN)
    fine('a look after it', pull, dict(pull, reply={'return': []}), SEEN)
    fine('mirror of the live disk', transaction(add('w'), merge('w', ('top', 'A'))),
         command('blockdev-mirror', device='top', bitmap='w', bitmap_mode='always'))
    never('mirror by the unseen', command('blockdev-mirror', device='top', bitmap='w'))
    never('mirror by a sample', sample, command('blockdev-mirror', device='top', bitmap='n'))
    never('mirror in another mode', transaction(add('w')), command(
        'blockdev-mirror', device='top', bitmap='w', bitmap_mode='never'))
    never('copy from the live disk', transaction(add('w'), merge('w', ('top', 'A'))), command(
        'blockdev-backup', device='top', target='t', bitmap='w', bitmap_mode='always'))
    never('commit without base', call(
        'virDomainBlockCommit', 'dom=0x1, (VM: name=vm, uuid=u), disk=vda, base=(null), '
        'top=(null), bandwidth=0, flags=0x4'))
    never('QMP commit without base', command('block-commit', device='top'))
    disks = "<disks><disk name='vda' snapshot='external'/>%s</disks>"
    head = 'dom=0x1, (VM: name=vm, uuid=u), xmlDesc=<domainsnapshot>'
    never('snapshot of all', call('virDomainSnapshotCreateXML', head + disks % ''))
    fine('snapshot of one', call('virDomainSnapshotCreateXML', head + disks %
                                 "<disk name='vdb' snapshot='no'/>"))
    never('suspend', call('virDomainSuspend', 'dom=0x1, (VM: name=vm, uuid=u)'))


test_each_break_would_be_noticed.no_libvirtd = True


def test_no_test_sent_what_must_never_be_sent(host):
    """Every transaction and call that the other tests sent keeps the rules."""
    wrong, commands = [], 0
    for name, entries in sent.all_kept():
        commands += sum(e['by'] in ('daemon', 'call') for e in entries)
        wrong += [f'{name}: {text}' for text in rules.broken(entries)]
    if not commands:
        raise Skip('no test has run the daemon')
    if wrong:
        raise Failure(f'{len(wrong)} times:\n' + '\n'.join(wrong[:20]))


test_no_test_sent_what_must_never_be_sent.no_libvirtd = True
