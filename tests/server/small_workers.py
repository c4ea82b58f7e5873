"""A program of two workers that serve nothing, run by `test_workers.py`: what `Workers` does, without a gateway.

Its arguments are what each worker does: `serves` until it is told to stop, `fails` at its start with exit code 78,
`dies` at its start by a signal, `crashes` each time it has said that it takes calls, `waits` until it is told to hurry,
`sticks` whatever it is told. With `aide:` before what it does, the first one is an aide. The parent prints what it is
told, one line each; its clock goes on by a minute with each report, so that no delay is waited for, and after `LIVES`
reports it asks itself to stop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

from chatgate.server.workers import Worker, WorkerError, Workers

LIVES = 9


class Parent:
    """What the parent is asked for and told."""

    def __init__(self) -> None:
        """Begin with the real time."""
        self.ahead_seconds = 0.0
        self.reports = 0

    def clock(self) -> float:
        """Return the time."""
        return time.monotonic() + self.ahead_seconds

    def announce(self) -> None:
        """Say that all take calls."""
        say("announced")

    def ended(self, number: int) -> None:
        """Say which worker ended."""
        say(f"ended {number}")

    def report(self, text: str) -> None:
        """Say what was reported, and let a minute pass."""
        say(text)
        self.ahead_seconds += 60
        self.reports += 1
        if self.reports == LIVES:
            os.kill(os.getpid(), signal.SIGTERM)


def say(text: str) -> None:
    """Print a line as one piece."""
    os.write(1, f"{text}\n".encode())


async def serve(worker: Worker, behaviour: str) -> None:
    """Be a worker."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    worker.obey(stop.set, hurry.set, lambda: say(f"reload {worker.number}"))
    worker.ready()
    if behaviour == "crashes":
        sys.exit(3)
    await stop.wait()
    say(f"stop {worker.number}")
    if behaviour == "waits":
        await hurry.wait()
        say(f"hurry {worker.number}")
    if behaviour == "sticks":
        await asyncio.sleep(15)  # Long enough for the parent, and no orphan for ever when a test fails.


def main() -> None:
    """Run parent and workers."""
    behaviours = sys.argv[1:]
    aide = behaviours[0].startswith("aide:")
    behaviours[0] = behaviours[0].removeprefix("aide:")
    parent = Parent()
    try:
        worker = Workers(
            len(behaviours) - aide,
            aide="the aide" if aide else "",
            announce=parent.announce,
            ended=parent.ended,
            report=parent.report,
            stop_seconds=0.1 if "sticks" in behaviours else 15,
            clock=parent.clock,
        ).run()
    except WorkerError as error:
        say(f"error {error}")
        sys.exit(error.exit_code)
    if worker is None:
        say("over")
        return
    behaviour = behaviours[worker.number - (not aide)]
    say(f"life {worker.number} {worker.predecessor}".rstrip())
    if behaviour == "fails":
        sys.exit(78)
    if behaviour == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    asyncio.run(serve(worker, behaviour))


if __name__ == "__main__":
    main()
