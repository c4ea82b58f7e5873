"""Whether a target is well enough to be called: one circuit for each.

Owns the judgement of a target by how its calls ended, and nothing else: it chooses no target and knows no model. The
plan of a call asks it before, and tells it after. It waits for nothing and has no timer: a cool-down is over when
somebody looks at the time.

    state              what happens                                       next
    CLOSED             5 failures in a row                                OPEN, for 5 s
    OPEN               a call begins after the cool-down: the probe       HALF_OPEN
    HALF_OPEN          a failure                                          OPEN, for twice as long, up to 12 s
    OPEN, HALF_OPEN    a success                                          CLOSED

Theory. How a call ended says something about the present state only when the call began in it. When a target falls
silent, a hundred calls fail one by one for a minute: they must not lengthen a cool-down that the first five have begun,
nor condemn the probe. And a long stream that ends well may come from a machine that takes no new calls. So calls are
numbered as they begin, and a call from before the last change of state counts for nothing. While all goes well nobody
has to tell calls apart: they share a number.

A call may begin although `allows` says no: the last target of a model is always tried. Such a call is no probe, yet its
success closes the circuit as well.

"Too many calls" (429) is no failure: the target is well and wants to be left alone. It is counted apart, so that the
state tells who is ill.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

FAILURES_TO_OPEN: Final = 5
"""How many failures in a row open a circuit: as in Envoy's outlier detection, `consecutive_5xx`. One or two happen to a
healthy target under load; more would let more callers wait for a dead one."""

COOLDOWN_SECONDS: Final = 5.0
"""The first cool-down: about what a provider's process needs to start anew."""

MAX_COOLDOWN_SECONDS: Final = 12.0
"""Where doubling ends, before the jitter. Envoy's 300 s keep a target out for minutes after it is well again; one call
in twelve seconds costs a dead target nothing, and an outage of a minute is over for callers within the next quarter."""

JITTER: Final = 0.1
"""How far a cool-down strays from its length, as a share of it, so that several gateways do not probe in step."""

PROBE_SECONDS: Final = 60.0
"""How long a probe without a verdict keeps others out: the usual timeout of a first token. Whoever forgets to report
must not lock a target for ever."""

PACE_SECONDS: Final = 1.0
"""How long a target is left alone after "too many calls" without a time named; it doubles with each further one."""

MAX_PACE_SECONDS: Final = 60.0
"""Where that doubling ends: the window of most providers' limits is a minute."""

MAX_NAMED_SECONDS: Final = 300.0
"""The longest wait a target can ask for. A day's quota may be raised long before the day is over; one call in five
minutes finds out."""


LATEST: Final = 1 << 63
"""The number of a call when nobody kept it: it counts as one that began in the present state."""


class CircuitState(enum.StrEnum):
    """Whether calls go to a target; the value is what logs and metrics show."""

    CLOSED = "closed"
    """They do."""
    OPEN = "open"
    """They do not, or not before the first one after the cool-down."""
    HALF_OPEN = "half_open"
    """One at a time does, to see how it ends."""


# Looking a member up by its class takes Python 3.11 0.1 µs, several times per call.
CLOSED, OPEN, HALF_OPEN = CircuitState


