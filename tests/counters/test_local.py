"""The counters of one process: limits and budgets, all or nothing."""

from __future__ import annotations

import pytest

from chatgate.accounting.holds import Budget, Hold, Refusal
from chatgate.admission.limits import Bound, Facts, Limits, Rule
from chatgate.counters.local import LocalCounters
from chatgate.vocabulary.errors import Overloaded

RULES = (Rule(10, 60.0, "minute", ("key",)), Rule(1, 0.0, "", ("key",), "in_flight"))
FACTS = Facts(7, "k1", "m")
BUDGETS = (Budget("key", "k1", "day", 100),)


def counters(answer: Hold | Refusal | Exception) -> LocalCounters:
    """Return counters whose budgets give one answer."""

    def reserve(call_id: str, budgets: tuple[Budget, ...], nano_usd: int | None) -> Hold | Refusal:
        assert (call_id, budgets, nano_usd) == ("c1", BUDGETS, 5)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return LocalCounters(Limits([], lambda: 1), reserve)


def test_what_is_taken_of_both_is_told() -> None:
    """The money as a hold, the limits as a receipt that ends it."""
    both = counters(Hold("c1", 5, ("key/k1/day/2026-11-23",)))
    taken = both.take(FACTS, Bound(1, 1, 5), RULES, "c1", BUDGETS)
    assert taken.standing.admitted
    assert isinstance(taken.hold, Hold)
    assert not both.take(FACTS, Bound(1, 1, 5), RULES, "c1", BUDGETS).standing.admitted
    both.settle(taken.receipt, Bound())
    assert both.take(FACTS, Bound(1, 1, 5), RULES, "c1", BUDGETS).standing.remaining == 8


@pytest.mark.parametrize("answer", [Refusal((), None), Overloaded("accounting_unavailable")])
def test_without_the_money_nothing_is_taken_of_the_limits(answer: Refusal | Exception) -> None:
    """Neither when it is refused nor when it cannot be told."""
    both = counters(answer)
    if isinstance(answer, Refusal):
        taken = both.take(FACTS, Bound(1, 1, 5), RULES, "c1", BUDGETS)
        assert (taken.hold, taken.receipt, taken.standing.remaining) == (answer, None, 10)
    else:
        with pytest.raises(Overloaded):
            both.take(FACTS, Bound(1, 1, 5), RULES, "c1", BUDGETS)
    standing = both.standing(FACTS, RULES)
    assert (standing.admitted, standing.remaining) == (True, 10)


def test_a_call_that_the_limits_refuse_asks_for_no_money() -> None:
    """The reserve here would fail if it were asked."""
    both = counters(RuntimeError("asked"))
    first = both.take(FACTS, Bound(1, 1, 5), RULES)
    refused = both.take(FACTS, Bound(1, 1, 5), RULES, "c1", BUDGETS)
    assert (refused.standing.admitted, refused.hold, refused.receipt) == (False, None, None)
    both.release(first.receipt)
    assert both.standing(FACTS, RULES).remaining == 10


@pytest.mark.parametrize(
    ("rules", "can_correct"),
    [
        (RULES[:1], False),
        (RULES[1:], True),
        (RULES, True),
        ((Rule(100, 60.0, "minute", ("key",), "tokens"),), True),
        ((Rule(100, 60.0, "minute", ("key",), "usd"),), True),
    ],
)
def test_only_what_calls_use_is_corrected(rules: tuple[Rule, ...], *, can_correct: bool) -> None:
    """A call counts as one whatever it used; tokens, money and slots are what they turn out to be."""
    both = counters(RuntimeError("asked"))
    receipt = both.take(FACTS, Bound(1, 1, 5), rules).receipt
    assert both.can_correct(receipt) is can_correct
    both.release(receipt)
    assert not both.can_correct(receipt)
