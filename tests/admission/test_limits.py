"""The one rule of limits: whatever is counted and by whom, no window ever holds more than its amount."""

from __future__ import annotations

import random
import tracemalloc
from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from chatgate.admission import meters as module
from chatgate.admission.limits import (
    NOTHING,
    UNLIMITED,
    Bound,
    Facts,
    Gauge,
    Limits,
    Rule,
    Standing,
    Ticket,
    ratelimit_headers,
    rules_of_key,
)
from chatgate.admission.meters import WindowMeter
from chatgate.admission.rules import IN_FLIGHT, MAX_AMOUNT, RESOURCES, WINDOW_SECONDS, rule_of
from chatgate.i18n import LANGUAGES, Catalogues
from chatgate.vocabulary.errors import CallerError, Kind, Phrase
from chatgate.vocabulary.keys import KeyLimit

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


def amount_of(rule: Rule, bound: Bound) -> int:
    """Return what a call takes of a rule."""
    return {
        "requests": 1,
        "input_tokens": bound.input_tokens,
        "output_tokens": bound.output_tokens,
        "tokens": bound.input_tokens + bound.output_tokens,
        "usd": bound.nano_usd or 0,
        "in_flight": 1,
    }[rule.resource]


class Taken(Struct):
    """What a call took of a rule."""

    rule: Rule
    at_ns: int
    amount: int


class Reference:
    """The same by the definition: a list of what was taken for each rule and name, and nothing is ever dropped."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Start with nothing taken."""
        self.rules = rules
        self.taken: dict[tuple[Rule, object], list[Taken]] = {(rule, ""): [] for rule in rules}

    def of(self, rule: Rule, facts: Facts) -> list[Taken] | None:
        """Return what was taken of a rule in the name of a caller; None when it does not hold for the call."""
        name = tuple([None if scope == "global" else getattr(facts, scope) for scope in rule.scope])
        if any(part is None for part, scope in zip(name, rule.scope, strict=True) if scope != "global"):
            return None
        if rule.models is not None and not facts.model.startswith(rule.models.rstrip("*")):
            return None
        return self.taken.setdefault((rule, name), [])

    @staticmethod
    def used(rule: Rule, taken: list[Taken], now_ns: int) -> int:
        """Return how much of a rule is used."""
        if rule.resource == IN_FLIGHT:
            return sum(one.amount for one in taken)
        return sum(one.amount for one in taken if one.at_ns > now_ns - window_ns(rule))

    def wait_ns(self, rule: Rule, taken: list[Taken], now_ns: int, amount: int) -> int:
        """Return how long it is until so much fits."""
        if amount > rule.amount:
            return 0
        if rule.resource == IN_FLIGHT:
            return SECOND_NS
        times = sorted(one.at_ns + window_ns(rule) for one in taken)
        return next(
            time - now_ns for time in times if time >= now_ns and self.used(rule, taken, time) + amount <= rule.amount
        )

    def judge(self, facts: Facts, bound: Bound, now_ns: int) -> tuple[set[Rule], int]:
        """Return the rules in the way, and the wait until none is."""
        reached: set[Rule] = set()
        wait_ns = 0
        for rule in self.rules:
            taken = self.of(rule, facts)
            amount = amount_of(rule, bound)
            if taken is not None and self.used(rule, taken, now_ns) + amount > rule.amount:
                reached.add(rule)
                wait_ns = max(wait_ns, self.wait_ns(rule, taken, now_ns, amount))
        return reached, wait_ns

    def take(self, facts: Facts, bound: Bound, now_ns: int) -> list[Taken]:
        """Record a call."""
        call = []
        for rule in self.rules:
            taken = self.of(rule, facts)
            if taken is not None:
                one = Taken(rule, now_ns, amount_of(rule, bound))
                taken.append(one)
                call.append(one)
        return call

    def settle(self, call: list[Taken], actual: Bound, facts: Facts, now_ns: int) -> None:
        """Correct a call."""
        for one in call:
            used = amount_of(one.rule, actual)
            taken = self.of(one.rule, facts)
            assert taken is not None
            if one.rule.resource == IN_FLIGHT:
                one.amount = 0
            elif used > one.amount:
                taken.append(Taken(one.rule, now_ns, used - one.amount))
            else:
                one.amount = used

    def gauges(self, facts: Facts, resources: set[str], now_ns: int) -> list[tuple[int, float, int]]:
        """Return what is left, when it resets and the limit, for each rule on these resources."""
        found = []
        for rule in self.rules:
            taken = self.of(rule, facts)
            if taken is None or rule.resource not in resources:
                continue
            left = max(0, rule.amount - self.used(rule, taken, now_ns))
            last = max((one.at_ns for one in taken if one.amount), default=-SECOND_NS * 10**9)
            found.append((left, max(0, last + window_ns(rule) - now_ns) / SECOND_NS, rule.amount))
        return found

    def check_all_windows(self) -> None:
        """Hold each window that ends with something taken to its amount."""
        for (rule, _), taken in self.taken.items():
            if rule.resource == IN_FLIGHT:
                assert sum(one.amount for one in taken) <= rule.amount
                continue
            for end in taken:
                assert self.used(rule, [one for one in taken if one.at_ns <= end.at_ns], end.at_ns) <= rule.amount


