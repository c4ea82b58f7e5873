"""What the gateway made of heads that came before, so that one which comes again need not be read or judged anew.

Owns the memory that the connections of a server share, for callers whose head changes from request to request because
they speak for many, each with a key of its own. Bounded, and never the only place where anything is known. Used by
`connection`, which asks the gateway whether what it said then still holds.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from chatgate.server.head import LENGTH
from chatgate.vocabulary.exchange import Gate, Identified, Serve

MAX_HEADS: Final = 10_000
"""So many are remembered, whoever sends them; one more, and all are forgotten and read again."""

MAX_HEAD_BYTES: Final = 1 << 10
"""A longer head is remembered by its connection alone; no client is known to send as much with each request."""


class Known(Struct, frozen=True, gc=False):
    """What `gate` made of a head, what serves it, and `form`: that head as a format for the length of its body."""

    form: bytes
    identified: Identified
    gate: Gate
    serve: Serve


class KnownHeads:
    """Heads by the peer who sent them, and by all of their bytes but the digits of the body's length."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        """Know none."""
        self._heads: dict[tuple[str, bytes], Known] = {}

    def add(self, peer: str, lengthless: bytes, known: Known) -> None:
        """Remember a head, given without those digits."""
        if len(lengthless) <= MAX_HEAD_BYTES:
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            self._heads[peer, lengthless] = known

    def find(self, peer: str, data: bytes, content: bytes) -> Known | None:
        """Return what is known of the head of a request, which is whole and ends in `content`, its body."""
        end = len(data) - len(content)
        length = LENGTH.search(data, 0, end) if end <= MAX_HEAD_BYTES else None
        if length is None or length[1] != b"%d" % len(content):
            return None
        start, stop = length.span(1)
        return self._heads.get((peer, data[:start] + data[stop:end]))

    def clear(self) -> None:
        """Forget all."""
        self._heads.clear()
