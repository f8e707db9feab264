"""Backups through us: libvirt runs them, from checkpoints of ours."""

import libvirt

from lib.backups import Backup
from lib.domain import CLUSTER, MIB, VM
from lib.host import Failure
from lib.oracle import Oracle

DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}


def oracle_of(host, disks=None, **options):
    host.start_daemon()
    return Oracle(host, VM(host, disks=disks or DISKS, **options), host.random)


def chain(oracle, count):
    for _ in range(count):
        oracle.create(sorted(oracle.vm.disks))
        oracle.write(3)


def backup(oracle, **options):
    return Backup(oracle.vm, oracle.dom, **options)


def stock_checkpoints(oracle):
    """What libvirt itself knows, seen past us."""
    return [c.getName() for c in oracle.vm.dom.listAllCheckpoints()]


def at_rest(oracle):
    oracle.check()
    assert stock_checkpoints(oracle) == [], stock_checkpoints(oracle)


def test_full_backups(host):
    """Pull and push in full, as stock."""
    oracle = oracle_of(host)
    oracle.write(5)
    for push in (False, True):
        backup(oracle, push=push).begin().end()
        backup(oracle, push=push, disks=['vdb']).begin().end()
    at_rest(oracle)


def test_incremental_since_any(host):
    """Every checkpoint is a base, again and again, pull and push."""
    oracle = oracle_of(host)
    oracle.write(4)
    chain(oracle, 4)
    for moment in list(oracle.moments) * 2:
        for push in (False, True):
            one = backup(oracle, since=moment.name, push=push).begin()
            if not push:
                assert one.shown() == {moment.name}, one.shown()
            oracle.check_list()
            assert stock_checkpoints(oracle) == []
            one.end(moment.models)
        oracle.write(2)
    at_rest(oracle)


def test_each_disk_since_its_own(host):
    """Per disk another base, one in full, one left out."""
    oracle = oracle_of(host, {'vda': 16 * MIB, 'vdb': 4 * MIB, 'vdc': 4 * MIB})
    chain(oracle, 3)
    first, _, last = oracle.moments
    bases = {'vda': first.models['vda'], 'vdb': last.models['vdb']}
    for push in (False, True):
        one = backup(oracle, since={'vda': first.name, 'vdb': last.name}, push=push)
        one.begin()
        if not push:
            assert one.shown() == {first.name, last.name}, one.shown()
        one.end(bases)
    one = backup(oracle, since=first.name, disks=['vdb']).begin()
    one.end(first.models)
    at_rest(oracle)