def check_gauge(found: list[tuple[int, float, int]], limit: int | None, left: int, reset_seconds: float) -> None:
    """Compare what is told with the tightest there is: least left, of equals the longest to be unused."""
    if not found:
        assert limit is None
        return
    tightest = min((left, -reset) for left, reset, _ in found)
    assert (left, -reset_seconds) == tightest
    assert limit in {amount for left, reset, amount in found if (left, -reset) == tightest}


WINDOWS_MS = (10, 14, 100)


def rules_of(*scopes: tuple[str, ...], models: str | None = None, amounts: int = 20) -> st.SearchStrategy[Rule]:
    """Return rules with these scopes."""
    windows = st.builds(
        lambda scope, resource, amount, ms: Rule(amount, ms / 1000, f"{ms}ms", scope, resource, models),
        st.sampled_from(scopes),
        st.sampled_from([resource for resource in RESOURCES if resource != IN_FLIGHT]),
        st.integers(1, amounts),
        st.sampled_from(WINDOWS_MS),
    )
    slots = st.builds(
        lambda scope, amount: Rule(amount, 0.0, "", scope, IN_FLIGHT, models),
        st.sampled_from(scopes),
        st.integers(1, 3),
    )
    return windows | slots


def same(rule: Rule) -> object:
    """Return what rules have in common that count the same."""
    return rule.scope, rule.resource, rule.window_seconds, rule.models


COMBINATIONS = (("address",), ("key",), ("model",), ("global",), ("address", "key"), ("key", "model"))
RULES = st.lists(rules_of(*COMBINATIONS), min_size=1, max_size=4, unique_by=same)
KEY_RULES = st.lists(rules_of(("key",)) | rules_of(("key",), models="a*"), max_size=3, unique_by=same)
STEPS_NS = st.one_of(
    st.sampled_from([0, 1, MS_NS, 3 * MS_NS]),
    st.sampled_from([0, 1, MS_NS]),
    st.sampled_from([ms * MS_NS + off for ms in WINDOWS_MS for off in (-1, 0, 1)]),
    st.integers(0, 12 * MS_NS),
)
FACTS = st.builds(
    Facts, st.integers(0, 1), st.sampled_from([None, "k1", "k1", "k2"]), st.sampled_from(["a1", "a2", "b"])
)
BOUNDS = st.builds(Bound, st.integers(0, 4), st.integers(0, 6), st.integers(0, 10))
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), STEPS_NS, FACTS, BOUNDS),
        st.tuples(st.just("admit"), STEPS_NS, FACTS, BOUNDS),
        st.tuples(st.just("settle"), STEPS_NS, st.integers(0, 9), BOUNDS),
        st.tuples(st.just("release"), STEPS_NS, st.integers(0, 9), st.just(NOTHING)),
    ),
    min_size=15,
    max_size=60,
)


def least(first: Bound, second: Bound) -> Bound:
    """Return what is in both."""
    assert first.nano_usd is not None
    assert second.nano_usd is not None
    return Bound(
        min(first.input_tokens, second.input_tokens),
        min(first.output_tokens, second.output_tokens),
        min(first.nano_usd, second.nano_usd),
    )


