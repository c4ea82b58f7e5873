"""The catalogue: genai-prices read offline, and the same charges as it computes itself."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from genai_prices.data import providers
from genai_prices.types import TimeOfDateConstraint
from genai_prices.types import Usage as TheirUsage

from chatgate.accounting.catalogue import Catalogue
from chatgate.accounting.usage import Usage

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
OPENAI = "https://api.openai.com/v1"
CHAT_PRICES = {"input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "output_reasoning_mtok"}
CATALOGUE = Catalogue()


def test_a_model_is_found_at_its_provider() -> None:
    """The address of the upstream says who it is."""
    tariff = CATALOGUE.find("gpt-5-mini", "openai_compatible", OPENAI, NOW, "")
    assert tariff is not None
    assert tariff.rates(1).text == "input=0.25 output=2 cached=0.025"
    assert tariff.context_tokens == 400_000


def test_a_name_says_who_an_upstream_is_behind_another_address() -> None:
    """A provider that is reached through another host is still that provider."""
    assert CATALOGUE.find("gpt-5-mini", "openai", "http://127.0.0.1:9/v1", NOW, "") is not None


def test_at_an_unknown_upstream_a_model_costs_what_its_maker_takes() -> None:
    """A reseller's own price would have to be stated; its maker's is the best guess there is."""
    tariff = CATALOGUE.find("gpt-5-mini", "openai_compatible", "http://127.0.0.1:9/v1", NOW, "")
    assert tariff == CATALOGUE.find("gpt-5-mini", "", OPENAI, NOW, "")


def test_a_dated_name_is_its_model() -> None:
    """Providers answer with the dated name, and operators configure it."""
    assert CATALOGUE.find("gpt-5-mini-2025-08-07", "", OPENAI, NOW, "") is not None


@pytest.mark.parametrize("model", ["", "no-such-model", "demo/echo", "gpt", "x" * 256])
def test_what_nobody_knows_has_no_tariff(model: str) -> None:
    """An unknown price is not a price of nothing."""
    assert CATALOGUE.find(model, "openai", OPENAI, NOW, "") is None
    assert CATALOGUE.find(model, "", "", NOW, "") is None


def test_what_is_not_priced_by_tokens_has_no_tariff() -> None:
    """A chat with a model that is sold by the hour cannot be charged."""
    hourly = next(
        (provider, model)
        for provider in providers
        for model in provider.models
        if not isinstance(model.prices, list)
        and model.prices.input_mtok is None
        and provider.find_model(model.id) is model
    )
    assert CATALOGUE.find(hourly[1].id, hourly[0].id, "", NOW, "") is None


def test_the_service_tier_has_its_own_price() -> None:
    """Whoever asks to be served first pays for it; `auto` and `default` are the usual price."""
    usual = CATALOGUE.find("gpt-5-mini", "", OPENAI, NOW, "")
    priority = CATALOGUE.find("gpt-5-mini", "", OPENAI, NOW, "priority")
    assert usual is not None
    assert priority is not None
    assert priority.rates(1).input > usual.rates(1).input
    assert CATALOGUE.find("gpt-5-mini", "", OPENAI, NOW, "auto") == usual
    assert CATALOGUE.find("gpt-5-mini", "", OPENAI, NOW, "default") == usual
    assert CATALOGUE.find("gpt-5-mini", "", OPENAI, NOW, "unheard-of") == usual


def test_prices_by_the_hour_are_those_of_the_hour() -> None:
    """A model that is cheaper at night costs differently twelve hours later."""
    found = [
        (provider, model, condition)
        for provider in providers
        for model in provider.models
        if isinstance(model.prices, list) and provider.find_model(model.id) is model
        for condition in model.prices
        if isinstance(condition.constraint, TimeOfDateConstraint)
    ]
    assert found
    differ = 0
    for provider, model, condition in found:
        assert isinstance(condition.constraint, TimeOfDateConstraint)
        start = datetime.combine(NOW.date(), time(), UTC).replace(
            hour=condition.constraint.start_time.hour, minute=condition.constraint.start_time.minute
        )
        inside = CATALOGUE.find(model.id, provider.id, "", start + timedelta(minutes=1), "")
        outside = CATALOGUE.find(model.id, provider.id, "", start - timedelta(minutes=1), "")
        differ += inside != outside
    assert differ


@pytest.mark.parametrize("sent", [1, 999, 150_000, 250_000, 600_000])
def test_every_model_is_charged_as_the_catalogue_charges_it(sent: int) -> None:
    """For every model that is priced by tokens alone, our charge is theirs, rounded to the nano-dollar."""
    compared = tiered = 0
    for provider in providers:
        for model in provider.models:
            price = model.get_prices(NOW)
            names = {name for name, value in vars(price).items() if value is not None}
            if not {"input_mtok", "output_mtok"} <= names <= CHAT_PRICES or provider.find_model(model.id) is not model:
                continue
            usage = Usage(sent, 777, cached_input_tokens=sent // 3, cache_write_tokens=sent // 5, reasoning_tokens=70)
            theirs = model.calc_price(
                TheirUsage(
                    input_tokens=sent,
                    output_tokens=777,
                    cache_read_tokens=sent // 3,
                    cache_write_tokens=sent // 5,
                    output_reasoning_tokens=70,
                ),
                provider,
                genai_request_timestamp=NOW,
            )
            tariff = CATALOGUE.find(model.id, provider.id, "", NOW, "")
            assert tariff is not None, (provider.id, model.id)
            assert abs(tariff.charge(usage) - Fraction(theirs.total_price) * 10**9) <= Fraction(1, 2) + Fraction(
                1, 10**6
            ), (provider.id, model.id)
            compared += 1
            tiered += not isinstance(price.input_mtok, Decimal)
    assert compared > 500
    assert tiered > 10


def test_nothing_is_imported_before_a_price_is_needed_and_no_network_is_used() -> None:
    """A start does not wait for the catalogue, and finding a price opens no socket and no address."""
    program = """
import sys
import chatgate.accounting.prices
from chatgate.accounting.catalogue import Catalogue
assert not {"genai_prices", "pydantic"} & set(sys.modules)
sys.addaudithook(lambda event, _: sys.exit(event) if event in {"socket.connect", "socket.getaddrinfo"} else None)
from datetime import datetime, UTC
catalogue = Catalogue()
catalogue.load()
assert "genai_prices" in sys.modules
assert catalogue.find("gpt-5-mini", "openai", "", datetime.now(UTC), "") is not None
print("priced")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("priced\n", 0), done.stderr
