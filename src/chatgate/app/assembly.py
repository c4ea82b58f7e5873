"""Builds what one configuration makes: settings in, a gateway out. The only place that builds real objects.

`Parts` live as long as the process; a `Snapshot` as long as its configuration, and the calls that began under it keep
it. What a new snapshot can go on with, it takes from its predecessor: limits, circuits, conversations.
"""

from __future__ import annotations

import functools
import random
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from chatgate.administration import description
from chatgate.administration.desk import Desk
from chatgate.administration.door import MAX_ADDRESSES, WRONG_KEYS_PER_MINUTE, Admin
from chatgate.administration.door import Door as AdminDoor
from chatgate.administration.routes import Administration
from chatgate.admission.address_limits import AddressLimits
from chatgate.admission.addresses import Addresses
from chatgate.admission.keys import Door
from chatgate.admission.rules import rule_of
from chatgate.admitting import Admitting
from chatgate.app.keeping import Keeping
from chatgate.app.shelf import Shelf
from chatgate.app.spending import Spending
from chatgate.attempts.attempt import Trying
from chatgate.attempts.calling import Calling
from chatgate.attempts.leaving import Leaving
from chatgate.attempts.stream import Stream
from chatgate.balances import Balances
from chatgate.conversing import Conversing
from chatgate.counting import Counting
from chatgate.endpoints import Gateway, Site
from chatgate.i18n import LANGUAGES, Catalogues, language_of_locale
from chatgate.listing import Listing, Upstreams
from chatgate.paths import Table
from chatgate.pipeline import Dialect, Pipeline
from chatgate.protocols import openai_models, openapi
from chatgate.protocols.anthropic.counting import AnthropicCounting
from chatgate.protocols.anthropic.dialect import AnthropicDialect
from chatgate.protocols.gemini.counting import GeminiCounting
from chatgate.protocols.gemini.dialect import GeminiDialect
from chatgate.protocols.ollama.call import Clocks
from chatgate.protocols.ollama.dialect import OllamaDialect
from chatgate.protocols.ollama.embedding import EmbedDialect, EmbedWriting
from chatgate.protocols.openai_dialect import OpenAIDialect
from chatgate.protocols.openai_embeddings import EmbeddingDialect, EmbeddingWriting
from chatgate.protocols.openai_media import MEDIA, MediaDialect, MediaWriting
from chatgate.protocols.openai_operations import OPERATIONS, OperationDialect
from chatgate.protocols.plain import PlainDialect
from chatgate.protocols.responses.dialect import ResponsesDialect
from chatgate.protocols.translation import ChatWriting, PassingWriting, Writing
from chatgate.providers import demo, spec
from chatgate.providers.demo import Demo
from chatgate.providers.requests import Requests
from chatgate.providers.translating import TranslatingSender, translations
from chatgate.receiving import Receiving
from chatgate.refusals import Refusals
from chatgate.remembering import Remembering
from chatgate.routing.affinity import Conversations
from chatgate.routing.budget import RetryBudget
from chatgate.routing.candidates import CredentialState
from chatgate.routing.circuit import Circuit, CircuitState
from chatgate.routing.states import States
from chatgate.routing.table import ModelSpec, Routing
from chatgate.telemetry import Log, Metrics, Redaction
from chatgate.telemetry.metrics import CONTENT_TYPE
from chatgate.transport import Transport
from chatgate.vocabulary.exchange import Surface
from chatgate.vocabulary.money import format_usd
from chatgate.vocabulary.upstreams import Protocol, Target, Upstream

_IDENTITY_BYTES = 24
"""So long is the random part of a response's id: to know it is all that callers without a key have to show."""

_OPERATIONS: frozenset[Protocol] = frozenset(operation.protocol for operation in (*OPERATIONS, *MEDIA))

_SPOKEN_BESIDES: dict[Protocol, frozenset[Protocol]] = {
    "openai_chat": _OPERATIONS | {"ollama_embed", "ollama_embeddings"},
    "openai_responses": _OPERATIONS | {"ollama_embed", "ollama_embeddings"},
    "anthropic": frozenset(),
    "gemini": frozenset({"openai_embeddings"}),
    "ollama": frozenset({"openai_embeddings", "ollama_generate", "ollama_embed", "ollama_embeddings"}),
}

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatgate.counters.port import Counters
    from chatgate.protocols.page import KeyNeeded
    from chatgate.settings import Settings
    from chatgate.vocabulary.exchange import NoteEnd, Sender


