"""VM: a guest without an OS whose disks are written through its own devices.

Writes go through the HMP command qemu-io on the device's backend: the same path, the
same bitmaps as a guest's writes.  What became of one stands in the domain's log only,
so each is looked up there.  A Model beside each disk says what it must contain: one
byte per 512-byte sector, the byte with which the whole sector is filled.
"""

import json
import os
import signal
import subprocess
import time

import libvirt
import libvirt_qemu

from .host import Failure, wait_for

SECTOR = 512
CLUSTER = 65536
MIB = 1024 * 1024

SNAPSHOT_FLAGS = (libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY |
                  libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA |
                  libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC)


class Model:
    """What a disk must contain."""

    def __init__(self, size, sectors=None):
        self.size = size
        self.sectors = sectors if sectors is not None else bytearray(size // SECTOR)

    def copy(self):
        return Model(self.size, bytearray(self.sectors))

    def fill(self, offset, length, byte):
        if offset % SECTOR or length % SECTOR or offset + length > self.size:
            raise Failure(f'no sectors: {offset}+{length}')
        count = length // SECTOR
        start = offset // SECTOR
        self.sectors[start:start + count] = bytes([byte]) * count

    def runs(self, offset=0, length=None):
        """(offset, length, byte) of equal neighbours, over a range."""
        start = offset // SECTOR
        end = (self.size if length is None else offset + length) // SECTOR
        while start < end:
            byte = self.sectors[start]
            stop = start + 1
            while stop < end and self.sectors[stop] == byte:
                # Most of a disk is alike: step by clusters where possible.
                step = CLUSTER // SECTOR
                if stop + step <= end and \
                        self.sectors.count(byte, stop, stop + step) == step:
                    stop += step
                else:
                    stop += 1
            yield start * SECTOR, (stop - start) * SECTOR, byte
            start = stop

    def differing(self, other, granule=CLUSTER):
        """The granules in which two models differ, as a set of their numbers."""
        per = granule // SECTOR
        found = set()
        for i in range(0, max(len(self.sectors), len(other.sectors)), per):
            if self.sectors[i:i + per] != other.sectors[i:i + per]:
                found.add(i // per)
        return found

    def write_raw(self, path):
        """A sparse raw file of the same content."""
        with open(path, 'wb') as out:
            out.truncate(self.size)
            for offset, length, byte in self.runs():
                if byte:
                    out.seek(offset)
                    out.write(bytes([byte]) * length)


class Disk:
    def __init__(self, target, path, size, fmt='qcow2'):
        self.target = target
        self.path = path
        self.size = size
        self.format = fmt
        self.model = Model(size)
        self.alias = ''


def qemu_img(*args):
    """Runs qemu-img; returns its output."""
    done = subprocess.run(['qemu-img', *args], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f'qemu-img {" ".join(args)}: {done.stderr.strip()}')
    return done.stdout


class VM:
    """A defined domain of a PrivateHost.

    Attributes: dom (on a stock connection), uuid, disks (by target).
    """

    finish_follows = False  # a copy that finishes is the disk when it ends

    def __init__(self, host, name='vm', disks=None, start=True, iothread=False,
                 memory=32, bus='virtio', create_options=(), extra_devices='', os_xml='',
                 emulator=None, emulator_env=None):
        self.host = host
        self.name = name
        self.memory = memory
        self.iothread = iothread
        self.bus = bus
        self.extra_devices = extra_devices
        self.os_xml = os_xml
        self.emulator = emulator
        self.emulator_env = emulator_env or {}
        self.disks = {}
        self._log_at = 0
        for target, size in (disks or {'vda': 64 * MIB}).items():
            disk = Disk(target, os.path.join(host.images, f'{name}-{target}.qcow2'), size)
            qemu_img('create', '-q', '-f', 'qcow2', *create_options, disk.path, str(size))
            self.disks[target] = disk
        self.conn = host.connect()
        self.dom = self.conn.defineXML(self.xml())
        self.uuid = self.dom.UUIDString()
        host.guests.append(self)
        if start:
            self.start()

    def _disk_xml(self, disk):
        iothread = "iothread='1'" if self.iothread and self.bus == 'virtio' else ''
        return f'''<disk type='file' device='disk'>
          <driver name='qemu' type='{disk.format}' discard='unmap' {iothread}/>
          <source file='{disk.path}'/><target dev='{disk.target}' bus='{self.bus}'/>
        </disk>'''

    def xml(self):
        iothreads = '<iothreads>1</iothreads>' if self.iothread else ''
        disks = ''.join(self._disk_xml(disk) for disk in self.disks.values())
        emulator = f'<emulator>{self.emulator}</emulator>' if self.emulator else ''
        variables = ''.join(f"<qemu:env name='{name}' value='{value}'/>"
                            for name, value in self.emulator_env.items())
        if variables:
            variables = f'<qemu:commandline>{variables}</qemu:commandline>'
        return f'''<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
          <name>{self.name}</name>
          <memory unit='MiB'>{self.memory}</memory><vcpu>1</vcpu>{iothreads}
          <os><type arch='x86_64' machine='q35'>hvm</type>{self.os_xml}</os>
          <features><acpi/></features><cpu mode='custom'><model>qemu64</model></cpu>
          <devices>{emulator}{disks}{self.extra_devices}
            <controller type='usb' model='none'/><memballoon model='none'/>
          </devices>{variables}</domain>'''

    def reconnect(self):
        """A new stock connection, after libvirtd was restarted."""
        self.conn = self.host.connect()
        self.dom = self.conn.lookupByName(self.name)

    # Life cycle

    def start(self, dom=None):
        """dom: on another connection, such as our daemon's."""
        (dom or self.dom).create()
        self._started()

    def _started(self):
        self._log_at = len(self.host.domain_log(self.name))

    def destroy(self):
        """It is off afterwards, and may have been before."""
        if self.dom.isActive():
            self.dom.destroy()

    def restart(self):
        self.destroy()
        self.start()

    def kill_qemu(self):
        """SIGKILL, and libvirt has noticed."""
        os.kill(self.host.qemu_pid(self.name), signal.SIGKILL)
        wait_for(lambda: not self.dom.isActive(), 'libvirt notices that QEMU is dead')

    # Monitor

    def qmp(self, command, **arguments):
        reply = json.loads(libvirt_qemu.qemuMonitorCommand(
            self.dom, json.dumps({'execute': command, 'arguments': arguments}), 0))
        if 'error' in reply:
            raise Failure(f'{command}: {reply["error"]["desc"]}')
        return reply['return']

    def hmp(self, command):
        return libvirt_qemu.qemuMonitorCommand(
            self.dom, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)

    def transaction(self, *actions):
        return self.qmp('transaction', actions=[{'type': t, 'data': d} for t, d in actions])

    # The guest's writes

    def _device(self, target):
        disk = self.disks[target]
        for entry in self.qmp('query-block'):
            file = entry.get('inserted', {}).get('image', {}).get('filename')
            qdev = entry.get('qdev', '')
            if file is None or not qdev:
                continue
            index = ord(target[-1]) - ord('a')
            if f'-disk{index}' in qdev or f'0-0-{index}' in qdev:
                disk.alias = qdev
                return qdev
        raise Failure(f'{target} has no device')

    def _qemu_io(self, target, command):
        """Runs one command on the disk; returns what it printed into the log."""
        device = self.disks[target].alias or self._device(target)
        before = len(self.host.domain_log(self.name))
        reply = self.hmp(f'qemu-io -d {device} "{command}"')
        if reply.strip():
            raise Failure(f'qemu-io {command}: {reply.strip()}')
        end = time.monotonic() + 5
        while True:
            text = self.host.domain_log(self.name)[before:]
            if ' ops; ' in text or 'failed' in text or time.monotonic() > end:
                return text
            time.sleep(0.01)

    def _change(self, target, command, offset, length):
        text = self._qemu_io(target, command)
        if f' {length}/{length} bytes at offset {offset}' not in text or 'failed' in text:
            raise Failure(f'{target}: {command}: {text.strip()}')

    def write(self, offset, length, byte, target='vda'):
        self._change(target, f'write -P {byte:#x} {offset} {length}', offset, length)
        self.disks[target].model.fill(offset, length, byte)

    def flush(self, target='vda'):
        """What was written stays whoever dies."""
        device = self.disks[target].alias or self._device(target)
        self.hmp(f'qemu-io -d {device} "flush"')

    def zero(self, offset, length, target='vda', unmap=False):
        self._change(target, f'write -z{"u" if unmap else ""} {offset} {length}', offset,
                     length)
        self.disks[target].model.fill(offset, length, 0)

    def discard(self, offset, length, target='vda'):
        """Discards; what became of each cluster is read back, for it may be ignored."""
        self._change(target, f'discard {offset} {length}', offset, length)
        at = offset
        while at < offset + length:
            stop = min((at // CLUSTER + 1) * CLUSTER, offset + length)
            if not self._settle_discard(at, stop, target):
                # An image may have smaller clusters, or parts of them.
                for piece in range(at // 4096 * 4096, stop, 4096):
                    if not self._settle_discard(max(at, piece), min(stop, piece + 4096),
                                                target):
                        raise Failure(f'{target}: neither kept nor zeroed at {piece}')
            at = stop

    def _settle_discard(self, at, stop, target):
        """The model takes over that a range was zeroed; False if it is neither so nor as
        it was."""
        model = self.disks[target].model
        if self.reads(at, stop - at, 0, target):
            model.fill(at, stop - at, 0)
            return True
        return all(self.reads(run, size, byte, target)
                   for run, size, byte in model.runs(at, stop - at))

    def reads(self, offset, length, byte, target='vda'):
        """TRUE if the guest reads that byte all over the range."""
        text = self._qemu_io(target, f'read -P {byte:#x} {offset} {length}')
        if f'read {length}/{length} bytes at offset {offset}' not in text:
            raise Failure(f'{target}: read at {offset}: {text.strip()}')
        return 'verification failed' not in text

    def verify(self, target='vda'):
        """Raises unless the guest reads all over what the model says."""
        for offset, length, byte in self.disks[target].model.runs():
            for at in range(offset, offset + length, 16 * MIB):
                size = min(16 * MIB, offset + length - at)
                if not self.reads(at, size, byte, target):
                    raise Failure(f'{target}: the guest does not read {byte:#x} at '
                                  f'{at}+{size}')

    # What QEMU and libvirt know

    def source(self, target='vda', inactive=False):
        """The disk's file in the domain XML."""
        import xml.etree.ElementTree as ElementTree
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0
        for disk in ElementTree.fromstring(self.dom.XMLDesc(flags)).iter('disk'):
            if disk.find('target').get('dev') == target:
                source = disk.find('source')
                return source.get('file') or source.get('dev')
        raise Failure(f'no disk {target}')

    def top(self, target='vda'):
        """The name of the disk's top format node."""
        device = self._device(target)
        for entry in self.qmp('query-block'):
            if entry.get('qdev') == device:
                return entry['inserted']['node-name']
        raise Failure(f'{target} has no node')

    def nodes(self):
        return {node['node-name']: node
                for node in self.qmp('query-named-block-nodes', flat=True)}

    def bitmaps(self, target='vda', ours=True):
        """The bitmaps on the disk's top node, by name."""
        found = self.nodes()[self.top(target)].get('dirty-bitmaps', [])
        return {b['name']: b for b in found
                if b.get('name') and (not ours or b['name'].startswith('virtcheckpoint.'))}

    def all_bitmaps(self):
        """(node, name) of every named bitmap in this QEMU."""
        return [(name, b['name']) for name, node in self.nodes().items()
                for b in node.get('dirty-bitmaps', []) if b.get('name')]

    def stray(self):
        """Helper nodes, jobs and descriptor sets that nobody should see at rest."""
        known = ('libvirt-',)
        found = [name for name in self.nodes() if not name.startswith(known)]
        found += [job['id'] for job in self.qmp('query-jobs')]
        found += [f'fdset {s["fdset-id"]}' for s in self.qmp('query-fdsets')
                  if s['fdset-id'] > 1000]
        return found

    # Stock operations

    def snapshot(self, target='vda', path=None, dom=None):
        """An external snapshot of one disk, as stock virsh would make it."""
        path = path or os.path.join(self.host.images,
                                    f'{self.name}-{target}-{time.monotonic_ns()}.ov')
        others = ''.join(f"<disk name='{other}' snapshot='no'/>"
                         for other in self.disks if other != target)
        (dom or self.dom).snapshotCreateXML(
            f"""<domainsnapshot><disks>{others}<disk name='{target}' snapshot='external'
            type='file'><source file='{path}'/></disk></disks></domainsnapshot>""",
            SNAPSHOT_FLAGS)
        return path

    def commit(self, target='vda', base=None, dom=None):
        """An active commit of the top overlay into the layer below it, and its pivot."""
        dom = dom or self.dom
        dom.blockCommit(target, base, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
        self.pivot(target, dom)

    def pivot(self, target='vda', dom=None, timeout=60):
        dom = dom or self.dom

        def attempt():
            try:
                dom.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
                return True
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:
                    raise
                return False
        wait_for(attempt, f'{target}: the job can be pivoted', timeout)
        wait_for(lambda: not dom.blockJobInfo(target, 0), f'{target}: job ends', timeout)