class Both:
    """The limits and their definition, side by side through the same calls."""

    def __init__(self, rules: list[Rule], key_rules: list[Rule], *, overdrawn: bool = False) -> None:
        """`overdrawn` lets calls use more than they have reserved."""
        self.clock = Clock()
        self.key_rules = tuple(key_rules)
        self.limits = Limits(rules, self.clock, seed=1)
        self.reference = Reference(rules)
        self.own = Reference(key_rules)
        self.calls: list[tuple[Ticket, list[Taken], list[Taken], Facts, Bound]] = []
        self.overdrawn = overdrawn

    def admit(self, facts: Facts, bound: Bound) -> None:
        """Let a call in or not, and compare everything that is said of it."""
        clock, reference, own = self.clock, self.reference, self.own
        before = self.standings()
        reached, wait_ns = reference.judge(facts, bound, clock.now_ns)
        if facts.key is not None:
            more, longer_ns = own.judge(facts, bound, clock.now_ns)
            reached, wait_ns = reached | more, max(wait_ns, longer_ns)
        fits = all(amount_of(rule, bound) <= rule.amount for rule in reached)
        standing = self.limits.admit(facts, bound, self.key_rules)
        assert standing.admitted is (not reached)
        assert set(standing.reached) == reached
        assert standing.fits is fits
        assert standing.retry_after_seconds == (wait_ns / SECOND_NS if fits else 0.0)
        if standing.admitted:
            call = reference.take(facts, bound, clock.now_ns)
            of_key = own.take(facts, bound, clock.now_ns) if facts.key is not None else []
            if call or of_key:
                assert standing.ticket is not None
                self.calls.append((standing.ticket, call, of_key, facts, bound))
        else:
            assert standing.ticket is None
            assert self.standings() == before, "a refused call changes nothing"
            self.wait(facts, bound, standing)
        self.compare(facts, standing)

    def wait(self, facts: Facts, bound: Bound, refused: Standing) -> None:
        """See that whoever waits as long as told is admitted, and no sooner, by the definition."""
        if not refused.fits or any(rule.resource == IN_FLIGHT for rule in refused.reached):
            return
        wait_ns = round(refused.retry_after_seconds * SECOND_NS)
        for now_ns, free in ((self.clock.now_ns + wait_ns - 1, False), (self.clock.now_ns + wait_ns, True)):
            reached, _ = self.reference.judge(facts, bound, now_ns)
            if facts.key is not None:
                reached |= self.own.judge(facts, bound, now_ns)[0]
            assert (not reached) is free

    def end(self, index: int, actual: Bound | None) -> None:
        """Settle a call, or release it; and again, which changes nothing."""
        if not self.calls:
            return
        ticket, call, of_key, facts, bound = self.calls.pop(index % len(self.calls))
        if actual is None:
            self.limits.release(ticket)
            for one in call + of_key:
                one.amount = 0
        else:
            if not self.overdrawn:
                actual = least(bound, actual)
            self.limits.settle(ticket, actual)
            self.reference.settle(call, actual, facts, self.clock.now_ns)
            self.own.settle(of_key, actual, facts, self.clock.now_ns)
        after = self.standings()
        self.limits.release(ticket)
        self.limits.settle(ticket, Bound(9, 9, 9))
        assert self.standings() == after, "a call ends once"

    def standings(self) -> list[Standing]:
        """Return where everybody stands."""
        return [
            self.limits.standing(Facts(address, key, model), self.key_rules)
            for address in (0, 1)
            for key in (None, "k1", "k2")
            for model in ("a1", "b")
        ]

    def compare(self, facts: Facts, standing: Standing) -> None:
        """Compare what the headers would tell."""
        now_ns = self.clock.now_ns
        for resources, (limit, left, reset_seconds) in (
            ({"requests"}, (standing.limit, standing.remaining, standing.reset_seconds)),
            (
                {"input_tokens", "output_tokens", "tokens"},
                (standing.tokens.limit, standing.tokens.remaining, standing.tokens.reset_seconds)
                if standing.tokens
                else (None, 0, 0.0),
            ),
        ):
            found = self.reference.gauges(facts, resources, now_ns)
            if facts.key is not None:
                found += self.own.gauges(facts, resources, now_ns)
            check_gauge(found, limit, left, reset_seconds)

    def run(self, acts: list[tuple[str, int, object, Bound]]) -> None:
        """Do one thing after the other."""
        for act, step_ns, what, bound in acts:
            self.clock.now_ns += step_ns
            if isinstance(what, Facts):
                self.admit(what, bound)
                self.compare(what, self.limits.standing(what, self.key_rules))
            else:
                assert isinstance(what, int)
                self.end(what, bound if act == "settle" else None)
            if not self.overdrawn:
                self.reference.check_all_windows()
                self.own.check_all_windows()


@settings(max_examples=250)
@given(RULES, KEY_RULES, ACTS)
def test_agrees_with_the_definition(
    rules: list[Rule], key_rules: list[Rule], acts: list[tuple[str, int, object, Bound]]
) -> None:
    """Every decision, number and wait is what plain lists give; no window is exceeded; refused calls change nothing."""
    Both(rules, key_rules).run(acts)


@given(RULES, KEY_RULES, ACTS)
def test_what_was_used_beyond_the_bound_counts_too(
    rules: list[Rule], key_rules: list[Rule], acts: list[tuple[str, int, object, Bound]]
) -> None:
    """When a bound was too low, the rest counts from when it is known, and nothing is admitted until it has left."""
    Both(rules, key_rules, overdrawn=True).run(acts)


CROWD = [0, 1, 2, 4095, 4096, 1 << 20, 1 << 64, 1 << 64 | 1, 1 << 64 | 1 << 24]
CROWD_FACTS = st.builds(Facts, st.sampled_from(CROWD), st.sampled_from(["k1", "k2", "k3"]), st.sampled_from("abc"))
CROWD_ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), STEPS_NS, CROWD_FACTS, BOUNDS),
        st.tuples(st.just("admit"), STEPS_NS, CROWD_FACTS, BOUNDS),
        st.tuples(st.just("settle"), STEPS_NS, st.integers(0, 9), BOUNDS),
        st.tuples(st.just("release"), STEPS_NS, st.integers(0, 9), st.just(NOTHING)),
    ),
    min_size=20,
    max_size=80,
)


