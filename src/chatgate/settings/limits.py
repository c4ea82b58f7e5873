"""The limits: the file's `[[limits]]`, with the seed's four windows over them.

Owns which limits this version enforces; one that it does not is refused, never ignored. Called by `reading`.
"""

from __future__ import annotations

from chatgate.settings.document import Document
from chatgate.settings.entries import Item, read_items
from chatgate.settings.keys import LimitKeys, SeedKeys
from chatgate.settings.problems import Problems
from chatgate.settings.tree import LimitRule

_WINDOWS = ("second", "minute", "hour", "day", "week", "month")


def read_limits(document: Document, seed: SeedKeys, problems: Problems) -> tuple[LimitRule, ...]:
    """Return the limits on calls of one address, the shortest window first; unlimited windows are left out."""
    items = read_items(LimitKeys, document, ("limits",), problems)
    for item in items:
        _check(item, problems)
    _refuse_twins(items, problems)
    amounts: dict[str | None, int] = {item.keys.per: item.keys.amount for item in items}
    asked = {
        "second": seed.SECOND_LIMIT,
        "minute": seed.MINUTE_LIMIT,
        "hour": seed.HOUR_LIMIT,
        "day": seed.DAY_LIMIT,
    }
    amounts |= {window: amount for window, amount in asked.items() if amount is not None}
    return tuple(LimitRule(amounts[window], window) for window in _WINDOWS if amounts.get(window))


def _check(item: Item[LimitKeys], problems: Problems) -> None:
    keys = item.keys
    if keys.resource == "in_flight" and keys.per is not None:
        problems.add(item.place("per"), "must be absent for in_flight")
    if keys.resource != "in_flight" and keys.per is None:
        problems.add(item.place("per"), "is missing", f"one of {', '.join(_WINDOWS)}")
    if keys.amount and (keys.scope, keys.resource) != ("address", "requests"):
        problems.add(
            item.place(),
            f"limits {keys.resource} by {keys.scope}, which is not enforced yet by this version",
            'only scope = "address" with resource = "requests" is; remove the others',
        )


def _refuse_twins(items: list[Item[LimitKeys]], problems: Problems) -> None:
    seen: set[tuple[str, str, str | None]] = set()
    for item in items:
        same = (item.keys.scope, item.keys.resource, item.keys.per)
        if same in seen:
            problems.add(item.place(), "limits the same as an earlier one", "keep one of the two")
        seen.add(same)
