"""What is asked of Redis, and what its answers mean.

Owns the keys, the order of the scripts' arguments and of their answers; the scripts beside it own what is done. Pure:
`connection` sends. Money is in nano-USD, times of the server are in microseconds, lives in milliseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final, Literal, NamedTuple

MAX_AMOUNT: Final = 2**53 - 1
"""Lua counts in floating point: up to this it is exact, and what is more counts as this much."""

MOST_ARGUMENTS: Final = 500
"""So many calls or names at most go into one statement: the server does nothing else meanwhile."""

KEYS_TTL_MS: Final = 35 * 86_400_000
HOLD_TTL_MS: Final = 86_400_000
"""A hold is remembered for a day, longer than any call takes; what nobody settles stays held in its accounts."""

SCRIPTS: list[bytes] = []
"""The text of every script, to be loaded."""


class Script(NamedTuple):
    """A script and its digest, by which the server knows it."""

    text: bytes
    digest: bytes


def _script(*names: str) -> Script:
    text = b"".join(files(__package__).joinpath(f"{name}.lua").read_bytes() for name in names)
    SCRIPTS.append(text)
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


_TAKE, _SETTLE, _SESSION, _MONEY = (
    _script("counts", "take"),
    _script("counts", "settle"),
    _script("counts", "session"),
    _script("money"),
)

_Word = bytes | str | int


class Statement(NamedTuple):
    """A script to be run with these keys and arguments."""

    script: Script
    keys: Sequence[bytes]
    arguments: Sequence[_Word]

    def by_digest(self) -> tuple[_Word, ...]:
        """Return the command that names the script."""
        return (b"EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.arguments)

    def by_text(self) -> tuple[_Word, ...]:
        """Return the command that brings the script."""
        return (b"EVAL", self.script.text, len(self.keys), *self.keys, *self.arguments)


def _key(kind: str, name: str = "") -> bytes:
    return f"{{chatgate}}:{kind}:{name}".encode() if name else f"{{chatgate}}:{kind}".encode()


_SESSIONS, _EPOCH, _JOINED = _FLEET = _key("sessions"), _key("epoch"), _key("joined")

Kind = Literal["window", "slots"]


class Ask(NamedTuple):
    """So much of a limit: at most `most` in `length_us` of a window, or of slots at any one time, counted at `key`."""

    kind: Kind
    key: bytes
    amount: int
    most: int
    length_us: int


class Room(NamedTuple):
    """How a limit stood before the call: what was used, in how long nothing will be, in how long the call would fit."""

    used: int
    reset_us: int
    wait_us: int


class Money(NamedTuple):
    """An amount for a call's budgets.

    `accounts` are names and how long each is remembered after its last use, `budgets` of one account each, by its
    place: the most that may be spent, and the percent of that from which it is worth a warning, 0 for never.
    """

    epoch: str
    call_id: str
    amount: int
    accounts: Sequence[tuple[str, int]]
    budgets: Sequence[tuple[int, int, int]]


class Took(NamedTuple):
    """What became of the wish to take a call; what it says of limits is in the order of the question.

    `sums` are what is spent and held in the accounts, with the call's own amount if it `is_taken`. `warnings` says of
    each budget whether the call brought it to its threshold.
    """

    is_taken: bool
    at_us: int
    rooms: Sequence[Room]
    sums: Sequence[tuple[int, int]]
    warnings: Sequence[bool]


class NoSession(Exception):  # noqa: N818 - what the server says
    """The server does not know the session, any more or yet."""


class OtherEpoch(Exception):  # noqa: N818 - the same
    """The server's memory of money is not the one that is asked about."""


class UnknownAccounts(Exception):  # noqa: N818 - the same
    """The server does not know what is spent in one of the accounts."""


_REFUSALS: Final[Mapping[int, type[Exception]]] = {-1: NoSession, -2: OtherEpoch, -3: UnknownAccounts, -4: ValueError}


