"""The tries of a call: the waits between them, second calls beside slow ones, and where conversations go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from attempts.rig import Rig
from chatgate.attempts.stages import Admitted
from chatgate.protocols.openai_dialect import OpenAIDialect
from chatgate.routing.hedging import MIN_SAMPLES
from chatgate.routing.plan import Plan
from chatgate.vocabulary.errors import GateError
from fakes import scripts
from fakes.scripts import Script
from fakes.upstream import Exchange, FakeUpstream, Tap

BOOM = scripts.whole(scripts.error_body("boom"), 500)


async def test_it_waits_as_the_plan_says(make_rig: Callable[..., Rig], first: FakeUpstream) -> None:
    """Longer with each repetition, and as long as the target asks for."""
    rig = make_rig(first, max_retries=3)
    busy = scripts.whole(scripts.error_body("busy"), 503, [("Retry-After", "7")])
    first.queue(BOOM, BOOM, busy)
    attempt = await rig.calling.whole(*_call(rig))
    assert rig.slept == pytest.approx([0.1, 0.2, 7.0])
    assert b'"Hi"' in attempt.body


async def test_the_time_of_a_call_is_that_of_all_its_tries(make_rig: Callable[..., Rig], first: FakeUpstream) -> None:
    """What the first one took is not there for the second: here the wait uses up nearly all."""
    rig = make_rig(first)
    first.queue(scripts.whole(scripts.error_body("busy"), 503, [("Retry-After", "999")]), scripts.silent())
    task = asyncio.create_task(rig.calling.whole(*_call(rig)))
    await first.called(2)
    assert rig.slept == [999.0]
    rig.clock.now += 1.1
    rig.transport.sweep()
    with pytest.raises(GateError, match="upstream_too_slow"):
        await task


def _call(rig: Rig, *, stream: bool = False) -> tuple[Admitted, OpenAIDialect, Plan]:
    """Return what `whole` and `stream` take."""
    admitted, plan = rig.plan(stream=stream)
    return admitted, rig.dialect, plan


@pytest.fixture
async def hedged(make_rig: Callable[..., Rig], first: FakeUpstream, second: FakeUpstream) -> AsyncIterator[Rig]:
    """Return two targets that are known to answer at once, of which the second may be called beside the first."""
    rig = make_rig(first, second, hedging_share=1.0, max_retries=0)
    for stream in (False, True):
        for _ in range(MIN_SAMPLES):
            attempt = await (rig.calling.stream if stream else rig.calling.whole)(*_call(rig, stream=stream))
            attempt.close()
    for fake in (first, second):
        fake.forget()
    yield rig
    for fake in (first, second):
        for call in fake.calls:
            await asyncio.wait_for(call.over.wait(), 2)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_quicker_of_two_answers(
    hedged: Rig, first: FakeUpstream, second: FakeUpstream, *, stream: bool
) -> None:
    """The other one is ended, and the plan knows who answered."""
    first.queue(scripts.silent())
    admitted, dialect, plan = _call(hedged, stream=stream)
    attempt = await (hedged.calling.stream if stream else hedged.calling.whole)(admitted, dialect, plan)
    assert plan.candidate is attempt.candidate is hedged.candidates[1]
    assert plan.attempts == 2
    assert (await first.last_call()).ended == "gateway_left"
    attempt.close()
    assert len(second.calls) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_may_still_win(hedged: Rig, first: FakeUpstream, second: FakeUpstream, *, stream: bool) -> None:
    """A second call that is slower still is ended, and the first one is who answered."""
    tap = Tap()
    first.queue(_after(tap, scripts.provider))
    second.queue(scripts.silent())
    admitted, dialect, plan = _call(hedged, stream=stream)
    task = asyncio.ensure_future((hedged.calling.stream if stream else hedged.calling.whole)(admitted, dialect, plan))
    await second.called()
    tap.let()
    attempt = await task
    assert plan.candidate is attempt.candidate is hedged.candidates[0]
    assert (await second.last_call()).ended == "gateway_left"
    attempt.close()


@pytest.mark.parametrize("failing", [0, 1])
async def test_a_failure_beside_another_try_is_no_failure_of_the_call(
    hedged: Rig, first: FakeUpstream, second: FakeUpstream, failing: int
) -> None:
    """Whichever fails, the other one's answer is waited for."""
    taps = [Tap(), Tap()]
    for number, fake in enumerate((first, second)):
        fake.queue(_after(taps[number], BOOM if number == failing else scripts.provider))
    admitted, dialect, plan = _call(hedged)
    task = asyncio.ensure_future(hedged.calling.whole(admitted, dialect, plan))
    await second.called()
    taps[failing].let()
    await ((first, second)[failing]).last_call()
    assert not task.done()
    taps[1 - failing].let()
    assert (await task).candidate is plan.candidate is hedged.candidates[1 - failing]


