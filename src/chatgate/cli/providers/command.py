"""Own the command `chatgate providers` and its exit codes: 0 fine, 1 the trial failed, 2 wrong usage, 78 bad settings.

The trial calls a provider, through the proxy of the configuration, and costs a few dozen tokens there. A key is taken
from a variable or a file, never from the command line, which others can see; it is never printed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

import click

from chatgate.cli.options import EXIT_BAD_CONFIGURATION, load_or_exit
from chatgate.cli.providers.shown import as_object, as_table
from chatgate.cli.speaking import Speaker
from chatgate.providers import spec
from chatgate.settings import SettingsError, load_upstream_from_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatgate.settings import Settings
    from chatgate.vocabulary.upstreams import Upstream

_config = click.option("--config", metavar="FILE", help="Settings; else ./chatgate.toml.")


@click.group("providers", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_config
@click.pass_context
def providers(ctx: click.Context, config: str | None, *, as_json: bool) -> None:
    """List the vendors known by name: what `provider` of an upstream may be."""
    if ctx.invoked_subcommand is not None:
        return
    settings = load_or_exit({"config": config})
    catalogue = spec.load()
    if as_json:
        click.echo(json.dumps([as_object(*item) for item in catalogue.items()], indent=2, ensure_ascii=False))
        return
    for line in as_table(catalogue, Speaker(settings)):
        click.echo(line)


@providers.command("test")
@click.argument("name")
@click.option("--key-env", metavar="NAME", help="Variable that holds the key; else the vendor's usual one.")
@click.option("--key-file", metavar="PATH", help="File that holds the key.")
@click.option("--base-url", metavar="URL", help="Base URL; else the vendor's own.")
@click.option("--model", metavar="NAME", help="Model to ask; else a small one, or the first that is listed.")
@_config
def test(
    name: str, key_env: str | None, key_file: str | None, base_url: str | None, model: str | None, config: str | None
) -> None:
    """Try a vendor, or an upstream of the configuration, with your key: a list, a tiny chat and a stream."""
    settings = load_or_exit({"config": config})
    catalogue = spec.load()
    given = {"api_key_env": key_env, "api_key_file": key_file, "base_url": base_url}
    upstream = _upstream(name, {key: value for key, value in given.items() if value}, settings, catalogue)
    provider = catalogue[upstream.provider]
    if provider.key_needed and not upstream.api_key:
        where = f"set {provider.key_env}, or give --key-env NAME or --key-file PATH"
        raise click.UsageError(f"{name} needs a key, from {provider.keys_url}: {where}")
    is_well = asyncio.run(_try(provider.applied_to(upstream), provider, model, Speaker(settings)))
    sys.exit(0 if is_well else 1)


def _upstream(
    name: str, given: Mapping[str, str], settings: Settings, catalogue: Mapping[str, spec.Provider]
) -> Upstream:
    """Return what is to be tried: an upstream of the configuration, or a vendor with what the options say."""
    configured = next((upstream for upstream in settings.upstreams if upstream.name == name), None)
    if configured is not None and settings.config is not None and not given:
        return configured
    if name not in catalogue:
        raise click.UsageError(f"{name!r} is no vendor and no upstream of the configuration; see chatgate providers")
    provider = catalogue[name]
    if "base_url" not in given and provider.base_url is None:
        example = f", such as {provider.example_url}" if provider.example_url else ""
        raise click.UsageError(f"{name} has no address of its own: give --base-url URL{example}")
    bases = {each: known.base_url for each, known in catalogue.items()}
    try:
        return load_upstream_from_process({"name": name, "provider": name, **given}, provider.key_env, bases)
    except SettingsError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_BAD_CONFIGURATION)


async def _try(upstream: Upstream, provider: spec.Provider, model: str | None, say: Speaker) -> bool:
    # A list of vendors needs none of this.
    from chatgate.cli.providers.trial import TIMEOUTS, Trial  # noqa: PLC0415
    from chatgate.providers.requests import Requests  # noqa: PLC0415
    from chatgate.transport import Transport  # noqa: PLC0415

    transport = Transport()
    transport.start()
    try:
        requests = Requests(upstream, TIMEOUTS)
        trial = Trial(
            requests, transport, say, click.echo, time.monotonic, model=model, small_model=provider.small_model
        )
        return await trial.run()
    finally:
        await transport.close()