@given(
    st.lists(rules_of(*COMBINATIONS, amounts=60), min_size=1, max_size=4, unique_by=same),
    CROWD_ACTS,
    st.integers(1, 100),
    st.integers(2, 6),
)
def test_short_and_shared_logs_never_admit_too_many(
    rules: list[Rule], acts: list[tuple[str, int, object, Bound]], max_callers: int, exact_up_to: int
) -> None:
    """With more callers than logs and more calls than entries, no window is exceeded, and waits are long enough."""
    clock = Clock()
    limits = Limits(rules, clock, max_callers=max_callers // 20, exact_up_to=exact_up_to, seed=1)
    reference = Reference(rules)
    calls: list[tuple[Ticket, list[Taken], Facts, Bound]] = []
    for act, step_ns, what, bound in acts:
        clock.now_ns += step_ns // 3
        if isinstance(what, Facts):
            reached, _ = reference.judge(what, bound, clock.now_ns)
            standing = limits.admit(what, bound)
            assert set(standing.reached) >= reached
            if standing.ticket is not None:
                calls.append((standing.ticket, reference.take(what, bound, clock.now_ns), what, bound))
            elif standing.fits and not any(rule.resource == IN_FLIGHT for rule in standing.reached):
                asked_at = clock.now_ns
                clock.now_ns += round(standing.retry_after_seconds * SECOND_NS)
                again = limits.admit(what, bound)
                assert again.admitted, "the wait that was told is enough"
                assert again.ticket is not None
                calls.append((again.ticket, reference.take(what, bound, clock.now_ns), what, bound))
                assert clock.now_ns > asked_at
        elif calls:
            assert isinstance(what, int)
            ticket, call, facts, taken = calls.pop(what % len(calls))
            if act == "settle":
                limits.settle(ticket, least(taken, bound))
                reference.settle(call, least(taken, bound), facts, clock.now_ns)
            else:
                limits.release(ticket)
                for one in call:
                    one.amount = 0
        reference.check_all_windows()


TOKENS = Rule(100, 60.0, "minute", ("key",), "tokens")
K1 = Facts(7, "k1", "m")


def ticket_of(standing: Standing) -> Ticket:
    """Return what an admitted call holds."""
    assert standing.ticket is not None
    return standing.ticket


def test_a_bound_is_reserved_and_what_was_not_used_is_free_again() -> None:
    """Two calls that might use up the limit together are not both admitted; when one has used little, another is."""
    limits = Limits([TOKENS], Clock())
    first = ticket_of(limits.admit(K1, Bound(10, 60)))
    refused = limits.admit(K1, Bound(10, 30))
    assert (refused.admitted, refused.reached, refused.retry_after_seconds) == (False, (TOKENS,), 60.0)
    assert limits.admit(Facts(7, "k2"), Bound(10, 30)).admitted, "another key is another matter"
    limits.settle(first, Bound(10, 5))
    assert limits.standing(K1).tokens == Gauge(100, 85, 60.0)
    assert limits.admit(K1, Bound(10, 75)).tokens == Gauge(100, 0, 60.0)


def test_fifty_at_once_with_room_for_ten() -> None:
    """Exactly as many are admitted as fit, whatever they turn out to use."""
    limits = Limits([Rule(1_000_000_000, 86_400.0, "day", ("key",), "usd")], Clock())
    standings = [limits.admit(K1, Bound(5, 5, 100_000_000)) for _ in range(50)]
    assert [standing.admitted for standing in standings] == [True] * 10 + [False] * 40


def test_a_call_that_never_fits_is_told_so() -> None:
    """A call larger than a limit as a whole is refused without a wait, though nothing is used."""
    limits = Limits([TOKENS, Rule(1, 60.0, "minute", ("key",))], Clock())
    refused = limits.admit(K1, Bound(1, 100))
    assert (refused.admitted, refused.fits, refused.retry_after_seconds) == (False, False, 0.0)
    assert refused.reached == (TOKENS,)
    assert limits.standing(K1).remaining == 1, "nothing was taken from the other"


def test_what_exceeds_the_bound_is_paid_later() -> None:
    """A call that used more than it reserved leaves a debt that has to leave the window first."""
    clock = Clock()
    limits = Limits([TOKENS], clock)
    ticket = ticket_of(limits.admit(K1, Bound(10, 20)))
    clock.now_ns += 30 * SECOND_NS
    limits.settle(ticket, Bound(10, 100))
    refused = limits.admit(K1, Bound(0, 1))
    assert (refused.tokens, refused.retry_after_seconds) == (Gauge(100, 0, 60.0), 30.0)
    clock.now_ns += 30 * SECOND_NS
    assert limits.standing(K1).tokens == Gauge(100, 20, 30.0), "eighty were found out thirty seconds ago"
    assert limits.admit(K1, Bound(0, 20)).admitted


def test_absurd_amounts_do_no_harm() -> None:
    """The largest amounts there are, taken, used and given back, stay numbers."""
    clock = Clock()
    limits = Limits([Rule(MAX_AMOUNT, 60.0, "minute", ("global",), "usd")], clock)
    assert not limits.admit(K1, Bound(0, 0, MAX_AMOUNT + 1)).fits
    ticket = ticket_of(limits.admit(K1, Bound(0, 0, MAX_AMOUNT - 1)))
    limits.settle(ticket, Bound(0, 0, 2**80))
    assert not limits.admit(K1, Bound(0, 0, 1)).admitted
    clock.now_ns += 60 * SECOND_NS
    assert limits.admit(K1, Bound(0, 0, MAX_AMOUNT)).admitted


@pytest.mark.parametrize("late_ns", [-1, 0, 1])
def test_giving_back_at_the_edge_of_the_window(late_ns: int) -> None:
    """What is settled when it has just left its window frees nothing of what others have taken since."""
    clock = Clock()
    limits = Limits([TOKENS], clock)
    first = ticket_of(limits.admit(K1, Bound(0, 60)))
    clock.now_ns += SECOND_NS
    limits.admit(K1, Bound(0, 40))
    clock.now_ns += 59 * SECOND_NS + late_ns
    assert limits.standing(K1).tokens == Gauge(100, 0 if late_ns < 0 else 60, 1 - late_ns / SECOND_NS)
    limits.settle(first, NOTHING)
    assert limits.standing(K1).tokens == Gauge(100, 60, 1 - late_ns / SECOND_NS)


def test_slots_are_freed_however_a_call_ends() -> None:
    """A thousand calls that are settled, released, or both, in any order leave no slot taken."""
    rules = [Rule(4, 0.0, "", ("key",), IN_FLIGHT), Rule(6, 0.0, "", ("global",), IN_FLIGHT)]
    limits = Limits(rules, Clock())
    dice = random.Random(1)
    held: list[Ticket] = []
    refused = 0
    for _ in range(1000):
        standing = limits.admit(Facts(7, dice.choice(["k1", "k2"])))
        refused += not standing.admitted
        if standing.ticket is not None:
            held.append(standing.ticket)
        else:
            assert standing.retry_after_seconds == 1.0
        assert len(held) <= 6
        while held and dice.random() < 0.4:
            ticket = held.pop(dice.randrange(len(held)))
            if dice.random() < 0.5:
                limits.settle(ticket, NOTHING)
            limits.release(ticket)
            limits.settle(ticket, NOTHING)
    assert refused > 50
    for ticket in held:
        limits.release(ticket)
    assert [limits.admit(Facts(7, "k1")).admitted for _ in range(5)] == [True] * 4 + [False]
    meter = limits._watches[1].meter
    assert meter.used("", 0) == 4


def test_a_released_call_was_never_there() -> None:
    """What a later guard refuses takes nothing, of requests, tokens, money and slots alike; nor of an address."""
    rules = [
        Rule(2, 60.0, "minute"),
        Rule(3, 60.0, "minute", ("key",)),
        TOKENS,
        Rule(10, 60.0, "minute", ("global",), "usd"),
        Rule(1, 0.0, "", ("key",), IN_FLIGHT),
    ]
    limits = Limits(rules, Clock())
    before = limits.standing(K1)
    for _ in range(10):
        limits.release(ticket_of(limits.admit(K1, Bound(50, 50, 10))))
        assert limits.standing(K1) == before
    plain = Limits(rules[:1], Clock())
    for _ in range(10):
        limits.release(ticket_of(plain.admit(K1)))
    assert plain.standing(K1).remaining == 2


def test_large_limits_on_addresses_give_back_too() -> None:
    """Where the calls of an address are counted coarsely, one that is released at once leaves no trace."""
    clock = Clock()
    limits = Limits([Rule(100, 60.0, "minute")], clock, exact_up_to=3)
    for taken in range(50):
        clock.now_ns += MS_NS
        assert limits.admit(K1).remaining == 99 - taken
        clock.now_ns += MS_NS
        limits.release(ticket_of(limits.admit(K1)))
        assert limits.standing(K1).remaining == 99 - taken


def test_of_equals_the_slowest_is_told() -> None:
    """Of two limits with the same left, the headers tell the one that takes longer to be unused again."""
    for windows in ((60.0, 3600.0), (3600.0, 60.0)):
        rules = [Rule(4, window, "window", (scope,)) for window, scope in zip(windows, ("key", "global"), strict=True)]
        assert Limits(rules, Clock()).admit(K1).reset_seconds == 3600.0
        rules = [Rule(4, rule.window_seconds, "window", rule.scope, "tokens") for rule in rules]
        assert Limits(rules, Clock()).admit(K1, Bound(1, 1)).tokens == Gauge(4, 2, 3600.0)


def test_money_needs_a_price() -> None:
    """Where money is limited, a model without a price is refused, and takes nothing; elsewhere it may be used."""
    limits = Limits([Rule(5, 60.0, "minute", ("key",), "usd"), Rule(1, 60.0, "minute", ("key",))], Clock())
    with pytest.raises(CallerError) as caught:
        limits.admit(K1, Bound(1, 1, None))
    assert (caught.value.kind, caught.value.reason) == (Kind.PERMISSION_DENIED, "price_unknown")
    assert caught.value.parameters == {"model": "m"}
    assert limits.standing(K1).remaining == 1
    assert limits.admit(Facts(7), Bound(1, 1, None)).admitted, "without a key, none of this holds"
    ticket = ticket_of(limits.admit(K1, Bound(1, 1, 4)))
    limits.settle(ticket, Bound(1, 1, None))
    assert not limits.admit(K1, Bound(0, 0, 2)).admitted, "what it did cost is not known either"


def test_combinations_count_apart() -> None:
    """A limit by key and model counts for each pair; one by key for all of its models."""
    limits = Limits([Rule(1, 60.0, "minute", ("key", "model")), Rule(3, 60.0, "minute", ("key",))], Clock())
    asked = [("k1", "a"), ("k1", "a"), ("k1", "b"), ("k2", "a"), (None, "a"), ("k1", "c"), ("k1", "d")]
    assert [limits.admit(Facts(7, key, model)).admitted for key, model in asked] == [
        True,
        False,
        True,
        True,
        True,
        True,
        False,
    ]


def test_attempts_are_limited_by_upstream() -> None:
    """What is limited by upstream is asked for each attempt, and not when a call is admitted."""
    limits = Limits([Rule(1, 60.0, "minute", ("upstream",)), Rule(1, 60.0, "minute", ("key", "upstream"))], Clock())
    assert limits.limit_attempts
    assert not Limits([TOKENS], Clock()).limit_attempts
    assert limits.admit(K1).ticket is None
    first = limits.admit_attempt(Facts(7, "k1", "m", "openai"))
    assert (first.admitted, first.limit, first.remaining) == (True, 1, 0)
    assert not limits.admit_attempt(Facts(7, "k2", "m", "openai")).admitted
    assert limits.admit_attempt(Facts(7, "k2", "m", "backup")).admitted
    limits.release(ticket_of(first))
    assert limits.admit_attempt(Facts(7, "k1", "m", "openai")).admitted
    assert Limits([TOKENS], Clock()).admit_attempt(Facts(7, "k1", "m", "openai")) is UNLIMITED


def test_a_keys_own_rules_join_the_configured_ones() -> None:
    """They count for that key alone, apart from configured ones that read the same, and only for their models."""
    limits = Limits([Rule(3, 60.0, "minute", ("key",))], Clock())
    more = rules_of_key([KeyLimit("requests", 2, "minute"), KeyLimit("requests", 1, "minute", "gpt-*o")])
    assert [rule.amount for rule in limits.admit(Facts(7, "k1", "gpt-4o"), NOTHING, more).reached] == []
    assert limits.admit(Facts(7, "k1", "gpt-5o"), NOTHING, more).reached == more[1:]
    assert limits.admit(Facts(7, "k1", "GPT-5o"), NOTHING, more).admitted
    assert limits.admit(Facts(7, "k1", "other"), NOTHING, more).reached == more[:1]
    assert limits.standing(Facts(7, "k1"), more).remaining == 0
    assert limits.standing(Facts(7, "k1")).remaining == 1
    assert limits.admit(Facts(7, "k2", "gpt-4o"), NOTHING, more).remaining == 0, "k2 has its own"


def test_changed_rules_of_a_key_go_on_counting() -> None:
    """When an operator changes the amounts of a key, what it took counts on; equal rules are recognised."""
    limits = Limits([], Clock())
    assert [limits.admit(K1, NOTHING, rules_of_key([KeyLimit("requests", 3, "day")])).remaining for _ in "ab"] == [2, 1]
    assert not limits.admit(K1, NOTHING, rules_of_key([KeyLimit("requests", 2, "day")])).admitted
    assert limits.admit(K1, NOTHING, rules_of_key([KeyLimit("requests", 9, "day")])).remaining == 6


def test_of_two_amounts_for_the_same_the_lower_counts() -> None:
    """Rules that count the same are one; it takes a call once."""
    own = rules_of_key([KeyLimit("tokens", 50, "minute"), KeyLimit("tokens", 70, "minute")])
    standing = Limits([], Clock()).admit(K1, Bound(10, 10), own)
    assert standing.tokens == Gauge(50, 30, 60.0)


def test_a_reload_goes_on_counting() -> None:
    """Limits that follow others know what these have counted, and tickets of the one are good with the other."""
    clock = Clock()
    slots = Rule(2, 0.0, "", ("key",), IN_FLIGHT)
    old = Limits([Rule(2, 60.0, "minute"), TOKENS, slots], clock)
    own = rules_of_key([KeyLimit("requests", 2, "minute")])
    ticket = ticket_of(old.admit(K1, Bound(40, 40), own))
    new = Limits(
        [Rule(2, 60.0, "minute"), Rule(120, 60.0, "minute", ("key",), "tokens"), slots], clock, predecessor=old
    )
    assert new.standing(K1).remaining == 1
    assert new.standing(K1).tokens == Gauge(120, 40, 60.0)
    assert new.standing(K1, own).remaining == 1
    new.settle(ticket, Bound(10, 10))
    assert new.standing(K1).tokens == Gauge(120, 100, 60.0)
    assert [new.admit(Facts(8, "k1")).admitted for _ in range(3)] == [True, True, False], "the slot is free"
    other = Limits([Rule(3, 60.0, "minute")], clock, predecessor=new)
    assert other.standing(K1).remaining == 3, "other rules on addresses begin anew"


def test_who_needs_a_bound() -> None:
    """Only where tokens or money are limited does a call have to say how much it may take."""
    assert not Limits([Rule(2, 60.0, "minute"), Rule(1, 0.0, "", ("key",), IN_FLIGHT)], Clock()).needs_bound()
    assert Limits([TOKENS], Clock()).needs_bound()
    plain = Limits([], Clock())
    assert not plain.needs_bound(rules_of_key([KeyLimit("requests", 1, "day")]))
    assert plain.needs_bound(rules_of_key([KeyLimit("usd", 1, "day")]))


def test_no_rules() -> None:
    """Without rules every call is admitted, and there is nothing to give back."""

    def no_clock() -> int:
        raise AssertionError

    limits = Limits([], no_clock)
    assert not limits
    assert limits.admit(K1) is limits.standing(K1) is limits.admit_attempt(K1) is UNLIMITED
    assert all(Limits([rule], Clock()) for rule in (TOKENS, Rule(1, 1.0, "s"), Rule(1, 1.0, "s", ("upstream",))))


def test_addresses_and_others_are_all_or_none() -> None:
    """What a key's rule refuses is not taken from its address, and the other way round; both are named."""
    by_address, by_key = Rule(2, 60.0, "minute"), Rule(1, 3600.0, "hour", ("key",))
    limits = Limits([by_address, by_key], Clock())
    assert limits.admit(K1).admitted
    refused = limits.admit(K1)
    assert (refused.reached, refused.retry_after_seconds) == ((by_key,), 3600.0)
    assert (refused.limit, refused.remaining, refused.reset_seconds) == (1, 0, 3600.0)
    assert limits.admit(Facts(7, "k2")).remaining == 0
    assert limits.admit(Facts(7, "k3")).reached == (by_address,)
    assert limits.admit(Facts(8, "k3")).admitted, "k3 had lost nothing"
    assert limits.admit(K1).reached == (by_address, by_key)


def test_a_key_is_never_forgotten_early_by_a_flood_of_addresses() -> None:
    """Limits by address and key together remember in a fixed memory, and nobody gets more than allowed."""
    rules = [Rule(2, 60.0, "minute", ("address", "key"), "tokens"), Rule(2, 60.0, "minute", ("model",), "tokens")]
    limits = Limits(rules[:1], Clock(), max_callers=50)
    assert limits.admit(K1, Bound(0, 2)).admitted
    for stranger in range(1000):
        limits.admit(Facts(1 << 64 | stranger << 30, f"k{stranger}"), Bound(0, 2))
    assert not limits.admit(K1, Bound(0, 1)).admitted
    for rule in rules:
        (watch,) = Limits([rule], Clock())._watches
        assert isinstance(watch.meter, WindowMeter)
        table = watch.meter._logs
        entries = 2 * watch.meter._exact
        total = (table._max_callers + table._max_shared) * (module._ENTRY_BYTES + module._STAMP_BYTES * entries)
        assert total <= 256 << 20
        assert table._max_callers > 1000


def test_a_log_stays_short_and_small() -> None:
    """However many calls there are in a window, a log has a bounded number of entries, and counts exactly."""
    clock = Clock()
    limits = Limits([Rule(10**9, 3600.0, "hour", ("key",), "tokens")], clock)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20_000):
            clock.now_ns += MS_NS
            limits.settle(ticket_of(limits.admit(K1, Bound(10, 90))), Bound(10, 15))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < module._ENTRY_BYTES + module._STAMP_BYTES * 2 * 2048
    tokens = limits.standing(K1).tokens
    assert tokens is not None
    assert tokens.remaining == 10**9 - 20_000 * 25


