"""Handing pieces over as they arrive: the order, the stops, and the faults of both sides."""

from __future__ import annotations

import asyncio

import pytest

from chatgate.transport import Transport
from chatgate.vocabulary.errors import UpstreamError
from chatgate.vocabulary.exchange import Verdict
from chatgate.vocabulary.upstreams import Timeouts
from fakes.outbound import HandClock, outbound
from fakes.raw_server import Peer, RawServer, saying

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = b"3\r\none\r\n3\r\ntwo\r\n"
END = b"0\r\n\r\n"


async def test_every_piece_is_handed_over_and_the_end_is_told(transport: Transport) -> None:
    """Whoever takes gets the whole body in its order; the regular end is True, and the connection is kept."""
    taken: list[bytes] = []

    def take(data: bytes) -> Verdict:
        taken.append(data)
        return Verdict.MORE

    async with RawServer(saying(HEAD + PIECES + END)) as server:
        answer = await transport.send(outbound(server.port))
        assert await answer.forward(take) is True
        assert b"".join(taken) == b"onetwo"
        assert await answer.forward(take) is True


async def test_whoever_takes_can_stop_and_go_on(transport: Transport) -> None:
    """A stop is False; what came meanwhile is handed over first when the taking goes on."""
    taken: list[bytes] = []

    def take_one(data: bytes) -> Verdict:
        taken.append(data)
        return Verdict.STOP

    async with RawServer(saying(HEAD + PIECES + END)) as server:
        answer = await transport.send(outbound(server.port))
        assert await answer.forward(take_one) is False
        while not await answer.forward(take_one):
            pass
        assert b"".join(taken) == b"onetwo"


async def test_a_cut_is_told_after_what_came_before_it(transport: Transport) -> None:
    """What had arrived is handed over, then the cut is raised."""
    taken: list[bytes] = []

    def take(data: bytes) -> Verdict:
        taken.append(data)
        return Verdict.MORE

    async with RawServer(saying(HEAD + PIECES)) as server:
        answer = await transport.send(outbound(server.port))
        with pytest.raises(UpstreamError, match="upstream_cut"):
            await answer.forward(take)
        assert b"".join(taken) == b"onetwo"


async def test_a_bug_of_the_taker_is_raised_where_it_waits(transport: Transport) -> None:
    """It does not look like a fault of the upstream, and the connection can still be closed."""

    def take(data: bytes) -> Verdict:
        raise LookupError(data)

    async with RawServer(saying(HEAD + PIECES)) as server:
        answer = await transport.send(outbound(server.port))
        with pytest.raises(LookupError):
            await answer.forward(take)
        answer.close()


async def test_a_cancelled_taker_leaves_the_answer_to_whoever_got_it(transport: Transport) -> None:
    """The caller left in the middle of a stream: it may be read on, and when it is closed the upstream sees that."""
    taken: list[bytes] = []
    came = asyncio.Event()
    go_on = asyncio.Event()

    def take(data: bytes) -> Verdict:
        taken.append(data)
        came.set()
        return Verdict.MORE

    async def pausing(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"3\r\none\r\n")
        await go_on.wait()
        await peer.send(b"3\r\ntwo\r\n")
        await peer.client_left()

    async with RawServer(pausing) as server:
        answer = await transport.send(outbound(server.port))
        for words in ([b"one"], [b"one", b"two"]):
            task = asyncio.create_task(answer.forward(take))
            await came.wait()
            assert taken == words
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            came.clear()
            go_on.set()
        assert server.open_count == 1
        answer.close()
        assert await server.open_count_becomes(0)


@pytest.mark.parametrize(("verdict", "reason"), [(Verdict.NOTHING, "upstream_stalled"), (Verdict.MORE, "")])
async def test_what_says_nothing_does_not_end_the_silence(
    transport: Transport, clock: HandClock, verdict: Verdict, reason: str
) -> None:
    """A piece that was worth nothing moves no deadline; one that was does."""
    came = asyncio.Event()
    go_on = asyncio.Event()

    def take(data: bytes) -> Verdict:
        came.set()
        return Verdict.MORE if data == b"one" else verdict

    async def pausing(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"3\r\none\r\n")
        await go_on.wait()
        await peer.send(b"2\r\n: \r\n")
        await peer.client_left()

    async with RawServer(pausing) as server:
        answer = await transport.send(outbound(server.port, timeouts=Timeouts(idle_seconds=10)))
        task = asyncio.create_task(answer.forward(take))
        await came.wait()
        came.clear()
        clock.now += 9
        go_on.set()
        await came.wait()
        clock.now += 2
        transport.sweep()
        await asyncio.sleep(0)
        if reason:
            with pytest.raises(UpstreamError, match=reason):
                await task
        else:
            assert not task.done()
            task.cancel()
            answer.close()
        assert await server.open_count_becomes(0)
