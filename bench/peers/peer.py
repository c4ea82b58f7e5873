"""What a peer is: something that stands between a caller and an upstream, and can be installed, started and called.

One file beside this one per peer. A peer says how it was set up, so that the comparison can be repeated and criticised.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

INSTALL_SECONDS = 900.0


class UnavailableError(Exception):
    """A peer cannot be measured here; `str()` says why."""


class Peer:
    """A peer; subclasses fill in what differs."""

    name: ClassVar[str]
    """What it is called on the command line and in results."""

    title: ClassVar[str]
    """What it is called in tables, with what it is written in."""

    setup: ClassVar[str]
    """How it was set up, in a phrase for the page."""

    path: ClassVar[str] = "/v1/chat/completions"
    model: ClassVar[str] = "mock"
    more_environment: ClassVar[Mapping[str, str]] = MappingProxyType({})

    is_slow: ClassVar[bool] = False
    """Whether one call takes so long that few connections and long measurements say more."""

    def __init__(self, folder: Path) -> None:
        """Take the folder it is installed in and keeps its configuration in."""
        self.folder = folder

    def install(self) -> None:
        """Install it, unless it is there. Raises `UnavailableError`."""

    def version(self) -> str:
        """Return the version that is installed."""
        raise NotImplementedError

    def installed_bytes(self) -> int:
        """Return how much room it takes on the disk, without the interpreter it runs on."""
        raise NotImplementedError

    def command(self, port: int, upstream_port: int) -> Sequence[str | Path]:
        """Write its configuration, and return what starts it on `port` in front of the upstream on `upstream_port`."""
        raise NotImplementedError

    def bound_port(self, asked_port: int, log: Path) -> int | None:
        """Return the port it listens on; None while a peer that chooses its own has not said in its log which."""
        del log
        return asked_port

    def headers(self, upstream_port: int) -> Mapping[str, str]:
        """Return the headers a call has besides the usual ones."""
        del upstream_port
        return {"authorization": "Bearer none"}

    def environment(self, upstream_port: int) -> Mapping[str, str]:
        """Return what its environment has besides what every peer's has."""
        del upstream_port
        return self.more_environment


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """Run a command to its end and return what it printed. Raises `UnavailableError` when it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(str(error)) from error
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UnavailableError(f"`{' '.join(map(str, command[:4]))} …`: {reason[-1] if reason else done.returncode}")
    return done.stdout


def bytes_under(folder: Path, *, leave_out: Sequence[str] = ()) -> int:
    """Return the size of the files under a folder, but for entries of it whose name begins with one of `leave_out`."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(tuple(leave_out))]
    files = [file for entry in entries for file in ([entry] if entry.is_file() else entry.rglob("*"))]
    return sum(file.lstat().st_size for file in files if file.is_file() and "__pycache__" not in file.parts)


def needed_program(name: str, package: str) -> Path:
    """Return the path of a program of this machine. Raises `UnavailableError` when it is missing."""
    found = shutil.which(name, path=None) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise UnavailableError(f"{name} is not installed (Debian: apt install {package})")
    return Path(found)