@pytest.mark.parametrize("amount", [1, 7, 2048, 2049, 5000])
def test_a_whole_amount_fits_into_an_empty_window(amount: int) -> None:
    """However large the amount, exactly that many calls of a key fit, and again as soon as the window is empty."""
    clock = Clock()
    limits = Limits([Rule(amount, 60.0, "minute", ("key",))], clock)
    for _ in range(2):
        for _ in range(amount):
            clock.now_ns += 1000
            assert limits.admit(K1).admitted
        assert not limits.admit(K1).admitted
        clock.now_ns += 60 * SECOND_NS - 1000


@pytest.mark.parametrize("pace", [3, 40])
def test_large_limits_are_nearly_exact(pace: int) -> None:
    """Where entries are merged, what leaves a window late is less than 0.4 % of the limit."""
    clock = Clock()
    limits = Limits([Rule(100_000, 60.0, "minute", ("key",), "tokens")], clock)
    dice = random.Random(pace)
    taken: deque[tuple[int, int]] = deque()
    used = 0
    for _ in range(20_000):
        clock.now_ns += dice.randrange(pace * MS_NS)
        amount = dice.randrange(1, 100)
        while taken and taken[0][0] <= clock.now_ns - 60 * SECOND_NS:
            used -= taken.popleft()[1]
        admitted = limits.admit(K1, Bound(0, amount)).admitted
        if admitted:
            taken.append((clock.now_ns, amount))
            used += amount
            assert used <= 100_000
        else:
            assert used + amount > 100_000 * 0.996