def check(answer: Sequence[Any]) -> int:
    """Return what an answer begins with. Raises `NoSession`, `OtherEpoch`, `UnknownAccounts`."""
    status: int = answer[0]
    if status < 0:
        raise _REFUSALS[status]("the store says no")
    return status


@lru_cache(10_000)
def limit_key(*of: Hashable) -> bytes:
    """Return the key of a count; what is counted and in whose name is not shown in it."""
    digest = hashlib.blake2b(repr(of).encode("utf-8", "backslashreplace"), digest_size=15)
    return _key("limit", digest.hexdigest())


def take(
    session: str, until_us: int, asks: Sequence[Ask], money: Money | None = None, *, looks: bool = False
) -> Statement:
    """Take a call from limits and budgets, all or none, or only look; answered as `took` reads it.

    A server that comes to it after `until_us` by its own clock takes nothing, and has no session for it.
    """
    keys = [_SESSIONS, _EPOCH, *[ask.key for ask in asks]]
    arguments: list[_Word] = [session, until_us, b"look" if looks else b"take", len(asks)]
    for kind, _, amount, most, length_us in asks:
        arguments += (kind, min(amount, MAX_AMOUNT), min(most, MAX_AMOUNT), length_us)
    if money is not None:
        keys += [_key("account", name) for name, _ in money.accounts]
        keys.append(_key("hold", money.call_id))
        arguments += (money.epoch, min(money.amount, MAX_AMOUNT), HOLD_TTL_MS, len(money.accounts))
        arguments += [ttl_ms for _, ttl_ms in money.accounts]
        arguments.append(len(money.budgets))
        for place, most, percent in money.budgets:
            arguments += (place + 1, min(most, MAX_AMOUNT), percent)
    return Statement(_TAKE, keys, arguments)


def took(answer: Sequence[int], asks: Sequence[Ask], money: Money | None = None) -> Took:
    """Read the answer to `take`. Raises as `check`, and ValueError for a call that has a hold already."""
    is_taken = check(answer) == 1
    end = 2 + 3 * len(asks)
    rooms = [Room(*answer[at : at + 3]) for at in range(2, end, 3)]
    if money is None:
        return Took(is_taken, answer[1], rooms, (), ())
    after = end + 2 * len(money.accounts)
    sums = [(answer[at], answer[at + 1]) for at in range(end, after, 2)]
    return Took(is_taken, answer[1], rooms, sums, [flag == 1 for flag in answer[after:]])


class Correction(NamedTuple):
    """A change of what was taken `at_us` of a limit: below 0 is given back, and slots only ever are."""

    kind: Kind
    key: bytes
    change: int
    at_us: int
    most: int
    length_us: int


def settle(session: str, corrections: Sequence[Correction]) -> Statement:
    """Correct what was taken of limits."""
    arguments: list[_Word] = [session]
    for kind, _, change, at_us, most, length_us in corrections:
        arguments += (kind, max(-MAX_AMOUNT, min(change, MAX_AMOUNT)), at_us, min(most, MAX_AMOUNT), length_us)
    return Statement(_SETTLE, [each.key for each in corrections], arguments)


class Session(NamedTuple):
    """Where a process stands: the server's clock, its memory of money, and the processes that live and have joined."""

    now_us: int
    epoch: str
    alive: frozenset[str]
    joined: frozenset[str]


def open_session(
    process: str, number: int, life_seconds: float, new_epoch: str, slots: Iterable[tuple[bytes, int]]
) -> Statement:
    """Begin the session of a process that has a number; those before it end.

    `slots` are what the process has in flight, by the key of the count. Answered as `session_of` reads it.
    """
    taken = list(slots)
    counts = [count for _, count in taken]
    arguments: list[_Word] = [b"open", session_name(process, number), _life(life_seconds), process, number]
    return Statement(_SESSION, [*_FLEET, *[key for key, _ in taken]], [*arguments, new_epoch, KEYS_TTL_MS, *counts])


