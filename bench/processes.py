"""Processes under measurement: started on one core, read in /proc with all their descendants, and ended by their ids.

Linux only. Peers and the rig are started here and nowhere else, so that nothing outlives a run.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

STOP_SECONDS = 1.5
"""How long a process may take to stop before it is asked again, and then killed."""

WANTED_DESCRIPTORS = 65_536


class Cores(NamedTuple):
    """Where things run: the gateway on one core, everything else on another."""

    gateway: int
    rig: int


def choose_cores() -> Cores:
    """Return two cores of those we may use, the last ones; twice the same where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(gateway=usable[-1], rig=usable[-2] if len(usable) > 1 else usable[-1])


def raise_descriptor_limit() -> int:
    """Let this process and those it starts open as many files as is allowed, and return how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (max(hard, WANTED_DESCRIPTORS), hard):
        with contextlib.suppress(ValueError, OSError):  # Only root may raise the hard limit.
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return most
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a measured process sees: little, the same for all, and no proxy of this machine."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "LANG": "C.UTF-8",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        **(more or {}),
    }


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Process:
    """A process on one core, with its descendants. Ends with the `with` block it is used in."""

    def __init__(
        self, command: Sequence[str | Path], *, core: int, log: Path, more_environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it. What it says, on either stream, goes to the file `log`. Raises `OSError` when it cannot."""
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), *command],
                env=environment(more_environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.end()

    @property
    def pid(self) -> int:
        """The process's own number."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Tell whether it still runs."""
        return self._process.poll() is None

    def tree(self) -> list[int]:
        """Return its id and those of its descendants."""
        found, unseen = [], [self._process.pid]
        while unseen:
            pid = unseen.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    unseen.extend(map(int, children.read_text().split()))
        return found

    def cpu_seconds(self) -> float:
        """Return the processor time, user and system, of the threads that are alive in the whole tree."""
        nanoseconds = 0
        for pid in self.tree():
            for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    nanoseconds += int(thread.read_text().split()[0])
        return nanoseconds / 1e9

    def memory_bytes(self) -> int:
        """Return the memory of the tree, shared pages divided among those who share them (PSS)."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
        return total

    def last_words(self) -> str:
        """Return the end of what it said."""
        return self.log.read_bytes()[-2000:].decode(errors="replace").strip()

    def ask_to_stop(self) -> None:
        """Ask the first process of the tree to stop, and return at once."""
        self._process.terminate()

    def end(self, patience_seconds: float = STOP_SECONDS) -> None:
        """Ask the tree to stop, twice, for the first time may mean to finish calls first; then kill what is left.

        `patience_seconds` is how long each request is given.
        """
        tree = self.tree() if self.is_running else []
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            give_up_at = time.monotonic() + patience_seconds
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=patience_seconds)
            # Children may end after their parent, and nobody here can wait for them.
            while (tree := [pid for pid in tree if is_alive(pid)]) and time.monotonic() < give_up_at:
                time.sleep(0.005)
            if not tree:
                return