def test_headers_tell_requests_and_tokens() -> None:
    """Each has three lines of its own, of its tightest rule; money and slots have none."""
    rules = [
        Rule(9, 60.0, "minute", ("key",)),
        Rule(5, 3600.0, "hour", ("global",)),
        TOKENS,
        Rule(80, 3600.0, "hour", ("key",), "output_tokens"),
        Rule(10, 60.0, "minute", ("key",), "usd"),
        Rule(1, 0.0, "", ("key",), IN_FLIGHT),
    ]
    assert ratelimit_headers(Limits(rules, Clock()).admit(K1, Bound(20, 30, 5))) == (
        b"x-ratelimit-limit-requests: 5\r\n"
        b"x-ratelimit-remaining-requests: 4\r\n"
        b"x-ratelimit-reset-requests: 1h0m0s\r\n"
        b"x-ratelimit-limit-tokens: 80\r\n"
        b"x-ratelimit-remaining-tokens: 50\r\n"
        b"x-ratelimit-reset-tokens: 1h0m0s\r\n"
    )
    assert ratelimit_headers(Limits(rules[4:], Clock()).admit(K1, Bound(20, 30, 5))) == b""
    assert ratelimit_headers(Limits(rules[2:3], Clock()).admit(K1, Bound(20, 30, 5))).startswith(
        b"x-ratelimit-limit-tokens: 100\r\n"
    )


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule(5, 60.0, "minute"), "5 per minute"),
        (Rule(500, 60.0, "minute", ("key",), "tokens"), "500 tokens per minute"),
        (Rule(500, 3600.0, "hour", ("key",), "input_tokens"), "500 input tokens per hour"),
        (Rule(500, 3600.0, "hour", ("key",), "output_tokens"), "500 output tokens per hour"),
        (Rule(1_500_000_000, 86_400.0, "day", ("key",), "usd"), "$1.5 per day"),
        (Rule(4, 0.0, "", ("key",), IN_FLIGHT), "4 at the same time"),
    ],
)
def test_rules_have_words(rule: Rule, text: str) -> None:
    """A caller can be told of every rule, in every language."""
    catalogues = Catalogues()
    assert catalogues.translate("en_US", rule.phrase) == text
    number = text.strip("$").split()[0]
    for language in LANGUAGES:
        said = catalogues.translate(language, Phrase("call_exceeds_limit", {"limits": (rule.phrase,)}))
        assert number in said
        assert "…" not in said
        assert "window" not in said


