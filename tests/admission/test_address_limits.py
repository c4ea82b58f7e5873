"""Limits on addresses: never more calls than allowed in any window, in bounded memory, with exact waits."""

from __future__ import annotations

import random
import tracemalloc
from collections import deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatgate.admission import address_limits as module
from chatgate.admission.address_limits import AddressLimits
from chatgate.admission.callers import Callers
from chatgate.admission.headers import ratelimit_headers, retry_headers
from chatgate.admission.rules import WINDOW_SECONDS, Rule
from chatgate.admission.sliding_log import SlidingLog
from chatgate.admission.standing import UNLIMITED, Standing

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        """Start somewhere in an uptime."""
        self.now_ns = 5 * SECOND_NS

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ns


def window_ns(rule: Rule) -> int:
    """Return a rule's window as the clock counts."""
    return round(rule.window_seconds * SECOND_NS)


class Reference:
    """The same by the definition: a list of times for each caller, and nothing is ever dropped."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Start with nobody."""
        self.rules = rules
        self.admitted: dict[int, list[int]] = {}

    def left(self, rule: Rule, who: int, now_ns: int) -> int:
        """Return how many calls the rule would still admit."""
        return rule.amount - sum(time > now_ns - window_ns(rule) for time in self.admitted.get(who, ()))

    def standing(self, who: int, now_ns: int) -> Standing:
        """Return what `Limits.standing` should."""
        times = self.admitted.get(who, [])

        def reset_ns(rule: Rule) -> int:
            return max(0, times[-1] + window_ns(rule) - now_ns) if times else 0

        tightest = min(self.rules, key=lambda rule: (self.left(rule, who, now_ns), -reset_ns(rule)))
        reached = [rule for rule in self.rules if self.left(rule, who, now_ns) <= 0]
        wait = max((times[-rule.amount] + window_ns(rule) - now_ns for rule in reached), default=0)
        return Standing(
            admitted=not reached,
            limit=tightest.amount,
            remaining=self.left(tightest, who, now_ns),
            reset_seconds=reset_ns(tightest) / SECOND_NS,
            retry_after_seconds=wait / SECOND_NS,
            reached=tuple(sorted(reached, key=window_ns)),
        )

    def admit(self, who: int, now_ns: int) -> bool:
        """Record a call if every rule has room for it."""
        if any(self.left(rule, who, now_ns) <= 0 for rule in self.rules):
            return False
        self.admitted.setdefault(who, []).append(now_ns)
        return True


def most_in_a_window(times: Sequence[int], rule: Rule) -> int:
    """Return the largest number of calls in any window of the rule's length."""
    window = window_ns(rule)
    return max((sum(end - window < time <= end for time in times) for end in times), default=0)


WINDOWS_MS = (10, 14, 100)
RULES = st.lists(
    st.builds(lambda amount, ms: Rule(amount, ms / 1000, f"{ms}ms"), st.integers(1, 9), st.sampled_from(WINDOWS_MS)),
    min_size=1,
    max_size=4,
    unique=True,
)
STEPS_NS = st.one_of(
    st.sampled_from([0, 1, MS_NS, 3 * MS_NS]),
    st.sampled_from([ms * MS_NS + off for ms in WINDOWS_MS for off in (-1, 0, 1)]),
    st.integers(0, 12 * MS_NS),
)
CALLS = st.lists(st.tuples(STEPS_NS, st.integers(0, 2)), max_size=80)


@given(RULES, CALLS)
def test_agrees_with_the_definition(rules: list[Rule], calls: list[tuple[int, int]]) -> None:
    """Every decision, every number and every wait is what a plain list of times gives."""
    clock = Clock()
    limits = AddressLimits(rules, clock)
    reference = Reference(rules)
    for step_ns, who in calls:
        clock.now_ns += step_ns
        expected = reference.standing(who, clock.now_ns)
        assert limits.standing(who) == expected
        got = limits.admit(who)
        assert got.admitted is reference.admit(who, clock.now_ns)
        after = reference.standing(who, clock.now_ns)
        assert (got.limit, got.remaining, got.reset_seconds) == (after.limit, after.remaining, after.reset_seconds)
        assert got.reached == expected.reached
        assert got.retry_after_seconds == expected.retry_after_seconds


def counted_or_admitted(limits: AddressLimits, who: int) -> bool:
    """Take a call as the gateway does: in the usual way, or where that is not open, in the general one."""
    return limits.take(who) is not None or limits.admit(who).admitted


