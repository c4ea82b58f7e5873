"""This process among all that count in one Redis.

Owns the connection and what its loss means, the session that shows others that this process lives, and what it has in
flight: if the store is lost or forgets, that is told to it again. While there is no store `is_ready` is False, which
costs a call nothing; the one question that finds the store frozen costs whoever waits then 100 ms, and nobody later.
Called by `redis`, which counts, and by `money`; `app` starts and closes it.

Every connection is a session of its own. Beginning one ends the former, so a question that was asked in that, and that
a store which was frozen finds in its mail later, takes nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from chatgate.storage.redis import statements
from chatgate.storage.redis.connection import Connection, RedisError, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatgate.storage.redis.statements import Correction, Session, Statement
    from chatgate.vocabulary.stores import RedisAddress

ANSWER_SECONDS: Final = 0.1
"""How long the store may be silent when it is asked."""

CONNECT_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.25
"""How often a store is tried again that is away."""

RENEW_SECONDS: Final = 1.0
LIFE_SECONDS: Final = 20.0
"""How often a session is renewed, and how long after that it ends: what its process has in flight is free then."""

SEEN_SECONDS: Final = 30.0
"""Processes that were seen so lately count as living when the store is lost."""

_SLACK_SECONDS: Final = 1.0
"""How much later a question may come to the store: a turn of the loop may be long, and its clock is only heard of."""

_MAX_LATE: Final = 10_000


class Tenant(Protocol):
    """Who keeps something in the store besides limits."""

    def opened(self, session: Session) -> None:
        """Take note of a session that begins or goes on, with the store's memory as it is now."""


