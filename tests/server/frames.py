"""WebSocket frames by hand, good and bad, as a caller sends and reads them."""

from __future__ import annotations

import socket
import struct

from server.running import RunningServer, read_until

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b"AAECAwQFBgcICQoLDA0ODw=="
MASK = b"\x01\x02\x03\x04"


def handshake(path: str = "/talk", *, version: bytes = b"13", key: bytes = KEY, more: bytes = b"") -> bytes:
    """Return the head that asks for a WebSocket."""
    return (
        b"GET %b HTTP/1.1\r\nHost: gate.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: %b\r\nSec-WebSocket-Key: %b\r\n%b\r\n" % (path.encode(), version, key, more)
    )


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, bits: int = 0) -> bytes:
    """Return a frame; `bits` are the reserved ones."""
    size = len(payload)
    length, more = size, b""
    if size >= 1 << 16:
        length, more = 127, struct.pack("!Q", size)
    elif size >= 126:
        length, more = 126, struct.pack("!H", size)
    head = bytes([(0x80 if fin else 0) | bits | opcode, (0x80 if masked else 0) | length]) + more
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[number % 4] for number, byte in enumerate(payload))


def text(said: str) -> bytes:
    """Return a whole message."""
    return frame(TEXT, said.encode())


class Reader:
    """Reads what the server sends."""

    def __init__(self, connection: socket.socket, data: bytes = b"") -> None:
        """Begin with what has been read already."""
        self._connection = connection
        self._data = data

    def frame(self) -> tuple[int, bytes]:
        """Return the next frame; servers do not mask."""
        opcode, length = self._take(2)
        assert opcode & 0x80
        assert length < 128
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return opcode & 15, self._take(length)

    def said(self) -> str:
        """Return the next message."""
        opcode, payload = self.frame()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    def close_code(self) -> int:
        """Return the code of the close that comes next."""
        opcode, payload = self.frame()
        assert opcode == CLOSE, (opcode, payload)
        return int.from_bytes(payload[:2])

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            piece = self._connection.recv(65_536)
            assert piece, f"the connection ended after {self._data!r}"
            self._data += piece
        taken, self._data = self._data[:size], self._data[size:]
        return taken


def open_talk(server: RunningServer, **more: int) -> tuple[socket.socket, Reader]:
    """Open a WebSocket."""
    connection = server.connect(**more)
    connection.sendall(handshake())
    head, _, rest = read_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    return connection, Reader(connection, rest)
