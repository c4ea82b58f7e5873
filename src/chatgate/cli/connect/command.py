"""Own the command `chatgate connect` and its exit codes: 0 printed, 1 not served yet, 2 wrong usage, 78 bad settings.

Opens no socket. The configuration itself goes to standard output, all words about it to standard error, so that what
is printed can be piped on.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from chatgate.app import plain_model
from chatgate.cli.columns import table
from chatgate.cli.connect.clients import PROTOCOLS, Client, Values, filled, load, root_of
from chatgate.cli.options import load_or_exit
from chatgate.cli.speaking import Speaker
from chatgate.providers import demo, spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatgate.settings import Settings

NO_KEY = "none"
"""What stands for no key in clients that insist on one."""

PLACEHOLDER_KEY = "sk-cg-…"
VENDORS_KEY = "sk-…"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


@click.command("connect")
@click.argument("client", required=False)
@click.option("--url", metavar="URL", help="Address of this server; else the configured one on this machine.")
@click.option("--key", metavar="KEY", envvar="CHATGATE_KEY", show_envvar=True, help="Key that the client shows.")
@click.option("--model", metavar="NAME", help="Model that it asks for; else the one that the plain API takes.")
@click.option("--config", metavar="FILE", help="Settings; else ./chatgate.toml.")
def connect(client: str | None, url: str | None, key: str | None, model: str | None, config: str | None) -> None:
    """Print the configuration that connects a client with this server; without CLIENT, list the clients."""
    settings = load_or_exit({"config": config})
    say, clients = Speaker(settings), load()
    if client is None:
        _list(clients, say)
        return
    chosen = _choose(client, clients)
    model = model or _model(settings)
    shown_key = key or _key(settings, model)
    try:
        values = Values(root_of(url) if url else _url(settings), shown_key, model)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _print(chosen, values, say)
    if shown_key == PLACEHOLDER_KEY:
        click.echo(say("connect_make_key"), err=True)
    elif shown_key == VENDORS_KEY:
        click.echo(say("connect_bring_key"), err=True)
    if model.startswith(demo.PREFIX):
        click.echo(say("connect_demo"), err=True)


def _list(clients: Mapping[str, Client], say: Speaker) -> None:
    rows = [tuple(map(say, ("connect_name", "connect_title", "connect_protocol")))]
    rows += [(name, client.title, PROTOCOLS[client.protocol]) for name, client in clients.items()]
    for line in table(rows):
        click.echo(line)


def _choose(asked: str, clients: Mapping[str, Client]) -> Client:
    """Return the client of this name, however it is written."""
    name = asked.strip().lower().replace(" ", "-").replace("_", "-")
    if name not in clients:
        near = difflib.get_close_matches(name, clients, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "chatgate connect lists them"
        raise click.UsageError(f"{asked!r} is no client that is known; {hint}")
    return clients[name]


def _print(client: Client, values: Values, say: Speaker) -> None:
    click.echo(f"{client.title}, {client.docs}", err=True)
    for part in client.parts:
        click.echo("\n" + say("connect_where", where=part.where) + "\n", err=True)
        click.echo(filled(client, part, values).rstrip("\n"))
    click.echo(err=True)
    if client.in_container:
        click.echo(say("connect_container"), err=True)


def _url(settings: Settings) -> str:
    host = settings.server.host
    host = _EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{settings.server.port}"


def _key(settings: Settings, model: str) -> str:
    """Return what stands for the key, by whose key a call for the model needs."""
    if not settings.access.anonymous:
        return PLACEHOLDER_KEY
    return VENDORS_KEY if _is_brought(settings) and not model.startswith(demo.PREFIX) else NO_KEY


def _model(settings: Settings) -> str:
    """Return what the plain API would ask for, or a demo model where nobody chose it and no provider's key is known."""
    chosen = settings.default_model is not None or not _is_brought(settings)
    return plain_model(settings, spec.load()) if chosen else demo.MODELS[0]


def _is_brought(settings: Settings) -> bool:
    """Tell whether callers have to bring the provider's key, as far as one upstream and no models can tell."""
    default = settings.upstreams[0]
    return default.key_needed and not default.api_key and not settings.models
