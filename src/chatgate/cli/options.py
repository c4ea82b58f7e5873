"""The options that commands share, and the step from them to settings.

Owns exit code 78: a configuration that does not allow a start ends the command here, with every reason on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from chatgate.providers import demo, spec
from chatgate.settings import Settings, SettingsError, load_from_process

EXIT_BAD_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h (https://man.freebsd.org/cgi/man.cgi?query=sysexits, read 2026-11-23)."""

Command = TypeVar("Command", bound=Callable[..., object])

# Ranges are the settings' business: a value means the same wherever it was given.
_OPTIONS = (
    click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings; else ./chatgate.toml."),
    click.option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all."),
    click.option("--port", type=int, metavar="PORT", help="Port to listen on; 0 for any free one."),
    click.option("--workers", type=int, metavar="N", help="Number of processes that serve."),
    click.option(
        "--data", type=click.Path(path_type=Path), metavar="DIR", help="Directory that everything is kept in."
    ),
)


def settings_options(command: Command) -> Command:
    """Give a command the options of the settings: parameters `config`, `host`, `port`, `workers` and `data`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def storage_options(command: Command) -> Command:
    """Give a command the options that say where things are kept: parameters `config` and `data`."""
    for option in (_OPTIONS[-1], _OPTIONS[0]):
        command = option(command)
    return command


def load(arguments: Mapping[str, object]) -> Settings:
    """Return the settings of this process. Raises `SettingsError` or `CatalogueError`."""
    providers = {name: provider.base_url for name, provider in spec.load().items()}
    return load_from_process(arguments, providers, demo.MODELS)


def load_or_exit(arguments: Mapping[str, object]) -> Settings:
    """Return the settings of this process, or say what is wrong with them and exit with 78."""
    try:
        return load(arguments)
    except (SettingsError, spec.CatalogueError) as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_BAD_CONFIGURATION)


def database_of(settings: Settings) -> str:
    """Return which database keeps keys and ledger, without its password."""
    url = settings.database_url
    if url is None or url.startswith("sqlite"):
        return "SQLite"
    return f"PostgreSQL at {url.rpartition('@')[2].partition('?')[0]}"
