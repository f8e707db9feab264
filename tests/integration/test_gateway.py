"""The gateway: a stock client through it sees what it sees without it."""

import os

from lib.domain import VM
from lib.host import Failure

DOMAIN = '''<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64'>hvm</type></os><devices>{devices}</devices></domain>'''


def test_a_virsh_session(host):
    """define, start, list, dumpxml, destroy, undefine print what they print stock."""
    path = os.path.join(host.images, 'd.xml')
    with open(path, 'w') as xml:
        xml.write(DOMAIN.format(name='d', devices=''))
    seen = {}
    host.start_daemon()
    for ours in (False, True):
        seen[ours] = [host.virsh(*command, ours=ours) for command in (
            ('define', path), ('start', 'd'), ('list', '--all'), ('domstate', 'd'),
            ('destroy', 'd'), ('list', '--all'), ('undefine', 'd'), ('list', '--all'),
            ('capabilities',), ('uri',))]
    stock = [text.replace(host.backend, host.front) for text in seen[False]]
    for one, other in zip(stock, seen[True]):
        one, other = one.replace(' 1 ', ' N '), other.replace(' 2 ', ' N ')
        assert one == other, (one, other)
