"""The database of a configuration, as a command uses it while the gateway runs or not.

Owns what a person is told when it cannot be used, and the exit codes: 1, or 78 when the configuration is to blame. Used
by the commands that read or change what is kept.
"""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

import click

from chatgate.cli.options import EXIT_BAD_CONFIGURATION
from chatgate.storage import migration, pepper
from chatgate.storage.database import open_database
from chatgate.storage.errors import (
    BackupError,
    PepperError,
    Reason,
    SchemaTooNew,
    StorageInUse,
    StorageUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chatgate.settings import Settings
    from chatgate.storage.database import Database

BACKUPS = "backups"
"""The directory of the copies, in the data directory."""

_REASONS = {
    Reason.LOCKED: "another program is writing to it; try again in a moment",
    Reason.FULL: "no space is left",
    Reason.SLOW: "it does not answer in time; try again in a moment",
    Reason.OUT_OF_REACH: "it cannot be reached",
    Reason.FAILED: "it cannot be read or written",
}
_PEPPER_PROBLEMS = {
    "unreadable": "the pepper cannot be read",
    "too_short": "the pepper is too short",
    "not_ours": "this is not the pepper that the keys in this database were made under: set the one they were made "
    "under, or give the data directory back its file key-pepper",
}


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """Yield the database with its tables up to date; when it cannot be used, say why and end the command."""
    with told():
        database = open_database(settings.database_url, settings.data)
        try:
            migration.migrate(database, settings.data / BACKUPS, datetime.now(UTC))
            yield database
        finally:
            database.close()


def peppers_of(settings: Settings, database: Database) -> tuple[bytes, ...]:
    """Return the peppers that keys of this database are made under, after making one where there is none.

    To be called inside `opened`, which tells what is wrong with them.
    """
    given = settings.pepper
    peppers = pepper.load_or_make(settings.data) if given is None else pepper.parse(given)
    database.write(pepper.recognise, peppers)
    return peppers


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what the storage raises into a line and an exit code."""
    try:
        yield
    except PepperError as error:
        _end(_PEPPER_PROBLEMS[error.code], EXIT_BAD_CONFIGURATION)
    except StorageUnavailable as error:
        _end(f"the database cannot be used: {_REASONS[error.reason]} ({error.detail})")
    except StorageInUse:
        _end("the database is being restored; try again when that is done")
    except SchemaTooNew:
        _end("the database was made by a later version of chatgate; use that one")
    except BackupError as error:
        _end(f"the database could not be copied before it is brought up to date: {error.detail}")


def _end(problem: str, exit_code: int = 1) -> NoReturn:
    click.echo(f"chatgate: {problem}", err=True)
    sys.exit(exit_code)
