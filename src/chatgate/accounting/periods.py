"""The calendar that budgets go by: days, weeks from Monday and months in UTC, and ever.

A period is known by its first day; that of `ever` is the first of 1970. Pure; used by `holds`, and by whoever shows or
stores a budget.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

Per = Literal["day", "week", "month", "ever"]

_BEGINNING: Final = date(1970, 1, 1)
_DAYS_OF_WEEK: Final = 7
_DAYS_OF_LONGEST_MONTH: Final = 31


def utc_date(at: datetime) -> date:
    """Return the date in UTC. Raises ValueError for a time that does not say which one it is."""
    if at.tzinfo is UTC:
        return at.date()
    if at.tzinfo is None:
        raise ValueError("a time needs its zone")
    return at.astimezone(UTC).date()


def start_of(day: date, per: Per) -> date:
    """Return the first day of the period that a day is in."""
    if per == "day":
        return day
    if per == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if per == "month" else _BEGINNING


def end_of(day: date, per: Per) -> datetime | None:
    """Return when the next period begins after the one that a day is in; None when there is none."""
    start = start_of(day, per)
    if per == "ever":
        return None
    if per == "day":
        after = start + timedelta(days=1)
    elif per == "week":
        after = start + timedelta(days=_DAYS_OF_WEEK)
    else:
        after = (start + timedelta(days=_DAYS_OF_LONGEST_MONTH)).replace(day=1)
    return datetime.combine(after, time(), UTC)
