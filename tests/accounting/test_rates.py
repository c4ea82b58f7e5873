"""Rates: exact charges, and bounds that no charge exceeds."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.accounting.rates import FREE, Rates, Tariff
from chatgate.accounting.usage import Usage
from chatgate.vocabulary.money import MAX_NANO_USD, parse_usd

MINI = Rates.of({"input": Decimal("0.25"), "cached": Decimal("0.025"), "output": Decimal(2)})

PRICES = st.decimals(0, 1000, places=9)
KINDS = ("output", "cached", "cache_write", "reasoning", "input_audio", "cached_audio", "output_audio", "call")
RATES = st.fixed_dictionaries({"input": PRICES}, optional=dict.fromkeys(KINDS, PRICES)).map(Rates.of)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Return a usage whose parts fit."""
    sent, got = draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))
    wrote = draw(st.integers(0, sent))
    reasoned = draw(st.integers(0, got))
    return Usage(
        sent,
        got,
        draw(st.integers(0, sent - wrote)),
        wrote,
        reasoned,
        draw(st.integers(0, sent - wrote)),
        draw(st.integers(0, got - reasoned)),
    )


def test_a_call_costs_what_the_price_list_says() -> None:
    """Cached tokens are part of the input, at their own price."""
    assert MINI.charge(Usage(9, 12)) == 9 * 250 + 12 * 2000
    assert MINI.charge(Usage(1000, 0, cached_input_tokens=900)) == 100 * 250 + 900 * 25
    assert MINI.charge(Usage(1_000_000, 1_000_000)) == parse_usd("2.25")


def test_audio_and_reasoning_have_prices_of_their_own() -> None:
    """Each kind of token is charged once, by its own rate."""
    rates = Rates.of(
        {
            "input": Decimal(1),
            "output": Decimal(2),
            "reasoning": Decimal(3),
            "input_audio": Decimal(10),
            "output_audio": Decimal(20),
            "call": Decimal("0.005"),
        }
    )
    usage = Usage(100, 50, audio_input_tokens=30, reasoning_tokens=10, audio_output_tokens=5)
    assert rates.charge(usage) == 5_000_000 + 1000 * (70 * 1 + 30 * 10 + 35 * 2 + 10 * 3 + 5 * 20)


def test_cached_tokens_are_text_as_far_as_there_is_any() -> None:
    """Where more is cached than there is text, the rest is audio."""
    rates = Rates.of(
        {"input": Decimal(4), "cached": Decimal(1), "input_audio": Decimal(32), "cached_audio": Decimal("0.4")}
    )
    usage = Usage(100, 0, cached_input_tokens=70, audio_input_tokens=60)
    assert rates.charge(usage) == 40 * 1000 + 30 * 400 + 30 * 32_000


@given(st.integers(0, 10**8), st.integers(0, 10**8), PRICES, PRICES)
def test_a_charge_is_exact_to_the_nano_dollar(sent: int, got: int, sent_price: Decimal, got_price: Decimal) -> None:
    """It is the fraction of dollars, rounded once, half up."""
    exact = (sent * Fraction(sent_price) + got * Fraction(got_price)) * 1000
    charge = Rates.of({"input": sent_price, "output": got_price}).charge(Usage(sent, got))
    assert charge == min((2 * exact.numerator + exact.denominator) // (2 * exact.denominator), MAX_NANO_USD)


def test_a_hundred_thousand_charges_add_up_exactly() -> None:
    """The sum of the rows is that of the fractions: prices with three decimals leave nothing to round."""
    dice = random.Random(5)
    total, exact = 0, Fraction(0)
    for _ in range(100_000):
        usage = Usage(dice.randrange(10**6), dice.randrange(10**5), dice.randrange(100))
        usage = usage if usage.cached_input_tokens <= usage.input_tokens else Usage(0, 0)
        total += MINI.charge(usage)
        plain = usage.input_tokens - usage.cached_input_tokens
        exact += plain * Fraction(1, 4_000_000) + usage.cached_input_tokens * Fraction(1, 40_000_000)
        exact += usage.output_tokens * Fraction(2, 1_000_000)
    assert total == exact * 10**9


@given(RATES, usages(), st.integers(0, 1000), st.integers(0, 1000))
def test_no_call_costs_more_than_its_bound(rates: Rates, usage: Usage, more_input: int, more_output: int) -> None:
    """What is reserved for at most so many tokens covers every call with no more."""
    tariff = Tariff(((-1, rates),))
    bound = tariff.most(usage.input_tokens + more_input, usage.output_tokens + more_output, audio=True)
    assert tariff.charge(usage) <= bound
    silent = Usage(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, 0, usage.reasoning_tokens)
    assert tariff.charge(silent) <= tariff.most(usage.input_tokens, usage.output_tokens)


@given(RATES)
def test_rates_survive_their_text(rates: Rates) -> None:
    """What is kept with a charge is all that it takes to charge again."""
    assert Rates.parse(rates.text) == rates


def test_the_text_is_short_and_readable() -> None:
    """It names what differs, in dollars per million tokens."""
    assert MINI.text == "input=0.25 output=2 cached=0.025"


@pytest.mark.parametrize("text", ["", "output=2", "input=x", "input", "input=-1", "input=NaN", "input=0.1 x"])
def test_a_text_that_is_no_rates_is_refused(text: str) -> None:
    """A damaged row is noticed."""
    with pytest.raises(ValueError, match=r"rates|price"):
        Rates.parse(text)


def test_a_call_may_cost_something_by_itself() -> None:
    """On top of its tokens, whatever their kind."""
    rates = Rates.of({"input": Decimal(1), "cached": Decimal("0.5"), "call": Decimal("0.005")})
    assert rates.charge(Usage(10, 0)) == 5_000_000 + 10_000
    assert rates.charge(Usage(10, 0, cached_input_tokens=10)) == 5_000_000 + 5_000


def test_long_calls_cost_another_rate_from_their_first_token_on() -> None:
    """A step holds for the whole call, above its number of input tokens, and a bound sees every step below it."""
    low, high = Rates.of({"input": Decimal(1)}), Rates.of({"input": Decimal(2)})
    tariff = Tariff(((-1, low), (200_000, high)))
    assert tariff.charge(Usage(200_000, 0)) == 200_000 * 1000
    assert tariff.charge(Usage(200_001, 0)) == 200_001 * 2000
    assert tariff.most(200_000, 0) == 200_000 * 1000
    assert tariff.most(200_001, 0) == 200_001 * 2000
    dearer_when_short = Tariff(((-1, high), (1000, low)))
    assert dearer_when_short.most(1500, 0) == 1500 * 2000


def test_an_absurd_charge_still_fits_a_column() -> None:
    """Amounts end where 64 bits do."""
    assert Rates.of({"input": Decimal(999_999_999)}).charge(Usage(10**8, 10**8)) == MAX_NANO_USD


def test_the_free_tariff_is_free() -> None:
    """What belongs to the gateway costs nothing, however much it is."""
    assert FREE.charge(Usage(10**8, 10**8)) == FREE.most(10**8, 10**8, audio=True) == 0
