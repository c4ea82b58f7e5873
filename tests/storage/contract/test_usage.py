"""What was used is summed up alike on both databases, exactly, in the groups that were asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chatgate.accounting.usage import Usage as Tokens
from chatgate.storage import keys, ledger
from chatgate.storage.database import Database
from chatgate.storage.usage import Usage, usage
from chatgate.vocabulary.keys import NewKey
from storage.records import NOON, dispatch, failure, fold, settlement

MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _calls(database: Database) -> None:
    """Have calls of a key, of one that is gone and of nobody, on two days, one retried and one interrupted."""
    database.write(keys.create, NewKey("laptop"), "k1", "digest", "", NOON)
    before = MIDNIGHT - timedelta(microseconds=1)
    fold(
        database,
        dispatch("a", at=before),
        failure("a", cost_nano_usd=99),
        dispatch("a", attempt=2, at=before, upstream="second"),
        settlement("a", 30, 2),
        dispatch("b", at=MIDNIGHT),
        settlement("b", 12, usage=Tokens(7, 5)),
        dispatch("c", key_id="k2", owner="bob", asked_model="slow", at=MIDNIGHT),
        settlement("c", 50, usage=Tokens(1, 1)),
        dispatch("d", key_id="", owner="", asked_model="demo/echo", at=NOON),
        settlement("d", 0, usage=None),
        dispatch("e", 900, ("x",), at=MIDNIGHT),
    )
    database.write(ledger.interrupt, "0", MIDNIGHT)
    fold(database, dispatch("open", 4), first=1000)


def test_calls_are_grouped_and_the_dearest_come_first(database: Database) -> None:
    """By key and model, with the key's name while it exists; the interrupted call counts at its bound."""
    assert database.read(usage, ["key", "model"]) == [
        Usage(("k1", "fast"), "laptop", 3, 107, 25, 942, 1, 900),
        Usage(("k2", "slow"), None, 1, 1, 1, 50, 0, 0),
        Usage(("", "demo/echo"), None, 1, 0, 0, 0, 0, 0),
    ]


def test_days_are_those_of_utc_and_come_in_their_order(database: Database) -> None:
    """A call belongs to the day on which the attempt that ended it was sent."""
    found = database.read(usage, ["day", "owner"])
    assert [(each.group, each.calls, each.cost_nano_usd) for each in found] == [
        (("2026-11-23", "alice"), 1, 30),
        (("2026-11-23", ""), 1, 0),
        (("2026-11-24", "alice"), 2, 912),
        (("2026-11-24", "bob"), 1, 50),
    ]


def test_the_upstream_is_the_one_that_ended_the_call(database: Database) -> None:
    """A retried call counts once, and not for the one that failed."""
    found = {each.group: each.calls for each in database.read(usage, ["upstream"])}
    assert found == {("openai",): 4, ("second",): 1}


def test_without_groups_there_is_one_sum(database: Database) -> None:
    """And nothing at all when no call fits."""
    assert database.read(usage) == [Usage((), None, 5, 108, 26, 992, 1, 900)]
    assert database.read(usage, since=MIDNIGHT + timedelta(seconds=1)) == []


def test_a_span_and_a_key_or_an_owner_narrow_it(database: Database) -> None:
    """From a moment, that one included, until another, that one not included."""

    def calls(**which: Any) -> int:
        found: list[Usage] = database.read(usage, **which)
        return sum(each.calls for each in found)

    assert calls(since=MIDNIGHT) == 3
    assert calls(until=MIDNIGHT) == 2
    assert calls(since=NOON, until=NOON + timedelta(microseconds=1)) == 1
    assert calls(key_id="k1") == 3
    assert calls(owner="bob") == 1
    assert calls(key_id="k1", owner="bob") == 0


def test_sums_are_exact_beyond_what_a_float_holds(database: Database) -> None:
    """A million dollars a call, to the nano-dollar."""
    for number in range(20):
        charge = 10**15 - number
        fold(database, dispatch(f"x{number}", asked_model="dear"), settlement(f"x{number}", charge), first=number * 100)
    (found,) = (each for each in database.read(usage, ["model"]) if each.group == ("dear",))
    assert found.cost_nano_usd == 20 * 10**15 - 190
