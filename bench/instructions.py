"""Count the gateway's instructions per call with callgrind: a number that a noisy machine does not move.

User space only: the kernel's are not seen.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from bench.counting import FEW, MANY, CountError, count
from bench.parts import Bench
from bench.peers.peer import Peer
from bench.processes import Process

BASELINE = Path(__file__).with_name("baseline.json")
CALLGRIND: Final = ("valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file={out}")
"""A gateway's start is a hundred times the work of all its calls here, and need not be counted."""


def per_call(bench: Bench, peer: Peer) -> float:
    """Return the instructions of a call. Raises `CountError`; takes 5 to 15 s."""
    if shutil.which("valgrind") is None:
        raise CountError("valgrind is not installed (Debian: apt install valgrind)")
    few, many = (_counted(out) for out in count(bench, peer, "callgrind", CALLGRIND, _begin))
    return (many - few) / (MANY - FEW)


def _begin(process: Process) -> None:
    """Have callgrind count from here on. Raises `CountError`."""
    command = ("vgdb", f"--pid={process.pid}", "instrumentation", "on")
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        raise CountError(f"callgrind cannot be told to count: {error}") from error


def _counted(out: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.MULTILINE) if out.exists() else None
    if found is None:
        raise CountError("callgrind left no profile")
    return int(found[1])


def baseline() -> dict[str, Any]:
    """Return what was recorded: instructions per call by peer, and the Python they hold for."""
    recorded: dict[str, Any] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    return recorded


def record(counts: dict[str, float]) -> None:
    """Make these counts the ones that later ones are compared with."""
    per_call = {name: round(count) for name, count in counts.items()}
    told = {"python": platform.python_version(), "instructions_per_call": per_call}
    BASELINE.write_text(json.dumps(told, indent=1) + "\n")
