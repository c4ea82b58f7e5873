"""Does the cost grow? The gateway alone: over keys, models, connections, workers, and calls that it has answered."""

from __future__ import annotations

import json
import os
import re
import resource
import secrets
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench import parts
from bench.parts import Bench, Running
from bench.peers.chatgate import EVERY_CALL, Chatgate
from bench.processes import Cores
from bench.report import table
from bench.rig import Load, Loaded, Rig, RigError
from bench.rounds import CACHE, PEERS, say
from chatgate.admission import gateway_keys
from chatgate.storage import keys as stored_keys
from chatgate.storage import migration, pepper
from chatgate.storage.database import open_database
from chatgate.vocabulary.keys import KeyLimit, NewKey

if TYPE_CHECKING:
    from sqlalchemy import Connection

MODELS: Final = (1, 10, 100, 1000)
WORKERS: Final = (1, 2)
KEYS: Final = (10, 100, 1000, 10_000)
CONNECTIONS: Final = (64, 100, 1000, 10_000)
CALLING: Final = 64
"""How many of the open connections call; the others have called once and are kept alive."""

DESCRIPTORS_PER_CONNECTION: Final = 2.3
"""How many descriptors the gateway wants to have for each connection it takes; some systems do not allow 10 000."""
CALLS: Final = 1_000_000
CALLS_STEP: Final = 200_000
ROUNDS: Final = 3
FIRST_CALLS_PER_SECOND: Final = 1000
"""How many calls with keys that it has not seen the gateway should answer at least, on any machine."""

MOST_TRIES: Final = 5

Scaled = dict[str, Any]


class ConfiguredChatgate(Chatgate):
    """The gateway with a configuration of so many models; calls ask for the last of them."""

    def __init__(self, folder: Path, models: int) -> None:
        """Take the number of models."""
        super().__init__(folder)
        self._models = models
        self.model = f"model-{models - 1}"  # type: ignore[misc]  # It differs for each number of models.

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Write chatgate.toml and return how it is started."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [
            '[[upstreams]]\nname = "bench"\nprovider = "openai_compatible"\napi_key = "sk-test-bench"',
            f'base_url = "http://127.0.0.1:{upstream_port}/v1"',
            f'[[limits]]\nscope = "address"\nresource = "requests"\namount = {EVERY_CALL}\nper = "minute"',
        ]
        lines += [
            f'[[models]]\nname = "model-{number}"\ntargets = [{{ upstream = "bench", model = "mock" }}]'
            for number in range(self._models)
        ]
        file = self.folder / f"chatgate-{self._models}.toml"
        file.write_text("\n".join(lines) + "\n")
        return [*super().command(port, upstream_port), "--config", file]

    def environment(self, upstream_port: int) -> Mapping[str, str]:
        """Return what is not in the configuration."""
        return {
            name: value for name, value in super().environment(upstream_port).items() if name.startswith("CHATGATE")
        }


class KeyedChatgate(Chatgate):
    """The gateway with so many keys of its own, each with a limit that never refuses."""

    def __init__(self, folder: Path, keys: int) -> None:
        """Make the keys, in a data directory of their own."""
        super().__init__(folder / f"keys-{keys}")
        data = self.folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        self.keys_file = self.folder / "keys"
        limits = (KeyLimit("requests", int(EVERY_CALL), "minute"),)
        made = [gateway_keys.make(secrets.token_bytes) for _ in range(keys)]
        now = datetime.now(UTC)
        database = open_database(None, data)

        def store(connection: Connection, secret: bytes) -> None:
            for number, key in enumerate(made):
                new = NewKey(f"bench-{number}", limits=limits)
                stored_keys.create(connection, new, key.id, gateway_keys.digest(secret, key), key.display, now)

        try:
            migration.migrate(database, data / "backups", now)
            database.write(store, pepper.load_or_make(data)[0])
        finally:
            database.close()
        self.keys_file.write_text("".join(f"{key.text}\n" for key in made))
        self._first = made[0].text

    def headers(self, upstream_port: int) -> Mapping[str, str]:
        """Return the header with the first key."""
        del upstream_port
        return {"authorization": f"Bearer {self._first}"}


