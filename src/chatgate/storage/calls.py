"""What a journal's records make of the rows of a call: the law of `accounting.ledger`, on the rows of `attempts`.

Owns the rows in memory and what they mean in money. Pure: `ledger` reads and writes the rows, `audit` adds them up. A
record taken again changes nothing, and records may come in any order; of several settlements the one that came first
counts.

Each row is a function of the records of its attempt, and of whether its call has ended: which row ends the call, and
what became of attempts that nobody heard of, is decided anew each time (`_conclude`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import Column, MetaData, Table, Text

from chatgate.storage import schema
from chatgate.storage.columns import BoundedText, JsonList, microseconds, storable
from chatgate.storage.records import DispatchRecord, FailureRecord, Record, SettlementRecord, UsageRecord

MAX_NANO_USD = 10**15
"""A record by which one call costs more than this, a million dollars, is no record; so sums stay within 64 bits."""

MAX_TOKENS = 10**12
_MAX_SMALL = 2**31 - 1


class Unfit(Exception):  # noqa: N818 - what the record is
    """A record cannot become a row: its ids, amounts or times are none."""


class Attempt(Struct, gc=False):
    """A row of `attempts` as the database holds it: times in microseconds, `accounts` as JSON, texts that it takes."""

    request_id: str
    attempt: int
    worker: str
    dispatched_at: int
    state: str = "dispatched"
    ends_call: bool = False
    outcome: str | None = None
    code: str | None = None
    status: int | None = None
    key_id: str | None = None
    owner: str = ""
    address: str = ""
    operation: str = ""
    surface: str = ""
    streamed: bool = False
    asked_model: str = ""
    sent_model: str = ""
    answered_model: str = ""
    upstream: str = ""
    upstream_request_id: str = ""
    first_token_at: int | None = None
    settled_at: int | None = None
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    usage_source: str = ""
    usage_refused: bool = False
    price: str = ""
    reserved_nano_usd: int = 0
    charged_nano_usd: int = 0
    cost_nano_usd: int = 0
    accounts: str | None = None


def _plain(column: Column[Any]) -> Column[Any]:
    kind = column.type
    plain = Text() if isinstance(kind, BoundedText | JsonList) else getattr(kind, "impl_instance", kind)
    return Column(column.name, plain, primary_key=column.primary_key)


rows = Table("attempts", MetaData(), *(_plain(schema.attempts.c[name]) for name in Attempt.__struct_fields__))
"""The table `attempts` in the order of `Attempt`, without conversions: they would cost more than the writing."""

Call: TypeAlias = dict[int, Attempt]
"""The rows of one call, by the attempt's number."""

_encode_names = msgspec.json.Encoder().encode
_decode_names = msgspec.json.Decoder(tuple[str, ...]).decode
_NO_ACCOUNTS = "[]"

_text = lru_cache(1024)(storable)
"""`storable`, for texts that nearly all calls share, such as names of models; a journal's are short."""


class Money(NamedTuple):
    """What a call is, or was, held for: so much spent and so much reserved, in each of the accounts."""

    accounts: tuple[str, ...]
    spent: int
    reserved: int


_NOTHING = Money((), 0, 0)


def money(call: Iterable[Attempt]) -> Money:
    """Return what a call takes from its accounts, which are those of its first dispatch on record."""
    first: Attempt | None = None
    ending: Attempt | None = None
    for row in call:
        if row.accounts is not None and (first is None or row.attempt < first.attempt):
            first = row
        if row.ends_call:
            ending = row
    if first is None or first.accounts is None or first.accounts == _NO_ACCOUNTS:
        return _NOTHING
    names = _decode_names(first.accounts)
    if ending is None:
        return Money(names, 0, first.reserved_nano_usd)
    return Money(names, ending.charged_nano_usd, 0)


def check_id(call_id: str) -> None:
    """Raise `Unfit` for what cannot be the id of a call as it is: a changed one might be another's."""
    if not call_id or storable(call_id, schema.MAX_ID_CHARACTERS) != call_id:
        raise Unfit("call_id")


def take(call: Call, record: Record, worker: str) -> None:
    """Add a record, whose id is checked, to the rows of its call. Raises `Unfit`, and then nothing has changed."""
    kind = _kind(type(record))
    if kind == "settlement" and any(row.state == "settled" for row in call.values()):
        return
    if not 0 < record.attempt <= _MAX_SMALL:
        raise Unfit("attempt")
    at = _time(record.at)
    row = call.get(record.attempt)
    if row is None:
        row = Attempt(record.call_id, record.attempt, worker, at)
    _TAKERS[kind](row, record, at)
    call[record.attempt] = row
    if len(call) == 1 and row.state == "settled":
        row.ends_call = True  # As nearly all calls end.
    elif len(call) > 1 or row.ends_call:
        _conclude(call)


def interrupt(call: Call, at: int) -> None:
    """Say of a call under way that its process has ended: its last row ends it, at the most it can have cost."""
    if any(row.ends_call for row in call.values()):
        return
    last = call[max(call)]
    last.ends_call = True
    last.settled_at = at
    _conclude(call)


