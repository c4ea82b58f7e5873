"""Keys are stored, found, changed and revoked alike on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from chatgate.admission import gateway_keys
from chatgate.storage import keys, schema
from chatgate.storage.database import Database
from chatgate.storage.errors import KeyNotFound, KeyRevoked, KeyTaken, StaleVersion
from chatgate.vocabulary.keys import (
    MAX_AMOUNT,
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
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)

FULL = NewKey(
    name="Büro «東京» 🗼",
    owner="team-ä",
    enabled=False,
    expires_at=datetime(2027, 1, 1, 0, 0, 0, 123456, tzinfo=timezone(timedelta(hours=8))),
    allowed_models=("gpt-*", 'we"ird\\*', "模型/*"),
    allowed_addresses=("10.0.0.0/8", "2001:db8::/32"),
    limits=(KeyLimit("requests", 100, "minute"), KeyLimit("in_flight", 5), KeyLimit("usd", MAX_AMOUNT, "day", "gpt-*")),
    budgets=(KeyBudget(5_000_000_000, "month", 80), KeyBudget(MAX_AMOUNT, "ever")),
    language="zh_CN",
    notes="first line\n\tsecond line",
)


@pytest.fixture
def ids() -> Iterator[str]:
    """Yield ids that sort in their order."""
    return (f"id{number:04}" for number in count())


def make(database: Database, key_id: str = "id", new: NewKey | None = None, now: datetime = NOW) -> KeyRecord:
    """Store a key whose digest is told by its id."""
    new = NewKey("a key") if new is None else new
    return database.write(keys.create, new, key_id, f"digest of {key_id}", gateway_keys.display(key_id), now)


def test_a_key_is_found_as_it_was_made(database: Database) -> None:
    """Every field comes back, by id and by digest; times in UTC to the microsecond."""
    made = make(database, "id", FULL)
    assert msgspec.structs.asdict(made) == msgspec.structs.asdict(FULL) | {
        "id": "id",
        "display": "sk-cg-id-…",
        "created_at": NOW,
        "revoked_at": None,
        "rotated_at": None,
        "version": 1,
    }
    assert made.expires_at is not None
    assert made.expires_at.tzinfo is UTC
    assert database.read(keys.get, "id") == made
    assert database.read(keys.find_by_digest, "digest of id") == made
    assert database.read(keys.find_by_name, FULL.name) == [made]
    assert database.read(keys.count) == 1


def test_what_is_not_there_is_not_found(database: Database) -> None:
    """Nothing else opens: no part of a digest, no pattern, no other case."""
    make(database)
    for digest in ("", "digest", "digest of i_", "%", "DIGEST OF ID", "digest of id ", "' OR 1=1 --"):
        assert database.read(keys.find_by_digest, digest) is None
    for key_id in ("", "%", "ID", "id ", "' OR ''='"):
        with pytest.raises(KeyNotFound):
            database.read(keys.get, key_id)
    assert database.read(keys.find_by_name, "a%") == []


def test_an_id_and_a_digest_are_given_once(database: Database) -> None:
    """The second is refused, and the first stays as it was."""
    first = make(database, "one")
    with pytest.raises(KeyTaken):
        make(database, "one", NewKey("another"))
    with pytest.raises(KeyTaken):
        database.write(keys.create, NewKey("another"), "two", "digest of one", "", NOW)
    assert database.read(keys.list_keys) == [first]


def test_a_change_touches_what_it_names(database: Database) -> None:
    """Fields left out stay; None and empty are values; the version grows."""
    made = make(database, "id", FULL)
    changed = database.write(keys.change, "id", KeyChanges(name="new", expires_at=None, limits=()), expected_version=1)
    assert changed == msgspec.structs.replace(made, name="new", expires_at=None, limits=(), version=2)
    assert database.write(keys.change, "id", KeyChanges(enabled=True)).version == 3
    assert database.read(keys.get, "id").enabled


def test_a_change_of_a_version_that_is_gone_is_refused(database: Database) -> None:
    """Who read an older version learns which is current, and changes nothing."""
    make(database)
    current = database.write(keys.change, "id", KeyChanges(notes="first"))
    actions: list[Any] = [
        lambda connection: keys.change(connection, "id", KeyChanges(notes="second"), expected_version=1),
        lambda connection: keys.revoke(connection, "id", LATER, expected_version=1),
        lambda connection: keys.rotate(connection, "id", "new digest", LATER, expected_version=1),
    ]
    for action in actions:
        with pytest.raises(StaleVersion) as caught:
            database.write(action)
        assert caught.value.current == 2
    assert database.read(keys.get, "id") == current


def test_of_many_who_change_one_version_one_does(database: Database) -> None:
    """Eight at the same moment expect version 1: one gets it, and seven are told."""
    make(database)
    together = threading.Barrier(8)

    def attempt(number: int) -> int:
        together.wait(10)
        try:
            database.write(keys.change, "id", KeyChanges(notes=f"by {number}"), expected_version=1)
        except StaleVersion:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1
    assert database.read(keys.get, "id").version == 2


def test_a_revoked_key_stays_revoked(database: Database) -> None:
    """It is still found, says since when, and nothing brings it back; revoking it again changes nothing."""
    make(database)
    revoked = database.write(keys.revoke, "id", LATER, expected_version=1)
    assert (revoked.revoked_at, revoked.version, revoked.state(LATER)) == (LATER, 2, KeyState.REVOKED)
    assert database.write(keys.revoke, "id", LATER + timedelta(days=1)) == revoked
    with pytest.raises(KeyRevoked):
        database.write(keys.change, "id", KeyChanges(enabled=True))
    with pytest.raises(KeyRevoked):
        database.write(keys.rotate, "id", "new digest", LATER)
    assert database.read(keys.find_by_digest, "digest of id") == revoked


def test_a_rotated_key_is_only_found_by_its_new_digest(database: Database) -> None:
    """Everything else of it stays."""
    made = make(database, "id", FULL)
    rotated = database.write(keys.rotate, "id", "new digest", LATER, expected_version=1)
    assert rotated == msgspec.structs.replace(made, rotated_at=LATER, version=2)
    assert database.read(keys.find_by_digest, "new digest") == rotated
    assert database.read(keys.find_by_digest, "digest of id") is None


def test_a_key_is_not_rotated_to_the_digest_of_another(database: Database) -> None:
    """Two keys never open for one secret."""
    make(database, "one")
    two = make(database, "two")
    with pytest.raises(KeyTaken):
        database.write(keys.rotate, "two", "digest of one", LATER)
    assert database.read(keys.get, "two") == two


def test_a_digest_under_a_new_pepper_replaces_the_former(database: Database) -> None:
    """The key is the same, version included; when the former is gone meanwhile, nothing happens."""
    made = make(database)
    assert database.write(keys.renew_digest, "id", "digest of id", "new digest")
    assert database.read(keys.find_by_digest, "new digest") == made
    assert not database.write(keys.renew_digest, "id", "digest of id", "newer digest")
    assert database.read(keys.find_by_digest, "newer digest") is None


def test_an_owner_sees_and_changes_only_what_is_theirs(database: Database) -> None:
    """Another's key looks like none, to reading and to writing."""
    ours = make(database, "ours", NewKey("same name", owner="we"))
    theirs = make(database, "theirs", NewKey("same name", owner="they"))
    assert database.read(keys.list_keys, owner="we") == [ours]
    assert database.read(keys.find_by_name, "same name", owner="we") == [ours]
    assert database.read(keys.get, "ours", owner="we") == ours
    actions: list[Any] = [
        lambda connection: keys.get(connection, "theirs", owner="we"),
        lambda connection: keys.change(connection, "theirs", KeyChanges(notes="x"), owner="we"),
        lambda connection: keys.change(connection, "theirs", KeyChanges(notes="x"), owner="we", expected_version=9),
        lambda connection: keys.revoke(connection, "theirs", LATER, owner="we"),
        lambda connection: keys.rotate(connection, "theirs", "new digest", LATER, owner="we"),
    ]
    for action in actions:
        with pytest.raises(KeyNotFound):
            database.write(action)
    assert database.read(keys.get, "theirs") == theirs
    assert database.write(keys.change, "ours", KeyChanges(notes="x"), owner="we").notes == "x"


