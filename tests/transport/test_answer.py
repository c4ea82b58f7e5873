"""Reading: pieces as they come, limits, back-pressure, deadlines, and what the two ways to stop do."""

from __future__ import annotations

import asyncio

import pytest

from chatgate.transport import Transport
from chatgate.transport.answer import RELEASE_BYTES, HttpAnswer
from chatgate.vocabulary.errors import Kind, UpstreamError
from chatgate.vocabulary.upstreams import Timeouts
from fakes.outbound import HandClock, outbound
from fakes.raw_server import Peer, RawServer, answer, answering, silent_after, until

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
TIMEOUTS = Timeouts(connect_seconds=2.0, first_token_seconds=10.0, idle_seconds=20.0, total_seconds=100.0)


def chunk(data: bytes) -> bytes:
    """Frame a piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Stepper:
    """A script that says one thing after another, each when the test says so."""

    def __init__(self, *said: bytes) -> None:
        """Say `said[0]` to the request at once, and the rest on `step`."""
        self.said = list(said)
        self.go = asyncio.Semaphore(1)

    def step(self) -> None:
        """Let the next thing be said."""
        self.go.release()

    async def __call__(self, peer: Peer) -> None:
        """Play the server's part, then wait for the client to leave."""
        await peer.request()
        for data in self.said:
            await self.go.acquire()
            await peer.send(data)
        await peer.client_left()


async def waiting(coroutine_of: HttpAnswer) -> asyncio.Task[bytes]:
    """Return a task that waits for the next piece, and has begun to wait."""
    task = asyncio.create_task(coroutine_of.next_chunk())
    await asyncio.sleep(0)
    return task


async def test_pieces_come_as_they_arrive(transport: Transport) -> None:
    """Each piece of a stream is handed over when it comes, without waiting for the next; b"" ends it."""
    script = Stepper(STREAM, chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n") + chunk(b"data: 3\n\n"), END)
    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port))
        assert upstream_answer.status == 200
        task = await waiting(upstream_answer)
        assert not task.done()
        script.step()
        assert await task == b"data: 1\n\n"
        script.step()
        assert await upstream_answer.next_chunk() == b"data: 2\n\ndata: 3\n\n"
        script.step()
        assert await upstream_answer.next_chunk() == b""
        assert await upstream_answer.next_chunk() == b""
        assert transport.idle_connections == 1


async def test_read_takes_up_to_its_limit(transport: Transport) -> None:
    """A body of exactly the limit is read."""
    async with RawServer(answering(answer(b"x" * 1000))) as server:
        assert await (await transport.send(outbound(server.port))).read(1000) == b"x" * 1000


@pytest.mark.parametrize(
    "said", [answer(b"x" * 1001), STREAM + chunk(b"x" * 1001), STREAM + chunk(b"x" * 900) + chunk(b"x" * 900) + END]
)
async def test_read_refuses_more_than_its_limit(transport: Transport, said: bytes) -> None:
    """A larger body is an error whether it has ended or not, and an unfinished one ends its connection."""
    async with RawServer(silent_after(said)) as server:
        upstream_answer = await transport.send(outbound(server.port))
        with pytest.raises(UpstreamError) as raised:
            await upstream_answer.read(1000)
        assert (raised.value.kind, raised.value.reason) == (Kind.UPSTREAM_ERROR, "upstream_too_large")
        upstream_answer.close()
        assert await server.open_count_becomes(transport.idle_connections)


async def test_an_endless_body_is_read_to_its_limit_only(transport: Transport) -> None:
    """An upstream that never stops sending costs no more memory than the limit."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        while True:
            await peer.send(chunk(b"x" * 60_000))

    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port))
        with pytest.raises(UpstreamError, match="upstream_too_large"):
            await upstream_answer.read(1_000_000)
        assert upstream_answer.received_bytes < 2_000_000
        assert await server.open_count_becomes(0)


async def test_a_slow_reader_slows_the_upstream(transport: Transport, clock: HandClock) -> None:
    """What nobody reads stays with the upstream; the idle clock stands still meanwhile, and nothing is lost."""
    total = 24_000_000
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await peer.send(b"x" * 60_000)
            sent += 60_000

    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port, timeouts=TIMEOUTS))
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.05)
        assert upstream_answer.unread_bytes() < 400_000
        assert sent < total
        clock.now += 50
        transport.sweep()
        assert len(await upstream_answer.read(total)) == total


async def test_one_byte_chunks_do_not_fill_the_memory(transport: Transport) -> None:
    """The cost of a piece counts, not only its bytes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        while True:
            await peer.send(chunk(b"x") * 10_000)

    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port))
        await asyncio.sleep(0.05)
        received = upstream_answer.received_bytes
        assert len(upstream_answer.pieces) < 60_000
        await asyncio.sleep(0.02)
        assert upstream_answer.received_bytes == received
        upstream_answer.close()


