"""The book: what a call may cost is known before it is made, and what it did cost is charged once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio

from accounting.books import BACKUP, COST, NOON, PRICES, TARGET, USAGE, Office, begin, call, key, office, serve
from accounting.journals import Clock, records
from chatgate.accounting.book import Book, Quote
from chatgate.accounting.catalogue import Catalogue
from chatgate.accounting.holds import Budget, Holds
from chatgate.accounting.prices import PriceList
from chatgate.accounting.rates import Rates, Tariff
from chatgate.accounting.records import Dispatch, Settlement
from chatgate.accounting.usage import Source, Usage
from chatgate.i18n import LANGUAGES, Catalogues
from chatgate.settings.tree import Price
from chatgate.vocabulary.errors import CallerError, GateError, Kind, Overloaded, Phrase
from chatgate.vocabulary.exchange import Outcome
from chatgate.vocabulary.keys import KeyBudget, KeyRecord
from chatgate.vocabulary.upstreams import Origin, Target, Upstream


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    """Return a data directory with an empty ledger."""
    async with office(tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture
async def book(place: Office) -> AsyncIterator[Book]:
    """Return a book that knows what was spent."""
    opened = place.book()
    assert await opened.tick()
    yield opened
    await opened.close()


def refused(book: Book, call_id: str, record: KeyRecord | None = None, model: str = "cheap") -> GateError:
    """Return what a call is refused with."""
    with pytest.raises(GateError) as caught:
        begin(book, call_id, record, model)
    return caught.value


def settlement(place: Office) -> Settlement:
    """Return the only settlement in the journal."""
    (found,) = [record for record in records(place.directory) if isinstance(record, Settlement)]
    return found


# --- What is written --------------------------------------------------------------------------------------------------


async def test_a_call_becomes_a_row(place: Office, book: Book) -> None:
    """With who asked, what for, where it went, what it took, what that cost and by which price."""
    entry = book.open(call("c1", stream=True))
    entry.dispatch(1, TARGET)
    place.clock.now += 3
    place.now += timedelta(seconds=3)
    charged = entry.settle(
        Outcome.COMPLETED,
        200,
        answered_model="cheap-2026",
        usage=USAGE,
        upstream_request_id="theirs",
        first_token_at=place.clock.now - 1,
    )
    assert charged == entry.charged_nano_usd == COST
    assert entry.tokens == Usage(1000, 200)
    assert await book.tick()
    row = place.rows()["c1", 1]
    assert (row.state, row.outcome, row.status, row.ends_call) == ("settled", "completed", 200, True)
    assert (row.key_id, row.owner, row.address) == (None, "", "192.0.2.1")
    assert (row.operation, row.surface, row.streamed, row.upstream) == ("chat", "openai", True, "openai")
    assert (row.asked_model, row.sent_model, row.answered_model) == ("cheap", "cheap", "cheap-2026")
    assert (row.input_tokens, row.output_tokens, row.usage_source) == (1000, 200, "final")
    assert (row.charged_nano_usd, row.price, row.upstream_request_id) == (COST, "input=0.25 output=2", "theirs")
    assert row.settled_at is not None
    assert row.first_token_at is not None
    assert row.settled_at - row.dispatched_at == 3_000_000
    assert row.settled_at - row.first_token_at == 1_000_000


async def test_a_dispatch_is_on_record_before_the_upstream_is_called(place: Office, book: Book) -> None:
    """And the settlement before the caller sees the end: both at the moment that the book was told."""
    entry = begin(book, "c1")
    assert records(place.directory) == []
    entry.dispatch(1, TARGET)
    (written,) = records(place.directory)
    assert isinstance(written, Dispatch)
    assert (written.call_id, written.attempt, written.at, written.upstream) == ("c1", 1, NOON, "openai")
    entry.settle(Outcome.COMPLETED, 200)
    assert isinstance(records(place.directory)[-1], Settlement)


async def test_a_call_that_was_never_dispatched_leaves_no_record(place: Office, book: Book) -> None:
    """Nothing was done, so nothing is charged, and nothing stays set aside."""
    entry = begin(book, "c1", key(KeyBudget(10**9, "day")))
    assert len(place.holds) == 1
    assert entry.settle(Outcome.REFUSED, 503, "overloaded", sent_bytes=1000) == 0
    assert len(place.holds) == 0
    assert records(place.directory) == []
    assert set(place.holds.totals().values()) <= {(0, 0)}


async def test_settling_again_changes_nothing(place: Office, book: Book) -> None:
    """Whatever is said the second time."""
    entry = begin(book, "c1", key(KeyBudget(10**9, "day")))
    entry.dispatch(1, TARGET)
    assert entry.settle(Outcome.COMPLETED, 200, usage=USAGE) == COST
    assert entry.settle(Outcome.CLIENT_LEFT, 499, got_bytes=10**6) == COST
    assert settlement(place).outcome == "completed"
    assert place.holds.totals() == {"key/k1/day/2026-11-23": (COST, 0)}


# --- Who pays for what ------------------------------------------------------------------------------------------------


async def test_a_call_is_charged_once_whatever_was_retried(place: Office, book: Book) -> None:
    """By the price of the target that served it; what an abandoned attempt may cost is the operator's to know."""
    entry = begin(book, "c1")
    entry.dispatch(1, BACKUP)
    entry.fail(1, "upstream_timeout", abandoned=True, sent_bytes=4000)
    entry.dispatch(2, BACKUP)
    entry.fail(2, "upstream_error", 502)
    entry.dispatch(3, TARGET)
    assert entry.settle(Outcome.COMPLETED, 200, usage=USAGE) == COST
    assert await book.tick()
    rows = place.rows()
    assert [rows["c1", number].state for number in (1, 2, 3)] == ["abandoned", "failed", "settled"]
    assert [rows["c1", number].charged_nano_usd for number in (1, 2, 3)] == [0, 0, COST]
    assert [rows["c1", number].cost_nano_usd for number in (1, 2, 3)] == [10_000_000, 0, 0]
    assert [rows["c1", number].code for number in (1, 2)] == ["upstream_timeout", "upstream_error"]
    assert rows["c1", 2].status == 502


