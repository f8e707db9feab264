"""The ways in which backups leave the host, and what clients are told of them."""

import os
import socket
import subprocess
import threading

import libvirt

from lib.backups import Backup
from lib.domain import CLUSTER, MIB, VM, qemu_img
from lib.host import wait_for
from lib.oracle import Oracle
from lib.tls import make_keys

DISKS = {'vda': 16 * MIB, 'vdb': 4 * MIB}
REUSE = libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL


def oracle_of(host, **options):
    host.start_daemon()
    return Oracle(host, VM(host, disks=DISKS, **options), host.random)


def chain(oracle, count=2):
    for _ in range(count):
        oracle.create(['vda', 'vdb'])
        oracle.write(3)


def at_rest(oracle):
    oracle.check()
    assert [c.getName() for c in oracle.vm.dom.listAllCheckpoints()] == []


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class TcpBackup(Backup):
    """Served on the loopback address, under names that the client gave."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.port = free_port()

    def server(self):
        return f"<server transport='tcp' name='127.0.0.1' port='{self.port}'/>"

    def attributes(self, target):
        changes = f"exportbitmap='{self.bitmap(target)}'" if self.since.get(target) else ''
        return f"exportname='disk {target}' {changes}"

    def bitmap(self, target):
        return 'changes-of-' + target

    def export(self, target):
        return f'nbd://127.0.0.1:{self.port}/disk%20{target}'


class TlsBackup(TcpBackup):
    """The same, for clients that have a certificate of the same authority."""

    keys = None

    def server(self):
        return super().server().replace('/>', " tls='yes'/>")

    def export(self, target):
        return super().export(target).replace('nbd://', 'nbds://') + \
            f'?tls-certificates={self.keys}'

    def image(self, target):
        return ['--object', f'tls-creds-x509,id=tls,endpoint=client,dir={self.keys}',
                '--image-opts', f'driver=nbd,server.type=inet,server.host=127.0.0.1,'
                f'server.port={self.port},export=disk {target},tls-creds=tls']


def test_pull_over_tcp_under_given_names(host):
    """NBD over TCP, exportname and exportbitmap: each incremental is what it says."""
    oracle = oracle_of(host)
    chain(oracle)
    for moment in oracle.moments:
        one = TcpBackup(oracle.vm, oracle.dom, since=moment.name).begin()
        shown = oracle.dom.backupGetXMLDesc(0)
        for wanted in (f"port='{one.port}'", "exportname='disk vda'",
                       "exportbitmap='changes-of-vdb'",
                       f'<incremental>{moment.name}</incremental>'):
            assert wanted in shown, (wanted, shown)
        assert 'virtcheckpoint.' not in shown.replace(oracle.host.work, ''), shown
        oracle.write(2)
        one.end(moment.models)
    oracle.about_to_create('b1', ['vda', 'vdb'])
    one = TcpBackup(oracle.vm, oracle.dom, since=oracle.moments[0].name, checkpoint='b1')
    one.begin()
    base = oracle.moments[0].models
    oracle.moments.append(oracle.creating)
    one.end(base)
    at_rest(oracle)


def test_pull_with_tls(host):
    """Only who has a certificate reads the export; incremental as ever."""
    TlsBackup.keys = make_keys(os.path.join(host.work, 'keys'))
    with open(os.path.join(host.config, 'qemu.conf'), 'a') as conf:
        conf.write(f'backup_tls_x509_cert_dir = "{TlsBackup.keys}"\n'
                   'backup_tls_x509_verify = 1\n')
    host.restart_libvirtd()
    oracle = oracle_of(host)
    chain(oracle, 1)
    moment = oracle.moments[0]
    one = TlsBackup(oracle.vm, oracle.dom, since=moment.name).begin()
    oracle.write(2)
    plain = subprocess.run(['nbdinfo', f'nbd://127.0.0.1:{one.port}/disk%20vda'],
                           capture_output=True, text=True, check=False)
    assert plain.returncode != 0, plain.stdout
    one.end(moment.models)
    at_rest(oracle)


class ReusingBackup(Backup):
    """Into files that the client made itself."""

    def begin(self):
        for target, path in self.paths.items():
            disk = self.vm.disks[target]
            backing = () if self.push else ('-F', 'qcow2', '-b', disk.path)
            # The disk's own header cannot be looked at while its guest runs.
            qemu_img('create', '-q', '-u', '-f', 'qcow2', *backing, path, str(disk.size))
        self.flags |= REUSE
        return super().begin()


def test_files_that_are_there_already(host):
    """Targets and scratch files of the client's own are used as they are."""
    oracle = oracle_of(host)
    chain(oracle)
    for push in (False, True):
        for moment in oracle.moments:
            one = ReusingBackup(oracle.vm, oracle.dom, since=moment.name, push=push)
            one.begin()
            oracle.write(2)
            one.end(moment.models)
    at_rest(oracle)


class JobEvents:
    """The completed-job events of a connection: (domain, operation, statistics)."""

    def __init__(self, conn):
        self._conn = conn
        self.seen = []
        self._change = threading.Condition()
        self._id = conn.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._event, None)

    def _event(self, _conn, dom, params, _opaque):
        with self._change:
            self.seen.append((dom.name(), params['operation'], params))

    def next(self, what):
        wait_for(lambda: self.seen, f'the event of {what}')
        return self.seen.pop(0)


def job_info(oracle, *options, past_us=False):
    text = oracle.host.virsh('domjobinfo', oracle.vm.name, *options, ours=not past_us)
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(':')
        found[key.strip()] = value.strip()
    return found


def test_jobs_as_clients_see_them(host):
    """domjobinfo, domjobabort, one event for each job; sizes while a backup runs."""
    oracle = oracle_of(host)
    oracle.create(['vda', 'vdb'])
    oracle.vm.write(0, 3 * CLUSTER, 5)
    events, stock = JobEvents(oracle.conn), JobEvents(oracle.vm.conn)
    base = oracle.moments[0]
    for push in (False, True):
        oracle.about_to_create(f'b{push}', ['vda', 'vdb'])
        one = Backup(oracle.vm, oracle.dom, since='c1', checkpoint=f'b{push}', push=push)
        one.begin()
        oracle.moments.append(oracle.creating)
        if not push:
            info = job_info(oracle)
            assert info['Job type'] == 'Unbounded', info
            assert info['Operation'] == 'Backup', info
            past = job_info(oracle, past_us=True)
            assert info.keys() == past.keys(), (info, past)
            sizes = host.virsh('checkpoint-dumpxml', oracle.vm.name, 'c1', '--size',
                               '--no-domain', ours=True)
            assert f"size='{3 * CLUSTER}'" in sizes, sizes
            for target in one.disks:
                one.judge(target, base.models[target])
            # As a client does that is done.
            host.virsh('domjobabort', oracle.vm.name, ours=True)
            one.wait()
            one.clean()
        else:
            one.end(base.models)
        name, operation, params = events.next('the backup')
        assert (name, operation) == ('vm', libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP)
        assert not push or params['success'] == 1, params
        assert stock.next('it on the stock socket')[:2] == (name, operation)
        done = job_info(oracle, '--completed', '--keep-completed')
        assert done['Operation'] == 'Backup', done
        oracle.check()
    assert job_info(oracle)['Job type'] == 'None'
    assert not events.seen and not stock.seen, (events.seen, stock.seen)
    at_rest(oracle)
