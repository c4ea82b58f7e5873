"""Keys that callers show: found, remembered, judged, and what holds while the storage is out of reach."""

from __future__ import annotations

import asyncio
import gc
import pickle
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from chatgate.admission import gateway_keys, keyring
from chatgate.admission.gateway_keys import GatewayKey
from chatgate.admission.keyring import Keyring, LookupUnavailable, Patterns
from chatgate.server.run import Run
from chatgate.storage import keys as stored
from chatgate.storage.database import open_database
from chatgate.storage.errors import StorageUnavailable
from chatgate.storage.migration import migrate
from chatgate.storage.threads import DatabaseThreads
from chatgate.vocabulary.errors import CallerError, GateError, Kind, Overloaded
from chatgate.vocabulary.keys import KeyChanges, KeyRecord, NewKey

PEPPER = b"test-pepper-0123456789-0123456789"
FORMER = b"test-former-0123456789-0123456789"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        """Start somewhere in an uptime."""
        self.now = 5000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    def wall(self) -> datetime:
        """Return the date and time that belong to it."""
        return NOW + timedelta(seconds=self.now - 5000)


class Shelf:
    """A storage of keys in memory: it counts what it is asked, and can be out of reach, or hold its answers back."""

    def __init__(self) -> None:
        """Begin empty."""
        self.stored: dict[str, KeyRecord] = {}
        self.asked: list[Sequence[str]] = []
        self.polled: list[set[str]] = []
        self.summaries = 0
        self.others = 0
        self.is_out_of_reach = False
        self.gate: asyncio.Event | None = None
        self.gate_of_polls: asyncio.Event | None = None

    def put(self, key: GatewayKey, pepper: bytes = PEPPER, **fields: Any) -> KeyRecord:
        """Store a key and return its record."""
        made = record(key.id, key.display, **fields)
        self.stored[gateway_keys.digest(pepper, key)] = made
        return made

    def change(self, key: GatewayKey, **fields: Any) -> KeyRecord:
        """Change a stored key."""
        digest = gateway_keys.digest(PEPPER, key)
        before = self.stored[digest]
        self.stored[digest] = structs.replace(before, version=before.version + 1, **fields)
        return self.stored[digest]

    async def by_digest(self, digests: Sequence[str]) -> KeyRecord | None:
        """Find a key, as `KeyLookup` has it."""
        self.asked.append(digests)
        found = next((self.stored[digest] for digest in digests if digest in self.stored), None)
        await self._answer(self.gate)
        return found

    async def versions(self, key_ids: Iterable[str]) -> Mapping[str, int]:
        """Tell versions, as `KeyLookup` has it."""
        self.polled.append(set(key_ids))
        found = {each.id: each.version for each in self.stored.values() if each.id in self.polled[-1]}
        await self._answer(self.gate_of_polls)
        return found

    async def summary(self) -> tuple[int, int]:
        """Tell what changes with any key, as `KeyLookup` has it."""
        self.summaries += 1
        found = len(self.stored) + self.others, sum(each.version for each in self.stored.values())
        await self._answer(None)
        return found

    async def _answer(self, gate: asyncio.Event | None) -> None:
        if gate is not None:
            await gate.wait()
        if self.is_out_of_reach:
            raise LookupUnavailable


def record(key_id: str = "k1", display: str = "sk-cg-k1-…", **fields: Any) -> KeyRecord:
    """Return a key that may do everything but for what is said."""
    values: dict[str, Any] = {
        "name": "test",
        "owner": "",
        "enabled": True,
        "created_at": NOW,
        "expires_at": None,
        "revoked_at": None,
        "rotated_at": None,
        "allowed_models": (),
        "allowed_addresses": (),
        "limits": (),
        "budgets": (),
        "language": None,
        "notes": "",
        "version": 1,
    }
    return KeyRecord(id=key_id, display=display, **{**values, **fields})


def make(number: int = 1) -> GatewayKey:
    """Return a key, another one for each number."""
    return gateway_keys.make(number.to_bytes)


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def shelf() -> Shelf:
    """Return an empty storage."""
    return Shelf()


@pytest.fixture
def ring(shelf: Shelf, clock: Clock) -> Keyring:
    """Return a keyring that knows nothing yet."""
    return Keyring((PEPPER, FORMER), shelf, clock, clock.wall)


