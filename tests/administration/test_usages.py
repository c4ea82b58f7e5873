"""The words that usage is asked for by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from chatgate.administration.usages import read_groupings, read_since

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("24h", NOW - timedelta(hours=24)),
        ("7D", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T08:30+08:00", datetime(2026, 11, 1, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_span_is_before_now_and_a_date_in_utc(text: str, moment: datetime) -> None:
    """Unless the date says which zone it is in."""
    assert read_since(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7 d ago", "2026-13-01", "٣d"])
def test_what_is_neither_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="neither a span"):
        read_since(text, NOW)


def test_groupings_are_named_once_each() -> None:
    """In the order asked for; none is one group."""
    assert read_groupings("day, KEY,day") == ["day", "key"]
    assert read_groupings("") == []
    with pytest.raises(ValueError, match="'hour' is none of key"):
        read_groupings("hour")
