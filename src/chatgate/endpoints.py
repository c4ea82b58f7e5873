"""Who answers which operation, and what is told without asking anybody.

The model calls go to the pipeline; the rest is answered here, or by who knows. `paths` says what a URL is.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Protocol

from chatgate.paths import ADMIN, CONVERSATION, in_callers_protocol
from chatgate.protocols import openai_models, page, plain
from chatgate.protocols.anthropic import models as anthropic_models
from chatgate.protocols.gemini import models as gemini_models
from chatgate.protocols.ollama import models as ollama_models
from chatgate.protocols.ollama.call import known_name
from chatgate.refusals import JSON_TYPE
from chatgate.vocabulary.errors import CallerError, GateError, InternalError, Kind, Phrase
from chatgate.vocabulary.exchange import (
    Conversation,
    Endpoint,
    Envelope,
    Identified,
    Operation,
    Outcome,
    Reply,
    Settled,
    Surface,
    Upgrade,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatgate.administration.routes import Administration
    from chatgate.admitting import Admitting
    from chatgate.balances import Balances
    from chatgate.conversing import Conversing
    from chatgate.counting import Counting
    from chatgate.i18n import Catalogues
    from chatgate.listing import Listing
    from chatgate.paths import Table
    from chatgate.pipeline import Pipeline
    from chatgate.receiving import Receiving
    from chatgate.refusals import Refusals
    from chatgate.remembering import Remembering
    from chatgate.vocabulary.exchange import CallerPort, NoteEnd, Serve, Upload
    from chatgate.vocabulary.identity import Caller

_LOG = logging.getLogger(__name__)
_UNLOGGED = (Operation.HEALTH, Operation.READY, Operation.METRICS, Operation.PROBE)
_MODEL_CALLS = (
    Operation.CHAT,
    Operation.COMPLETION,
    Operation.EMBEDDING,
    Operation.MODERATION,
    Operation.IMAGE,
    Operation.SPEECH,
    Operation.TRANSCRIPTION,
    Operation.TRANSLATION,
)
_SERVED = (
    *_MODEL_CALLS,
    Operation.RESPONSE,
    Operation.RESPONSE_DELETION,
    Operation.RESPONSE_CANCELLATION,
    Operation.RESPONSE_ITEMS,
    Operation.COUNT_TOKENS,
    Operation.MODELS,
    Operation.MODEL,
    Operation.SUBSCRIPTION,
    Operation.USAGE,
    Operation.ADMIN,
)
_SHARED = (Operation.MODELS, Operation.MODEL)
_PAGED = {Surface.ANTHROPIC: anthropic_models, Surface.GEMINI: gemini_models}
_LISTS = {**_PAGED, Surface.OLLAMA: ollama_models}
_OPEN_TO_ALL = (Operation.HEALTH, Operation.READY, Operation.PROBE)
_SWITCHING, _OK, _UPGRADE_REQUIRED, _UNAVAILABLE = 101, 200, 426, 503
_BROWSER = b"text/html"
_PREPARATION = Endpoint(Operation.RESPONSE_PREPARATION, Surface.RESPONSES)
_KEPT = (
    Operation.RESPONSE,
    Operation.RESPONSE_DELETION,
    Operation.RESPONSE_CANCELLATION,
    Operation.RESPONSE_ITEMS,
)
_NOT_STORED = b"cache-control: no-store\r\n"
"""What administrators are told is nobody else's business, keys least of all."""


def _in_http(reply: Reply) -> Reply:
    """Return the refusal of a caller who wants to leave HTTP, so that they stay."""
    return Reply(_UPGRADE_REQUIRED, reply.headers + b"upgrade: HTTP/1.1\r\n", reply.body)


class Scrape(Protocol):
    """What renders the metrics."""

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""