class Parts(Struct, frozen=True):
    """What outlives a configuration. `note_end` is told how calls end.

    `streams` are those under way, under whichever configuration they began.
    """

    log: Log
    metrics: Metrics
    note_end: NoteEnd
    transport: Transport
    catalogues: Catalogues
    leaving: Leaving
    streams: set[Stream]
    keeping: Keeping
    receiving: Receiving
    wrong_keys: AddressLimits


def wrong_keys() -> AddressLimits:
    """Return what counts wrong admin keys, whatever the configuration."""
    rule = rule_of(WRONG_KEYS_PER_MINUTE, "minute", ("address",), "requests")
    return AddressLimits([rule], time.monotonic_ns, max_callers=MAX_ADDRESSES)


class Snapshot(Struct, frozen=True):
    """What one configuration makes.

    `default_model` is what the plain API asks for when nobody names a model.
    """

    settings: Settings
    gateway: Gateway
    default_model: str
    counters: Counters
    states: States
    conversations: Conversations


def assemble(settings: Settings, parts: Parts, predecessor: Snapshot | None = None) -> Snapshot:
    """Build what a configuration makes, and let the parts know of it.

    Raises `CatalogueError` and `ValueError`; nothing has changed then.
    """
    catalogue = spec.load()
    upstreams = tuple(_completed(upstream, settings, catalogue) for upstream in settings.upstreams)
    default = upstreams[0]
    default_model = plain_model(settings, catalogue)
    models = _models(settings, {upstream.name: upstream for upstream in upstreams})
    states = _states(parts.log, predecessor)
    routing = Routing(models, default_targets=_targets(default, None), reserved_prefix=demo.PREFIX, states=states)
    known = frozenset(routing.names)
    rules = tuple(rule_of(limit.amount, limit.per, limit.scope, limit.resource) for limit in settings.limits)
    counters = parts.keeping.counters(rules, predecessor.counters if predecessor else None)
    conversations = predecessor.conversations if predecessor else Conversations()
    # Calls of the predecessor may still write lines that hold its secrets.
    redaction = Redaction(settings.secrets() | (predecessor.settings.secrets() if predecessor else frozenset()))
    responses = ResponsesDialect(
        lambda: secrets.token_hex(_IDENTITY_BYTES),
        time.time,
        keeps=settings.response_seconds > 0,
        drops_parts=settings.drops_unsupported,
    )
    clocks = Clocks(time.time, time.monotonic)
    dialects: dict[Surface, Dialect] = {
        Surface.OLLAMA: OllamaDialect("ollama", known, clocks, drops_parts=settings.drops_unsupported),
        Surface.OLLAMA_GENERATE: OllamaDialect(
            "ollama_generate", known, clocks, drops_parts=settings.drops_unsupported
        ),
        Surface.OLLAMA_EMBED: EmbedDialect("ollama_embed", known, clocks),
        Surface.OLLAMA_EMBEDDINGS: EmbedDialect("ollama_embeddings", known, clocks),
        Surface.PLAIN: PlainDialect(default_model),
        Surface.OPENAI: OpenAIDialect(),
        Surface.ADMIN: OpenAIDialect(),
        Surface.ANTHROPIC: AnthropicDialect(drops_parts=settings.drops_unsupported),
        Surface.GEMINI: GeminiDialect(drops_parts=settings.drops_unsupported),
        Surface.GEMINI_ARRAY: GeminiDialect(in_array=True, drops_parts=settings.drops_unsupported),
        Surface.RESPONSES: responses,
        **{operation.surface: OperationDialect(operation) for operation in OPERATIONS},
        Surface.EMBEDDINGS: EmbeddingDialect(),
        **{operation.surface: MediaDialect(operation) for operation in MEDIA},
    }
    translated = translations(time.time, drops_parts=settings.drops_unsupported)
    writings: dict[Protocol, Writing] = {
        "openai_chat": ChatWriting(),
        **{operation.protocol: PassingWriting(operation.path) for operation in OPERATIONS},
        "openai_embeddings": EmbeddingWriting(),
        **{operation.protocol: MediaWriting(operation.path) for operation in MEDIA},
        "ollama_generate": PassingWriting("/api/generate"),
        "ollama_embed": EmbedWriting(),
        "ollama_embeddings": EmbedWriting(),
        **translated,
    }
    remembering = Remembering(Shelf(parts.keeping, settings.response_seconds), keeps=settings.response_seconds > 0)
    keys_url = (catalogue[default.provider].keys_url or catalogue["openai"].keys_url) or ""
    language = language_of_locale(settings.server.language) or LANGUAGES[0]
    refusals = Refusals(parts.catalogues, dialects, language, keys_url)
    requests = {upstream.name: Requests(upstream, settings.timeouts) for upstream in (*upstreams, demo.UPSTREAM)}
    senders: dict[str, Sender] = {
        upstream.name: TranslatingSender(parts.transport, translated[upstream.protocol])
        if upstream.protocol in translated
        else parts.transport
        for upstream in upstreams
    }
    senders[demo.UPSTREAM.name] = Demo()
    book = parts.keeping.book
    admitting = Admitting(
        addresses=Addresses(settings.access.allow, settings.server.trusted_proxies),
        door=Door(anonymous=settings.access.anonymous),
        keyring=parts.keeping.keyring,
        counters=counters,
        routing=routing,
        book=book,
        refusals=refusals,
        warn=lambda budget: parts.log.event(
            "budget_warning",
            "warning",
            scope=budget.scope,
            subject=budget.subject,
            per=budget.per,
            limit_usd=format_usd(budget.limit_nano_usd),
            percent=budget.warn_at_percent,
        ),
    )
    pipeline = Pipeline(
        dialects=dialects,
        refusals=refusals,
        admitting=admitting,
        calling=Calling(
            Trying(
                requests=requests,
                senders=senders,
                uploads=parts.transport,
                writings=writings,
                counters=counters,
                redaction=redaction,
                clock=time.monotonic,
                wall_clock=time.time,
                is_durable=book.is_durable,
            ),
            conversations,
            max_retries=settings.retry.max_retries,
            rescues=settings.retry.recovery == "resume",
            total_seconds=settings.timeouts.total_seconds,
            hedging_share=settings.hedging_share,
            clock=time.monotonic,
            random=random.random,
        ),
        leaving=parts.leaving,
        running=parts.keeping.running,
        streams=parts.streams,
        memory=remembering,
        note_end=parts.note_end,
        clock=time.monotonic,
        wall_clock=time.time,
        is_durable=book.is_durable,
    )
    owners = {name: model.targets[0].upstream.name for model in models for name in (model.name, *model.aliases)}
    gateway = Gateway(
        table=Table(settings.server.route),
        admitting=admitting,
        pipeline=pipeline,
        refusals=refusals,
        listing=Listing(
            [openai_models.entry(name, owners[name]) for name in routing.names],
            Upstreams(requests[default.name], parts.transport) if routing.is_open else None,
            [openai_models.entry(default_model, default.name)],
            time.monotonic,
        ),
        counting=Counting(
            protocols={Surface.ANTHROPIC: AnthropicCounting(), Surface.GEMINI: GeminiCounting()},
            routing=routing,
            admitting=admitting,
            requests=requests,
            sender=parts.transport,
            redaction=redaction,
        ),
        remembering=remembering,
        conversing=Conversing(responses, remembering),
        receiving=parts.receiving,
        known=known,
        balances=Balances(Spending(parts.keeping), functools.partial(datetime.now, UTC)),
        administration=_administration(settings, parts),
        site=Site(
            catalogues=parts.catalogues,
            metrics=parts.metrics,
            metrics_type=CONTENT_TYPE,
            openapi=openapi.describe(settings.server.route, _more(settings)),
            route=settings.server.route,
            models=((default_model, *routing.names) if routing.is_open else routing.names),
            key_needed=_key_needed(settings, default),
        ),
        note_end=parts.note_end,
        clock=time.monotonic,
        wall_clock=time.time,
    )
    parts.log.redaction = redaction
    parts.keeping.adopt(settings)
    parts.metrics.know(
        (*routing.names, default_model),
        lambda: [standing for standing in states.targets() if standing[0].upstream is not demo.UPSTREAM],
    )
    streams = settings.streams
    parts.leaving.set_bounds(
        drains=streams.on_disconnect == "drain", seconds=streams.drain_seconds, calls=streams.drain_calls
    )
    return Snapshot(settings, gateway, default_model, counters, states, conversations)


