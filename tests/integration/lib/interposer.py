#!/usr/bin/python3
"""An <emulator> that shows libvirt a QEMU with a bitmap mirror of its own.

libvirt starts this program as if it were QEMU.  It becomes the real QEMU, so that the
process that libvirt watches is the real one; beforehand it leaves a proxy behind, which
sits between libvirt's monitor socket and QEMU, and has a second monitor to itself.
What bitmapmirror.py does not want to see goes through as bytes, descriptors included.

The domain says which QEMU is shown, by environment variables of <qemu:commandline>:
  QMP_INTERPOSER          A or B: the dialect; "dead": shows dialect A and refuses it;
                          "none": a stock QEMU
  QMP_INTERPOSER_CONTROL  a file in which a test asks for faults (bitmapmirror.Control)
  QMP_INTERPOSER_CONFINED "drop:PATH", "read-only:PATH": no descriptor of that file gets
                          to QEMU, or none to write by, as confinement may have it
Without the first, and when libvirt probes what QEMU can do, nothing is in between.
"""

import array
import json
import os
import select
import socket
import sys

REAL = '/usr/bin/qemu-system-x86_64'
FDS = 16


class Ended(Exception):
    """QEMU, or libvirt's connection, is gone."""


class Lines:
    """A socket read line by line; descriptors come with the line they were sent with."""

    def __init__(self, sock):
        self.sock = sock
        self._text = b''
        self._fds = []

    def fill(self):
        """Reads once; raises Ended at the end."""
        try:
            data, ancillary, _, _ = self.sock.recvmsg(
                1 << 16, socket.CMSG_SPACE(FDS * array.array('i').itemsize))
        except OSError:
            data, ancillary = b'', []
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array('i')
                fds.frombytes(payload[:len(payload) // fds.itemsize * fds.itemsize])
                self._fds += list(fds)
        if not data:
            raise Ended
        self._text += data

    def next(self):
        """(line, descriptors), or None: not whole yet."""
        line, newline, rest = self._text.partition(b'\n')
        if not newline:
            return None
        fds, self._fds, self._text = self._fds, [], rest
        return line.strip(), fds

    def wait(self):
        while True:
            found = self.next()
            if found:
                return found
            self.fill()


class Monitor:
    """The proxy's own monitor: commands, and the events that came meanwhile."""

    def __init__(self, address):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(address)
        self.lines = Lines(self.sock)
        self.events = []
        self._serial = 0
        self.lines.wait()
        self.run('qmp_capabilities')

    def ask(self, command, **arguments):
        """The whole reply to a command."""
        self._serial += 1
        self.sock.sendall(json.dumps({'execute': command, 'arguments': arguments,
                                      'id': self._serial}).encode() + b'\n')
        while True:
            message = json.loads(self.lines.wait()[0])
            if 'event' in message:
                self.events.append(message)
            elif message.get('id') == self._serial:
                self._drain()
                return message

    def run(self, command, **arguments):
        """What a command returns; one that fails is a mistake in here."""
        reply = self.ask(command, **arguments)
        if 'error' in reply:
            raise RuntimeError(f'{command}: {arguments}: {reply["error"]["desc"]}')
        return reply['return']

    def poll(self):
        """Waits until there is something, and takes it in."""
        self.lines.fill()
        self._drain()

    def _drain(self):
        while True:
            found = self.lines.next()
            if not found:
                break
            message = json.loads(found[0])
            if 'event' in message:
                self.events.append(message)


class Proxy:
    """Between libvirt, which comes and goes, and QEMU.

    One command at a time, as libvirt sends them: while one is in QEMU its reply is
    waited for, and events pass.  The job, if there is one, may hold libvirt's next
    command back.
    """

    def __init__(self, listener, address, own, qemu_pid, job_factory):
        self.listener = listener
        self.address = address
        self.qemu_pid = qemu_pid
        self.own = Monitor(own)
        self.client = None
        self.qemu = None
        self.jobs = job_factory(self)

    # What the jobs use

    def tell(self, message):
        """Sends a message of ours to libvirt, if it listens."""
        if self.client:
            self._to_client(json.dumps(message).encode())

    def forward(self, command):
        """Has QEMU run a command of libvirt's, changed; returns the reply."""
        return self._exchange(json.dumps(command).encode(), [], command.get('id'))[1]

    # The connection

    def _to_client(self, line):
        try:
            self.client.sock.sendall(line + b'\r\n')
        except OSError as error:
            raise Ended from error

    def _accept(self):
        sock, _ = self.listener.accept()
        qemu = socket.socket(socket.AF_UNIX)
        qemu.connect(self.address)
        self.client, self.qemu = Lines(sock), Lines(qemu)

    def _hang_up(self):
        for lines in (self.client, self.qemu):
            lines.sock.close()
        self.client = self.qemu = None

    def _exchange(self, line, fds, serial):
        """One command to QEMU and its reply, (line, message); events pass meanwhile."""
        data = line + b'\r\n'
        try:
            if fds:
                sent = self.qemu.sock.sendmsg(
                    [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))])
                data = data[sent:]
            self.qemu.sock.sendall(data)
        except OSError as error:
            raise Ended from error
        finally:
            for fd in fds:
                os.close(fd)
        while True:
            reply = self.qemu.wait()[0]
            message = json.loads(reply)
            if 'event' in message:
                self._event(reply, message)
            elif message.get('id') == serial:
                return reply, message

    def _event(self, line, message):
        for shown in self.jobs.event(message):
            self._to_client(line if shown is message else json.dumps(shown).encode())

    def _command(self, line, fds):
        message = json.loads(line)
        reply = self.jobs.command(message) if 'execute' in message else None
        if reply is None:
            fds = self.jobs.descriptors(message, fds)
            raw, reply = self._exchange(line, fds, message.get('id'))
            changed = self.jobs.reply(message, reply)
            self._to_client(raw if changed is None else json.dumps(changed).encode())
            return
        if 'id' in message:
            reply['id'] = message['id']
        self._to_client(json.dumps(reply).encode())

    def _from_qemu(self):
        """What was read from QEMU: events, and its greeting."""
        while True:
            found = self.qemu.next()
            if not found:
                return
            message = json.loads(found[0])
            if 'event' in message:
                self._event(found[0], message)
            else:
                self._to_client(found[0])

    def _work(self):
        """Deals with all that was read; what QEMU said comes first."""
        while True:
            if self.client:
                self._from_qemu()
            if self.own.events:
                self.jobs.progress()
                continue
            found = self.client and not self.jobs.holds() and self.client.next()
            if not found:
                return
            self._command(*found)

    def _watched(self):
        if not self.client:
            return [self.own.sock, self.listener]
        clients = [] if self.jobs.holds() else [self.client.sock]
        return [self.own.sock, self.qemu.sock] + clients

    def turn(self):
        """Waits for something and deals with it; raises Ended when QEMU is gone."""
        ready, _, _ = select.select(self._watched(), [], [], self.jobs.patience())
        self.jobs.poll()
        if self.own.sock in ready:
            self.own.poll()
        if self.listener in ready:
            self._accept()
        try:
            for lines in (self.qemu, self.client):
                if lines and lines.sock in ready:
                    lines.fill()
            self._work()
        except Ended:
            if self.client:
                self._hang_up()


