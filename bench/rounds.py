"""A whole run: every part of every peer, interleaved, in rounds; noted as it goes, so that it can be taken up again.

All peers run at once on the gateways' core, and all but the one under load are idle. Within a round every part goes
over all peers before the next part begins, and every other round goes over them backwards, so that what changes on the
machine changes for everyone.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from bench import parts
from bench.parts import Bench, Running, StartError, Values
from bench.peers import EVERYONE, LEFT_OUT
from bench.peers.peer import Peer, UnavailableError
from bench.processes import Cores
from bench.rig import Rig, RigError

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
CACHE = HERE / ".cache"
NOTES = CACHE / "run.jsonl"

Results = dict[str, Any]
"""What a run found, as it is written to results.json; see `gather`."""


class Part(NamedTuple):
    """A part of a round. `once` parts take long and are left to the first round."""

    name: str
    measure: Callable[[Bench, Running, list[Results]], Values]
    once: bool = False


def _known(samples: Sequence[Results], running: Running, part: str, value: str) -> float | None:
    """Return the last thing that was found of a peer."""
    found = [
        sample["values"].get(value)
        for sample in samples
        if (sample["peer"], sample["part"]) == (running.peer.name, part)
    ]
    return found[-1] if found else None


def _open(calls_per_second: int) -> Callable[[Bench, Running, list[Results]], Values]:
    def measure(bench: Bench, running: Running, samples: list[Results]) -> Values:
        capacity = _known(samples, running, "calls_64", "calls_per_second")
        return parts.open_loop(bench, running, calls_per_second, capacity)

    return measure


def _clean_streams(bench: Bench, running: Running, samples: list[Results]) -> Values:
    cost_us = _known(samples, running, "paced_streams", "gateway_cpu_us_per_event")
    guess = 1e6 / cost_us / parts.EVENTS_PER_SECOND if cost_us else None
    return parts.clean_streams(bench, running, guess)


PARTS = (
    Part("calls_1", lambda bench, running, _: parts.calls(bench, running, 1)),
    Part("calls_64", lambda bench, running, _: parts.calls(bench, running, 64)),
    Part("calls_512", lambda bench, running, _: parts.calls(bench, running, 512)),
    Part("open_500", _open(500)),
    Part("open_5000", _open(5000)),
    Part("first_event", lambda bench, running, _: parts.first_event(bench, running)),
    Part("paced_streams", lambda bench, running, _: parts.paced_streams(bench, running)),
    Part("fresh", lambda bench, running, _: parts.fresh(bench, running.peer)),
    Part("clean_streams", _clean_streams, once=True),
    Part("burst", lambda bench, running, _: parts.burst(bench, running), once=True),
)


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def say_loudly(line: str) -> None:
    """Print a line that nobody shall miss."""
    say(f"\n{'!' * 100}\n!! {line}\n{'!' * 100}\n")


def install(names: Sequence[str]) -> tuple[list[Peer], dict[str, str]]:
    """Install peers; return those that can be measured, and why the others cannot, by name."""
    ready: list[Peer] = []
    missing: dict[str, str] = {}
    for kind in EVERYONE:
        if kind.name in names:
            peer = kind(PEERS / kind.name)
            try:
                peer.install()
                ready.append(peer)
            except UnavailableError as error:
                missing[peer.name] = str(error)
                say_loudly(f"{peer.title} IS LEFT OUT: {error}")
    return ready, missing


def start_all(bench: Bench, peers: Sequence[Peer], stack: ExitStack) -> tuple[list[Running], dict[str, str]]:
    """Start peers, to be ended by `stack`; return those that answer, and why the others do not, by name."""
    running: list[Running] = []
    missing: dict[str, str] = {}
    for peer in peers:
        if peer.name == "direct":
            running.append(Running(peer, bench.rig.port, None))
            continue
        try:
            started, process, seconds = bench.start(peer)
        except (StartError, OSError) as error:
            missing[peer.name] = str(error)
            say_loudly(f"{peer.title} IS LEFT OUT: {error}")
            continue
        stack.enter_context(process)
        say(f"{peer.title} {peer.version()} answers after {seconds:.2f} s")
        running.append(started)
    return running, missing


def _machine(cores: Cores) -> dict[str, str | float]:
    """Return what the numbers depend on: the machine, its system, and what the rig was compiled with."""
    information = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in information if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=False).stdout.partition("\n")[
        0
    ]
    node = shutil.which("node")
    return {
        "processor": model,
        "cores": os.cpu_count() or 0,
        "gateway_core": cores.gateway,
        "rig_core": cores.rig,
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "node": subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
        if node
        else "–",
        "compiler": compiler,
        "load_average": round(os.getloadavg()[0], 2),
    }


def _schedule(rounds: int, running: Sequence[Running]) -> Iterator[tuple[int, Part, Running]]:
    for number in range(rounds):
        for part in PARTS:
            if part.once and number:
                continue
            for one in running if number % 2 == 0 else reversed(running):
                if not (part.name == "fresh" and one.process is None):
                    yield number, part, one


def _measure(bench: Bench, part: Part, running: Running, samples: list[Results]) -> Values:
    """Measure a part; a peer that fails there is noted, not hidden, and the run goes on."""
    try:
        values = part.measure(bench, running, samples)
    except (RigError, StartError, OSError) as error:
        say_loudly(f"{running.peer.title} failed at {part.name}: {error}")
        return {"note": f"failed: {str(error)[:200]}"}
    if values.get("failed"):
        say(f"   {running.peer.title}: {values['failed']} calls failed")
    return values


def _told(values: Values) -> str:
    """Return values in one line."""
    return "  ".join(
        f"{name} {value:,.5g}" if isinstance(value, float | int) else f"{name} {value or '–'}"
        for name, value in values.items()
    )


def remembered() -> list[Results]:
    """Return the samples of the run before."""
    return [json.loads(line) for line in NOTES.read_text().splitlines()] if NOTES.exists() else []


def gather(cores: Cores, names: Sequence[str], *, rounds: int, seconds: float, resume: bool) -> Results:
    """Run it all and return what was found: the machine, the peers, and every sample.

    `seconds` is how long most loads are measured. `resume` takes over the samples of a run that was interrupted. Raises
    `RigError` when the rig does not work.
    """
    machine = _machine(cores)
    peers, missing = install(names)
    CACHE.mkdir(parents=True, exist_ok=True)
    logs = CACHE / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    samples = remembered() if resume else []
    done = {(sample["round"], sample["part"], sample["peer"]) for sample in samples}
    began = time.monotonic()
    with ExitStack() as stack:
        rig = stack.enter_context(Rig(cores.rig, CACHE))
        bench = Bench(rig, cores.gateway, logs, seconds)
        running, not_started = start_all(bench, peers, stack)
        notes = stack.enter_context(NOTES.open("a" if resume else "w"))
        for number, part, one in _schedule(rounds, running):
            if (number, part.name, one.peer.name) in done:
                continue
            values = _measure(bench, part, one, samples)
            samples.append({"round": number, "part": part.name, "peer": one.peer.name, "values": values})
            notes.write(json.dumps(samples[-1]) + "\n")
            notes.flush()
            say(f"{time.monotonic() - began:5.0f} s  {number + 1}  {part.name:<14} {one.peer.name:<12} {_told(values)}")
    return {
        "taken": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": "python -m bench " + " ".join(sys.argv[1:]),
        "machine": machine,
        "rounds": rounds,
        "seconds": seconds,
        "resumed": bool(done),
        "took_minutes": round((time.monotonic() - began) / 60, 1),
        "peers": {
            one.peer.name: {
                "title": one.peer.title,
                "version": one.peer.version(),
                "setup": one.peer.setup,
                "installed_bytes": one.peer.installed_bytes(),
            }
            for one in running
        },
        "missing": missing | not_started,
        "left_out": LEFT_OUT,
        "samples": samples,
    }
