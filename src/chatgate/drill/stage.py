"""Decides, attempt by attempt, whether a scenario strikes: the state of one scenario while it is played.

The gateway chooses freely where it goes first; whoever is reached first has the fault, so that the scenario tells
something about every configuration. Made by `run`, asked by `provider`, read by `judge`.
"""

from __future__ import annotations

from collections.abc import Callable

from chatgate.drill.course import Course, Place
from chatgate.drill.provider import Attempt, Script
from chatgate.drill.scenarios import Scenario, Strikes
from chatgate.drill.timing import Timing


class Stage:
    """One scenario on one course."""

    def __init__(self, scenario: Scenario, course: Course, timing: Timing, clock: Callable[[], float]) -> None:
        """Start now; `clock` is monotonic, in seconds."""
        self._scenario = scenario
        self._course = course
        self._clock = clock
        self._fault = scenario.fault(timing)
        self._others = scenario.others(timing)
        self._victim = course.places[0] if scenario.strikes is Strikes.UPSTREAM else None
        self.struck: list[Attempt] = []
        self.ends_at = clock() + timing.outage_seconds if scenario.is_outage else float("inf")

    def conduct(self, attempt: Attempt) -> Script:
        """Return what is done with an attempt that has just arrived."""
        place = Place(attempt.upstream, attempt.key_number, attempt.model, is_own=True)
        if self._victim is None:
            self._victim = place
        is_over = self._clock() >= self.ends_at or len(self.struck) == self._scenario.times
        if is_over or not self.is_struck(place):
            return self._others
        self.struck.append(attempt)
        return self._fault

    def is_struck(self, place: Place) -> bool:
        """Tell whether a place has the fault."""
        victim, strikes = self._victim, self._scenario.strikes
        if strikes is Strikes.EVERYBODY:
            return True
        if strikes is Strikes.NOBODY or victim is None or place.upstream != victim.upstream:
            return False
        if strikes is Strikes.KEY:
            return place.key_number == victim.key_number
        return strikes is Strikes.UPSTREAM or place.model == victim.model

    @property
    def well(self) -> list[Place]:
        """Return the places of the course that are not struck."""
        return [place for place in self._course.places if not self.is_struck(place)]

    @property
    def victims(self) -> list[Place]:
        """Return the places of the course that are struck."""
        return [place for place in self._course.places if self.is_struck(place)]