def test_an_owner_cannot_give_a_key_away(database: Database) -> None:
    """Only who sees all keys says whose they are."""
    make(database, "id", NewKey("a key", owner="we"))
    with pytest.raises(InvalidField) as caught:
        database.write(keys.change, "id", KeyChanges(owner="they"), owner="we")
    assert caught.value.field == "owner"
    assert database.write(keys.change, "id", KeyChanges(owner="they")).owner == "they"


def test_an_empty_owner_is_an_owner(database: Database) -> None:
    """Asking for the keys of nobody is not asking for all."""
    make(database, "nobodys")
    make(database, "ours", NewKey("a key", owner="we"))
    assert [key.id for key in database.read(keys.list_keys, owner="")] == ["nobodys"]


def test_keys_are_listed_in_pages(database: Database, ids: Iterator[str]) -> None:
    """Each key comes once, oldest first, also when many were made at one moment."""
    made = [make(database, next(ids), now=NOW + timedelta(seconds=number // 3)) for number in range(10)]
    listed: list[KeyRecord] = []
    while page := database.read(keys.list_keys, after=listed[-1] if listed else None, limit=4):
        assert len(page) <= 4
        listed += page
    assert listed == made


@pytest.mark.parametrize("limit", [-1, 0, keys.MAX_LISTED + 1])
def test_a_page_has_a_size(database: Database, limit: int) -> None:
    """One that is no size is refused, not bent."""
    with pytest.raises(InvalidField):
        database.read(keys.list_keys, limit=limit)


def test_versions_tell_what_changed(database: Database, ids: Iterator[str]) -> None:
    """However many are asked for; one that does not exist is left out."""
    names = [next(ids) for _ in range(1100)]
    for name in names[:3]:
        make(database, name)
    before = database.read(keys.summary)
    database.write(keys.revoke, names[1], LATER)
    assert before[0] == 3
    assert database.read(keys.summary) == (before[0], before[1] + 1)
    assert database.read(keys.versions, names) == {names[0]: 1, names[1]: 2, names[2]: 1}
    assert database.read(keys.versions, []) == {}
    found = database.read(keys.records, names)
    assert {name: record.version for name, record in found.items()} == database.read(keys.versions, names)
    assert found[names[1]].revoked_at == LATER


def test_a_page_begins_after_a_key_of_the_same_owner(database: Database) -> None:
    """By its id; another owner's key is none to begin after, and neither is one that does not exist."""
    ours = [make(database, f"ours{number}", NewKey("a", owner="we")) for number in range(3)]
    make(database, "theirs", NewKey("b", owner="they"))
    assert database.read(keys.page, None, 2, owner="we") == ours[:2]
    assert database.read(keys.page, "ours1", 2, owner="we") == ours[2:]
    assert [key.id for key in database.read(keys.page, "ours2", 2)] == ["theirs"]
    for after in ("theirs", "none"):
        with pytest.raises(InvalidField):
            database.read(keys.page, after, 2, owner="we")


def test_what_no_key_can_have_is_refused(database: Database) -> None:
    """Both when a key is made and when it is changed, and nothing of it is done."""
    made = make(database, "old")
    with pytest.raises(InvalidField):
        make(database, "new", NewKey("a\0b"))
    with pytest.raises(InvalidField):
        database.write(keys.change, "old", KeyChanges(notes="fine", name=""))
    assert database.read(keys.list_keys) == [made]


def test_the_longest_that_is_let_through_is_stored(database: Database) -> None:
    """Each bound fits the column it guards, quotes that double in JSON included."""
    longest = NewKey(
        name="🗼" * MAX_NAME_CHARACTERS,
        owner="é" * 200,
        allowed_models=('"' * MAX_PATTERN_CHARACTERS,) * MAX_ITEMS,
        allowed_addresses=("\\" * 64,) * MAX_ITEMS,
        limits=(KeyLimit('"' * 32, MAX_AMOUNT, '"' * 32, '"' * MAX_PATTERN_CHARACTERS),) * MAX_ITEMS,
        budgets=(KeyBudget(MAX_AMOUNT, '"' * 32, 100),) * MAX_ITEMS,
        language="x" * 35,
        notes="\n" * 2000,
    )
    made = make(database, "x" * 11, longest)
    assert made.limits == longest.limits
    assert database.read(keys.get, "x" * 11) == made


def test_nothing_stored_opens_anything(database: Database) -> None:
    """A whole dump holds neither a key nor its secret."""
    key = gateway_keys.make(lambda count: bytes(range(count)))
    database.write(keys.create, FULL, key.id, gateway_keys.digest(b"pepper" * 8, key), key.display, NOW)

    def dump(connection: Any) -> str:
        return "".join(str(connection.execute(select(table)).all()) for table in schema.metadata.sorted_tables)

    dumped = database.read(dump)
    assert key.display in dumped
    assert key.text not in dumped
    assert key.text.split("-")[3] not in dumped
