"""Sending: which connection a request takes, when it is repeated, and what the sweep and the end do."""

from __future__ import annotations

import asyncio

import pytest

from chatgate.transport import Transport
from chatgate.transport.pool import MAX_LIFETIME_SECONDS, MAX_REQUESTS
from chatgate.vocabulary.errors import Kind, UpstreamError
from chatgate.vocabulary.exchange import Answer, Sender
from chatgate.vocabulary.upstreams import Timeouts
from fakes.outbound import HandClock, outbound
from fakes.raw_server import Peer, RawServer, answer, answering, silent_after, until


async def call(transport: Transport, port: int) -> bytes:
    """Send one request and return the body of its answer."""
    upstream_answer = await transport.send(outbound(port))
    try:
        return await upstream_answer.read(1000)
    finally:
        upstream_answer.close()


async def test_it_is_what_the_pipeline_asks_for(transport: Transport) -> None:
    """The transport fits the pipeline's ports; the type checker reads this."""
    sender: Sender = transport
    async with RawServer(answering(answer(b"x"))) as server:
        upstream_answer: Answer = await sender.send(outbound(server.port))
        assert upstream_answer.status == 200


async def test_one_connection_serves_calls_in_turn(transport: Transport) -> None:
    """Calls that follow each other share a connection."""
    async with RawServer(answering(answer(b"x"))) as server:
        for _ in range(20):
            assert await call(transport, server.port) == b"x"
        assert server.accepted == 1
        assert (transport.open_connections, transport.idle_connections) == (1, 1)


async def test_calls_at_once_have_a_connection_each(transport: Transport) -> None:
    """No call waits for another, and the connections are kept."""
    async with RawServer(answering(answer(b"x"))) as server:
        bodies = await asyncio.gather(*[call(transport, server.port) for _ in range(30)])
        assert bodies == [b"x"] * 30
        assert transport.idle_connections == server.accepted == 30


async def test_no_more_idle_connections_than_allowed() -> None:
    """What is one too many is closed."""
    transport = Transport(max_idle_per_origin=5)
    async with RawServer(answering(answer(b"x"))) as server:
        await asyncio.gather(*[call(transport, server.port) for _ in range(30)])
        assert transport.idle_connections == 5
        assert await server.open_count_becomes(5)
        await transport.close()


async def test_the_last_used_connection_is_taken_first(transport: Transport, clock: HandClock) -> None:
    """So that the others may grow old and be closed."""
    async with RawServer(answering(answer(b"x"))) as server:
        await asyncio.gather(*[call(transport, server.port) for _ in range(3)])
        for _ in range(7):
            clock.now += 10
            transport.sweep()
            await call(transport, server.port)
        assert transport.idle_connections == 1
        assert await server.open_count_becomes(1)


async def test_origins_do_not_share(transport: Transport) -> None:
    """A connection serves its own origin only."""
    async with RawServer(answering(answer(b"a"))) as one, RawServer(answering(answer(b"b"))) as other:
        for _ in range(3):
            assert await call(transport, one.port) == b"a"
            assert await call(transport, other.port) == b"b"
        assert (one.accepted, other.accepted) == (1, 1)


async def test_idle_connections_are_closed(transport: Transport, clock: HandClock) -> None:
    """After the keep-alive time an idle connection is closed, before that it is not."""
    async with RawServer(answering(answer(b"x"))) as server:
        await call(transport, server.port)
        clock.now += 59.9
        transport.sweep()
        assert transport.idle_connections == 1
        clock.now += 0.1
        transport.sweep()
        assert transport.idle_connections == 0
        assert await server.open_count_becomes(0)


async def test_an_idle_connection_past_its_time_is_not_taken(transport: Transport, clock: HandClock) -> None:
    """Even when no sweep came by."""
    async with RawServer(answering(answer(b"x"))) as server:
        await call(transport, server.port)
        clock.now += 61
        await call(transport, server.port)
        assert server.accepted == 2
        assert await server.open_count_becomes(1)


