"""Decide how often a caller may call.

Owns the rules, the decision and the headers that tell of it; `callers` and `sliding_log` remember. Does no I/O, holds
no lock and awaits nothing: a decision and its record are one step, so no interleaving of calls can come between. The
composition root builds `Limits`; the pipeline asks it once per call.

Laws. In no window of a rule's length are more calls admitted than its amount. A call is taken from every rule or from
none; a refused call takes nothing. The wait that a refusal names is exact: whoever waits that long and is alone is
admitted, a nanosecond earlier is not. Memory is bounded for each caller and for all.

Rules up to `exact_up_to` calls share one exact log per caller. A rule above that has a log of its own, which becomes
coarser as it fills: it may count too many calls, fewer than `2 * amount / exact_up_to` (0.1 % of the amount), never one
too few, and a whole amount always fits into a window that was empty.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from sys import maxsize
from types import MappingProxyType

from msgspec import Struct

from chatgate.admission.callers import Callers
from chatgate.admission.sliding_log import SlidingLog

_DAY_SECONDS = 86_400.0

WINDOW_SECONDS: Mapping[str, float] = MappingProxyType(
    {
        "second": 1.0,
        "minute": 60.0,
        "hour": 3_600.0,
        "day": _DAY_SECONDS,
        "week": 7 * _DAY_SECONDS,
        "month": 30 * _DAY_SECONDS,
    }
)
"""How long the windows are that an operator can name; they slide, so a month is thirty days."""

_SECOND_NS = 1_000_000_000
_MILLISECOND_NS = 1_000_000

_MEMORY_BYTES = 256 << 20
"""What the logs of all callers may take together when each is as long as it can get."""

_ENTRY_BYTES = 320
_STAMP_BYTES = 9
"""What a caller takes besides its stamps (about 290, measured), and per stamp, with what an array keeps in reserve."""

_MAX_SHARED = 8192

_LONGEST_RETRY_MS = 60_000
"""SDKs obey a wait up to this long; told of a longer one, many try again on their own much sooner.

Source: `_calculate_retry_timeout` in the openai and anthropic Python packages (openai 3.54 obeys two minutes; read
2026-11-23).
"""


class Rule(Struct, frozen=True):
    """At most `amount` calls in any `window_seconds`; `per` is the window's name, for messages."""

    amount: int
    window_seconds: float
    per: str

    def __post_init__(self) -> None:
        """Raise ValueError for a rule that would admit nothing or hold for no time."""
        if self.amount < 1 or self.window_seconds <= 0:
            raise ValueError(f"a limit needs an amount and a window: {self.amount} per {self.window_seconds} s")


class Standing(Struct, frozen=True, gc=False):
    """Where a caller stands.

    `admitted` says whether the call was admitted, or would be. `limit`, `remaining` and `reset_seconds` are of the
    tightest rule: the one with the fewest calls left, of equals the one that takes longest to be unused again, which
    is what `reset_seconds` states. `limit` is None when there are no rules. After a refusal, `reached` names every rule
    in the way, and `retry_after_seconds` is the wait until all of them would admit a call (a multiple of a nanosecond).
    """

    admitted: bool
    limit: int | None
    remaining: int
    reset_seconds: float
    retry_after_seconds: float = 0.0
    reached: tuple[Rule, ...] = ()


UNLIMITED = Standing(admitted=True, limit=None, remaining=0, reset_seconds=0.0)

_NO_CALLS = SlidingLog.empty()


_Book = tuple[tuple[tuple[int, int, Rule], ...], Callers]
"""Rules that share a log per caller, as (amount, window in nanoseconds, rule), windows ascending; and the logs."""


