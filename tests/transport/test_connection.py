"""Framing: which answers are understood, which are refused, and what becomes of the connection."""

from __future__ import annotations

import asyncio

import pytest

from chatgate.transport import Transport
from chatgate.transport.heads import MAX_HEAD_BYTES
from chatgate.vocabulary.errors import Kind, UpstreamError
from fakes.outbound import outbound
from fakes.raw_server import Peer, RawServer, answer, answering, saying, silent_after

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


async def body_of(transport: Transport, port: int) -> bytes:
    """Return the body of the answer to one request."""
    upstream_answer = await transport.send(outbound(port))
    try:
        return await upstream_answer.read(10_000_000)
    finally:
        upstream_answer.close()


@pytest.mark.parametrize(
    ("said", "body", "kept"),
    [
        (answer(b"hello"), b"hello", True),
        (answer(b""), b"", True),
        (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n", b"abcde", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end", False),
        (OK + b"\r\nuntil the end", b"until the end", False),
        (OK + b"\r\n", b"", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 16 + answer(b"late"), b"late", True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(b"late"), b"late", True),
        (answer(b"bye", b"Connection: close"), b"bye", False),
        (answer(b"one") + b"more", b"one", False),
        (answer(b"one") + answer(b"two"), b"one", False),
        (answer(b"bye", b"Connection: close") + b"more", b"bye", False),
        (answer(b"plain", b"Content-Encoding: identity"), b"plain", True),
        (answer(b"plain", b"Upgrade: h2c", b"Connection: upgrade"), b"plain", True),
        (answer(b"x", b"A: " + b"a" * 60_000), b"x", True),
        (answer(b"y" * 3_000_000), b"y" * 3_000_000, True),
    ],
)
async def test_understood(transport: Transport, said: bytes, body: bytes, *, kept: bool) -> None:
    """An answer that leaves no doubt about its end is read, and its connection kept if it may be used again."""
    script = saying(said) if b"until" in said or said == OK + b"\r\n" else answering(said)
    async with RawServer(script) as server:
        assert await body_of(transport, server.port) == body
        assert transport.idle_connections == int(kept)
        assert await server.open_count_becomes(int(kept))


@pytest.mark.parametrize(
    "said",
    [
        b"hello, this is no HTTP at all\r\n\r\n",
        b"<html>HTTP/0.9</html>\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"HTTP/1.1 99 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + answer(b"late"),
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Content-Length: 2, 3\r\n\r\nabc",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999999\r\n\r\n",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Content-Encoding: identity\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"A: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
        OK.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n",
        OK + b"A: b\r\n" * 200 + b"Content-Length: 0\r\n\r\n",
        answer(b"x", b"A: " + b"a" * MAX_HEAD_BYTES),
        OK + b"A: " + b"a" * 300_000,
        CHUNKED + b"zz\r\n",
        CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
        CHUNKED + b"ffffffffffffffffff\r\n",
        CHUNKED + b"3;" + b"x" * 300_000,
        CHUNKED + b"0\r\n" + b"X-Trailer: t\r\n" * 100_000,
    ],
)
async def test_garbled(transport: Transport, said: bytes) -> None:
    """An answer whose framing, coding or size is in doubt is refused at once, and its connection is closed."""
    async with RawServer(silent_after(said)) as server:
        with pytest.raises(UpstreamError) as raised:
            await body_of(transport, server.port)
        assert (raised.value.kind, raised.value.reason) == (Kind.UPSTREAM_ERROR, "upstream_garbled")
        assert await server.open_count_becomes(0)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200",
        OK + b"Content-Length: 5\r\n",
        OK + b"Content-Length: 5\r\n\r\nabc",
        CHUNKED,
        CHUNKED + b"3\r\nab",
        CHUNKED + b"3\r\nabc\r\n",
        CHUNKED + b"3\r\nabc\r\n0\r\n",
    ],
)
async def test_cut(transport: Transport, said: bytes) -> None:
    """A connection that ends before the answer does is an error, however little was missing."""
    async with RawServer(saying(said)) as server:
        with pytest.raises(UpstreamError) as raised:
            await body_of(transport, server.port)
        assert raised.value.reason == "upstream_cut"


async def test_reset_of_a_body_without_length(transport: Transport) -> None:
    """A body that ends with its connection is complete after a regular end only."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"\r\nsome of it")
        await peer.reader.read(1)
        peer.reset()

    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port))
        assert await upstream_answer.next_chunk() == b"some of it"
        # Any byte makes the server reset; a second request is not needed for that.
        upstream_answer._line.transport.write(b"x")  # type: ignore[attr-defined]
        with pytest.raises(UpstreamError, match="upstream_cut"):
            await upstream_answer.next_chunk()


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_any_cut_of_the_bytes_gives_the_same_answer(transport: Transport, size: int) -> None:
    """Where the network cuts an answer apart makes no difference."""
    said = b"HTTP/1.1 103 E\r\nLink: x\r\n\r\n" + CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\nT: t\r\n\r\n"

    async def script(peer: Peer) -> None:
        while await peer.request():
            for start in range(0, len(said), size):
                await peer.send(said[start : start + size])
                await asyncio.sleep(0)

    async with RawServer(script) as server:
        for _ in range(3):
            assert await body_of(transport, server.port) == b"abcde"
        assert server.accepted == 1


async def test_head(transport: Transport) -> None:
    """Status and headers are there as soon as `send` returns; names are in lower case, repeated ones are joined."""
    async with RawServer(
        answering(answer(b"", b"X-A: 1", b"x-a:  2 ", b"Retry-After: 7", status=b"429 Slow"))
    ) as server:
        upstream_answer = await transport.send(outbound(server.port))
        assert upstream_answer.status == 429
        assert upstream_answer.headers[b"retry-after"] == b"7"
        assert [value.strip() for value in upstream_answer.headers[b"x-a"].split(b",")] == [b"1", b"2"]
        assert await upstream_answer.read(0) == b""


async def test_the_request_arrives_as_it_was_given(transport: Transport) -> None:
    """Head and body go out byte for byte, also when they are large."""
    async with RawServer(answering(answer(b"thanks"))) as server:
        request = outbound(server.port, body=b"z" * 5_000_000)
        assert await (await transport.send(request)).read(100) == b"thanks"
        assert server.requests == [request.head + request.body]


async def test_answer_before_the_request_was_read(transport: Transport) -> None:
    """An upstream that refuses a large request early is heard, and its connection is not used again."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(answer(b"too large", status=b"413 Too Large"))
        await peer.client_left()

    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port, body=b"z" * 20_000_000))
        assert (upstream_answer.status, await upstream_answer.read(100)) == (413, b"too large")
        assert transport.idle_connections == 0