async def test_silence_before_the_head(transport: Transport, clock: HandClock) -> None:
    """An upstream that says nothing is given up when its time for the first byte is over, and not before."""
    async with RawServer(silent_after(b"")) as server:
        task = asyncio.create_task(transport.send(outbound(server.port, timeouts=TIMEOUTS)))
        await until(lambda: bool(server.requests))
        clock.now += 9.9
        transport.sweep()
        await asyncio.sleep(0)
        assert not task.done()
        clock.now += 0.1
        transport.sweep()
        with pytest.raises(UpstreamError) as raised:
            await task
        assert (raised.value.kind, raised.value.reason) == (Kind.UPSTREAM_TIMEOUT, "upstream_silent")
        assert await server.open_count_becomes(0)


@pytest.mark.parametrize("said", [STREAM, b"HTTP/1.1 103 Early Hints\r\n\r\n" + STREAM])
async def test_silence_after_the_head(transport: Transport, clock: HandClock, said: bytes) -> None:
    """A head alone is no first byte: the clock that runs since the request goes on."""
    async with RawServer(silent_after(said)) as server:
        upstream_answer = await transport.send(outbound(server.port, timeouts=TIMEOUTS))
        task = await waiting(upstream_answer)
        clock.now += 10
        transport.sweep()
        with pytest.raises(UpstreamError) as raised:
            await task
        assert (raised.value.kind, raised.value.reason) == (Kind.UPSTREAM_TIMEOUT, "upstream_silent")
        assert await server.open_count_becomes(0)


async def test_silence_inside_the_body(transport: Transport, clock: HandClock) -> None:
    """Between pieces the idle clock runs, anew after each; what came before the silence is still handed over."""
    script = Stepper(STREAM + chunk(b"1"), chunk(b"2"), b"1")
    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port, timeouts=TIMEOUTS))
        assert await upstream_answer.next_chunk() == b"1"
        clock.now += 19
        script.step()
        assert await upstream_answer.next_chunk() == b"2"
        clock.now += 19
        transport.sweep()
        # Bytes of the framing are no progress.
        script.step()
        await asyncio.sleep(0.02)
        task = await waiting(upstream_answer)
        clock.now += 1
        transport.sweep()
        for _ in range(2):
            with pytest.raises(UpstreamError) as raised:
                await task
            assert (raised.value.kind, raised.value.reason) == (Kind.UPSTREAM_TIMEOUT, "upstream_stalled")
            task = await waiting(upstream_answer)
        with pytest.raises(UpstreamError, match="upstream_stalled"):
            await task
        assert await server.open_count_becomes(0)


async def test_what_came_before_a_failure_is_handed_over_first(transport: Transport, clock: HandClock) -> None:
    """A piece that arrived counts, even when the rest of the answer never does."""
    async with RawServer(silent_after(STREAM + chunk(b"arrived"))) as server:
        upstream_answer = await transport.send(outbound(server.port, timeouts=TIMEOUTS))
        await until(lambda: bool(upstream_answer.pieces))
        clock.now += 20
        transport.sweep()
        assert await upstream_answer.next_chunk() == b"arrived"
        with pytest.raises(UpstreamError, match="upstream_stalled"):
            await upstream_answer.next_chunk()


async def test_total_time(transport: Transport, clock: HandClock) -> None:
    """An answer that always goes on is ended when the call's whole time is over."""
    pieces = 11
    script = Stepper(STREAM + chunk(b"x"), *[chunk(b"x")] * pieces)
    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port, timeouts=TIMEOUTS))
        for _ in range(9):
            await upstream_answer.next_chunk()
            clock.now += 10
            transport.sweep()
            script.step()
        await upstream_answer.next_chunk()
        task = await waiting(upstream_answer)
        clock.now += 10
        transport.sweep()
        with pytest.raises(UpstreamError) as raised:
            await task
        assert (raised.value.kind, raised.value.reason) == (Kind.UPSTREAM_TIMEOUT, "upstream_too_slow")