async def test_the_winner_of_two_attempts_at_once_sets_the_price(place: Office, book: Book) -> None:
    """The loser may be given up later, even after the call was settled."""
    entry = begin(book, "c1")
    entry.dispatch(1, TARGET)
    entry.dispatch(2, BACKUP)
    assert entry.settle(Outcome.COMPLETED, 200, attempt=1, usage=USAGE) == COST
    entry.fail(2, "hedged", abandoned=True, sent_bytes=400)
    assert await book.tick()
    rows = place.rows()
    assert [(rows["c1", number].state, rows["c1", number].ends_call) for number in (1, 2)] == [
        ("settled", True),
        ("abandoned", False),
    ]
    assert rows["c1", 2].cost_nano_usd == 1_000_000
    assert place.audit().differences == ()


@pytest.mark.parametrize("outcome", [Outcome.UPSTREAM_FAILED, Outcome.REFUSED])
async def test_what_failed_is_not_billed(place: Office, book: Book, outcome: Outcome) -> None:
    """Even when something was produced: what it took is on record all the same."""
    entry = begin(book, "c1", key(KeyBudget(10**9, "day")))
    entry.dispatch(1, TARGET)
    assert entry.settle(outcome, 502, "upstream_error", usage=USAGE) == 0
    assert place.holds.totals() == {}
    written = settlement(place)
    assert (written.charged_nano_usd, written.code, written.price) == (0, "upstream_error", "input=0.25 output=2")
    assert written.usage == Usage(1000, 200)


async def test_who_leaves_pays_for_what_was_produced(place: Office, book: Book) -> None:
    """By what the provider said so far, else by a count, else by bytes: not for nothing, and not for everything."""
    entries = {name: begin(book, name, key(KeyBudget(10**9, "day"))) for name in ("told", "counted", "bytes", "none")}
    for entry in entries.values():
        entry.dispatch(1, TARGET)
    left = Outcome.CLIENT_LEFT
    half = b'{"prompt_tokens":1000,"completion_tokens":100}'
    assert entries["told"].settle(left, 499, usage=half, usage_is_final=False, sent_bytes=9, got_bytes=9) == 450_000
    assert entries["counted"].settle(left, 499, sent_bytes=4000, got_bytes=9, counted_output_tokens=50) == 350_000
    assert entries["bytes"].settle(left, 499, sent_bytes=4000, got_bytes=400) == 450_000
    assert entries["none"].settle(left, 499) == 0
    found = [record.usage for record in records(place.directory) if isinstance(record, Settlement)]
    assert [None if usage is None else usage.source for usage in found] == [
        Source.PARTIAL,
        Source.ESTIMATED,
        Source.ESTIMATED,
        None,
    ]
    assert place.holds.totals() == {"key/k1/day/2026-11-23": (450_000 + 350_000 + 450_000, 0)}


