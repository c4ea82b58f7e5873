"""Prices stay exact."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from chatgate.settings import Price, Settings

Load = Callable[..., Settings]


def test_a_whole_number_is_a_price(load_text: Load) -> None:
    """Whole dollars need no quotes."""
    text = '[[prices]]\nmodel = "m"\ninput_usd_per_million = 3\noutput_usd_per_million = "2.00"'
    (price,) = load_text(text).prices
    assert price == Price("m", Decimal(3), Decimal("2.00"))
    assert str(price.output_usd_per_million) == "2.00"


@bounded(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.decimals(0, 999_999_999, places=9))
def test_no_digit_is_lost(load_text: Load, amount: Decimal) -> None:
    """Up to nine digits on each side of the point come back as they were written."""
    text = f'[[prices]]\nmodel = "m"\ninput_usd_per_million = "{amount:f}"\noutput_usd_per_million = "0"'
    assert load_text(text).prices[0].input_usd_per_million == amount
