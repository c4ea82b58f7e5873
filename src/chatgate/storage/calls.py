"""What a journal's records make of the rows of a call: the law of `accounting.ledger`, on the rows of `attempts`.

Owns the rows in memory and what they mean in money. Pure: `ledger` reads and writes the rows, `audit` adds them up. A
record taken again changes nothing, and records may come in any order; of several settlements the one that came first
counts.

Each row is a function of the records of its attempt, and of whether its call has ended: which row ends the call, and
what became of attempts that nobody heard of, is decided anew each time (`_conclude`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import astuple
from sqlalchemy import Column, MetaData, Table, Text

from chatgate.storage import schema
from chatgate.storage.columns import BoundedText, JsonList, all_microseconds, are_storable, storable
from chatgate.storage.records import DispatchRecord, FailureRecord, Record, SettlementRecord

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
    own_key: bool = False


def _plain(column: Column[Any]) -> Column[Any]:
    kind = column.type
    plain = Text() if isinstance(kind, BoundedText | JsonList) else getattr(kind, "impl_instance", kind)
    return Column(column.name, plain, primary_key=column.primary_key)


rows = Table("attempts", MetaData(), *(_plain(schema.attempts.c[name]) for name in Attempt.__struct_fields__))
"""The table `attempts` in the order of `Attempt`, without conversions: they would cost more than the writing."""

Call: TypeAlias = dict[int, Attempt]
"""The rows of one call, by the attempt's number."""

_encode_names = msgspec.json.Encoder().encode
names_in = msgspec.json.Decoder(tuple[str, ...]).decode
"""Return the accounts that `names` made a text of."""

NO_ACCOUNTS = "[]"


class Money(NamedTuple):
    """What a call is, or was, held for: so much spent and so much reserved, in each of the accounts."""

    accounts: tuple[str, ...]
    spent: int
    reserved: int


NOTHING = Money((), 0, 0)


def money(call: Iterable[Attempt]) -> Money:
    """Return what a call takes from its accounts, which are those of its first dispatch on record."""
    first: Attempt | None = None
    ending: Attempt | None = None
    for row in call:
        if row.accounts is not None and (first is None or row.attempt < first.attempt):
            first = row
        if row.ends_call:
            ending = row
    if first is None or first.accounts is None or first.accounts == NO_ACCOUNTS:
        return NOTHING
    names = names_in(first.accounts)
    if ending is None:
        return Money(names, 0, first.reserved_nano_usd)
    return Money(names, ending.charged_nano_usd, 0)


def check_id(call_id: str) -> None:
    """Raise `Unfit` for what cannot be the id of a call as it is: a changed one might be another's."""
    if not call_id or storable(call_id, schema.MAX_ID_CHARACTERS) != call_id:
        raise Unfit("call_id")


def check_ids(call_ids: Collection[str]) -> None:
    """Raise `Unfit` unless all can be ids of calls as they are, in the letters that ids are made of."""
    if not all(call_ids) or not are_storable(call_ids, schema.MAX_ID_CHARACTERS):
        raise Unfit("call_id")


def take(call: Call, record: Record, worker: str) -> None:
    """Add a record, whose id is checked, to the rows of its call. Raises `Unfit`, and then nothing has changed."""
    kind = kind_of(type(record))
    if kind == "settlement" and any(row.state == "settled" for row in call.values()):
        return
    if not 0 < record.attempt <= _MAX_SMALL:
        raise Unfit("attempt")
    at = time_of(record.at)
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


def _take_dispatch(row: Attempt, record: DispatchRecord, _: int) -> None:
    if row.accounts is not None:
        return
    _fill(row, one(DISPATCHED, said([record])))
    row.key_id, row.streamed, row.own_key = row.key_id or None, bool(row.streamed), bool(row.own_key)


def _take_failure(row: Attempt, record: FailureRecord, at: int) -> None:
    if row.state in {"failed", "abandoned"}:
        return
    (cost,), (status,) = _amounts([record.cost_nano_usd]), _statuses([record.status])
    row.cost_nano_usd = cost
    if row.state == "settled":
        return
    row.state = "abandoned" if record.abandoned else "failed"
    row.code, row.status, row.settled_at = storable(record.code, 64), status or None, at


def _take_settlement(row: Attempt, record: SettlementRecord, _: int) -> None:
    _fill(row, one(SETTLED, said([record])))
    row.state = "settled"
    row.first_token_at = row.first_token_at or None
    row.code, row.status, row.usage_refused = row.code or None, row.status or None, bool(row.usage_refused)


def _fill(row: Attempt, values: Mapping[str, Any]) -> None:
    for column, value in values.items():
        setattr(row, column, value)


_TAKERS: dict[str, Any] = {"dispatch": _take_dispatch, "failure": _take_failure, "settlement": _take_settlement}


@cache
def kind_of(record_type: type) -> str:
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


Convert: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]
"""Makes a column of a table of what a field of some records says. Raises `Unfit` when any of it cannot be stored."""


def _texts(characters: int) -> Convert:
    """Return what makes texts storable."""

    def convert(texts: Sequence[str]) -> Sequence[str]:
        return texts if are_storable(texts, characters) else [storable(text, characters) for text in texts]

    return convert


