"""Handing pieces over as they arrive: the order, the stops, and the faults of both sides."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.bursts import Burst
from chatgate.transport import Transport
from chatgate.transport.connection import Connection
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


async def test_a_chunk_by_itself_is_offered_as_it_came(transport: Transport) -> None:
    """Framing and all, and where its data begin; what is declined is taken as ever."""
    taken: list[bytes] = []
    offered: list[bytes] = []
    go_on = asyncio.Event()

    def take(data: bytes) -> Verdict:
        taken.append(data)
        go_on.set()
        return Verdict.MORE

    def pass_on(chunk: bytes, start: int) -> bool:
        offered.append(chunk)
        go_on.set()
        return chunk[start:-2] != b"declined"

    async def answer(peer: Peer) -> None:
        await peer.request()
        for piece in (HEAD, b"3\r\none\r\n", b"3\r\ntwo\r\n", b"8\r\ndeclined\r\n", b"A\r\n0123456789\r\n", END):
            go_on.clear()
            await peer.send(piece)
            if piece[:1] in b"38A":
                await go_on.wait()

    async with RawServer(answer) as server:
        got = await transport.send(outbound(server.port))
        assert await got.forward(take, pass_on) is True
        assert taken == [b"one", b"declined"]
        assert offered == [b"3\r\ntwo\r\n", b"8\r\ndeclined\r\n", b"A\r\n0123456789\r\n"]


async def test_a_bug_of_whoever_passes_on_is_raised_where_it_waits(transport: Transport) -> None:
    """As one of the taker is."""
    go_on = asyncio.Event()

    def take(data: bytes) -> Verdict:
        del data
        go_on.set()
        return Verdict.MORE

    def pass_on(chunk: bytes, start: int) -> bool:
        raise LookupError(chunk, start)

    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"3\r\none\r\n")
        await go_on.wait()
        await peer.send(b"3\r\ntwo\r\n")

    async with RawServer(answer) as server:
        got = await transport.send(outbound(server.port))
        with pytest.raises(LookupError):
            await got.forward(take, pass_on)
        got.close()


class _Keeper:
    """Keeps nothing."""

    def give_back(self, connection: Connection) -> None:
        """Take it."""

    def lost(self, connection: Connection) -> None:
        """Forget it."""


@given(
    chunks=st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from(["x", "X", "03x"])), max_size=8),
    places=st.lists(st.integers(0, 400), max_size=12),
    declines=st.booleans(),
    by_chunk=st.booleans(),
)
# The rest of a size looks like a whole one, and what follows like a whole chunk.
@example(chunks=[(b"one", "x"), (b"abc\r\n" + b"d" * 14, "x")], places=[9, 17], declines=False, by_chunk=False)
def test_nothing_is_lost_or_doubled_however_the_body_is_cut(
    chunks: list[tuple[bytes, str]], places: list[int], *, declines: bool, by_chunk: bool
) -> None:
    """Whether reads begin and end at chunks or anywhere else, and whether what is offered is passed on or not."""
    framed = [format(len(data), form).encode() + b"\r\n" + data + b"\r\n" for data, form in chunks]
    stream = b"".join(framed) + END
    at = sorted({0, *(place for place in places if place < len(stream)), len(stream)})
    pieces = [*framed, END] if by_chunk else [stream[a:b] for a, b in itertools.pairwise(at)]
    got: list[bytes] = []

    def take(data: bytes) -> Verdict:
        got.append(data)
        return Verdict.MORE

    def pass_on(chunk: bytes, start: int) -> bool:
        if declines and len(chunk) % 2:
            return False
        assert int(chunk[: start - 2], 16) == len(chunk) - start - 2
        got.append(chunk[start:-2])
        return True

    async def run() -> None:
        clock = HandClock()
        request = outbound(1)
        ours, theirs = socket.socketpair()
        connection = Connection(request.origin, _Keeper(), clock, Burst())
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=ours)
        answer = connection.ask(request, clock(), clock())
        connection.data_received(HEAD)
        forwarding = asyncio.ensure_future(answer.forward(take, pass_on))
        await asyncio.sleep(0)
        # As the loop would read them; a socket could join them.
        for piece in pieces:
            connection.data_received(piece)
        assert await forwarding is True
        connection.abort()
        theirs.close()

    asyncio.run(run())
    assert b"".join(got) == b"".join(data for data, _ in chunks)