async def test_numbers_that_cannot_be_are_refused_and_flagged(place: Office, book: Book) -> None:
    """An estimate takes their place; an explicit zero is a number."""
    entry = begin(book, "c1")
    entry.dispatch(1, TARGET)
    raw = b'{"prompt_tokens":-5,"completion_tokens":0}'
    assert entry.settle(Outcome.COMPLETED, 200, usage=raw, sent_bytes=4000, got_bytes=400) == 250_000
    written = settlement(place)
    assert written.usage == Usage(1000, 0, source=Source.ESTIMATED)
    assert written.flaws == ("prompt_tokens:negative",)


async def test_every_kind_of_token_is_kept(place: Office, book: Book) -> None:
    """As the provider told it."""
    entry = begin(book, "c1")
    entry.dispatch(1, TARGET)
    raw = (
        b'{"prompt_tokens":1000,"completion_tokens":200,"prompt_tokens_details":{"cached_tokens":300,'
        b'"cache_write_tokens":50,"audio_tokens":20},"completion_tokens_details":{"reasoning_tokens":40,"audio_tokens":7}}'
    )
    assert entry.settle(Outcome.COMPLETED, 200, usage=raw) == COST
    assert settlement(place).usage == Usage(1000, 200, 300, 50, 40, 20, 7)


async def test_a_call_keeps_the_price_it_was_dispatched_at(place: Office, book: Book) -> None:
    """New prices hold for what is dispatched after them."""
    before, after = begin(book, "c1"), begin(book, "c2")
    before.dispatch(1, TARGET)
    book.set_tariffs(PriceList([Price("cheap", Decimal(1), Decimal(1))], Catalogue()))
    after.dispatch(1, TARGET)
    assert before.settle(Outcome.COMPLETED, 200, usage=USAGE) == COST
    assert after.settle(Outcome.COMPLETED, 200, usage=USAGE) == 1_200_000
    assert len(place.holds) == 0


async def test_without_a_known_price_nothing_is_charged_and_it_shows(book: Book) -> None:
    """As long as no budget depends on it."""
    assert serve(book, "c1", None, "nobody-knows") == 0
    assert book.gauges.unpriced == 1


# --- Quotes -----------------------------------------------------------------------------------------------------------


async def test_a_quote_is_the_most_that_any_target_can_cost(book: Book) -> None:
    """Every byte may be a token, and every choice as long as the caller allows."""
    assert book.quote("cheap", [TARGET], 1000, 200) == Quote(1000, 200, 250_000 + 400_000)
    assert book.quote("cheap", [TARGET, BACKUP], 1000, 200) == Quote(1000, 200, 10_000_000 + 20_000_000)
    assert book.quote("cheap", [TARGET], 1000, 200, choices=3) == Quote(1000, 600, 250_000 + 1_200_000)


async def test_without_a_limit_an_answer_may_fill_the_window(book: Book) -> None:
    """The largest one, of the targets that say how large it is."""
    small, large = (Target(TARGET.upstream, context_tokens=tokens) for tokens in (1000, 5000))
    assert book.quote("cheap", [small, large], 0, None).output_tokens == 5000


async def test_one_unknown_price_makes_the_quote_unknown(book: Book) -> None:
    """The call may go there; and without any target, nothing is known either."""
    unknown = Target(TARGET.upstream, "nobody-knows-this")
    assert book.quote("x", [TARGET, unknown], 10, 10).nano_usd is None
    assert book.quote("cheap", [], 10, 10).nano_usd is None


async def test_a_service_tier_has_its_own_price(place: Office) -> None:
    """In the quote and in the charge."""

    class Tiers:
        def find(self, model: str, provider: str, base_url: str, at: datetime, service_tier: str) -> Tariff:
            assert (model, provider, base_url, at) == ("m", "openai", "https://api.example.com/v1", NOON)
            return Tariff(((-1, Rates.of({"input": Decimal(1 if service_tier == "flex" else 2)})),))

    book = place.book(prices=PriceList([], Tiers()))
    assert book.quote("m", [TARGET], 1000, 0, service_tier="flex").nano_usd == 1_000_000 + 128_000_000
    assert book.quote("m", [TARGET], 1000, 1).nano_usd == 2_002_000
    for tier, cost in (("flex", 1_200_000), ("", 2_400_000)):
        entry = begin(book, f"c{tier}", None, "m")
        entry.dispatch(1, TARGET, tier)
        assert entry.settle(Outcome.COMPLETED, 200, usage=USAGE) == cost
    await book.close()