async def test_connections_grow_old(transport: Transport, clock: HandClock) -> None:
    """A connection in constant use is replaced when its lifetime is over."""
    async with RawServer(answering(answer(b"x"))) as server:
        for _ in range(int(MAX_LIFETIME_SECONDS // 50)):
            await call(transport, server.port)
            clock.now += 50
            transport.sweep()
        assert server.accepted == 1
        assert await server.open_count_becomes(0)
        await call(transport, server.port)
        assert server.accepted == 2


async def test_a_connection_that_grows_old_under_an_answer_ends_with_it(transport: Transport, clock: HandClock) -> None:
    """The answer is not cut off, and the connection is not used again."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"xy")[:-1])
        await go_on.wait()
        await peer.send(b"y")
        await peer.client_left()

    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port, timeouts=Timeouts(idle_seconds=1000.0)))
        clock.now += MAX_LIFETIME_SECONDS
        transport.sweep()
        go_on.set()
        assert await upstream_answer.read(2) == b"xy"
        assert await server.open_count_becomes(0)


async def test_connections_wear_out(transport: Transport) -> None:
    """A connection carries so many requests and no more."""
    async with RawServer(answering(answer(b"x"))) as server:
        for _ in range(MAX_REQUESTS):
            await call(transport, server.port)
        assert (server.accepted, transport.idle_connections) == (1, 0)
        await call(transport, server.port)
        assert server.accepted == 2


async def test_a_server_that_closes_an_idle_connection(transport: Transport) -> None:
    """It leaves the pool at once."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"x"))

    async with RawServer(script) as server:
        await call(transport, server.port)
        await until(lambda: not transport.open_connections)
        assert transport.idle_connections == 0
        assert await call(transport, server.port) == b"x"


async def test_bytes_on_an_idle_connection(transport: Transport) -> None:
    """A connection on which something came that nobody asked for is never used again."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"x"))
        await asyncio.sleep(0.02)
        await peer.send(answer(b"poison"))
        await peer.client_left()

    async with RawServer(script) as server:
        assert await call(transport, server.port) == b"x"
        assert await server.open_count_becomes(0)
        assert await call(transport, server.port) == b"x"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_stale_connection_is_replaced(transport: Transport, how: str) -> None:
    """A request that met a connection being closed is sent once more, on a new one."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"x"))
        if peer.server.accepted == 1:
            await peer.request()
            if how == "reset":
                peer.reset()
            return
        await peer.request()
        await peer.send(answer(b"again"))
        await peer.client_left()

    async with RawServer(script) as server:
        assert await call(transport, server.port) == b"x"
        assert await call(transport, server.port) == b"x"
        assert (server.accepted, len(server.requests)) == (2, 3)
        assert len(set(server.requests)) == 1
        assert await call(transport, server.port) == b"again"


async def test_a_repetition_may_be_refused(transport: Transport) -> None:
    """Whoever counts requests is asked before one is sent again, and told when."""
    asked: list[float] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"x"))
        await peer.request()

    def never(now: float) -> bool:
        asked.append(now)
        return False

    async with RawServer(script) as server:
        assert await call(transport, server.port) == b"x"
        with pytest.raises(UpstreamError) as raised:
            await transport.send(outbound(server.port), never)
        assert (raised.value.reason, len(asked)) == ("upstream_cut", 1)
        assert (server.accepted, len(server.requests)) == (1, 2)


async def test_a_request_is_repeated_once_only(transport: Transport) -> None:
    """When the new connection ends too, the upstream is at fault."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.server.accepted == 1:
            await peer.send(answer(b"x"))
            await peer.request()

    async with RawServer(script) as server:
        await call(transport, server.port)
        with pytest.raises(UpstreamError, match="upstream_cut"):
            await call(transport, server.port)
        assert (server.accepted, len(server.requests)) == (2, 3)


async def test_nothing_is_repeated_after_a_byte_of_an_answer(transport: Transport) -> None:
    """One byte shows that the upstream has read the request."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"x"))
        await peer.request()
        await peer.send(b"H")

    async with RawServer(script) as server:
        await call(transport, server.port)
        with pytest.raises(UpstreamError, match="upstream_cut"):
            await call(transport, server.port)
        assert len(server.requests) == 2


async def test_the_timer_sweeps() -> None:
    """Once started, the transport keeps the deadlines by itself, and stops with its end."""
    transport = Transport()
    transport.start()
    transport.start()
    async with RawServer(silent_after(b"")) as server:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(UpstreamError) as raised:
            await transport.send(outbound(server.port, timeouts=Timeouts(first_token_seconds=0.2)))
        assert raised.value.kind is Kind.UPSTREAM_TIMEOUT
        assert loop.time() - began >= 0.2
        await transport.close()
        assert transport._timer is None


async def test_close_ends_everything() -> None:
    """Idle connections are closed, answers under way fail, later calls too, and no connection is left."""
    transport = Transport()
    async with RawServer(answering(answer(b"x"))) as idle, RawServer(silent_after(b"")) as busy:
        await call(transport, idle.port)
        task = asyncio.create_task(transport.send(outbound(busy.port)))
        await until(lambda: bool(busy.requests))
        await transport.close()
        assert (transport.open_connections, transport.idle_connections, transport.calls_in_flight) == (0, 0, 0)
        with pytest.raises(UpstreamError, match="upstream_cut"):
            await task
        assert await idle.open_count_becomes(0)
        assert await busy.open_count_becomes(0)
        with pytest.raises(UpstreamError, match="upstream_unreachable"):
            await call(transport, idle.port)
        assert await idle.open_count_becomes(0)
        await transport.close()
