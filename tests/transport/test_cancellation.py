"""Cancelling: calls that are given up at any moment leave nothing behind, and the pool goes on working."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl

import pytest
import trustme

from chatgate.transport import Transport
from chatgate.vocabulary.exchange import OutboundRequest
from fakes.outbound import outbound
from fakes.proxies import ConnectProxy, Socks5Proxy
from fakes.raw_server import Peer, RawServer, silent_after, until

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Dawdler:
    """A script that answers in pieces, with a random pause of a few milliseconds or none before each."""

    def __init__(self, chance: random.Random) -> None:
        """Take the pauses from `chance`."""
        self.chance = chance

    async def __call__(self, peer: Peer) -> None:
        """Answer until the client closes."""
        while await peer.request():
            for piece in (HEAD, b"3\r\nabc\r\n", b"3\r\ndef\r\n", b"0\r\n\r\n"):
                if self.chance.random() < 0.5:
                    await asyncio.sleep(self.chance.random() * 0.004)
                await peer.send(piece)


async def call(transport: Transport, request: OutboundRequest, *, whole: bool) -> bytes:
    """Read an answer, at once or piece by piece, as the pipeline does."""
    upstream_answer = await transport.send(request)
    try:
        if whole:
            return await upstream_answer.read(1000)
        body = b""
        while piece := await upstream_answer.next_chunk():
            body += piece
        return body
    finally:
        upstream_answer.close()


async def storm(transport: Transport, request: OutboundRequest, calls: int, at_once: int, chance: random.Random) -> int:
    """Make so many calls, cancel most of them at a random moment, and return how many were cancelled."""
    gate = asyncio.Semaphore(at_once)
    loop = asyncio.get_running_loop()

    async def one() -> bool:
        async with gate:
            task = asyncio.create_task(call(transport, request, whole=chance.random() < 0.5))
            if chance.random() < 0.8:
                loop.call_later(chance.random() * 0.006, task.cancel)
            try:
                assert await task == b"abcdef"
            except asyncio.CancelledError:
                return True
            return False

    return sum(await asyncio.gather(*[one() for _ in range(calls)]))


async def check_health(transport: Transport, server: RawServer, request: OutboundRequest, calls: int) -> None:
    """Check that only idle connections are open, on both sides, and that calls succeed."""
    await until(lambda: transport.open_connections == transport.idle_connections)
    assert transport.calls_in_flight == 0
    assert await server.open_count_becomes(transport.idle_connections)
    for _ in range(calls // 5):
        assert await asyncio.gather(*[call(transport, request, whole=True) for _ in range(5)]) == [b"abcdef"] * 5


def open_files() -> int:
    """Return how many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the one system call that is meant


async def test_storm() -> None:
    """Of 2 500 calls most are cancelled, while dialling, waiting or reading; nothing stays and 100 calls succeed."""
    chance = random.Random(20261123)
    before = open_files()
    tasks_before = len(asyncio.all_tasks())
    transport = Transport()
    transport.start()
    async with RawServer(Dawdler(chance)) as server:
        request = outbound(server.port)
        cancelled = await storm(transport, request, 2500, 50, chance)
        assert 500 < cancelled < 2500
        await check_health(transport, server, request, 100)
        await transport.close()
        assert transport.open_connections == 0
        assert await server.open_count_becomes(0)
        await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) == tasks_before
    assert open_files() <= before + 1


@pytest.mark.parametrize("way", ["tls", "connect", "connect_tls", "socks"])
async def test_storm_while_dialling(way: str) -> None:
    """Handshakes with TLS and proxies that are cancelled in the middle leave nothing behind either."""
    chance = random.Random(way)
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    client_tls = ssl.create_default_context()
    authority.configure_trust(client_tls)
    transport = Transport(ssl_context=client_tls, max_idle_per_origin=4)
    proxy = Socks5Proxy() if way == "socks" else ConnectProxy(tls=server_tls if way == "connect_tls" else None)
    async with proxy, RawServer(Dawdler(chance), server_tls) as server:
        url = {
            "tls": None,
            "connect": f"http://127.0.0.1:{proxy.port}",
            "connect_tls": f"https://127.0.0.1:{proxy.port}",
            "socks": f"socks5h://127.0.0.1:{proxy.port}",
        }[way]
        request = outbound(server.port, scheme="https", proxy=url)
        assert await storm(transport, request, 100, 10, chance) > 20
        await check_health(transport, server, request, 20)
        await transport.close()
        assert await server.open_count_becomes(0)
        await until(lambda: proxy.open_count == 0)


@pytest.mark.parametrize("steps", range(30))
async def test_cancelled_after_so_many_steps(steps: int) -> None:
    """A call that is cancelled after any number of rounds of the loop leaves no connection but an idle one."""
    transport = Transport()
    async with RawServer(Dawdler(random.Random(steps))) as server:
        request = outbound(server.port)
        task = asyncio.create_task(call(transport, request, whole=False))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await check_health(transport, server, request, 5)
        await transport.close()


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"3\r\nabc\r\n"])
@pytest.mark.parametrize("whole", [True, False])
async def test_cancelled_while_the_upstream_is_silent(said: bytes, *, whole: bool) -> None:
    """The upstream sees the end at once, wherever the call was waiting; before the head there is nothing to close."""
    transport = Transport()
    async with RawServer(silent_after(said)) as server:
        task = asyncio.create_task(call(transport, outbound(server.port), whole=whole))
        await until(lambda: bool(server.requests))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await server.open_count_becomes(0)
        assert (transport.open_connections, transport.calls_in_flight) == (0, 0)


async def test_cancelled_while_a_name_is_resolved() -> None:
    """Dialling that is cancelled at its very beginning is fine too."""
    transport = Transport()
    task = asyncio.create_task(transport.send(outbound(1, host="localhost")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (transport.open_connections, transport.calls_in_flight) == (0, 0)
