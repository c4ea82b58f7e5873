"""A head that is known is understood as the parser understood it, and anything else is left to the parser."""

from __future__ import annotations

import asyncio

import pytest

from chatgate.transport import Transport
from chatgate.transport.heads import KnownHead, known_head
from chatgate.vocabulary.errors import UpstreamError
from fakes.outbound import outbound
from fakes.raw_server import Peer, RawServer, answer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nX-More: 1\r\n\r\n"


def known(body: bytes = b"hello") -> KnownHead:
    """Return the head of an answer that was read."""
    headers = {b"content-type": b"text/plain", b"content-length": b"%d" % len(body), b"x-more": b"1"}
    head = known_head(HEAD % len(body) + body, headers, len(body))
    assert head is not None
    return head


@pytest.mark.parametrize("body", [b"", b"x", b"hello", b"\r\n\r\n", b"y" * 70_000])
def test_another_body_is_found(body: bytes) -> None:
    """Only the length may differ, and the headers are those of before, without it."""
    assert known().body_of(HEAD % len(body) + body) == body
    assert known().headers == {b"content-type": b"text/plain", b"x-more": b"1"}


def test_every_length_is_found_and_no_wrong_one() -> None:
    """Also where the number of digits changes; a byte too few or too many is not whole."""
    head = known()
    for length in range(1, 1200):
        assert head.body_of(HEAD % length + b"y" * length) == b"y" * length
        for more in (-1, 1):
            assert head.body_of(HEAD % length + b"y" * (length + more)) is None


def test_a_head_with_a_percent_sign() -> None:
    """It is taken as it is."""
    said = b"HTTP/1.1 200 OK\r\nX-Rate: 5%% d\r\nContent-Length: %d\r\nX-More: %%d\r\n\r\n"
    head = known_head(said % 5 + b"hello", {}, 5)
    assert head is not None
    assert head.body_of(said % 7 + b"goodbye") == b"goodbye"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD % 5,
        HEAD % 5 + b"hell",
        HEAD % 5 + b"hello!",
        (HEAD % 5 + b"hello").replace(b"200", b"201"),
        (HEAD % 5 + b"hello").replace(b"1\r\n\r\n", b"2\r\n\r\n"),
        (HEAD % 5 + b"hello").replace(b"5", b"+5"),
        (HEAD % 5 + b"hello").replace(b"5", b"05"),
        (HEAD % 5 + b"hello").replace(b"5", b""),
        (HEAD % 0)[:-4],
        (HEAD % 0)[:-2],
        (HEAD % 5 + b"hello").replace(b"5", b"5, 5"),
        (HEAD % 5 + b"hello").replace(b"5", b"0" * 19 + b"5"),
        (HEAD % 5 + b"hello")[:-9],
    ],
)
def test_anything_else_is_not(data: bytes) -> None:
    """What is not whole, too long, or differs in anything else is left to the parser."""
    assert known().body_of(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:   5\r\n\r\nhello",
        HEAD % 6 + b"hello",
    ],
)
def test_only_the_usual_way_to_tell_the_length_is_known(data: bytes) -> None:
    """A head that tells the length otherwise is parsed each time."""
    assert known_head(data, {}, 5) is None


@pytest.mark.parametrize(
    ("second", "body", "kept"),
    [
        ((answer(b"second"),), b"second", True),
        ((answer(b""),), b"", True),
        ((answer(b"second")[:20], answer(b"second")[20:]), b"second", True),
        ((answer(b"second")[:-3], b"ond"), b"second", True),
        ((answer(b"second", b"X: y"),), b"second", True),
        ((answer(b"second") + b"more",), b"second", False),
        ((answer(b"second", b"Connection: close"),), b"second", False),
        ((b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"second"),), b"second", True),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", answer(b"second")), b"second", True),
        ((answer(b"second")[:-1],), None, False),
        ((answer(b"second").replace(b"6", b"0x6"),), None, False),
    ],
)
async def test_answers_follow_each_other(
    transport: Transport, second: tuple[bytes, ...], body: bytes | None, *, kept: bool
) -> None:
    """The second and third answers on a connection are read as the first one was, whatever they are like."""

    async def script(peer: Peer) -> None:
        for pieces in ((answer(b"first"),), second, (answer(b"third"),)):
            await peer.request()
            for piece in pieces:
                await peer.send(piece)
            if body is None and pieces is second:
                return

    async with RawServer(script) as server:
        assert await (await transport.send(outbound(server.port))).read(100) == b"first"
        sent = transport.send(outbound(server.port))
        if body is None:
            with pytest.raises(UpstreamError):
                await (await sent).read(100)
            return
        assert await (await sent).read(100) == body
        assert transport.idle_connections == int(kept)
        if kept:
            assert await (await transport.send(outbound(server.port))).read(100) == b"third"
            assert server.accepted == 1


CHUNKED = b"Transfer-Encoding: chunked\r\nX-More: 1\r\n"
ENDED = b"5\r\nhello\r\n0\r\n"