def _take_dispatch(row: Attempt, record: DispatchRecord, at: int) -> None:
    if row.accounts is not None:
        return
    reserved = _amount(record.reserved_nano_usd)
    row.accounts = _names(record.accounts) if record.accounts else _NO_ACCOUNTS
    row.reserved_nano_usd = reserved
    row.dispatched_at = at
    row.key_id = _text(record.key_id, schema.MAX_ID_CHARACTERS) or None
    row.owner = _text(record.owner, 200)
    row.address = _text(record.address, schema.MAX_ADDRESS_CHARACTERS)
    row.operation = _text(record.operation, 32)
    row.surface = _text(record.surface, 32)
    row.streamed = bool(record.stream)
    row.asked_model = _text(record.asked_model, schema.MAX_MODEL_CHARACTERS)
    row.sent_model = _text(record.sent_model, schema.MAX_MODEL_CHARACTERS)
    row.upstream = _text(record.upstream, 128)


def _take_failure(row: Attempt, record: FailureRecord, at: int) -> None:
    if row.state in {"failed", "abandoned"}:
        return
    cost, status = _amount(record.cost_nano_usd), _status(record.status)
    row.cost_nano_usd = cost
    if row.state == "settled":
        return
    row.state = "abandoned" if record.abandoned else "failed"
    row.code, row.status, row.settled_at = _text(record.code, 64), status, at


def _take_settlement(row: Attempt, record: SettlementRecord, at: int) -> None:
    charged, status = _amount(record.charged_nano_usd), _status(record.status)
    first_token_at = None if record.first_token_at is None else _time(record.first_token_at)
    if record.usage is not None:
        _take_usage(row, record.usage)
    row.state = "settled"
    row.charged_nano_usd, row.status, row.settled_at, row.first_token_at = charged, status, at, first_token_at
    row.outcome = _text(str(record.outcome), 32)
    row.code = _text(record.code, 64) or None
    row.answered_model = _text(record.answered_model, schema.MAX_MODEL_CHARACTERS)
    row.upstream_request_id = _text(record.upstream_request_id, 256)
    row.price = _text(record.price, 2000)
    row.usage_refused = bool(record.flaws)


def _take_usage(row: Attempt, usage: UsageRecord) -> None:
    counts = (
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.audio_input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.audio_output_tokens,
    )
    if min(counts) < 0 or max(counts) > MAX_TOKENS:
        raise Unfit("usage")
    row.input_tokens, row.cached_input_tokens, row.cache_write_tokens, row.audio_input_tokens = counts[:4]
    row.output_tokens, row.reasoning_tokens, row.audio_output_tokens = counts[4:]
    row.usage_source = _text(str(usage.source), 16)


_TAKERS: dict[str, Any] = {"dispatch": _take_dispatch, "failure": _take_failure, "settlement": _take_settlement}


@cache
def _kind(record_type: type) -> str:
    """Tell what a record is by what only its kind has; asked once for each type."""
    fields = getattr(record_type, "__struct_fields__", None) or dir(record_type)
    for kind, field in (("dispatch", "accounts"), ("failure", "abandoned"), ("settlement", "outcome")):
        if field in fields:
            return kind
    raise Unfit("kind")


def _conclude(call: Call) -> None:
    """Decide which row ends the call, if one does, and what became of the others."""
    settled = ended = None
    for row in call.values():
        if row.state == "settled":
            settled = row
        elif row.ends_call:
            ended = row
    if settled is None and ended is None:
        return
    ending = settled or call[max(call)]
    for row in call.values():
        if row.state == "dispatched":
            row.state = "unknown"
        if row is not ending:
            row.ends_call, row.charged_nano_usd = False, 0
    if settled is None and ended is not None:
        ending.settled_at = ended.settled_at
        ending.charged_nano_usd = next(_reserved(call), 0)
    ending.ends_call = True


def _reserved(call: Call) -> Iterator[int]:
    """Yield what each dispatch on record reserved, the first one's first."""
    for number in sorted(call):
        if call[number].accounts is not None:
            yield call[number].reserved_nano_usd


def _names(names: Sequence[str]) -> str:
    """Return accounts as JSON; a name is never changed, for then it would be another's."""
    for name in names:
        if not name or storable(name, schema.MAX_ACCOUNT_CHARACTERS) != name:
            raise Unfit("accounts")
    text = _encode_names(tuple(dict.fromkeys(names))).decode()
    if len(text) > schema.MAX_ACCOUNTS_CHARACTERS:
        raise Unfit("accounts")
    return text


def _amount(nano_usd: int) -> int:
    if not 0 <= nano_usd <= MAX_NANO_USD:
        raise Unfit("nano_usd")
    return nano_usd


def _status(status: int) -> int | None:
    """Return an HTTP status; None for 0, which says that there was no answer."""
    if not 0 <= status <= _MAX_SMALL:
        raise Unfit("status")
    return status or None


def _time(at: datetime) -> int:
    try:
        return microseconds(at)
    except (TypeError, OverflowError) as error:
        raise Unfit("at") from error
