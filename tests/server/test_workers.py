"""The parent of several processes: who is started when, what happens when one dies, and how all of them end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from chatgate.server.workers import MAX_RESTART_DELAY_SECONDS, reserve, restart_delay_seconds

PROGRAM = Path(__file__).with_name("small_workers.py")
TIMEOUT_SECONDS = 20


class Program:
    """The program, running; its lines are read as they come."""

    def __init__(self, *behaviours: str) -> None:
        """Start it."""
        self.process = subprocess.Popen([sys.executable, PROGRAM, *behaviours], stdout=subprocess.PIPE)
        self.lines: list[str] = []

    @property
    def _stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def until(self, line: str) -> None:
        """Read until this line came."""
        while line not in self.lines:
            text = self._stdout.readline().decode()
            assert text, f"{line!r} never came: {self.lines}"
            self.lines.append(text.rstrip("\n"))

    def rest(self) -> int:
        """Read to the end, which only comes when parent and workers are gone; return the exit code."""
        self.lines += self._stdout.read().decode().splitlines()
        return self.process.wait(TIMEOUT_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """Send the parent a signal."""
        self.process.send_signal(number)


@pytest.fixture
def start() -> Iterator[type[Program]]:
    """Return what starts the program; what still runs at the end is killed, and its workers see that."""
    started: list[Program] = []

    class Started(Program):
        def __init__(self, *behaviours: str) -> None:
            super().__init__(*behaviours)
            started.append(self)

    yield Started
    for program in started:
        program.process.kill()
        program.process.communicate()


def test_all_are_announced_once_and_end_when_told(start: type[Program]) -> None:
    """The first worker starts alone; each is told once to stop, and the parent ends last."""
    program = start("serves", "serves", "serves")
    program.until("announced")
    assert program.lines[0] == "life 1"
    assert sorted(program.lines[1:-1]) == ["life 2", "life 3"]
    program.signal(signal.SIGTERM)
    assert program.rest() == 0
    assert sorted(program.lines[4:-1]) == ["ended 1", "ended 2", "ended 3", "stop 1", "stop 2", "stop 3"]
    assert program.lines[-1] == "over"


def test_all_are_told_to_reload(start: type[Program]) -> None:
    """SIGHUP to the parent is an order for each worker, as often as it comes, and no reason to end."""
    program = start("serves", "serves")
    program.until("announced")
    for _ in range(2):
        program.signal(signal.SIGHUP)
        program.until("reload 1")
        program.until("reload 2")
        program.lines = [line for line in program.lines if not line.startswith("reload")]
    program.signal(signal.SIGTERM)
    assert program.rest() == 0
    assert [line for line in program.lines if line.startswith("reload")] == []


@pytest.mark.parametrize(("behaviours", "lives"), [(("fails", "serves"), 1), (("serves", "fails"), 2)])
def test_a_worker_that_fails_at_first_ends_everything(
    start: type[Program], behaviours: tuple[str, ...], lives: int
) -> None:
    """The parent ends with the worker's exit code and leaves the reason to it; nothing was announced."""
    program = start(*behaviours)
    assert program.rest() == 78
    assert program.lines[-1] == "error "
    assert "announced" not in program.lines
    assert sum(line.startswith("life") for line in program.lines) == lives


def test_a_worker_that_could_not_say_why_is_spoken_for(start: type[Program]) -> None:
    """A process that was killed at its start has told nobody."""
    program = start("dies", "serves")
    assert program.rest() == 1
    assert program.lines[-1] == "error worker 1 ended by signal 9 before it took calls"


def test_a_worker_that_dies_again_and_again_is_started_ever_later(start: type[Program]) -> None:
    """Its successor is told how it ended; the others serve on, and are announced no second time."""
    program = start("serves", "crashes")
    assert program.rest() == 0
    told = [line for line in program.lines if "another one starts" in line]
    delays = ["now", "in 1 s", "in 2 s", "in 4 s", "in 8 s", "in 16 s", "in 30 s", "in 30 s", "in 30 s"]
    assert told == [f"worker 2 exited with 3; another one starts {delay}" for delay in delays]
    assert program.lines.count("life 2 exited with 3") == len(delays)
    assert program.lines.count("announced") == 1
    assert program.lines.count("life 1") == 1


