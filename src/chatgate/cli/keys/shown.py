"""A key as it is shown: in words, as a row of a table, and in JSON. Its secret is only shown by whoever made it."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from chatgate.protocols import key_document
from chatgate.vocabulary.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chatgate.vocabulary.keys import KeyBudget, KeyLimit, KeyRecord

_LABEL_CHARACTERS = 11
_WIDEST_CELL = 32
_HEADINGS = ("ID", "NAME", "OWNER", "STATE", "EXPIRES", "LIMITS", "BUDGET")


def as_object(record: KeyRecord, now: datetime, key: str | None = None) -> dict[str, Any]:
    """Return what there is to say about a key for JSON; `key` is its text, at the moment it is made."""
    told: dict[str, Any] = msgspec.to_builtins(key_document.shown(record, now, key))
    return told


def as_lines(record: KeyRecord, now: datetime) -> Iterator[str]:
    """Yield a key in words, a line for each thing that is set."""
    yield _line("name", record.name)
    yield _line("id", record.id)
    yield _line("key", f"{record.display} (the rest is not kept)")
    yield _line("state", record.state(now).value)
    if record.owner:
        yield _line("owner", record.owner)
    yield _line("made", _spoken(record.created_at))
    for label, at in (("rotated", record.rotated_at), ("expires", record.expires_at), ("revoked", record.revoked_at)):
        if at is not None:
            yield _line(label, _spoken(at))
    yield _line("models", ", ".join(record.allowed_models) or "all")
    yield _line("addresses", ", ".join(record.allowed_addresses) or "all")
    yield _line("limits", ", ".join(map(limit_text, record.limits)) or "none of its own")
    yield _line("budget", ", ".join(map(budget_text, record.budgets)) or "none")
    if record.language is not None:
        yield _line("language", record.language)
    for number, line in enumerate(record.notes.splitlines()):
        yield _line("" if number else "notes", line)


def as_table(records: Sequence[KeyRecord], now: datetime) -> Iterator[str]:
    """Yield a heading and a line for each key; what is too long for its column is cut."""
    rows = [_HEADINGS, *(_row(record, now) for record in records)]
    cells = [[_cut(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def limit_text(limit: KeyLimit) -> str:
    """Return a limit as the option spells it: `requests=100/minute`."""
    amount = format_usd(limit.amount) if limit.resource == "usd" else str(limit.amount)
    window = f"/{limit.per}" if limit.per else ""
    return f"{limit.resource}={amount}{window}{f':{limit.model}' if limit.model else ''}"


def budget_text(budget: KeyBudget) -> str:
    """Return a budget in words: `$5 per month`."""
    period = "ever" if budget.per == "ever" else f"per {budget.per}"
    warning = f", warned from {budget.warn_at_percent} % on" if budget.warn_at_percent is not None else ""
    return f"${format_usd(budget.amount_nano_usd)} {period}{warning}"


def _row(record: KeyRecord, now: datetime) -> tuple[str, ...]:
    return (
        record.id,
        record.name,
        record.owner or "-",
        record.state(now).value,
        "never" if record.expires_at is None else f"{record.expires_at.astimezone(UTC):%Y-%m-%d %H:%M}",
        ", ".join(map(limit_text, record.limits)) or "-",
        ", ".join(f"${format_usd(budget.amount_nano_usd)}/{budget.per}" for budget in record.budgets) or "-",
    )


def _line(label: str, text: str) -> str:
    return f"{label:<{_LABEL_CHARACTERS}}{text}".rstrip()


def _spoken(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a wide character, none for a mark on another."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _cut(text: str) -> str:
    """Return a text that takes no more columns than a cell has."""
    if _width(text) <= _WIDEST_CELL:
        return text
    while _width(text) >= _WIDEST_CELL:
        text = text[:-1]
    return f"{text}…"