def _words(characters: int) -> Convert:
    """Return the same for members of an Enum."""
    texts = _texts(characters)
    return lambda words: texts(list(map(str, words)))


def _truths(found: Sequence[Any]) -> Sequence[int]:
    return list(map(int, map(bool, found)))


def _bounded(most: int, what: str) -> Convert:
    """Return what lets numbers through that are none too large."""

    def convert(numbers: Sequence[int]) -> Sequence[int]:
        if not 0 <= min(numbers) <= max(numbers) <= most:
            raise Unfit(what)
        return numbers

    return convert


def _times(moments: Sequence[datetime | None]) -> Sequence[int]:
    """Return times as rows have them, 0 for None. Raises `Unfit` when any of them has no zone."""
    try:
        return all_microseconds(moments)
    except (TypeError, OverflowError) as error:
        raise Unfit("at") from error


@lru_cache(4096)
def _names(accounts: tuple[str, ...]) -> str:
    """Return accounts as JSON. Raises `Unfit`: a name is never changed, for then it would be another's."""
    for name in accounts:
        if not name or storable(name, schema.MAX_ACCOUNT_CHARACTERS) != name:
            raise Unfit("accounts")
    text = _encode_names(tuple(dict.fromkeys(accounts))).decode()
    if len(text) > schema.MAX_ACCOUNTS_CHARACTERS:
        raise Unfit("accounts")
    return text


_amounts = _bounded(MAX_NANO_USD, "nano_usd")
_statuses = _bounded(_MAX_SMALL, "status")
_tokens = _bounded(MAX_TOKENS, "usage")

DISPATCHED: Final[Mapping[str, tuple[str, Convert]]] = {
    "operation": ("operation", _words(32)),
    "surface": ("surface", _words(32)),
    "streamed": ("stream", _truths),
    "asked_model": ("asked_model", _texts(schema.MAX_MODEL_CHARACTERS)),
    "sent_model": ("sent_model", _texts(schema.MAX_MODEL_CHARACTERS)),
    "upstream": ("upstream", _texts(128)),
    "own_key": ("own_key", _truths),
    "key_id": ("key_id", _texts(schema.MAX_ID_CHARACTERS)),
    "owner": ("owner", _texts(200)),
    "address": ("address", _texts(schema.MAX_ADDRESS_CHARACTERS)),
    "dispatched_at": ("at", _times),
    "reserved_nano_usd": ("reserved_nano_usd", _amounts),
    "accounts": ("accounts", lambda accounts: list(map(_names, accounts))),
}
"""What a dispatch says of a row: by the column, the record's field, and how it is stored; "" is NULL in `key_id`."""

SETTLED: Final[Mapping[str, tuple[str, Convert]]] = {
    "outcome": ("outcome", _words(32)),
    "code": ("code", _texts(64)),
    "status": ("status", _statuses),
    "answered_model": ("answered_model", _texts(schema.MAX_MODEL_CHARACTERS)),
    "price": ("price", _texts(2000)),
    "usage_source": ("source", _words(16)),
    "usage_refused": ("flaws", _truths),
    "input_tokens": ("input_tokens", _tokens),
    "cached_input_tokens": ("cached_input_tokens", _tokens),
    "cache_write_tokens": ("cache_write_tokens", _tokens),
    "audio_input_tokens": ("audio_input_tokens", _tokens),
    "output_tokens": ("output_tokens", _tokens),
    "reasoning_tokens": ("reasoning_tokens", _tokens),
    "audio_output_tokens": ("audio_output_tokens", _tokens),
    "settled_at": ("at", _times),
    "first_token_at": ("first_token_at", _times),
    "upstream_request_id": ("upstream_request_id", _texts(256)),
    "charged_nano_usd": ("charged_nano_usd", _amounts),
}
"""The same of a settlement, whose usage counts as part of it; "" and 0 are NULL in `code`, `status` and
`first_token_at`."""

Said: TypeAlias = Mapping[str, tuple[Any, ...]]
"""What some records of one kind say, by the name of the field."""


def said(records: Sequence[Any]) -> Said:
    """Return what records say, which are structs of one type and not none."""
    found = _fields(records)
    usages = found.get("usage")
    if usages is not None:
        kind = next(filter(None, usages), _NO_USAGE)
        # Without any, nothing was counted and nobody said so.
        nothing = tuple(["" if field == "source" else 0 for field in kind.__struct_fields__])
        rows = [nothing if usage is None else astuple(usage) for usage in usages]
        found |= zip(kind.__struct_fields__, zip(*rows, strict=True), strict=True)
    return found


def _fields(records: Sequence[Any]) -> dict[str, tuple[Any, ...]]:
    return dict(zip(records[0].__struct_fields__, zip(*map(astuple, records), strict=True), strict=True))


class _NoUsage(Struct):
    """A usage that says nothing, with the fields of `UsageRecord`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    source: str = ""


_NO_USAGE = _NoUsage()


def one(columns: Mapping[str, tuple[str, Convert]], found: Said) -> dict[str, Any]:
    """Return what a single record says, by the column. Raises `Unfit`."""
    return {column: convert(found[field])[0] for column, (field, convert) in columns.items()}


def time_of(at: datetime) -> int:
    """Return a time as a row has it. Raises `Unfit` for one without a zone."""
    return int(_times([at])[0])
