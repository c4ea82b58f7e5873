"""The life of the process: start, signals, new configurations, drain, end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chatgate.app.assembly import Parts, assemble, plain_model, wrong_keys
from chatgate.app.keeping import Keeping
from chatgate.app.reloading import Reloading
from chatgate.attempts.leaving import Leaving
from chatgate.bursts import Burst
from chatgate.counters.doorway import Doorway
from chatgate.counters.hosting import Host
from chatgate.counters.link import Link
from chatgate.counters.notes import Notes
from chatgate.i18n import Catalogues
from chatgate.providers import spec
from chatgate.receiving import Receiving
from chatgate.server import Server
from chatgate.server.workers import Worker, Workers, reserve
from chatgate.telemetry import MOST_UNCOUNTED, Calls, Log, LogHandler, Metrics, Redaction, Share, Shared
from chatgate.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from chatgate.settings import Settings

DRAIN_SECONDS = 25.0
"""How long calls may go on after the signal to stop; below the 30 s after which most supervisors kill."""

LISTENER_GRACE_SECONDS = 2.0
"""How long the port stays open after the signal, so that a load balancer sees `/readyz` turn."""

TICK_SECONDS = 0.1
"""How often gathered log lines are handed to the writer, and silent streams looked after."""

END_SECONDS = 10.0
"""How long a worker may take beyond the drain, to say farewell and to write its last lines."""

COUNTING_NAME = "chatgate-counts"
"""What the process that counts for the workers is called in lists of processes."""

_STANDARD_INPUT, _STANDARD_OUTPUT = 0, 1
_STOPPING = (signal.SIGTERM, signal.SIGINT)


def _write_to_standard_output(data: bytes) -> None:
    while data:
        data = data[os.write(_STANDARD_OUTPUT, data) :]


class App:
    """A gateway, built and not yet running."""

    def __init__(
        self,
        settings: Settings,
        *,
        write_log: Callable[[bytes], object] = _write_to_standard_output,
        share: Share | None = None,
        link: Link | None = None,
    ) -> None:
        """Build every part, and open what the data directory keeps.

        When this process is one of several workers, `share` is what it counts in, and `link` its way to the owner of
        the counters. Raises `CatalogueError`, and what `Keeping` raises.
        """
        self._keeping = Keeping(settings, share.number if share else 1, link, self._note_store)
        self._log = Log(
            share.alone(write_log) if share else write_log,
            Redaction(settings.secrets()),
            worker=share.number if share else None,
        )
        self._transport = Transport()
        self._metrics = Metrics(
            {
                "connections": ("Open connections of callers.", lambda: self.server.connections),
                "calls_in_flight": ("Calls being served.", lambda: self.server.in_flight),
                "answers_drained": ("Answers read on for callers who left.", lambda: self._parts.leaving.draining),
                "upstream_connections": (
                    "Open connections to upstreams.",
                    lambda: self._transport.open_connections,
                ),
                "upstream_connections_idle": (
                    "Connections to upstreams that wait for a call.",
                    lambda: self._transport.idle_connections,
                ),
                "ledger_waiting_bytes": (
                    "What the journal holds and the database does not yet.",
                    lambda: self._keeping.book.gauges.waiting_bytes,
                ),
                "ledger_lag_seconds": (
                    "How long ago the database had everything.",
                    lambda: self._keeping.book.gauges.lag_seconds,
                ),
                "ledger_lost_records": (
                    "Records that neither the disk nor the memory had room for.",
                    lambda: self._keeping.book.gauges.lost,
                ),
                "ledger_unpriced_calls": (
                    "Calls that nobody knew a price for.",
                    lambda: self._keeping.book.gauges.unpriced,
                ),
                "limits_degraded": (
                    "Processes that count limits for themselves, because Redis cannot be asked.",
                    lambda: self._keeping.is_degraded,
                ),
                "reload_failed": (
                    "1 when the configuration was changed and could not be used.",
                    lambda: self._reload_failed,
                ),
            },
            share,
        )
        # What one of several workers has counted, the others tell of.
        self._calls = Calls(self._log, self._metrics, most_uncounted=0 if share else MOST_UNCOUNTED)
        self._reload_failed = False
        self._parts = Parts(
            self._log,
            self._metrics,
            self._calls.note,
            self._transport,
            Catalogues(),
            Leaving(),
            set(),
            self._keeping,
            Receiving(settings.data),
            wrong_keys(),
        )
        self._snapshot = assemble(settings, self._parts)
        burst = Burst()
        self._keeping.book.gather(burst)
        self.server = Server(self._snapshot.gateway, burst=burst)

    @property
    def default_model(self) -> str:
        """Return what the plain API asks for when nobody names a model."""
        return self._snapshot.default_model

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int, *, reuse_port: bool = False) -> AsyncIterator[tuple[str, int]]:
        """Take calls, and give the bound address; the end ends everything that is open then.

        Raises `OSError` when the address cannot be had.
        """
        self._transport.start()
        ticking: asyncio.Task[None] | None = None
        try:
            self._keeping.start()
            await self._keeping.caught_up()
            address = await self.server.start(host, port, reuse_port=reuse_port)
            ticking = asyncio.create_task(self._keep_ticking())
            yield address
            await self.server.drain(0.0, listener_grace_seconds=0.0)
        finally:
            if ticking is not None:
                ticking.cancel()
            await self._parts.leaving.close()
            await self._transport.close()
            await self._keeping.close()
            self._calls.tell()
            self._log.event("stopped")
            self._log.close()

    async def run(
        self,
        host: str,
        port: int,
        announce: Callable[[str, int], None],
        load: Callable[[], Settings],
        worker: Worker | None = None,
    ) -> None:
        """Serve until a signal says to stop, then drain; a second signal hurries.

        `announce` is called with the bound address once calls are taken. `load` reads the configuration anew when it
        was changed, or raises `SettingsError`. A worker shares the port with others, and takes its orders from its
        parent. Raises `OSError` when the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        hurry = asyncio.Event()
        reloading = Reloading(self, load)
        had_terminal = os.isatty(_STANDARD_INPUT)

        def on_signal() -> None:
            (hurry if stop.is_set() else stop).set()

        def on_hang_up() -> None:
            # A terminal that was closed is a wish to end; without one the signal is an order of the operator's.
            if had_terminal and not os.isatty(_STANDARD_INPUT):
                stop.set()
            else:
                reloading.ask()

        async with self.listening(host, port, reuse_port=worker is not None) as address:
            for number in _STOPPING:
                # A signal may reach a worker besides its parent's order, which is then no second one.
                loop.add_signal_handler(number, stop.set if worker else on_signal)
            loop.add_signal_handler(signal.SIGHUP, _pass if worker else on_hang_up)
            if worker is not None:
                worker.obey(stop.set, hurry.set, reloading.ask)
            self._route_records()
            announce(*address)
            replaced = {"replaces": worker.predecessor} if worker and worker.predecessor else {}
            self._log.event("started", host=address[0], port=address[1], **replaced)
            watching = asyncio.create_task(reloading.watch())
            await stop.wait()
            watching.cancel()
            self._snapshot.gateway.draining = True
            self._log.event("draining", calls=self.server.in_flight)
            draining = asyncio.create_task(
                self.server.drain(DRAIN_SECONDS, listener_grace_seconds=LISTENER_GRACE_SECONDS)
            )
            hurrying = asyncio.create_task(hurry.wait())
            await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
            if not draining.done():
                await self.server.drain(0.0, listener_grace_seconds=0.0)
            await draining
            hurrying.cancel()
        # Who asks once more while the process ends gets a clean end all the same: nothing is under way any more.
        for number in _STOPPING:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    @property
    def settings(self) -> Settings:
        """Return the configuration that new calls get."""
        return self._snapshot.settings

    def adopt(self, settings: Settings) -> None:
        """Let new calls have another configuration; those under way keep theirs.

        Raises what `assemble` raises; nothing has changed then.
        """
        self._snapshot = assemble(settings, self._parts, self._snapshot)
        self.server.gate = self._snapshot.gateway

    def note_reload(self, problem: str | None, *, ignored: tuple[str, ...] = ()) -> None:
        """Tell the log and the metrics how a reload went; `ignored` names what only a restart changes."""
        self._reload_failed = problem is not None
        if problem is not None:
            self._log.event("reload_failed", "error", problem=problem)
        else:
            self._log.event("reloaded", **({"needs_restart": ", ".join(ignored)} if ignored else {}))

    def _note_store(self, problem: str) -> None:
        """Tell the log that Redis cannot be asked, or, with "", that it can be again."""
        if problem:
            self._log.event("limits_degraded", "warning", problem=problem, share=f"1/{self._keeping.processes}")
        else:
            self._log.event("limits_shared")

    def _route_records(self) -> None:
        """Send what the standard library and the server log into our log."""
        root = logging.getLogger()
        root.handlers[:] = [LogHandler(self._log)]
        root.setLevel(logging.WARNING)

    async def _keep_ticking(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._tick(clock())

    def _tick(self, now: float) -> None:
        for stream in list(self._parts.streams):
            stream.tick(now)
        self._calls.tell()
        self._log.flush()
        self._metrics.publish()


def _pass() -> None:
    """Do nothing: the order comes from the parent."""


def serve(settings: Settings, announce: Callable[[str, str, int], None], load: Callable[[], Settings]) -> None:
    """Run a gateway until it is told to stop.

    `announce` is called once calls are taken, with the plain API's model and the bound address. `load` reads the
    configuration anew. Raises what `App` and `App.run` raise, and `WorkerError`.
    """
    import uvloop  # noqa: PLC0415 - only the serving process needs it

    server = settings.server
    _calm_collector()
    if server.workers > 1:
        _serve_by_workers(settings, announce, load)
        return
    app = App(settings)

    def announced(host: str, port: int) -> None:
        announce(app.default_model, host, port)
        sys.stdout.flush()

    uvloop.run(app.run(server.host, server.port, announced, load))


def _calm_collector() -> None:
    """Have Python look for cycles less often: calls leave none, and each look goes through all that is young."""
    gc.set_threshold(20_000, 50, 100)


def _serve_by_workers(
    settings: Settings, announce: Callable[[str, str, int], None], load: Callable[[], Settings]
) -> None:
    """Do what `serve` says, in several processes; this function returns in each of them."""
    import uvloop  # noqa: PLC0415 - as above; the workers find it loaded

    server = settings.server
    default_model = plain_model(settings, spec.load())
    shared = Shared(server.workers)
    with (
        reserve(server.host, server.port) as reserved,
        contextlib.closing(Doorway()) as doorway,
        contextlib.closing(Notes()) as notes,
    ):
        host, port = reserved.getsockname()[:2]

        def announced() -> None:
            announce(default_model, host, port)
            sys.stdout.flush()
            shared.unlock()

        def ended(number: int) -> None:
            if number:
                shared.share(number).clear_gauges()

        # The workers' first lines wait until the banner is out.
        shared.lock()
        worker = Workers(
            server.workers,
            # With Redis, each of them counts there.
            aide="" if settings.redis else "the process that counts limits",
            announce=announced,
            ended=ended,
            report=_say,
            stop_seconds=DRAIN_SECONDS + END_SECONDS,
        ).run()
        if worker is None:
            return
        if worker.number:
            link = None if settings.redis else Link(doorway.connect)
            app = App(settings, share=shared.share(worker.number), link=link)
            uvloop.run(app.run(server.host, port, lambda *_: worker.ready(), load, worker))
        else:
            reserved.close()
            with contextlib.suppress(OSError):
                Path("/proc/self/comm").write_text(COUNTING_NAME, encoding="ascii")
            uvloop.run(_own_counters(doorway, notes, worker))


async def _own_counters(doorway: Doorway, notes: Notes, worker: Worker) -> None:
    """Count for the workers until the parent says to stop, or is dead, and all of them have ended."""
    stopped = asyncio.Event()
    worker.obey(stopped.set, stopped.set, _pass)
    host = Host(doorway, notes)
    host.open()
    worker.ready()
    await host.run(stopped)


def _say(text: str) -> None:
    sys.stderr.write(f"chatgate: {text}\n")
    sys.stderr.flush()
