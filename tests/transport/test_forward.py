"""Handing pieces over as they arrive: the order, the stops, and the faults of both sides."""

from __future__ import annotations

import asyncio

import pytest

from chatgate.transport import Transport
from chatgate.vocabulary.errors import UpstreamError
from fakes.outbound import outbound
from fakes.raw_server import RawServer, saying, silent_after

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = b"3\r\none\r\n3\r\ntwo\r\n"
END = b"0\r\n\r\n"


async def test_every_piece_is_handed_over_and_the_end_is_told(transport: Transport) -> None:
    """Whoever takes gets the whole body in its order; the regular end is True, and the connection is kept."""
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        return True

    async with RawServer(saying(HEAD + PIECES + END)) as server:
        answer = await transport.send(outbound(server.port))
        assert await answer.forward(take) is True
        assert b"".join(taken) == b"onetwo"
        assert await answer.forward(take) is True


async def test_whoever_takes_can_stop_and_go_on(transport: Transport) -> None:
    """A stop is False; what came meanwhile is handed over first when the taking goes on."""
    taken: list[bytes] = []

    def take_one(data: bytes) -> bool:
        taken.append(data)
        return False

    async with RawServer(saying(HEAD + PIECES + END)) as server:
        answer = await transport.send(outbound(server.port))
        assert await answer.forward(take_one) is False
        while not await answer.forward(take_one):
            pass
        assert b"".join(taken) == b"onetwo"


async def test_a_cut_is_told_after_what_came_before_it(transport: Transport) -> None:
    """What had arrived is handed over, then the cut is raised."""
    taken: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        return True

    async with RawServer(saying(HEAD + PIECES)) as server:
        answer = await transport.send(outbound(server.port))
        with pytest.raises(UpstreamError, match="upstream_cut"):
            await answer.forward(take)
        assert b"".join(taken) == b"onetwo"


async def test_a_bug_of_the_taker_is_raised_where_it_waits(transport: Transport) -> None:
    """It does not look like a fault of the upstream, and the connection can still be closed."""

    def take(data: bytes) -> bool:
        raise LookupError(data)

    async with RawServer(saying(HEAD + PIECES)) as server:
        answer = await transport.send(outbound(server.port))
        with pytest.raises(LookupError):
            await answer.forward(take)
        answer.close()


async def test_a_cancelled_taker_leaves_nothing_open(transport: Transport) -> None:
    """The caller left in the middle of a stream: the upstream sees it at once."""
    first = asyncio.Event()

    def take(data: bytes) -> bool:
        first.set()
        return bool(data)

    async with RawServer(silent_after(HEAD + b"3\r\none\r\n")) as server:
        answer = await transport.send(outbound(server.port))
        task = asyncio.create_task(answer.forward(take))
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await server.open_count_becomes(0)