async def refusal(ring: Keyring, shown: str) -> GateError:
    """Return how a key is refused."""
    with pytest.raises(GateError) as caught:
        await ring.find(shown)
    return caught.value


# --- Finding ----------------------------------------------------------------------------------------------------------


async def test_a_key_is_looked_up_once_and_then_known(ring: Keyring, shelf: Shelf) -> None:
    """The storage is asked for its digest under each pepper, never for its text."""
    key = make()
    stored = shelf.put(key)
    assert ring.known(key.text) is None
    assert await ring.find(key.text) is stored
    assert ring.known(key.text) is stored
    assert await ring.find(key.text) is stored
    assert shelf.asked == [[gateway_keys.digest(PEPPER, key), gateway_keys.digest(FORMER, key)]]


async def test_a_key_made_under_a_former_pepper_is_found(ring: Keyring, shelf: Shelf) -> None:
    """Changing the pepper ends no key."""
    key = make()
    stored = shelf.put(key, FORMER)
    assert await ring.find(key.text) is stored


@pytest.mark.parametrize(
    "shown",
    [
        "sk-cg-",
        "sk-cg-x",
        make().text[:-1],
        make().text + "x",
        make().text.upper(),
        make().text[:20] + "'; DROP TABLE keys; --",
        "sk-cg-" + "x" * 500,
    ],
)
async def test_what_cannot_be_a_key_never_reaches_the_storage(ring: Keyring, shelf: Shelf, shown: str) -> None:
    """Also while it is out of reach: then too it is unknown, and that can be said."""
    shelf.is_out_of_reach = True
    error = await refusal(ring, shown)
    assert (type(error), error.kind, error.reason) == (CallerError, Kind.INVALID_KEY, "unknown_key")
    assert ring.known(shown) is None
    assert shelf.asked == []


async def test_a_slip_of_the_pen_is_found_without_a_look_up(ring: Keyring, shelf: Shelf) -> None:
    """The checksum sees it."""
    text = make().text
    swapped = text[:30] + ("a" if text[30] != "a" else "b") + text[31:]
    assert (await refusal(ring, swapped)).reason == "unknown_key"
    assert shelf.asked == []


async def test_an_unknown_key_is_not_looked_up_again_for_a_second(ring: Keyring, shelf: Shelf, clock: Clock) -> None:
    """After it the storage is asked again, so that a key made meanwhile is found."""
    key = make()
    for _ in range(3):
        error = await refusal(ring, key.text)
        assert (error.kind, error.reason) == (Kind.INVALID_KEY, "unknown_key")
    assert len(shelf.asked) == 1
    stored = shelf.put(key)
    clock.now += 1.0
    assert await ring.find(key.text) is stored


