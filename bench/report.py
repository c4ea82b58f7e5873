"""What a run says: the middle of each number over the rounds, with the lowest and the highest beside it, and the table.

`METRICS` lists every number that is shown, once, for the terminal, the page and the charts.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

Results = dict[str, Any]
"""As `rounds.gather` returns it."""


class Spread(NamedTuple):
    """A number over several rounds."""

    median: float
    lowest: float
    highest: float


class Metric(NamedTuple):
    """A number that is shown: `value` of `part`, divided by `scale`; `added` shows what exceeds that of `direct`."""

    name: str
    heading: str
    part: str
    value: str
    digits: int = 0
    scale: float = 1.0
    added: bool = False


CALLS = (
    Metric("cpu_per_call", "CPU µs per call", "calls_64", "gateway_cpu_us_per_call", 1),
    Metric("calls_1", "calls/s @1", "calls_1", "calls_per_second"),
    Metric("calls_64", "calls/s @64", "calls_64", "calls_per_second"),
    Metric("calls_512", "calls/s @512", "calls_512", "calls_per_second"),
    Metric("added_p50", "added p50 @1, ms", "calls_1", "latency_us_p50", 3, 1000, added=True),
    Metric("p99_1", "p99 @1, ms", "calls_1", "latency_us_p99", 2, 1000),
    Metric("p50_64", "p50 @64, ms", "calls_64", "latency_us_p50", 2, 1000),
    Metric("p99_64", "p99 @64, ms", "calls_64", "latency_us_p99", 2, 1000),
    Metric("p50_512", "p50 @512, ms", "calls_512", "latency_us_p50", 1, 1000),
    Metric("p99_512", "p99 @512, ms", "calls_512", "latency_us_p99", 1, 1000),
)
OPEN_LOOP = (
    Metric("open_500_p50", "p50 at 500/s, ms", "open_500", "latency_us_p50", 2, 1000),
    Metric("open_500_p99", "p99 at 500/s, ms", "open_500", "latency_us_p99", 2, 1000),
    Metric("open_5000_p50", "p50 at 5 000/s, ms", "open_5000", "latency_us_p50", 2, 1000),
    Metric("open_5000_p99", "p99 at 5 000/s, ms", "open_5000", "latency_us_p99", 2, 1000),
)
STREAMS = (
    Metric("cpu_per_event", "CPU µs per event", "paced_streams", "gateway_cpu_us_per_event", 1),
    Metric("clean_streams", "clean streams", "clean_streams", "clean_streams"),
    Metric("events_per_second", "events/s, unpaced", "burst", "events_per_second"),
    Metric("added_first_event", "first event later by, ms", "first_event", "first_event_us_p50", 3, 1000, added=True),
    Metric("event_delay_p50", "event delay p50, ms", "paced_streams", "event_delay_us_p50", 2, 1000),
    Metric("event_delay_p99", "event delay p99, ms", "paced_streams", "event_delay_us_p99", 2, 1000),
    Metric("idle_stream", "KiB per idle stream", "fresh", "kib_per_idle_stream", 1),
)
FOOTPRINT = (
    Metric("start", "start, s", "fresh", "start_seconds", 2),
    Metric("memory", "memory, MiB", "fresh", "memory_mib"),
)
METRICS = (*CALLS, *OPEN_LOOP, *STREAMS, *FOOTPRINT)


def _values(results: Results, peer: str, part: str, value: str) -> dict[int, float]:
    """Return what the rounds found, by round."""
    return {
        sample["round"]: sample["values"][value]
        for sample in results["samples"]
        if sample["peer"] == peer and sample["part"] == part and sample["values"].get(value) is not None
    }


def spread(results: Results, peer: str, metric: Metric) -> Spread | None:
    """Return a number of a peer; None where it was not measured.

    What is added to a direct call is taken within each round, so that a noisy one does not count against anyone.
    """
    found = _values(results, peer, metric.part, metric.value)
    if metric.added:
        direct = _values(results, "direct", metric.part, metric.value)
        found = {number: value - direct[number] for number, value in found.items() if number in direct}
        if peer == "direct":
            return None
    if not found:
        return None
    values = [value / metric.scale for value in found.values()]
    return Spread(statistics.median(values), min(values), max(values))


def note(results: Results, peer: str, part: str) -> str | None:
    """Return why a part of a peer has no number, where it says so."""
    notes = [s["values"].get("note") for s in results["samples"] if (s["peer"], s["part"]) == (peer, part)]
    return next((text for text in notes if text), None)


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace(",", " ")


def cell(results: Results, peer: str, metric: Metric) -> str:
    """Return a number as the table shows it, with its spread where it has one."""
    found = spread(results, peer, metric)
    if found is None:
        return note(results, peer, metric.part) or "–"
    middle, lowest, highest = (_number(value, metric.digits) for value in found)
    return middle if lowest == highest else f"{middle} ({lowest}–{highest})"


def rows(results: Results, metrics: Sequence[Metric]) -> Iterator[list[str]]:
    """Yield the headings, then a row per peer."""
    yield ["", *(metric.heading for metric in metrics)]
    for peer, told in results["peers"].items():
        yield [told["title"], *(cell(results, peer, metric) for metric in metrics)]


def footprint_rows(results: Results) -> Iterator[list[str]]:
    """Yield what the peers weigh, with their versions."""
    yield ["", "version", *(metric.heading for metric in FOOTPRINT), "installed, MiB"]
    for peer, told in results["peers"].items():
        if peer != "direct":
            size = _number(told["installed_bytes"] / 2**20, 1)
            yield [told["title"], told["version"], *(cell(results, peer, metric) for metric in FOOTPRINT), size]


def table(lines: Iterator[list[str]]) -> str:
    """Return rows as a Markdown table, its columns aligned for those who read it as text."""
    cells = list(lines)
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(cells[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    text = []
    for row in (cells[0], rule, *cells[1:]):
        padded = [
            row[0].ljust(widths[0]),
            *(value.rjust(width) for value, width in zip(row[1:], widths[1:], strict=True)),
        ]
        text.append("| " + " | ".join(padded) + " |")
    return "\n".join(text) + "\n"


def tables(results: Results) -> str:
    """Return everything, as text for the terminal and for results.md."""
    machine = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in results["machine"].items())
    missing = "".join(f"LEFT OUT: {peer}: {reason}\n" for peer, reason in results["missing"].items())
    taken = f"Taken {results['taken']}, {results['rounds']} rounds, {results['took_minutes']} minutes."
    sections = (
        f"{taken}\n{machine}\n{missing}",
        table(rows(results, CALLS)),
        table(rows(results, OPEN_LOOP)),
        table(rows(results, STREAMS)),
        table(footprint_rows(results)),
    )
    return "\n".join(sections)


def rig_capacity(results: Results) -> tuple[float, float] | None:
    """Return what the rig takes per call and per paced event, in µs of its core; None when it was not measured."""
    rig = [
        _values(results, "direct", part, value).values()
        for part, value in (("calls_64", "rig_cpu_us_per_call"), ("paced_streams", "rig_cpu_us_per_event"))
    ]
    return None if not all(rig) else (statistics.median(rig[0]), statistics.median(rig[1]))
