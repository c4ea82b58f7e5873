"""The prices that an operator states, exact to the last digit. Called by `reading`."""

from __future__ import annotations

import re
from decimal import Decimal

from chatgate.settings.document import Document
from chatgate.settings.entries import Item, read_items
from chatgate.settings.keys import PriceKeys
from chatgate.settings.problems import Problems
from chatgate.settings.tree import Price

# Nine digits after the point are one nano-dollar.
_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z")


def read_prices(document: Document, problems: Problems) -> tuple[Price, ...]:
    """Return `[[prices]]` in the order of the file."""
    items = read_items(PriceKeys, document, ("prices",), problems)
    seen: set[str] = set()
    for item in items:
        if item.keys.model in seen:
            problems.add(item.place("model"), "has another price above")
        seen.add(item.keys.model)
    return tuple(
        Price(
            item.keys.model,
            _amount(item, "input_usd_per_million", item.keys.input_usd_per_million, problems),
            _amount(item, "output_usd_per_million", item.keys.output_usd_per_million, problems),
        )
        for item in items
    )


def _amount(item: Item[PriceKeys], key: str, amount: str | int, problems: Problems) -> Decimal:
    if _AMOUNT.match(str(amount)):
        return Decimal(amount)
    problems.add(item.place(key), "must be an amount of dollars of at most 9 digits on each side of the point")
    return Decimal(0)
