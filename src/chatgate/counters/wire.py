"""What workers and the owner of their counters say to each other, and how that becomes bytes.

Owns the messages. Each side gathers what it has to say in one turn of its loop and sends it as one frame: four bytes
that say how long it is, and a MessagePack array of messages. Both ends are the same program, so there are no versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from chatgate.accounting.holds import Budget, Hold, Refusal
from chatgate.admission.rules import Bound, Facts, Rule
from chatgate.admission.standing import Gauge, Standing

HEADER_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 64 << 20
"""A longer frame is no frame."""

CALL, ATTEMPT, LOOK = range(3)
"""What is asked: to take a call, to take an attempt, or only where the caller stands."""

_MOST: Final = 2**64 - 1
"""The largest number of MessagePack. No limit is as large, so what is larger fits as little as this."""

_ADDRESS_BYTES: Final = 9


class _Message(Struct, array_like=True, gc=False):
    """A message; the tags of a side's messages differ."""


class Hello(_Message, tag=0):
    """Say what was set aside for the calls under way, by this owner or another one before it.

    `process` is the id of the worker's process.
    """

    holds: tuple[Hold, ...]
    process: int = 0


class Configure(_Message, tag=1):
    """Say which rules a generation has, before it is named for the first time."""

    generation: bytes
    rules: tuple[Rule, ...]


class Ask(_Message, tag=2):
    """Ask for a call; `number` is that of the answer, and of what is taken. `what` is `CALL`, `ATTEMPT` or `LOOK`.

    `rules` of the caller's key and `budgets` are encoded each, "" for none: the same ones come again and again.
    """

    number: int
    what: int
    generation: bytes
    address: bytes
    key: str | None
    model: str
    upstream: str | None
    input_tokens: int
    output_tokens: int
    nano_usd: int | None
    rules: bytes
    call_id: str
    budgets: bytes

    @property
    def facts(self) -> Facts:
        """Return what the rules look at."""
        return Facts(int.from_bytes(self.address, "big"), self.key, self.model, self.upstream)

    @property
    def bound(self) -> Bound:
        """Return the most that the call may take."""
        return Bound(self.input_tokens, self.output_tokens, self.nano_usd)


class Retake(_Message, tag=11):
    """Say what an owner before this one was asked, and took at a time: its call is still under way."""

    ask: Ask
    at_ns: int


class Settle(_Message, tag=3):
    """Say what was used of what a number took of the limits."""

    number: int
    input_tokens: int
    output_tokens: int
    nano_usd: int | None


class Release(_Message, tag=4):
    """Give back what a number took of the limits."""

    number: int


class Spend(_Message, tag=5):
    """Turn the money that is set aside for a call into what it cost."""

    call_id: str
    cost_nano_usd: int


class Alive(_Message, tag=6):
    """Say that nothing happens here, and all is well."""


class Outdated(_Message, tag=7):
    """Say that the rows have learned of money that was spent elsewhere."""


class Marked(_Message, tag=8):
    """Say that of what was settled here the rows will have what was said before this, and nothing that comes after."""

    serial: int


class Level(_Message, tag=9):
    """Say that the rows have it, or, when it was not possible, that they do not."""

    serial: int
    is_possible: bool


class Spent(_Message, tag=10):
    """Say what the rows say is spent in each account of these periods, `day/2026-11-23` and the like."""

    serial: int
    periods: tuple[str, ...]
    accounts: Mapping[str, int]


class Answer(_Message, tag=0):
    """Say what became of an `Ask`. `error` is the reason why nothing could be told, "" for none.

    `has_receipt` says that limits have taken something, and `at_ns` when; of `hold` and `refusal` at most one is there.
    """

    number: int
    error: str = ""
    admitted: bool = True
    limit: int | None = None
    remaining: int = 0
    reset_seconds: float = 0.0
    retry_after_seconds: float = 0.0
    reached: tuple[Rule, ...] = ()
    tokens: Gauge | None = None
    fits: bool = True
    has_receipt: bool = False
    hold: Hold | None = None
    refusal: Refusal | None = None
    at_ns: int = 0

    @property
    def standing(self) -> Standing:
        """Return where the caller stands."""
        return Standing(
            self.admitted,
            self.limit,
            self.remaining,
            self.reset_seconds,
            self.retry_after_seconds,
            self.reached,
            None,
            self.tokens,
            self.fits,
        )


class Read(_Message, tag=1):
    """Order a mark, and that the rows come up to it and no further."""

    serial: int


class Report(_Message, tag=2):
    """Order what the rows say: everybody is level."""

    serial: int


class Resume(_Message, tag=3):
    """Say that a reading is over, and whether it is known what budgets have spent."""

    is_loaded: bool


Request: TypeAlias = (
    Hello | Configure | Ask | Retake | Settle | Release | Spend | Alive | Outdated | Marked | Level | Spent
)
Order: TypeAlias = Answer | Read | Report | Resume

_encoder = msgspec.msgpack.Encoder()
_decode_requests = msgspec.msgpack.Decoder(list[Request]).decode
_decode_orders = msgspec.msgpack.Decoder(list[Order]).decode
_decode_rules = msgspec.msgpack.Decoder(tuple[Rule, ...]).decode
_decode_budgets = msgspec.msgpack.Decoder(tuple[Budget, ...]).decode


def frame(messages: Sequence[object]) -> bytes:
    """Return messages as bytes."""
    content = _encoder.encode(messages)
    return len(content).to_bytes(HEADER_BYTES, "big") + content


def requests_of(content: bytes) -> list[Request]:
    """Return what a worker says. Raises `msgspec.ValidationError` or `msgspec.DecodeError`."""
    return _decode_requests(content)


def orders_of(content: bytes) -> list[Order]:
    """Return what the owner says. Raises as `requests_of`."""
    return _decode_orders(content)


def encode_parts(parts: tuple[Rule, ...] | tuple[Budget, ...]) -> bytes:
    """Return rules or budgets for an `Ask`."""
    return _encoder.encode(parts) if parts else b""


def rules_of(content: bytes) -> tuple[Rule, ...]:
    """Return rules of an `Ask`."""
    return _decode_rules(content) if content else ()


def budgets_of(content: bytes) -> tuple[Budget, ...]:
    """Return budgets of an `Ask`."""
    return _decode_budgets(content) if content else ()


def address_of(counted_as: int) -> bytes:
    """Return an address for an `Ask`; those of IPv6 are longer than MessagePack's numbers."""
    return counted_as.to_bytes(_ADDRESS_BYTES, "big")


def fitting(amount: int) -> int:
    """Return an amount that can be written."""
    return min(amount, _MOST)


def fitting_money(nano_usd: int | None) -> int | None:
    """Return money that can be written, None when nobody knows how much."""
    return None if nano_usd is None else min(nano_usd, _MOST)
