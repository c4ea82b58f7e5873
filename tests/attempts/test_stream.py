"""A stream on its way: when its head leaves, what keeps the connection open meanwhile, and what is open at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from attempts.rig import FULL_HEAD, HEAD, Rig
from chatgate.attempts.stream import KEEP_ALIVE_SECONDS
from chatgate.vocabulary.errors import GateError
from chatgate.vocabulary.upstreams import Timeouts
from fakes import scripts
from fakes.raw_server import until
from fakes.upstream import FakeUpstream, Tap

EVENTS = scripts.text_events("one two three")
COMMENT = b": keep-alive\n\n"
PATIENT = Timeouts(first_token_seconds=500.0, idle_seconds=500.0)


@pytest.fixture
def rig(make_rig: Callable[..., Rig], first: FakeUpstream, second: FakeUpstream) -> Rig:
    """Return two patient targets."""
    return make_rig(first, second, timeouts=PATIENT)


async def test_the_head_waits_for_the_first_word(rig: Rig, first: FakeUpstream) -> None:
    """The role is no word; then all of it leaves, with the head that says who answers."""
    tap = Tap(1)
    first.queue(scripts.stream(EVENTS, tap=tap))
    stream = rig.stream()
    task = asyncio.create_task(rig.carry(stream))
    await first.called()
    await asyncio.sleep(0.05)  # What should not happen tells nobody that it did not.
    assert (rig.port.heads, stream.is_started, stream.first_token_at) == ([], False, None)
    rig.clock.now += 3
    tap.let()
    await until(lambda: bool(rig.port.sent))
    assert rig.port.heads == [FULL_HEAD]
    assert b"".join(rig.port.sent) == b"".join(EVENTS[:2])
    assert stream.first_token_at == rig.clock.now
    tap.let(10)
    await task
    assert b"".join(rig.port.sent) == b"".join([*EVENTS, scripts.DONE])
    assert rig.port.is_finished


async def test_a_caller_who_waits_for_the_first_word_gets_comments(rig: Rig, first: FakeUpstream) -> None:
    """After 15 s the head leaves without a name, then a comment every 15 s, then the words."""
    tap = Tap()
    first.queue(scripts.stream(EVENTS, tap=tap))
    stream = rig.stream()
    task = asyncio.create_task(rig.carry(stream))
    await first.called()
    began_at = rig.clock.now
    stream.tick(began_at + KEEP_ALIVE_SECONDS - 0.1)
    assert not stream.is_started
    stream.tick(began_at + KEEP_ALIVE_SECONDS)
    assert (rig.port.heads, rig.port.sent) == ([HEAD], [COMMENT])
    stream.tick(began_at + 2 * KEEP_ALIVE_SECONDS - 0.1)
    assert rig.port.sent == [COMMENT]
    stream.tick(began_at + 2 * KEEP_ALIVE_SECONDS)
    assert rig.port.sent == [COMMENT, COMMENT]
    tap.let(10)
    await task
    assert b"".join(rig.port.sent) == COMMENT * 2 + b"".join([*EVENTS, scripts.DONE])


async def test_comments_fill_silences_between_words(rig: Rig, first: FakeUpstream) -> None:
    """A silence is counted from the last words, as the sweep sees them, and not sent into a congested connection."""
    tap = Tap(2)
    first.queue(scripts.stream(EVENTS, tap=tap))
    stream = rig.stream()
    task = asyncio.create_task(rig.carry(stream))
    await until(lambda: bool(rig.port.sent))
    said = list(rig.port.sent)
    now = rig.clock.now + 100
    stream.tick(now)
    stream.tick(now + KEEP_ALIVE_SECONDS - 0.1)
    assert rig.port.sent == said
    rig.port.is_congested = True
    stream.tick(now + KEEP_ALIVE_SECONDS)
    assert rig.port.sent == said
    rig.port.is_congested = False
    stream.tick(now + KEEP_ALIVE_SECONDS + 0.1)
    assert rig.port.sent == [*said, COMMENT]
    tap.let()
    await until(lambda: len(rig.port.sent) == len(said) + 2)
    stream.tick(now + 2 * KEEP_ALIVE_SECONDS + 0.2)
    assert len(rig.port.sent) == len(said) + 2
    tap.let(10)
    await task


async def test_a_failure_after_comments_is_raised_with_the_head_gone(
    rig: Rig, first: FakeUpstream, second: FakeUpstream
) -> None:
    """Whoever carries the stream can tell that only an event is left to tell the caller by."""
    tap = Tap()
    first.queue(*[scripts.beginning(EVENTS[:1], tap, scripts.raw(b"", then="close"))] * 3)
    second.queue(*[scripts.whole(scripts.error_body("boom"), 500)] * 3)
    stream = rig.stream()
    task = asyncio.create_task(rig.carry(stream))
    await first.called()
    stream.tick(rig.clock.now + KEEP_ALIVE_SECONDS)
    tap.let(10)
    with pytest.raises(GateError):
        await task
    assert stream.is_started
    assert rig.port.sent == [COMMENT]
    assert not rig.port.is_finished


async def test_a_slow_reader_slows_the_upstream(rig: Rig, first: FakeUpstream) -> None:
    """Once it shows that the caller reads too slowly nothing more is sent, and everything when they read again."""
    tap = Tap(2)
    first.queue(scripts.stream(EVENTS, tap=tap))
    reads = asyncio.Event()

    rig.port.reads = reads
    task = asyncio.create_task(rig.carry())
    await until(lambda: bool(rig.port.sent))
    rig.port.is_congested = True
    tap.let()
    await until(lambda: b"two" in b"".join(rig.port.sent))
    tap.let(10)
    await first.last_call()
    await asyncio.sleep(0.02)  # What should not happen tells nobody that it did not.
    assert b"three" not in b"".join(rig.port.sent)
    reads.set()
    await task
    assert b"".join(rig.port.sent) == b"".join([*EVENTS, scripts.DONE])


@pytest.mark.parametrize("when", ["silent", "role", "words", "rescue", "resuming"])
async def test_whoever_cancels_a_stream_closes_it(
    rig: Rig, first: FakeUpstream, second: FakeUpstream, when: str
) -> None:
    """Wherever it was, nothing is under way afterwards, and both upstreams see the end."""
    tap = Tap()
    broken = scripts.beginning(EVENTS[:3], tap, scripts.raw(b"", then="close"))
    beginnings = {
        "silent": scripts.silent(),
        "role": scripts.stream(EVENTS[:1], end=b"", close=False, then="hang"),
        "words": scripts.stream(EVENTS[:2], end=b"", close=False, then="hang"),
    }
    first.queue(beginnings.get(when, broken))
    ends = {"rescue": scripts.silent(), "resuming": scripts.stream(EVENTS[:2], end=b"", close=False, then="hang")}
    second.queue(ends.get(when, scripts.silent()))
    stream = rig.stream()
    task = asyncio.create_task(rig.carry(stream))
    await first.called()
    if when in {"rescue", "resuming"}:
        await until(lambda: bool(rig.port.sent))
        tap.let()
        await second.called()
    await asyncio.sleep(0.02)  # It gets to where it waits; nothing tells that it has.
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stream.close()
    stream.close()
    for fake in (first, second):
        for call in fake.calls:
            await asyncio.wait_for(call.over.wait(), 2)
    assert rig.in_flight == [0, 0]
    assert rig.transport.open_connections == 0
    assert [candidate.upstream.in_flight for candidate in rig.candidates] == [0, 0]


async def test_the_connection_is_kept_after_a_whole_stream(rig: Rig, first: FakeUpstream) -> None:
    """The end of the body may come a moment after the end mark."""
    for _ in range(3):
        rig.port = type(rig.port)()
        await rig.carry()
        await until(lambda: rig.transport.idle_connections == 1)
    assert len(first.connections) == 1
    assert rig.transport.calls_in_flight == 0


WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "usual": lambda event: event,
    "in several lines": lambda event: event.replace(b', "choices"', b',\ndata: "choices"'),
    "with an id after it": lambda event: event[:-1] + b"id: 7\n\n",
    "with an id before it": lambda event: b"id: 7\n" + event,
    "in CRLF": lambda event: event.replace(b"\n", b"\r\n"),
    "with a comment in it": lambda event: event[:-1] + b": thinking\n\n",
}


@pytest.mark.parametrize("how", WRITTEN)
async def test_an_event_that_comes_alone_is_read_as_any_other(rig: Rig, first: FakeUpstream, how: str) -> None:
    """Each one passes as it came, whatever its lines are, at the moment it comes."""
    events = [WRITTEN[how](event) for event in EVENTS]
    tap = Tap(2)
    first.queue(scripts.stream(events, tap=tap))
    task = asyncio.create_task(rig.carry())
    await until(lambda: b"".join(rig.port.sent) == b"".join(events[:2]))
    for number in range(3, len(events) + 1):
        tap.let()
        await until(lambda: b"".join(rig.port.sent) == b"".join(events[:number]))  # noqa: B023 - it is awaited here
    tap.let()
    await task
    assert b"".join(rig.port.sent) == b"".join([*events, scripts.DONE])
    assert len(first.calls) == 1