async def test_total_time_of_a_reader_that_does_not_read(transport: Transport, clock: HandClock) -> None:
    """Back-pressure stops the idle clock, not the clock of the whole call."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        while True:
            await peer.send(chunk(b"x" * 60_000))

    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port, timeouts=TIMEOUTS))
        await until(lambda: bool(upstream_answer.paused))
        clock.now += 100
        transport.sweep()
        with pytest.raises(UpstreamError, match="upstream_too_slow"):
            await upstream_answer.read(10_000_000)
        assert await server.open_count_becomes(0)


async def test_a_whole_answer_has_no_deadline(transport: Transport, clock: HandClock) -> None:
    """Once everything arrived the reader may take its time."""
    async with RawServer(answering(answer(b"all of it"))) as server:
        upstream_answer = await transport.send(outbound(server.port, timeouts=TIMEOUTS))
        clock.now += 1000
        transport.sweep()
        assert await upstream_answer.read(100) == b"all of it"


async def test_close_of_an_unfinished_answer(transport: Transport) -> None:
    """The upstream sees the end at once, and who still reads is told."""
    async with RawServer(silent_after(STREAM + chunk(b"x"))) as server:
        upstream_answer = await transport.send(outbound(server.port))
        assert await upstream_answer.next_chunk() == b"x"
        task = await waiting(upstream_answer)
        upstream_answer.close()
        upstream_answer.close()
        with pytest.raises(UpstreamError, match="upstream_cut"):
            await task
        assert await server.open_count_becomes(0)
        assert transport.open_connections == 0


async def test_close_of_a_whole_answer_keeps_the_connection(transport: Transport) -> None:
    """A body that arrived in full need not be read for its connection to be used again."""
    async with RawServer(answering(answer(b"unread"))) as server:
        for _ in range(5):
            upstream_answer = await transport.send(outbound(server.port))
            upstream_answer.close()
            upstream_answer.release()
            upstream_answer.close()
        assert server.accepted == 1


async def test_release_keeps_the_connection_when_the_end_comes(transport: Transport, clock: HandClock) -> None:
    """After a stream's last event the rest may take a moment; `close` afterwards changes nothing."""
    script = Stepper(STREAM + chunk(b"data: [DONE]\n\n"), chunk(b"x" * 1000) + END)
    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port))
        await upstream_answer.next_chunk()
        upstream_answer.release()
        upstream_answer.close()
        clock.now += 0.9
        transport.sweep()
        assert (transport.open_connections, transport.idle_connections) == (1, 0)
        script.step()
        await until(lambda: bool(transport.idle_connections))
        assert upstream_answer.pieces == []


async def test_release_waits_for_a_moment_only(transport: Transport, clock: HandClock) -> None:
    """A body that does not end is cut off, and more of it does not prolong the wait."""
    script = Stepper(STREAM + chunk(b"data: [DONE]\n\n"), chunk(b"more"))
    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port))
        await upstream_answer.next_chunk()
        upstream_answer.release()
        clock.now += 0.9
        script.step()
        await asyncio.sleep(0.02)
        clock.now += 0.1
        transport.sweep()
        assert await server.open_count_becomes(0)
        with pytest.raises(UpstreamError):
            await upstream_answer.next_chunk()


async def test_release_throws_away_a_little_only(transport: Transport) -> None:
    """A body that goes on and on after its release is cut off."""
    script = Stepper(STREAM + chunk(b"data: [DONE]\n\n"), *[chunk(b"x" * 30_000)] * (2 + RELEASE_BYTES // 30_000))
    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port))
        await upstream_answer.next_chunk()
        upstream_answer.release()
        for _ in script.said:
            script.step()
        assert await server.open_count_becomes(0)
        assert transport.open_connections == 0


async def test_release_of_a_paused_answer_resumes_it(transport: Transport) -> None:
    """A reader that stops in the middle of a flood does not leave the connection hanging."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        while True:
            await peer.send(chunk(b"x" * 60_000))

    async with RawServer(script) as server:
        upstream_answer = await transport.send(outbound(server.port))
        await until(lambda: bool(upstream_answer.paused))
        upstream_answer.release()
        assert await server.open_count_becomes(0)


async def test_a_flood_that_ends_while_paused_gives_its_connection_back_readable(transport: Transport) -> None:
    """The next answer on a connection that was paused is read as any other."""
    large = answer(b"x" * 300_000)
    async with RawServer(answering(large, large, answer(b"small"))) as server:
        for _ in range(2):
            upstream_answer = await transport.send(outbound(server.port))
            await asyncio.sleep(0.02)
            assert len(await upstream_answer.read(300_000)) == 300_000
        assert await (await transport.send(outbound(server.port))).read(10) == b"small"
        assert server.accepted == 1