WAYS = st.sampled_from(["take", "take", "take", "admit", "standing", "back"])


LARGE = [Rule(3000, 0.01, "short"), Rule(3002, 0.1, "longer")]
SEVERAL_LOGS = st.one_of(st.just(LARGE), RULES.map(lambda rules: [*rules, Rule(3000, 0.2, "long")]))


@given(st.one_of(RULES, SEVERAL_LOGS), st.lists(st.tuples(STEPS_NS, st.integers(0, 1), WAYS), max_size=80))
def test_the_usual_way_agrees_with_the_definition(rules: list[Rule], calls: list[tuple[int, int, str]]) -> None:
    """It counts what there is room for and tells what remains, whatever else was counted and given back before."""
    clock = Clock()
    limits = AddressLimits(rules, clock)
    reference = Reference(rules)
    for step_ns, who, way in calls:
        clock.now_ns += step_ns
        expected = reference.standing(who, clock.now_ns)
        times = reference.admitted.setdefault(who, [])
        if way == "standing":
            assert limits.standing(who) == expected
        elif way == "back":
            if times:
                limits.give_back(who, times.pop())
        elif way == "admit":
            assert limits.admit(who).admitted is reference.admit(who, clock.now_ns)
        elif (counted := limits.take(who)) is not None:
            assert reference.admit(who, clock.now_ns)
            after = reference.standing(who, clock.now_ns)
            told = Standing(
                admitted=True, limit=after.limit, remaining=after.remaining, reset_seconds=after.reset_seconds
            )
            assert counted == (clock.now_ns, ratelimit_headers(told))
        else:
            is_known = all(who in callers.own for _, callers in limits._books)
            assert not (is_known and expected.admitted), "else it has to know"


@pytest.mark.parametrize("take", [AddressLimits.take, counted_or_admitted])
@pytest.mark.parametrize("rules", [[], [Rule(5, 1.0, "second"), Rule(3000, 60.0, "minute")]])
def test_where_the_usual_way_is_not_open(rules: list[Rule], take: Callable[[AddressLimits, int], object]) -> None:
    """Without rules nothing is counted or told; of whoever is new, the general way is asked, with several logs too."""
    limits = AddressLimits(rules, Clock())
    took = [bool(take(limits, 7)) for _ in range(10)]
    if not rules:
        assert all(took)
        assert limits.take(7) == (0, b"")
    else:
        assert sum(took) == (0 if take is AddressLimits.take else 5)


