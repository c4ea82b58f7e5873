"""Dialling: names, TLS, the connect deadline, and proxies of every kind."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator

import pytest
import trustme

from chatgate.transport import Transport
from chatgate.transport.proxies import read_proxy
from chatgate.vocabulary.errors import Kind, UpstreamError
from chatgate.vocabulary.exchange import OutboundRequest
from chatgate.vocabulary.upstreams import Timeouts
from fakes.outbound import outbound
from fakes.proxies import ConnectProxy, Socks5Proxy
from fakes.raw_server import Peer, RawServer, answer, answering

NAME = "upstream.test"
"""A name that no resolver knows: whoever reaches it was helped by a proxy."""

HELLO = answering(answer(b"hello"))


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Return an authority that the transports of these tests trust."""
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """Return what a server for the test names needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME, "localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
async def trusting(authority: trustme.CA) -> AsyncIterator[Transport]:
    """Return a transport that trusts the authority, and check that nothing of it stays."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    transport = Transport(ssl_context=context)
    yield transport
    await transport.close()
    assert transport.open_connections == 0


async def call(transport: Transport, request: OutboundRequest) -> bytes:
    """Send one request and return the body of its answer."""
    upstream_answer = await transport.send(request)
    try:
        return await upstream_answer.read(1000)
    finally:
        upstream_answer.close()


async def refused(transport: Transport, request: OutboundRequest) -> UpstreamError:
    """Return the error of a request that must fail to connect, and check that it tells no secret."""
    with pytest.raises(UpstreamError) as raised:
        await call(transport, request)
    error = raised.value
    assert transport.open_connections == 0
    assert str(error) == error.reason
    assert error.__cause__ is not None
    assert "s3cret" not in "".join(traceback.format_exception(error))
    return error


async def test_a_name_is_resolved(trusting: Transport) -> None:
    """Of a name's addresses the one that answers is taken: localhost is often ::1 first, where nobody listens."""
    async with RawServer(HELLO) as server:
        assert await call(trusting, outbound(server.port, host="localhost")) == b"hello"


async def test_unknown_name(trusting: Transport) -> None:
    """A name that does not resolve is an unreachable upstream."""
    for name in ("name.invalid", "x" * 70 + ".test", "a..b"):
        assert (await refused(trusting, outbound(1, host=name))).reason == "upstream_unreachable"


async def test_nobody_listens(trusting: Transport) -> None:
    """A refused connection is an unreachable upstream."""
    async with RawServer(HELLO) as server:
        port = server.port
    error = await refused(trusting, outbound(port))
    assert (error.kind, error.reason) == (Kind.UPSTREAM_ERROR, "upstream_unreachable")


async def test_tls(trusting: Transport, server_tls: ssl.SSLContext) -> None:
    """A certificate that fits the name is accepted, by name and by address, and the connection is kept."""
    async with RawServer(HELLO, server_tls) as server:
        for host in ("localhost", "127.0.0.1"):
            for _ in range(3):
                assert await call(trusting, outbound(server.port, scheme="https", host=host)) == b"hello"
        assert server.accepted == 2


async def test_large_bodies_over_tls(trusting: Transport, server_tls: ssl.SSLContext) -> None:
    """Back-pressure and framing hold inside TLS too."""
    large = answer(b"x" * 3_000_000)
    async with RawServer(answering(large), server_tls) as server:
        for _ in range(3):
            upstream_answer = await trusting.send(outbound(server.port, scheme="https", body=b"y" * 3_000_000))
            await asyncio.sleep(0.02)
            assert upstream_answer.unread_bytes() < 600_000
            assert len(await upstream_answer.read(3_000_000)) == 3_000_000
        assert server.accepted == 1


async def test_tls_for_another_name(trusting: Transport, authority: trustme.CA) -> None:
    """A trusted certificate for another name is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.test").configure_cert(context)
    async with RawServer(HELLO, context) as server:
        error = await refused(trusting, outbound(server.port, scheme="https", host="localhost"))
        assert error.reason == "upstream_unreachable"
        assert server.requests == []


async def test_tls_of_an_unknown_authority(server_tls: ssl.SSLContext) -> None:
    """By default only what the operating system trusts is trusted."""
    transport = Transport()
    async with RawServer(HELLO, server_tls) as server:
        error = await refused(transport, outbound(server.port, scheme="https", host="localhost"))
        assert error.reason == "upstream_unreachable"
        assert server.requests == []


async def test_tls_to_a_plain_server(trusting: Transport) -> None:
    """A server that speaks no TLS is unreachable, not garbled."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(10)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with RawServer(script) as server:
        assert (await refused(trusting, outbound(server.port, scheme="https"))).reason == "upstream_unreachable"


