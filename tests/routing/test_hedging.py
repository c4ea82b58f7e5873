"""Hedging: the percentile is that of the latest calls, and extra calls stay within their share."""

from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.routing.hedging import SAMPLES, WINDOW_CALLS, FirstTokenTimes, HedgeShare

STEPS = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), max_size=15)
"""Some calls, then some wishes for an extra one, again and again."""


@given(st.lists(st.floats(0, 600) | st.sampled_from([0.5, 1.0]), min_size=15, max_size=200))
@example([float(second) for second in range(300)])
@example([float(second) for second in range(300, 0, -1)])
def test_p95_is_that_of_the_latest_calls(samples: list[float]) -> None:
    """After each sample it is the least of the last 128 that at least 95 % of them do not exceed, None below 20."""
    times = FirstTokenTimes()
    for count, sample in enumerate(samples, start=1):
        times.note(sample)
        latest = sorted(samples[max(0, count - 128) : count])
        p95 = times.p95()
        if count < 20:
            assert p95 is None
        else:
            assert p95 == latest[math.ceil(len(latest) * 19 / 20) - 1]


def test_p95_forgets() -> None:
    """A provider that has become fast is not judged by its slow days."""
    times = FirstTokenTimes()
    assert times.p95() is None
    for _ in range(1000):
        times.note(9.0)
    assert times.p95() == 9.0
    for _ in range(SAMPLES):
        times.note(0.2)
    assert times.p95() == 0.2
    assert len(times._latest) == len(times._ascending) == SAMPLES


def take_all(share: HedgeShare, steps: list[tuple[int, int]]) -> tuple[list[int], list[tuple[int, bool]]]:
    """Return how many calls there had been at each extra one, and at each wish with its answer."""
    calls, extra, answers = 0, list[int](), list[tuple[int, bool]]()
    for noted, wishes in steps:
        for _ in range(noted):
            share.note_call()
        calls += noted
        for _ in range(wishes):
            answers.append((calls, share.try_take()))
            extra += [calls] * answers[-1][1]
    return extra, answers


@given(STEPS, st.sampled_from([0.0, 0.01, 0.05, 0.125, 0.3, 0.5, 1.0]))
@example([(90, 90)] * 10, 0.05)
def test_extra_calls_stay_within_their_share(steps: list[tuple[int, int]], share: float) -> None:
    """From the start on, and among any calls in a row as many as the window holds."""
    extra, answers = take_all(HedgeShare(share), steps)
    for count, calls in enumerate(extra, start=1):
        assert count <= share * calls
    for start in range(-WINDOW_CALLS, answers[-1][0] if answers else 0):
        assert sum(start < calls <= start + WINDOW_CALLS for calls in extra) <= share * WINDOW_CALLS


@given(STEPS, st.sampled_from([0.0, 0.01, 0.05, 0.125, 0.3, 0.5, 1.0]))
def test_an_extra_call_is_refused_only_beyond_the_share(steps: list[tuple[int, int]], share: float) -> None:
    """What the law allows is allowed."""
    _, answers = take_all(HedgeShare(share), steps)
    taken = list[int]()
    for calls, was_allowed in answers:
        recent = sum(call > calls - WINDOW_CALLS for call in taken)
        assert was_allowed is (recent + 1 <= share * min(calls, WINDOW_CALLS))
        taken += [calls] * was_allowed


def test_there_is_no_burst_at_the_start_nor_after_calm() -> None:
    """Nothing is allowed before the first twenty calls of a share of 5 %, and ten after any number of them."""
    share = HedgeShare(0.05)
    for _ in range(19):
        share.note_call()
    assert not share.try_take()
    share.note_call()
    assert share.try_take()
    assert not share.try_take()
    for _ in range(100_000):
        share.note_call()
    assert sum(share.try_take() for _ in range(1000)) == 10
    assert len(share._taken) == 10


def test_an_extra_call_is_forgotten_after_as_many_calls_as_the_window_holds() -> None:
    """With one in 200 allowed, the next is allowed exactly 200 calls later."""
    share = HedgeShare(0.005)
    allowed_at = []
    for calls in range(1, 1000):
        share.note_call()
        if share.try_take():
            allowed_at.append(calls)
    assert allowed_at == [200, 400, 600, 800]


def test_off_is_off() -> None:
    """With a share of 0 no call is ever sent twice."""
    share = HedgeShare(0.0)
    for _ in range(1000):
        share.note_call()
        assert not share.try_take()