async def test_what_is_remembered_is_bounded(ring: Keyring, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of known and unknown keys alike; the oldest is forgotten first, and found again when it is shown."""
    monkeypatch.setattr(keyring, "MAX_KNOWN", 3)
    monkeypatch.setattr(keyring, "MAX_UNKNOWN", 3)
    good, bad = [make(number) for number in range(5)], [make(number) for number in range(5, 10)]
    for key in good:
        shelf.put(key)
        ring.judge(await ring.find(key.text), "192.0.2.1", "m")
    for key in bad:
        await refusal(ring, key.text)
    assert [ring.known(key.text) is not None for key in good] == [False, False, True, True, True]
    assert max(len(ring._known), len(ring._unknown), len(ring._terms)) <= 3
    assert (await ring.find(good[0].text)).id == good[0].id


async def happens(key: GatewayKey, ring: Keyring, shelf: Shelf, clock: Clock, dice: random.Random) -> None:
    """Let something become of a key."""
    match dice.randrange(5):
        case 0:
            shelf.change(key, allowed_addresses=dice.choice([(), ("192.0.2.0/24",)]))
        case 1:
            shelf.change(key, expires_at=clock.wall() + timedelta(seconds=dice.choice([0, 5, 5000])))
        case 2:
            clock.now += dice.choice([1.0, 10.0, keyring.USABLE_SECONDS])
        case 3:
            shelf.is_out_of_reach = dice.random() < 0.2
            await ring.refresh()
        case _:
            ring.changed(key.id)


@pytest.mark.parametrize("seed", range(20))
async def test_it_stands_by_what_it_would_say_again(
    ring: Keyring, shelf: Shelf, clock: Clock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever became of a key: by the record that is known now, from the addresses it may be used from."""
    monkeypatch.setattr(keyring, "MAX_KNOWN", 2)
    dice = random.Random(seed)
    keys = [make(number) for number in range(3)]
    for key in keys:
        shelf.put(key)
    found: list[tuple[GatewayKey, KeyRecord]] = []
    stood = 0
    for _ in range(80):
        key = dice.choice(keys)
        if dice.random() < 0.6:
            await happens(key, ring, shelf, clock, dice)
        elif not shelf.is_out_of_reach or ring.known(key.text) is not None:
            found.append((key, await ring.find(key.text)))
        for shown, seen in found:
            for address in ("192.0.2.1", "198.51.100.1"):
                is_same = ring.known(shown.text) is seen and not verdict(ring, seen, address)
                assert ring.stands_by(seen, address) is is_same
                stood += is_same
    assert stood
    assert len(ring._latest) <= 2


async def test_it_does_not_stand_by_a_former_secret(ring: Keyring, shelf: Shelf) -> None:
    """Once the new one was shown, whoever shows the old one is judged anew."""
    key = make(1)
    before = shelf.put(key)
    await ring.find(key.text)
    rotated = gateway_keys.make((7).to_bytes, key.id)
    shelf.stored.clear()
    after = shelf.put(rotated, version=before.version + 1)
    assert ring.stands_by(before, "192.0.2.1")
    await ring.find(rotated.text)
    assert (ring.stands_by(before, "192.0.2.1"), ring.stands_by(after, "192.0.2.1")) == (False, True)
    await ring.refresh()
    assert (ring.stands_by(before, "192.0.2.1"), ring.stands_by(after, "192.0.2.1")) == (False, True)


async def test_no_key_is_kept_in_clear_text(ring: Keyring, shelf: Shelf) -> None:
    """Neither of those that are known nor of those that are not."""
    known, unknown = make(1), make(2)
    shelf.put(known)
    await ring.find(known.text)
    await refusal(ring, unknown.text)
    await asyncio.sleep(0)
    held = pickle.dumps([vars(ring)[name] for name in ("_unknown", "_terms")] + [list(ring._known.items())])
    for key in (known, unknown):
        assert key.text.rpartition("-")[2].encode() not in held


# --- Several at once --------------------------------------------------------------------------------------------------


async def test_callers_who_show_one_key_share_a_look_up(ring: Keyring, shelf: Shelf) -> None:
    """However many there are; and so do those who show one that does not exist."""
    good, bad = make(1), make(2)
    stored = shelf.put(good)
    shelf.gate = asyncio.Event()
    asking = [asyncio.create_task(ring.find(good.text)) for _ in range(50)]
    failing = [asyncio.create_task(ring.find(bad.text)) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(shelf.asked) == 2
    shelf.gate.set()
    assert await asyncio.gather(*asking) == [stored] * 50
    refused = await asyncio.gather(*failing, return_exceptions=True)
    assert {getattr(each, "reason", None) for each in refused} == {"unknown_key"}
    assert len({id(each) for each in refused}) == 50
    assert len(shelf.asked) == 2


async def test_who_leaves_does_not_end_the_look_up_of_the_others(ring: Keyring, shelf: Shelf) -> None:
    """The first who asked may be cancelled, and so may everybody: what was found is remembered all the same."""
    key = make()
    stored = shelf.put(key)
    shelf.gate = asyncio.Event()
    first, second = (asyncio.create_task(ring.find(key.text)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    shelf.gate.set()
    assert await second is stored
    assert first.cancelled()
    assert ring.known(key.text) is stored


async def test_a_look_up_that_fails_with_nobody_waiting_is_no_noise(
    ring: Keyring, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """Everybody has left, and the storage is out of reach: nothing is left behind and nothing complains."""
    shelf.gate = asyncio.Event()
    shelf.is_out_of_reach = True
    asking = asyncio.create_task(ring.find(make().text))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.sleep(0)
    shelf.gate.set()
    await asyncio.sleep(0.01)
    gc.collect()
    assert caplog.records == []
    assert ring._lookups == {}


async def test_a_flood_of_made_up_keys_leaves_the_storage_room(
    ring: Keyring, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many look-ups are under way at once, and only so many wait; the next is told to come back."""
    monkeypatch.setattr(keyring, "MAX_WAITING", 6)
    ring._turns = asyncio.Semaphore(4)
    known = make(99)
    shelf.put(known)
    await ring.find(known.text)
    shelf.gate = asyncio.Event()
    flood = [asyncio.create_task(ring.find(make(number).text)) for number in range(10)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(shelf.asked) == 1 + 4
    assert ring.known(known.text) is not None
    shelf.gate.set()
    reasons = [getattr(each, "reason", None) for each in await asyncio.gather(*flood, return_exceptions=True)]
    assert reasons == ["unknown_key"] * 6 + ["auth_unavailable"] * 4


async def test_a_call_without_a_task_finds_its_key(ring: Keyring, shelf: Shelf) -> None:
    """The server runs calls without one; a call that is cancelled there leaves the look-up to the others."""
    key = make()
    stored = shelf.put(key)
    shelf.gate = asyncio.Event()
    found: list[KeyRecord] = []
    ended: list[BaseException | None] = []

    async def call() -> None:
        found.append(await ring.find(key.text))

    runs = [Run(call(), lambda _run, error: ended.append(error)) for _ in range(3)]
    for run in runs:
        run.step()
    runs[0].cancel("left")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    shelf.gate.set()
    await asyncio.sleep(0.01)
    assert found == [stored, stored]
    assert [type(each) for each in ended] == [asyncio.CancelledError, type(None), type(None)]


# --- Changes ----------------------------------------------------------------------------------------------------------


async def test_a_change_is_heard_of_at_the_next_refresh(ring: Keyring, shelf: Shelf) -> None:
    """A changed key is forgotten and looked up anew, one that stayed is not."""
    changed, same = make(1), make(2)
    shelf.put(changed)
    kept = shelf.put(same)
    for key in (changed, same):
        await ring.find(key.text)
    revoked = shelf.change(changed, revoked_at=NOW)
    assert await ring.refresh() == {changed.id}
    assert shelf.polled == [{changed.id, same.id}]
    assert ring.known(changed.text) is None
    assert ring.known(same.text) is kept
    assert await ring.find(changed.text) is revoked
    assert await ring.refresh() == frozenset()


async def test_a_key_that_is_gone_or_has_another_secret_is_unknown(ring: Keyring, shelf: Shelf) -> None:
    """The old secret opens nothing any more once the keyring has heard of it; the new one does."""
    key = make(1)
    before = shelf.put(key)
    await ring.find(key.text)
    rotated = gateway_keys.make((7).to_bytes, key.id)
    shelf.stored.clear()
    after = shelf.put(rotated, version=before.version + 1)
    assert await ring.find(rotated.text) is after
    assert await ring.refresh() == {key.id}
    assert (await refusal(ring, key.text)).reason == "unknown_key"
    assert ring.known(rotated.text) is after
    shelf.stored.clear()
    assert await ring.refresh() == {key.id}
    assert (await refusal(ring, rotated.text)).reason == "unknown_key"


async def test_a_change_during_a_look_up_is_heard_of_later(ring: Keyring, shelf: Shelf) -> None:
    """Whatever of the two answers comes first, the next refresh sees the difference."""
    key = make()
    shelf.put(key)
    shelf.gate = asyncio.Event()
    asking = asyncio.create_task(ring.find(key.text))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    shelf.change(key, enabled=False)
    assert await ring.refresh() == frozenset()
    shelf.gate.set()
    assert (await asking).enabled
    assert await ring.refresh() == {key.id}
    assert not (await ring.find(key.text)).enabled


async def test_an_old_answer_does_not_forget_what_is_newer(ring: Keyring, shelf: Shelf, clock: Clock) -> None:
    """A refresh that is under way while a key is looked up anew leaves the new one alone."""
    key = make()
    shelf.put(key)
    await ring.find(key.text)
    clock.now += keyring.USABLE_SECONDS + 1
    shelf.gate_of_polls = asyncio.Event()
    shelf.change(key, enabled=False)
    refreshing = asyncio.create_task(ring.refresh())
    await asyncio.sleep(0)
    newer = await ring.find(key.text)
    shelf.gate_of_polls.set()
    assert await refreshing == {key.id}
    assert ring.known(key.text) is newer


async def test_without_keys_nothing_is_asked(ring: Keyring, shelf: Shelf) -> None:
    """A gateway that nobody shows a key costs its database nothing."""
    assert await ring.refresh() == frozenset()
    assert shelf.polled == []


async def many(ring: Keyring, shelf: Shelf) -> list[GatewayKey]:
    """Return keys that the ring remembers, so many that it looks at the sum of their versions."""
    keys = [make(number) for number in range(1, keyring.MANY + 1)]
    for key in keys:
        shelf.put(key)
        await ring.find(key.text)
    return keys


async def test_many_keys_are_asked_for_when_any_has_changed(ring: Keyring, shelf: Shelf, clock: Clock) -> None:
    """While none has, one look confirms all of them."""
    keys = await many(ring, shelf)
    assert await ring.refresh() == frozenset()
    assert (len(shelf.polled), shelf.summaries) == (1, 1)
    for _ in range(3):
        clock.now += keyring.USABLE_SECONDS - 1
        assert await ring.refresh() == frozenset()
    assert (len(shelf.polled), shelf.summaries) == (1, 4)
    assert all(ring.known(key.text) for key in keys)
    shelf.change(keys[7], enabled=False)
    shelf.is_out_of_reach = True
    assert await ring.refresh() == frozenset()
    shelf.is_out_of_reach = False
    assert await ring.refresh() == {keys[7].id}
    assert await ring.refresh() == frozenset()


async def test_a_key_that_was_found_old_among_many_is_found_out(ring: Keyring, shelf: Shelf) -> None:
    """It changed after it was read and before it was remembered, and all others have been confirmed since."""
    await many(ring, shelf)
    await ring.refresh()
    late = make(keyring.MANY + 1)
    shelf.put(late)
    shelf.gate = asyncio.Event()
    finding = asyncio.create_task(ring.find(late.text))
    for _ in range(3):
        await asyncio.sleep(0)
    assert gateway_keys.digest(PEPPER, late) in shelf.asked[-1]
    shelf.change(late, enabled=False)
    assert await ring.refresh() == frozenset()
    shelf.gate.set()
    assert (await finding).enabled
    assert await ring.refresh() == {late.id}


async def test_a_few_of_very_many_keys_are_asked_for(ring: Keyring, shelf: Shelf, clock: Clock) -> None:
    """To add up all would cost more; whether that is still so is seen a minute later."""
    await many(ring, shelf)
    shelf.others = keyring.MANY * keyring.MOST_TIMES_AS_MANY
    for _ in range(3):
        await ring.refresh()
        clock.now += 1
    assert (len(shelf.polled), shelf.summaries) == (3, 1)
    clock.now += keyring.REST_SECONDS
    await ring.refresh()
    assert shelf.summaries == 2


# --- The storage out of reach -----------------------------------------------------------------------------------------


async def test_a_known_key_stays_good_for_a_quarter_of_an_hour(ring: Keyring, shelf: Shelf, clock: Clock) -> None:
    """Counted from when the storage last confirmed it; then it is refused as not now, never as unknown."""
    key = make()
    stored = shelf.put(key)
    await ring.find(key.text)
    clock.now += 500
    await ring.refresh()
    shelf.is_out_of_reach = True
    for _ in range(9):
        clock.now += 100
        assert await ring.refresh() == frozenset()
        assert ring.known(key.text) is stored
    assert ring.is_cut_off
    clock.now += 0.001
    assert ring.known(key.text) is None
    error = await refusal(ring, key.text)
    assert (type(error), error.kind, error.reason) == (Overloaded, Kind.OVERLOADED, "auth_unavailable")
    assert error.retry_after_seconds
    shelf.is_out_of_reach = False
    await ring.refresh()
    assert ring.known(key.text) is stored
    assert not ring.is_cut_off


async def test_a_key_not_seen_before_is_refused_as_not_now(ring: Keyring, shelf: Shelf) -> None:
    """Whether it exists or not; and as soon as the storage is back it is found, for no failure is remembered."""
    key = make()
    stored = shelf.put(key)
    shelf.is_out_of_reach = True
    assert (await refusal(ring, key.text)).reason == "auth_unavailable"
    assert ring.is_cut_off
    shelf.is_out_of_reach = False
    assert await ring.find(key.text) is stored
    assert not ring.is_cut_off


async def test_a_key_that_was_revoked_in_an_outage_does_not_come_back(
    ring: Keyring, shelf: Shelf, clock: Clock
) -> None:
    """The first refresh after the outage forgets it."""
    key = make()
    shelf.put(key)
    await ring.find(key.text)
    shelf.is_out_of_reach = True
    shelf.change(key, revoked_at=NOW)
    clock.now += 60
    await ring.refresh()
    assert ring.known(key.text) is not None
    shelf.is_out_of_reach = False
    assert await ring.refresh() == {key.id}
    assert ring.known(key.text) is None


class Database:
    """A real database as a `KeyLookup`."""

    def __init__(self, threads: DatabaseThreads) -> None:
        """Ask it through its threads."""
        self._threads = threads

    async def by_digest(self, digests: Sequence[str]) -> KeyRecord | None:
        """Find a key, as `KeyLookup` has it."""
        found: KeyRecord | None = None
        for digest in digests:
            found = found or await self._read(stored.find_by_digest, digest)
        return found

    async def versions(self, key_ids: Iterable[str]) -> Mapping[str, int]:
        """Tell versions, as `KeyLookup` has it."""
        found: dict[str, int] = await self._read(stored.versions, key_ids)
        return found

    async def summary(self) -> tuple[int, int]:
        """Tell what changes with any key, as `KeyLookup` has it."""
        found: tuple[int, int] = await self._read(stored.summary)
        return found

    async def _read(self, work: Callable[..., Any], *arguments: object) -> Any:
        try:
            return await self._threads.read(work, *arguments)
        except StorageUnavailable as error:
            raise LookupUnavailable from error


async def test_the_life_of_a_key_in_a_real_database(clock: Clock, tmp_path: Path) -> None:
    """Made, found, disabled, given another secret, revoked, and good for a while once the database is closed."""
    database = open_database(None, tmp_path)
    migrate(database, tmp_path / "backups", NOW)
    threads = DatabaseThreads(database)
    ring = Keyring((PEPPER, FORMER), Database(threads), clock, clock.wall)
    key, other = make(1), make(2)
    for each, pepper in ((key, FORMER), (other, PEPPER)):
        digest = gateway_keys.digest(pepper, each)
        await threads.write(stored.create, NewKey("test"), each.id, digest, each.display, NOW)
        ring.judge(await ring.find(each.text), "192.0.2.1", "any")
    await threads.write(stored.change, key.id, KeyChanges(enabled=False))
    assert await ring.refresh() == {key.id}
    assert verdict(ring, await ring.find(key.text)) == "key_disabled"
    rotated = gateway_keys.make((7).to_bytes, key.id)
    await threads.write(stored.rotate, key.id, gateway_keys.digest(PEPPER, rotated), NOW)
    assert await ring.refresh() == {key.id}
    assert (await refusal(ring, key.text)).reason == "unknown_key"
    assert (await ring.find(rotated.text)).id == key.id
    await threads.write(stored.revoke, key.id, NOW)
    assert await ring.refresh() == {key.id}
    assert verdict(ring, await ring.find(rotated.text)) == "key_revoked"
    await threads.close()
    assert await ring.refresh() == frozenset()
    assert ring.known(other.text) is not None
    assert (await refusal(ring, make(3).text)).reason == "auth_unavailable"


# --- Judging ----------------------------------------------------------------------------------------------------------


def verdict(ring: Keyring, judged: KeyRecord, address: str = "192.0.2.1", model: str | None = None) -> str:
    """Return the reason why a key is refused, "" when it is not."""
    caught = None
    try:
        ring.judge(judged, address, model)
    except CallerError as error:
        caught = error
    if caught is None:
        return ""
    assert caught.kind is (Kind.PERMISSION_DENIED if "allowed" in caught.reason else Kind.INVALID_KEY)
    return caught.reason


def test_a_plain_key_may_do_everything(ring: Keyring) -> None:
    """From anywhere, a socket without an address included, and for any model."""
    for address in ("192.0.2.1", "2001:db8::1", "fe80::1%eth0", "local", ""):
        assert verdict(ring, record(), address, "any/thing") == ""


def test_an_ended_key_says_how_it_ended(ring: Keyring, clock: Clock) -> None:
    """Revoked, disabled, or expired: at its very second, by the clock of the wall."""
    assert verdict(ring, record(revoked_at=NOW, enabled=False)) == "key_revoked"
    assert verdict(ring, record(enabled=False)) == "key_disabled"
    ending = record(expires_at=NOW + timedelta(seconds=10))
    assert verdict(ring, ending) == ""
    clock.now += 9.999
    assert verdict(ring, ending) == ""
    clock.now += 0.001
    assert verdict(ring, ending) == "key_expired"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.7", ""),
        ("::ffff:192.0.2.7", ""),
        ("192.0.3.7", "key_address_not_allowed"),
        ("203.0.113.5", ""),
        ("203.0.113.6", "key_address_not_allowed"),
        ("2001:db8:1::9", ""),
        ("2001:db8:1::9%eth0", ""),
        ("2001:db9::9", "key_address_not_allowed"),
        ("local", "key_address_not_allowed"),
        ("", "key_address_not_allowed"),
    ],
)
def test_a_key_for_some_addresses_is_refused_from_others(ring: Keyring, address: str, reason: str) -> None:
    """The same answer each time it is asked; what is no address is on no list."""
    judged = record(allowed_addresses=("192.0.2.0/24", "203.0.113.5", "2001:db8::/32"))
    assert [verdict(ring, judged, address) for _ in range(3)] == [reason] * 3


def test_an_address_list_that_cannot_be_read_lets_nobody_in(ring: Keyring) -> None:
    """A broken entry must not open the key; the others still hold."""
    assert verdict(ring, record(allowed_addresses=("nonsense",)), "192.0.2.1") == "key_address_not_allowed"
    assert verdict(ring, record(allowed_addresses=("nonsense", "192.0.2.1")), "192.0.2.1") == ""


def test_the_addresses_remembered_of_a_key_are_few(ring: Keyring) -> None:
    """Whoever has a network of addresses does not fill the memory with them."""
    judged = record(allowed_addresses=("192.0.2.0/24",))
    for number in range(1000):
        verdict(ring, judged, f"10.0.{number // 250}.{number % 250}")
    assert len(ring._terms["k1"]._judged) <= 64


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("gpt-5", ""),
        ("gpt-", ""),
        ("xgpt-5", "key_model_not_allowed"),
        ("GPT-5", "key_model_not_allowed"),
        ("demo/echo", ""),
        ("llama", ""),
        ("llama2", "key_model_not_allowed"),
        ("", "key_model_not_allowed"),
        (None, ""),
    ],
)
def test_a_key_for_some_models_is_refused_for_others(ring: Keyring, model: str | None, reason: str) -> None:
    """A `*` stands for any text, and all else for itself; before a model is asked for nothing is refused."""
    judged = record(allowed_models=("gpt-*", "demo/*", "llama"))
    assert verdict(ring, judged, model=model) == reason
    if model is not None:
        assert ring.may_ask(judged, model) is not bool(reason)


def test_a_changed_record_is_judged_by_what_it_says_now(ring: Keyring) -> None:
    """What was prepared for a record is not used for its successor of the same id."""
    before = record(allowed_models=("a",))
    assert verdict(ring, before, model="b") == "key_model_not_allowed"
    assert verdict(ring, structs.replace(before, allowed_models=("b",), version=2), model="b") == ""
    assert verdict(ring, structs.replace(before, allowed_models=("b",), version=2), model="a") != ""


def test_a_refusal_names_what_was_refused(ring: Keyring) -> None:
    """The address or the model, for the message."""
    judged = record(allowed_models=("a",), allowed_addresses=("192.0.2.1",))
    with pytest.raises(CallerError) as caught:
        ring.judge(judged, "192.0.2.2", "b")
    assert caught.value.parameters == {"address": "192.0.2.2"}
    with pytest.raises(CallerError) as caught:
        ring.judge(judged, "192.0.2.1", "b")
    assert caught.value.parameters == {"model": "b"}


def matches(pattern: str, name: str) -> bool:
    """Tell by the definition whether a pattern describes a name."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(matches(pattern[1:], name[cut:]) for cut in range(len(name) + 1))
    return name[:1] == pattern[0] and matches(pattern[1:], name[1:])


@given(st.lists(st.text("ab*", max_size=7), max_size=3), st.text("ab*", max_size=9))
@example(["*b*b"], "b")
@example(["ab*ba"], "aba")
def test_patterns_match_as_they_are_defined(patterns: list[str], name: str) -> None:
    """Whatever the number of stars and wherever they stand."""
    assert Patterns(patterns).match(name) is any(matches(pattern, name) for pattern in patterns)


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    """Nobody's long name keeps the gateway busy: this would take a regular expression for ever."""
    assert not Patterns(["*a" * 100 + "*b"]).match("a" * 100_000 + "c")