async def test_when_both_fail_the_call_has_failed(hedged: Rig, first: FakeUpstream, second: FakeUpstream) -> None:
    """Neither is tried again without retries."""
    tap = Tap()
    first.queue(_after(tap, BOOM))
    second.queue(_after(tap, BOOM))
    task = asyncio.ensure_future(hedged.calling.whole(*_call(hedged)))
    await second.called()
    tap.let(2)
    with pytest.raises(GateError):
        await task
    assert (len(first.calls), len(second.calls)) == (1, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_whoever_cancels_ends_both(
    hedged: Rig, first: FakeUpstream, second: FakeUpstream, *, stream: bool
) -> None:
    """Nothing is under way when the caller has left."""
    for fake in (first, second):
        fake.queue(scripts.silent())
    task = asyncio.ensure_future(
        (hedged.calling.stream if stream else hedged.calling.whole)(*_call(hedged, stream=stream))
    )
    await second.called()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for fake in (first, second):
        assert (await fake.last_call()).ended == "gateway_left"


def _after(tap: Tap, script: Script) -> Script:
    async def waiting(exchange: Exchange) -> None:
        await tap.passed()
        await script(exchange)

    return waiting


KEYS = [f"sk-test-talk-{number}" for number in range(4)]


def turns(*texts: str, system: str = "") -> list[dict[str, str]]:
    """Return messages in which the user and the assistant take turns."""
    leading = [{"role": "system", "content": system}] if system else []
    return leading + [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


async def test_conversations_are_known_by_how_they_began(make_rig: Callable[..., Rig], first: FakeUpstream) -> None:
    """By the system text and the first question; a question without an answer in it begins a new one."""
    rig = make_rig(first, keys=KEYS)

    def goes_to(messages: list[dict[str, str]]) -> str:
        return rig.calling.plan(rig.admitted(stream=False, messages=messages)).candidate.target.name

    begun = [goes_to(turns("Hi", system=f"You are {number}.")) for number in range(4)]
    assert sorted(begun) == [f"a/a-model#{number}" for number in range(1, 5)]
    for _ in range(3):
        for number in (2, 0, 3, 1):
            assert goes_to(turns("Hi", "Hello", "And?", system=f"You are {number}.")) == begun[number]
    again = [goes_to(turns("Hi", system="You are 0.")) for _ in range(4)]
    assert len(set(again)) == 4


async def test_a_conversation_is_remembered_where_it_was_answered(
    make_rig: Callable[..., Rig], first: FakeUpstream
) -> None:
    """The key that has its beginning is the one that said the last word, not the one that failed to."""
    rig = make_rig(first, keys=KEYS)
    first.queue(BOOM)
    admitted = rig.admitted(stream=False, messages=turns("Hi"))
    attempt = await rig.calling.whole(admitted, rig.dialect, plan := rig.calling.plan(admitted))
    assert (attempt.candidate, plan.attempts) == (rig.candidates[1], 2)
    assert rig.candidates[0].is_usable(rig.clock.now)
    for _ in range(3):
        following = rig.admitted(stream=False, messages=turns("Hi", "Hello", "And?"))
        assert rig.calling.plan(following).candidate is attempt.candidate
