"""Own the command `chatgate check`: judge the configuration and say in plain words what it will do.

Prints no secret and changes nothing: no socket is opened and no directory is made. Exit codes: 0 fine, 2 wrong usage,
78 bad configuration. Run by the command line.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from chatgate import __version__
from chatgate.app import plain_model
from chatgate.cli.options import load_or_exit, settings_options
from chatgate.providers import spec
from chatgate.settings import ModelSettings, Settings, without_credentials
from chatgate.vocabulary.upstreams import Upstream

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
    host = f"[{server.host}]" if ":" in server.host else server.host
    yield "chatgate", __version__
    yield "configuration", str(settings.config or "no file; environment and defaults")
    yield "data", str(settings.data)
    yield "listens on", f"http://{host}:{server.port}" if server.port else f"http://{host}, any free port"
    if server.workers > 1:
        yield "workers", f"{server.workers} processes on that port"
    yield "plain API", f"POST /{server.route}"
    yield "language", f"{server.language} (from {server.language_source})"
    yield "lets in", ", ".join(access.allow) or "every address"
    yield "", "callers without a key too" if access.anonymous else "only callers with a chatgate key"
    trusted = ", ".join(server.trusted_proxies)
    yield "", f"believes X-Forwarded-For from {trusted}" if trusted else "believes X-Forwarded-For from nobody"
    rules = ", ".join(f"{rule.amount} per {rule.per}" for rule in settings.limits)
    yield "limits", f"calls of one address: {rules}" if rules else "none"
    yield from _labelled("upstreams", (_describe_upstream(upstream) for upstream in settings.upstreams))
    yield from _labelled("models", _describe_models(settings.models))
    yield "", "demo/… models are built in"
    yield "plain model", plain_model(settings, spec.load())
    yield "timeouts", f"connect {timeouts.connect_seconds:g} s, first token {timeouts.first_token_seconds:g} s"
    yield "", f"silence inside a stream {timeouts.idle_seconds:g} s, in all {timeouts.total_seconds:g} s"
    if settings.prices:
        yield "prices", f"{len(settings.prices)} of your own"
    yield from _labelled("warnings", iter(settings.warnings))
    yield "verdict", "this configuration is fine"


def _labelled(label: str, texts: Iterator[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        yield label, text
        label = ""


def _describe_upstream(upstream: Upstream) -> str:
    """Say where an upstream is and how it is reached, without its key and its proxy's credentials."""
    origin = upstream.origin
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    if upstream.api_key:
        key = "key: set"
    elif upstream.key_needed:
        key = "key: none, callers bring their own"
    else:
        key = "key: none needed"
    way = "directly" if origin.proxy is None else f"through {without_credentials(origin.proxy)}"
    default = ", default" if upstream.is_default else ""
    return (
        f"{upstream.name} ({upstream.provider}{default}): "
        f"{origin.scheme}://{host}:{origin.port}{upstream.base_path}, {key}, {way}"
    )


def _describe_models(models: tuple[ModelSettings, ...]) -> Iterator[str]:
    if not models:
        yield "any name goes to the default upstream"
    for model in models:
        first = model.targets[0]
        yield f"{model.name}: {first.model or model.name} at {first.upstream}"
