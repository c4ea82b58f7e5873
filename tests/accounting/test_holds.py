"""Holds: never more admitted than a budget has, in all of its budgets or in none, settled once."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.accounting.holds import Account, Budget, Hold, Holds, Refusal
from chatgate.accounting.periods import Per, end_of, start_of

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = Budget("key", "k1", "day", 1000)
OWNER = Budget("owner", "alice", "month", 5000)
ALL = Budget("global", "", "ever", 10_000)


def held(answer: Hold | Refusal) -> Hold:
    """Return the hold that a call got."""
    assert isinstance(answer, Hold)
    return answer


def refused(answer: Hold | Refusal) -> Refusal:
    """Return the refusal that a call got."""
    assert isinstance(answer, Refusal)
    return answer


def test_a_call_is_held_in_all_its_accounts() -> None:
    """The names are those of the periods at the time of the call."""
    holds = Holds()
    hold = held(holds.reserve("c1", [KEY, OWNER, ALL], 400, NOON))
    assert hold.accounts == ("key/k1/day/2026-11-23", "owner/alice/month/2026-11-01", "global//ever/1970-01-01")
    assert holds.totals() == dict.fromkeys(hold.accounts, (0, 400))


def test_a_refusal_takes_nothing_anywhere() -> None:
    """The last budget without room spares the first."""
    holds = Holds()
    refusal = refused(holds.reserve("c1", [ALL, OWNER, KEY], 1001, NOON))
    assert [standing.budget for standing in refusal.reached] == [KEY]
    assert holds.totals() == {}
    assert len(holds) == 0


async def test_of_fifty_parallel_calls_with_room_for_ten_ten_are_admitted() -> None:
    """However they interleave, what they hold together stays within the limit to the nano-dollar."""
    holds = Holds()

    async def call(number: int) -> bool:
        await asyncio.sleep(0)
        answer = holds.reserve(f"c{number}", [KEY], 100, NOON)
        await asyncio.sleep(0)
        return isinstance(answer, Hold)

    admitted = await asyncio.gather(*(call(number) for number in range(50)))
    assert sum(admitted) == 10
    assert holds.standing(KEY, NOON).remaining_nano_usd == 0


def test_the_last_nano_dollar_can_be_spent_and_no_other() -> None:
    """A limit is reached exactly."""
    holds = Holds()
    held(holds.reserve("c1", [KEY], 999, NOON))
    refused(holds.reserve("c2", [KEY], 2, NOON))
    held(holds.reserve("c3", [KEY], 1, NOON))
    refused(holds.reserve("c4", [KEY], 1, NOON))


def test_settling_spends_the_true_cost_and_frees_the_rest() -> None:
    """What was reserved above the cost can be used again."""
    holds = Holds()
    held(holds.reserve("c1", [KEY, ALL], 1000, NOON))
    assert holds.settle("c1", 150)
    assert holds.totals() == {"key/k1/day/2026-11-23": (150, 0), "global//ever/1970-01-01": (150, 0)}
    held(holds.reserve("c2", [KEY], 850, NOON))


def test_settling_or_releasing_again_changes_nothing() -> None:
    """Every way out of a call may settle it; the first one counts."""
    holds = Holds()
    held(holds.reserve("c1", [KEY], 500, NOON))
    assert holds.settle("c1", 100)
    before = dict(holds.totals())
    assert not holds.settle("c1", 100)
    assert not holds.release("c1")
    assert not holds.settle("never-held", 5)
    assert holds.totals() == before


def test_a_released_hold_never_was() -> None:
    """A call that is not dispatched costs nothing."""
    holds = Holds()
    held(holds.reserve("c1", [KEY], 500, NOON))
    assert holds.release("c1")
    assert holds.totals() == {}


def test_a_cost_above_its_bound_is_shown_as_debt() -> None:
    """The overshoot is spent and seen, and nothing more is admitted."""
    holds = Holds()
    held(holds.reserve("c1", [KEY], 1000, NOON))
    holds.settle("c1", 1300)
    standing = holds.standing(KEY, NOON)
    assert (standing.spent_nano_usd, standing.remaining_nano_usd, standing.debt_nano_usd) == (1300, 0, 300)
    assert standing.resets_at == datetime(2026, 11, 24, tzinfo=UTC)
    refused(holds.reserve("c2", [KEY], 0, NOON))


def test_a_new_period_begins_with_nothing_spent_and_old_holds_stay_where_they_are() -> None:
    """A call that ends tomorrow is charged to today."""
    holds = Holds()
    held(holds.reserve("c1", [KEY], 1000, NOON))
    tomorrow = NOON + timedelta(days=1)
    held(holds.reserve("c2", [KEY], 1000, tomorrow))
    holds.settle("c1", 900)
    assert holds.totals() == {"key/k1/day/2026-11-23": (900, 0), "key/k1/day/2026-11-24": (0, 1000)}


def test_a_clock_that_is_set_back_finds_what_was_spent() -> None:
    """Neither an hour forth and back across midnight nor forgetting the past gives a budget away."""
    holds = Holds()
    held(holds.reserve("c1", [KEY], 1000, NOON))
    holds.settle("c1", 1000)
    assert holds.forget(NOON + timedelta(days=1)) == 0
    refused(holds.reserve("c2", [KEY], 1, NOON))
    assert holds.forget(NOON + timedelta(days=2)) == 1


def test_forgetting_keeps_what_is_held_and_what_never_ends() -> None:
    """Only periods that are over, and over for a whole period, go."""
    holds = Holds()
    budgets = [Budget("key", "k1", per, 100) for per in ("day", "week", "month", "ever")]
    held(holds.reserve("open", [KEY], 1, NOON - timedelta(days=400)))
    held(holds.reserve("c1", budgets, 1, NOON - timedelta(days=70)))
    held(holds.reserve("c2", budgets, 1, NOON))
    holds.settle("c1", 1)
    holds.settle("c2", 1)
    assert holds.forget(NOON) == 3
    assert set(holds.totals()) == {
        "key/k1/day/2025-10-19",
        "key/k1/day/2026-11-23",
        "key/k1/week/2026-11-23",
        "key/k1/month/2026-11-01",
        "key/k1/ever/1970-01-01",
    }
    assert holds.settle("open", 1)


def test_a_refusal_tells_when_it_ends() -> None:
    """The latest of the resets in the way; never for what never resets, or for what no limit could hold."""
    holds = Holds()
    spent = [Budget("key", "k1", "day", 100), Budget("owner", "alice", "week", 100), Budget("owner", "bob", "day", 900)]
    held(holds.reserve("c1", spent, 100, NOON))
    refusal = refused(holds.reserve("c2", spent, 100, NOON))
    assert [standing.budget.subject for standing in refusal.reached] == ["k1", "alice"]
    assert refusal.retry_at == datetime(2026, 11, 30, tzinfo=UTC)
    assert refused(holds.reserve("c3", spent, 101, NOON)).retry_at is None
    held(holds.reserve("c4", [ALL], 10_000, NOON))
    assert refused(holds.reserve("c5", [ALL], 1, NOON)).retry_at is None


def test_a_soft_threshold_warns_once_in_a_period() -> None:
    """The call that reaches it says so; those after it do not."""
    holds = Holds()
    assert held(holds.reserve("c1", [KEY, ALL], 799, NOON)).warnings == ()
    assert held(holds.reserve("c2", [KEY, ALL], 1, NOON)).warnings == (KEY,)
    assert held(holds.reserve("c3", [KEY, ALL], 1, NOON)).warnings == ()
    assert held(holds.reserve("c4", [KEY, ALL], 900, NOON + timedelta(days=1))).warnings == (KEY,)
    quiet = Budget("key", "k2", "day", 1000, warn_at_percent=0)
    assert held(holds.reserve("c5", [quiet], 1000, NOON)).warnings == ()


def test_two_limits_on_one_account_are_both_kept_and_hold_once() -> None:
    """The stricter one decides, and the money is set aside one time."""
    holds = Holds()
    strict = Budget("key", "k1", "day", 300)
    refused(holds.reserve("c1", [KEY, strict], 301, NOON))
    held(holds.reserve("c2", [KEY, strict], 300, NOON))
    assert holds.totals() == {"key/k1/day/2026-11-23": (0, 300)}
    holds.settle("c2", 300)
    assert holds.totals() == {"key/k1/day/2026-11-23": (300, 0)}


def test_what_was_spent_before_is_loaded() -> None:
    """A start goes on from the rows; what is held already stays held."""
    holds = Holds()
    held(holds.reserve("c1", [KEY], 100, NOON))
    holds.load("key/k1/day/2026-11-23", 800)
    held(holds.reserve("c2", [KEY], 100, NOON))
    refused(holds.reserve("c3", [KEY], 1, NOON))
    assert [hold.call_id for hold in holds.open_holds()] == ["c1", "c2"]


def test_what_others_spent_is_added_to_what_was_spent_here() -> None:
    """What was known when the rows were told counts once, what came since stays, and what the rows lost is not lost."""
    holds = Holds()
    account = held(holds.reserve("c1", [KEY], 100, NOON)).accounts[0]
    holds.settle("c1", 70)
    held(holds.reserve("c2", [KEY], 100, NOON))
    holds.settle("c2", 20)
    holds.load(account, 70 + 5, known_nano_usd=70)
    assert holds.totals() == {account: (95, 0)}
    holds.load(account, 60, known_nano_usd=95)
    assert holds.totals() == {account: (95, 0)}


def test_misuse_is_noticed() -> None:
    """A call is held once, never for less than nothing, and never at a time that could mean anything."""
    holds = Holds()
    held(holds.reserve("c1", [KEY], 1, NOON))
    for call_id, amount, at in (("c1", 1, NOON), ("c2", -1, NOON), ("c2", 1, NOON.replace(tzinfo=None))):
        with pytest.raises(ValueError, match=r"held once|zone"):
            holds.reserve(call_id, [KEY], amount, at)
    with pytest.raises(ValueError, match="earns"):
        holds.settle("c1", -1)
    assert holds.totals() == {"key/k1/day/2026-11-23": (0, 1)}


def test_periods_go_by_utc() -> None:
    """A server or a caller in another zone changes nothing."""
    kamchatka = timezone(timedelta(hours=12))
    hold = held(Holds().reserve("c1", [KEY], 1, datetime(2026, 11, 24, 3, tzinfo=kamchatka)))
    assert hold.accounts == ("key/k1/day/2026-11-23",)


@pytest.mark.parametrize(
    ("day", "per", "start", "end"),
    [
        (date(2026, 11, 23), "day", date(2026, 11, 23), date(2026, 11, 24)),
        (date(2026, 12, 31), "day", date(2026, 12, 31), date(2027, 1, 1)),
        (date(2027, 1, 3), "week", date(2026, 12, 28), date(2027, 1, 4)),
        (date(2026, 11, 23), "week", date(2026, 11, 23), date(2026, 11, 30)),
        (date(2028, 2, 29), "month", date(2028, 2, 1), date(2028, 3, 1)),
        (date(2026, 12, 31), "month", date(2026, 12, 1), date(2027, 1, 1)),
    ],
)
def test_the_calendar(day: date, per: Per, start: date, end: date) -> None:
    """Weeks begin on Monday, months on the first, and each ends where the next begins."""
    assert start_of(day, per) == start
    assert end_of(day, per) == datetime(end.year, end.month, end.day, tzinfo=UTC)


@given(st.dates(date(1970, 1, 1), date(2999, 12, 31)), st.sampled_from(["day", "week", "month"]))
def test_every_day_is_in_one_period(day: date, per: Per) -> None:
    """A period holds its days, and all of them agree on where it begins and ends."""
    start, end = start_of(day, per), end_of(day, per)
    assert end is not None
    assert start <= day < end.date()
    assert start_of(start, per) == start_of(end.date() - timedelta(days=1), per) == start
    assert start_of(end.date(), per) == end.date()


@given(st.sampled_from(["key", "owner", "global"]), st.text(max_size=20), st.sampled_from(["day", "ever"]), st.dates())
def test_accounts_survive_their_names(scope: str, subject: str, per: str, starts_on: date) -> None:
    """Whatever an owner is called, slashes included."""
    account = Account(scope, subject, per, starts_on)
    assert Account.parse(account.name) == account


def test_learning_adds_what_was_not_known() -> None:
    """As often as it is told, and never less than what is known here."""
    holds = Holds()
    held(holds.reserve("c1", [KEY], 300, NOON))
    account = "key/k1/day/2026-11-23"
    holds.learn({account: 200, "global//ever/1970-01-01": 5}, {account: (50, 0)})
    assert holds.totals() == {account: (150, 300), "global//ever/1970-01-01": (5, 0)}


def test_a_correction_holds_for_its_periods_and_leaves_what_is_held() -> None:
    """What is not named in them is spent by nobody; other periods stay as they are."""
    holds = Holds()
    held(holds.reserve("c1", [KEY, OWNER], 300, NOON - timedelta(days=1)))
    holds.settle("c1", 100)
    held(holds.reserve("c2", [KEY, OWNER, ALL], 300, NOON))
    holds.correct({"key/k1/day/2026-11-23": 40, "key/k2/day/2026-11-23": 7}, {"day/2026-11-23", "month/2026-11-01"})
    assert holds.totals() == {
        "key/k1/day/2026-11-22": (100, 0),
        "key/k1/day/2026-11-23": (40, 300),
        "key/k2/day/2026-11-23": (7, 0),
        "owner/alice/month/2026-11-01": (0, 300),
        "global//ever/1970-01-01": (0, 300),
    }


def test_an_adopted_hold_is_like_one_of_its_own() -> None:
    """It counts in its accounts, is settled once, and cannot be adopted twice."""
    holds, account = Holds(), "key/k1/day/2026-11-23"
    holds.adopt(Hold("c1", 600, (account,)))
    with pytest.raises(ValueError, match="once"):
        holds.adopt(Hold("c1", 600, (account,)))
    refused(holds.reserve("c2", [KEY], 401, NOON))
    assert holds.settle("c1", 10)
    assert not holds.settle("c1", 10)
    assert holds.totals() == {account: (10, 0)}
