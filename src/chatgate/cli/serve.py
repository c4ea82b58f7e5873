"""Own the command `chatgate serve`: start the gateway and say what is open to whom."""

from __future__ import annotations

import ipaddress
import sys
from typing import TYPE_CHECKING

import click

from chatgate import __version__
from chatgate.cli.options import EXIT_BAD_CONFIGURATION, database_of, load, load_or_exit, settings_options
from chatgate.settings import without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chatgate.settings import Settings

_LABEL_CHARACTERS = 12


@click.command("serve")
@settings_options
def serve(**arguments: object) -> None:
    """Run the gateway."""
    settings = load_or_exit(arguments)
    from chatgate import app as gateway  # noqa: PLC0415 - a bad configuration is told before anything heavy loads
    from chatgate.cli.storage import told  # noqa: PLC0415 - the same
    from chatgate.server.workers import WorkerError  # noqa: PLC0415 - the same

    def announce(default_model: str, host: str, port: int) -> None:
        for line in banner(settings, default_model, host, port):
            click.echo(line)

    try:
        with told():
            gateway.serve(settings, announce, lambda: load(arguments))
    except gateway.DataDirectoryError as error:
        click.echo(f"chatgate: the data directory {settings.data} cannot be used: {error}", err=True)
        click.echo("Name another one with --data or CHATGATE_DATA.", err=True)
        sys.exit(EXIT_BAD_CONFIGURATION)
    except WorkerError as error:
        if reason := str(error):
            click.echo(f"chatgate: {reason}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        server = settings.server
        click.echo(f"chatgate: cannot listen on {server.host} port {server.port}: {error.strerror or error}", err=True)
        click.echo("Another program may have the port: stop it, or choose another one with --port.", err=True)
        sys.exit(1)


def banner(settings: Settings, default_model: str, host: str, port: int) -> Iterator[str]:
    """Yield the lines that a person reads at start: where it is, who may come in, whose key is spent."""
    address = _reachable(host)
    root = f"http://{address}:{port}"
    route = settings.server.route
    yield f"chatgate {__version__} · data {settings.data} · storage {database_of(settings)}"
    yield ""
    yield _line("Plain API", f"{root}/{route}")
    yield _line("OpenAI", f"{root}/v1")
    yield _line("Anthropic", root)
    yield _line("Gemini", root)
    yield _line("Ollama", root)
    for upstream in settings.upstreams:
        where = f"{upstream.origin!r}{upstream.base_path}"
        proxy = upstream.origin.proxy
        yield _line("Upstream", f"{upstream.name}: {where}{f' through {without_credentials(proxy)}' if proxy else ''}")
    named = " ".join(model.name for model in settings.models)
    yield _line("Models", named or f"any name goes to {settings.upstreams[0].name}; without one: {default_model}")
    yield _line("", "demo/echo demo/story … answer without a key and without a network")
    if settings.server.workers > 1:
        yield _line("Workers", f"{settings.server.workers} processes share the port")
    yield _line("Open to", _open_to(settings, host))
    yield _line("Keys", _keys(settings))
    yield _line("Limits", ", ".join(map(str, settings.limits)) or "none")
    if settings.redis is not None:
        yield _line("", f"counted in {settings.redis}, together with all who count there")
    if settings.budgets:
        yield _line("Budgets", ", ".join(map(str, settings.budgets)))
    if settings.admins:
        yield _line("Admin API", f"{root}/admin/api/v1 for {', '.join(each.name for each in settings.admins)}")
    yield from (_line("WARNING", warning) for warning in (*settings.warnings, *_warnings(settings, host)))
    yield ""
    if settings.access.anonymous and not settings.access.allow:
        yield _line("Try it", f"""curl {root}/{route} -d '{{"user_content":"Hello","model":"demo/echo"}}'""")
    yield _line("", f"chatgate chat --url {root}/v1 --model demo/story")
    yield ""


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_CHARACTERS}}{text}"


def _reachable(host: str) -> str:
    """Return an address that a browser on this machine can open."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _open_to(settings: Settings, host: str) -> str:
    allowed = ", ".join(settings.access.allow)
    if allowed:
        return f"{allowed} only"
    return "programs on this machine only" if _is_loopback(host) else "everyone who can reach this port"


def _keys(settings: Settings) -> str:
    if not settings.access.anonymous:
        return "a key of this gateway is required"
    default = settings.upstreams[0]
    if default.api_key:
        return f"the operator's key for {default.name} is used for callers who bring none"
    if default.key_needed:
        return f"callers bring their own key for {default.name}"
    return f"{default.name} is called without a key unless the caller brings one"


def _warnings(settings: Settings, host: str) -> Iterator[str]:
    """Yield what an operator may regret not having known."""
    spendable = settings.access.anonymous and any(upstream.api_key for upstream in settings.upstreams)
    if spendable and not settings.access.allow:
        who = "every program on this machine" if _is_loopback(host) else "anyone who can reach this port"
        has_budget = any(budget.scope == "global" for budget in settings.budgets)
        limit = "within the bounds above" if settings.limits or has_budget else "without any limit"
        yield f"{who} can spend your provider key, {limit}. Set IP_WHITELIST to close the door."
    for upstream in settings.upstreams:
        if upstream.origin.proxy and _is_loopback(upstream.origin.host):
            yield f"{upstream.name} is on this machine but is called through a proxy; list it in NO_PROXY if it fails."
        if upstream.api_key and upstream.origin.scheme == "http" and not _is_private(upstream.origin.host):
            yield f"{upstream.name} gets its key unencrypted; use https."


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan"))
