"""What a journal's records make of the rows of a call: the law of `accounting.ledger`, on the rows of `attempts`.

Owns the rows in memory and what they mean in money. Pure: `ledger` reads and writes the rows, `audit` adds them up. A
record taken again changes nothing, and records may come in any order; of several settlements the one that came first
counts.

Each row is a function of the records of its attempt, and of whether its call has ended: which row ends the call, and
what became of attempts that nobody heard of, is decided anew each time (`_conclude`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from functools import cache, lru_cache
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import Column, MetaData, Table, Text

from chatgate.storage import schema
from chatgate.storage.columns import BoundedText, JsonList, all_microseconds, are_storable, storable
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


def _take_dispatch(row: Attempt, record: DispatchRecord, at: int) -> None:
    if row.accounts is not None:
        return
    reserved = amount(record.reserved_nano_usd)
    row.accounts = names(record.accounts)
    row.reserved_nano_usd = reserved
    row.dispatched_at = at
    ((key_id, row.owner, row.address),) = callers([record])
    ((row.operation, row.surface, streamed, *models, own_key),) = asked([record])
    row.key_id, row.streamed, row.own_key = key_id or None, bool(streamed), bool(own_key)
    row.asked_model, row.sent_model, row.upstream = models


def _take_failure(row: Attempt, record: FailureRecord, at: int) -> None:
    if row.state in {"failed", "abandoned"}:
        return
    cost, status = amount(record.cost_nano_usd), _status(record.status)
    row.cost_nano_usd = cost
    if row.state == "settled":
        return
    row.state = "abandoned" if record.abandoned else "failed"
    row.code, row.status, row.settled_at = storable(record.code, 64), status, at


def _take_settlement(row: Attempt, record: SettlementRecord, at: int) -> None:
    charged = amount(record.charged_nano_usd)
    first_token_at = None if record.first_token_at is None else time_of(record.first_token_at)
    ((outcome, code, status, answered_model, price, source, is_refused),) = ended([record])
    if record.usage is not None:
        (told,) = counts([record.usage])
        row.input_tokens, row.cached_input_tokens, row.cache_write_tokens, row.audio_input_tokens = told[:4]
        row.output_tokens, row.reasoning_tokens, row.audio_output_tokens = told[4:]
        row.usage_source = source
    row.state = "settled"
    row.charged_nano_usd, row.settled_at, row.first_token_at = charged, at, first_token_at
    row.outcome, row.code, row.status = outcome, code or None, status or None
    row.answered_model, row.price = answered_model, price
    (row.upstream_request_id,) = upstream_ids([record.upstream_request_id])
    row.usage_refused = bool(is_refused)


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


_REMEMBERED = 4096

Caller: TypeAlias = tuple[str, str, str]
"""What a row says of who called: `key_id`, "" for none, `owner` and `address`."""

Asked: TypeAlias = tuple[str, str, int, str, str, str, int]
"""What a row says of what was called: `operation`, `surface`, `streamed`, 0 or 1, `asked_model`, `sent_model`,
`upstream` and `own_key`."""

Ended: TypeAlias = tuple[str, str, int, str, str, str, int]
"""What a row says of how a call ended: `outcome`, `code`, "" for none, `status`, 0 for none, `answered_model`, `price`,
`usage_source` and `usage_refused`."""


def callers(records: Iterable[DispatchRecord]) -> Iterator[Caller]:
    """Return who called."""
    return map(_caller, [(record.key_id, record.owner, record.address) for record in records])


@lru_cache(_REMEMBERED)
def _caller(told: tuple[str, str, str]) -> Caller:
    key_id, owner, address = told
    return (
        storable(key_id, schema.MAX_ID_CHARACTERS),
        storable(owner, 200),
        storable(address, schema.MAX_ADDRESS_CHARACTERS),
    )


def asked(records: Iterable[DispatchRecord]) -> Iterator[Asked]:
    """Return what was called."""
    told = [
        (
            record.operation,
            record.surface,
            record.stream,
            record.asked_model,
            record.sent_model,
            record.upstream,
            record.own_key,
        )
        for record in records
    ]
    return map(_asked, told)


@lru_cache(_REMEMBERED)
def _asked(told: tuple[str, str, bool, str, str, str, bool]) -> Asked:
    operation, surface, stream, asked_model, sent_model, upstream, own_key = told
    return (
        storable(operation, 32),
        storable(surface, 32),
        1 if stream else 0,
        storable(asked_model, schema.MAX_MODEL_CHARACTERS),
        storable(sent_model, schema.MAX_MODEL_CHARACTERS),
        storable(upstream, 128),
        1 if own_key else 0,
    )


def ended(records: Iterable[SettlementRecord]) -> Iterator[Ended]:
    """Return how calls ended. Raises `Unfit` while that is taken."""
    told = [
        (
            record.outcome,
            record.code,
            record.status,
            record.answered_model,
            record.price,
            "" if record.usage is None else record.usage.source,
            record.flaws,
        )
        for record in records
    ]
    return map(_ended, told)


@lru_cache(_REMEMBERED)
def _ended(told: tuple[str, str, int, str, str, str, tuple[str, ...]]) -> Ended:
    outcome, code, status, answered_model, price, source, flaws = told
    return (
        storable(str(outcome), 32),
        storable(code, 64),
        _status(status) or 0,
        storable(answered_model, schema.MAX_MODEL_CHARACTERS),
        storable(price, 2000),
        storable(str(source), 16),
        1 if flaws else 0,
    )


def upstream_ids(texts: list[str]) -> list[str]:
    """Return providers' names for calls as rows have them."""
    return texts if are_storable(texts, 256) else [storable(text, 256) for text in texts]


