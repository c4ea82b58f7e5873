"""Several processes on one port: a parent that takes no calls, and the workers that it starts, watches and stops.

Parent and worker share two pipes and nothing else. Orders go down one: reload, stop, hurry, and its end, which only
comes when the parent is dead, means the last two. The other goes up: a byte when the worker takes calls, and its end
when the worker is dead. So neither needs to poll, nobody is left behind, and a signal that a terminal or a supervisor
sends to every process is no second order.

The parent forks, hence it must have no thread and no loop. It knows nothing of calls. `app` asks for the workers, and
is what runs in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

STEADY_SECONDS: Final = 10.0
"""A worker that lived so long did not die of how it was started."""

MAX_RESTART_DELAY_SECONDS: Final = 30.0

HURRY_SECONDS: Final = 8.0
"""How long a worker that was told to hurry may still take; then it is killed."""

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_SIGNALS: Final = (*_STOP_SIGNALS, signal.SIGHUP)
_READY: Final = b"r"
_STOP: Final = b"s"
_HURRY: Final = b"h"
_RELOAD: Final = b"u"
_NEVER: Final = float("inf")
_STANDARD_INPUT: Final = 0


class WorkerError(Exception):
    """The workers could not be started or stopped; `str()` says why, "" when a worker has said it itself."""

    def __init__(self, why: str, exit_code: int = 1) -> None:
        """Keep the exit code that the parent is to end with."""
        super().__init__(why)
        self.exit_code = exit_code


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port for the workers, and does not listen; port 0 takes a free one.

    Raises `OSError` when the address cannot be had. Several sockets may share a port, so another gateway's would not
    be in the way: the first attempt, with a socket that does not share, finds out.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with _bound(family, address) as probe:
        address = probe.getsockname()
    return _bound(family, address, shares_port=True)


def _bound(family: int, address: tuple[Any, ...], *, shares_port: bool = False) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shares_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def restart_delay_seconds(quick_ends: int) -> float:
    """Return how long to wait after so many ends in a row that each came soon after the start: 0, 0, 1, 2, 4 … 30."""
    return 0.0 if quick_ends <= 1 else min(MAX_RESTART_DELAY_SECONDS, 2.0 ** min(quick_ends - 2, 10))


class Worker:
    """What a worker has of its parent."""

    def __init__(self, number: int, predecessor: str, orders: int, reports: int) -> None:
        """Take both pipes. `number` counts from 1, `predecessor` says how the one before ended, "" for the first."""
        self.number = number
        self.predecessor = predecessor
        self._orders = orders
        self._reports = reports

    def ready(self) -> None:
        """Tell the parent that calls are taken."""
        with contextlib.suppress(BrokenPipeError):  # The parent is dead, as the orders will say.
            os.write(self._reports, _READY)

    def obey(self, stop: Callable[[], None], hurry: Callable[[], None], reload: Callable[[], None]) -> None:
        """Have the running loop call these when the parent says so; the first two when it is dead."""
        loop = asyncio.get_running_loop()

        def on_order() -> None:
            order = os.read(self._orders, 1)
            if order == _RELOAD:
                reload()
            if order in {_STOP, b""}:
                stop()
            if order in {_HURRY, b""}:
                hurry()
            if not order:
                loop.remove_reader(self._orders)

        loop.add_reader(self._orders, on_order)


class _Place:
    """The place of a worker, which one process after another fills. Without one `pid` is 0."""

    __slots__ = (
        "is_ready",
        "name",
        "number",
        "orders",
        "pid",
        "predecessor",
        "quick_ends",
        "reports",
        "start_at",
        "started_at",
    )

    def __init__(self, number: int, name: str = "") -> None:
        self.number = number
        self.name = name or f"worker {number}"
        self.pid = 0
        self.orders = self.reports = -1
        self.is_ready = False
        self.predecessor = ""
        self.quick_ends = 0
        self.start_at = _NEVER
        self.started_at = 0.0

    def order(self, order: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # It is dead, as its reports will say.
            os.write(self.orders, order)

    def close(self) -> None:
        for descriptor in (self.orders, self.reports):
            if descriptor >= 0:
                os.close(descriptor)
        self.orders = self.reports = -1


class Workers:
    """The parent's side."""

    def __init__(
        self,
        count: int,
        *,
        announce: Callable[[], None],
        ended: Callable[[int], None],
        report: Callable[[str], None],
        stop_seconds: float,
        aide: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare `count` workers.

        With `aide`, a name for the operator, there is one process more, worker 0, which takes no calls and starts
        before the others; it is looked after like them, and has to end by itself when they have. `announce` is called
        once, when all take calls; `ended` with the number of each that died; `report` with what an operator should
        know. A worker may take `stop_seconds` to end after it was told to. `clock` is monotonic.
        """
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._alone = 1
        if aide:
            self._places.insert(0, _Place(0, aide))
            self._alone = 2
        self._announce = announce
        self._ended = ended
        self._report = report
        self._stop_seconds = stop_seconds
        self._clock = clock
        self._is_announced = False
        self._is_stopping = False
        self._kill_at = _NEVER
        self._failure: WorkerError | None = None
        self._signals, self._signals_in = -1, -1
        self._had_terminal = os.isatty(_STANDARD_INPUT)

    def run(self) -> Worker | None:
        """Start the workers and watch over them until a signal says to stop; a second one says to hurry.

        Returns in every worker, there with what it has of its parent, and in the parent when all of them ended, there
        with None. Raises `WorkerError` in the parent when one fails before all took calls, and when one had to be
        killed at the end.
        """
        self._listen()
        # The aide and the first one start alone: what is wrong with all of them is said once.
        self._places[0].start_at = self._clock()
        while not self._is_stopping or any(place.pid for place in self._places):
            for place in self._places:
                if self._clock() >= place.start_at and (worker := self._start(place)) is not None:
                    return worker
            self._wait()
        self._stop_listening()
        if self._failure is not None:
            raise self._failure
        return None

    def _listen(self) -> None:
        """Turn signals into bytes of a pipe, which can be waited for together with the reports."""
        self._signals, self._signals_in = os.pipe()
        os.set_blocking(self._signals_in, False)
        signal.set_wakeup_fd(self._signals_in)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)

    def _stop_listening(self) -> None:
        # Until a worker's loop takes its signals they may be lost: orders come through the pipe.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(self._signals)
        os.close(self._signals_in)

    def _start(self, place: _Place) -> Worker | None:
        """Fork; return None in the parent."""
        place.start_at, place.started_at, place.is_ready = _NEVER, self._clock(), False
        sys.stdout.flush()
        sys.stderr.flush()
        orders, place.orders = os.pipe()
        place.reports, reports = os.pipe()
        # A signal between the fork and the child's own mind about signals would be taken for one of the parent's.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._stop_listening()
                # A copy of another worker's pipe would keep that one from seeing the parent's end.
                for each in self._places:
                    each.close()
                return Worker(place.number, place.predecessor, orders, reports)
        except OSError as error:
            self._note_failed_start(place, error)
        else:
            place.pid = pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(orders)
        os.close(reports)
        return None

    def _wait(self) -> None:
        """Wait until something happens or is due, and deal with it."""
        running = {place.reports: place for place in self._places if place.pid}
        poll = select.poll()
        for descriptor in (self._signals, *running):
            poll.register(descriptor, select.POLLIN)
        due = min(self._kill_at, *(place.start_at for place in self._places))
        for descriptor, _ in poll.poll(None if due == _NEVER else max(0.0, due - self._clock()) * 1000):
            if descriptor == self._signals:
                for number in os.read(self._signals, 64):
                    if number in _STOP_SIGNALS:
                        self._stop()
                    elif number == signal.SIGHUP:
                        self._reload()
            elif os.read(descriptor, 1) == _READY:
                self._note_ready(running[descriptor])
            else:
                self._note_end(running[descriptor])
        if self._clock() >= self._kill_at:
            self._kill()

    def _note_ready(self, place: _Place) -> None:
        place.is_ready = True
        if self._is_announced or self._is_stopping:
            return
        alone = self._places.index(place) + 1
        if alone < self._alone:
            self._places[alone].start_at = self._clock()
        elif alone == self._alone:
            for other in self._places[alone:]:
                other.start_at = self._clock()
        if all(each.is_ready for each in self._places):
            self._is_announced = True
            self._announce()

    def _note_end(self, place: _Place) -> None:
        _, status = os.waitpid(place.pid, 0)
        place.close()
        place.pid = 0
        self._ended(place.number)
        if self._is_stopping:
            return
        code = os.waitstatus_to_exitcode(status)
        place.predecessor = f"ended by signal {-code}" if code < 0 else f"exited with {code}"
        if not self._is_announced:
            told = code > 0
            why = "" if told else f"{place.name} {place.predecessor} before it took calls"
            self._failure = WorkerError(why, code if told else 1)
            self._stop()
            self._stop()
            return
        self._start_again(place, place.predecessor)

    def _note_failed_start(self, place: _Place, error: OSError) -> None:
        """Try again when the machine may have recovered; it has no memory or no process left."""
        place.close()
        why = f"cannot be started: {error.strerror}"
        if not self._is_announced:
            raise WorkerError(f"{place.name} {why}") from error
        self._start_again(place, why)

    def _start_again(self, place: _Place, why: str) -> None:
        now = self._clock()
        place.quick_ends = place.quick_ends + 1 if now - place.started_at < STEADY_SECONDS else 0
        delay_seconds = restart_delay_seconds(place.quick_ends)
        place.start_at = now + delay_seconds
        when = f"in {delay_seconds:g} s" if delay_seconds else "now"
        self._report(f"{place.name} {why}; another one starts {when}")

    def _stop(self) -> None:
        """Tell all workers to stop; the second time, to hurry."""
        order = _HURRY if self._is_stopping else _STOP
        grace_seconds = HURRY_SECONDS if self._is_stopping else self._stop_seconds
        self._is_stopping = True
        self._kill_at = min(self._kill_at, self._clock() + grace_seconds)
        for place in self._places:
            place.start_at = _NEVER
            if place.pid:
                place.order(order)

    def _reload(self) -> None:
        """Tell all workers to read the configuration again, unless the terminal has gone: then to stop."""
        if self._had_terminal and not os.isatty(_STANDARD_INPUT):
            self._stop()
            return
        for place in self._places:
            if place.pid:
                place.order(_RELOAD)

    def _kill(self) -> None:
        self._kill_at = _NEVER
        for place in self._places:
            if place.pid:
                os.kill(place.pid, signal.SIGKILL)
                self._failure = self._failure or WorkerError(f"{place.name} did not end in time and was killed")