async def test_the_gateways_own_models_are_free(tmp_path: Path, clock: Clock) -> None:
    """Unless the operator states a price for them."""
    demo = Target(Upstream("demo", "demo", Origin("http", "demo.invalid", 80), "/v1"))
    async with office(tmp_path, clock=clock) as place:
        stated = PriceList([Price("demo/dear", Decimal(1), Decimal(1))], Catalogue())
        book = place.book(prices=stated)
        assert book.quote("demo/echo", [demo], 1000, 200).nano_usd == 0
        assert book.quote("demo/dear", [demo], 1000, 200).nano_usd == 1_200_000
        await book.close()


# --- Budgets ----------------------------------------------------------------------------------------------------------


async def test_of_fifty_parallel_calls_with_room_for_ten_ten_are_admitted(place: Office, book: Book) -> None:
    """Whatever the order in which they come and end, the budget is spent to the nano-dollar."""
    record = key(KeyBudget(10 * COST, "month"))

    async def call(number: int) -> bool:
        await asyncio.sleep(0)
        try:
            entry = begin(book, f"c{number}", record)
        except CallerError:
            return False
        entry.dispatch(1, TARGET)
        await asyncio.sleep(0)
        entry.settle(Outcome.COMPLETED, 200, usage=USAGE)
        return True

    admitted = await asyncio.gather(*(call(number) for number in range(50)))
    assert sum(admitted) == 10
    assert await book.tick()
    assert place.balances() == {"key/k1/month/2026-11-01": (10 * COST, 0)} == place.holds.totals()
    assert len(place.rows()) == 10


async def test_a_refusal_says_which_budget_and_when_it_renews(book: Book) -> None:
    """It names no wait in seconds, for which a client library would retry by itself."""
    error = refused(book, "c1", key(KeyBudget(5_000, "month")))
    assert (error.kind, error.reason, error.retry_after_seconds) == (Kind.INSUFFICIENT_QUOTA, "budget_exhausted", None)
    assert error.parameters == {
        "amount": "0.000005",
        "period": Phrase("budget_per_month"),
        "cost": "0.00065",
        "reset": Phrase("budget_resets", {"time": "2026-12-01 00:00 UTC"}),
    }
    forever = refused(book, "c1", key(KeyBudget(5_000, "ever")))
    assert forever.parameters["reset"] == Phrase("budget_never_resets")
    texts = {language: Catalogues().translate(language, error.phrase) for language in LANGUAGES}
    assert texts["en_US"] == (
        "The budget of $0.000005 per month has too little left for this request, which may cost up to $0.00065. "
        "It renews on 2026-12-01 00:00 UTC."
    )
    assert all("0.000005" in text and "2026-12-01 00:00 UTC" in text for text in texts.values())


async def test_what_everyone_may_spend_together_is_not_told(place: Office, book: Book) -> None:
    """A global budget stops callers without a key as well, and its amount stays the operator's secret."""
    book.set_budgets([Budget("global", "", "week", 7_770)])
    error = refused(book, "c1")
    assert (error.kind, error.reason) == (Kind.INSUFFICIENT_QUOTA, "gateway_budget_exhausted")
    assert "7" not in Catalogues().translate("en_US", error.phrase).replace("2026", "")
    book.set_budgets([])
    begin(book, "c1").settle(Outcome.REFUSED, 503)
    assert place.holds.totals() == {}


