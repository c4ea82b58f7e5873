"""What the commands that read the ledger are tested with: a place with some calls, and a way to run a command there."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from click.testing import CliRunner, Result

from chatgate.accounting.usage import Usage
from chatgate.cli import main
from chatgate.storage import keys, ledger
from chatgate.vocabulary.keys import NewKey
from storage.conftest import Place
from storage.records import DAY, NOON, dispatch, fold, settlement


def fill(place: Place) -> None:
    """Store a key and five calls: two of the key, one of a key that is gone, one of nobody, one interrupted."""
    database = place.open()
    database.write(keys.create, NewKey("Büro 東京"), "k1", "digest", "", NOON)
    fold(
        database,
        dispatch("a", 9_000_000, (DAY,)),
        settlement("a", 2_500_000, usage=Usage(1200, 40)),
        dispatch("b", at=NOON + timedelta(days=1)),
        settlement("b", 1, usage=Usage(7, 5)),
        dispatch("c", key_id="k2", asked_model="=cmd|' /C calc'!A1\x1b[31m"),
        settlement("c", 123, usage=Usage(1, 1)),
        dispatch("d", key_id="", asked_model="demo/echo"),
        settlement("d", usage=None),
        dispatch("e", 9_000_000, (DAY,)),
    )
    database.write(ledger.interrupt, "0", NOON)
    database.close()


def run(place: Place, *arguments: str) -> Result:
    """Run a command on the database at a place, in this process."""
    environment = {"CHATGATE_DATABASE_URL": place.url} if place.url else {}
    result = CliRunner().invoke(main, [*arguments, "--data", str(place.data)], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "pass'word" not in result.output
    return result


def told(place: Place, *arguments: str) -> str:
    """Run a command, well, and return what it printed on the standard output."""
    result = run(place, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def read(place: Place, *arguments: str) -> Any:
    """Run a command, well, with --json, and return what it printed."""
    return json.loads(told(place, *arguments, "--json"))
