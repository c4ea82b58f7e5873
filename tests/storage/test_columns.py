"""What is put into cells fits, and comes back as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from chatgate.storage.columns import UtcTime, all_microseconds, are_storable, microseconds, storable

DIALECT = sqlite.dialect()
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


@given(ANY_TEXT, st.integers(1, 60))
def test_any_text_becomes_storable(text: str, characters: int) -> None:
    """No NUL, no half of a character, no more characters than there is room for; and what is fine stays as it is."""
    stored = storable(text, characters)
    assert len(stored) <= characters
    assert "\0" not in stored
    stored.encode()
    assert storable(stored, characters) == stored
    if len(text) <= characters and "\0" not in text and text.isascii():
        assert stored == text


@given(st.lists(ANY_TEXT, max_size=5), st.integers(1, 60))
def test_texts_that_are_storable_together_are_each(texts: list[str], characters: int) -> None:
    """And plain ones that fit are always found to be."""
    if are_storable(texts, characters):
        assert [storable(text, characters) for text in texts] == texts
    else:
        assert not all(text.isascii() and "\0" not in text and len(text) <= characters for text in texts)


@given(st.lists(st.none() | st.datetimes(timezones=st.timezones()), max_size=5))
def test_times_are_the_same_numbers_together(times: list[datetime | None]) -> None:
    """Before 1970, too, and in any zone."""
    assert all_microseconds(times) == [0 if each is None else microseconds(each) for each in times]


def test_what_is_cut_says_so() -> None:
    """With the length it had."""
    assert storable("x" * 1_000_000, 30) == "x" * 11 + "…truncated(1000000)"
    assert storable("x" * 31, 30) == "x" * 16 + "…truncated(31)"
    assert storable("x" * 30, 30) == "x" * 30


def test_poison_is_made_harmless() -> None:
    """What PostgreSQL refuses becomes a sign for it; pairs of halves are characters."""
    assert storable("a\0b", 10) == "a\u2400b"
    assert storable("a\ud800b\udfff", 10) == "a\ufffdb\ufffd"
    assert storable("\ud83d\uddfc🗼", 10) == "🗼🗼"


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001 - the zones are drawn
def test_a_time_comes_back_to_the_microsecond(time: datetime) -> None:
    """In UTC, whatever zone it was in."""
    column = UtcTime()
    stored = column.process_bind_param(time, DIALECT)
    assert isinstance(stored, int)
    back = column.process_result_value(stored, DIALECT)
    assert back == time.astimezone(UTC)
    assert back is not None
    assert back.utcoffset() == timedelta(0)


def test_times_sort_as_they_are_stored() -> None:
    """Also across zones."""
    east = datetime(2026, 1, 1, 3, tzinfo=timezone(timedelta(hours=8)))
    west = datetime(2026, 1, 1, 1, tzinfo=UTC)
    column = UtcTime()
    assert (column.process_bind_param(east, DIALECT) or 0) < (column.process_bind_param(west, DIALECT) or 0)


def test_a_time_without_a_zone_is_refused() -> None:
    """It could mean anything."""
    with pytest.raises(TypeError):
        UtcTime().process_bind_param(datetime(2026, 1, 1), DIALECT)  # noqa: DTZ001 - that it has none is the point
