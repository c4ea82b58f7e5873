"""A key in JSON: what is shown can be sent back, and what no key can be is refused by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from chatgate.protocols import key_document
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.keys import KeyBudget, KeyChanges, KeyLimit, KeyRecord, NewKey

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
WHOLE = NewKey(
    "anna",
    "alice",
    enabled=False,
    expires_at=datetime(2027, 1, 1, tzinfo=UTC),
    allowed_models=("gpt-*",),
    allowed_addresses=("10.0.0.0/8",),
    limits=(KeyLimit("usd", 500_000_000, "day", "gpt-*"), KeyLimit("in_flight", 4)),
    budgets=(KeyBudget(5_000_000_000, "month", 90),),
    language="ru_RU",
    notes="two\nlines",
)
ASKABLE = set(key_document.KeyToMake.__struct_fields__)


def record(new: NewKey) -> KeyRecord:
    """Return a key as it would be stored."""
    values = msgspec.structs.asdict(new)
    return KeyRecord(
        **values, id="k1", display="sk-cg-k1-…", created_at=NOW, revoked_at=None, rotated_at=None, version=1
    )


def test_what_is_shown_can_be_sent_back() -> None:
    """Every field that may be asked for comes back as it was, to make a key and to change one."""
    told = msgspec.to_builtins(key_document.shown(record(WHOLE), NOW))
    body = json.dumps({name: value for name, value in told.items() if name in ASKABLE}).encode()
    assert key_document.read_new(body) == WHOLE
    assert key_document.read_changes(body) == KeyChanges(**msgspec.structs.asdict(WHOLE))


def test_the_text_of_a_key_is_only_shown_when_it_is_made() -> None:
    """Without it there is no field for it."""
    assert "key" not in msgspec.to_builtins(key_document.shown(record(WHOLE), NOW))
    assert msgspec.to_builtins(key_document.shown(record(WHOLE), NOW, "sk-cg-x"))["key"] == "sk-cg-x"


def test_a_name_is_enough() -> None:
    """Everything else allows everything."""
    assert key_document.read_new(b'{"name": "anna"}') == NewKey("anna")


@pytest.mark.parametrize(
    ("more", "param", "reason"),
    [
        ('"nmae": "x"', "nmae", "unknown_field"),
        ('"key": "sk-cg-x"', "key", "unknown_field"),
        ('"limits": [{"resource": "requests", "amount": 1, "per": "day", "x": 1}]', "limits[0].x", "unknown_field"),
        ('"limits": [{"resource": "calls", "amount": 1, "per": "day"}]', "limits[0].resource", "invalid_field"),
        ('"limits": [{"resource": "requests", "amount": 1}]', "limits[0].per", "invalid_field"),
        ('"limits": [{"resource": "in_flight", "amount": 1, "per": "day"}]', "limits[0].per", "invalid_field"),
        ('"limits": [{"resource": "requests", "amount": 0, "per": "day"}]', "limits[0].amount", "invalid_field"),
        ('"limits": [{"resource": "requests", "amount": "5", "per": "day"}]', "limits[0].amount", "invalid_field"),
        ('"limits": [{"resource": "usd", "amount": "five", "per": "day"}]', "limits[0].amount", "invalid_field"),
        ('"limits": [{"resource": "usd", "amount": 0.5, "per": "day"}]', "limits[0].amount", "wrong_type"),
        (
            '"limits": [{"resource": "in_flight", "amount": 1}, {"resource": "in_flight", "amount": 2}]',
            "limits[1]",
            "invalid_field",
        ),
        ('"budgets": [{"amount_usd": "-5"}]', "budgets[0].amount_usd", "invalid_field"),
        ('"budgets": [{"amount_usd": "5"}, {"amount_usd": "6", "per": "month"}]', "budgets[1]", "invalid_field"),
        ('"budgets": [{"amount_usd": "5", "warn_at": 101}]', "budgets[0].warn_at", "invalid_field"),
        ('"expires_at": "tomorrow"', "expires_at", "invalid_field"),
        ('"expires_at": "2030-01-01T00:00:00"', "expires_at", "invalid_field"),
        ('"enabled": "yes"', "enabled", "wrong_type"),
        ('"notes": "a\\u0000b"', "notes", "invalid_field"),
        (f'"owner": "{"x" * 201}"', "owner", "too_long_field"),
        (f'"allowed_models": {json.dumps(["m"] * 101)}', "allowed_models", "too_long_field"),
        ('"allowed_models": [""]', "allowed_models", "empty_field"),
    ],
)
def test_what_no_key_can_be_is_refused_by_name(more: str, param: str, reason: str) -> None:
    """The field at fault is named, whichever of many it is; the same holds for a change."""
    for read, body in (
        (key_document.read_new, f'{{"name": "anna", {more}}}'),
        (key_document.read_changes, f"{{{more}}}"),
    ):
        with pytest.raises(CallerError) as error:
            read(body.encode())
        assert (error.value.kind, error.value.param, error.value.reason) == (Kind.INVALID_VALUE, param, reason)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"name": "a", "name": "b"}', b'{"name": "\xff"}'])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """As everywhere else."""
    for read in (key_document.read_new, key_document.read_changes):
        with pytest.raises(CallerError) as error:
            read(body)
        assert error.value.kind is Kind.INVALID_JSON


def test_a_change_of_nothing_is_refused() -> None:
    """It is a mistake; a field that is set to nothing is a change."""
    with pytest.raises(CallerError) as error:
        key_document.read_changes(b"{}")
    assert error.value.reason == "nothing_to_change"
    assert key_document.read_changes(b'{"expires_at": null}') == KeyChanges(expires_at=None)
