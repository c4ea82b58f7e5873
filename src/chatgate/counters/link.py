"""A worker's way to the owner of the counters.

Owns the connection, who waits for which answer, and what is taken and set aside for the calls of this worker. An answer
comes within a few tenths of a second or not at all: then the owner is away, nobody waits for it any more, and whoever
asks is told so at once, until it says something again. When the connection ends, another one is made at once; whoever
owns the counters by then is told which rules there are, what is under way and what is set aside. Made by `app`, one for
each worker; `shared` asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from chatgate.counters.channel import Channel
from chatgate.counters.wire import (
    Alive,
    Answer,
    Ask,
    Configure,
    Hello,
    Level,
    Marked,
    Order,
    Outdated,
    Read,
    Release,
    Report,
    Request,
    Resume,
    Retake,
    Spend,
    Spent,
    fitting,
    orders_of,
)
from chatgate.vocabulary.errors import Overloaded

if TYPE_CHECKING:
    import socket

    from chatgate.accounting.holds import Hold
    from chatgate.admission.rules import Rule

SWEEP_SECONDS: Final = 0.1
PATIENCE_SWEEPS: Final = 5
"""An answer that has not come at the fifth sweep after its question does not come: in 0.4 to 0.5 s. Sweeps are counted
and not seconds, so that it is the owner who is slow and not the loop that could not listen."""

RECONNECT_SECONDS: Final = 0.02
ALIVE_SECONDS: Final = 10.0
READING_SECONDS: Final = 15.0
"""How long the journal may wait for the end of a reading; the owner ends one much earlier."""

RETRY_AFTER_SECONDS: Final = 1.0
"""What a caller is told to wait while the owner is away."""

_GENERATIONS: Final = 4

_LOG = logging.getLogger(__name__)


class Ledger(Protocol):
    """What a worker keeps of money, as far as a reading needs it."""

    def at_rest(self, mark: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Bring the rows up to a moment, at which `mark` is called, and no further until the end of the context."""

    async def spent(self) -> tuple[Sequence[str], Mapping[str, int]]:
        """Return the periods of today, and what the rows say is spent in each account of theirs."""


class Receipt:
    """What the owner has taken of limits by a question, and when, to be ended once.

    Another owner is told of it while it is open: no question of a worker has the number of another.
    """

    __slots__ = ("at_ns", "number", "question")

    def __init__(self, question: Ask, at_ns: int) -> None:
        """Begin with all of it still taken."""
        self.number = question.number
        self.question = question
        self.at_ns = at_ns