def renew(process: str, number: int, life_seconds: float, new_epoch: str) -> Statement:
    """Go on with a session; answered as `session_of` reads it."""
    arguments: list[_Word] = [b"renew", session_name(process, number), _life(life_seconds), process, number]
    return Statement(_SESSION, _FLEET, [*arguments, new_epoch, KEYS_TTL_MS])


def close_session(process: str, number: int) -> Statement:
    """End a session, and its process with it."""
    return Statement(_SESSION, _FLEET, [b"close", session_name(process, number), 0, process])


def session_name(process: str, number: int) -> str:
    """Return what a session is called."""
    return f"{process}.{number}"


def session_of(answer: Sequence[Any]) -> Session:
    """Read the answer to `open_session` and `renew`. Raises `NoSession`."""
    check(answer)
    sessions = {name.decode().rpartition(".")[0] for name in answer[3]}
    return Session(answer[1], answer[2].decode(), frozenset(sessions), frozenset(name.decode() for name in answer[4]))


def _life(seconds: float) -> int:
    return round(seconds * 1_000_000)


def settle_money(epoch: str, call_id: str, cost: int, accounts: Sequence[tuple[str, int]]) -> Statement:
    """Turn a call's hold into what it cost; a second time is nothing."""
    return Statement(
        _MONEY,
        [_EPOCH, _JOINED, _key("hold", call_id), *_accounts(accounts)],
        [b"settle", epoch, call_id, min(cost, MAX_AMOUNT), *[ttl_ms for _, ttl_ms in accounts]],
    )


def tell_money(
    epoch: str, call_id: str, held: int | None, cost: int | None, accounts: Sequence[tuple[str, int]]
) -> Statement:
    """Tell a new epoch of a call: what is held for it, or else what it cost."""
    words: list[_Word] = [b"" if amount is None else min(amount, MAX_AMOUNT) for amount in (held, cost)]
    return Statement(
        _MONEY,
        [_EPOCH, _JOINED, _key("hold", call_id), *_accounts(accounts)],
        [b"tell", epoch, call_id, *words, HOLD_TTL_MS, *[ttl_ms for _, ttl_ms in accounts]],
    )


def join(epoch: str, process: str) -> Statement:
    """Say that a process has told a new epoch of all of its calls."""
    return Statement(_MONEY, [_EPOCH, _JOINED], [b"join", epoch, process, KEYS_TTL_MS])


def ask_accounts(epoch: str, accounts: Sequence[str]) -> Statement:
    """Ask which calls are remembered one by one; answered as `calls_of` reads it."""
    keys = _accounts([(name, 0) for name in accounts])
    return Statement(_MONEY, [_EPOCH, _JOINED, *keys], [b"ask", epoch])


def calls_of(answer: Sequence[Any], accounts: Sequence[str]) -> dict[str, list[str]]:
    """Return the ids of those calls by account, for the accounts that are not known yet. Raises `OtherEpoch`."""
    check(answer)
    pairs = zip(answer[1::2], answer[2::2], strict=True)
    return {
        name: [call_id.decode() for call_id in ids]
        for name, (is_known, ids) in zip(accounts, pairs, strict=True)
        if not is_known
    }


def load_account(epoch: str, account: tuple[str, int], spent: int, call_ids: Collection[str]) -> Statement:
    """Make an account known: `spent` is without these calls, which are all that are remembered of it.

    Answered as `check` reads it: 0 when somebody else was first; raises `UnknownAccounts` when there are more calls.
    """
    name, ttl_ms = account
    arguments: list[_Word] = [b"load", epoch, ttl_ms, min(spent, MAX_AMOUNT), *call_ids]
    return Statement(_MONEY, [_EPOCH, _JOINED, *_accounts([(name, ttl_ms)])], arguments)


def _accounts(accounts: Iterable[tuple[str, int]]) -> list[bytes]:
    return [key for name, _ in accounts for key in (_key("account", name), _key("calls", name))]
