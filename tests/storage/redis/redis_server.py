"""A Redis server of our own: on a free port of 127.0.0.1, in a temporary directory, remembering nothing on disk.

It owns the server's process, and freezes, ends and stops it by its id.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import hiredis
import pytest

from chatgate.vocabulary.stores import RedisAddress


def program() -> str:
    """Return the server's program; skip, and say so, when neither Redis nor Valkey is installed."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        pytest.skip("Redis's server is not installed (Debian: apt-get install redis-server)")
    return found


class RedisServer:
    """A server that is started when it is made."""

    def __init__(self, *options: str) -> None:
        """Start it with more options."""
        self._program = program()
        self._options = options
        self.home = Path(tempfile.mkdtemp(prefix="chatgate-redis-"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Return what a gateway is given to find it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def address(self) -> RedisAddress:
        """Return the same, read."""
        return RedisAddress.parse(self.url)

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *self._options]
        self._process = subprocess.Popen(
            [self._program, *words], cwd=self.home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None, "the server did not start"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.01)

    def send_signal(self, number: signal.Signals) -> None:
        """Send its process a signal: SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def command(self, *words: Any) -> Any:
        """Give it a command and return its answer, which is no error."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connected:
            connected.sendall(hiredis.pack_command(words))
            reader = hiredis.Reader()
            while (answer := reader.gets()) is False:
                reader.feed(connected.recv(65536))
        assert not isinstance(answer, hiredis.ReplyError), answer
        return answer

    def kill(self) -> None:
        """End it at once; what it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def remove(self) -> None:
        """End it and remove what it had."""
        self.kill()
        shutil.rmtree(self.home)

    def ask(self, *words: str) -> bytes:
        """Give it a command without arguments that need escaping, and return the raw answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(65536)

    def _answers(self) -> bool:
        try:
            # With TLS or a password it says no, and that is an answer too.
            return bool(self.ask("PING"))
        except OSError:
            return False


def _free_port() -> int:
    """Return a port below those that the system gives to clients, and low enough for the second one of a cluster."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
