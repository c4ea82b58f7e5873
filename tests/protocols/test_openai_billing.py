"""The balance endpoints: exact amounts in the shapes that chat apps read, and days that are days."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols import openai_billing as billing
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.money import MAX_NANO_USD, NANO_PER_USD


def read(body: bytes) -> Any:
    """Read JSON without making its numbers inexact."""
    return json.loads(body, parse_float=Decimal, parse_int=Decimal)


def test_a_budget_is_the_hard_limit_and_its_warning_the_soft_one() -> None:
    """Every field that apps read is there."""
    told = read(billing.encode_subscription(5_250_000_000, 80, datetime(2026, 12, 1, tzinfo=UTC)))
    assert told == {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": Decimal("4.2"),
        "hard_limit_usd": Decimal("5.25"),
        "system_hard_limit_usd": Decimal("5.25"),
        "access_until": 1_796_083_200,
    }


def test_no_budget_is_a_limit_that_nobody_reaches() -> None:
    """Apps cannot show that there is none; it is a plain number, for some read no exponents."""
    body = billing.encode_subscription(None, 80, None)
    assert body.count(b":100000000,") == 3
    assert read(body)["access_until"] == 0


@given(st.integers(0, MAX_NANO_USD))
def test_money_is_exact(nano_usd: int) -> None:
    """What is told is what was spent and what may be, to the nano-dollar."""
    spent = read(billing.encode_usage(nano_usd))
    assert spent["object"] == "list"
    assert spent["total_usage"] * NANO_PER_USD / 100 == nano_usd
    limit = read(billing.encode_subscription(nano_usd, None, None))
    assert limit["hard_limit_usd"] * NANO_PER_USD == nano_usd
    assert limit["soft_limit_usd"] == limit["hard_limit_usd"]


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ("", (None, None)),
        ("start_date=2026-11-01&end_date=2026-11-24", (date(2026, 11, 1), date(2026, 11, 24))),
        ("start_date=2026-11-01T00:00:00Z&other=1", (date(2026, 11, 1), None)),
        ("end_date=2026-11-01%20&start_date=", (None, date(2026, 11, 1))),
    ],
)
def test_days_are_read(query: str, days: tuple[date | None, date | None]) -> None:
    """Those that are not given are None; what else stands there is ignored."""
    assert billing.read_dates(query) == days


@pytest.mark.parametrize(
    ("query", "field"), [("start_date=soon", "start_date"), ("end_date=2026-02-30", "end_date"), ("&" * 30, None)]
)
def test_what_is_no_day_is_refused(query: str, field: str | None) -> None:
    """With the name of the field at fault."""
    with pytest.raises(CallerError) as refused:
        billing.read_dates(query)
    assert (refused.value.kind, refused.value.param) == (Kind.INVALID_VALUE, field)
