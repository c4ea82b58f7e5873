"""Own the command `chatgate backup`: copy the database while the gateway runs.

Exit codes: 0 done, 1 no copy could be made, 78 bad configuration. Run by the command line.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from chatgate.cli.options import load_or_exit, storage_options
from chatgate.cli.storage import BACKUPS, opened
from chatgate.storage.backup import back_up
from chatgate.storage.errors import BackupError

if TYPE_CHECKING:
    from chatgate.settings import Settings
    from chatgate.storage.database import Database

_SUFFIXES: Final = {"sqlite": "db", "postgresql": "dump"}


@click.command("backup")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@storage_options
def backup(file: Path | None, **arguments: object) -> None:
    """Copy the database into FILE, which must not exist; into the data directory's `backups` when none is named."""
    settings = load_or_exit(arguments)
    with opened(settings) as database:
        target = file or _default_target(settings, database)
        try:
            back_up(database, target)
        except BackupError as error:
            click.echo(f"chatgate: {explained(error)}", err=True)
            sys.exit(1)
    click.echo(str(target))
    click.echo("It holds no key and no pepper. Keep the pepper with it: keys are of no use without.", err=True)


def explained(error: BackupError) -> str:
    """Return in a sentence why there is no copy, or why one cannot be used."""
    sentences = {
        "program_missing": f"PostgreSQL's program {error.detail} is not installed (Debian: postgresql-client)",
        "exists": f"{error.detail} exists already; copies replace nothing",
        "not_a_backup": "this is no copy of a database of chatgate",
        "damaged": f"it is damaged: {error.detail}",
    }
    return sentences.get(error.code, error.detail)


def _default_target(settings: Settings, database: Database) -> Path:
    now = datetime.now(UTC)
    return settings.data / BACKUPS / f"chatgate-{now:%Y%m%dT%H%M%S}Z.{_SUFFIXES[database.dialect]}"
