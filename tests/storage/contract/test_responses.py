"""Responses are kept until their time is over, for nobody but their subject, alike on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chatgate.storage import responses
from chatgate.storage.database import Database
from storage.conftest import NOW

LATER = NOW + timedelta(hours=1)


def store(database: Database, identity: str = "r1", subject: str = "key-a", body: str = '{"a":"天"}') -> None:
    """Store a response for an hour."""
    database.write(responses.store, identity, subject, LATER, body)


def test_a_response_is_found_by_its_subject_alone(database: Database) -> None:
    """Another key, or none, sees nothing, and can delete nothing."""
    store(database)
    assert database.read(responses.find, "r1", "key-a", NOW) == '{"a":"天"}'
    for other in ("key-b", ""):
        assert database.read(responses.find, "r1", other, NOW) is None
        assert not database.write(responses.remove, "r1", other, NOW)
    assert database.read(responses.find, "r2", "key-a", NOW) is None


def test_a_response_ends_with_its_time(database: Database) -> None:
    """From that moment on it is not there, and the next time that is looked it is deleted."""
    store(database)
    database.write(responses.store, "r2", "key-a", LATER + timedelta(seconds=1), "{}")
    assert database.read(responses.find, "r1", "key-a", LATER) is None
    assert not database.write(responses.remove, "r1", "key-a", LATER)
    assert database.write(responses.forget, NOW, 10) == 0
    assert database.write(responses.forget, LATER, 10) == 1
    assert database.read(responses.find, "r1", "key-a", NOW) is None
    assert database.read(responses.find, "r2", "key-a", LATER) == "{}"


def test_a_response_can_be_removed_and_replaced(database: Database) -> None:
    """A second one of the same id takes the first one's place; a removed one is gone."""
    store(database)
    store(database, body="{}")
    assert database.read(responses.find, "r1", "key-a", NOW) == "{}"
    assert database.write(responses.remove, "r1", "key-a", NOW)
    assert not database.write(responses.remove, "r1", "key-a", NOW)


def test_what_is_too_long_is_refused_whole(database: Database) -> None:
    """Half a dialogue is none."""
    with pytest.raises(ValueError, match="too long"):
        store(database, body="x" * (responses.MAX_CHARACTERS + 1))
    assert database.read(responses.find, "r1", "key-a", NOW) is None
