"""Count the gateway's instructions per call with callgrind: a number that a noisy machine does not move.

A process under callgrind answers a fixed number of calls, one after the other; its instructions from start to end, less
those of a second process that answered fewer, are those of the difference. User space only: the kernel's are not seen.
Both run at once, each on a core. Nothing here measures time.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import socket
import time
from pathlib import Path
from typing import Any, Final

from bench.parts import Bench, Running
from bench.peers.peer import Peer
from bench.processes import Process
from bench.rig import body, free_port

BASELINE = Path(__file__).with_name("baseline.json")
FEW: Final = 50
MANY: Final = 300
START_SECONDS: Final = 120.0
WRITE_SECONDS: Final = 8.0
"""How long a process may take to stop and write its profile."""


class CountError(Exception):
    """Instructions cannot be counted here; `str()` says why."""


def _start(bench: Bench, peer: Peer, core: int, out: Path) -> Running:
    port = free_port()
    # In a data directory that others use too, each would do some of the others' work.
    peer = type(peer)(bench.folder / f"{out.name}-peer")
    valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}"]
    # Python's dictionaries are laid out by its hash seed, which would be another one in each process.
    environment = {**peer.environment(bench.rig.port), "PYTHONHASHSEED": "0"}
    process = Process(
        [*valgrind, *peer.command(port, bench.rig.port)],
        core=core,
        log=bench.folder / f"{out.name}.log",
        more_environment=environment,
    )
    return Running(peer, port, process)


def _wait(bench: Bench, running: Running) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while not bench.answers(running):
        if time.monotonic() > give_up_at or (running.process and not running.process.is_running):
            words = running.process.last_words() if running.process else ""
            raise CountError(f"{running.peer.name} does not start under callgrind: {words}")
        time.sleep(0.1)


def _call(bench: Bench, running: Running, times: int) -> None:
    """Call over one connection, each call in one write. Raises `CountError` for a bad answer."""
    asked = body(running.peer.model, stream=False)
    headers = "".join(f"{name}: {value}\r\n" for name, value in running.peer.headers(bench.rig.port).items())
    head = f"POST {running.peer.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(asked)}\r\n\r\n".encode() + asked
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        for _ in range(times):
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"}"):
                piece = connection.recv(65536)
                if not piece:
                    raise CountError(f"{running.peer.name} hung up: {answer[:200]!r}")
                answer += piece
            if not answer.startswith(b"HTTP/1.1 200"):
                raise CountError(f"{running.peer.name} answered {answer[:200]!r}")


def _counted(out: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.MULTILINE) if out.exists() else None
    if found is None:
        raise CountError("callgrind left no profile")
    return int(found[1])


def per_call(bench: Bench, peer: Peer) -> float:
    """Return the instructions of a call. Raises `CountError`; takes 10 to 20 s."""
    if shutil.which("valgrind") is None:
        raise CountError("valgrind is not installed (Debian: apt install valgrind)")
    outs = {times: bench.folder / f"callgrind-{peer.name}-{times}" for times in (FEW, MANY)}
    started: list[Running] = []
    try:
        for out, core in zip(outs.values(), (bench.rig.core, bench.gateway_core), strict=True):
            out.unlink(missing_ok=True)
            started.append(_start(bench, peer, core, out))
        for running, times in zip(started, outs, strict=True):
            _wait(bench, running)
            _call(bench, running, times)
    except OSError as error:
        raise CountError(str(error)) from error
    finally:
        for running in started:
            if running.process:
                running.process.ask_to_stop()
        for running in started:
            if running.process:
                running.process.end(patience_seconds=WRITE_SECONDS)
    few, many = (_counted(outs[times]) for times in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def baseline() -> dict[str, Any]:
    """Return what was recorded: instructions per call by peer, and the Python they hold for."""
    recorded: dict[str, Any] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    return recorded


def record(counts: dict[str, float]) -> None:
    """Make these counts the ones that later ones are compared with."""
    per_call = {name: round(count) for name, count in counts.items()}
    told = {"python": platform.python_version(), "instructions_per_call": per_call}
    BASELINE.write_text(json.dumps(told, indent=1) + "\n")
