"""The composition root: settings in, a running gateway out. The only place that builds real objects."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from msgspec import structs

from chatgate.admission.addresses import Addresses
from chatgate.admission.keys import Door
from chatgate.admission.limits import WINDOW_SECONDS, Limits, Rule
from chatgate.endpoints import Gateway, Site, Table
from chatgate.i18n import LANGUAGES, Catalogues, language_of_locale
from chatgate.listing import Listing, Upstreams
from chatgate.pipeline import Dialect, Pipeline
from chatgate.protocols import openai_models, openapi
from chatgate.protocols.openai_chat import OpenAIDialect
from chatgate.protocols.plain import PlainDialect
from chatgate.providers import demo, spec
from chatgate.providers.demo import Demo
from chatgate.providers.requests import Requests
from chatgate.refusals import Refusals
from chatgate.routing import Routing
from chatgate.server import Server
from chatgate.server.workers import Worker, Workers, reserve
from chatgate.telemetry import Log, LogHandler, Metrics, Redaction, Share, Shared
from chatgate.telemetry.metrics import CONTENT_TYPE
from chatgate.transport import Transport
from chatgate.vocabulary.exchange import Surface
from chatgate.vocabulary.upstreams import Target, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chatgate.protocols.page import KeyNeeded
    from chatgate.settings import Settings
    from chatgate.vocabulary.exchange import Sender

DRAIN_SECONDS = 25.0
"""How long calls may go on after the signal to stop; below the 30 s after which most supervisors kill."""

LISTENER_GRACE_SECONDS = 2.0
"""How long the port stays open after the signal, so that a load balancer sees `/readyz` turn."""

LOG_SECONDS = 0.1
"""How often gathered log lines are handed to the writer."""

END_SECONDS = 10.0
"""How long a worker may take beyond the drain, to say farewell and to write its last lines."""

_STANDARD_OUTPUT = 1


def _write_to_standard_output(data: bytes) -> None:
    while data:
        data = data[os.write(_STANDARD_OUTPUT, data) :]


def plain_model(settings: Settings, catalogue: Mapping[str, spec.Provider]) -> str:
    """Return what the plain API asks for when nobody names a model."""
    if settings.default_model is not None:
        return settings.default_model
    if settings.models:
        return settings.models[0].name
    provider = catalogue[settings.upstreams[0].provider]
    return provider.small_model or catalogue["openai"].small_model or demo.MODELS[0]


class App:
    """A gateway, built and not yet running."""

    def __init__(
        self,
        settings: Settings,
        *,
        write_log: Callable[[bytes], object] = _write_to_standard_output,
        share: Share | None = None,
    ) -> None:
        """Build every part. Raises `CatalogueError`; opens nothing but the log's thread.

        `share` is what this process counts in when it is one of several workers.
        """
        catalogue = spec.load()
        upstreams = tuple(_completed(upstream, catalogue) for upstream in settings.upstreams)
        default = upstreams[0]
        models = _targets(settings, {upstream.name: upstream for upstream in upstreams})
        self.default_model = plain_model(settings, catalogue)
        routing = Routing(models, default_upstream=default, reserved_prefix=demo.PREFIX)
        redaction = Redaction(settings.secrets())
        self._log = Log(
            share.alone(write_log) if share else write_log, redaction, worker=share.number if share else None
        )
        self._transport = Transport()
        self._metrics = metrics = Metrics(
            (*routing.names, self.default_model),
            {
                "connections": ("Open connections of callers.", lambda: self.server.connections),
                "calls_in_flight": ("Calls being served.", lambda: self.server.in_flight),
                "upstream_connections": (
                    "Open connections to upstreams.",
                    lambda: self._transport.open_connections,
                ),
                "upstream_connections_idle": (
                    "Connections to upstreams that wait for a call.",
                    lambda: self._transport.idle_connections,
                ),
            },
            share,
        )
        observers = (self._log, metrics)
        catalogues = Catalogues()
        dialects: dict[Surface, Dialect] = {
            Surface.PLAIN: PlainDialect(self.default_model),
            Surface.OPENAI: OpenAIDialect(),
        }
        keys_url = (catalogue[default.provider].keys_url or catalogue["openai"].keys_url) or ""
        language = language_of_locale(settings.server.language) or LANGUAGES[0]
        refusals = Refusals(catalogues, dialects, language, keys_url)
        everyone = (*upstreams, demo.UPSTREAM)
        requests = {upstream.name: Requests(upstream, settings.timeouts) for upstream in everyone}
        senders: dict[str, Sender] = {upstream.name: self._transport for upstream in upstreams}
        senders[demo.UPSTREAM.name] = Demo()
        pipeline = Pipeline(
            dialects=dialects,
            refusals=refusals,
            addresses=Addresses(settings.access.allow, settings.server.trusted_proxies),
            door=Door(anonymous=settings.access.anonymous),
            limits=Limits(
                [Rule(rule.amount, WINDOW_SECONDS[rule.per], rule.per) for rule in settings.limits],
                time.monotonic_ns,
            ),
            routing=routing,
            requests=requests,
            senders=senders,
            redaction=redaction,
            observers=observers,
            clock=time.monotonic,
            wall_clock=time.time,
        )
        self.gateway = Gateway(
            table=Table(settings.server.route),
            pipeline=pipeline,
            refusals=refusals,
            listing=Listing(
                [openai_models.entry(name, targets[0].upstream.name) for name, targets in models.items()],
                Upstreams(requests[default.name], self._transport) if routing.is_open else None,
                [openai_models.entry(self.default_model, default.name)],
                time.monotonic,
            ),
            site=Site(
                catalogues=catalogues,
                metrics=metrics,
                metrics_type=CONTENT_TYPE,
                openapi=openapi.describe(settings.server.route),
                route=settings.server.route,
                models=((self.default_model, *routing.names) if routing.is_open else routing.names),
                key_needed=_key_needed(settings, default),
            ),
            observers=observers,
            clock=time.monotonic,
        )
        self.server = Server(self.gateway)

    async def run(
        self, host: str, port: int, announce: Callable[[str, int], None], worker: Worker | None = None
    ) -> None:
        """Serve until a signal says to stop, then drain; a second signal hurries.

        `announce` is called with the bound address once calls are taken. A worker shares the port with others, and
        takes its orders from its parent. Raises `OSError` when the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        hurry = asyncio.Event()

        def on_signal() -> None:
            (hurry if stop.is_set() else stop).set()

        self._transport.start()
        try:
            address = await self.server.start(host, port, reuse_port=worker is not None)
            for number in (signal.SIGTERM, signal.SIGINT):
                # A signal may reach a worker besides its parent's order, which is then no second one.
                loop.add_signal_handler(number, stop.set if worker else on_signal)
            if worker is not None:
                worker.obey(stop.set, hurry.set)
            self._route_records()
            announce(*address)
            flushing = asyncio.create_task(self._keep_flushing())
            replaced = {"replaces": worker.predecessor} if worker and worker.predecessor else {}
            self._log.event("started", host=address[0], port=address[1], **replaced)
            await stop.wait()
            self.gateway.draining = True
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
            flushing.cancel()
        finally:
            await self._transport.close()
            self._log.event("stopped")
            self._log.close()

    def _route_records(self) -> None:
        """Send what the standard library and the server log into our log."""
        root = logging.getLogger()
        root.handlers[:] = [LogHandler(self._log)]
        root.setLevel(logging.WARNING)

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(LOG_SECONDS)
            self._log.flush()
            self._metrics.publish()


