"""Processes under measurement: their whole tree is seen, and ends."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bench.processes import Process, is_alive

PARENT = """
import subprocess, sys, time
child = (
    "import time; began = time.process_time()\\n"
    "while time.process_time() - began < 0.2: pass\\n"
    "print('worked', flush=True); time.sleep(60)"
)
subprocess.run([sys.executable, "-c", child])
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('worked', flush=True); time.sleep(60)"
)


def started(program: str, log: Path) -> Process:
    """Start a program and wait for its sign of life."""
    process = Process([sys.executable, "-c", program], core=min(os.sched_getaffinity(0)), log=log)
    give_up_at = time.monotonic() + 20
    while b"worked" not in log.read_bytes():
        assert process.is_running, process.last_words()
        assert time.monotonic() < give_up_at
    return process


def test_the_work_of_children_is_seen(tmp_path: Path) -> None:
    """Processor time and memory are those of the whole tree, and all of it ends."""
    with started(PARENT, tmp_path / "log") as process:
        tree = process.tree()
        assert len(tree) == 2
        assert process.cpu_seconds() >= 0.2
        assert process.memory_bytes() > 1 << 20
    assert not process.is_running
    assert not [pid for pid in tree if is_alive(pid)]


def test_who_does_not_stop_is_killed(tmp_path: Path) -> None:
    """A process that ignores the request to stop does not outlive the measurement."""
    with started(STUBBORN, tmp_path / "log") as process:
        pass
    assert not process.is_running