@pytest.mark.parametrize(("amount", "exact_up_to"), [(7, 7), (50, 50), (64, 100), (2048, 2048)])
def test_exact_where_logs_are_long(amount: int, exact_up_to: int) -> None:
    """Amounts that are promised to be exact are, through many windows of calls at an uneven pace."""
    rules = [Rule(amount // 3, 1.0, "second"), Rule(amount, 10.0, "ten seconds")]
    clock = Clock()
    limits = AddressLimits(rules, clock, exact_up_to=exact_up_to)
    dice = random.Random(amount)
    recent: deque[int] = deque(maxlen=amount)
    for _ in range(8 * amount):
        clock.now_ns += round(dice.expovariate(amount / 8 / SECOND_NS)) if dice.random() < 0.9 else SECOND_NS // 2
        room = all(
            len(recent) < rule.amount or recent[-rule.amount] <= clock.now_ns - window_ns(rule) for rule in rules
        )
        assert counted_or_admitted(limits, 7) is room
        if room:
            recent.append(clock.now_ns)


COARSE_RULES = st.lists(
    st.builds(lambda amount, ms: Rule(amount, ms / 1000, f"{ms}ms"), st.integers(1, 70), st.sampled_from(WINDOWS_MS)),
    min_size=1,
    max_size=3,
    unique=True,
)
BURSTS = st.lists(st.tuples(STEPS_NS, st.integers(1, 30), st.integers(0, MS_NS)), max_size=25)


@given(COARSE_RULES, BURSTS, st.integers(2, 16))
def test_coarse_logs_never_admit_too_many(
    rules: list[Rule], bursts: list[tuple[int, int, int]], exact_up_to: int
) -> None:
    """Above the exact amounts no window is exceeded, refusals come early by less than promised, waits are exact."""
    clock = Clock()
    limits = AddressLimits(rules, clock, exact_up_to=exact_up_to)
    reference = Reference(rules)
    times = reference.admitted.setdefault(7, [])
    for step_ns, calls, pause_ns in bursts:
        clock.now_ns += step_ns
        for _ in range(calls):
            clock.now_ns += pause_ns
            lefts = {rule: reference.left(rule, 7, clock.now_ns) for rule in rules}
            counted = limits.take(7)
            if counted is not None:
                assert int(counted[1].split(b"\r\n")[1].partition(b": ")[2]) < min(lefts.values())
                times.append(clock.now_ns)
                continue
            standing = limits.admit(7)
            assert standing.remaining <= max(0, min(lefts.values()) - standing.admitted)
            for rule in standing.reached:
                blur = 2 * rule.amount / exact_up_to if rule.amount > exact_up_to else 0
                assert lefts[rule] <= 0 if not blur else lefts[rule] < blur
            if standing.admitted:
                times.append(clock.now_ns)
            else:
                asked_at = clock.now_ns
                wait_ns = round(standing.retry_after_seconds * SECOND_NS)
                clock.now_ns = asked_at + wait_ns - 1
                assert not limits.standing(7).admitted
                clock.now_ns = asked_at + wait_ns
                assert limits.standing(7).admitted
                clock.now_ns = asked_at
    assert all(most_in_a_window(times, rule) <= rule.amount for rule in rules)


@pytest.mark.parametrize(
    ("amount", "exact_up_to"), [(2048, 2048), (2049, 2048), (5000, 2048), (100_000, 2048), (5, 2), (99, 3), (1000, 8)]
)
def test_a_whole_amount_fits_into_an_empty_window(amount: int, exact_up_to: int) -> None:
    """However large the amount, exactly that many calls fit, and again as soon as the window is empty again."""
    clock = Clock()
    limits = AddressLimits([Rule(amount, 60.0, "minute")], clock, exact_up_to=exact_up_to)
    for _ in range(3):
        admitted = 0
        for _ in range(amount):
            clock.now_ns += 1000
            admitted += counted_or_admitted(limits, 7)
        assert admitted == amount
        assert not limits.admit(7).admitted
        clock.now_ns += 60 * SECOND_NS - 1000


def test_small_rules_stay_exact_beside_large_ones() -> None:
    """A rule with a huge amount takes nothing from the exactness of a small one."""
    rules = [Rule(5, 1.0, "second"), Rule(100_000, 86_400.0, "day")]
    clock = Clock()
    limits = AddressLimits(rules, clock)
    reference = Reference(rules[:1])
    for call in range(6000):
        clock.now_ns += 150 * MS_NS if call % 7 else 450 * MS_NS
        assert limits.admit(7).admitted is reference.admit(7, clock.now_ns)
        reference.admitted[7] = reference.admitted[7][-5:]


@pytest.mark.parametrize(("amount", "exact_up_to"), [(5, 2048), (300, 2048), (2048, 2048), (3000, 300), (700, 2)])
def test_logs_stay_short(amount: int, exact_up_to: int) -> None:
    """However long a caller goes on at full speed, its log has a bounded number of stamps."""
    clock = Clock()
    limits = AddressLimits([Rule(amount, 1.0, "second")], clock, exact_up_to=exact_up_to)
    longest = 0
    for _ in range(12_000):
        clock.now_ns += SECOND_NS // amount // 2
        counted_or_admitted(limits, 7)
        longest = max(longest, len(stamps_of(limits, 7)))
    assert longest <= min(amount, exact_up_to) * 8 // 7 + 1
    clock.now_ns += 2 * SECOND_NS
    limits.admit(7)
    assert len(stamps_of(limits, 7)) == 1


def callers_of(limits: AddressLimits) -> Callers[SlidingLog]:
    """Return the table of the only group of rules."""
    ((_, callers),) = limits._books
    return callers


def stamps_of(limits: AddressLimits, who: int) -> Sequence[int]:
    """Return what is remembered of a caller that has a log of its own."""
    return callers_of(limits).own[who].stamps


def test_all_or_none() -> None:
    """A call that one rule refuses is not taken from the others."""
    clock = Clock()
    rules = [Rule(1, 1.0, "second"), Rule(3, 60.0, "minute")]
    limits = AddressLimits(rules, clock)
    assert limits.admit(7).admitted
    for _ in range(50):
        refused = limits.admit(7)
        assert (refused.admitted, refused.reached, refused.retry_after_seconds) == (False, (rules[0],), 1.0)
    clock.now_ns += SECOND_NS
    assert limits.standing(7).remaining == 1, "the second is tightest"
    assert limits.admit(7).admitted
    clock.now_ns += SECOND_NS
    assert limits.admit(7).admitted, "the fifty took nothing of the minute"
    both = limits.admit(7)
    assert (both.reached, both.retry_after_seconds) == (tuple(rules), 58.0)
    clock.now_ns += SECOND_NS
    assert limits.admit(7).reached == (rules[1],)


def test_the_longest_wait_counts() -> None:
    """When several rules are in the way, the wait is the longest of theirs, whichever it is."""
    clock = Clock()
    rules = [Rule(2, 10.0, "ten seconds"), Rule(3, 14.0, "fourteen seconds")]
    limits = AddressLimits(rules, clock)
    for pause_seconds in (0, 11, 1):
        clock.now_ns += pause_seconds * SECOND_NS
        assert limits.admit(7).admitted
    refused = limits.admit(7)
    assert (refused.reached, refused.retry_after_seconds) == (tuple(rules), 9.0)


def test_all_or_none_across_logs() -> None:
    """That holds too where rules keep logs of their own."""
    clock = Clock()
    limits = AddressLimits(
        [Rule(1, 1.0, "second"), Rule(10, 60.0, "minute"), Rule(20, 3600.0, "hour")], clock, exact_up_to=2
    )
    limits.admit(7)
    for _ in range(50):
        assert not limits.admit(7).admitted
    clock.now_ns += SECOND_NS
    for _, callers in limits._books:
        assert len(callers.own[7].stamps) == 1


@given(
    st.floats(0.001, 30 * 86_400.0),
    st.integers(1, 4),
    st.lists(st.integers(0, 100 * SECOND_NS), min_size=4, max_size=4),
)
def test_waits_are_exact(window_seconds: float, amount: int, pauses_ns: list[int]) -> None:
    """Who waits as long as told is admitted, also with the rounded headers; a millisecond less is too early."""
    clock = Clock()
    limits = AddressLimits([Rule(amount, window_seconds, "window")], clock)
    refused = limits.admit(7)
    for pause_ns in [*pauses_ns, *[0] * amount]:
        if not refused.admitted:
            break
        clock.now_ns += pause_ns
        refused = limits.admit(7)
    assert not refused.admitted
    asked_at = clock.now_ns
    headers = dict(line.split(b": ") for line in retry_headers(refused.retry_after_seconds).splitlines())
    waits_ns = [
        round(refused.retry_after_seconds * SECOND_NS),
        int(headers[b"retry-after-ms"]) * MS_NS,
        int(headers[b"retry-after"]) * SECOND_NS,
    ]
    clock.now_ns = asked_at + max(0, waits_ns[0] - 1)
    assert not limits.standing(7).admitted
    for wait_ns, unit_ns in zip(waits_ns, (1, MS_NS, SECOND_NS), strict=True):
        clock.now_ns = asked_at + wait_ns
        assert limits.standing(7).admitted
        assert wait_ns - waits_ns[0] < unit_ns, "and no longer than rounding asks for"
    clock.now_ns = asked_at + waits_ns[0]
    assert limits.admit(7).admitted


def test_the_edge_of_a_window() -> None:
    """A call exactly one window later is in a new window, a nanosecond earlier is not."""
    clock = Clock()
    limits = AddressLimits([Rule(1, 1.0, "second")], clock)
    assert limits.admit(7).admitted
    clock.now_ns += SECOND_NS - 1
    assert limits.admit(7).retry_after_seconds == 1e-9
    clock.now_ns += 1
    assert limits.admit(7).admitted


def test_callers_do_not_touch_each_other() -> None:
    """One caller's calls leave another's allowance alone."""
    limits = AddressLimits([Rule(1, 1.0, "second")], Clock())
    assert limits.admit(1).admitted
    assert limits.admit(2).admitted
    assert limits.admit(1 << 64).admitted
    assert not limits.admit(1).admitted


def test_standing_takes_nothing() -> None:
    """Asking where a caller stands changes nothing and remembers nobody."""
    limits = AddressLimits([Rule(2, 1.0, "second")], Clock())
    for _ in range(10):
        assert limits.standing(7) == Standing(admitted=True, limit=2, remaining=2, reset_seconds=0.0)
    assert not callers_of(limits).own
    assert limits.admit(7).remaining == 1


def test_tightest_rule() -> None:
    """The rule with the fewest calls left is told of; of equals the one that takes longer to be unused."""
    clock = Clock()
    limits = AddressLimits([Rule(4, 3600.0, "hour"), Rule(2, 1.0, "second"), Rule(3, 60.0, "minute")], clock)
    seen = []
    for pause_seconds in (0, 1, 1, 58, 0):
        clock.now_ns += pause_seconds * SECOND_NS
        standing = limits.admit(7)
        seen.append((standing.admitted, standing.limit, standing.remaining, standing.reset_seconds))
    assert seen == [
        (True, 2, 1, 1.0),
        (True, 3, 1, 60.0),
        (True, 3, 0, 60.0),
        (True, 4, 0, 3600.0),
        (False, 4, 0, 3600.0),
    ]


def test_no_rules() -> None:
    """Without rules every call is admitted, nothing is remembered and no header is sent."""

    def no_clock() -> int:
        raise AssertionError

    limits = AddressLimits([], no_clock)
    assert not limits
    assert limits.admit(7) is limits.standing(7) is UNLIMITED
    assert UNLIMITED.admitted
    assert UNLIMITED.limit is None
    assert ratelimit_headers(UNLIMITED) == b""
    assert AddressLimits([Rule(1, 1.0, "second")], Clock())


@pytest.mark.parametrize(("amount", "window_seconds"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -1.0)])
def test_refuses_senseless_rules(amount: int, window_seconds: float) -> None:
    """A rule that would admit nothing, or hold for no time, is a mistake."""
    with pytest.raises(ValueError, match="a limit needs an amount and a window"):
        Rule(amount, window_seconds, "second")


def test_windows_by_name() -> None:
    """The windows that operators name are as long as they say; a month is thirty days."""
    hour = 3600
    assert {
        "second": 1,
        "minute": 60,
        "hour": hour,
        "day": 24 * hour,
        "week": 168 * hour,
        "month": 720 * hour,
    } == WINDOW_SECONDS


MANY_CALLS = st.lists(st.tuples(STEPS_NS, st.integers(0, 9)), max_size=150)
CROWD = [0, 1, 2, 4095, 4096, 1 << 20, 1 << 64, 1 << 64 | 1, 1 << 64 | 1 << 24, 1 << 64 | 1 << 40]


@settings(max_examples=200)
@given(RULES, MANY_CALLS, st.integers(0, 4), st.sampled_from([2, 2048]))
def test_sharing_never_admits_too_many(
    rules: list[Rule], calls: list[tuple[int, int]], max_callers: int, exact_up_to: int
) -> None:
    """With more callers than logs, nobody ever gets more than allowed, however callers come, go and share."""
    clock = Clock()
    limits = AddressLimits(rules, clock, max_callers=max_callers, exact_up_to=exact_up_to, seed=1)
    admitted: dict[int, list[int]] = {who: [] for who in CROWD}
    for step_ns, index in calls:
        clock.now_ns += step_ns // 4
        expected = limits.standing(CROWD[index]).admitted
        standing = limits.admit(CROWD[index])
        assert standing.admitted is expected
        if standing.admitted:
            admitted[CROWD[index]].append(clock.now_ns)
        for _, callers in limits._books:
            assert len(callers.own) == len(callers._turn) <= max_callers
            assert set(callers.own) == set(callers._turn)
    for times in admitted.values():
        assert all(most_in_a_window(times, rule) <= rule.amount for rule in rules)


def test_a_flood_resets_nobody() -> None:
    """Three times more callers than can be remembered neither free a caller at its limit nor grow the memory."""
    clock = Clock()
    limits = AddressLimits([Rule(3, 3600.0, "hour")], clock, max_callers=1000)
    for _ in range(3):
        assert limits.admit(7).admitted
    for stranger in range(3000):
        clock.now_ns += MS_NS
        limits.admit(1 << 30 | stranger << 12)
        limits.admit(1 << 64 | stranger << 24)
        assert not limits.admit(7).admitted
    callers = callers_of(limits)
    assert len(callers.own) == 1000
    assert 0 < len(callers._shared) <= 5001
    assert limits.admit(7).retry_after_seconds == 3597.0


def test_a_flood_shares_by_neighbourhood() -> None:
    """When the table is full, newcomers of one neighbourhood share an allowance, and others keep their own."""
    limits = AddressLimits([Rule(2, 60.0, "minute")], Clock(), max_callers=1, seed=1)
    assert limits.admit(7).admitted
    assert limits.admit(0x01020304).admitted
    assert limits.admit(0x01020F05).admitted
    assert not limits.admit(0x01020306).admitted, "the /20 is used up"
    assert limits.admit(0x01021304).admitted, "the next is not"
    assert limits.admit(7).admitted, "nor is who came first"


def test_sharers_get_logs_of_their_own_again() -> None:
    """When there is room again, a newcomer has its own log, and what its neighbourhood used counts to the end."""
    clock = Clock()
    limits = AddressLimits([Rule(2, 60.0, "minute")], clock, max_callers=1, seed=1)
    limits.admit(1 << 30)
    clock.now_ns += 30 * SECOND_NS
    assert [limits.admit(who).admitted for who in (1, 2, 3)] == [True, True, False]
    clock.now_ns += 30 * SECOND_NS
    refused = limits.admit(1)
    assert (refused.admitted, refused.retry_after_seconds) == (False, 30.0)
    clock.now_ns += 30 * SECOND_NS
    assert [limits.admit(who).admitted for who in (1, 1, 1)] == [True, True, False]
    assert list(callers_of(limits).own) == [1]
    assert not callers_of(limits)._shared
    assert limits.admit(2).admitted


def test_who_moves_out_takes_the_calls_along() -> None:
    """A caller that gets its own log while the shared one still counts does not start from nothing."""
    clock = Clock()
    limits = AddressLimits([Rule(3, 60.0, "minute")], clock, max_callers=1, seed=1)
    limits.admit(1 << 30)
    clock.now_ns += 30 * SECOND_NS
    limits.admit(1)
    clock.now_ns += 30 * SECOND_NS
    assert [limits.admit(1).admitted for _ in range(3)] == [True, True, False]
    assert list(callers_of(limits).own) == [1]
    assert limits.standing(2).remaining == 2, "and leaves its later ones out of the shared log"


def test_nobody_is_forgotten_early() -> None:
    """A caller gives up its log when its last call has left the longest window, and not a nanosecond before."""
    clock = Clock()
    limits = AddressLimits([Rule(1, 1.0, "second"), Rule(2, 60.0, "minute")], clock, max_callers=1)
    limits.admit(7)
    clock.now_ns += 60 * SECOND_NS - 1
    limits.admit(1 << 30)
    assert list(callers_of(limits).own) == [7]
    clock.now_ns += 1
    limits.admit(1 << 31)
    assert list(callers_of(limits).own) == [1 << 31]


def test_old_callers_are_forgotten_while_new_ones_come() -> None:
    """The table holds little more than the callers that still count, long before it is full."""
    clock = Clock()
    limits = AddressLimits([Rule(1, 1.0, "second")], clock)
    largest = 0
    for who in range(20_000):
        clock.now_ns += 10 * MS_NS
        assert limits.admit(who).admitted
        largest = max(largest, len(callers_of(limits).own))
    assert largest <= 200, "a hundred count at any time"


def test_a_caller_takes_few_bytes() -> None:
    """A caller of one call takes no more than what the memory bound reckons with."""
    callers = 20_000
    limits = AddressLimits([Rule(10, 1.0, "second"), Rule(50, 60.0, "minute"), Rule(500, 3600.0, "hour")], Clock())
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for who in range(callers):
            limits.admit(1 << 64 | who << 20)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / callers <= module._ENTRY_BYTES


def test_a_full_log_takes_few_bytes() -> None:
    """A caller at its limit takes no more than what the memory bound reckons with."""
    clock = Clock()
    limits = AddressLimits([Rule(2048, 1.0, "second")], clock)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10_000):
            clock.now_ns += SECOND_NS // 2048
            limits.admit(7)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= module._ENTRY_BYTES + module._STAMP_BYTES * (2048 * 8 // 7 + 1)
    assert peak < 64 * 1024


@pytest.mark.parametrize(
    "rules",
    [
        [Rule(50, 3600.0, "hour")],
        [Rule(2048, 86_400.0, "day")],
        [Rule(10**6, 60.0, "minute"), Rule(10**7, 3600.0, "hour"), Rule(10**8, 86_400.0, "day")],
    ],
)
def test_all_logs_fit_into_the_memory(rules: list[Rule]) -> None:
    """With every log as long as it can get, all of them together stay inside a fixed memory."""
    limits = AddressLimits(rules, Clock())
    total = sum(
        (callers._max_callers + callers._max_shared)
        * (module._ENTRY_BYTES + module._STAMP_BYTES * min(group[-1][0] * 8 // 7 + 1, limits._max_stamps))
        for group, callers in limits._books
    )
    assert total <= 256 << 20
    assert all(callers._max_callers >= 1000 and callers._max_shared >= 256 for _, callers in limits._books)
