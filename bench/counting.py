"""Count a process's work per call: one that answers many calls, less one that answers few.

What is left is what the calls took, without the start and the end. Both run at once, each on a core. What counts is a
program around the peer's, as `instructions` and `where` choose it; nothing here measures time.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.parts import Bench, Running
from bench.peers.peer import Peer
from bench.processes import Process
from bench.rig import body, free_port

FEW: Final = 50
MANY: Final = 300
START_SECONDS: Final = 120.0
WRITE_SECONDS: Final = 8.0
"""How long a process may take to stop and write what it counted."""


class CountError(Exception):
    """The work cannot be counted here; `str()` says why."""


def count(
    bench: Bench, peer: Peer, name: str, around: Sequence[str | Path], begin: Callable[[Process], None] | None = None
) -> tuple[Path, Path]:
    """Return what a program around the peer's wrote after `FEW` calls, and after `MANY`. Raises `CountError`.

    In `around`, `{out}` is the file that it writes to; `name` tells these files from others. `begin` is called with
    each process when it answers, before the calls.
    """
    outs = {times: bench.folder / f"{name}-{peer.name}-{times}" for times in (FEW, MANY)}
    started: list[Running] = []
    try:
        for out, core in zip(outs.values(), (bench.rig.core, bench.gateway_core), strict=True):
            out.unlink(missing_ok=True)
            started.append(_start(bench, peer, core, out, [str(part).format(out=out) for part in around]))
        for running, times in zip(started, outs, strict=True):
            _wait(bench, running)
            if begin and running.process:
                begin(running.process)
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
    return outs[FEW], outs[MANY]


def _start(bench: Bench, peer: Peer, core: int, out: Path, around: Sequence[str]) -> Running:
    port = free_port()
    # In a data directory that others use too, each would do some of the others' work.
    peer = type(peer)(bench.folder / f"{out.name}-peer")
    # Python's dictionaries are laid out by its hash seed, which would be another one in each process.
    environment = {**peer.environment(bench.rig.port), "PYTHONHASHSEED": "0"}
    process = Process(
        [*around, *peer.command(port, bench.rig.port)],
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
            raise CountError(f"{running.peer.name} does not start: {words}")
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