def plain_model(settings: Settings, catalogue: Mapping[str, spec.Provider]) -> str:
    """Return what the plain API asks for when nobody names a model."""
    if settings.default_model is not None:
        return settings.default_model
    for model in settings.models:
        if not model.is_wildcard:
            return model.name
    provider = catalogue[settings.upstreams[0].provider]
    return provider.small_model or catalogue["openai"].small_model or demo.MODELS[0]


def _administration(settings: Settings, parts: Parts) -> Administration | None:
    """Return the admin API, None where no key opens it."""
    if not settings.admins:
        return None
    admins = [(Admin(each.name, each.owner, each.may == "change"), each.key) for each in settings.admins]
    clock = functools.partial(datetime.now, UTC)
    desk = Desk(parts.keeping, parts.keeping, parts.log.event, clock, secrets.token_bytes)
    return Administration(AdminDoor(admins, parts.wrong_keys), desk)


def _more(settings: Settings) -> openapi.More | None:
    """Return what is described besides what every configuration serves."""
    if not settings.admins:
        return None
    return openapi.More(description.TAG, description.paths(), description.schemas())


def _states(log: Log, predecessor: Snapshot | None) -> States:
    """Return where targets keep how they are doing; every change is told to the log."""

    def new_circuit(target: Target) -> Circuit:
        def on_change(before: CircuitState, now: CircuitState) -> None:
            level = "warning" if now is CircuitState.OPEN else "info"
            log.event("circuit", level, target=target.name, before=before, now=now)

        return Circuit(random.random, on_change)

    def new_credential(target: Target) -> CredentialState:
        upstream, number = target.upstream.name, target.key_number
        return CredentialState(lambda: log.event("key_refused", "error", upstream=upstream, key_number=number))

    return States(new_circuit, lambda _: RetryBudget(), new_credential, predecessor.states if predecessor else None)


