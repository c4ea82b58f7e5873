"""One try: which key is shown, what the target is told of its end, and that nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from attempts.rig import Rig
from chatgate.attempts.attempt import Attempt, lacks_key, secret_for
from chatgate.routing.circuit import COOLDOWN_SECONDS, FAILURES_TO_OPEN, CircuitState
from chatgate.vocabulary.errors import GateError
from chatgate.vocabulary.identity import NO_KEY, Key, KeyKind
from chatgate.vocabulary.upstreams import Origin, Target, Upstream
from fakes import scripts
from fakes.scripts import Script
from fakes.upstream import FakeUpstream

OURS, THEIRS = "sk-test-ours-0001", "sk-test-theirs-0001"
KINDS = ["whole", "stream", "again"]


@pytest.fixture
def rig(make_rig: Callable[..., Rig], first: FakeUpstream, second: FakeUpstream) -> Rig:
    """Return two targets with a key."""
    return make_rig(first, second, keys=[OURS])


def try_once(rig: Rig, kind: str, key: Key = NO_KEY, at: int = 0) -> Awaitable[Attempt]:
    """Return a try of one of the three kinds."""
    admitted = rig.admitted(stream=kind != "whole", key=key)
    candidate = rig.candidates[at]
    if kind == "whole":
        return rig.trying.whole(admitted, rig.dialect, 1, candidate, None)
    if kind == "stream":
        return rig.trying.stream(admitted, rig.dialect, 1, candidate, None, can_wait=True)
    return rig.trying.again(admitted, 1, candidate, None)


def upstream(*keys: str, is_default: bool = False, key_needed: bool = False) -> Upstream:
    """Return an account."""
    origin = Origin("https", "a.invalid", 443)
    return Upstream("a", "openai", origin, "/v1", keys, is_default=is_default, key_needed=key_needed)


@pytest.mark.parametrize(
    ("key", "is_default", "shown"),
    [
        (NO_KEY, True, OURS),
        (Key(KeyKind.PROVIDER, THEIRS), True, THEIRS),
        (Key(KeyKind.PROVIDER, THEIRS), False, OURS),
        (Key(KeyKind.GATEWAY, "sk-cg-test"), True, OURS),
    ],
)
async def test_a_callers_own_key_goes_to_the_default_upstream_only(
    rig: Rig, key: Key, shown: str, *, is_default: bool
) -> None:
    """Everywhere else the operator's is shown, and a key of the gateway's is shown to nobody."""
    decoded = rig.admitted(stream=False, key=key).decoded
    assert secret_for(Target(upstream(OURS, is_default=is_default), "m", OURS), decoded) == shown


async def test_a_target_may_lack_a_key(rig: Rig) -> None:
    """It does when it wants one and neither side has it."""
    without, own = (
        rig.admitted(stream=False).decoded,
        rig.admitted(stream=False, key=Key(KeyKind.PROVIDER, THEIRS)).decoded,
    )
    wanting = Target(upstream(is_default=True, key_needed=True), "m")
    assert lacks_key(wanting, without)
    assert not lacks_key(wanting, own)
    assert not lacks_key(Target(upstream(OURS, key_needed=True), "m", OURS), without)
    assert not lacks_key(Target(upstream(), "m"), without)
    assert lacks_key(Target(upstream(key_needed=True), "m"), own)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_try_is_under_way_until_it_is_closed(rig: Rig, kind: str) -> None:
    """A whole answer is over when it is there; a stream when its reader closes it, once."""
    attempt = await try_once(rig, kind)
    assert rig.in_flight == [0 if kind == "whole" else 1, 0]
    for _ in range(2):
        attempt.close()
        assert rig.in_flight == [0, 0]
    assert rig.candidates[0].upstream.in_flight == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "script",
    [
        scripts.whole(scripts.error_body("boom"), 500),
        scripts.raw(b"", then="close"),
        scripts.whole(b"<html>", 200, [("Content-Type", "text/html")]),
    ],
    ids=["500", "closes", "HTML"],
)
async def test_a_failure_counts_against_the_target(rig: Rig, first: FakeUpstream, kind: str, script: Script) -> None:
    """After five in a row its circuit is open, and a success closes it."""
    first.queue(*[script] * FAILURES_TO_OPEN)
    circuit = rig.candidates[0].circuit
    states = [circuit.state]
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises(GateError):
            await try_once(rig, kind)
        states.append(circuit.state)
    rig.clock.now += 2 * COOLDOWN_SECONDS
    attempt = await try_once(rig, kind)
    states.append(circuit.state)
    attempt.close()
    # A stream that is to go on with another one has succeeded once it has caught up: that is told by who carries it.
    last = CircuitState.HALF_OPEN if kind == "again" else CircuitState.CLOSED
    assert states == [CircuitState.CLOSED] * FAILURES_TO_OPEN + [CircuitState.OPEN, last]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_of_what_was_asked_is_the_answer_of_a_target_that_is_well(
    rig: Rig, first: FakeUpstream, kind: str
) -> None:
    """It does not count against it, and breaks the row of failures."""
    boom, refusal = scripts.whole(scripts.error_body("boom"), 500), scripts.whole(scripts.error_body("no"), 400)
    first.queue(*[*[boom] * (FAILURES_TO_OPEN - 1), refusal] * 2)
    for _ in range(2 * FAILURES_TO_OPEN):
        with pytest.raises(GateError):
            await try_once(rig, kind)
    assert rig.candidates[0].circuit.state is CircuitState.CLOSED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancelled_probe_lets_another_in(rig: Rig, first: FakeUpstream, kind: str) -> None:
    """A caller who leaves says nothing about the target, and closes what was open."""
    circuit = rig.candidates[0].circuit
    for _ in range(FAILURES_TO_OPEN):
        circuit.failed(rig.clock.now)
    rig.clock.now += 2 * COOLDOWN_SECONDS
    first.queue(scripts.silent())
    task = asyncio.ensure_future(try_once(rig, kind))
    await first.called()
    assert not circuit.allows(rig.clock.now)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert circuit.state is CircuitState.HALF_OPEN
    assert circuit.allows(rig.clock.now)
    assert (await first.last_call()).ended == "gateway_left"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [400, 429, 500])
async def test_no_key_is_in_what_a_provider_says(rig: Rig, first: FakeUpstream, kind: str, status: int) -> None:
    """Neither ours nor the caller's, wherever it stands."""
    text = f"bad keys {OURS} and {THEIRS}"
    first.queue(scripts.whole({"error": {"message": text, "code": text, "param": text}}, status))
    with pytest.raises(GateError) as raised:
        await try_once(rig, kind, Key(KeyKind.PROVIDER, THEIRS))
    error = raised.value
    said = f"{error.provider_message} {error.provider_code} {error.param} {error.parameters} {error}"
    assert "bad keys" in said
    assert OURS not in said
    assert THEIRS not in said


async def test_no_key_is_in_an_error_inside_of_a_stream(rig: Rig, first: FakeUpstream) -> None:
    """The same holds for an event."""
    first.queue(scripts.stream([scripts.event(scripts.error_body(f"bad key {OURS}"))]))
    with pytest.raises(GateError) as raised:
        await try_once(rig, "stream")
    assert "bad key" in (raised.value.provider_message or "")
    assert OURS not in (raised.value.provider_message or "")
