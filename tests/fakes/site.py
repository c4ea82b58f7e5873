"""A site where gateways come and go: one data directory with its configuration, and the ledger that is kept there.

It owns the directory. It starts the real program in it as often as a test likes and can kill it without warning, which
`fakes.gateway.running` never does; it reads the rows of the ledger as they are in the database, and runs the real
commands there. Journeys of the ledger call it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from click.testing import CliRunner, Result
from msgspec import Struct
from sqlalchemy import Connection

from chatgate.cli import main
from chatgate.storage.audit import Audit
from chatgate.storage.audit import audit as recompute
from chatgate.storage.database import open_database
from fakes import http_client
from fakes.gateway import COMPLAINTS, START_SECONDS, STOP_SECONDS, Gateway

PROGRAM = ("-m", "chatgate")
"""What Python is told to run."""

_ONE_COMMAND = threading.Lock()
"""A command that runs here has the standard output and the environment for itself."""


class Row(Struct, frozen=True):
    """An attempt as the ledger has it; see `chatgate.storage.schema.attempts`."""

    request_id: str
    attempt: int
    state: str
    ends_call: bool
    outcome: str | None
    status: int | None
    key_id: str | None
    asked_model: str
    upstream: str
    worker: str
    usage_source: str
    input_tokens: int
    output_tokens: int
    reserved_nano_usd: int
    charged_nano_usd: int


_COLUMNS = ", ".join(Row.__struct_fields__)


class Site:
    """A data directory and a configuration. `start_seconds` has how long each start took until a call was answered."""

    def __init__(self, directory: Path, config: str, environment: Mapping[str, str] | None = None) -> None:
        """Use an empty directory; without a variable of its own the ledger is in SQLite."""
        self.directory = directory
        self.data = directory / "data"
        self.environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(environment or {})}
        self.url = self.environment.get("CHATGATE_DATABASE_URL")
        self.start_seconds: list[float] = []
        self._config = directory / "chatgate.toml"
        self._config.write_text(config)
        self._gateways: list[Gateway] = []

    async def start(self, program: Sequence[str] = PROGRAM) -> Gateway:
        """Start a gateway and return it once it answers."""
        began_at = time.monotonic()
        gateway = self.launch(program)
        while time.monotonic() < began_at + START_SECONDS and gateway.process.poll() is None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if (await http_client.request(gateway.port, "GET", "/healthz")).status == 200:
                    self.start_seconds.append(time.monotonic() - began_at)
                    return gateway
            await asyncio.sleep(0.01)
        raise AssertionError(f"the gateway did not start (exit {gateway.process.poll()}):\n{gateway.output()}")

    def launch(self, program: Sequence[str] = PROGRAM) -> Gateway:
        """Start a gateway and do not wait for it."""
        home = self.directory / f"gateway{len(self._gateways)}"
        home.mkdir()
        port = _free_port()
        with (home / "stdout").open("wb") as stdout, (home / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, *program, "serve", "--host", "127.0.0.1", "--port", str(port), *self._options],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        gateway = Gateway(process, port, home)
        self._gateways.append(gateway)
        return gateway

    async def stop(self, gateway: Gateway) -> None:
        """Have a gateway end cleanly and soon, and see that it did."""
        await gateway.stop_now()
        code = await asyncio.to_thread(gateway.process.wait, 2 * STOP_SECONDS)
        assert code == 0, f"exit code {code}:\n{gateway.output()}"

    @staticmethod
    def kill(gateway: Gateway) -> None:
        """End a gateway without warning, at whatever it is."""
        gateway.process.kill()
        gateway.process.wait()

    def close(self) -> None:
        """End what still runs. A gateway that complained fails the test."""
        for gateway in self._gateways:
            if gateway.process.poll() is None:
                self.kill(gateway)
        for gateway in self._gateways:
            assert not any(text in gateway.output() for text in COMPLAINTS), gateway.output()

    async def command(self, *arguments: str, exit_code: int = 0) -> str:
        """Run a command on this data directory and return what it printed."""
        done = await asyncio.to_thread(self._run, arguments)
        assert done.exit_code == exit_code, (arguments, done.exit_code, done.output)
        return done.output if exit_code else done.stdout

    def _run(self, arguments: Sequence[str]) -> Result:
        """Run it in this process: starting another one takes longer than what most commands do."""
        with _ONE_COMMAND:
            environment = {**dict.fromkeys(os.environ), **self.environment}
            return CliRunner().invoke(main, [*arguments, *self._options], env=environment)

    async def make_key(self, name: str, *options: str) -> str:
        """Make a key of the gateway and return it."""
        made = json.loads(await self.command("keys", "create", name, *options, "--json"))
        key: str = made["key"]
        return key

    async def audited(self) -> Audit:
        """Return what the audit counts, after the command has said that nothing drifts."""
        said = await self.command("audit")
        assert said.splitlines()[-1] == "drift 0", said
        return await asyncio.to_thread(self._read, recompute)

    async def rows(self) -> list[Row]:
        """Return every row of the ledger."""
        return await asyncio.to_thread(self._read, _rows)

    async def folded(self, gateway: Gateway, seconds: float = 10.0) -> list[Row]:
        """Return every row as soon as the database has all that the gateway wrote."""
        deadline = time.monotonic() + seconds
        while await gateway.metric("chatgate_ledger_lag_seconds") or await gateway.metric(
            "chatgate_ledger_waiting_bytes"
        ):
            assert time.monotonic() < deadline, gateway.output()
            await asyncio.sleep(0.05)
        return await self.rows()

    def _read(self, work: Any) -> Any:
        database = open_database(self.url, self.data)
        try:
            return database.read(work)
        finally:
            database.close()

    @property
    def _options(self) -> list[str]:
        return ["--data", str(self.data), "--config", str(self._config)]


@contextlib.asynccontextmanager
async def site(directory: Path, config: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Site]:
    """Yield a site, and end there whatever still runs at the end."""
    made = Site(directory, config, environment)
    try:
        yield made
    finally:
        made.close()


def _rows(connection: Connection) -> list[Row]:
    found = connection.exec_driver_sql(f"SELECT {_COLUMNS} FROM attempts ORDER BY dispatched_at")
    # SQLite has no truth values, so 0 and 1 come of them.
    return [msgspec.convert(dict(row), Row, strict=False) for row in found.mappings()]


def _free_port() -> int:
    """Return a port below those that the system gives to clients, which could meet themselves on one of them."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