async def test_connect_deadline(trusting: Transport) -> None:
    """A handshake that never ends is given up in time, TLS and proxies included, and the socket is closed."""

    async def script(peer: Peer) -> None:
        await peer.client_left()

    timeouts = Timeouts(connect_seconds=0.1)
    async with RawServer(script) as server:
        for request in (
            outbound(server.port, scheme="https", timeouts=timeouts),
            outbound(1, timeouts=timeouts, proxy=f"http://user:s3cret@127.0.0.1:{server.port}"),
            outbound(1, timeouts=timeouts, proxy=f"https://user:s3cret@127.0.0.1:{server.port}"),
            outbound(1, timeouts=timeouts, proxy=f"socks5h://user:s3cret@127.0.0.1:{server.port}"),
        ):
            error = await refused(trusting, request)
            assert (error.kind, error.reason) == (Kind.UPSTREAM_TIMEOUT, "upstream_connect_timeout")
        assert server.accepted == 4
        assert await server.open_count_becomes(0)


async def test_total_time_counts_while_dialling(trusting: Transport) -> None:
    """A call that has less time than dialling may take gets no more."""

    async def script(peer: Peer) -> None:
        await peer.client_left()

    timeouts = Timeouts(connect_seconds=60, total_seconds=0.1)
    async with RawServer(script) as server, asyncio.timeout(5):
        error = await refused(trusting, outbound(server.port, scheme="https", timeouts=timeouts))
        assert error.kind is Kind.UPSTREAM_TIMEOUT


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("credentials", ["", "user:s3cret%20%C3%A4@"])
async def test_http_proxy(trusting: Transport, server_tls: ssl.SSLContext, scheme: str, credentials: str) -> None:
    """An HTTP proxy is asked for the name, shown the credentials, and relays plain and TLS origins."""
    password = "s3cret ä" if credentials else None
    async with (
        ConnectProxy(password=password, tls=server_tls if scheme == "https" else None) as proxy,
        RawServer(HELLO) as plain,
        RawServer(HELLO, server_tls) as secure,
    ):
        url = f"{scheme}://{credentials}127.0.0.1:{proxy.port}"
        for _ in range(2):
            assert await call(trusting, outbound(plain.port, host=NAME, proxy=url)) == b"hello"
            assert await call(trusting, outbound(secure.port, host=NAME, scheme="https", proxy=url)) == b"hello"
        assert proxy.asked == [(NAME, plain.port), (NAME, secure.port)]
        assert proxy.credentials == (["user:s3cret ä"] * 2 if credentials else [])
        assert all(b"s3cret" not in request for request in plain.requests + secure.requests)


@pytest.mark.parametrize(("scheme", "seen"), [("socks5h", "localhost"), ("socks5", "127.0.0.1")])
@pytest.mark.parametrize("credentials", ["", "user:s3cret@"])
async def test_socks_proxy(
    trusting: Transport, server_tls: ssl.SSLContext, scheme: str, seen: str, credentials: str
) -> None:
    """A SOCKS5 proxy gets the name with socks5h and an address with socks5; TLS checks the name all the same."""
    async with (
        Socks5Proxy(password="s3cret" if credentials else None) as proxy,
        RawServer(HELLO) as plain,
        RawServer(HELLO, server_tls) as secure,
    ):
        url = f"{scheme}://{credentials}127.0.0.1:{proxy.port}"
        for _ in range(2):
            assert await call(trusting, outbound(plain.port, host="localhost", proxy=url)) == b"hello"
            assert await call(trusting, outbound(secure.port, host="localhost", scheme="https", proxy=url)) == b"hello"
        assert proxy.asked == [(seen, plain.port), (seen, secure.port)]
        assert proxy.credentials == (["user:s3cret"] * 2 if credentials else [])