class WorkingChatgate(Chatgate):
    """The gateway with so many workers, on whichever core is free; without the limit, which only one could count."""

    def __init__(self, folder: Path, workers: int) -> None:
        """Take the number of workers."""
        super().__init__(folder / f"workers-{workers}")
        self._workers = workers

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Return how it is started, on every core that this machine has."""
        every = ",".join(map(str, range(os.cpu_count() or 1)))
        command = super().command(port, upstream_port)
        return ["taskset", "--cpu-list", every, *command, "--workers", str(self._workers)]

    def environment(self, upstream_port: int) -> Mapping[str, str]:
        """Return the settings but for the limit."""
        settings = super().environment(upstream_port)
        return {name: value for name, value in settings.items() if name != "MINUTE_LIMIT"}


def _over_workers(bench: Bench) -> dict[str, list[dict[str, float]]]:
    """Return calls per second, and what they cost the gateway and the rig, by the number of workers."""
    found: dict[str, list[dict[str, float]]] = {str(workers): [] for workers in WORKERS}
    for number in range(ROUNDS):
        for workers in WORKERS if number % 2 == 0 else reversed(WORKERS):
            running, process, _ = bench.start(WorkingChatgate(PEERS / "chatgate", workers))
            with process:
                loaded = bench.load(running, Load("closed", CALLING, bench.seconds))
            calls = max(loaded.calls, 1)
            one = {
                "calls_per_second": float(loaded.seen["calls_per_second"]),
                "gateway_cpu_us_per_call": (loaded.gateway_cpu_seconds or 0.0) / calls * 1e6,
                "rig_cpu_us_per_call": loaded.rig_cpu_seconds / calls * 1e6,
            }
            say(f"{workers} workers: {one}")
            found[str(workers)].append(one)
    return found


def _over_keys(bench: Bench) -> dict[str, list[float]]:
    """Return the cost per call by the number of keys; each call shows the next key, and all have been seen before."""
    found: dict[str, list[float]] = {str(keys): [] for keys in KEYS}
    peers = {keys: KeyedChatgate(PEERS / "chatgate", keys) for keys in KEYS}
    with ExitStack() as stack:
        running = {}
        for keys, peer in peers.items():
            running[keys], process, _ = bench.start(peer)
            stack.enter_context(process)
            _show_all(bench, running[keys], peer, keys)
        for number in range(ROUNDS):
            for keys in KEYS if number % 2 == 0 else reversed(KEYS):
                loaded = _keyed_load(bench, running[keys], peers[keys])
                cost = (loaded.gateway_cpu_seconds or 0.0) / max(loaded.calls, 1) * 1e6
                say(f"{keys} keys: {cost:.1f} µs per call")
                found[str(keys)].append(cost)
    return found


def _show_all(bench: Bench, running: Running, peer: KeyedChatgate, keys: int) -> None:
    """Let the gateway see every key. Each load begins with the first, so it has to be one that comes to the last."""
    for _ in range(MOST_TRIES):
        if _keyed_load(bench, running, peer, keys / FIRST_CALLS_PER_SECOND).calls >= keys:
            return
    raise RigError(f"a load comes to no {keys} calls in {keys / FIRST_CALLS_PER_SECOND:.0f} s")


def _keyed_load(bench: Bench, running: Running, peer: KeyedChatgate, seconds: float = 0.0) -> Loaded:
    load = Load("closed", CALLING, max(seconds, bench.seconds), keys_file=peer.keys_file)
    loaded = bench.load(running, load)
    if loaded.seen["failed"]:
        raise RigError(f"calls with keys fail: {loaded.seen}")
    return loaded


def _over_models(bench: Bench) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {str(models): [] for models in MODELS}
    for number in range(ROUNDS):
        for models in MODELS if number % 2 == 0 else reversed(MODELS):
            running, process, _ = bench.start(ConfiguredChatgate(PEERS / "chatgate", models))
            with process:
                cost = parts.calls(bench, running, 64)["gateway_cpu_us_per_call"]
            say(f"{models} models: {cost:.1f} µs per call")
            found[str(models)].append(float(cost or 0))
    return found


def _open_connections(port: int, count: int, stack: ExitStack) -> None:
    """Open connections that call once and then stay, until `stack` is closed. Raises `RigError` when one is refused."""
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
            raise RigError("the gateway refuses a connection that is to be kept open")


def _over_connections(bench: Bench) -> dict[str, list[float]]:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = int(descriptors / DESCRIPTORS_PER_CONNECTION) // 1000 * 1000
    numbers = sorted({min(number, most) for number in CONNECTIONS})
    found: dict[str, list[float]] = {str(number): [] for number in numbers}
    running, process, _ = bench.start(Chatgate(PEERS / "chatgate"))
    with process:
        for turn in range(ROUNDS):
            for number in numbers if turn % 2 == 0 else reversed(numbers):
                with ExitStack() as stack:
                    _open_connections(running.port, number - CALLING, stack)
                    cost = parts.calls(bench, running, CALLING)["gateway_cpu_us_per_call"]
                say(f"{number} connections: {cost:.1f} µs per call")
                found[str(number)].append(float(cost or 0))
    return found


def _over_calls(bench: Bench) -> dict[str, float]:
    """Return the gateway's memory in MiB by the number of calls it has answered."""
    running, process, _ = bench.start(Chatgate(PEERS / "chatgate"))
    found: dict[str, float] = {}
    with process:
        begun = bench.rig.stats()["calls"]
        give_up_at = time.monotonic() + 180
        while True:
            answered = bench.rig.stats()["calls"] - begun
            if answered >= len(found) * CALLS_STEP:
                found[str(answered)] = process.memory_bytes() / 2**20
                say(f"{answered} calls: {found[str(answered)]:.1f} MiB")
            if answered >= CALLS or time.monotonic() > give_up_at:
                return found
            bench.load(running, Load("closed", 64, 1.5, warm_up_seconds=0.2))