class Limits:
    """Admits calls by rules, each caller for itself. False when there are no rules."""

    def __init__(
        self,
        rules: Sequence[Rule],
        clock: Callable[[], int],
        *,
        max_callers: int = 100_000,
        exact_up_to: int = 2048,
        seed: int | None = None,
    ) -> None:
        """`clock` returns nanoseconds and never goes back, as `time.monotonic_ns`.

        At most `max_callers` callers are remembered one by one, fewer when the rules need long logs. `seed` decides
        who shares a log when there are more; by default it is random.
        """
        self._clock = clock
        groups = _grouped(rules, exact_up_to)
        max_stamps = exact_up_to * 8 // 7 | 1
        longest = [min(group[-1].amount * 8 // 7 + 1, max_stamps) for group in groups]
        fitting = _MEMORY_BYTES // max(sum(_ENTRY_BYTES + _STAMP_BYTES * stamps for stamps in longest), 1)
        seed = secrets.randbits(64) if seed is None else seed
        self._books: list[_Book] = [
            (
                tuple((rule.amount, round(rule.window_seconds * _SECOND_NS), rule) for rule in group),
                Callers(
                    round(group[-1].window_seconds * _SECOND_NS),
                    max_stamps=max_stamps,
                    max_callers=min(max_callers, fitting * 3 // 4),
                    max_shared=min(_MAX_SHARED, fitting // 4),
                    seed=seed,
                ),
            )
            for group in groups
        ]

    def __bool__(self) -> bool:
        """Tell whether there is any rule."""
        return bool(self._books)

    def admit(self, who: int) -> Standing:
        """Take one call from every rule, or refuse and take none. `who` is `Caller.counted_as`."""
        if not self._books:
            return UNLIMITED
        now = self._clock()
        standing = self._judge(who, now, 1)
        if standing.admitted:
            for _, callers in self._books:
                callers.record(who, now)
        return standing

    def standing(self, who: int) -> Standing:
        """Return where the caller stands, and take nothing."""
        return self._judge(who, self._clock(), 0) if self._books else UNLIMITED

    def _judge(self, who: int, now: int, taken: int) -> Standing:
        """Return the standing at `now`, as it is after `taken` calls (0 or 1) should a call be admitted."""
        reached: tuple[Rule, ...] = ()
        least = maxsize
        wait = 0
        for rules, callers in self._books:
            log = callers.own.get(who) or callers.shared(who) or _NO_CALLS
            stamps = log.stamps
            grain = log.grain
            size = first = len(stamps)
            counted = size * grain - log.spare
            for amount, window, rule in rules:
                # The calls of a window are all in each longer one too: the search goes on where it ended.
                if first:
                    edge = now - window
                    first = 0 if stamps[0] > edge else bisect_right(stamps, edge, 0, first)
                left = amount - counted + first * grain if first < size else amount
                if left <= 0:
                    reached += (rule,)
                    # When the calls of the oldest stamp have left, there is room again.
                    wait = max(wait, stamps[first] + window - now)
                # Of equals the last counts, whose window is the longest.
                if left <= least:
                    least = left
                    tightest = rule
                    held = log
        admitted = not reached
        if taken and admitted:
            return Standing(admitted, tightest.amount, least - 1, tightest.window_seconds)
        window = round(tightest.window_seconds * _SECOND_NS)
        reset = held.stamps[-1] + window - now if held.stamps else 0
        return Standing(
            admitted, tightest.amount, max(least, 0), max(reset, 0) / _SECOND_NS, wait / _SECOND_NS, reached
        )


def _grouped(rules: Sequence[Rule], exact_up_to: int) -> list[list[Rule]]:
    """Group the rules that can share a log; within and across groups, windows and amounts ascend.

    A rule that another makes pointless, with fewer calls in at least the same time, can never stand in the way.
    """
    telling = {
        rule
        for rule in rules
        if not any(other.amount < rule.amount and other.window_seconds >= rule.window_seconds for other in rules)
    }
    ascending = sorted(telling, key=lambda rule: (rule.window_seconds, rule.amount))
    exact = [rule for rule in ascending if rule.amount <= exact_up_to]
    coarse = [[rule] for rule in ascending if rule.amount > exact_up_to]
    return [exact, *coarse] if exact else coarse


def ratelimit_headers(standing: Standing) -> bytes:
    """Render a standing as header lines in OpenAI's form, each ending in CRLF; nothing when there are no rules."""
    if standing.limit is None:
        return b""
    return (
        b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %b\r\n"
        % (standing.limit, standing.remaining, _duration(standing.reset_seconds))
    )


def retry_headers(seconds: float) -> bytes:
    """Render a wait as header lines, each ending in CRLF; waits are rounded up, and at least a millisecond.

    After a wait of more than a minute a client library's own retries can only fail, so they are called off.
    """
    milliseconds = max(1, _milliseconds(seconds))
    lines = b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (-(-milliseconds // 1000), milliseconds)
    return lines + b"x-should-retry: false\r\n" if milliseconds > _LONGEST_RETRY_MS else lines


@lru_cache(256)
def _duration(seconds: float) -> bytes:
    """Render a duration as OpenAI does, in the notation of Go's `time.Duration`; rounded up.

    120ms, 1s, 6m0s, 1h0m0s: clients parse it as such (github.com/sashabaranov/go-openai, ratelimit.go; read
    2026-11-23).
    """
    milliseconds = _milliseconds(seconds)
    if 0 < milliseconds < 1000:  # noqa: PLR2004 - milliseconds of a second
        return b"%dms" % milliseconds
    minutes, whole_seconds = divmod(-(-milliseconds // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, whole_seconds)
    return b"%dm%ds" % (minutes, whole_seconds) if minutes else b"%ds" % whole_seconds


def _milliseconds(seconds: float) -> int:
    """Round up to milliseconds; what is below a nanosecond is the float's doing, and does not count."""
    return -(-round(seconds * _SECOND_NS) // _MILLISECOND_NS)
