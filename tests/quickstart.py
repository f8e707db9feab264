#!/usr/bin/python3
"""An incremental mirror to watch, and to believe: what ./quickstart shows.

A small Linux guest writes all the time: numbered records into a raw region of its disk,
files and a log into a file system.  Which block gets which record is known from the
number alone.  So an image is the disk at one moment if, and only if, its records are
1..N, all of them and no other, for one N; and that N says which moment it was.  Bytes
that the guest does not write are compared with the guest suspended.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, 'tests', 'integration'))
sys.dont_write_bytecode = True

import libvirt  # noqa: E402

from lib import images, paths, session  # noqa: E402
from lib.domain import MIB, qemu_img  # noqa: E402
from lib.guest import Guest, check_records  # noqa: E402
from lib.host import Failure, PrivateHost, wait_for  # noqa: E402

DISK = 2048 * MIB
FILES = 256 * MIB  # a file system, from the start of the disk
RECORDS, RECORDS_SIZE = 512 * MIB, 64 * MIB
STATIC, STATIC_SIZE = 1024 * MIB, 256 * MIB
SEED = 11
LIMIT = 60  # seconds for one command


def say(text=''):
    print(text, flush=True)


def size(count):
    return '' if count is None else f'{count / MIB:.1f} MiB'


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


class Progress(threading.Thread):
    """Looks at the copy job until told to stop; keeps the most bytes it wanted to copy."""

    def __init__(self, dom):
        super().__init__(daemon=True)
        self.dom, self.bytes, self._end = dom, None, threading.Event()

    def run(self):
        while not self._end.wait(0.01):
            try:
                info = self.dom.blockJobInfo('vda', 0)
            except libvirt.libvirtError:
                continue
            if info:
                self.bytes = max(self.bytes or 0, info['end'])

    def finish(self):
        self._end.set()
        self.join()
        return self.bytes


class Show:
    def __init__(self, work):
        self.host = PrivateHost(work)
        self.table = []
        self.guest = None

    # The guest

    def _disk(self, path):
        """The disk to start with: a file system, and bytes that are never written."""
        raw = path + '.raw'
        with open(raw, 'wb') as out:
            out.truncate(DISK)
            out.seek(STATIC)
            for _ in range(STATIC_SIZE // (16 * MIB)):
                out.write(os.urandom(16 * MIB))
        status, text = run('mkfs.ext4', '-q', '-F', raw, f'{FILES // 1024}k')
        if status != 0:
            raise Failure(f'mkfs.ext4: {text}')
        os.unlink(path)
        qemu_img('convert', '-f', 'raw', '-O', 'qcow2', raw, path)
        os.unlink(raw)

    def boot(self):
        say('== a libvirt of its own, and a guest that writes all the time')
        self.host.start_libvirtd()
        guest = Guest(self.host, 'demo', disks={'vda': DISK}, start=False, iothread=True)
        self.disk = guest.disks['vda'].path
        self._disk(self.disk)
        started = time.monotonic()
        guest.start()
        guest.mount()
        guest.start_writer(0, offset=RECORDS, length=RECORDS_SIZE, seed=SEED,
                           delay_usec=4000)
        guest.start_files(1, delay_usec=8000)
        self.guest = guest
        self.write(100)
        say(f'   booted in {time.monotonic() - started:.1f} s, disk {size(DISK)}')

    def write(self, records):
        """Lets the guest write that many more records."""
        want = self.guest.load_status(0)[0] + records
        wait_for(lambda: self.guest.load_status(0)[0] >= want, 'the guest writes', 60, 0.1)

    # Commands

    def virsh(self, *words, show=True):
        """Runs our virsh as one would by hand: it finds and starts all the rest."""
        if show:
            say('$ virsh ' + ' '.join(
                os.path.basename(word) if word.endswith('.xml') else word for word in words))
        done = subprocess.run([paths.VIRSH, *words], check=False, timeout=LIMIT, text=True,
                              stdin=subprocess.DEVNULL,
                              stdout=None if show else subprocess.PIPE)
        if done.returncode != 0:
            raise Failure(f'virsh {" ".join(words)} failed')
        return done.stdout

    def changed(self, since):
        """Bytes changed since a checkpoint, as libvirt's own query tells it."""
        text = self.virsh('checkpoint-dumpxml', 'demo', since, '--size', '--no-domain',
                          show=False)
        return int(re.search(r"<disk [^>]*name='vda'[^>]* size='(\d+)'", text).group(1))

    def copy(self, what, target, *words, since=None, running=True):
        """One blockcopy; returns the records written before it and after it."""
        xml = os.path.join(self.host.work, os.path.basename(target)[:-6] + '.xml')
        with open(xml, 'w') as out:
            out.write(f"<disk type='file'><source file='{target}'/>"
                      "<driver type='qcow2'/></disk>\n")
        changed = self.changed(since) if since else None
        incremental = ('--reuse-external', '--bitmap', since) if since else ()
        progress = Progress(self.connection().lookupByName('demo'))
        before = self.guest.load_status(0)[0] if running else 0
        progress.start()
        started = time.monotonic()
        self.virsh('blockcopy', 'demo', 'vda', '--xml', xml, *incremental, *words)
        spent = time.monotonic() - started
        after = self.guest.load_status(0)[0] if running else 0
        self.table.append((what, since or '', size(changed), size(progress.finish()),
                           f'{spent:.1f} s', size(DISK)))
        return before, after

    def connection(self):
        """The stock binding, through the daemon, which virsh starts if need be."""
        self.virsh('list', show=False)
        return self.host.connect(ours=True)

    # Proofs

    def prove(self, target, before, after, flushed):
        """The image is the disk at one moment between two records, with sound files."""
        with images.RawView(target) as raw:
            moment = check_records(raw, RECORDS, RECORDS_SIZE, SEED)
            if not before <= moment <= after + 1:
                raise Failure(f'the replica is from record {moment}, which is not between '
                              f'{before} and {after}')
            logged = self._files(raw)
        if logged < flushed:
            raise Failure(f'the replica lacks files: {logged} of {flushed}')
        say(f'   proved: every block is as of record {moment} (written before: {before}, '
            f'after: {after});')
        say(f'   proved: its file system is clean and holds all {flushed} file records '
            'that were synced before')

    def _files(self, raw):
        """Checks the file system; returns the number of records in its log."""
        # As after a power cut: the journal is played back, then nothing may be wrong.
        run('e2fsck', '-y', '-E', 'journal_only', raw)
        status, text = run('e2fsck', '-f', '-n', raw)
        if status != 0:
            raise Failure(f'the file system in the replica is broken: {text}')
        status, text = run('debugfs', '-R', 'cat /log', raw)
        lines = re.findall(r'^\d{15}$', text, re.MULTILINE)
        if [int(line) for line in lines] != list(range(1, len(lines) + 1)):
            raise Failure('the log in the replica has gaps')
        return len(lines)

    def compare(self, disk, target):
        """Byte by byte, the guest being suspended."""
        status, text = run('qemu-img', 'compare', '-U', '-f', 'qcow2', '-F', 'qcow2', disk,
                           target)
        if status != 0:
            raise Failure(f'{target} is not the disk: {text}')
        say(f'   proved: all {size(DISK)} are equal, byte by byte')

    # The story

    def full(self, target):
        say('\n== 1. a replica: one full copy, and the checkpoint that it stands for')
        flushed = self.guest.load_status(1)[1]
        before, after = self.copy('full', target, '--checkpoint', 'c1', '--wait', '--finish')
        self.prove(target, before, after, flushed)

    def incremental(self, target):
        say('\n== 2. the guest has written; only that is copied')
        self.write(600)
        flushed = self.guest.load_status(1)[1]
        before, after = self.copy('incremental', target, '--checkpoint', 'c2', '--wait',
                                  '--verbose', '--finish', since='c1')
        self.prove(target, before, after, flushed)

    def suspended(self, target, kept):
        say('\n== 3. once more with the guest suspended, to compare all of it')
        self.write(100)
        self.virsh('suspend', 'demo')
        self.copy('incremental', target, '--checkpoint', 'c3', '--wait', '--finish',
                  since='c2', running=False)
        self.compare(self.disk, target)
        shutil.copy(target, kept)
        self.virsh('resume', 'demo')

    def pivot(self, target):
        say('\n== 4. the running guest moves onto the replica')
        self.write(300)
        self.copy('pivot', target, '--wait', '--verbose', '--pivot', since='c3')
        if self.guest.source() != target or self.guest.source(inactive=True) != target:
            raise Failure(f'the guest is on {self.guest.source()}')
        os.unlink(self.disk)
        self.disk = target
        self.write(300)
        say('   proved: the guest goes on writing there; its old disk is deleted')

    def after(self, kept):
        say('\n== 5. the next incremental, to a second replica, from before the move')
        flushed = self.guest.load_status(1)[1]
        before, after = self.copy('after the pivot', kept, '--checkpoint', 'c4', '--wait',
                                  '--verbose', '--finish', since='c3')
        self.prove(kept, before, after, flushed)
        self.virsh('suspend', 'demo')
        self.copy('incremental', kept, '--checkpoint', 'c5', '--wait', '--finish',
                  since='c4', running=False)
        self.compare(self.disk, kept)
        self.virsh('resume', 'demo')

    def checkpoints(self):
        say('\n== 6. checkpoints are libvirt\'s')
        self.virsh('checkpoint-delete', 'demo', 'c1')
        self.virsh('checkpoint-list', 'demo', '--tree')

    def summary(self):
        rows = [('copy', 'since', 'changed', 'copied', 'time', 'disk')] + self.table
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        say()
        for row in rows:
            say('   ' + '  '.join(cell.ljust(width) if i < 2 else cell.rjust(width)
                                  for i, (cell, width) in enumerate(zip(row, widths))))

    def run(self):
        target = os.path.join(self.host.images, 'replica.qcow2')
        kept = os.path.join(self.host.images, 'second.qcow2')
        self.boot()
        self.full(target)
        self.incremental(target)
        self.suspended(target, kept)
        self.pivot(target)
        self.after(kept)
        self.checkpoints()
        self.summary()


def inside():
    work = session.inside()
    libvirt.registerErrorHandler(lambda *_: None, None)
    status, show = 1, None
    try:
        show = Show(work)
        show.run()
        status = 0
    except (Failure, OSError, libvirt.libvirtError, subprocess.SubprocessError) as error:
        say(f'quickstart: {error}')
        if show:
            folder = paths.cache('failed', 'quickstart')
            show.host.save_logs(folder)
            say(f'quickstart: logs are in {folder}')
    finally:
        if show:
            show.host.close()
    sys.stdout.flush()
    os._exit(status)


def main():
    if '--inside' in sys.argv:
        inside()
    started = time.monotonic()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _: sys.exit(128 + number))
    place = session.outside([sys.executable, os.path.abspath(__file__), '--inside'],
                            stdin=subprocess.DEVNULL)
    try:
        status = place.process.wait()
    finally:
        place.close()
        session.mop_up()
    if status == 0:
        say(f'\nEverything was proved, in {time.monotonic() - started:.0f} s; '
            'nothing of it is left.')
    sys.exit(status)


if __name__ == '__main__':
    main()