class Link:
    """The connection. `purse` is for the book; `is_loaded` is set while the owner knows what budgets have spent."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        """Ask for a connection at once, by `connect`, which raises `OSError` when there is no room.

        So the owner knows of this worker before it begins to write a journal, or to read one that was left.
        """
        self._connect = connect
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):
            self._socket = connect()
        self._ledger: Ledger | None = None
        self._channel: Channel[Request, Order] | None = None
        self._generations: dict[bytes, tuple[Rule, ...]] = {}
        self._numbers = 0
        self._waiting: dict[int, tuple[asyncio.Future[Answer], int]] = {}
        self._is_away = False
        self._sweeps = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None
        self._serial = 0
        self._reported = asyncio.Event()
        self._is_closed = False
        self._open_receipts: dict[int, Receipt] = {}
        self.holds: dict[str, Hold] = {}
        self.purse = Purse(self)
        self.is_loaded = asyncio.Event()

    def start(self, ledger: Ledger) -> None:
        """Speak and listen from now on, on the running loop."""
        self._ledger = ledger
        self._open()

    def decline(self) -> None:
        """Take no part in readings any more: the journal is about to be closed."""
        self._ledger = None
        if self._reading is not None:
            self._end_reading()
            self.say(Level(self._serial, is_possible=False))

    def close(self) -> None:
        """End the connection, once nothing is left in the journal that another worker cannot read."""
        self._is_closed = True
        for timer in (self._sweeper, self._timer):
            if timer is not None:
                timer.cancel()
        self._end_reading()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def configure(self, generation: bytes, rules: tuple[Rule, ...]) -> None:
        """Have the owner know the rules of a generation before it is asked by it."""
        self._generations.pop(generation, None)
        self._generations[generation] = rules
        while len(self._generations) > _GENERATIONS:
            del self._generations[next(iter(self._generations))]
        self.say(Configure(generation, rules))

    def next_number(self) -> int:
        """Return a number that no question had."""
        self._numbers += 1
        return self._numbers

    async def ask(self, question: Ask) -> tuple[Answer, Receipt | None]:
        """Return the owner's answer, and what is to be given back of limits.

        Raises `Overloaded` when there is none. What was taken for somebody who does not wait for it any more is given
        back.
        """
        channel = self._channel
        if channel is None or self._is_away:
            raise _away()
        future = asyncio.get_running_loop().create_future()
        self._waiting[question.number] = future, self._sweeps
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        channel.send(question)
        try:
            answer: Answer = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._give_back(future.result())
            raise
        if not answer.has_receipt:
            return answer, None
        receipt = self._open_receipts[question.number] = Receipt(question, answer.at_ns)
        return answer, receipt

    def say(self, message: Request) -> None:
        """Say something that needs no answer; nobody hears it while there is no connection."""
        if self._channel is not None:
            self._channel.send(message)

    def end(self, receipt: Receipt, message: Request) -> None:
        """Say how what was taken has ended; a second time is nothing."""
        if self._open_receipts.pop(receipt.number, None) is not None:
            self.say(message)

    def spend(self, call_id: str, cost_nano_usd: int) -> bool:
        """Turn what is set aside for a call into what it cost; False when there is nothing, or no longer."""
        if self.holds.pop(call_id, None) is None:
            return False
        self.say(Spend(call_id, fitting(cost_nano_usd)))
        return True

    def _open(self) -> None:
        self._timer = None
        connected, self._socket = self._socket, None
        if connected is None:
            try:
                connected = self._connect()
            except OSError:
                self._timer = asyncio.get_running_loop().call_later(RECONNECT_SECONDS, self._open)
                return
        channel: Channel[Request, Order] = Channel(connected, orders_of, self._hear, self._lose)
        self._channel = channel
        for generation, rules in self._generations.items():
            channel.send(Configure(generation, rules))
        for receipt in self._open_receipts.values():
            channel.send(Retake(receipt.question, receipt.at_ns))
        # What comes after it is of this owner.
        channel.send(Hello(tuple(self.holds.values()), os.getpid()))
        self._say_alive()

    def _lose(self) -> None:
        """Give up who waits, and connect again: somebody else will own the counters."""
        self._channel = None
        self.is_loaded.clear()
        self._end_reading()
        self._give_up_all()
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_closed:
            self._timer = asyncio.get_running_loop().call_later(RECONNECT_SECONDS, self._open)

    def _say_alive(self) -> None:
        self.say(Alive())
        self._timer = asyncio.get_running_loop().call_later(ALIVE_SECONDS, self._say_alive)

    def _hear(self, orders: list[Order]) -> None:
        if self._is_away:
            self._is_away = False
            _LOG.warning("The process that counts limits answers again")
        for order in orders:
            match order:
                case Answer():
                    self._take_answer(order)
                case Read():
                    self._end_reading()
                    self._serial = order.serial
                    self._reading = asyncio.get_running_loop().create_task(self._read(order.serial))
                case Report():
                    self._reported.set()
                case Resume():
                    self._end_reading()
                    if order.is_loaded:
                        self.is_loaded.set()

    def _take_answer(self, answer: Answer) -> None:
        if answer.hold is not None:
            self.holds[answer.hold.call_id] = answer.hold
        future, _ = self._waiting.pop(answer.number, (None, 0))
        if future is None or future.done():
            self._give_back(answer)
        else:
            future.set_result(answer)

    def _give_back(self, answer: Answer) -> None:
        """Free what was taken for nobody."""
        if answer.has_receipt:
            self.say(Release(answer.number))
        if answer.hold is not None:
            self.spend(answer.hold.call_id, 0)

    def _sweep(self) -> None:
        """Give up when the oldest question has waited for too long."""
        self._sweeper = None
        self._sweeps += 1
        if not self._waiting:
            return
        _, asked_at = next(iter(self._waiting.values()))
        if self._sweeps - asked_at >= PATIENCE_SWEEPS:
            self._is_away = True
            _LOG.warning("The process that counts limits does not answer; calls that it counts are refused")
            self._give_up_all()
        else:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _give_up_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(_away())

    async def _read(self, serial: int) -> None:
        """Do this worker's part of a reading, until told that it is over."""
        ledger = self._ledger
        if ledger is None:
            self.say(Level(serial, is_possible=False))
            return
        try:
            async with asyncio.timeout(READING_SECONDS), ledger.at_rest(lambda: self.say(Marked(serial))):
                self.say(Level(serial, is_possible=True))
                await self._reported.wait()
                periods, accounts = await ledger.spent()
                self.say(Spent(serial, tuple(periods), accounts))
                await asyncio.Event().wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, the owner asks again
            _LOG.debug("What budgets have spent cannot be told now: %s", error)
            self.say(Level(serial, is_possible=False))

    def _end_reading(self) -> None:
        self._reported.clear()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


class Purse:
    """The money of this worker's calls, as the book is told of it: the owner has it, this passes on."""

    def __init__(self, link: Link) -> None:
        """Pass on by a link."""
        self._link = link
        self._has_learned = False

    def __len__(self) -> int:
        """Return how many calls of this worker have money set aside."""
        return len(self._link.holds)

    def settle(self, call_id: str, cost_nano_usd: int) -> bool:
        """Turn a call's hold into what it cost; False when it has none or no longer."""
        return self._link.spend(call_id, cost_nano_usd)

    def release(self, call_id: str) -> bool:
        """Give a call's hold back."""
        return self._link.spend(call_id, 0)

    def totals(self) -> Mapping[str, tuple[int, int]]:
        """Return nothing: nothing is known here."""
        return {}

    def learn(self, spent: Mapping[str, int], known: Mapping[str, tuple[int, int]]) -> None:
        """Have the owner ask what is spent. At the start it does so by itself."""
        del spent, known
        if self._has_learned:
            self._link.say(Outdated())
        self._has_learned = True

    def forget(self, at: datetime) -> int:
        """Forget nothing: there is nothing here."""
        del at
        return 0


def _away() -> Overloaded:
    return Overloaded("counters_unavailable", retry_after_seconds=RETRY_AFTER_SECONDS)
