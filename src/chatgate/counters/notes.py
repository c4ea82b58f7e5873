"""What the owner of the counters has taken of windows, written where the next owner finds it should this one die.

Owns two files in memory, which have no name and end with the processes that have them. Everything that is counted over
a window is noted before anybody is told of it: what was taken, and what was given back or added. When the notes have
become much longer than what they say, they are begun anew in the other file with all that counts by now, and that file
is only believed once it is whole. So a limit on a month takes as much as its log, and no more.

Slots are not in it: the workers, who live on, know what they have in flight. Nor is money, which is in the ledger. Who
is connected is in it, so that the next owner knows whom to wait for.

The parent makes it before it starts anyone; `owner` writes and reads it. All clocks are those of the machine.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import tempfile
from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgspec
from msgspec import Struct

from chatgate.admission.amount_log import AmountLog
from chatgate.admission.limits import Limits
from chatgate.admission.meters import WindowMeter
from chatgate.admission.rules import IN_FLIGHT, REQUESTS, RESOURCES, Bound, Identity, Rule, Subject
from chatgate.admission.sliding_log import SlidingLog
from chatgate.counters.wire import HEADER_BYTES, frame

if TYPE_CHECKING:
    from chatgate.admission.standing import Ticket

_LOG = logging.getLogger(__name__)

LEAST_BYTES: Final = 2 << 20
"""Notes are begun anew when they are longer by so much than they were then, and by half. A successor reads a MiB of
them in some hundredths of a second; meanwhile nobody is answered."""

_BATCH: Final = 256
_SERIAL_BYTES: Final = 8
_INTEGER_BYTES: Final = 9

_Who: TypeAlias = object
"""In whose name is counted: a text, an address as bytes, since some are longer than MessagePack's numbers, or a list of
these; and the number of a log that names share."""


class _Note(Struct, array_like=True, gc=False):
    """A note; meters are known by the numbers that these files give them."""


class _Began(_Note, tag=0):
    """A worker is connected, by the id of its process."""

    process: int


class _Left(_Note, tag=1):
    """It is not any more."""

    process: int


class _Rules(_Note, tag=2):
    """The rules on addresses are these from now on, and count from nothing."""

    own: tuple[Rule, ...]


class _Meter(_Note, tag=3):
    """A meter has this number."""

    number: int
    of_keys: bool
    identity: Identity


class _Took(_Note, tag=4):
    """So much was taken."""

    at_ns: int
    number: int
    who: _Who
    amount: int


class _GaveBack(_Note, tag=5):
    """Of what was taken at a time, so much was given back later."""

    at_ns: int
    now_ns: int
    number: int
    who: _Who
    amount: int


class _Called(_Note, tag=6):
    """A call of an address was taken."""

    at_ns: int
    who: _Who


class _CalledOff(_Note, tag=7):
    """It was given back."""

    at_ns: int
    now_ns: int
    who: _Who


class _Amounts(_Note, tag=8):
    """All that a meter counts in a name, or in a log that names share."""

    number: int
    who: _Who
    is_shared: bool
    stamps: bytes
    amounts: bytes
    grain: int


class _Calls(_Note, tag=9):
    """All calls that are counted of an address, or of addresses that share a log, by the group of rules."""

    group: int
    who: _Who
    is_shared: bool
    stamps: bytes
    grain: int
    spare: int


_AnyNote = _Began | _Left | _Rules | _Meter | _Took | _GaveBack | _Called | _CalledOff | _Amounts | _Calls
_decode: Callable[[bytes], list[_AnyNote]] = msgspec.msgpack.Decoder(list[_AnyNote]).decode


class Notes:
    """The notes. Whoever has made or inherited them may write, one at a time."""

    def __init__(self, least_bytes: int = LEAST_BYTES) -> None:
        """Make them, empty."""
        self.seed = secrets.randbits(64)
        """Who shares logs with whom is the same for every owner."""
        self._files = [_new_file(), _new_file()]
        self._least_bytes = least_bytes
        self._current = 0
        self._serial = 0
        self._end = 0
        self._anew_at = 0
        self._unwritten: list[_AnyNote] = []
        self._numbers: dict[tuple[bool, Identity], int] = {}
        self._processes: set[int] = set()
        self._limits: Limits | None = None

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            os.close(file)

    def read(self, clock_ns: Callable[[], int]) -> tuple[Limits | None, frozenset[int]]:
        """Return what an owner before has counted, None when there was none, and which workers it knew.

        What is written next goes on from there. What cannot be read is told to the log, and counts as nothing.
        """
        try:
            return self._read(clock_ns)
        except Exception:  # noqa: BLE001 - the boundary: an owner that does not start would be worse
            _LOG.exception("What was counted before cannot be read: windows of limits begin anew")
            return None, frozenset()

    def _read(self, clock_ns: Callable[[], int]) -> tuple[Limits | None, frozenset[int]]:
        serials = [int.from_bytes(os.pread(file, _SERIAL_BYTES, 0), "big") for file in self._files]
        self._serial = max(serials)
        if not self._serial:
            return None, frozenset()
        self._current = serials.index(self._serial)
        reading = _Reading(self.seed, clock_ns)
        self._end = _SERIAL_BYTES
        for content in _frames(self._files[self._current]):
            for note in _decode(content):
                reading.take(note)
            self._end += HEADER_BYTES + len(content)
        self._anew_at = self._least_bytes
        self._numbers = {meter.name: number for number, meter in reading.meters.items()}
        self._processes = reading.processes
        self._limits = reading.limits
        return reading.limits, frozenset(reading.processes)

    def follow(self, limits: Limits) -> None:
        """Note what is counted by these rules from now on, the same where it is what was counted before."""
        before, self._limits = self._limits, limits
        if before is None:
            self._anew_at = 0
        if before is None or before.addresses is not limits.addresses:
            self._unwritten.append(_Rules(limits.rules_on_addresses))

    def joined(self, process: int) -> None:
        """Note that a worker is connected."""
        self._processes.add(process)
        self._unwritten.append(_Began(process))

    def left(self, process: int) -> None:
        """Note that it is not any more."""
        if process in self._processes:
            self._processes.discard(process)
            self._unwritten.append(_Left(process))

    def took(self, ticket: Ticket) -> None:
        """Note what a call has taken."""
        at_ns = ticket.at_ns
        if ticket.addresses is not None and self._counts(ticket.addresses):
            self._unwritten.append(_Called(at_ns, _packed(ticket.address)))
        for meter, subject, amount in ticket.taken:
            if meter.resource != IN_FLIGHT and amount:
                self._unwritten.append(_Took(at_ns, self._number(meter), _packed(subject), amount))

    def ended(self, ticket: Ticket, used: Bound | None, now_ns: int) -> None:
        """Note what the end of a call is about to change; `used` is None when nothing is to be left of it.

        It is what `Limits.settle` or `Limits.release` does before `write` comes.
        """
        at_ns = ticket.at_ns
        if used is None and ticket.addresses is not None and self._counts(ticket.addresses):
            self._unwritten.append(_CalledOff(at_ns, now_ns, _packed(ticket.address)))
        amounts = None if used is None else used.amounts
        for meter, subject, amount in ticket.taken:
            if meter.resource == IN_FLIGHT or (amounts is not None and meter.resource == REQUESTS):
                continue
            actual = 0 if amounts is None else amounts[RESOURCES.index(meter.resource)]
            if actual is None or actual == amount:
                continue
            who, number = _packed(subject), self._number(meter)
            if actual < amount:
                self._unwritten.append(_GaveBack(at_ns, now_ns, number, who, amount - actual))
            else:
                self._unwritten.append(_Took(now_ns, number, who, actual - amount))

    def write(self) -> None:
        """Write what was noted and is done by now; nobody may be told of it before."""
        if not self._unwritten or self._limits is None:
            return
        try:
            if self._end >= self._anew_at:
                self._begin_anew()
            else:
                self._append(self._unwritten)
        except OSError as error:
            if self._anew_at:
                _LOG.error("What is counted cannot be noted, and would be lost with this process: %s", error)
            self._anew_at = 0  # With the next note, all of it is tried again.
        self._unwritten = []

    def _counts(self, addresses: object) -> bool:
        return self._limits is not None and addresses is self._limits.addresses

    def _number(self, meter: object) -> int:
        name = cast("WindowMeter", meter).name
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._numbers)
            self._unwritten.append(_Meter(number, *name))
        return number

    def _append(self, notes: list[_AnyNote]) -> None:
        content = frame(notes)
        if os.pwrite(self._files[self._current], content, self._end) != len(content):
            raise OSError(errno.ENOSPC, "no room")
        self._end += len(content)

    def _begin_anew(self) -> None:
        """Write all that counts into the other file, and then leave this one; or raise OSError, and stay with it."""
        left, self._current = self._current, 1 - self._current
        try:
            self._write_all(self._files[self._current])
        except OSError:
            self._current = left
            raise
        os.ftruncate(self._files[left], 0)

    def _write_all(self, file: int) -> None:
        limits = self._limits
        assert limits is not None  # noqa: S101 - nothing is written before there are limits
        os.ftruncate(file, 0)
        self._end = _SERIAL_BYTES
        self._numbers.clear()
        self._unwritten = [*map(_Began, self._processes), _Rules(limits.rules_on_addresses)]
        for group, who, is_shared, calls in limits.addresses.entries():
            self._dump(
                _Calls(
                    group,
                    who if is_shared else _packed(who),
                    is_shared,
                    calls.stamps.tobytes(),
                    calls.grain,
                    calls.spare,
                )
            )
        for meter in limits.meters():
            number = self._number(meter)
            for who, is_shared, log in meter.entries():
                stamps, amounts = log.stamps[log.first :].tobytes(), log.amounts[log.first :].tobytes()
                self._dump(_Amounts(number, who if is_shared else _packed(who), is_shared, stamps, amounts, log.grain))
        self._append(self._unwritten)
        self._unwritten = []
        self._anew_at = self._end + max(self._least_bytes, self._end // 2)
        self._serial += 1
        os.pwrite(file, self._serial.to_bytes(_SERIAL_BYTES, "big"), 0)

    def _dump(self, note: _AnyNote) -> None:
        self._unwritten.append(note)
        if len(self._unwritten) >= _BATCH:
            self._append(self._unwritten)
            self._unwritten = []


class _Reading:
    """What notes say, one after the other."""

    def __init__(self, seed: int, clock_ns: Callable[[], int]) -> None:
        self._seed = seed
        self._clock_ns = clock_ns
        self.limits = Limits((), clock_ns, seed=seed)
        self.meters: dict[int, WindowMeter] = {}
        self.processes: set[int] = set()

    def take(self, note: _AnyNote) -> None:
        # Asked for in the order of how many there are: of these there can be very many.
        if isinstance(note, _Took):
            self.meters[note.number].add(_unpacked(note.who), note.at_ns, note.amount)
        elif isinstance(note, _Called):
            self.limits.addresses.record(cast("int", _unpacked(note.who)), note.at_ns)
        elif isinstance(note, _GaveBack):
            meter, subject = self.meters[note.number], _unpacked(note.who)
            meter.used(subject, note.now_ns)
            meter.give_back(subject, note.at_ns, note.now_ns, note.amount)
        elif isinstance(note, _Amounts):
            amounts = array("q", note.amounts)
            log = AmountLog(array("q", note.stamps), amounts, 0, sum(amounts), note.grain)
            self.meters[note.number].restore(_unpacked(note.who), log, is_shared=note.is_shared)
        elif isinstance(note, _Calls):
            calls = SlidingLog(array("q", note.stamps), note.grain, note.spare)
            self.limits.addresses.restore(note.group, _unpacked(note.who), calls, is_shared=note.is_shared)
        else:
            self._take_seldom(note)

    def _take_seldom(self, note: _Began | _Left | _Rules | _Meter | _CalledOff) -> None:
        match note:
            case _CalledOff(at_ns, now_ns, who):
                self.limits.addresses.give_back(cast("int", _unpacked(who)), at_ns, now_ns)
            case _Began(process):
                self.processes.add(process)
            case _Left(process):
                self.processes.discard(process)
            case _Meter(number, of_keys, identity):
                self.meters[number] = self.limits.meter(identity, of_keys=of_keys)
            case _Rules(own):
                self.limits = Limits(own, self._clock_ns, seed=self._seed)
                for meter in self.meters.values():
                    self.limits.keep(meter)


def _new_file() -> int:
    """Return a file that only those have who inherit it."""
    make = getattr(os, "memfd_create", None)
    if make is not None:
        return int(make("chatgate-counts"))
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _frames(file: int) -> Iterable[bytes]:
    """Yield what was written whole; the last may not be, when its writer was killed."""
    end, at = os.fstat(file).st_size, _SERIAL_BYTES
    while at + HEADER_BYTES <= end:
        length = int.from_bytes(os.pread(file, HEADER_BYTES, at), "big")
        at += HEADER_BYTES + length
        if at > end:
            return
        yield os.pread(file, length, at - length)


def _packed(subject: Subject) -> _Who:
    if isinstance(subject, int):
        return subject.to_bytes(_INTEGER_BYTES, "big")
    return subject if isinstance(subject, str) else list(map(_packed, subject))


def _unpacked(who: _Who) -> Subject:
    if isinstance(who, bytes):
        return int.from_bytes(who, "big")
    return cast("Subject", tuple(map(_unpacked, who)) if isinstance(who, list) else who)