def measure(cores: Cores, *, seconds: float) -> Scaled:
    """Measure it all; takes about four minutes."""
    load_average = os.getloadavg()[0]
    logs = CACHE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with Rig(cores.rig, CACHE) as rig:
        bench = Bench(rig, cores.gateway, logs, seconds)
        return {
            "taken": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "load_average": load_average,
            "cpu_us_per_call_by_keys": _over_keys(bench),
            "cpu_us_per_call_by_models": _over_models(bench),
            "cpu_us_per_call_by_connections": _over_connections(bench),
            "by_workers": _over_workers(bench),
            "memory_mib_by_calls": _over_calls(bench),
        }


def _row(values: Sequence[float]) -> str:
    middle = sorted(values)[len(values) // 2] if values else None
    return "failed" if middle is None else f"{middle:.1f} ({min(values):.1f}–{max(values):.1f})"


def _thousands(number: str) -> str:
    return re.sub(r"(?<=\d)(?=(\d{3})+$)", " ", number)


def text(scaled: Scaled) -> str:
    """Return the section of the page, which is also what is printed."""
    introduction = (
        f"Taken {scaled['taken']}, chatgate alone, {CALLING} callers; medians with lowest and highest. "
        f"Load average at the start: {scaled['load_average']:.2f}."
    )
    parts = [f"## Whether it grows\n\n{introduction}\n"]
    for name, title in (("keys", "keys"), ("models", "models"), ("connections", "open connections")):
        costs = scaled.get(f"cpu_us_per_call_by_{name}")
        if costs:
            rows = [[title, *map(_thousands, costs)], ["CPU µs per call", *map(_row, costs.values())]]
            parts.append(table(iter(rows)))
    workers = scaled.get("by_workers")
    if workers:
        rows = [["workers", *workers]]
        rows += [
            [title, *(_row([each[name] for each in rounds]) for rounds in workers.values())]
            for name, title in (
                ("calls_per_second", "calls/s, load and upstream on the same cores"),
                ("gateway_cpu_us_per_call", "CPU µs per call"),
                ("rig_cpu_us_per_call", "CPU µs per call of load and upstream"),
            )
        ]
        parts.append(table(iter(rows)))
    memory = scaled["memory_mib_by_calls"]
    rows = [["calls answered", *map(_thousands, memory)], ["memory, MiB", *(f"{mib:.1f}" for mib in memory.values())]]
    return "\n".join([*parts, table(iter(rows))])


def write(scaled: Scaled, file: Path) -> None:
    """Write it as JSON."""
    file.write_text(json.dumps(scaled, indent=1) + "\n")
