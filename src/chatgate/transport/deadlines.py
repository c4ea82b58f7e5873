"""Watches what is in flight and ends what takes too long.

Owns the set of watched things, and nothing of what they are: each has a deadline that it moves itself, by assigning a
float, whenever there is progress. One sweep over all of them, ten times a second, replaces a timer per call, which
would cost several microseconds each. Called by connections (to watch and forget) and by the transport (to sweep).
"""

from __future__ import annotations

from typing import Protocol


class Timed(Protocol):
    """What can run out of time. `deadline` is monotonic, in seconds, and may be moved at any moment."""

    deadline: float

    def expire(self, now: float) -> None:
        """End it: its deadline has passed."""


class Deadlines:
    """Everything that has a deadline now."""

    __slots__ = ("_watched", "forget", "watch")

    def __init__(self) -> None:
        """Watch nothing yet. `watch` and `forget` are the set's own methods: each call passes them once."""
        self._watched: set[Timed] = set()
        self.watch = self._watched.add
        self.forget = self._watched.discard

    def __len__(self) -> int:
        """Return how many are watched."""
        return len(self._watched)

    def sweep(self, now: float) -> None:
        """Expire everything whose deadline has come; what expires is expected to forget itself."""
        for late in [timed for timed in self._watched if timed.deadline <= now]:
            late.expire(now)