def run_proxy(listener, address, own, qemu_pid):
    from bitmapmirror import Jobs
    proxy = Proxy(listener, address, own, qemu_pid, Jobs)
    while True:
        proxy.turn()


def listening():
    """A socket that QEMU is to accept connections on, and its address."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind('')  # the kernel finds an abstract name
    sock.listen(1)
    sock.set_inheritable(True)
    return sock, sock.getsockname()


def monitor_argument(argv):
    """(index, number of the descriptor) of libvirt's monitor, or None."""
    for index, word in enumerate(argv):
        if not word.startswith('socket,id=charmonitor,'):
            continue
        for part in word.split(','):
            if part.startswith('fd='):
                return index, int(part[3:])
    return None


def close_all_but(keep):
    for name in os.listdir('/proc/self/fd'):
        if int(name) > 2 and int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one that was used to look


def main(argv):
    found = monitor_argument(argv) if os.environ.get('QMP_INTERPOSER') else None
    if not found:
        os.execv(REAL, [REAL] + argv[1:])
    index, number = found
    main_socket, address = listening()
    own_socket, own = listening()
    qemu_pid = os.getpid()
    if os.fork() == 0:
        # Nobody's child: QEMU does not know that it has one.
        if os.fork() != 0:
            os._exit(0)
        os.setsid()
        listener = socket.socket(fileno=number)
        main_socket.detach()
        own_socket.detach()
        close_all_but({number})
        try:
            run_proxy(listener, address, own, qemu_pid)
        except Ended:
            os._exit(0)
    os.wait()
    os.set_inheritable(number, False)
    arguments = [REAL] + argv[1:]
    arguments[index] = f'socket,id=charmonitor,fd={main_socket.fileno()},server=on,wait=off'
    arguments += ['-chardev', f'socket,id=interposer,fd={own_socket.fileno()},server=on,'
                  'wait=off', '-mon', 'chardev=interposer,id=interposer,mode=control']
    os.execv(REAL, arguments)


if __name__ == '__main__':
    main(sys.argv)
