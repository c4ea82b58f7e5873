"""What everything that writes to a caller shares: how a slow reader is told from one who stopped, and a hard end.

`answer` writes HTTP on it, `talk` the messages of a WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

from chatgate.server.state import ServerState

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER, on, for zero seconds: closing sends a reset."""

INFINITY: Final = float("inf")


class Writing(asyncio.Protocol):
    """A connection that can be written to.

    `deadline` is when the sweep looks at it, on the clock of the state; `is_congested` tells whether the caller reads
    more slowly than is sent.
    """

    __slots__ = ("_stalled_bytes", "_state", "_transport", "deadline", "is_congested")

    _transport: asyncio.Transport

    def __init__(self, state: ServerState) -> None:
        """Belong to a server."""
        self._state = state
        self.is_congested = False
        self._stalled_bytes = 0
        self.deadline = INFINITY

    def pause_writing(self) -> None:
        """Begin to wait for a slow reader (called by the transport)."""
        self.is_congested = True
        self._stalled_bytes = self._transport.get_write_buffer_size()
        self.deadline = self._state.clock() + self._state.limits.stall_seconds

    def _is_stalled(self, now: float) -> bool:
        """Tell whether a slow reader took nothing since the last look; when it took some, look again later."""
        waiting_bytes = self._transport.get_write_buffer_size()
        if waiting_bytes >= self._stalled_bytes:
            return True
        self._stalled_bytes = waiting_bytes
        self.deadline = now + self._state.limits.stall_seconds
        return False

    def abort(self) -> None:
        """End the connection with a reset, so that nobody takes what was sent for the whole answer."""
        self._state.burst.flush()
        self._gone()
        raw_socket = self._transport.get_extra_info("socket")
        if raw_socket is not None:
            # The other side may have been faster.
            with contextlib.suppress(OSError):
                raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._transport.abort()

    def _gone(self) -> None:
        """Take note that nobody is there any more."""
        raise NotImplementedError