def _completed(upstream: Upstream, catalogue: Mapping[str, spec.Provider]) -> Upstream:
    """Return the upstream with what the catalogue knows about its provider."""
    parameters = catalogue[upstream.provider].parameters  # The settings were read with the catalogue's names.
    return structs.replace(upstream, renamed=parameters.rename, additions=parameters.add)


def _targets(settings: Settings, upstreams: Mapping[str, Upstream]) -> dict[str, tuple[Target, ...]]:
    """Return the models of the configuration, and the demo models behind them."""
    models = {
        model.name: tuple(Target(upstreams[target.upstream], target.model or model.name) for target in model.targets)
        for model in settings.models
    }
    return models | {name: (Target(demo.UPSTREAM),) for name in demo.MODELS}


def _key_needed(settings: Settings, default: Upstream) -> KeyNeeded:
    if not settings.access.anonymous:
        return "always"
    return "except_demo" if default.key_needed and not default.api_key else "never"


def serve(settings: Settings, announce: Callable[[str, str, int], None]) -> None:
    """Run a gateway until it is told to stop.

    `announce` is called once calls are taken, with the plain API's model and the bound address. Raises what `App` and
    `App.run` raise, and `WorkerError`.
    """
    import uvloop  # noqa: PLC0415 - only the serving process needs it

    server = settings.server
    if server.workers > 1:
        _serve_by_workers(settings, announce)
        return
    app = App(settings)

    def announced(host: str, port: int) -> None:
        announce(app.default_model, host, port)
        sys.stdout.flush()

    uvloop.run(app.run(server.host, server.port, announced))


def _serve_by_workers(settings: Settings, announce: Callable[[str, str, int], None]) -> None:
    """Do what `serve` says, in several processes; this function returns in each of them."""
    import uvloop  # noqa: PLC0415 - as above; the workers find it loaded

    server = settings.server
    default_model = plain_model(settings, spec.load())
    shared = Shared(server.workers)
    with reserve(server.host, server.port) as reserved:
        host, port = reserved.getsockname()[:2]

        def announced() -> None:
            announce(default_model, host, port)
            sys.stdout.flush()
            shared.unlock()

        # The workers' first lines wait until the banner is out.
        shared.lock()
        worker = Workers(
            server.workers,
            announce=announced,
            ended=lambda number: shared.share(number).clear_gauges(),
            report=_say,
            stop_seconds=DRAIN_SECONDS + END_SECONDS,
        ).run()
        if worker is not None:
            app = App(settings, share=shared.share(worker.number))
            uvloop.run(app.run(server.host, port, lambda *_: worker.ready(), worker))


def _say(text: str) -> None:
    sys.stderr.write(f"chatgate: {text}\n")
    sys.stderr.flush()
