"""What administrators ask for, while the database is away or whoever asked has left."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chatgate.administration.desk import Asked, Desk, ListQuery, NoQuery, UsageQuery
from chatgate.administration.door import Admin
from chatgate.admission.gateway_keys import GatewayKey, digest
from chatgate.admission.keyring import LookupUnavailable
from chatgate.server.run import Run
from chatgate.storage import keys, migration
from chatgate.storage.database import Database, open_database
from chatgate.storage.errors import Reason, StorageUnavailable
from chatgate.storage.threads import DatabaseThreads
from chatgate.vocabulary.errors import GateError, Kind
from chatgate.vocabulary.keys import KeyRecord

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PEPPER = b"test-pepper-0123456789-0123456789"


class Office:
    """A database, the log and this node's memory, as the desk has them; the database can be out of reach."""

    def __init__(self, database: Database, threads: DatabaseThreads) -> None:
        """Use a database that is ready."""
        self.database = database
        self._threads = threads
        self.trouble: Exception | None = None
        self.noted: list[tuple[str, dict[str, Any]]] = []
        self.heard: list[KeyRecord] = []
        self.desk = Desk(self, self, self.note, lambda: NOW, secrets.token_bytes)

    @property
    def threads(self) -> DatabaseThreads:
        """Return the database, or fail as it does."""
        if self.trouble is not None:
            raise self.trouble
        return self._threads

    def digest(self, key: GatewayKey) -> str:
        """Return what is stored of a key."""
        return digest(PEPPER, key)

    def changed(self, record: KeyRecord) -> None:
        """Hear of a change."""
        self.heard.append(record)

    def note(self, event: str, **facts: Any) -> None:
        """Write into the log."""
        self.noted.append((event, facts))


@pytest_asyncio.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """Return an office with an empty database."""
    database = open_database(None, tmp_path)
    migration.migrate(database, tmp_path, NOW)
    threads = DatabaseThreads(database)
    yield Office(database, threads)
    await threads.close()


def asked(body: bytes = b"", query: Any = NoQuery(), key_id: str = "") -> Asked:  # noqa: B008 - frozen
    """Return what root asks for."""
    return Asked(Admin("root"), "192.0.2.7", "req_1", key_id, query, body)


@pytest.mark.parametrize("trouble", [LookupUnavailable(), StorageUnavailable(Reason.SLOW, "no answer in time")])
async def test_while_the_database_is_away_everybody_is_told_to_come_again(office: Office, trouble: Exception) -> None:
    """Each operation says so, as 503 with a wait; nothing is logged as changed, and it works again afterwards."""
    made = await office.desk.create_key(asked(b'{"name": "anna"}'))
    office.noted.clear()
    office.trouble = trouble
    for work in (
        office.desk.list_keys(asked(query=ListQuery())),
        office.desk.get_key(asked(key_id=made.id)),
        office.desk.create_key(asked(b'{"name": "bob"}')),
        office.desk.update_key(asked(b'{"notes": "x"}', key_id=made.id)),
        office.desk.revoke_key(asked(key_id=made.id)),
        office.desk.rotate_key(asked(key_id=made.id)),
        office.desk.get_usage(asked(query=UsageQuery())),
    ):
        with pytest.raises(GateError) as error:
            await work
        assert (error.value.kind, error.value.reason) == (Kind.OVERLOADED, "database_unavailable")
        assert error.value.retry_after_seconds
    assert office.noted == []
    office.trouble = None
    assert (await office.desk.get_key(asked(key_id=made.id))).version == 1


async def test_a_change_is_finished_and_logged_when_whoever_asked_has_left(office: Office) -> None:
    """What has begun in the database cannot be taken back, so it must not be done in silence."""
    gate, noted = threading.Event(), asyncio.Event()
    blocking = asyncio.create_task(office.threads.write(lambda _: gate.wait(5)))
    await asyncio.sleep(0)
    ended: list[BaseException | None] = []

    async def ask() -> None:
        await office.desk.create_key(asked(b'{"name": "anna"}'))

    run = Run(ask(), lambda _, error: ended.append(error))
    run.step()
    await asyncio.sleep(0)
    run.cancel("left")
    await asyncio.sleep(0.01)
    assert isinstance(ended[0], asyncio.CancelledError)
    original = office.note

    def note(event: str, **facts: Any) -> None:
        original(event, **facts)
        noted.set()

    office.desk._note = note
    gate.set()
    await blocking
    await asyncio.wait_for(noted.wait(), 5)
    ((event, facts),) = office.noted
    (record,) = office.database.read(keys.list_keys)
    assert (event, facts["key"], facts["by"]) == ("key_created", record.id, "root")
    assert office.heard == [record]
