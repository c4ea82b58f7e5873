"""A chunk that arrives by itself is known as what it is, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.transport.chunks import MANY, data_of


def chunk(data: bytes, form: str = "x") -> bytes:
    """Write a chunk; `form` is that of the size."""
    return format(len(data), form).encode() + b"\r\n" + data + b"\r\n"


@pytest.mark.parametrize("form", ["x", "X"])
@pytest.mark.parametrize("size", [1, 9, 10, 15, 16, 17, 0xAB, 0xFF, 0x100, 0x101, 0x7AB])
def test_a_chunk_by_itself_is_known(size: int, form: str) -> None:
    """The size may be written in either case."""
    piece = chunk(b"d" * size, form)
    start = data_of(piece)
    assert piece[start:-2] == b"d" * size


@pytest.mark.parametrize(
    "piece",
    [
        b"",
        b"\r\n",
        b"0\r\n\r\n",
        b"3\r\nabc",
        b"3\r\nabc\r",
        b"3\r\nabc\n\n",
        b"3\r\nab\r\n\r",
        b"03\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"3;a=b\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"3\r\nabc\r\n3\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"aB\r\n" + b"d" * 0xAB + b"\r\n",
        chunk(b"d" * MANY),
    ],
)
def test_everything_else_is_not(piece: bytes) -> None:
    """Half a chunk, two of them, the last one, one with an extension, one that is written strangely or long."""
    assert data_of(piece) == 0


@given(st.binary(max_size=40))
@example(b"2\r\n\r\n\r\n")
def test_what_is_known_is_exactly_one_chunk(piece: bytes) -> None:
    """Whatever bytes come: the size that is written is the size that is there."""
    start = data_of(piece)
    if start:
        assert piece.endswith(b"\r\n")
        assert piece[start - 2 : start] == b"\r\n"
        assert int(piece[: start - 2], 16) == len(piece) - start - 2 > 0
