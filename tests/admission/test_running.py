"""Calls under way: which changes of their keys end them, and which do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from chatgate.admission.keyring import LookupUnavailable
from chatgate.admission.running import ENDED_REASONS, Running
from chatgate.i18n import Catalogues
from chatgate.vocabulary.errors import Phrase
from chatgate.vocabulary.keys import KeyRecord

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = KeyRecord("k1", "anna", "", "sk-cg-k1-…", True, NOW, None, None, None, (), (), (), (), None, "", 1)  # noqa: FBT003 - in order

ENDING: list[tuple[dict[str, Any], str]] = [
    ({"revoked_at": NOW}, "key_revoked"),
    ({"enabled": False}, "key_disabled"),
    ({"rotated_at": NOW}, "key_replaced"),
    ({"revoked_at": NOW, "rotated_at": NOW, "enabled": False}, "key_revoked"),
]


class Shelf:
    """A storage of keys in memory; it counts how often it was asked, and can be out of reach."""

    def __init__(self) -> None:
        """Hold one key."""
        self.stored = {KEY.id: KEY}
        self.asked = 0
        self.fetched: list[set[str]] = []
        self.is_out_of_reach = False

    def change(self, **changes: Any) -> KeyRecord:
        """Change the key, as whoever manages keys would."""
        before = self.stored[KEY.id]
        self.stored[KEY.id] = structs.replace(before, version=before.version + 1, **changes)
        return self.stored[KEY.id]

    async def versions(self, key_ids: Iterable[str]) -> Mapping[str, int]:
        """Return the versions of those keys that exist."""
        self.asked += 1
        if self.is_out_of_reach:
            raise LookupUnavailable
        return {key_id: self.stored[key_id].version for key_id in key_ids if key_id in self.stored}

    async def records(self, key_ids: Iterable[str]) -> Mapping[str, KeyRecord]:
        """Return those keys that exist."""
        asked = set(key_ids)
        self.fetched.append(asked)
        return {key_id: self.stored[key_id] for key_id in asked if key_id in self.stored}


@pytest.fixture
def shelf() -> Shelf:
    """Return the storage."""
    return Shelf()


@pytest.fixture
def running(shelf: Shelf) -> Running:
    """Return the calls under way, of which there are none."""
    return Running(shelf)


@pytest.mark.parametrize(("changes", "reason"), ENDING)
async def test_a_key_that_is_taken_away_ends_its_calls(
    running: Running, shelf: Shelf, changes: dict[str, Any], reason: str
) -> None:
    """All of them, each with the reason, at the next look; those of other keys go on."""
    told: list[str] = []
    other = structs.replace(KEY, id="k2")
    shelf.stored["k2"] = other
    running.begin("c1", KEY, told.append)
    running.begin("c2", KEY, told.append)
    running.begin("c3", other, lambda _: pytest.fail("another key's call was ended"))
    await running.refresh()
    assert told == []
    shelf.change(**changes)
    await running.refresh()
    assert told == [reason, reason]
    assert shelf.fetched == [{"k1"}]


@pytest.mark.parametrize(("changes", "reason"), ENDING)
async def test_a_change_made_here_needs_no_look(
    running: Running, shelf: Shelf, changes: dict[str, Any], reason: str
) -> None:
    """Whoever changed the key in this process says so, and the calls end at once."""
    told: list[str] = []
    running.begin("c1", KEY, told.append)
    running.changed(structs.replace(KEY, id="k2", **changes))
    assert told == []
    running.changed(shelf.change(**changes))
    assert (told, shelf.asked) == ([reason], 0)


async def test_a_key_that_is_gone_ends_its_calls(running: Running, shelf: Shelf) -> None:
    """As after a restore of the database."""
    told: list[str] = []
    running.begin("c1", KEY, told.append)
    del shelf.stored[KEY.id]
    await running.refresh()
    assert told == ["unknown_key"]


@pytest.mark.parametrize(
    "changes", [{"notes": "x"}, {"allowed_models": ("a",)}, {"expires_at": NOW}, {"owner": "bob"}, {"limits": ()}]
)
async def test_other_changes_hold_for_the_next_call(running: Running, shelf: Shelf, changes: dict[str, Any]) -> None:
    """A key that expires ends nothing either; the change is looked at once, not every second."""
    running.begin("c1", KEY, lambda _: pytest.fail("the call was ended"))
    shelf.change(**changes)
    for _ in range(3):
        await running.refresh()
    assert shelf.fetched == [{"k1"}]


async def test_a_key_that_was_replaced_before_the_call_began_is_the_right_one(running: Running, shelf: Shelf) -> None:
    """Only a change since then counts."""
    running.begin("c1", shelf.change(rotated_at=NOW), lambda _: pytest.fail("the call was ended"))
    shelf.change(notes="x")
    await running.refresh()


async def test_what_is_over_is_not_ended(running: Running, shelf: Shelf) -> None:
    """And with nothing under way nobody is asked."""
    running.begin("c1", KEY, lambda _: pytest.fail("the call was over"))
    running.over("c1")
    running.over("never")
    running.changed(shelf.change(revoked_at=NOW))
    await running.refresh()
    assert (len(running), shelf.asked) == (0, 0)


async def test_a_storage_out_of_reach_ends_nothing(running: Running, shelf: Shelf) -> None:
    """When it is back, what was missed is made up for."""
    told: list[str] = []
    running.begin("c1", KEY, told.append)
    shelf.change(revoked_at=NOW)
    shelf.is_out_of_reach = True
    await running.refresh()
    assert told == []
    shelf.is_out_of_reach = False
    await running.refresh()
    assert told == ["key_revoked"]


def test_every_reason_has_a_message() -> None:
    """What a call is ended by is what its caller reads."""
    catalogues = Catalogues()
    for reason in ENDED_REASONS:
        assert catalogues.translate("en_US", Phrase(reason)) != reason
