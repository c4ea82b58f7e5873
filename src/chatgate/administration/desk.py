"""What each operation of the admin API does: in the database, on this node, and in the log.

Owns what an administrator may see and change: whoever has an owner reaches the database with that owner, and the
statements see nobody else's keys. Owns too that a change is logged once, by whom and of which key, and finished even
when whoever asked for it has left. A key's text is in one answer, and nowhere else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct, structs

from chatgate.administration.usages import described, read_groupings, read_since
from chatgate.admission import gateway_keys
from chatgate.admission.addresses import parse_network
from chatgate.admission.keyring import LookupUnavailable
from chatgate.i18n import LANGUAGES
from chatgate.protocols import key_document
from chatgate.protocols.key_document import ShownKey
from chatgate.storage import keys
from chatgate.storage.errors import KeyNotFound, KeyRevoked, StorageUnavailable
from chatgate.storage.usage import usage
from chatgate.vocabulary.errors import CallerError, Kind, Overloaded
from chatgate.vocabulary.keys import InvalidField, KeyChanges, KeyRecord, NewKey, check

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import datetime

    from chatgate.administration.door import Admin
    from chatgate.storage.threads import DatabaseThreads

MAX_LISTED = 500

Result = TypeVar("Result")


class Storage(Protocol):
    """Where the database is found."""

    @property
    def threads(self) -> DatabaseThreads:
        """Return the database. Raises `LookupUnavailable` while it has not been reached."""


class Node(Protocol):
    """What this process remembers of keys."""

    def digest(self, key: gateway_keys.GatewayKey) -> str:
        """Return what is to be stored of a key."""

    def changed(self, record: KeyRecord) -> None:
        """Hear that a key has become this, and act on it at once."""


class Note(Protocol):
    """The log."""

    def __call__(self, event: str, **facts: Any) -> None:  # noqa: ANN401 - JSON facts
        """Write down that something happened."""


class Asked(Struct, frozen=True):
    """What is asked, by whom: the key's id of the path, "" in paths without one, the query, and the body's bytes."""

    admin: Admin
    address: str
    request_id: str
    key_id: str
    query: Any
    body: bytes


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which keys, and how many of them; `after` is the `next` of the page before."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LISTED)] = 100
    after: Annotated[str, Meta(pattern=r"^[0-9A-Za-z]{1,64}\Z")] | None = None
    owner: str | None = None


class UsageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which groups, and since when: 90m, 24h, 7d, 2w ago, or 2026-11-01 in UTC."""

    by: str = "key,model"
    since: str | None = None


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing can be asked for."""


class NoBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing is to be said: the body may be empty, or an empty object."""


class KeyPage(Struct, frozen=True):
    """Keys, oldest first. `next` is what to ask for `after` for more, None at the end."""

    object: str
    data: list[ShownKey]
    next: str | None


class UsagePage(Struct, frozen=True):
    """Groups of calls, as `chatgate usage --json` has them."""

    object: str
    data: list[dict[str, str | int | None]]


