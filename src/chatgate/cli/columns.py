"""Columns of text in a terminal, where a Chinese character is twice as wide as a letter."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def padded(text: str, cells: int) -> str:
    """Return a text with blanks after it, so that it takes so many cells of a terminal."""
    return text + " " * (cells - width_of(text))


def width_of(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each row, its columns aligned."""
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
