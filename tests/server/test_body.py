"""Bodies, by length and by chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.server.body import Body, ChunkedBody, SizedBody
from chatgate.vocabulary.errors import CallerError, Kind


def in_chunks(pieces: list[bytes]) -> bytes:
    """Return a chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut bytes into pieces of these sizes, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 30), max_size=8))
def test_chunks_are_put_together(pieces: list[bytes], cuts: list[int]) -> None:
    """Neither the caller's chunks nor the network's pieces show in the body."""
    body = ChunkedBody(1 << 20)
    results = [body.read(piece) for piece in cut(in_chunks(pieces), cuts)]
    assert results == [None] * (len(results) - 1) + [b""]
    assert body.content == b"".join(pieces)
    assert body.can_go_on


@given(st.binary(min_size=1, max_size=60), st.binary(max_size=20), st.lists(st.integers(1, 30), max_size=5))
def test_a_stated_length_is_exact(content: bytes, after: bytes, cuts: list[int]) -> None:
    """A body of a stated length takes that many bytes and hands back the rest."""
    body: Body = SizedBody(len(content))
    rest = None
    handed_back = b""
    for piece in cut(content + after, cuts):
        if rest is None:
            rest = body.read(piece)
            handed_back = rest or b""
        else:
            handed_back += piece
    assert body.content == content
    assert handed_back == after


def test_bytes_with_the_last_chunk_end_the_connection() -> None:
    """Where the next request would begin is not known, so none may follow."""
    body = ChunkedBody(100)
    assert body.read(in_chunks([b"abc"]) + b"GET / HTTP/1.1\r\n") == b""
    assert body.content == b"abc"
    assert not body.can_go_on


def test_chunks_are_capped() -> None:
    """The cap holds however the bytes come."""
    body = ChunkedBody(10)
    assert body.read(b"a\r\n0123456789\r\n") is None
    with pytest.raises(CallerError) as caught:
        body.read(b"1\r\n0\r\n")
    assert caught.value.kind is Kind.REQUEST_TOO_LARGE
    assert caught.value.parameters == {"limit_bytes": 10}


def test_a_hundred_thousand_chunks_are_fine() -> None:
    """One-byte chunks are a bad idea and allowed."""
    body = ChunkedBody(1 << 20)
    assert body.read(in_chunks([b"x"] * 100_000)) == b""
    assert len(body.content) == 100_000


def test_framing_is_capped() -> None:
    """Extensions beyond any honest use are refused."""
    body = ChunkedBody(1 << 20)
    with pytest.raises(CallerError):
        body.read((b"1;" + b"a" * 100 + b"\r\nx\r\n") * 1000)
