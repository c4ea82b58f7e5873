"""Money: integers of nano-USD inside, exact decimal strings outside; never a float."""

from __future__ import annotations

import re
from typing import Final

NANO_PER_USD: Final = 1_000_000_000

MAX_NANO_USD: Final = 2**63 - 1
"""What a 64-bit column holds, about nine thousand million dollars; no single amount is larger."""

_AMOUNT = re.compile(r"(-?)([0-9]{1,30})(?:\.([0-9]{1,9}))?")


def parse_usd(text: str) -> int:
    """Return the nano-USD of an amount such as `5`, `0.25` or `-0.000000001`.

    Raises ValueError for anything else: other signs, exponents, digits of other scripts, more than nine decimals.
    """
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise ValueError("not an amount of dollars with at most nine decimals")
    sign, dollars, decimals = found.groups(default="")
    nano = int(dollars) * NANO_PER_USD + int(decimals.ljust(9, "0"))
    return -nano if sign else nano


def format_usd(nano_usd: int) -> str:
    """Return an amount in dollars, exactly and without needless zeros: `0.25`, `-3`, `0.000000001`."""
    dollars, nano = divmod(abs(nano_usd), NANO_PER_USD)
    decimals = f".{nano:09d}".rstrip("0") if nano else ""
    return f"{'-' if nano_usd < 0 else ''}{dollars}{decimals}"
