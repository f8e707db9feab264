"""libvirt's RPC by hand: what a client library hides, or never sends."""

import socket
import struct

REMOTE = 0x20008086
CALL, REPLY, MESSAGE = 0, 1, 2


def u32(number):
    return struct.pack('>I', number & 0xffffffff)


def u64(number):
    return struct.pack('>Q', number)


def text(value):
    data = value.encode()
    return u32(len(data)) + data + bytes(-len(data) % 4)


def domain(uuid, name='stale'):
    return text(name) + bytes.fromhex(uuid.replace('-', '')) + u32(-1)


def param(name, kind, value):
    """A typed parameter; value: its bytes."""
    return text(name) + u32(kind) + value


class Reader:
    def __init__(self, data):
        self._data = data
        self._at = 0

    def number(self):
        value = struct.unpack_from('>i', self._data, self._at)[0]
        self._at += 4
        return value

    def text(self):
        length = self.number()
        value = self._data[self._at:self._at + length]
        self._at += length + -length % 4
        return value.decode()

    def optional(self):
        return self.text() if self.number() else None

    def domain(self):
        name = self.text()
        self._at += 16
        return name, self.number()


def error(payload):
    """(code, domain, message, level) of an error reply."""
    reader = Reader(payload)
    return reader.number(), reader.number(), reader.optional(), reader.number()


class Client:
    """A connection that is open; packets are (procedure, type, serial, status, payload)."""

    def __init__(self, path, uri='qemu:///system'):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._socket.settimeout(30)
        self._serial = 0
        self.call(66, b'')
        assert self.call(1, u32(1) + text(uri) + u32(0))[0] == 0

    def close(self):
        self._socket.close()

    def send(self, procedure, payload):
        """Sends a call; returns its serial."""
        self._serial += 1
        self._socket.sendall(struct.pack('>IIIiiIi', 28 + len(payload), REMOTE, 1,
                                         procedure, CALL, self._serial, 0) + payload)
        return self._serial

    def _read(self, length):
        data = b''
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise EOFError('the connection was closed')
            data += more
        return data

    def receive(self):
        length, = struct.unpack('>I', self._read(4))
        data = self._read(length - 4)
        return struct.unpack('>8xiiIi', data[:24]) + (data[24:],)

    def call(self, procedure, payload):
        """(status, payload) of the reply; events before it are thrown away."""
        serial = self.send(procedure, payload)
        while True:
            got, kind, answered, status, reply = self.receive()
            if kind == REPLY:
                assert (got, answered) == (procedure, serial), (got, answered)
                return status, reply
