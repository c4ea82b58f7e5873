"""Own the command `chatgate check`: judge the configuration and say in plain words what it will do.

Prints no secret and changes nothing: no directory is made, and no socket opened but one to Redis, where that is used.
Exit codes: 0 fine, 2 wrong usage, 78 bad configuration. Run by the command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import click

from chatgate import __version__
from chatgate.app import plain_model
from chatgate.cli.options import database_of, load_or_exit, settings_options
from chatgate.providers import spec
from chatgate.settings import ModelSettings, Settings, TargetSettings, without_credentials
from chatgate.vocabulary.upstreams import Continuation, Upstream

_LABEL_CHARACTERS = 14


@click.command("check")
@settings_options
def check(**arguments: object) -> None:
    """Validate the configuration and say what it will do."""
    settings = load_or_exit(arguments)
    for label, text in describe(settings):
        click.echo(f"{label:<{_LABEL_CHARACTERS}}{text}")


def describe(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what the settings will do as pairs of a label and a text; a label of "" continues the one before."""
    server, access, timeouts = settings.server, settings.access, settings.timeouts
    catalogue = spec.load()
    host = f"[{server.host}]" if ":" in server.host else server.host
    yield "chatgate", __version__
    yield "configuration", str(settings.config or "no file; environment and defaults")
    yield "data", str(settings.data)
    yield from _labelled("ledger", _describe_ledger(settings))
    yield "listens on", f"http://{host}:{server.port}" if server.port else f"http://{host}, any free port"
    if server.workers > 1:
        yield "workers", f"{server.workers} processes on that port"
    yield "plain API", f"POST /{server.route}"
    yield "language", f"{server.language} (from {server.language_source})"
    yield "lets in", ", ".join(access.allow) or "every address"
    yield "", "callers without a key too" if access.anonymous else "only callers with a chatgate key"
    trusted = ", ".join(server.trusted_proxies)
    yield "", f"believes X-Forwarded-For from {trusted}" if trusted else "believes X-Forwarded-For from nobody"
    yield from _labelled("limits", map(str, settings.limits)) if settings.limits else [("limits", "none")]
    yield from _labelled("counters", _describe_counters(settings))
    yield from _labelled("budgets", map(str, settings.budgets))
    yield from _labelled("admin API", map(str, settings.admins)) if settings.admins else [("admin API", "off")]
    continuations = {name: provider.continuation for name, provider in catalogue.items()}
    yield from _labelled(
        "upstreams",
        (
            _describe_upstream(upstream, settings.continuations.get(upstream.name, continuations[upstream.provider]))
            for upstream in settings.upstreams
        ),
    )
    yield from _labelled("models", _describe_models(settings))
    yield "", "demo/… models are built in"
    yield "plain model", plain_model(settings, catalogue)
    yield "timeouts", f"connect {timeouts.connect_seconds:g} s, first token {timeouts.first_token_seconds:g} s"
    yield "", f"silence inside a stream {timeouts.idle_seconds:g} s, in all {timeouts.total_seconds:g} s"
    yield from _describe_failures(settings)
    if settings.prices:
        yield "prices", f"{len(settings.prices)} of your own"
    yield from _labelled("warnings", iter(settings.warnings))
    yield "verdict", "this configuration is fine"


