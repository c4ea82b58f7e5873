"""The upstream and the load generator: compiled once, started on the rig's core. `parts` puts load on peers with it.

The C programs say at their top how they are called and what they print.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from bench.processes import Process

if TYPE_CHECKING:
    from bench.peers.peer import Peer

HERE = Path(__file__).parent
PROGRAMS = {"upstream": ("upstream.c",), "loadgen": ("loadgen.c", "answer.c")}
HEADERS = ("rig.h", "answer.h")

_PORTS = iter(range(20_000, 32_000))

PATIENCE_SECONDS = 30.0
"""How much longer than its load the load generator may take."""

Answer = dict[str, Any]
"""What a program of the rig printed, as decoded JSON."""


class RigError(Exception):
    """The rig itself does not work; `str()` says why."""


class Load(NamedTuple):
    """A load: `mode` is closed, open or stream; the rest are the load generator's options.

    `keys_file` has keys of one length, a line each, of which each call shows the next; the first is in the headers.
    """

    mode: str
    connections: int
    seconds: float
    warm_up_seconds: float = 0.4
    ramp_seconds: float = 0.0
    calls_per_second: float = 0.0
    keys_file: Path | None = None


class Loaded(NamedTuple):
    """What came of a load: what the load generator saw, and per second of it what the processes used.

    `calls` and `events` are what the upstream sent while `gateway_cpu_seconds` and `rig_cpu_seconds` were used; the
    first of these two is None where nothing stands between the load and the upstream.
    """

    seen: Answer
    calls: int
    events: int
    gateway_cpu_seconds: float | None
    rig_cpu_seconds: float


def free_port() -> int:
    """Return a port that nothing listens on and that was not returned before.

    It is below those that connections take (32768 and up on Linux): a load's own could otherwise be in the way.
    """
    for port in _PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RigError("no port is free")


def body(model: str, *, stream: bool) -> bytes:
    """Return a request of 1 KB."""
    text = ("You are a helpful assistant. " + "The user wants a careful answer about the topic below. " * 20)[:850]
    messages = [{"role": "system", "content": "You are a terse assistant."}, {"role": "user", "content": text}]
    asked: Answer = {"model": model, "messages": messages, "temperature": 0.7, "max_tokens": 256}
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked).encode()


def compile_programs(folder: Path) -> dict[str, Path]:
    """Compile the programs into `folder`, unless they are there already; return their paths by name."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RigError("the rig needs a C compiler (Debian: apt install gcc libc6-dev)")
    sources = b"".join((HERE / name).read_bytes() for names in (*PROGRAMS.values(), HEADERS) for name in names)
    folder = folder / hashlib.sha256(sources).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for program, names in PROGRAMS.items():
        if not (folder / program).exists():
            done = subprocess.run(
                [compiler, "-O2", "-std=gnu17", "-o", folder / program, *(HERE / name for name in names), "-lm"],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RigError(f"{compiler} could not compile {program}:\n{done.stderr}")
    return {program: folder / program for program in PROGRAMS}


class Rig:
    """A running upstream, and load on request. Ends with the `with` block it is used in."""

    def __init__(self, core: int, folder: Path) -> None:
        """Start the upstream; compiled programs, bodies and logs go to `folder`. Raises `RigError`."""
        self.core = core
        self.folder = folder
        self._programs = compile_programs(folder / "programs")
        self.port = free_port()
        self._upstream = Process([self._programs["upstream"], str(self.port)], core=core, log=folder / "upstream.log")
        self._control = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        for _ in range(200):
            try:
                self.stats()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise RigError(f"the upstream does not start: {self._upstream.last_words()}")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the upstream."""
        self._control.close()
        self._upstream.end()

    def stats(self) -> Answer:
        """Return the upstream's counters."""
        return self._ask("/stats")

    def shape_streams(self, *, events: int, interval_seconds: float) -> None:
        """Set how many events streams have from now on, and how long one comes after the other (0: at once)."""
        self._ask(f"/profile?events={events}&interval_us={round(interval_seconds * 1e6)}")

    def start_load(self, peer: Peer, port: int, load: Load) -> subprocess.Popen[bytes]:
        """Start a load on `port` and return at once; the caller ends or awaits it."""
        body_file = self.folder / f"body-{peer.name}-{'stream' if load.mode == 'stream' else 'whole'}.json"
        body_file.write_bytes(body(peer.model, stream=load.mode == "stream"))
        options = [
            *("-c", str(load.connections)),
            *("-d", str(load.seconds)),
            *("-w", str(load.warm_up_seconds + load.ramp_seconds)),
            *("-g", str(load.ramp_seconds)),
            *("-r", str(load.calls_per_second)),
        ]
        if load.keys_file is not None:
            options += ["-K", str(load.keys_file)]
        for name, value in peer.headers(self.port).items():
            options += ["-H", f"{name}: {value}"]
        command: list[str | Path] = [self._programs["loadgen"], load.mode, str(port), peer.path, body_file, *options]
        return subprocess.Popen(
            ["taskset", "--cpu-list", str(self.core), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def load(self, peer: Peer, port: int, load: Load, gateway: Process | None) -> Loaded:
        """Put a load on `port` and wait for its end. Raises `RigError` when the load generator fails.

        Processor time and what the upstream sent are read together, shortly inside of the measured seconds.
        """
        running = self.start_load(peer, port, load)
        try:
            time.sleep(load.warm_up_seconds + load.ramp_seconds + 0.05)
            began, began_gateway, began_rig = self._reading(running, gateway)
            time.sleep(max(0.0, load.seconds - 0.1))
            ended, ended_gateway, ended_rig = self._reading(running, gateway)
            out, errors = running.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise RigError(f"the load generator hangs at {peer.name}") from None
        finally:
            if running.poll() is None:
                running.kill()
                running.wait()
        if running.returncode:
            raise RigError(f"the load generator failed at {peer.name}: {errors.decode(errors='replace')}")
        seen = json.loads(out)
        if errors:
            seen["first_failure"] = errors.decode(errors="replace")[:500]
        return Loaded(
            seen,
            ended["calls"] - began["calls"],
            ended["events"] - began["events"],
            None if gateway is None else ended_gateway - began_gateway,
            ended_rig - began_rig,
        )

    def _reading(self, running: subprocess.Popen[bytes], gateway: Process | None) -> tuple[Answer, float, float]:
        """Return the upstream's counters, and the processor seconds of the gateway and of the rig so far."""
        gateway_seconds = gateway.cpu_seconds() if gateway else 0.0
        load_seconds = int(Path(f"/proc/{running.pid}/schedstat").read_text().split()[0]) / 1e9
        return self.stats(), gateway_seconds, self._upstream.cpu_seconds() + load_seconds

    def _ask(self, path: str) -> Answer:
        try:
            self._control.request("GET", path)
            answer: Mapping[str, Any] = json.loads(self._control.getresponse().read())
        except http.client.HTTPException as error:
            self._control.close()
            raise OSError(str(error)) from error
        return dict(answer)
