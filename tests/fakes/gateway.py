"""The gateway under test: the real program in a process of its own, as an operator starts it.

It owns the process, its configuration, its data directory and all that it prints. It gives the process an environment
with nothing in it but PATH, LANG and what the test says, waits until /healthz answers, and at the end asks it to stop
with SIGTERM (twice, for a drain takes its time) and holds it to an exit code of 0 and a log without tracebacks. Tests
of clients, journeys and the real model call it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from fakes import http_client

START_SECONDS = 15.0
STOP_SECONDS = 15.0
COMPLAINTS = ("Traceback (most recent call last)", "was never awaited", "was never retrieved", "ResourceWarning")
"""What a healthy gateway never prints."""


class Gateway:
    """A gateway that runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
        """Watch over a started process; see `running`."""
        self.process = process
        self.port = port
        self.directory = directory

    @property
    def url(self) -> str:
        """Return its address without a path."""
        return f"http://127.0.0.1:{self.port}"

    def output(self) -> str:
        """Return everything it printed so far, on either stream."""
        return "".join((self.directory / name).read_text(errors="replace") for name in ("stdout", "stderr"))

    async def logged(self, event: str, at_least: int = 1, **facts: Any) -> list[dict[str, Any]]:
        """Return the lines of its log that say this, as soon as there are so many: they are written in batches."""
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            lines = [
                json.loads(line) for line in self.output().splitlines() if line.startswith("{") and line[-1] == "}"
            ]
            found = [line for line in lines if facts.items() <= line.items() and line["event"] == event]
            if len(found) >= at_least:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {at_least} lines: {self.output()}"
            await asyncio.sleep(0.05)

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of one name that have these labels."""
        found = 0.0
        text = (await http_client.request(self.port, "GET", "/metrics")).body.decode()
        for line in text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(
                f'{label}="{each}"' in sample for label, each in labels.items()
            ):
                found += float(value)
        return found

    def files(self) -> dict[str, bytes]:
        """Return every file that it wrote, by its path there: its output and its data."""
        found = [path for path in self.directory.rglob("*") if path.is_file()]
        return {path.relative_to(self.directory).as_posix(): path.read_bytes() for path in found}

    def command_line(self) -> bytes:
        """Return what every user of the machine can see of it."""
        return Path(f"/proc/{self.process.pid}/cmdline").read_bytes()

    def resident_kib(self) -> int:
        """Return how much memory it holds, in KiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def stop(self) -> None:
        """Ask it to stop, as a supervisor does: it drains first."""
        self.process.send_signal(signal.SIGTERM)

    async def stop_now(self) -> None:
        """Ask it twice, as an impatient operator does: it ends cleanly and does not wait for new calls to stay away."""
        for _ in range(2):
            if self.process.poll() is None:
                self.stop()
            await asyncio.sleep(0.02)  # Two signals at once are one signal.

    async def ended(self) -> int:
        """Return the exit code once it ended; the loop goes on meanwhile, for the upstream lives in it."""
        return await asyncio.to_thread(self.process.wait, STOP_SECONDS)

    async def _ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if (await http_client.request(self.port, "GET", "/healthz")).status == 200:
                    return
            await asyncio.sleep(0.02)
        raise AssertionError(f"the gateway did not start (exit {self.process.poll()}):\n{self.output()}")


@contextlib.asynccontextmanager
async def running(
    environment: Mapping[str, str] | None = None, config: str = "", *, expect_complaints: bool = False
) -> AsyncIterator[Gateway]:
    """Run a gateway with this environment and this text as its `chatgate.toml`; stop it at the end.

    A test may stop it itself before that.
    """
    with tempfile.TemporaryDirectory(prefix="chatgate-test-") as name:
        directory = Path(name)
        (directory / "chatgate.toml").write_text(config)
        port = _free_port()
        arguments = ["--host", "127.0.0.1", "--port", str(port), "--data", str(directory / "data")]
        arguments += ["--config", str(directory / "chatgate.toml")]
        with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
            process = subprocess.Popen(  # noqa: ASYNC220 - to start it takes a millisecond, and tests may wait
                [sys.executable, "-W", "default::ResourceWarning", "-m", "chatgate", "serve", *arguments],
                cwd=directory,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        gateway = Gateway(process, port, directory)
        try:
            await gateway._ready()
            yield gateway
            await gateway.stop_now()
            code = await gateway.ended()
            assert code == 0, f"exit code {code}:\n{gateway.output()}"
            complaints = [text for text in COMPLAINTS if text in gateway.output()]
            assert expect_complaints or not complaints, gateway.output()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


class StartGateway:
    """Starts gateways that run until the file's tests are done."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        """Stop on the stack's end what was started."""
        self._stack = stack

    async def __call__(self, environment: Mapping[str, str] | None = None, config: str = "") -> Gateway:
        """Start a gateway with this environment and this `chatgate.toml`."""
        return await self._stack.enter_async_context(running(environment, config))


def _free_port() -> int:
    """Return a port below those that the system gives to clients, which could meet themselves on one of them."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
