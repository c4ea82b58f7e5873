"""Where the work of a call goes: the bytecodes that Python executes for it, by the part of the program they are in.

A profile that no other load on the machine moves, and that sampling does not blur: counted one by one, for calls that
come one after the other. What the interpreter calls is not seen: JSON, the loop, SQLite and the kernel have their own
times.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.counting import FEW, MANY, CountError, count
from bench.parts import Bench
from bench.peers.chatgate import Chatgate
from bench.processes import Cores
from bench.report import table
from bench.rig import Rig
from bench.rounds import CACHE

AROUND: Final = (sys.executable, "-m", "bench.traced", "{out}")

PARTS: Final = {
    "server": "reading the request, writing the answer",
    "endpoints.py": "which endpoint, and who asks",
    "admitting.py": "who asks, and whether they may",
    "admission": "the limits",
    "counters": "the limits",
    "protocols": "reading and checking the bodies, what the answer used",
    "routing": "choosing the target",
    "attempts": "the try and what it came to",
    "providers": "the request to the provider",
    "transport": "the connection to the provider",
    "pipeline.py": "the order of the stages",
    "refusals.py": "the lines with the call's id",
    "accounting": "the record: its price, the journal",
    "storage": "taking the record to the database, in a thread of its own",
    "telemetry": "metrics and the log's line",
}
"""What the parts do for a call; two that do one thing are counted together."""

FUNCTIONS: Final = 12
"""So many functions are named, those with the most bytecodes."""

Counted = dict[str, Any]


def measure(cores: Cores) -> Counted:
    """Count; takes half a minute. Raises `CountError`."""
    logs = CACHE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with Rig(cores.rig, CACHE) as rig:
        few, many = count(Bench(rig, cores.gateway, logs, 1.0), Chatgate(CACHE / "peers"), "traced", AROUND)
    return counted(few, many)


def counted(few: Path, many: Path) -> Counted:
    """Return, per call, the number of functions and of bytecodes, by function: `[calls, bytecodes]`."""
    try:
        less, more = json.loads(few.read_text()), json.loads(many.read_text())
    except (OSError, ValueError) as error:
        raise CountError(f"the traced gateway left no counts: {error}") from error
    calls = MANY - FEW
    return {
        name: [round((now - before) / calls, 2) for now, before in zip(more[name], less.get(name, (0, 0)), strict=True)]
        for name in more
    }


def text(functions: Counted) -> str:
    """Return the section of the page, which is also what is printed."""
    return (
        "## Where the work of a call goes\n\n"
        "Counted, not timed, so that no other load moves it: bytecodes of the gateway's own Python per call, one\n"
        "caller, and how often its functions are entered.\n\n"
        f"{table(_rows(functions))}\n{table(_dearest(functions))}"
    )


def _rows(functions: Counted) -> Iterator[list[str]]:
    entered: Counter[str] = Counter()
    bytecodes: Counter[str] = Counter()
    for name, (calls, codes) in functions.items():
        part = name.partition("/" if "/" in name.partition(":")[0] else ":")[0]
        does = PARTS.get(part, "everything else")
        entered[does] += calls
        bytecodes[does] += codes
    whole = sum(bytecodes.values())
    yield ["what for", "functions", "bytecodes", "share"]
    for does, codes in bytecodes.most_common():
        yield [does, f"{entered[does]:.0f}", f"{codes:,.0f}", f"{100 * codes / whole:.0f} %"]
    yield ["together", f"{sum(entered.values()):.0f}", f"{whole:,.0f}", ""]


def _dearest(functions: Counted) -> Iterator[list[str]]:
    yield ["the dearest functions", "bytecodes"]
    for name, (_, codes) in sorted(functions.items(), key=lambda each: -each[1][1])[:FUNCTIONS]:
        yield [f"`{name}`", f"{codes:.0f}"]
