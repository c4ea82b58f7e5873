"""One connection between a worker and the owner of its counters, as either side has it.

Owns the socket and its frames: what is sent in one turn of the loop goes out together. Never waits: what the kernel
does not take is kept. Knows nothing of what is said.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from chatgate.counters.wire import HEADER_BYTES, MAX_FRAME_BYTES, frame

_LOG = logging.getLogger(__name__)
_RECEIVED_BYTES: Final = 256 << 10

Out = TypeVar("Out")
In = TypeVar("In")


class Channel(Generic[Out, In]):
    """A connection; `is_open` until either side has ended."""

    def __init__(
        self,
        connected: socket.socket,
        decode: Callable[[bytes], list[In]],
        receive: Callable[[list[In]], object],
        ended: Callable[[], object],
    ) -> None:
        """Read from now on. `receive` is called with the messages of each frame, `ended` once when the other side ends.

        Needs a running loop.
        """
        connected.settimeout(0)
        self._socket = connected
        self._decode = decode
        self._receive = receive
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()
        self._said: list[Out] = []
        self._unsent = b""
        self.is_open = True
        self._loop.add_reader(connected, self.read)

    def send(self, message: Out) -> None:
        """Say something, together with all else that is said in this turn of the loop."""
        if not self._said:
            self._loop.call_soon(self.flush)
        self._said.append(message)

    def flush(self) -> None:
        """Say now what was said in this turn."""
        if not self.is_open:
            self._said.clear()
        if self._said:
            said = frame(self._said)
            self._said = []
            if self._unsent:
                self._unsent += said
            else:
                self._write(said)

    def read(self) -> bool:
        """Take what has arrived; False when there was nothing."""
        try:
            data = self._socket.recv(_RECEIVED_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._end()
            return False
        self._unread += data
        try:
            self._take_frames()
        except (msgspec.DecodeError, ValueError):
            _LOG.exception("A connection of the counters said what cannot be understood")
            self._end()
        return self.is_open

    def close(self) -> None:
        """End the connection without telling oneself; again is nothing."""
        if self.is_open:
            self.flush()
            self.is_open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def _take_frames(self) -> None:
        unread, start = self._unread, 0
        try:
            while self.is_open and len(unread) - start >= HEADER_BYTES:
                length = int.from_bytes(unread[start : start + HEADER_BYTES], "big")
                if length > MAX_FRAME_BYTES:
                    raise ValueError("a frame is too long")
                end = start + HEADER_BYTES + length
                if len(unread) < end:
                    break
                content = bytes(unread[start + HEADER_BYTES : end])
                start = end
                self._receive(self._decode(content))
        finally:
            del unread[:start]

    def _write(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # It has ended, as reading will say.
        was_waiting, self._unsent = bool(self._unsent), data[sent:]
        if self._unsent and not was_waiting:
            self._loop.add_writer(self._socket, self._go_on)
        elif was_waiting and not self._unsent:
            self._loop.remove_writer(self._socket)

    def _go_on(self) -> None:
        self._write(self._unsent)

    def _end(self) -> None:
        if self.is_open:
            self._said.clear()
            self.close()
            self._ended()
