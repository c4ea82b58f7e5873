"""What a key may be, and whether it opens anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from chatgate.vocabulary.keys import (
    MAX_ITEMS,
    MAX_NAME_CHARACTERS,
    MAX_PATTERN_CHARACTERS,
    InvalidField,
    KeyBudget,
    KeyChanges,
    KeyLimit,
    KeyRecord,
    KeyState,
    NewKey,
    check,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("name", "", "empty"),
        ("name", "x" * (MAX_NAME_CHARACTERS + 1), "too_long"),
        ("name", "a\0b", "unprintable"),
        ("name", "a\nb", "unprintable"),
        ("name", "a\ud800b", "unprintable"),
        ("name", "a\u202eb", "unprintable"),
        ("owner", "x" * 201, "too_long"),
        ("notes", "x" * 2001, "too_long"),
        ("notes", "a\0b", "unprintable"),
        ("expires_at", datetime.fromisoformat("9999-12-31T23:59:59-12:00"), "out_of_range"),
        ("expires_at", datetime.fromisoformat("0001-01-01T00:00:00+12:00"), "out_of_range"),
        ("language", "", "empty"),
        ("expires_at", datetime(2027, 1, 1), "out_of_range"),  # noqa: DTZ001 - that it has no zone is the point
        ("expires_at", datetime(1969, 1, 1, tzinfo=UTC), "out_of_range"),
        ("allowed_models", ("x",) * (MAX_ITEMS + 1), "too_many"),
        ("allowed_models", ("x" * (MAX_PATTERN_CHARACTERS + 1),), "too_long"),
        ("allowed_models", ("",), "empty"),
        ("allowed_addresses", ("x" * 65,), "too_long"),
        ("limits", (KeyLimit("requests", -1, "minute"),), "out_of_range"),
        ("limits", (KeyLimit("requests", 2**63, "minute"),), "out_of_range"),
        ("limits", (KeyLimit("", 1, "minute"),), "empty"),
        ("budgets", (KeyBudget(2**63, "day"),), "out_of_range"),
        ("budgets", (KeyBudget(1, "day", 101),), "out_of_range"),
        ("budgets", (KeyBudget(1, "day"),) * (MAX_ITEMS + 1), "too_many"),
    ],
)
def test_what_no_key_can_have_is_refused(field: str, value: object, problem: str) -> None:
    """Both in a new key and in a change, with the field's name and never its value."""
    for key in (NewKey("a key"), KeyChanges()):
        with pytest.raises(InvalidField) as caught:
            check(msgspec.structs.replace(key, **{field: value}))
        assert (caught.value.field.partition(".")[0], caught.value.problem) == (field, problem)


@pytest.mark.parametrize(
    "text", ["東京\u3000会社", "👩\u200d💻 family", "a\u00a0b", "'; DROP TABLE keys; --", "<b>%s{0}"]
)
def test_any_language_is_a_name(text: str) -> None:
    """Spaces and joiners of other scripts are no control characters, and markup is only text here."""
    check(NewKey(text, owner=text, notes=f"{text}\r\n\t{text}"))


def test_a_key_is_active_until_something_ends_it() -> None:
    """Revoked counts more than expired, expired more than disabled; the moment of expiry is too late."""
    record = KeyRecord(
        id="id", name="", owner="", display="", enabled=True, created_at=NOW, expires_at=LATER, revoked_at=None,
        rotated_at=None, allowed_models=(), allowed_addresses=(), limits=(), budgets=(), language=None, notes="",
        version=1,
    )  # fmt: skip
    assert record.state(LATER - timedelta(microseconds=1)) is KeyState.ACTIVE
    assert record.state(LATER) is KeyState.EXPIRED
    off = msgspec.structs.replace(record, enabled=False)
    assert off.state(NOW) is KeyState.DISABLED
    assert off.state(LATER) is KeyState.EXPIRED
    assert msgspec.structs.replace(off, revoked_at=NOW).state(LATER) is KeyState.REVOKED