@pytest.mark.parametrize(
    ("second", "status", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED, 200, b"1"),
        (b"HTTP/1.1 103 Early\r\nX-More: 2\r\n\r\nHTTP/1.1 200 OK\r\n" + CHUNKED, 200, b"1"),
        (b"HTTP/1.1 201 Made\r\n" + CHUNKED, 201, b"1"),
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"X-More: 2\r\n", 200, b"1, 2"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-more: 2\r\n", 200, b"2"),
        (b"HTTP/1.0 200 OK\r\n" + CHUNKED, None, b""),
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"Content-Encoding: gzip\r\n", None, b""),
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"A: b\r\n" * 199, None, b""),
    ],
)
async def test_streams_follow_each_other(transport: Transport, second: bytes, status: int | None, more: bytes) -> None:
    """A judgement that is remembered holds for the same head alone; what ends the body is no part of it."""

    async def script(peer: Peer) -> None:
        for head in (b"HTTP/1.1 200 OK\r\n" + CHUNKED, second, b"HTTP/1.1 200 OK\r\n" + CHUNKED):
            await peer.request()
            await peer.send(head + b"\r\n")
            await peer.send(ENDED + b"X-More: 3\r\n\r\n")
            if status is None and head is second:
                return

    async with RawServer(script) as server:
        for number in range(3):
            sent = transport.send(outbound(server.port))
            if status is None and number == 1:
                with pytest.raises(UpstreamError):
                    await sent
                return
            upstream_answer = await sent
            expected = (status, more) if number == 1 else (200, b"1")
            assert (upstream_answer.status, upstream_answer.headers[b"x-more"]) == expected
            assert await upstream_answer.read(100) == b"hello"
        assert server.accepted == 1


STREAM_HEAD = b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n"
END = b"0\r\n\r\n"
HELLO = b"5\r\nhello\r\n"


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([STREAM_HEAD, HELLO, END], b"hello"),
        ([STREAM_HEAD + HELLO, END], b"hello"),
        ([STREAM_HEAD + HELLO, HELLO, END], b"hellohello"),
        ([STREAM_HEAD + HELLO, HELLO + END], b"hellohello"),
        ([STREAM_HEAD + HELLO, b"5", b"\r\nhel", b"lo\r", b"\n0\r\n\r\n"], b"hellohello"),
        ([STREAM_HEAD + HELLO + HELLO, END], b"hellohello"),
        ([STREAM_HEAD + HELLO + END], b"hello"),
        ([STREAM_HEAD + HELLO[:-1], HELLO[-1:] + END], b"hello"),
        ([STREAM_HEAD + HELLO[:1], HELLO[1:] + END], b"hello"),
        ([STREAM_HEAD + b"5;x=y\r\nhello\r\n", END], b"hello"),
        ([STREAM_HEAD + b"fa0\r\n" + b"y" * 4000 + b"\r\n", END], b"y" * 4000),
        ([STREAM_HEAD + END], b""),
        ([STREAM_HEAD, END], b""),
        ([STREAM_HEAD + HELLO, b"0\r\nX-More: 3\r\n\r\n"], b"hello"),
        ([STREAM_HEAD[:20], STREAM_HEAD[20:] + HELLO + END], b"hello"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM_HEAD + HELLO, END], b"hello"),
        ([STREAM_HEAD.replace(b"1", b"1", 1).replace(b": 1", b": 2") + HELLO, END], b"hello"),
        ([STREAM_HEAD + HELLO, b"zz"], None),
        ([STREAM_HEAD + HELLO, b"-1\r\nx\r\n"], None),
        ([STREAM_HEAD + HELLO], None),
        ([STREAM_HEAD], None),
    ],
)
async def test_a_stream_whose_head_came_before_is_read_as_any_other(
    transport: Transport, pieces: list[bytes], body: bytes | None
) -> None:
    """However it is cut and however it ends, with the same head twice before it and another stream after it."""

    async def script(peer: Peer) -> None:
        for said in ([STREAM_HEAD + HELLO + END], [STREAM_HEAD, HELLO + END], pieces, [STREAM_HEAD + HELLO, END]):
            await peer.request()
            for piece in said:
                await peer.send(piece)
                for _ in range(5):  # It is to arrive by itself.
                    await asyncio.sleep(0)
            if body is None and said is pieces:
                return

    async with RawServer(script) as server:
        for expected in (b"hello", b"hello"):
            assert await (await transport.send(outbound(server.port))).read(100) == expected
        if body is None:
            with pytest.raises(UpstreamError):
                await (await transport.send(outbound(server.port))).read(9999)
            return
        upstream_answer = await transport.send(outbound(server.port))
        assert upstream_answer.status == 200
        assert await upstream_answer.read(9999) == body
        assert await (await transport.send(outbound(server.port))).read(100) == b"hello"
        assert server.accepted == 1


@pytest.mark.parametrize(("alike", "is_known"), [(1, False), (2, True)])
async def test_heads_that_are_never_the_same_are_not_remembered_any_more(
    transport: Transport, alike: int, *, is_known: bool
) -> None:
    """Answers are read as before; a head that two answers in a row have is worth it."""
    told = 20 * alike

    async def script(peer: Peer) -> None:
        for number in range(told):
            await peer.request()
            await peer.send(answer(b"%d" % number, b"X-Request-Id: %d" % (number // alike)))

    async with RawServer(script) as server:
        for number in range(told):
            upstream_answer = await transport.send(outbound(server.port))
            assert upstream_answer.headers[b"x-request-id"] == b"%d" % (number // alike)
            assert await upstream_answer.read(100) == b"%d" % number
        assert server.accepted == 1
        assert (upstream_answer._line._known is not None) is is_known  # type: ignore[attr-defined]
