"""What is written about a call, in the order in which it happens.

    Dispatch ─ (Failure ─ Dispatch)* ─ Settlement

A `Dispatch` is written before an upstream is called, once per attempt; a `Failure` when an attempt ended and another
follows; a `Settlement` once per call, before its caller sees the end. A call that ends without a `Settlement` was
interrupted: its cost is unknown, and at most what was reserved.

Each is found again by its own ids (the call's, the attempt's number, its kind), so that writing or reading one twice
changes nothing. Fields may be added at the end, with defaults: older and newer programs read each other's records.
They never hold text of the caller's or of the model's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

from chatgate.accounting.usage import Usage

Instant: TypeAlias = Annotated[datetime, Meta(tz=True)]
"""An aware time in UTC."""


class Dispatch(Struct, frozen=True, array_like=True, tag="dispatch", gc=False):
    """An upstream is about to be called.

    `attempt` counts from 1. `reserved_nano_usd` is what the call may cost at most, and `accounts` are the names of the
    budgets' accounts that it is held in; both are the same in every attempt of a call. `key_id`, `owner` and `address`
    are "" when there is none. `own_key` says that the caller's own key of the provider is shown, who sends them the
    bill.
    """

    call_id: str
    attempt: int
    at: Instant
    operation: str
    surface: str
    key_id: str
    owner: str
    address: str
    asked_model: str
    sent_model: str
    upstream: str
    stream: bool
    reserved_nano_usd: int = 0
    accounts: tuple[str, ...] = ()
    own_key: bool = False


class Failure(Struct, frozen=True, array_like=True, tag="failure", gc=False):
    """An attempt ended without an answer, and another one follows.

    `code` is the stable error code, `status` what the upstream answered, 0 for nothing. The caller is never billed
    for it: `cost_nano_usd` is what the operator may have to pay, an estimate, and `abandoned` says that the upstream
    may still be working at it.
    """

    call_id: str
    attempt: int
    at: Instant
    code: str
    status: int = 0
    cost_nano_usd: int = 0
    abandoned: bool = False


class Settlement(Struct, frozen=True, array_like=True, tag="settlement", gc=False):
    """A call has ended; `attempt` is the one that served it, or the last.

    `usage` is None when no model did anything. `price` is the text of the `Rates` that made `charged_nano_usd` of it,
    "" when there was none. `flaws` are what was wrong with the provider's own numbers, `upstream_request_id` is its
    name for the call, and `first_token_at` is None when nothing came.
    """

    call_id: str
    attempt: int
    at: Instant
    outcome: str
    status: int
    code: str = ""
    answered_model: str = ""
    usage: Usage | None = None
    charged_nano_usd: int = 0
    price: str = ""
    flaws: tuple[str, ...] = ()
    upstream_request_id: str = ""
    first_token_at: Instant | None = None


Record: TypeAlias = Dispatch | Failure | Settlement

encode_line = msgspec.json.Encoder().encode_lines
"""Write records as JSON, each on a line of its own. They come in a list: of a tuple msgspec 0.22 keeps 48 bytes."""

decode = msgspec.json.Decoder(Record).decode
"""Read a record; raises `msgspec.DecodeError`."""