Counts: TypeAlias = tuple[int, int, int, int, int, int, int]

NO_COUNTS: Counts = (0, 0, 0, 0, 0, 0, 0)


def counts(usages: Iterable[UsageRecord | None]) -> list[Counts]:
    """Return the tokens of calls, in the order of the columns. Raises `Unfit` when any of them cannot be."""
    found = [
        NO_COUNTS
        if usage is None
        else (
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.cache_write_tokens,
            usage.audio_input_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
            usage.audio_output_tokens,
        )
        for usage in usages
    ]
    different = set(chain.from_iterable(found))
    if different and not 0 <= min(different) <= max(different) <= MAX_TOKENS:
        raise Unfit("usage")
    return found


@lru_cache(_REMEMBERED)
def names(accounts: tuple[str, ...]) -> str:
    """Return accounts as JSON. Raises `Unfit`: a name is never changed, for then it would be another's."""
    for name in accounts:
        if not name or storable(name, schema.MAX_ACCOUNT_CHARACTERS) != name:
            raise Unfit("accounts")
    text = _encode_names(tuple(dict.fromkeys(accounts))).decode()
    if len(text) > schema.MAX_ACCOUNTS_CHARACTERS:
        raise Unfit("accounts")
    return text


def amount(nano_usd: int) -> int:
    """Return an amount as it is. Raises `Unfit` when it cannot be a call's."""
    return amounts([nano_usd])[0]


def amounts(nano_usd: list[int]) -> list[int]:
    """Return amounts as they are. Raises `Unfit` when any of them cannot be a call's."""
    if nano_usd and not 0 <= min(nano_usd) <= max(nano_usd) <= MAX_NANO_USD:
        raise Unfit("nano_usd")
    return nano_usd


def _status(status: int) -> int | None:
    """Return an HTTP status; None for 0, which says that there was no answer."""
    if not 0 <= status <= _MAX_SMALL:
        raise Unfit("status")
    return status or None


def time_of(at: datetime) -> int:
    """Return a time as a row has it. Raises `Unfit` for one without a zone."""
    return times([at])[0]


def times(moments: Iterable[datetime | None]) -> list[int]:
    """Return times as rows have them, 0 for None. Raises `Unfit` when any of them has no zone."""
    try:
        return all_microseconds(moments)
    except (TypeError, OverflowError) as error:
        raise Unfit("at") from error
