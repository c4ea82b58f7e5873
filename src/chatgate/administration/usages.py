"""What was used, as JSON tells it, and the words it is asked for by: for `chatgate usage` and the admin API."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from chatgate.storage.usage import GROUPINGS
from chatgate.vocabulary.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatgate.storage.usage import Grouping, Usage

_SPAN = re.compile(r"([0-9]{1,4})([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_groupings(text: str) -> list[Grouping]:
    """Return the groupings of a list such as `key,day`, each once. Raises ValueError with a sentence about it."""
    known = {str(grouping): grouping for grouping in GROUPINGS}
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise ValueError(f"{word!r} is none of {', '.join(GROUPINGS)}")
    return [known[word] for word in dict.fromkeys(words)]


def read_since(text: str, now: datetime) -> datetime:
    """Return the time that a span before now, or a date in UTC, means. Raises ValueError with a sentence about it."""
    span = _SPAN.fullmatch(text.strip().lower())
    try:
        if span is not None:
            return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is neither a span such as 90m, 24h, 7d or 2w nor a date such as 2026-11-01"
        ) from None


def described(groupings: Sequence[Grouping], group: Usage) -> dict[str, Any]:
    """Return a group as programs get it; a grouping's value is None for calls that had none."""
    found: dict[str, Any] = {}
    for grouping, value in zip(groupings, group.group, strict=True):
        found[grouping] = value or None
        if grouping == "key":
            found["key_name"] = group.key_name
    return found | {
        "calls": group.calls,
        "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens,
        "cost_usd": format_usd(group.cost_nano_usd),
        "unknown_calls": group.unknown_calls,
        "unknown_usd": format_usd(group.unknown_nano_usd),
        "own_key_calls": group.own_key_calls,
        "own_key_usd": format_usd(group.own_key_nano_usd),
    }