async def test_socks5h_needs_no_resolver_here(trusting: Transport) -> None:
    """A name that only the proxy knows is reached."""
    async with Socks5Proxy() as proxy, RawServer(HELLO) as server:
        url = f"socks5h://127.0.0.1:{proxy.port}"
        assert await call(trusting, outbound(server.port, host=NAME, proxy=url)) == b"hello"
        assert proxy.asked == [(NAME, server.port)]


async def test_connections_through_a_proxy_are_their_own(trusting: Transport) -> None:
    """A call that must go through a proxy never takes a direct connection, nor the other way round."""
    async with ConnectProxy() as proxy, RawServer(HELLO) as server:
        for _ in range(2):
            await call(trusting, outbound(server.port))
            await call(trusting, outbound(server.port, proxy=f"http://127.0.0.1:{proxy.port}"))
        assert (len(proxy.asked), server.accepted) == (1, 2)


async def test_refusals_of_proxies(trusting: Transport) -> None:
    """A proxy that says no, or does not like the credentials, makes the upstream unreachable; no secret is told."""
    async with (
        RawServer(HELLO) as server,
        ConnectProxy(refuses=True) as connect_no,
        Socks5Proxy(refuses=True) as socks_no,
        ConnectProxy(password="right") as connect_password,
        Socks5Proxy(password="right") as socks_password,
    ):
        urls = [
            f"http://127.0.0.1:{connect_no.port}",
            f"socks5h://127.0.0.1:{socks_no.port}",
            f"http://user:s3cret@127.0.0.1:{connect_password.port}",
            f"socks5://user:s3cret@127.0.0.1:{socks_password.port}",
            f"http://127.0.0.1:{connect_password.port}",
            f"socks5://127.0.0.1:{socks_password.port}",
            f"socks5://user:{'s3cret' * 60}@127.0.0.1:{socks_password.port}",
            f"http://user:s3cret@127.0.0.1:{server.port}x",
            f"ftp://user:s3cret@127.0.0.1:{server.port}",
            "http://",
            "socks5h://user:s3cret@127.0.0.1:1",
            "http://user:s3cret@127.0.0.1:1",
        ]
        for url in urls:
            assert (await refused(trusting, outbound(server.port, proxy=url))).reason == "upstream_unreachable"
        assert server.accepted == 0


@pytest.mark.parametrize(
    "reply",
    [
        (b"HTTP/1.1 2", b"00 OK\r\nX-Via: p", b"roxy\r\n\r", b"\n"),
        (b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n",),
        (b"HTTP/1.1 200\r\n\r\n",),
    ],
)
async def test_replies_of_http_proxies(trusting: Transport, reply: tuple[bytes, ...]) -> None:
    """Any success with its head in any number of pieces is understood."""
    async with ConnectProxy() as proxy, RawServer(HELLO) as server:
        proxy.reply = reply
        assert await call(trusting, outbound(server.port, proxy=f"http://127.0.0.1:{proxy.port}")) == b"hello"


@pytest.mark.parametrize(
    "reply",
    [
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",),
        (b"HTTP/1.1 2000 OK\r\n\r\n",),
        (b"SSH-2.0-x\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,),
    ],
)
async def test_bad_replies_of_http_proxies(trusting: Transport, reply: tuple[bytes, ...]) -> None:
    """Anything else is not trusted to relay, least of all bytes that come before the origin was spoken to."""
    async with ConnectProxy() as proxy, RawServer(HELLO) as server:
        proxy.reply = reply
        request = outbound(server.port, proxy=f"http://127.0.0.1:{proxy.port}")
        assert (await refused(trusting, request)).reason == "upstream_unreachable"


def test_proxy_urls() -> None:
    """Ports have defaults, credentials are decoded, and nothing of it is shown."""
    proxy = read_proxy("socks5h://us%40er:p%3Ass@[::1]")
    assert (proxy.host, proxy.port, proxy.username, proxy.password) == ("::1", 1080, "us@er", "p:ss")
    assert read_proxy("http://proxy.test").username is None
    assert [read_proxy(f"{scheme}://h").port for scheme in ("http", "https", "socks5")] == [80, 443, 1080]
    assert "p:ss" not in repr(proxy)
    assert "::1" not in repr(proxy)
