"""Own the command `chatgate restore`: put a copy in the place of the database, which no gateway may have open.

Exit codes: 0 done, 1 not done, 2 no such file, 78 bad configuration. Run by the command line.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from chatgate.cli.backup import explained
from chatgate.cli.options import load_or_exit, storage_options
from chatgate.cli.storage import opened
from chatgate.storage import backup as copies
from chatgate.storage.errors import BackupError, StorageInUse, StorageUnavailable


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@storage_options
def restore(file: Path, **arguments: object) -> None:
    """Replace the database by the copy in FILE; what was there is kept, and its place is told."""
    settings = load_or_exit(arguments)
    try:
        kept = copies.restore(settings.database_url, settings.data, file, datetime.now(UTC))
    except StorageInUse:
        _end("the database is in use: stop the gateway first, and wait for other commands to end")
    except BackupError as error:
        _end(f"{file} was not restored: {explained(error)}")
    except StorageUnavailable as error:
        _end(f"{file} was not restored: the database cannot be used ({error.detail or error.reason})")
    with opened(settings):
        # Whatever the copy's age, its tables are brought up to date here.
        pass
    click.echo(f"{file} is restored")
    if kept is not None:
        click.echo(f"What was there is in {kept}")


def _end(problem: str) -> NoReturn:
    click.echo(f"chatgate: {problem}", err=True)
    sys.exit(1)
