"""Waits before the same target is tried again: spread, bounded, and no longer than they are worth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.routing.backoff import FAILOVER_COST_SECONDS, delay_seconds, honoured_wait

SECONDS = st.floats(0, 4000)


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 0.2), (2, 0.4), (3, 0.8), (4, 1.6), (5, 2.0), (10, 2.0)])
def test_the_ceiling_doubles_to_two_seconds(attempt: int, ceiling: float) -> None:
    """The wait is the drawn part of the ceiling."""
    assert delay_seconds(attempt, lambda: 0.999999) == pytest.approx(ceiling, rel=1e-5)
    assert delay_seconds(attempt, lambda: 0.5) == pytest.approx(ceiling / 2)


@given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_no_wait_is_nothing_nor_more_than_two_seconds(attempt: int, drawn: float) -> None:
    """Whatever is drawn, and however often it was tried."""
    assert 0.02 <= delay_seconds(attempt, lambda: drawn) <= 2.0


@given(SECONDS, SECONDS)
def test_a_wait_that_ends_in_time_is_honoured_where_nothing_else_is_left(named: float, left: float) -> None:
    """It is honoured exactly when it is shorter than what is left of the deadline."""
    assert honoured_wait(named, left, can_fail_over=False) == (named if named < left else None)


@given(SECONDS, SECONDS)
def test_a_wait_longer_than_failing_over_is_not_honoured(named: float, left: float) -> None:
    """With another target at hand it must be short as well."""
    assert honoured_wait(named, left, can_fail_over=True) == (
        named if named < left and named <= FAILOVER_COST_SECONDS else None
    )


@pytest.mark.parametrize("can_fail_over", [False, True])
def test_a_moment_in_the_past_is_now(can_fail_over: bool) -> None:  # noqa: FBT001 - pytest passes parameters by name
    """A clock that differs from ours gives no negative wait."""
    assert honoured_wait(-3.0, 10.0, can_fail_over=can_fail_over) == 0.0


@pytest.mark.parametrize("named", [math.nan, math.inf])
def test_a_time_that_is_none_is_not_honoured(named: float) -> None:
    """Nothing can wait for it."""
    assert honoured_wait(named, 1000.0, can_fail_over=False) is None