def _completed(upstream: Upstream, settings: Settings, catalogue: Mapping[str, spec.Provider]) -> Upstream:
    """Return the upstream with what the catalogue and the operator know about its provider."""
    known = catalogue[upstream.provider].applied_to(upstream)  # The settings were read with the catalogue's names.
    return structs.replace(
        known,
        continuation=settings.continuations.get(upstream.name, known.continuation),
        also=known.also | _SPOKEN_BESIDES[known.protocol],
    )


def _models(settings: Settings, upstreams: Mapping[str, Upstream]) -> list[ModelSpec]:
    """Return the models of the configuration, and the demo models behind them."""
    configured = [
        ModelSpec(
            model.name,
            tuple(
                each
                for target in model.targets
                for each in _targets(
                    upstreams[target.upstream], target.model, target.weight, target.priority, target.context_tokens
                )
            ),
            model.aliases,
            model.fallbacks,
            model.balance,
        )
        for model in settings.models
    ]
    return configured + [ModelSpec(name, (Target(demo.UPSTREAM, name),)) for name in demo.MODELS]


def _targets(
    upstream: Upstream, model: str | None, weight: int = 1, priority: int = 0, context_tokens: int | None = None
) -> tuple[Target, ...]:
    """Return a target for each key of its upstream."""
    keys = upstream.api_keys or ("",)
    return tuple(
        Target(upstream, model, key, number, weight, priority, context_tokens) for number, key in enumerate(keys, 1)
    )


def _key_needed(settings: Settings, default: Upstream) -> KeyNeeded:
    if not settings.access.anonymous:
        return "always"
    return "except_demo" if default.key_needed and not default.api_key else "never"
