"""Values of another program's rows: SQLite keeps in a column whatever was written there.

Owns the step from such a value to a text or a number. Pure; used by `one_api` and `tokens`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chatgate.storage.foreign import Row


def text_of(row: Row, column: str) -> str:
    """Return a text without blanks around it; "" for what is missing or NULL."""
    value = row.get(column)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return "" if value is None else str(value).strip()


def texts_of(row: Row, column: str, separator: str) -> list[str]:
    """Return the parts of a text, in order, without those that are empty."""
    return [part.strip() for part in text_of(row, column).split(separator) if part.strip()]


def whole_of(row: Row, column: str, missing: int = 0) -> int:
    """Return a number without its decimals; `missing` for what is missing, NULL or no number."""
    value = row.get(column)
    try:
        return math.trunc(value if isinstance(value, int | float) else float(str(value)))
    except (ValueError, OverflowError):
        return missing


def is_set(row: Row, column: str) -> bool:
    """Tell whether a flag is set; SQLite has no flags, but 1, true and the like."""
    return text_of(row, column).lower() in {"1", "true", "t"}