def test_an_aide_starts_before_the_first_worker(start: type[Program]) -> None:
    """It is told to stop like all others, and is not one of those that are counted."""
    program = start("aide:serves", "serves", "serves", "serves")
    program.until("announced")
    assert program.lines[:2] == ["life 0", "life 1"]
    assert sorted(program.lines[2:-1]) == ["life 2", "life 3"]
    program.signal(signal.SIGTERM)
    assert program.rest() == 0
    assert sorted(program.lines[5:-1]) == sorted(
        f"{what} {number}" for what in ("ended", "stop") for number in range(4)
    )


def test_an_aide_that_dies_is_replaced_and_named(start: type[Program]) -> None:
    """The workers stay; one that fails at the start ends everything before a worker was started."""
    program = start("aide:crashes", "serves")
    assert program.rest() == 0
    assert "the aide exited with 3; another one starts now" in program.lines
    assert [line for line in program.lines if line.startswith("life 1")] == ["life 1"]
    program = start("aide:fails", "serves")
    assert program.rest() == 78
    assert not [line for line in program.lines if line.startswith("life 1")]


def test_a_worker_that_does_not_end_is_killed(start: type[Program]) -> None:
    """The parent waits for a while, then ends it and says so."""
    program = start("sticks")
    program.until("announced")
    program.signal(signal.SIGTERM)
    assert program.rest() == 1
    assert program.lines[-1] == "error worker 1 did not end in time and was killed"


def test_a_second_signal_hurries(start: type[Program]) -> None:
    """Any of the two signals may come second."""
    program = start("waits")
    program.until("announced")
    program.signal(signal.SIGINT)
    program.until("stop 1")
    program.signal(signal.SIGTERM)
    assert program.rest() == 0
    assert program.lines[-3:] == ["hurry 1", "ended 1", "over"]


def test_nobody_is_left_behind_when_the_parent_is_killed(start: type[Program]) -> None:
    """Workers are told to stop by the parent's death alone, and so close the pipe that they print to."""
    program = start("serves", "serves")
    program.until("announced")
    program.signal(signal.SIGKILL)
    assert program.rest() == -signal.SIGKILL
    assert sorted(program.lines[-2:]) == ["stop 1", "stop 2"]


def test_a_life_that_was_long_is_followed_at_once() -> None:
    """The first end in a row has no delay either; the delay doubles and has a limit."""
    assert [restart_delay_seconds(ends) for ends in range(8)] == [0, 0, 1, 2, 4, 8, 16, 30]
    assert restart_delay_seconds(10**6) == MAX_RESTART_DELAY_SECONDS


def test_a_reserved_port_is_kept_from_others_and_free_for_workers() -> None:
    """Nobody who does not mean to share gets it, whoever shares may listen, and no caller gets lost before."""
    with reserve("127.0.0.1", 0) as reserved, socket.socket() as other, socket.socket() as worker:
        address = reserved.getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address).close()
        with pytest.raises(OSError, match="in use"):
            other.bind(address)
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        worker.bind(address)
        worker.listen()
        # Every one of them arrives at the socket that listens.
        for _ in range(20):
            socket.create_connection(address).close()
            worker.accept()[0].close()


@pytest.mark.parametrize("shares", [False, True])
def test_a_port_in_use_is_refused(shares: bool) -> None:  # noqa: FBT001 - pytest passes parameters by name
    """Even one whose owner would share it: he would get some of the calls."""
    with socket.socket() as owner:
        if shares:
            owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        descriptors = set(Path("/proc/self/fd").iterdir())
        with pytest.raises(OSError, match="in use"):
            reserve(*owner.getsockname())
        assert set(Path("/proc/self/fd").iterdir()) == descriptors


def test_ipv6_is_reserved_for_itself() -> None:
    """The IPv4 port of the same number is not touched, as with a single process."""
    with reserve("::", 0) as reserved:
        assert reserved.getsockname()[0] == "::"
        assert reserved.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
