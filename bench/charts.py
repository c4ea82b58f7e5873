"""Bar charts as SVG, written by hand: a bar per peer, on a scale of powers of ten, with the spread over the rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

from bench.report import Spread

LABELS: Final = 170
WIDTH: Final = 760
BAR: Final = 18
GAP: Final = 10
TOP: Final = 64
VALUES: Final = 90
HIGHLIGHTED: Final = "#1a73e8"
PLAIN: Final = "#9aa5b1"
INK: Final = "#1f2933"
FAINT: Final = "#e4e7eb"


class Bar(NamedTuple):
    """A bar: a highlighted one is the gateway's; one without a number says why in `note`."""

    label: str
    spread: Spread | None
    highlighted: bool = False
    note: str = "not measured"


def _shown(value: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    text = f"{value:,.{min(digits, 3)}f}".replace(",", " ")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _text(x: float, y: float, text: str, **attributes: str) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(text)}</text>'


def bar_chart(title: str, subtitle: str, bars: Sequence[Bar]) -> str:
    """Return a chart as the text of an SVG file.

    The scale is logarithmic, since peers differ by factors of hundreds; a number at or below zero has a bar of no
    length.
    """
    numbers = [edge for bar in bars if bar.spread for edge in bar.spread if edge > 0]
    first = math.floor(math.log10(min(numbers))) if numbers else 0
    last = max(first + 1, math.ceil(math.log10(max(numbers)))) if numbers else 1
    height = TOP + len(bars) * (BAR + GAP) + 28

    def at(value: float) -> float:
        share = (math.log10(value) - first) / (last - first) if value > 0 else 0.0
        return LABELS + max(0.0, share) * (WIDTH - LABELS - VALUES)

    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    font = f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(12, 24, title, font_size="16", font_weight="600"),
        _text(12, 44, f"{subtitle} · logarithmic scale", fill="#616e7c"),
    ]
    for power in range(first, last + 1):
        x = at(10.0**power)
        parts.append(f'<path d="M{x:.1f} {TOP - 6}V{height - 24}" stroke="{FAINT}"/>')
        parts.append(_text(x, height - 8, _shown(10.0**power), text_anchor="middle", fill="#616e7c", font_size="11"))
    for number, bar in enumerate(bars):
        y = TOP + number * (BAR + GAP)
        weight = "600" if bar.highlighted else "400"
        parts.append(_text(LABELS - 8, y + 13, bar.label, text_anchor="end", font_weight=weight))
        if bar.spread is None:
            parts.append(_text(LABELS + 6, y + 13, bar.note, fill="#616e7c", font_style="italic"))
            continue
        end, low, high = (at(edge) for edge in bar.spread)
        colour = HIGHLIGHTED if bar.highlighted else PLAIN
        parts.append(f'<rect x="{LABELS}" y="{y}" width="{end - LABELS:.1f}" height="{BAR}" fill="{colour}"/>')
        parts.append(f'<path d="M{low:.1f} {y + BAR / 2}H{high:.1f}" stroke="{INK}" stroke-width="1.5"/>')
        parts.append(_text(max(end, high) + 6, y + 13, _shown(bar.spread.median), font_weight=weight))
    return "\n".join([*parts, "</svg>"]) + "\n"