class Site:
    """The pages and documents: what is answered without asking anybody."""

    def __init__(
        self,
        *,
        catalogues: Catalogues,
        metrics: Scrape,
        metrics_type: bytes,
        openapi: bytes,
        route: str,
        models: Sequence[str],
        key_needed: page.KeyNeeded,
    ) -> None:
        """`models` are named on the page, the best one first."""
        self._catalogues = catalogues
        self._metrics = metrics
        self._metrics_type = b"content-type: %b\r\n" % metrics_type
        self._openapi = openapi
        self._route = route
        self._models = models
        self._key_needed = key_needed

    def health(self) -> Reply:
        """Say that the process is alive."""
        return Reply(_OK, JSON_TYPE, b'{"status":"ok"}')

    def readiness(self, *, draining: bool) -> Reply:
        """Say whether traffic may come."""
        if draining:
            return Reply(_UNAVAILABLE, JSON_TYPE, b'{"status":"draining"}')
        return Reply(_OK, JSON_TYPE, b'{"status":"ready"}')

    def scrape(self) -> Reply:
        """Return the metrics."""
        return Reply(_OK, self._metrics_type, self._metrics.render())

    def openapi(self) -> Reply:
        """Return the description of the HTTP surface."""
        return Reply(_OK, JSON_TYPE, self._openapi)

    def page(self, identified: Identified) -> Reply:
        """Return the page that shows a person how to call. Raises `CallerError` for a program, which should POST."""
        headers = identified.envelope.headers
        if _BROWSER not in headers.get(b"accept", b""):
            raise CallerError(Kind.PERMISSION_DENIED, "get_not_allowed")
        proto = headers.get(b"x-forwarded-proto", b"http")
        scheme = "https" if proto.strip().lower() == b"https" else "http"
        root = f"{scheme}://{headers.get(b'host', b'localhost').decode('latin-1')}"
        body = page.render(
            identified.language,
            lambda code, parameters: self._catalogues.translate(identified.language, Phrase(code, parameters)),
            url=f"{root}/{self._route}",
            openai_url=f"{root}/v1",
            models=self._models,
            key_needed=self._key_needed,
            max_tokens_default=plain.MAX_TOKENS_DEFAULT,
            max_tokens_limit=plain.MAX_TOKENS_HIGH,
        )
        return Reply(_OK, page.PAGE_HEADERS, body)


