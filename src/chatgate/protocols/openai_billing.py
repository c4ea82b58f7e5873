"""The balance endpoints that OpenAI had once and chat apps still ask for: an account's limit, and what it has used.

Owns their shapes. OpenAI has documented neither and serves them to keys no more; what apps read of them is in
https://github.com/ChatGPTNextWeb/NextChat (app/client/platforms/openai.ts: `hard_limit_usd`, `total_usage`), and what
gateways answer in https://github.com/songquanpeng/one-api (controller/billing.go); both read 2026-11-23.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final
from urllib.parse import parse_qs

import msgspec

from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.money import NANO_PER_USD

NO_LIMIT_USD: Final = 100_000_000
"""What stands for no limit; apps know no other word for it."""

_NANO_PER_CENT: Final = NANO_PER_USD // 100
_encode = msgspec.json.Encoder(decimal_format="number").encode


def encode_subscription(limit_nano_usd: int | None, warn_at_percent: int | None, ends_at: datetime | None) -> bytes:
    """Write what may be spent, and from where on there are warnings; None is no limit, no warnings, no end."""
    hard = Decimal(NO_LIMIT_USD) if limit_nano_usd is None else _part(limit_nano_usd, NANO_PER_USD)
    soft = hard if limit_nano_usd is None or not warn_at_percent else hard * warn_at_percent / 100
    return _encode(
        {
            "object": "billing_subscription",
            "has_payment_method": True,
            "soft_limit_usd": _plain(soft),
            "hard_limit_usd": _plain(hard),
            "system_hard_limit_usd": _plain(hard),
            # Unix time in seconds; 0 is never.
            "access_until": 0 if ends_at is None else int(ends_at.timestamp()),
        }
    )


def encode_usage(spent_nano_usd: int) -> bytes:
    """Write what was spent, in cents."""
    return _encode({"object": "list", "total_usage": _plain(_part(spent_nano_usd, _NANO_PER_CENT))})


def read_dates(query: str) -> tuple[date | None, date | None]:
    """Return the first and the last day of `start_date=2026-11-01&end_date=2026-11-30`, None for one that is not given.

    Raises `CallerError` for what is no date.
    """
    try:
        given = parse_qs(query, max_num_fields=20)
    except ValueError:
        raise CallerError(Kind.INVALID_VALUE, "bad_request") from None
    return _date(given, "start_date"), _date(given, "end_date")


def start_of_day(day: date) -> datetime:
    """Return the moment at which a day begins in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _date(given: dict[str, list[str]], name: str) -> date | None:
    if name not in given:
        return None
    try:
        # Some apps send a time as well; the day is what counts.
        return date.fromisoformat(given[name][-1][:10])
    except ValueError:
        raise CallerError(Kind.INVALID_VALUE, "invalid_field", param=name, parameters={"field": name}) from None


def _part(nano_usd: int, unit: int) -> Decimal:
    return Decimal(nano_usd) / unit


def _plain(amount: Decimal) -> Decimal:
    """Return an amount that is written without an exponent and without needless zeros."""
    return Decimal(f"{amount.normalize():f}")
