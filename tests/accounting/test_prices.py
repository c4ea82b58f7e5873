"""The price list: the operator's word first, and nothing unknown is free."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from chatgate.accounting.catalogue import Catalogue
from chatgate.accounting.prices import PriceList, base_url
from chatgate.accounting.rates import FREE, Rates, Tariff
from chatgate.accounting.usage import Usage
from chatgate.settings.tree import Price
from chatgate.vocabulary.upstreams import Origin

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DEAR = Tariff(((-1, Rates.of({"input": Decimal(9)})),), context_tokens=1000)


class Shelf:
    """A catalogue with a few models, which notes each question."""

    def __init__(self, **tariffs: Tariff) -> None:
        """Know these."""
        self.tariffs = tariffs
        self.asked: list[tuple[str, str, str, datetime, str]] = []

    def find(self, model: str, provider: str, base_url: str, at: datetime, service_tier: str) -> Tariff | None:
        """Return what is known."""
        self.asked.append((model, provider, base_url, at, service_tier))
        return self.tariffs.get(model)


def stated(model: str, sent: str, got: str) -> Price:
    """Return what an operator states."""
    return Price(model, Decimal(sent), Decimal(got))


def test_a_stated_price_goes_before_the_catalogue() -> None:
    """It holds for all tokens, cached ones too, and the catalogue still tells what fits into the model."""
    tariff = PriceList([stated("m", "0.25", "2.00")], Shelf(m=DEAR)).tariff("m", NOW)
    assert tariff is not None
    assert tariff.charge(Usage(10, 1, cached_input_tokens=10)) == 10 * 250 + 2000
    assert tariff.context_tokens == 1000


def test_a_stated_price_of_zero_is_a_price() -> None:
    """A model of one's own may cost nothing."""
    tariff = PriceList([stated("local", "0", "0")], Shelf()).tariff("local", NOW)
    assert tariff is not None
    assert tariff.charge(Usage(10**6, 10**6)) == 0


def test_a_price_may_be_stated_for_the_name_that_callers_ask_for() -> None:
    """The name that is sent goes first, since that is what was used."""
    prices = PriceList([stated("fast", "1", "1"), stated("real", "2", "2")], Shelf())
    by_asked = prices.tariff("other", NOW, asked_model="fast")
    by_sent = prices.tariff("real", NOW, asked_model="fast")
    assert by_asked is not None
    assert by_sent is not None
    assert by_asked.charge(Usage(1, 0)) == 1000
    assert by_sent.charge(Usage(1, 0)) == 2000


def test_the_catalogue_knows_nothing_of_the_names_callers_use() -> None:
    """An alias that happens to be called like a known model has no price by that."""
    assert PriceList([], Shelf(m=DEAR)).tariff("deployment-7", NOW, asked_model="m") is None


def test_an_unknown_price_is_none() -> None:
    """Whoever has to charge by money refuses such a call."""
    assert PriceList([], Shelf()).tariff("m", NOW) is None


def test_answers_are_remembered_for_the_minute() -> None:
    """Prices may change with the hour, so each minute asks anew, and no minute asks twice."""
    shelf = Shelf(m=DEAR)
    prices = PriceList([], shelf)
    for seconds in (0, 1, 59, 60, 61):
        assert prices.tariff("m", NOW + timedelta(seconds=seconds), provider="p", base_url="u") is DEAR
    assert [question[:3] for question in shelf.asked] == [("m", "p", "u")] * 2


def test_callers_cannot_fill_the_memory_with_names() -> None:
    """What is remembered is bounded, whatever is asked for."""
    prices = PriceList([], Shelf())
    for number in range(20_000):
        assert prices.tariff(f"m{number}", NOW) is None
    assert len(prices._found) <= 4096


@pytest.mark.parametrize(
    ("origin", "path", "url"),
    [
        (Origin("https", "api.example.com", 443), "/v1", "https://api.example.com/v1"),
        (Origin("https", "api.example.com", 8443), "", "https://api.example.com:8443"),
        (Origin("http", "::1", 80), "/v1", "http://[::1]/v1"),
        (Origin("http", "10.0.0.1", 443, "socks5h://proxy:1080"), "/v1", "http://10.0.0.1:443/v1"),
    ],
)
def test_a_provider_is_known_by_its_address(origin: Origin, path: str, url: str) -> None:
    """As people write it: without a usual port, and whatever proxy leads there."""
    assert base_url(origin, path) == url


def test_what_belongs_to_the_gateway_is_free() -> None:
    """Whatever the catalogue says of that name, unless the operator states a price."""
    prices = PriceList([stated("demo/dear", "1", "1")], Shelf(**{"demo/echo": DEAR}))
    assert prices.tariff("demo/echo", NOW, provider="demo") is FREE
    dear = prices.tariff("demo/dear", NOW, provider="demo")
    assert dear is not None
    assert dear.rates(1).text == "input=1 output=1"


def test_with_the_real_catalogue() -> None:
    """The parts fit: a stated price and a known one, for one operator."""
    prices = PriceList([stated("gpt-5-mini", "1", "1")], Catalogue())
    url = "https://api.openai.com/v1"
    overridden = prices.tariff("gpt-5-mini", NOW, provider="openai", base_url=url)
    known = prices.tariff("gpt-5", NOW, provider="openai", base_url=url)
    assert overridden is not None
    assert overridden.rates(1).text == "input=1 output=1"
    assert known is not None
    assert known.rates(1).output > known.rates(1).input > 0
