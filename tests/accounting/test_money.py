"""Money: exact between text and integers, in both directions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.vocabulary.money import NANO_PER_USD, format_usd, parse_usd


@given(st.integers(-(10**30), 10**30))
def test_every_amount_survives_its_text(nano_usd: int) -> None:
    """What is written is read back, and is the same number to a library of fractions."""
    text = format_usd(nano_usd)
    assert parse_usd(text) == nano_usd
    assert Fraction(text) * NANO_PER_USD == nano_usd


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (-1, "-0.000000001"),
        (250_000_000, "0.25"),
        (NANO_PER_USD, "1"),
        (10 * NANO_PER_USD, "10"),
        (-3_500_000_000, "-3.5"),
        (2**63 - 1, "9223372036.854775807"),
    ],
)
def test_amounts_are_written_without_needless_zeros(nano_usd: int, text: str) -> None:
    """Amounts are plain decimal numbers of dollars."""
    assert format_usd(nano_usd) == text


@pytest.mark.parametrize(("text", "nano_usd"), [("5", 5 * NANO_PER_USD), ("05.10", 5_100_000_000), ("-0", 0)])
def test_other_spellings_are_read(text: str, nano_usd: int) -> None:
    """Zeros at either end change nothing."""
    assert parse_usd(text) == nano_usd


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "+1", "1.", ".5", "1e3", "NaN", "inf", "1,000", "0.0000000001", "0x1", "--1", "1\n", "٣", "1_0"],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    """Nothing is rounded and nothing is guessed."""
    with pytest.raises(ValueError, match="not an amount"):
        parse_usd(text)
