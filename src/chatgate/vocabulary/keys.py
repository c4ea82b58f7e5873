"""What is known of a key of the gateway, and what it may be.

Owns the nouns and their bounds; does no I/O. The storage keeps them, the commands and the admin API make and show them,
the guards read them. The secret is not among them, and neither is its digest.
"""

from __future__ import annotations

import enum
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct, UnsetType

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAME_CHARACTERS = 200
MAX_OWNER_CHARACTERS = 200
MAX_NOTES_CHARACTERS = 2000
MAX_LANGUAGE_CHARACTERS = 35
MAX_ITEMS = 100
"""Model patterns, addresses, limits and budgets of one key, of each."""
MAX_PATTERN_CHARACTERS = 256
MAX_ADDRESS_CHARACTERS = 64
MAX_AMOUNT = 2**63 - 1
MAX_COUNT = 10**12
"""The highest limit on what is counted, money aside."""
_MAX_WORD_CHARACTERS = 32
_FIRST_TIME = datetime(1970, 1, 1, tzinfo=UTC)

_NOT_IN_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NOT_IN_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, NUL among them, which PostgreSQL cannot store; marks that make a name read as another; half characters."""


class InvalidField(Exception):  # noqa: N818 - what is wrong is the name
    """A field holds what it cannot: `problem` is `empty`, `too_long`, `too_many`, `unprintable` or `out_of_range`."""

    def __init__(self, field: str, problem: str) -> None:
        """Keep which and why, never the value."""
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class KeyState(enum.StrEnum):
    """Whether a key opens anything, and if not, why."""

    ACTIVE = "active"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REVOKED = "revoked"


class KeyLimit(Struct, frozen=True):
    """At most `amount` of a resource per window; money in nano-USD. `per` is None for what has no window.

    `model` is a pattern of model names that it holds for; None means each call of the key.
    """

    resource: str
    amount: int
    per: str | None = None
    model: str | None = None


class KeyBudget(Struct, frozen=True):
    """At most so much money per day, week, month or `ever`; from `warn_at_percent` of it on, callers are warned."""

    amount_nano_usd: int
    per: str
    warn_at_percent: int | None = None


class NewKey(Struct, frozen=True):
    """A key to be made. `owner` is "" when nobody owns it, `expires_at` an aware time or None for never.

    Empty `allowed_models` and `allowed_addresses` allow all. `language` is a locale's name, None for the gateway's.
    """

    name: str
    owner: str = ""
    enabled: bool = True
    expires_at: datetime | None = None
    allowed_models: tuple[str, ...] = ()
    allowed_addresses: tuple[str, ...] = ()
    limits: tuple[KeyLimit, ...] = ()
    budgets: tuple[KeyBudget, ...] = ()
    language: str | None = None
    notes: str = ""


class KeyChanges(Struct, frozen=True):
    """What is to change of a key; fields left out stay as they are. The meanings are those of `NewKey`."""

    name: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    allowed_models: tuple[str, ...] | UnsetType = UNSET
    allowed_addresses: tuple[str, ...] | UnsetType = UNSET
    limits: tuple[KeyLimit, ...] | UnsetType = UNSET
    budgets: tuple[KeyBudget, ...] | UnsetType = UNSET
    language: str | UnsetType | None = UNSET
    notes: str | UnsetType = UNSET


class KeyRecord(Struct, frozen=True):
    """A key as it is stored; fields as in `NewKey`.

    `display` is what may be shown of it. `rotated_at` is when it last got a new secret. `version` begins with 1 and
    grows with every change, for `If-Match`.
    """

    id: str
    name: str
    owner: str
    display: str
    enabled: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    rotated_at: datetime | None
    allowed_models: tuple[str, ...]
    allowed_addresses: tuple[str, ...]
    limits: tuple[KeyLimit, ...]
    budgets: tuple[KeyBudget, ...]
    language: str | None
    notes: str
    version: int

    def state(self, now: datetime) -> KeyState:
        """Tell whether the key opens anything at a moment. One that expires at that very moment is expired."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return KeyState.EXPIRED
        return KeyState.ACTIVE if self.enabled else KeyState.DISABLED


def check(key: NewKey | KeyChanges) -> None:
    """Raise `InvalidField` for the first field that no key can have. What is UNSET is not looked at."""
    _check_text("name", key.name, MAX_NAME_CHARACTERS, empty=False)
    _check_text("owner", key.owner, MAX_OWNER_CHARACTERS)
    _check_text("notes", key.notes, MAX_NOTES_CHARACTERS, lines=True)
    _check_text("language", key.language, MAX_LANGUAGE_CHARACTERS, empty=False)
    _check_texts("allowed_models", key.allowed_models, MAX_PATTERN_CHARACTERS)
    _check_texts("allowed_addresses", key.allowed_addresses, MAX_ADDRESS_CHARACTERS)
    if isinstance(key.expires_at, datetime) and not _is_storable(key.expires_at):
        raise InvalidField("expires_at", "out_of_range")
    if key.limits is not UNSET:
        _check_count("limits", key.limits)
        for limit in key.limits:
            _check_text("limits.resource", limit.resource, _MAX_WORD_CHARACTERS, empty=False)
            _check_amount("limits.amount", limit.amount)
            _check_text("limits.per", limit.per, _MAX_WORD_CHARACTERS, empty=False)
            _check_text("limits.model", limit.model, MAX_PATTERN_CHARACTERS, empty=False)
    if key.budgets is not UNSET:
        _check_count("budgets", key.budgets)
        for budget in key.budgets:
            _check_amount("budgets.amount_nano_usd", budget.amount_nano_usd)
            _check_text("budgets.per", budget.per, _MAX_WORD_CHARACTERS, empty=False)
            _check_amount("budgets.warn_at_percent", budget.warn_at_percent, 100)


def _is_storable(at: datetime) -> bool:
    """Tell whether a time is aware, and one that UTC has too: at its two ends the calendar is shorter there."""
    try:
        return at.tzinfo is not None and at.astimezone(UTC) >= _FIRST_TIME
    except OverflowError:
        return False


def _check_text(
    field: str, text: str | UnsetType | None, characters: int, *, empty: bool = True, lines: bool = False
) -> None:
    """Hold a text to its bounds; only `lines` may hold line ends and tabs."""
    if text is UNSET or text is None:
        return
    if not text and not empty:
        raise InvalidField(field, "empty")
    if len(text) > characters:
        raise InvalidField(field, "too_long")
    if (_NOT_IN_TEXT if lines else _NOT_IN_LINE).search(text):
        raise InvalidField(field, "unprintable")


def _check_texts(field: str, texts: tuple[str, ...] | UnsetType, characters: int) -> None:
    if texts is not UNSET:
        _check_count(field, texts)
        for text in texts:
            _check_text(field, text, characters, empty=False)


def _check_count(field: str, items: Sequence[object]) -> None:
    if len(items) > MAX_ITEMS:
        raise InvalidField(field, "too_many")


def _check_amount(field: str, amount: int | None, highest: int = MAX_AMOUNT) -> None:
    if amount is not None and not 0 <= amount <= highest:
        raise InvalidField(field, "out_of_range")