async def test_a_call_counts_against_the_key_the_owner_and_everyone(place: Office, book: Book) -> None:
    """Those of other owners are not touched, and a refusal by one takes nothing from the others."""
    book.set_budgets(
        [
            Budget("global", "", "ever", 10 * COST),
            Budget("owner", "alice", "week", 2 * COST),
            Budget("owner", "bob", "week", 1),
        ]
    )
    rich, poor = key(KeyBudget(9 * COST, "day")), key(KeyBudget(1, "day"), key_id="k2")
    serve(book, "c1", rich)
    assert place.holds.totals() == {
        "key/k1/day/2026-11-23": (COST, 0),
        "owner/alice/week/2026-11-23": (COST, 0),
        "global//ever/1970-01-01": (COST, 0),
    }
    assert refused(book, "c2", poor).parameters["amount"] == "0.000000001"
    serve(book, "c3", rich)
    assert refused(book, "c4", rich).parameters["period"] == Phrase("budget_per_week")
    assert place.holds.totals()["key/k1/day/2026-11-23"] == (2 * COST, 0)


async def test_new_budgets_hold_for_known_keys(place: Office, book: Book) -> None:
    """From the next call on, and what is not in them any more is gone."""
    record = key(KeyBudget(9 * COST, "day"))
    serve(book, "c1", record)
    book.set_budgets([Budget("global", "", "day", COST)])
    serve(book, "c2", record)
    assert refused(book, "c3", record).reason == "gateway_budget_exhausted"
    book.set_budgets([Budget("owner", "alice", "day", COST)])
    serve(book, "c4", record)
    assert refused(book, "c5", record).reason == "budget_exhausted"
    assert place.holds.totals()["global//day/2026-11-23"] == (COST, 0)


async def test_a_changed_key_has_its_new_budget_at_once(book: Book) -> None:
    """What was spent under the old one counts."""
    record = key(KeyBudget(COST, "day"))
    serve(book, "c1", record)
    assert refused(book, "c2", record).reason == "budget_exhausted"
    serve(book, "c3", key(KeyBudget(2 * COST, "day"), version=2))
    serve(book, "c4", key(version=3))


async def test_a_soft_threshold_warns_once(book: Book) -> None:
    """At the key's own share of the budget; without one, at eighty percent."""
    own, usual = key(KeyBudget(10 * COST, "day", 20)), key(KeyBudget(10 * COST, "day"), key_id="k2")
    warned = [len(begin(book, f"a{number}", own).warnings) for number in range(10)]
    assert warned == [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    warned = [len(begin(book, f"b{number}", usual).warnings) for number in range(10)]
    assert warned == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]


async def test_an_unknown_price_is_refused_where_a_budget_stands(place: Office, book: Book) -> None:
    """It is never taken for free."""
    error = refused(book, "c1", key(KeyBudget(10**12, "day")), "nobody-knows")
    assert (error.kind, error.reason, error.param) == (Kind.PERMISSION_DENIED, "price_unknown", "model")
    assert error.parameters == {"model": "nobody-knows"}
    assert len(place.holds) == 0


async def test_a_budget_without_a_price_is_a_mistake_of_ours(book: Book) -> None:
    """No call gets past it by that."""
    with pytest.raises(ValueError, match="price"):
        book.reserve("c1", book.budgets_of(key(KeyBudget(1, "day")), ""), None)


async def test_until_it_is_known_what_was_spent_budgets_stay_closed(place: Office) -> None:
    """Money fails closed; calls that no budget counts go on."""
    book = place.book()
    serve(book, "c1")
    error = refused(book, "c2", key(KeyBudget(10**9, "day")))
    assert isinstance(error, Overloaded)
    assert (error.reason, error.retry_after_seconds) == ("accounting_unavailable", 10)
    states = [book.gauges.state]
    assert await book.tick()
    assert [*states, book.gauges.state] == ["behind", "ok"]
    serve(book, "c2", key(KeyBudget(10**9, "day")))
    await book.close()


async def test_what_prices_need_is_loaded_once_and_beside_the_loop(tmp_path: Path) -> None:
    """All who come meanwhile wait for it, also when the first one leaves, and nobody after that."""
    threads: list[int] = []
    may_end = threading.Event()

    def load() -> None:
        threads.append(threading.get_ident())
        may_end.wait(30)

    async with office(tmp_path) as place:
        book = Book(place.directory, PRICES, Holds(), place.store, place.clock, lambda: NOON, load=load)
        before = book.is_prepared
        waiting = [asyncio.ensure_future(book.prepare()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting.pop(0).cancel()
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        may_end.set()
        await asyncio.gather(*waiting)
        await book.prepare()
        assert (before, book.is_prepared) == (False, True)
        assert len(threads) == 1
        assert threading.get_ident() not in threads
        await book.close()
