"""What was used, as a table that a person reads: aligned, summed up, and with bars where there is a terminal.

Pure: takes groups and a width, yields lines. Text that callers chose cannot move the cursor. Used by `usage`.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

from chatgate.cli.chat.printable import printable
from chatgate.vocabulary.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from chatgate.storage.usage import Grouping, Usage

_MAX_TEXT_WIDTH: Final = 40
_MIN_BAR_WIDTH: Final = 6
_MAX_BAR_WIDTH: Final = 40
_GAP: Final = "  "
_NONE: Final = {"key": "(no key)", "owner": "(nobody)", "model": "(none)", "upstream": "(none)", "day": ""}
_MIN_DECIMALS: Final = 2


def table(
    groupings: Sequence[Grouping], groups: Sequence[Usage], since: datetime | None, width: int | None, *, blocks: bool
) -> Iterator[str]:
    """Yield the lines; `width` is the terminal's, None when nobody is there to look at bars.

    Bars show cost, or calls when nothing cost anything. `blocks` says that bars may be made of `█`.
    """
    span = "" if since is None else f" since {since:%Y-%m-%d %H:%M} UTC"
    if not groups:
        yield f"no calls{span or ' yet'}"
        return
    decimals = max(_MIN_DECIMALS, *(_decimals(group.cost_nano_usd) for group in groups))
    decimals = max(decimals, _decimals(sum(group.cost_nano_usd for group in groups)))
    lines = [
        [*groupings, "calls", "input tokens", "output tokens", "cost in $"],
        *([*_names(groupings, group), *_numbers(group, decimals)] for group in groups),
        _total(groupings, groups, decimals),
    ]
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    shown = [_GAP.join(_cells(line, widths, len(groupings))) for line in lines]
    bars = _bars(groups, 0 if width is None else width - width_of(shown[0]) - len(_GAP) - 1, "█" if blocks else "#")
    yield shown[0]
    for line, bar in zip(shown[1:-1], bars, strict=True):
        yield f"{line}{_GAP}{bar}".rstrip()
    if groupings:
        yield shown[-1]
    if unknown := sum(group.unknown_calls for group in groups):
        most = format_usd(sum(group.unknown_nano_usd for group in groups))
        calls = "1 call was" if unknown == 1 else f"{unknown} calls were"
        yield f"{calls} interrupted and counted at the most that can have been spent: ${most}"
    if own := sum(group.own_key_calls for group in groups):
        theirs = format_usd(sum(group.own_key_nano_usd for group in groups))
        calls = "1 call was" if own == 1 else f"{own} calls were"
        yield f"{calls} made with their callers' own keys of the provider, who sends them the bill: ${theirs}"
    if span:
        yield f"calls{span}"


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for most East Asian signs, none for what combines."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )


def _names(groupings: Sequence[Grouping], group: Usage) -> Iterator[str]:
    for grouping, value in zip(groupings, group.group, strict=True):
        name = (group.key_name or value) if grouping == "key" else value
        yield _cut(printable(name).replace("\n", " ").replace("\t", " ")) or _NONE[grouping]


def _cut(text: str) -> str:
    if width_of(text) <= _MAX_TEXT_WIDTH:
        return text
    while width_of(text) >= _MAX_TEXT_WIDTH:
        text = text[:-1]
    return f"{text}…"


def _numbers(group: Usage, decimals: int) -> tuple[str, str, str, str]:
    return (
        f"{group.calls:,}",
        f"{group.input_tokens:,}",
        f"{group.output_tokens:,}",
        _dollars(group.cost_nano_usd, decimals),
    )


def _total(groupings: Sequence[Grouping], groups: Sequence[Usage], decimals: int) -> list[str]:
    return [
        *("total", *[""] * len(groupings))[: len(groupings)],
        f"{sum(group.calls for group in groups):,}",
        f"{sum(group.input_tokens for group in groups):,}",
        f"{sum(group.output_tokens for group in groups):,}",
        _dollars(sum(group.cost_nano_usd for group in groups), decimals),
    ]


def _decimals(nano_usd: int) -> int:
    return len(format_usd(nano_usd).partition(".")[2])


def _dollars(nano_usd: int, decimals: int) -> str:
    """Return an amount exactly, with zeros at its end so that the points stand below each other."""
    dollars, _, fraction = format_usd(nano_usd).partition(".")
    return f"{int(dollars):,}.{fraction:0<{decimals}}"


def _cells(line: Sequence[str], widths: Sequence[int], texts: int) -> Iterator[str]:
    for place, (cell, width) in enumerate(zip(line, widths, strict=True)):
        space = " " * (width - width_of(cell))
        yield cell + space if place < texts else space + cell


def _bars(groups: Sequence[Usage], room: int, sign: str) -> Iterator[str]:
    """Yield a bar for each group; none are drawn where there is no room for them."""
    sizes = [group.cost_nano_usd for group in groups]
    if not any(sizes):
        sizes = [group.calls for group in groups]
    longest = min(room, _MAX_BAR_WIDTH) if room >= _MIN_BAR_WIDTH else 0
    for size in sizes:
        length = round(longest * size / max(sizes))
        yield sign * (max(length, 1) if size and longest else length)