class Fleet:
    """The way to the store. `slots` are what this process has in flight, by the key of their count."""

    def __init__(
        self,
        address: RedisAddress,
        clock: Callable[[], float],
        on_change: Callable[[str], object],
        *,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """`clock` is monotonic, in seconds. `on_change` gets "" when the store is back, and why when it is lost."""
        self._address = address
        self._clock = clock
        self._on_change = on_change
        self._answer_seconds = answer_seconds
        self._connection: Connection | None = None
        self._is_open = False
        self._trouble: str | None = None
        self._number = 0
        self._seen: dict[str, float] = {}
        self._clock_offset_us = 0
        self._tenant: Tenant | None = None
        self._task: asyncio.Task[None] | None = None
        self._late: list[Correction] = []
        self.process = secrets.token_hex(6)
        self.times_open = 0
        """How often there has been a store; a share of the limits is for the time until the next."""
        self.slots: dict[bytes, int] = {}
        self.known: Session | None = None
        """What was last heard of the others."""
        self.first_try = asyncio.Event()
        """Set once it is known whether the store answers."""

    @property
    def session(self) -> str:
        """Return the name of the present session."""
        return statements.session_name(self.process, self._number)

    @property
    def is_ready(self) -> bool:
        """Tell whether calls are counted in the store."""
        return self._is_open and self._connection is not None and self._connection.is_open

    @property
    def processes(self) -> int:
        """Return how many processes were last seen to count there, this one among them."""
        return max(len(self._seen), 1)

    def seen(self) -> frozenset[str]:
        """Return their names."""
        return frozenset(self._seen)

    def now(self) -> datetime:
        """Return the time by the store's clock, as far as it was heard of."""
        return datetime.fromtimestamp(self._clock() + self._clock_offset_us / 1_000_000, UTC)

    def patience_us(self) -> int:
        """Return until when somebody waits for what is asked now, by the store's clock."""
        return round((self._clock() + self._answer_seconds + _SLACK_SECONDS) * 1_000_000) + self._clock_offset_us

    def serve(self, tenant: Tenant) -> None:
        """Tell somebody of every session."""
        self._tenant = tenant

    async def ask(self, statement: Statement, on_late: Callable[[Any], object] | None = None) -> Any:  # noqa: ANN401
        """Return the store's answer. Raises `RedisError`, after 100 ms at the most.

        `on_late` gets the answer when the asking was cancelled.
        """
        connection = self._connection
        if connection is None:
            raise RedisError("there is no connection")
        asked = connection.ask(statement, on_late)
        try:
            return await asked
        except asyncio.CancelledError:
            # The answer may have come in the same turn.
            if on_late is not None and asked.done() and not asked.cancelled() and asked.exception() is None:
                on_late(asked.result())
            raise
        except RedisError as error:
            connection.end(error)
            raise

    def tell(self, statement: Statement, on_done: Callable[[Any], object] | None = None) -> None:
        """Send what needs no answer, if there is a connection; `on_done` gets the answer if one comes."""
        if self._connection is not None:
            self._connection.tell(statement, on_done)

    def correct(self, corrections: Sequence[Correction]) -> None:
        """Correct what was taken of limits, as soon as there is a store."""
        for correction in corrections:
            if correction.kind == "slots":
                self._free(correction.key, -correction.change)
        if self._connection is not None and self._connection.is_open:
            self._connection.tell(statements.settle(self.session, corrections))
        elif len(self._late) < _MAX_LATE:
            # Slots are told as they are when the store is back.
            self._late += [correction for correction in corrections if correction.kind == "window"]

    def lose(self, why: str) -> None:
        """Begin anew: the store does not know this session."""
        if self._connection is not None:
            self._connection.end(RedisError(why))

    def hold_slots(self, key: bytes, count: int) -> None:
        """Take note of slots that the store has given."""
        self.slots[key] = self.slots.get(key, 0) + count

    def start(self) -> None:
        """Begin to keep a connection and a session, on the running loop."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End the session, and with it this process among the others."""
        if self.is_ready:
            with contextlib.suppress(RedisError):
                await self.ask(statements.close_session(self.process, self._number))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            times_open = self.times_open
            try:
                await self._serve_one()
            except RedisError as error:
                self._lost(str(error))
            finally:
                self._is_open = False
            if self.times_open == times_open:
                await asyncio.sleep(RETRY_SECONDS)

    async def _serve_one(self) -> None:
        """Open a connection and a session, and keep it until it ends. Raises `RedisError`."""
        connection = await connect(self._address, self._answer_seconds, CONNECT_SECONDS)
        try:
            self._number += 1
            opening = connection.ask(
                statements.open_session(
                    self.process, self._number, LIFE_SECONDS, secrets.token_hex(8), self.slots.items()
                )
            )
            # From here on, whatever ends is told after what is under way.
            self._connection = connection
            late, self._late = self._late, []
            for at in range(0, len(late), statements.MOST_ARGUMENTS):
                connection.tell(statements.settle(self.session, late[at : at + statements.MOST_ARGUMENTS]))
            self._heard(statements.session_of(await opening))
            self._is_open = True
            self.times_open += 1
            self._found()
            while connection.is_open:
                await asyncio.wait({connection.ended}, timeout=RENEW_SECONDS)
                if connection.is_open:
                    await self.renew()
            raise connection.ended.result()
        except statements.NoSession as error:
            raise RedisError("the server has forgotten what it was told") from error
        finally:
            if connection.is_open:
                connection.end(RedisError("it is not needed any more"))

    async def renew(self) -> Session:
        """Show that this process lives, and hear of the others. Raises `RedisError` and `NoSession`."""
        answer = await self.ask(statements.renew(self.process, self._number, LIFE_SECONDS, secrets.token_hex(8)))
        return self._heard(statements.session_of(answer))

    def _heard(self, session: Session) -> Session:
        now = self._clock()
        self.known = session
        self._clock_offset_us = session.now_us - round(now * 1_000_000)
        for process in session.alive:
            self._seen[process] = now
        self._seen = {process: at for process, at in self._seen.items() if at > now - SEEN_SECONDS}
        if self._tenant is not None:
            self._tenant.opened(session)
        return session

    def _free(self, key: bytes, count: int) -> None:
        left = self.slots.get(key, 0) - count
        if left > 0:
            self.slots[key] = left
        else:
            self.slots.pop(key, None)

    def _found(self) -> None:
        self.first_try.set()
        if self._trouble is not None:
            self._trouble = None
            self._on_change("")

    def _lost(self, why: str) -> None:
        self.first_try.set()
        if self._trouble is None:
            self._on_change(why)
        self._trouble = why
