"""Whom a scenario strikes, and when."""

from __future__ import annotations

from chatgate.drill import faults
from chatgate.drill.course import Course, Place
from chatgate.drill.provider import Attempt, Exchange
from chatgate.drill.scenarios import Scenario, Strikes
from chatgate.drill.stage import Stage
from chatgate.drill.timing import full, short
from chatgate.vocabulary.upstreams import Timeouts

PLACES = (
    Place("a", 1, "big", is_own=True),
    Place("a", 2, "big", is_own=True),
    Place("a", 1, "small", is_own=False),
    Place("b", 1, "big", is_own=False),
)


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        """Start anywhere."""
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


def stage(strikes: Strikes, *, times: int | None = None, is_outage: bool = False, clock: Clock | None = None) -> Stage:
    """Return a stage of a scenario."""
    scenario = Scenario(name="x", does="x", fault=faults.silence(), strikes=strikes, times=times, is_outage=is_outage)
    return Stage(scenario, Course("big", PLACES), full(Timeouts(), 1.0), clock or Clock())


def arrive(at: Stage, place: Place) -> bool:
    """Let an attempt arrive, and tell whether it was struck."""
    before = len(at.struck)
    script = at.conduct(
        Attempt(place.upstream, place.key_number, place.model, stream=True, usage=True, prefill=None, arrived_at=0.0)
    )
    assert callable(script)
    assert script is not Exchange.hang
    return len(at.struck) > before


def test_the_first_one_reached_is_struck() -> None:
    """Whoever comes first has the fault; who else has it depends on what is struck."""
    struck = {
        strikes: [arrive(each, PLACES[1]), *(arrive(each, place) for place in PLACES)]
        for strikes in Strikes
        for each in [stage(strikes)]
    }
    assert struck == {
        Strikes.NOBODY: [False] * 5,
        Strikes.KEY: [True, False, True, False, False],
        Strikes.MODEL: [True, True, True, False, False],
        Strikes.UPSTREAM: [True, True, True, True, False],
        Strikes.EVERYBODY: [True] * 5,
    }


def test_who_is_well_is_known() -> None:
    """The places of the course fall into those that are struck and those that are well."""
    playing = stage(Strikes.MODEL)
    arrive(playing, PLACES[0])
    assert playing.victims == [*PLACES[:2]]
    assert playing.well == [*PLACES[2:]]


def test_a_fault_can_pass() -> None:
    """After so many attempts, or after an outage, the place is well again."""
    once = stage(Strikes.MODEL, times=1)
    assert [arrive(once, PLACES[0]) for _ in range(3)] == [True, False, False]
    clock = Clock()
    outage = stage(Strikes.MODEL, is_outage=True, clock=clock)
    assert arrive(outage, PLACES[0])
    clock.now += 59.9
    assert arrive(outage, PLACES[0])
    clock.now += 0.1
    assert not arrive(outage, PLACES[0])


def test_the_pace_keeps_what_was_configured_shorter() -> None:
    """A short drill never has more patience than the configuration, and faults are always beyond it."""
    pace = short(Timeouts(5.0, 0.3, 120.0, 1800.0), 15.0)
    assert pace.timeouts == Timeouts(2.0, 0.3, 2.0, 20.0)
    assert pace.drain_seconds == 1.0
    for timeouts in (Timeouts(), Timeouts(5.0, 10.0, 10.0, 60.0)):
        pace = full(timeouts, 15.0)
        assert pace.timeouts == timeouts
        assert pace.slow_seconds >= 2 * timeouts.first_token_seconds
        assert pace.stall_seconds >= 2 * timeouts.idle_seconds
