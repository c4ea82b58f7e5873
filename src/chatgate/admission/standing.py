"""Where a caller stands, and what an admitted call has taken.

Owns the answers of `limits`; decides nothing. The pipeline and the refusals read a `Standing`, `headers` writes it out;
a `Ticket` goes back to `Limits` when its call ends.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from chatgate.admission.rules import Rule, Subject


class Meter(Protocol):
    """What an admitted call was taken from."""

    @property
    def resource(self) -> str:
        """Return what is counted."""

    def give_back(self, subject: Subject, at_ns: int, now_ns: int, amount: int) -> None:
        """Give back what was taken at a time and never used."""

    def add(self, subject: Subject, now_ns: int, amount: int) -> None:
        """Count what was used beyond what was taken."""


class Book(Protocol):
    """What an address's call was taken from."""

    def give_back(self, who: int, at_ns: int, now_ns: int) -> None:
        """Give back a call that was taken at a time and never made."""


class Ticket(Struct, gc=False, eq=False):
    """What a call has taken, and when. Nothing is left of it once the call has ended.

    `addresses` are the rules on addresses that have counted it as a call of `address`, None for none; of each meter it
    has `taken` so much in somebody's name.
    """

    at_ns: int
    addresses: Book | None
    address: int
    taken: tuple[tuple[Meter, Subject, int], ...] = ()


class Gauge(Struct, frozen=True, gc=False):
    """How much of a limit is left, and in how many seconds all of it will be if nothing more is taken."""

    limit: int
    remaining: int
    reset_seconds: float


class Standing(Struct, frozen=True, gc=False):
    """Where a caller stands.

    `admitted` says whether the call was admitted, or would be. `limit`, `remaining` and `reset_seconds` are of the
    tightest rule on requests: the one with the fewest left, of equals the one that takes longest to be unused again,
    which is what `reset_seconds` states; `limit` is None when there is none. `tokens` is the same of the rules on
    tokens. After a refusal, `reached` names every rule in the way, and `retry_after_seconds` is the wait until all of
    them would admit the call (a multiple of a nanosecond); `fits` is False when none ever will, as the call alone is
    larger than a limit. `ticket` is what an admitted call holds, None when no rule holds for it. `is_degraded` says
    that a part of the limits was asked, in place of those that several machines count together.
    """

    admitted: bool
    limit: int | None
    remaining: int
    reset_seconds: float
    retry_after_seconds: float = 0.0
    reached: tuple[Rule, ...] = ()
    ticket: Ticket | None = None
    tokens: Gauge | None = None
    fits: bool = True
    is_degraded: bool = False


UNLIMITED = Standing(admitted=True, limit=None, remaining=0, reset_seconds=0.0)
