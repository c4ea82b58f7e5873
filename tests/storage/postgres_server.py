"""A PostgreSQL server of our own: a new cluster in a temporary directory, on a free port of 127.0.0.1.

It owns the server's process and stops it by its id. The programs are those of the system, which are never started as
root: then they run as the user that Debian's package made for them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

PASSWORD = "test: \\pass'word"
"""Has what would need escaping, in URLs and in PostgreSQL's own files."""

_SETTINGS = {
    # Nothing here has to survive the machine; all has to survive the server.
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "log_min_messages": "fatal",
}


def programs() -> Path | None:
    """Return the directory of the server's programs; None when it is not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    of_debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return of_debian[-1].parent if of_debian else None


class PostgresServer:
    """A running server; its superuser is `postgres`."""

    def __init__(self, directory: Path) -> None:
        """Make a cluster and start it."""
        self._programs = directory
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._identity = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self._home = Path(tempfile.mkdtemp(prefix="chatgate-postgres-"))
        password = self._home / "password"
        password.write_text(PASSWORD + "\n")
        for path in (self._home, password) if self._identity else ():
            shutil.chown(path, "postgres", "postgres")
        make = ["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--username=postgres"]
        self._do("initdb", *make, f"--pwfile={password}", f"--pgdata={self._home}/data")
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.start()

    def url(self, database: str) -> str:
        """Return what a gateway is given to find a database."""
        escaped = PASSWORD.replace(":", "%3A").replace("\\", "%5C").replace(" ", "%20").replace("'", "%27")
        return f"postgresql://postgres:{escaped}@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """Make an empty database and return its name."""
        self._databases += 1
        name = f"test{self._databases}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection of a test's own."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=PASSWORD, dbname=database, autocommit=True
        )

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [self._programs / "postgres", "-D", self._home / "data", "-p", str(self.port), *settings],
            cwd=self._home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._identity,
        )
        self._process = process
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(psycopg.OperationalError), self.connect():
                return
            assert process.poll() is None, "the server did not start"
            assert time.monotonic() < deadline, "the server takes no connections"
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends its sessions first, SIGQUIT is what it calls an immediate stop."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        """Stop the server and remove what it had."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._home)

    def _do(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self._home,
            capture_output=True,
            text=True,
            check=False,
            **self._identity,
        )
        assert done.returncode == 0, done.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