class Gateway:
    """The gate that the server asks: finds the endpoint of each call and hands it to whoever answers it."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part
        self,
        *,
        table: Table,
        admitting: Admitting,
        pipeline: Pipeline,
        refusals: Refusals,
        listing: Listing,
        counting: Counting,
        balances: Balances,
        administration: Administration | None,
        remembering: Remembering,
        conversing: Conversing,
        receiving: Receiving,
        known: frozenset[str],
        site: Site,
        note_end: NoteEnd,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """Take the parts; `administration` is None where nobody may administer; `clock` is monotonic, in seconds.

        `wall_clock` counts them from the epoch.
        `known` are the names of all models that the configuration or the gateway itself names.
        """
        self._table = table
        self._admitting = admitting
        self._pipeline = pipeline
        self._refusals = refusals
        self._listing = listing
        self._counting = counting
        self._balances = balances
        self._administration = administration
        self._remembering = remembering
        self._conversing = conversing
        self._receiving = receiving
        self._known = known
        self._site = site
        self._note_end = note_end
        self._clock = clock
        self._wall_clock = wall_clock
        self.draining = False

    def arrive(self, envelope: Envelope) -> Identified | Reply:
        """Judge a request by its head: who it is and what it is for, or the answer that it gets at once."""
        address = self._admitting.locate(envelope)
        endpoint: Endpoint | None = None
        error = None
        try:
            endpoint = self._table.find(
                envelope.method, envelope.path, envelope.query, upgrades=b"upgrade" in envelope.headers
            )
            if endpoint.operation in _SHARED:
                endpoint = in_callers_protocol(endpoint, envelope.headers)
            if endpoint.operation in _OPEN_TO_ALL:
                return self._with_ids(self._answer_anyone(endpoint.operation), envelope)
            identified = self._admitting.identify(envelope, endpoint, address)
            if endpoint is ADMIN:
                self._administrator().arrive(identified)
                return identified
            if endpoint.operation in _SERVED or not (self._admitting.tells_at_once or endpoint is CONVERSATION):
                return identified
            if endpoint is CONVERSATION:
                _check_upgrade(envelope)
                return Upgrade(_SWITCHING, self._refusals.ids_of(envelope), b"", identified)
            standing = self._standing_at_once(identified.caller, address.counted_as)
            reply = self._with_ids(self._answer_at_once(identified), envelope, standing)
        except GateError as refused:
            error = refused
            surface = self._table.surface_of(envelope.path, envelope.headers)
            endpoint = endpoint or Endpoint(Operation.UNKNOWN, surface)
            standing = self._standing_at_once(None, address.counted_as)
            reply = self._refusal(endpoint.surface, error, envelope, standing)
        self._note(envelope, endpoint, address.text, reply.status, error)
        return reply

    def stands_by(self, identified: Identified) -> bool:
        """Tell whether `arrive` would say the same of another request with its head, by the same peer, now."""
        return identified.endpoint is not ADMIN and self._admitting.knows(identified.caller)

    def refuse(self, envelope: Envelope, error: GateError) -> Reply:
        """Return the answer to a request that broke a rule of the wire."""
        surface = self._table.surface_of(envelope.path, envelope.headers)
        reply = self._refusal(surface, error, envelope)
        self._note(envelope, Endpoint(Operation.UNKNOWN, surface), envelope.peer, reply.status, error)
        return reply

    def server_of(self, endpoint: Endpoint) -> Serve:
        """Return what serves the calls of an endpoint."""
        return self._pipeline.answer if endpoint.operation in _MODEL_CALLS else self._tell

    async def converse(self, identified: Identified) -> Conversation | Reply:
        """Begin a conversation over a WebSocket, or return the answer that refuses it."""
        envelope, endpoint, error = identified.envelope, identified.endpoint, None
        verdict: Conversation | Reply
        try:
            await self._admitting.know(identified)
            verdict = self._conversing.begin(envelope)
        except GateError as refused:
            error = refused
            verdict = self._refusal(endpoint.surface, error, envelope, b"", identified.language)
        status = verdict.status if isinstance(verdict, Reply) else _SWITCHING
        self._note(envelope, endpoint, identified.caller.address, status, error)
        return verdict

    async def prepare(self, identified: Identified, body: bytes) -> Reply:
        """Prepare a response that a later turn goes on from, without asking any model for an answer."""
        envelope, error = identified.envelope, None
        try:
            identified = await self._admitting.know(identified)
            reply = await self._conversing.prepare(identified, body)
        except GateError as refused:
            error = refused
            reply = self._refusal(_PREPARATION.surface, error, envelope, b"", identified.language)
        self._note(envelope, _PREPARATION, identified.caller.address, reply.status, error)
        return reply

    async def receive(self, identified: Identified, upload: Upload, port: CallerPort) -> None:
        """Answer a call whose body is still arriving."""
        content_type = identified.envelope.headers.get(b"content-type", b"").decode("latin-1")
        form, beginning = await self._receiving.begin(upload, content_type)
        try:
            await self._pipeline.answer(identified, form, port)
        finally:
            if beginning is not None:
                beginning.close()

    async def _tell(self, identified: Identified, body: bytes, port: CallerPort) -> None:
        envelope, endpoint, caller = identified.envelope, identified.endpoint, identified.caller
        error: GateError | None = None
        try:
            if endpoint is ADMIN:
                reply = await self._administrator().answer(identified, body)
            else:
                identified = await self._admitting.know(identified)
                caller = identified.caller
                reply = await self._told(identified, body)
        except GateError as refused:
            error = refused
        except Exception:  # noqa: BLE001 - the boundary: a fault of ours ends one call, and is logged
            _LOG.exception("A call failed by a fault of ours: %s", envelope.request_id)
            error = InternalError()
        standing = error.standing if error is not None else None
        if endpoint is ADMIN:
            standing = _NOT_STORED
        elif standing is None:
            told = self._admitting.standing_of(caller, caller.counted_as)
            standing = told if isinstance(told, bytes) else await told
        if error is not None:
            reply = self._refusal(endpoint.surface, error, envelope, standing, identified.language)
        else:
            reply = self._with_ids(reply, envelope, standing)
        port.reply(reply)
        self._note(envelope, endpoint, caller.address, reply.status, error)

    def _administrator(self) -> Administration:
        """Return what answers the admin API. Raises `CallerError` where there is none."""
        if self._administration is None:
            raise CallerError(Kind.NOT_FOUND, "unknown_path")
        return self._administration

    def _answer_anyone(self, operation: Operation) -> Reply:
        match operation:
            case Operation.HEALTH:
                return self._site.health()
            case Operation.READY:
                return self._site.readiness(draining=self.draining)
            case _:
                return Reply(_OK, b"", b"")

    def _answer_at_once(self, identified: Identified) -> Reply:
        match identified.endpoint.operation:
            case Operation.METRICS:
                return self._site.scrape()
            case Operation.OPENAPI:
                return self._site.openapi()
            case Operation.VERSION:
                return Reply(_OK, JSON_TYPE, ollama_models.VERSION)
            case Operation.RUNNING:
                return Reply(_OK, JSON_TYPE, ollama_models.RUNNING)
            case _:
                return self._site.page(identified)

    async def _told(self, identified: Identified, body: bytes) -> Reply:
        record = identified.caller.record
        match identified.endpoint.operation:
            case operation if operation in _KEPT:
                return Reply(_OK, JSON_TYPE, await self._of_response(identified))
            case Operation.COUNT_TOKENS:
                return await self._counting.count(identified, body)
            case Operation.SUBSCRIPTION:
                return Reply(_OK, JSON_TYPE, await self._balances.subscription(record))
            case Operation.USAGE:
                return Reply(_OK, JSON_TYPE, await self._balances.usage(record, identified.envelope.query))
            case Operation.MODELS | Operation.MODEL:
                return await self._list_models(identified, body)
            case _:
                return self._answer_at_once(identified)

    async def _of_response(self, identified: Identified) -> bytes:
        caller, response_id = identified.caller, identified.endpoint.parameter
        match identified.endpoint.operation:
            case Operation.RESPONSE_DELETION:
                return await self._remembering.delete(caller, response_id)
            case Operation.RESPONSE_CANCELLATION:
                return await self._remembering.cancel(caller, response_id)
            case Operation.RESPONSE_ITEMS:
                return await self._remembering.show_items(caller, response_id, identified.envelope.query)
            case _:
                return await self._remembering.show(caller, response_id)

    async def _list_models(self, identified: Identified, body: bytes) -> Reply:
        caller, wanted = identified.caller, identified.endpoint.parameter
        surface = identified.endpoint.surface
        take = functools.partial(self._admitting.take, caller)
        if surface is Surface.OLLAMA and identified.endpoint.operation is Operation.MODEL:
            wanted = known_name(ollama_models.asked_model(body), self._known)
        if identified.endpoint.operation is Operation.MODEL:
            if not self._admitting.may_ask(caller, wanted):
                raise CallerError(Kind.PERMISSION_DENIED, "key_model_not_allowed", parameters={"model": wanted[:100]})
            found = await self._listing.one(wanted, caller.key, take)
            return Reply(_OK, JSON_TYPE, _LISTS.get(surface, openai_models).encode_entry(found))
        entries = await self._listing.all(caller.key, take)
        allowed = tuple(entry for entry in entries if self._admitting.may_ask(caller, entry["id"]))
        if surface is Surface.OLLAMA:
            return Reply(_OK, JSON_TYPE, ollama_models.encode_list(allowed))
        if (paged := _PAGED.get(surface)) is not None:
            return Reply(_OK, JSON_TYPE, paged.encode_list(allowed, identified.envelope.query))
        return Reply(_OK, JSON_TYPE, openai_models.encode_list(allowed))

    def _standing_at_once(self, caller: Caller | None, counted_as: int) -> bytes:
        """Return where a caller stands, nothing where that has to be asked: no answer to a head waits for it."""
        if not self._admitting.tells_at_once:
            return b""
        standing = self._admitting.standing_of(caller, counted_as)
        return standing if isinstance(standing, bytes) else b""

    def _with_ids(self, reply: Reply, envelope: Envelope, standing: bytes = b"") -> Reply:
        return Reply(reply.status, self._refusals.ids_of(envelope) + standing + reply.headers, reply.body)

    def _refusal(
        self, surface: Surface, error: GateError, envelope: Envelope, more: bytes = b"", language: str = ""
    ) -> Reply:
        if surface is Surface.ADMIN:
            more = _NOT_STORED
        if error.kind is Kind.METHOD_NOT_ALLOWED:
            more += b"allow: %b\r\n" % str(error.parameters["allowed"]).encode()
        language = language or self._refusals.language_of(envelope.headers)
        reply = self._refusals.reply(surface, error, language, envelope, more)
        # RFC 9110 section 15.5.22 (read 2026-11-23). Codex, for one, goes on over HTTP then, and after 405 does not.
        return _in_http(reply) if error.reason == "no_websocket" else reply

    def _note(self, envelope: Envelope, endpoint: Endpoint, address: str, status: int, error: GateError | None) -> None:
        """Note how a call ended that asked no model; probes are not worth a line."""
        if endpoint.operation in _UNLOGGED:
            return
        settled = Settled(
            request_id=envelope.request_id,
            operation=endpoint.operation,
            surface=endpoint.surface,
            address=address,
            model="",
            upstream="",
            status=status,
            outcome=Outcome.COMPLETED if error is None else Outcome.REFUSED,
            code="" if error is None else error.kind,
            stream=False,
            duration_ms=round((self._clock() - envelope.arrived_at) * 1000, 3),
        )
        self._note_end((self._wall_clock(), settled))


def _check_upgrade(envelope: Envelope) -> None:
    """Refuse what would go on in another protocol, and pages of other sites: for a WebSocket no browser asks first.

    Raises `CallerError`.
    """
    headers = envelope.headers
    if headers[b"upgrade"].lower() != b"websocket":
        parameters = {"method": envelope.method, "allowed": "POST"}
        raise CallerError(Kind.METHOD_NOT_ALLOWED, "no_websocket", parameters=parameters)
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] != headers.get(b"host"):
        raise CallerError(Kind.PERMISSION_DENIED, "origin_not_allowed")
