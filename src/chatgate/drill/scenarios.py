"""What a scenario is: a fault, whom it strikes, and what must come of it. The `catalogue` holds them all."""

from __future__ import annotations

import enum

from msgspec import Struct

from chatgate.drill import faults
from chatgate.drill.faults import Fault


class Strikes(enum.Enum):
    """Who has the fault, once the first attempt shows where the gateway goes first."""

    NOBODY = enum.auto()
    KEY = enum.auto()
    """That key of that upstream."""
    MODEL = enum.auto()
    """That model at that upstream, under every key."""
    UPSTREAM = enum.auto()
    """The upstream that comes first in the configuration: nobody listens there at all."""
    EVERYBODY = enum.auto()


class Aim(enum.Enum):
    """What must come of it."""

    ANSWER = enum.auto()
    """The whole text, where any place is well; else an error that says so."""
    PASSED_ON = enum.auto()
    """The provider's own words, after exactly one attempt."""
    FAILURE = enum.auto()
    """An error that says so: a whole answer cannot honestly be had."""
    RELEASE = enum.auto()
    """The caller leaves, and so must the gateway."""


class Scenario(Struct, frozen=True, kw_only=True):
    """A fault and its right consequence.

    `public` is its number in Failover Bench, for streams. `does` says what the provider does. `streams` and `wholes`
    say for which calls it is played. `times` is how many attempts it strikes, None for all; `is_outage` ends it by
    time instead. `others` is what the places do that are not struck; `has_other_text` says that it is another text.
    `words` are the provider's own that must reach the caller.
    `calls` are made one after the other; the caller leaves after `leave_after_words`, 0 for before any.

    What is asked of the gateway besides its aim: `in_place`, the answer is good enough as it is; `is_refused`, no other
    attempt where it struck; `once`, no other one at a place; `is_silent`, the same, and no longer than the timeouts;
    `waits`, the wait is kept; `needs_usage`, the caller is told it; `needs_larger_window`, only a place that can take
    in more may help.
    """

    name: str
    does: str
    fault: Fault = faults.answer()
    public: str = ""
    strikes: Strikes = Strikes.MODEL
    aim: Aim = Aim.ANSWER
    streams: bool = True
    wholes: bool = False
    times: int | None = None
    is_outage: bool = False
    others: Fault = faults.answer()
    has_other_text: bool = False
    words: str = ""
    in_place: bool = False
    is_refused: bool = False
    once: bool = False
    is_silent: bool = False
    waits: bool = False
    needs_usage: bool = False
    needs_larger_window: bool = False
    calls: int = 1
    leave_after_words: int | None = None


class Part(Struct, frozen=True):
    """A scenario for one kind of call."""

    scenario: Scenario
    stream: bool

    @property
    def name(self) -> str:
        """Return what tells it from all others."""
        return f"{self.scenario.name}, {'stream' if self.stream else 'whole'}"

    @property
    def public(self) -> str:
        """Return its number in the public benchmark, "" when it is not part of that."""
        return self.scenario.public if self.stream else ""
