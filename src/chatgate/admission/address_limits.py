"""Decide how often an address may call. The commonest rules, and so the shortest way.

Owns the decision for rules on the requests of one address; `callers` and `sliding_log` remember. Does no I/O, holds no
lock and awaits nothing. Used by `limits` only.

The laws are those of `limits`. Rules up to `exact_up_to` calls share one exact log per caller. A rule above that has a
log of its own, which becomes coarser as it fills: it may count too many calls, fewer than `2 * amount / exact_up_to`
(0.1 % of the amount), never one too few, and a whole amount always fits into a window that was empty.

Until the next call leaves a window, every call that is taken leaves one less for the next, under each rule. So a log
notes how many are left and how long it is calm, and `take` need not look at its rules until then; `admit` always does.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Mapping
from sys import maxsize
from typing import TYPE_CHECKING

from chatgate.admission.callers import Callers
from chatgate.admission.headers import form_of_requests
from chatgate.admission.sliding_log import SlidingLog
from chatgate.admission.standing import UNLIMITED, Standing, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chatgate.admission.rules import Rule, Subject

_SECOND_NS = 1_000_000_000

_MEMORY_BYTES = 256 << 20
"""What the logs of all callers may take together when each is as long as it can get."""

_ENTRY_BYTES = 360
_STAMP_BYTES = 9
"""What a caller takes besides its stamps (about 340, measured), and per stamp, with what an array keeps in reserve."""

_MAX_SHARED = 8192

_NO_CALLS = SlidingLog.empty()

_Forms = tuple[tuple[int, int, bytes], ...]
"""The same rules as (amount, window in nanoseconds, form of the header lines that tell of it)."""

_Lane = tuple[Mapping["Subject", SlidingLog], _Forms]
"""Logs by whose they are, and their rules."""

Counted = tuple[int, bytes]
"""When a call was counted, and the header lines that tell where its caller stands then."""

_UNCOUNTED: Counted = (0, b"")


_Book = tuple[tuple[tuple[int, int, "Rule"], ...], Callers[SlidingLog]]
"""Rules that share a log per caller, as (amount, window in nanoseconds, rule), windows ascending; and the logs."""


class AddressLimits:
    """Admits calls by rules, each address for itself. False when there are no rules."""

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
        self._max_stamps = max_stamps = exact_up_to * 8 // 7 | 1
        longest = [min(group[-1].amount * 8 // 7 + 1, max_stamps) for group in groups]
        fitting = _MEMORY_BYTES // max(sum(_ENTRY_BYTES + _STAMP_BYTES * stamps for stamps in longest), 1)
        seed = secrets.randbits(64) if seed is None else seed
        self._books: list[_Book] = [
            (
                tuple((rule.amount, round(rule.window_seconds * _SECOND_NS), rule) for rule in group),
                Callers(
                    round(group[-1].window_seconds * _SECOND_NS),
                    SlidingLog.empty,
                    SlidingLog.copy,
                    max_callers=min(max_callers, fitting * 3 // 4),
                    max_shared=min(_MAX_SHARED, fitting // 4),
                    seed=seed,
                ),
            )
            for group in groups
        ]
        self._logs = [(callers, rules[-1][1]) for rules, callers in self._books]
        self._lanes = [_lane(book) for book in self._books]
        self._own, self._rules = self._lanes[0] if len(self._lanes) == 1 else ({}, ())

    def __bool__(self) -> bool:
        """Tell whether there is any rule."""
        return bool(self._books)

    def take(self, who: int) -> Counted | None:
        """Take one call from every rule in the usual case. `who` is `Caller.counted_as`.

        None, and nothing is taken, where `admit` has to be asked: of those who are new or share a log, and where a rule
        stands in the way.
        """
        log = self._own.get(who)
        if log is None:
            return self._take_from_many(who) if self._books else _UNCOUNTED
        now = self._clock()
        if (now >= log.calm_until or log.left <= 0) and not _look(log, self._rules, now):
            return None
        log.left = left = log.left - 1
        if log.spare:  # As `count`, which a coarse log seldom needs.
            log.stamps[-1] = now
            log.spare -= 1
        else:
            log.count(now, self._max_stamps)
        return now, log.form % left

    def _take_from_many(self, who: int) -> Counted | None:
        """Do what `take` does where rules have several logs for each caller."""
        now = self._clock()
        logs = []
        least = maxsize
        form = b""
        for own, rules in self._lanes:
            log = own.get(who)
            if log is None or ((now >= log.calm_until or log.left <= 0) and not _look(log, rules, now)):
                return None
            if log.left <= least:
                least, form = log.left, log.form
            logs.append(log)
        for log in logs:
            log.left -= 1
            log.count(now, self._max_stamps)
        return now, form % (least - 1)

    def admit(self, who: int) -> Standing:
        """Take one call from every rule, or refuse and take none; as `take` for whomever it may be."""
        if not self._books:
            return UNLIMITED
        now = self._clock()
        standing = self.judge(who, now, 1)
        if standing.admitted:
            for callers, window in self._logs:
                (callers.own.get(who) or callers.welcome(who, now)).add(now, window, self._max_stamps)
        return standing

    def standing(self, who: int) -> Standing:
        """Return where the caller stands, and take nothing."""
        return self.judge(who, self._clock(), 0) if self._books else UNLIMITED

    def record(self, who: int, now: int) -> None:
        """Take a call that was judged at this time."""
        for callers, window in self._logs:
            (callers.own.get(who) or callers.welcome(who, now)).add(now, window, self._max_stamps)

    def give_back(self, who: int, at_ns: int, now_ns: int | None = None) -> None:
        """Give back a call that was taken at a time and never made; None for now."""
        if now_ns is None:
            now_ns = self._clock()
        for callers, window in self._logs:
            log = callers.own.get(who) or callers.shared(who)
            if log is not None and at_ns > now_ns - window:
                log.remove(at_ns)

    def entries(self) -> Iterator[tuple[int, Subject, bool, SlidingLog]]:
        """Yield all that is counted, as `Callers.entries` does, after the number of the group of rules."""
        for number, (callers, _) in enumerate(self._logs):
            for who, is_shared, log in callers.entries():
                yield number, who, is_shared, log

    def restore(self, number: int, who: Subject, log: SlidingLog, *, is_shared: bool) -> None:
        """Put one of the `entries` of others by the same rules into new ones; see `Callers.restore`."""
        self._logs[number][0].restore(who, log, is_shared=is_shared)

    def judge(self, who: int, now: int, taken: int) -> Standing:
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
        if taken and not reached:
            return Standing(
                True,  # noqa: FBT003 - by position, which is faster
                tightest.amount,
                least - 1,
                tightest.window_seconds,
                0.0,
                (),
                Ticket(now, self, who),
            )
        window = round(tightest.window_seconds * _SECOND_NS)
        reset = held.stamps[-1] + window - now if held.stamps else 0
        return Standing(
            not reached, tightest.amount, max(least, 0), max(reset, 0) / _SECOND_NS, wait / _SECOND_NS, reached
        )


def _lane(book: _Book) -> _Lane:
    rules, callers = book
    forms = [(amount, window, form_of_requests(amount, rule.window_seconds)) for amount, window, rule in rules]
    return callers.own, tuple(forms)


def _look(log: SlidingLog, rules: _Forms, now: int) -> bool:
    """Note in a log what `judge` would say of it, and for how long; False when that is no."""
    stamps, grain = log.stamps, log.grain
    size = first = len(stamps)
    counted = size * grain - log.spare
    least = calm_until = maxsize
    for amount, window, form in rules:
        first = bisect_right(stamps, now - window, 0, first)
        is_inside = first < size
        calm_until = min(calm_until, (stamps[first] if is_inside else now) + window)
        left = amount - counted + first * grain if is_inside else amount
        if left <= least:
            least = left
            log.form = form
    if least <= 0:
        return False
    log.calm_until, log.left = calm_until, least
    log.drop(first)
    return True


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
