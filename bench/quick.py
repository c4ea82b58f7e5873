"""The regression guard: in under a minute, what a call and an event cost next to the bare relay and to nginx.

Times are told and never judged: they depend on the machine. Instructions per call are compared with those on record.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from bench import instructions, parts
from bench.counting import CountError
from bench.parts import Bench, Running
from bench.processes import Cores
from bench.report import table
from bench.rig import Rig
from bench.rounds import CACHE, install, say, say_loudly, start_all

PEERS: Final = ("nginx", "relay", "chatgate")
ROUNDS: Final = 3
SECONDS: Final = 0.5

Costs = dict[str, list[float]]
"""By peer, one number per round."""


def _costs(bench: Bench, running: Sequence[Running]) -> tuple[Costs, Costs]:
    """Return the processor time per call and per event, in µs."""
    per_call: Costs = {one.peer.name: [] for one in running}
    per_event: Costs = {one.peer.name: [] for one in running}
    for number in range(ROUNDS):
        order = running if number % 2 == 0 else running[::-1]
        for one in order:
            per_call[one.peer.name].append(float(parts.calls(bench, one, 64)["gateway_cpu_us_per_call"] or 0))
        for one in order:
            per_event[one.peer.name].append(float(parts.paced_streams(bench, one)["gateway_cpu_us_per_event"] or 0))
    return per_call, per_event


def _ratio(costs: Costs, other: str) -> str:
    """Return the gateway's cost as a multiple of another's, each round compared with itself."""
    if not costs.get(other) or not costs.get("chatgate"):
        return "–"
    ratios = [ours / theirs for ours, theirs in zip(costs["chatgate"], costs[other], strict=True) if theirs]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "–"


def _rows(per_call: Costs, per_event: Costs) -> list[list[str]]:
    def told(costs: list[float]) -> str:
        return f"{statistics.median(costs):.1f} ({min(costs):.1f}–{max(costs):.1f})"

    rows = [["CPU µs", "per call", "per event"]]
    rows += [[name, told(per_call[name]), told(per_event[name])] for name in per_call]
    rows += [[f"chatgate / {name}", _ratio(per_call, name), _ratio(per_event, name)] for name in ("relay", "nginx")]
    return rows


def _instructions(bench: Bench, running: Sequence[Running], *, record: bool) -> None:
    counts: dict[str, float] = {}
    try:
        for one in running:
            if one.peer.name in {"relay", "chatgate"}:
                counts[one.peer.name] = instructions.per_call(bench, one.peer)
    except CountError as error:
        say_loudly(f"INSTRUCTIONS ARE NOT COUNTED: {error}")
        return
    recorded = instructions.baseline()
    before = recorded.get("instructions_per_call", {})
    rows = [["instructions per call", "now", "on record", "now / on record"]]
    for name, count in counts.items():
        old = before.get(name)
        rows.append([name, f"{count:,.0f}", f"{old:,.0f}" if old else "–", f"{count / old:.3f}" if old else "–"])
    say(table(iter(rows)))
    if "relay" in counts and "chatgate" in counts:
        say(f"chatgate / relay: {counts['chatgate'] / counts['relay']:.2f} in instructions (user space only)")
    if recorded and recorded["python"] != platform.python_version():
        say(f"The record is of Python {recorded['python']}, this is {platform.python_version()}: compare with care.")
    if record:
        instructions.record(counts)
        say("These counts are on record now, in bench/baseline.json.")


def run(cores: Cores, *, record: bool) -> None:
    """Measure and print. `record` makes the instructions counted now the ones to compare with. Raises `RigError`."""
    began = time.monotonic()
    logs = CACHE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    peers, _ = install(PEERS)
    with Rig(cores.rig, CACHE) as rig:
        bench = Bench(rig, cores.gateway, logs, SECONDS)
        with ExitStack() as stack:
            running, _ = start_all(bench, peers, stack)
            per_call, per_event = _costs(bench, running)
        say("\n" + table(iter(_rows(per_call, per_event))))
        _instructions(bench, running, record=record)
    say(f"{time.monotonic() - began:.0f} s")
