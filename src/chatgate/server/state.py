"""What the connections of one server share: the gateway, the clock, who is connected, and the lines they all send.

Made by `serving`, read by every connection. It opens no socket and starts no task.
"""

from __future__ import annotations

import http
import itertools
import logging
import secrets
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from chatgate.server.limits import WireLimits, connection_cap
from chatgate.vocabulary.exchange import Gate

if TYPE_CHECKING:
    from chatgate.server.connection import Connection
    from chatgate.server.run import Run
    from chatgate.server.talk import Talk

STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in http.HTTPStatus
}
REPORT_SECONDS: Final = 1.0

logger = logging.getLogger("chatgate.server")


class ServerState:
    """The shared state; `now` is the clock as of the last sweep, good enough for deadlines of many seconds."""

    __slots__ = (
        "_openings",
        "_openings_second",
        "_request_numbers",
        "_request_prefix",
        "_silent_until",
        "_unreported",
        "_wall_clock",
        "clock",
        "connections",
        "departed",
        "draining",
        "gate",
        "limits",
        "max_connections",
        "now",
    )

    def __init__(
        self, gate: Gate, limits: WireLimits, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        """Start without connections. `clock` is monotonic, `wall_clock` counts from the epoch, both in seconds."""
        self.gate = gate
        self.limits = limits
        self.clock = clock
        self.max_connections = connection_cap(limits.max_connections)
        self.connections: set[Connection | Talk] = set()
        self.departed: set[Run] = set()
        self.draining = False
        self._wall_clock = wall_clock
        self._request_prefix = f"req_{secrets.token_hex(6)}"
        self._request_numbers = itertools.count(1)
        self._silent_until = float("-inf")
        self._unreported = 0
        self._openings: dict[int, bytes] = {}
        self._openings_second = -1
        self.now = 0.0
        self.tick()

    def tick(self) -> None:
        """Take the time, for the deadlines and for the Date of the answers."""
        self.now = self.clock()
        second = int(self._wall_clock())
        if second != self._openings_second:
            self._openings_second = second
            self._openings.clear()

    def opening(self, status: int) -> bytes:
        """Return the status line and the Date line; they change once a second."""
        line = self._openings.get(status)
        if line is None:
            date = formatdate(self._openings_second, usegmt=True)
            status_line = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
            line = self._openings[status] = b"%bDate: %b\r\n" % (status_line, date.encode("ascii"))
        return line

    def new_request_id(self) -> str:
        """Return an id that no other process and no other request has."""
        return f"{self._request_prefix}{next(self._request_numbers):08x}"

    def depart(self, run: Run) -> None:
        """Cancel the call of a caller who left, and hold on to it until it has settled."""
        self.departed.add(run)
        run.cancel("client left")

    def report(self, error: Exception) -> None:
        """Log a bug with its traceback, at most once a second: a flood of them must not fill the disk."""
        now = self.clock()
        if now < self._silent_until:
            self._unreported += 1
            return
        logger.error("a request ended in a bug (%d more since the last line)", self._unreported, exc_info=error)
        self._silent_until = now + REPORT_SECONDS
        self._unreported = 0
