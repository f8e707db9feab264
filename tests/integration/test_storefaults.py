"""Files under the store that are not as written.

One bad file concerns one checkpoint, the daemon starts, what was found is told, and what
is left is usable.
"""

import glob
import os
import re
import shutil

import libvirt

from lib import store
from lib.domain import MIB, VM
from lib.host import Failure
from lib.oracle import Oracle
from lib.runner import limit

DISKS = {'vda': 8 * MIB}


def fresh(host, count=3):
    """A guest with some checkpoints, and our daemon stopped."""
    host.start_daemon()
    oracle = Oracle(host, VM(host, disks=DISKS), host.random)
    for _ in range(count):
        oracle.create()
        oracle.write(2)
    oracle.check()
    oracle.events.close()
    host.stop_daemon()
    return oracle


def up(oracle, *options):
    oracle.host.start_daemon(*options)
    oracle.connect()


def record_of(oracle, name):
    return [r for r in store.records(oracle.host, oracle.vm) if r.name == name][0]


def truncate(path):
    os.truncate(path, os.path.getsize(path) // 2)


def noise(path):
    with open(path, 'wb') as out:
        out.write(os.urandom(500))


def folder(path):
    os.unlink(path)
    os.mkdir(path)


def version(number):
    def change(path):
        with open(path) as source:
            text = source.read()
        with open(path, 'w') as out:
            out.write(re.sub(r"(<virtcheckpoint version=)'1'", rf"\1'{number}'", text))
    return change


def another(path):
    """The record of another checkpoint under this one's name."""
    others = glob.glob(os.path.join(os.path.dirname(path), '*.checkpoint.xml'))
    shutil.copy(min(p for p in others if p != path), path)


RECORD_FAULTS = {
    'truncated': truncate, 'emptied': lambda path: os.truncate(path, 0),
    'older': version(0), 'newer': version(2), 'a folder': folder,
    'noise': noise, 'swapped': another,
}


@limit(300)
def test_a_bad_record_concerns_its_checkpoint(host):
    """Whatever became of one record: the daemon starts, says so, names the others, makes
    a new checkpoint that works, and loses no sidecar."""
    kinds = sorted(RECORD_FAULTS)
    for kind in kinds if host.all else host.random.sample(kinds, 2):
        spoil = RECORD_FAULTS[kind]
        oracle = fresh(host)
        path = record_of(oracle, 'c2').path
        sidecars = set(glob.glob(os.path.dirname(path) + '/*.qcow2'))
        spoil(path)
        up(oracle)
        listed = {c.getName() for c in oracle.dom.listAllCheckpoints()}
        if listed != {'c1', 'c3'}:
            raise Failure(f'{kind}: {sorted(listed)}')
        moment = oracle.moments[-1]
        oracle.moments = [moment]  # c3 is whole
        name = oracle.create()
        oracle.write(2)
        if os.path.basename(path) not in host.daemon_log():
            raise Failure(f'{kind}: the log does not name the file')
        oracle.finish(moment, 'vda')
        oracle.finish(oracle.moments[-1], 'vda')
        if not sidecars <= set(glob.glob(os.path.dirname(path) + '/*.qcow2')):
            raise Failure(f'{kind}: sidecars went')
        try:
            oracle.dom.checkpointLookupByName('c1').delete(0)
        except libvirt.libvirtError:
            pass  # refused or not: nothing else may change
        oracle.dom.checkpointLookupByName(name).delete(0)
        oracle.moments.pop()
        oracle.finish(moment, 'vda')
        oracle.events.close()
        host.stop_daemon()
        oracle.vm.destroy()
        oracle.vm.dom.undefine()
        shutil.rmtree(store.folder(host, oracle.vm))
