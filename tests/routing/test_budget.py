"""The retry budget: never over its law in any window, never stingier than the law, in bounded memory."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.routing.budget import RetryBudget

STEPS = st.lists(
    st.tuples(st.sampled_from("crrr"), st.integers(1, 12), st.sampled_from([0, 0, 0, 1, 7, 50, 319, 320, 321])),
    max_size=60,
)
"""Rows of calls or of wishes to retry, each followed by a pause in 32nds of a second, which floats hold exactly."""


def trace(steps: list[tuple[str, int, int]]) -> list[tuple[str, int]]:
    """Return what came of it: each `call`, `retry` or `refusal` with its time in 32nds of a second."""
    budget = RetryBudget()
    now, log = 32_000, list[tuple[str, int]]()
    for what, count, pause in steps:
        for _ in range(count):
            if what == "c":
                budget.note_call()
                log.append(("call", now))
            else:
                log.append(("retry" if budget.try_take(now / 32) else "refusal", now))
        now += pause
    return log


@given(STEPS)
@example([("c", 12, 0)] * 20 + [("r", 12, 319)] * 5)
def test_no_window_is_over_the_law(steps: list[tuple[str, int, int]]) -> None:
    """Wherever ten seconds begin, the retries in them are at most a fifth of the calls in them, and ten."""
    log = trace(steps)
    for start in {time + shift for _, time in log for shift in (-320, -319, -1, 0, 1)}:
        window = [what for what, time in log if start <= time < start + 320]
        assert 5 * window.count("retry") <= window.count("call") + 50


@given(STEPS)
@example([("r", 10, 0), ("c", 5, 0), ("r", 2, 0)])
@example([("c", 5, 0), ("r", 12, 0)])
@example([("r", 10, 320), ("r", 11, 0)])
def test_it_refuses_only_what_the_law_forbids(steps: list[tuple[str, int, int]]) -> None:
    """A retry is refused if and only if one more would put a window over the law when no further call came."""
    log = trace(steps)
    for index, (what, now) in enumerate(log):
        if what == "call":
            continue
        row = [event for event, time in log[:index] if time > now - 320]
        suffixes = [row[start:] for start in range(len(row) + 1)]
        is_over = any(5 * (late.count("retry") + 1) > late.count("call") + 50 for late in suffixes)
        assert (what == "refusal") is is_over


def test_an_upstream_that_is_down_sees_at_most_a_quarter_more() -> None:
    """200 calls a second for 10 s, all failing, each to be retried twice: a fifth more and ten, and not much less."""
    budget = RetryBudget()
    extra = 0
    for call in range(2000):
        budget.note_call()
        extra += budget.try_take(call / 200 + 0.001) + budget.try_take(call / 200 + 0.002)
    assert 400 <= extra <= 410


def test_a_quiet_gateway_may_retry() -> None:
    """Ten at once without any call before, and ten again when those are ten seconds old."""
    budget = RetryBudget()
    assert [budget.try_take(100.0) for _ in range(11)] == [True] * 10 + [False]
    assert not budget.try_take(109.999)
    assert [budget.try_take(110.0) for _ in range(11)] == [True] * 10 + [False]


def test_calm_does_not_pay_for_a_storm() -> None:
    """A million calls without a retry leave no more than a quiet gateway has."""
    budget = RetryBudget()
    for _ in range(1_000_000):
        budget.note_call()
    assert sum(budget.try_take(5.0) for _ in range(1000)) == 10


def test_its_memory_is_bounded() -> None:
    """However long a storm lasts, it remembers fifty numbers at most."""
    budget = RetryBudget()
    for moment in range(10_000):
        budget.try_take(moment / 50)
        budget.note_call()
        assert len(budget.owed) <= 50
