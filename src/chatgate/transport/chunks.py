"""Chunks of a body that arrive by themselves, as the events of a stream do.

Knows them without taking them apart, so that they can go on as they are. Must only be asked where a chunk begins.
Source: RFC 9112, section 7.1 (read 2026-11-23).
"""

from __future__ import annotations

from typing import Final

MANY: Final = 2048
"""As long as this, and longer, a chunk is worth taking apart."""


def _openings(size: int) -> tuple[bytes, ...]:
    """Return how a piece of `size` bytes that is one chunk begins: its size line, in either case of the digits."""
    for digits in range(1, 4):
        data_size = size - digits - 4
        if data_size > 0 and len(f"{data_size:x}") == digits:
            return tuple({b"%x\r\n" % data_size, b"%X\r\n" % data_size})
    return ()


_OPENINGS: Final = tuple(_openings(size) for size in range(MANY))


def data_of(piece: bytes) -> int:
    """Return where the data of a piece begin that is exactly one chunk, without extensions; 0 for any other.

    The last two bytes of the piece are the end of the chunk.
    """
    if len(piece) < MANY:
        openings = _OPENINGS[len(piece)]
        if piece.startswith(openings) and piece.endswith(b"\r\n"):
            return len(openings[0])
    return 0