class Circuit:
    """How one target is doing.

    What has no underscore is read by others and changed only here. `retry_at` is the moment from which a call may go
    there, 0 when nothing stands against it; moments are monotonic seconds. While it `is_calm` there is no failure to
    forget: calls may begin with the number `begun`, and a success need not be told.
    """

    __slots__ = (
        "_cooldown_seconds",
        "_failures",
        "_on_change",
        "_pace_seconds",
        "_paced_after",
        "_paced_until",
        "_probe",
        "_random",
        "_shut_until",
        "_stale",
        "begun",
        "is_calm",
        "retry_at",
        "state",
    )

    def __init__(
        self,
        random: Callable[[], float],
        on_change: Callable[[CircuitState, CircuitState], None] | None = None,
    ) -> None:
        """Start closed. `random` returns a number of [0, 1); `on_change` is told the old state and the new one."""
        self.state = CLOSED
        self.retry_at = 0.0
        self.is_calm = True
        self._random = random
        self._on_change = on_change
        self.begun = 1  # the number of the last call that began
        self._stale = 0  # calls up to this number began before the last change of state
        self._probe = 0  # the number of the call that is to show how the target is, 0 for none
        self._failures = 0
        self._cooldown_seconds = COOLDOWN_SECONDS  # of the next opening
        self._shut_until = 0.0  # the end of the cool-down, or of the probe's time
        self._pace_seconds = 0.0  # the wait after the last "too many calls", 0 when there was none since a success
        self._paced_after = 0  # calls up to this number began before that
        self._paced_until = 0.0

    def allows(self, now: float) -> bool:
        """Tell whether a call may go there. Once a cool-down is over, the next one to begin is the probe."""
        return now >= self.retry_at

    def is_probe(self, number: int) -> bool:
        """Tell whether this is the call that is to show how the target is."""
        return number == self._probe

    def begin(self, now: float) -> int:
        """Let a call go there, and return its number, to be given when its end is told.

        When the cool-down is over this call is the probe, and nobody else is let in until it ends, or has been silent
        for too long.
        """
        if self.is_calm:
            return self.begun
        number = self.begun + 1
        if self.state is not CLOSED and now >= self._shut_until:
            if self.state is OPEN:
                self._enter(HALF_OPEN, now + PROBE_SECONDS)
            else:
                self._shut(now + PROBE_SECONDS)
            self._probe = number
        self.begun = number
        return number

    def succeeded(self, number: int = LATEST) -> None:
        """Take note that a call was answered: close, and forget failures, doubled cool-downs and "too many calls"."""
        if self._pace_seconds and number > self._paced_after:
            self._pace_seconds = 0.0
            self._paced_after = 0
            self._pace(0.0)
        if number <= self._stale:
            return
        self._failures = 0
        if self.state is not CLOSED:
            self._cooldown_seconds = COOLDOWN_SECONDS
            self._enter(CLOSED, 0.0)
        if not self._pace_seconds:
            self.is_calm = True
            self.begun += 1  # Those that begin from now on are none of the old ones.

    def failed(self, now: float, number: int = LATEST) -> None:
        """Take note that a call failed by the target's fault: open, when it was one too many or the probe."""
        if number <= self._stale or self.state is OPEN:
            return
        self.is_calm = False
        self._failures += 1
        if self._failures < FAILURES_TO_OPEN and self.state is CLOSED:
            return
        seconds = self._cooldown_seconds * (1 - JITTER + 2 * JITTER * self._random())
        self._cooldown_seconds = min(2 * self._cooldown_seconds, MAX_COOLDOWN_SECONDS)
        self._enter(OPEN, now + seconds)

    def abandoned(self, now: float, number: int = LATEST) -> None:  # noqa: ARG002 - all ends are told alike
        """Take note that a call ended without a verdict, as when its caller left: if it was the probe, let another in.

        After a verdict it changes nothing.
        """
        if self._probe and number in (self._probe, LATEST):
            self._probe = 0
            self._shut(0.0)

    def cooled(self, now: float, seconds: float | None, number: int = LATEST) -> None:
        """Take note that a call was one too many (429): leave the target alone for `seconds`, None when it named none.

        Calls that were under way together and hear the same count as one, or a busy moment would cost a minute. It is
        no verdict about the probe.
        """
        self.is_calm = False
        if number > self._paced_after:
            self._pace_seconds = min(2 * self._pace_seconds, MAX_PACE_SECONDS) or PACE_SECONDS
            self._paced_after = self.begun
        wait_seconds = self._pace_seconds if seconds is None else min(seconds, MAX_NAMED_SECONDS)
        self._pace(max(self._paced_until, now + wait_seconds))
        self.abandoned(now, number)

    def _pace(self, until: float) -> None:
        self._paced_until = until
        self.retry_at = max(self._shut_until, until)

    def _shut(self, until: float) -> None:
        self._shut_until = until
        self.retry_at = max(self._paced_until, until)

    def _enter(self, state: CircuitState, shut_until: float) -> None:
        before, self.state = self.state, state
        self._stale = self.begun
        self._probe = 0
        self._shut(shut_until)
        if self._on_change is not None:
            self._on_change(before, state)
