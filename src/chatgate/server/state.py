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

from chatgate.bursts import Burst
from chatgate.server.known import KnownHeads
from chatgate.server.limits import WireLimits, connection_cap
from chatgate.vocabulary.exchange import Gate

if TYPE_CHECKING:
    from chatgate.server.connection import Connection
    from chatgate.server.run import Run
    from chatgate.server.talk import Talk

STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in http.HTTPStatus
}
BODILESS: Final = frozenset({http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED})
REPORT_SECONDS: Final = 1.0

logger = logging.getLogger("chatgate.server")


class ServerState:
    """The shared state.

    `now` is the clock as of the last sweep, good enough for deadlines of many seconds, and `idle_until` that of a
    connection that begins to wait for a request. `new_request_id` returns an id that no other process and no other
    request has. `known` are heads that came before. `openings` are those that `opening` has made this second, by their
    status, of answers with a body.
    """

    __slots__ = (
        "_openings_second",
        "_silent_until",
        "_unreported",
        "_wall_clock",
        "burst",
        "clock",
        "connections",
        "departed",
        "draining",
        "gate",
        "idle_until",
        "known",
        "limits",
        "max_connections",
        "new_request_id",
        "now",
        "openings",
    )

    def __init__(
        self,
        gate: Gate,
        limits: WireLimits,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        burst: Burst,
    ) -> None:
        """Start without connections. `clock` is monotonic, `wall_clock` counts from the epoch, both in seconds."""
        self.gate = gate
        self.limits = limits
        self.clock = clock
        self.max_connections = connection_cap(limits.max_connections)
        self.connections: set[Connection | Talk] = set()
        self.departed: set[Run] = set()
        self.draining = False
        self.burst = burst
        self.known = KnownHeads()
        self._wall_clock = wall_clock
        form = f"req_{secrets.token_hex(6)}%08x"
        self.new_request_id = map(form.__mod__, itertools.count(1)).__next__
        self._silent_until = float("-inf")
        self._unreported = 0
        self.openings: dict[int, bytes] = {}
        self._openings_second = -1
        self.now = self.idle_until = 0.0
        self.tick()

    def tick(self) -> None:
        """Take the time, for the deadlines and for the Date of the answers."""
        self.now = self.clock()
        self.idle_until = self.now + self.limits.idle_seconds
        second = int(self._wall_clock())
        if second != self._openings_second:
            self._openings_second = second
            self.openings.clear()

    def opening(self, status: int) -> bytes:
        """Return the status line and the Date line; they change once a second."""
        line = self.openings.get(status)
        if line is None:
            date = formatdate(self._openings_second, usegmt=True)
            status_line = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
            line = b"%bDate: %b\r\n" % (status_line, date.encode("ascii"))
            if status not in BODILESS:
                self.openings[status] = line
        return line

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