def _labelled(label: str, texts: Iterator[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        yield label, text
        label = ""


def _describe_ledger(settings: Settings) -> Iterator[str]:
    """Say where calls are kept, when they are safe there, and for how long."""
    ledger = settings.ledger
    safe = "the loss of power, which every call waits for" if ledger.durability == "power" else "the end of the process"
    yield f"keys and calls are kept in {database_of(settings)}"
    yield f"a call is on record before its upstream is called; the record outlives {safe}"
    yield (
        f"calls are deleted after {ledger.retention_days} days" if ledger.retention_days else "calls are kept for ever"
    )


def _describe_counters(settings: Settings) -> Iterator[str]:
    """Say who counts, and what becomes of the counts."""
    workers, redis = settings.server.workers, settings.redis
    if redis is not None:
        from chatgate.storage.redis.connection import RedisError  # noqa: PLC0415 - only who uses it waits for it
        from chatgate.storage.redis.probe import probe  # noqa: PLC0415 - the same

        yield f"limits and budgets are counted in {redis}, with all who count there"
        try:
            yield f"it answers: {asyncio.run(probe(redis))}"
        except RedisError as error:
            yield f"it cannot be used now: {error}"
        yield "while it is away each process counts its part of the limits, and budgets are closed"
        return
    who = f"by one process for all {workers} workers" if workers > 1 else "by the process that serves"
    yield f"limits and budgets are counted {who}"
    yield "limits begin anew with a restart, budgets are kept"


def _describe_upstream(upstream: Upstream, continuation: Continuation | None) -> str:
    """Say where an upstream is and how it is reached, without its keys and its proxy's credentials."""
    origin = upstream.origin
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    if len(upstream.api_keys) > 1:
        key = f"keys: {len(upstream.api_keys)}, all used"
    elif upstream.api_keys:
        key = "key: set"
    elif upstream.key_needed:
        key = "key: none, callers bring their own"
    else:
        key = "key: none needed"
    way = "directly" if origin.proxy is None else f"through {without_credentials(origin.proxy)}"
    default = ", default" if upstream.is_default else ""
    cap = f", at most {upstream.max_in_flight} calls at once" if upstream.max_in_flight else ""
    goes_on = f", continues a broken answer by {continuation}" if continuation else ""
    return (
        f"{upstream.name} ({upstream.provider}{default}): "
        f"{origin.scheme}://{host}:{origin.port}{upstream.base_path}, {key}, {way}{cap}{goes_on}"
    )


def _describe_models(settings: Settings) -> Iterator[str]:
    """Say for each model under which names it is asked for, and where it goes, best first."""
    if not settings.models:
        yield "any name goes to the default upstream"
    keys = {upstream.name: len(upstream.api_keys) for upstream in settings.upstreams}
    for model in settings.models:
        named = f"{model.name} (also {', '.join(model.aliases)})" if model.aliases else model.name
        balance = ", to the least loaded" if model.balance == "least_loaded" else ""
        targets = list(_describe_targets(model, keys))
        if len(targets) == 1:
            yield f"{named}{balance}: {targets[0]}"
        else:
            yield f"{named}{balance}:"
            yield from (f"  {target}" for target in targets)
        if model.fallbacks:
            yield f"  when all fail: {', then '.join(model.fallbacks)}"


def _describe_targets(model: ModelSettings, keys: Mapping[str, int]) -> Iterator[str]:
    """Yield a model's targets by priority; each has its share of the calls of that priority."""
    priorities = sorted({target.priority for target in model.targets})
    for priority in priorities:
        tier = [target for target in model.targets if target.priority == priority]
        weights = sum(target.weight for target in tier)
        for target in tier:
            order = f"priority {priority}: " if len(priorities) > 1 else ""
            share = f"{100 * target.weight / weights:.3g} % " if len(tier) > 1 else ""
            yield f"{order}{share}{_describe_target(target, model, keys[target.upstream])}"


def _describe_target(target: TargetSettings, model: ModelSettings, keys: int) -> str:
    sent = target.model or ("the asked name" if model.is_wildcard else model.name)
    spread = f", spread over {keys} keys" if keys > 1 else ""
    context = f", takes in {target.context_tokens} tokens" if target.context_tokens else ""
    return f"{sent} at {target.upstream}{spread}{context}"


def _describe_failures(settings: Settings) -> Iterator[tuple[str, str]]:
    """Say what follows when an upstream fails, when it is slow, and when a caller leaves."""
    retry, streams = settings.retry, settings.streams
    yield "retries", f"{retry.max_retries or 'none'} on the same target"
    if retry.recovery == "resume":
        yield "", "a stream that breaks off goes on from the next target"
    else:
        yield "", "a stream that breaks off ends with an error"
    if settings.hedging_share:
        yield "hedging", "a second call when the first token is later than for 95 % of the model's calls,"
        yield "", f"for at most {100 * settings.hedging_share:g} % of all calls; the slower one is cancelled"
    if settings.drops_unsupported:
        yield "translation", "what a provider's protocol cannot carry is left out and named in x-chatgate-dropped"
    if streams.on_disconnect == "drain":
        yield "disconnects", "when a caller leaves, its answer is read on for its usage,"
        each = " in each worker" if settings.server.workers > 1 else ""
        yield "", f"{streams.drain_seconds:g} s at most, {streams.drain_calls} answers at once{each}"
    else:
        yield "disconnects", "when a caller leaves, its call is cancelled"