class Desk:
    """Does what administrators ask for."""

    def __init__(
        self,
        storage: Storage,
        node: Node,
        note: Note,
        wall_clock: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """`wall_clock` is in UTC; `random_bytes(n)` makes keys."""
        self._storage = storage
        self._node = node
        self._note = note
        self._wall_clock = wall_clock
        self._random_bytes = random_bytes
        self._changes: set[asyncio.Task[ShownKey]] = set()
        self._one_report = asyncio.Lock()

    async def list_keys(self, asked: Asked) -> KeyPage:
        """Return a page of the keys that there are."""
        query: ListQuery = asked.query
        owner = _whose(asked.admin, query.owner)
        found = await self._read(keys.page, query.after, query.limit + 1, owner=owner)
        shown, more = found[: query.limit], found[query.limit :]
        now = self._wall_clock()
        return KeyPage("list", [key_document.shown(each, now) for each in shown], shown[-1].id if more else None)

    async def get_key(self, asked: Asked) -> ShownKey:
        """Return a key."""
        return self._shown(await self._read(keys.get, asked.key_id, owner=asked.admin.owner))

    async def create_key(self, asked: Asked) -> ShownKey:
        """Make a key, and show it this once."""
        new = key_document.read_new(asked.body)
        _check_words(new, self._wall_clock())
        if asked.admin.owner is not None:
            _whose(asked.admin, new.owner or None)
            new = structs.replace(new, owner=asked.admin.owner)
        key = gateway_keys.make(self._random_bytes)

        async def create() -> ShownKey:
            digest = self._node.digest(key)
            record = await self._write(keys.create, new, key.id, digest, key.display, self._wall_clock())
            return self._done(asked, "key_created", record, key.text)

        return await self._finished(create())

    async def update_key(self, asked: Asked) -> ShownKey:
        """Change what a key may."""
        changes = key_document.read_changes(asked.body)
        _check_words(changes, self._wall_clock())
        fields = ",".join(name for name, value in structs.asdict(changes).items() if value is not msgspec.UNSET)

        async def change() -> ShownKey:
            record = await self._write(keys.change, asked.key_id, changes, owner=asked.admin.owner)
            return self._done(asked, "key_changed", record, fields=fields)

        return await self._finished(change())

    async def revoke_key(self, asked: Asked) -> ShownKey:
        """End a key for ever; one that is revoked already stays as it is."""

        async def revoke() -> ShownKey:
            record = await self._write(keys.revoke, asked.key_id, self._wall_clock(), owner=asked.admin.owner)
            return self._done(asked, "key_revoked", record)

        return await self._finished(revoke())

    async def rotate_key(self, asked: Asked) -> ShownKey:
        """Give a key another secret, and show it this once."""

        async def rotate() -> ShownKey:
            key = gateway_keys.make(self._random_bytes, asked.key_id)
            digest, now = self._node.digest(key), self._wall_clock()
            record = await self._write(keys.rotate, asked.key_id, digest, now, owner=asked.admin.owner)
            return self._done(asked, "key_rotated", record, key.text)

        return await self._finished(rotate())

    async def get_usage(self, asked: Asked) -> UsagePage:
        """Return what was used; one report is made at a time, so that keys can be looked up meanwhile."""
        query: UsageQuery = asked.query
        try:
            by = read_groupings(query.by)
        except ValueError:
            raise _wrong("by") from None
        try:
            since = None if query.since is None else read_since(query.since, self._wall_clock())
        except ValueError:
            raise _wrong("since") from None
        async with self._one_report:
            groups = await self._read(usage, by, since=since, owner=asked.admin.owner)
        return UsagePage("list", [described(by, group) for group in groups])

    def _shown(self, record: KeyRecord, key: str | None = None) -> ShownKey:
        return key_document.shown(record, self._wall_clock(), key)

    def _done(self, asked: Asked, event: str, record: KeyRecord, key: str | None = None, **facts: str) -> ShownKey:
        """Let this node act on a change at once, and the log say whose it was."""
        self._node.changed(record)
        self._note(
            event, key=record.id, by=asked.admin.name, address=asked.address, request_id=asked.request_id, **facts
        )
        return self._shown(record, key)

    async def _finished(self, change: Coroutine[None, None, ShownKey]) -> ShownKey:
        """Carry a change out to its end, its line in the log included, whether anybody still waits or not."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[ShownKey]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # Looked at, in case that nobody waits for it any more.

    async def _read(self, work: Callable[..., Result], *args: object, **kwargs: object) -> Result:
        async def read() -> Result:
            return await self._storage.threads.read(work, *args, **kwargs)

        # A request is no task, and it takes one to wait for a thread with an end to the waiting.
        return await _answered(asyncio.create_task(read()))

    async def _write(self, work: Callable[..., Result], *args: object, **kwargs: object) -> Result:
        async def write() -> Result:
            return await self._storage.threads.write(work, *args, **kwargs)

        return await _answered(write())


async def _answered(work: asyncio.Task[Result] | Coroutine[None, None, Result]) -> Result:
    """Wait for the database, and say in a caller's terms what it refuses."""
    try:
        return await work
    except KeyNotFound:
        raise CallerError(Kind.NOT_FOUND, "no_such_key") from None
    except KeyRevoked:
        raise CallerError(Kind.INVALID_VALUE, "revoked_key_stays") from None
    except InvalidField as error:
        raise key_document.refusal_of(error) from None
    except (StorageUnavailable, LookupUnavailable) as error:
        raise Overloaded("database_unavailable") from error


def _whose(admin: Admin, asked: str | None) -> str | None:
    """Return whose keys are meant, None for everybody's. Raises `CallerError` for those of another owner."""
    if asked is None:
        return admin.owner
    try:
        check(KeyChanges(owner=asked))
    except InvalidField as error:
        raise key_document.refusal_of(error) from None
    if admin.owner is not None and asked != admin.owner:
        raise _wrong("owner")
    return asked


def _check_words(key: NewKey | KeyChanges, now: datetime) -> None:
    """Refuse addresses, languages and times that the command refuses too."""
    for place, address in enumerate(() if key.allowed_addresses is msgspec.UNSET else key.allowed_addresses):
        try:
            parse_network(address)
        except ValueError:
            raise _wrong(f"allowed_addresses[{place}]") from None
    if key.language not in {None, msgspec.UNSET, *LANGUAGES}:
        raise _wrong("language")
    if key.expires_at is not msgspec.UNSET and key.expires_at is not None and key.expires_at <= now:
        raise _wrong("expires_at")


def _wrong(field: str) -> CallerError:
    return CallerError(Kind.INVALID_VALUE, "invalid_field", param=field, parameters={"field": field})
