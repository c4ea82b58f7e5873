"""How workers and the owner of their counters find each other: by what the parent leaves to them.

Owns a pair of sockets that the parent makes before it starts anyone, so that every process it ever starts has both
ends. A worker that wants a connection makes one and hands one end of it through the doorway. It waits there until an
owner takes it: the first one, or the one that is started when that has died. So there is no name that somebody else
could connect to, no file, and nothing to try again.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

_DESCRIPTORS: Final = 16


class Doorway:
    """Both ends. Unix only."""

    def __init__(self) -> None:
        """Make it, with nobody at it."""
        self._workers, self.owners = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._workers.settimeout(0)
        self.owners.settimeout(0)

    def connect(self) -> socket.socket:
        """Return a new connection to the owner. Raises `OSError` when too many wait already."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            try:
                socket.send_fds(self._workers, [b"c"], [theirs.fileno()])
            except OSError:
                mine.close()
                raise
        return mine

    def accept(self) -> list[socket.socket]:
        """Return the connections that wait, oldest first; empty when there are none."""
        accepted = []
        with contextlib.suppress(BlockingIOError):
            while True:
                content, descriptors, _, _ = socket.recv_fds(self.owners, 1, _DESCRIPTORS)
                if not content:
                    break
                accepted += [socket.socket(fileno=descriptor) for descriptor in descriptors]
        return accepted

    def close(self) -> None:
        """Close both ends in this process."""
        self._workers.close()
        self.owners.close()