@pytest.mark.parametrize("per", WINDOW_SECONDS)
@pytest.mark.parametrize("resource", [resource for resource in RESOURCES if resource != IN_FLIGHT])
def test_every_window_has_words(per: str, resource: str) -> None:
    """No message is missing for any resource in any window."""
    phrase = rule_of(1, per, ("key",), resource).phrase
    for language in LANGUAGES:
        said = Catalogues().translate(language, phrase)
        assert "window" not in said
        assert "limit" not in said


@pytest.mark.parametrize(
    "wrong",
    [
        ("requests", 0.0, ("key",), 1),
        ("in_flight", 1.0, ("key",), 1),
        ("requests", 1.0, (), 1),
        ("requests", 1.0, ("owner",), 1),
        ("calls", 1.0, ("key",), 1),
        ("requests", 1.0, ("key",), 0),
        ("usd", 1.0, ("key",), MAX_AMOUNT + 1),
    ],
)
def test_senseless_rules_are_mistakes(wrong: tuple[str, float, tuple[str, ...], int]) -> None:
    """A rule that would admit nothing, hold for no time or count nothing known cannot be made."""
    resource, window_seconds, scope, amount = wrong
    with pytest.raises(ValueError, match="limit"):
        Rule(amount, window_seconds, "second", scope, resource)


def test_limits_of_a_key_become_rules() -> None:
    """Each becomes one by key; an amount of 0 is none, and what cannot be understood is refused."""
    limits = [
        KeyLimit("requests", 100, "minute"),
        KeyLimit("usd", 5, "month", "gpt-*"),
        KeyLimit("in_flight", 2),
        KeyLimit("tokens", 0, "day"),
    ]
    assert rules_of_key(limits) == (
        Rule(100, 60.0, "minute", ("key",)),
        Rule(5, 30 * 86_400.0, "month", ("key",), "usd", "gpt-*"),
        Rule(2, 0.0, "", ("key",), IN_FLIGHT),
    )
    for wrong in (KeyLimit("requests", 1), KeyLimit("calls", 1, "day"), KeyLimit("tokens", 1, "year")):
        with pytest.raises(ValueError, match="limit"):
            rules_of_key([wrong])
