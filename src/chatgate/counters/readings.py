"""What the database says is spent, for the owner of the counters, who has no database.

Owns how that is asked of the workers such that nothing is missing and nothing counts twice. The rows have what was
settled a moment later, each worker's in its own time, and what processes had left that ended. So a reading goes like
this: every worker names a moment (`Marked`) and brings the rows up to it, to what others left, and no further
(`Level`). When all have, one of them tells what the rows say (`Spent`): that is all that was settled before these
moments, and what was settled after them was told here. Then all go on.

A worker that comes or goes meanwhile makes it begin anew. Does no I/O. Made by `owner`; `hosting` calls `proceed` once
all has been heard that was said by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chatgate.counters.wire import Level, Marked, Outdated, Read, Report, Request, Resume, Spent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chatgate.accounting.holds import Holds
    from chatgate.counters.owner import Member

READING_SECONDS: Final = 10.0
"""A reading that takes longer is begun anew."""

REST_SECONDS: Final = 1.0
"""How long a reading that was not possible is not tried again, and none is begun when a worker has just ended: its
journal may not be free to be read yet, and its successor will come."""


class Readings:
    """Asks, one reading at a time. `is_loaded` says that there was one, so it is known what is spent.

    `is_due` says that `proceed` has something to do.
    """

    def __init__(self, members: set[Member], holds: Holds, clock: Callable[[], float]) -> None:
        """Correct `holds` by what `members` say, who are all that are connected."""
        self._members = members
        self._holds = holds
        self._clock = clock
        self.is_loaded = False
        self.is_due = False
        self._is_wanted = True
        self._not_before = 0.0
        self._serial = 0
        self._is_running = False
        self._ends_at = 0.0
        self._marked: set[Member] = set()
        self._level: set[Member] = set()
        self._teller: Member | None = None
        self._told: Spent | None = None
        self._after: dict[str, int] = {}

    def want(self) -> None:
        """Have a reading soon."""
        self._is_wanted = True
        self.is_due = True

    def tick(self) -> None:
        """Begin what is wanted, and end what takes too long."""
        if self._is_running and self._clock() >= self._ends_at:
            self._abandon(self._clock() + REST_SECONDS)
        self.is_due = self.is_due or self._is_wanted

    def note_joined(self, member: Member) -> None:
        """Have a worker in all readings from now on."""
        member.say(Resume(self.is_loaded))
        self._abandon(self._not_before)

    def note_left(self, *, has_spent: bool) -> None:
        """Go on without a worker; `has_spent` says that money was spent for it that it may not have used."""
        if has_spent:
            self._is_wanted = True
        self._abandon(self._clock() + REST_SECONDS)

    def note_spent(self, member: Member, accounts: Iterable[str], cost_nano_usd: int) -> None:
        """Take note of what was settled; the reading will not have it when that was after the worker's mark."""
        if member in self._marked:
            for account in accounts:
                self._after[account] = self._after.get(account, 0) + cost_nano_usd

    def hear(self, member: Member, message: Request) -> None:
        """Take note of what a worker says that has to do with readings."""
        if isinstance(message, Outdated):
            self.want()
        elif isinstance(message, Marked | Level | Spent) and self._is_running and message.serial == self._serial:
            self._hear(member, message)

    def _hear(self, member: Member, message: Marked | Level | Spent) -> None:
        if isinstance(message, Marked):
            self._marked.add(member)
        elif isinstance(message, Spent):
            if member is self._teller:
                self._told, self.is_due = message, True
        elif message.is_possible and member in self._marked:
            self._level.add(member)
            self.is_due = True
        else:
            self._abandon(self._clock() + REST_SECONDS)

    def proceed(self) -> None:
        """Do what is due, when all has been heard that workers have said by now."""
        self.is_due = False
        if not self._is_running:
            if self._is_wanted and self._members and self._clock() >= self._not_before:
                self._begin()
        elif self._told is not None:
            self._finish(self._told)
        elif self._teller is None and self._level == self._members:
            self._teller = next(iter(self._level))
            self._teller.say(Report(self._serial))

    def _begin(self) -> None:
        self._serial += 1
        self._is_wanted, self._is_running = False, True
        self._ends_at = self._clock() + READING_SECONDS
        for member in self._members:
            member.say(Read(self._serial))

    def _finish(self, told: Spent) -> None:
        after = self._after
        spent = {account: told.accounts.get(account, 0) + after.get(account, 0) for account in {*told.accounts, *after}}
        self._holds.correct(spent, frozenset(told.periods))
        self.is_loaded = True
        self._end()

    def _abandon(self, not_before: float) -> None:
        """Begin anew, though not before a time."""
        if self._is_running:
            self._is_wanted = True
            self._end()
        self._not_before = not_before
        self.is_due = self._is_wanted

    def _end(self) -> None:
        self._is_running = False
        self._marked.clear()
        self._level.clear()
        self._after.clear()
        self._teller = self._told = None
        for member in self._members:
            member.say(Resume(self.is_loaded))
