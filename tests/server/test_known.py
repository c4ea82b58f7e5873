"""What is known of heads that came before: found by the peer and the bytes, in bounded memory."""

from __future__ import annotations

import pytest

from chatgate.server.known import MAX_HEAD_BYTES, MAX_HEADS, Known, KnownHeads
from chatgate.vocabulary.exchange import Envelope, Identified
from chatgate.vocabulary.identity import Caller
from fakes.gate import ENDPOINT, FakeGate

PEER = "127.0.0.1"
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\n\r\n"
LENGTHLESS = HEAD % b""


def known() -> Known:
    """Return something that is known of a head."""
    gate = FakeGate()
    identified = Identified(Envelope("req_1", "POST", "/", "", {}, PEER, 0.0), ENDPOINT, Caller(PEER, 0), "en_US")
    return Known(HEAD % b"%d", identified, gate, gate.serve)


@pytest.mark.parametrize(
    ("peer", "head", "content", "is_found"),
    [
        (PEER, HEAD % b"3", b"abc", True),
        (PEER, HEAD % b"0", b"", True),
        ("127.0.0.2", HEAD % b"3", b"abc", False),
        (PEER, HEAD % b"03", b"abc", False),
        (PEER, HEAD % b"4", b"abc", False),
        (PEER, HEAD % b"", b"", False),
        (PEER, HEAD.replace(b"ength: %b", b"ength: 3\r\nContent-Length: %b") % b"3", b"abc", False),
        (PEER, HEAD.replace(b"Host: x", b"Host: y") % b"3", b"abc", False),
        (PEER, HEAD.replace(b": x", b" : x") % b"3", b"abc", False),
        (PEER, HEAD % b"3" + HEAD % b"3", b"abc", False),
        (PEER, b"", HEAD % b"3", False),
    ],
)
def test_only_the_same_peer_and_the_same_bytes_are_known(
    peer: str, head: bytes, content: bytes, *, is_found: bool
) -> None:
    """The digits alone may differ, and they have to say how long the body is that came."""
    heads, one = KnownHeads(), known()
    heads.add(PEER, LENGTHLESS, one)
    assert heads.find(peer, head + content, content) is (one if is_found else None)


def test_memory_is_bounded() -> None:
    """Long heads are not remembered, and never more than so many of any peers."""
    heads, one = KnownHeads(), known()
    long = HEAD.replace(b"Host: x", b"Host: x" + b"x" * MAX_HEAD_BYTES)
    heads.add(PEER, long % b"", one)
    assert heads.find(PEER, long % b"0", b"") is None
    for number in range(MAX_HEADS):
        heads.add(str(number), LENGTHLESS, one)
    assert heads.find("0", HEAD % b"0", b"") is one
    heads.add("one more", LENGTHLESS, one)
    assert [heads.find(peer, HEAD % b"0", b"") for peer in ("0", "one more")] == [None, one]


def test_all_is_forgotten_when_asked() -> None:
    """Nothing is known after that."""
    heads = KnownHeads()
    heads.add(PEER, LENGTHLESS, known())
    heads.clear()
    assert heads.find(PEER, HEAD % b"0", b"") is None
