"""The pepper: the secret that digests of keys are made under.

Owns the file `key-pepper` in the data directory, and the fingerprint in the database that tells whether the two belong
together. Without the pepper a copy of the database opens nothing; with a wrong one every key would be unknown, so that
is found out at the start and never repaired by making another.

A pepper file has a pepper on each line. The first is the one new digests are made under; the others are former ones,
which keys may still be found by: that is how a pepper is changed.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from chatgate.storage import schema
from chatgate.storage.errors import PepperError
from chatgate.storage.new_file import new_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

FILE_NAME = "key-pepper"

_NEW_BYTES = 32
_MIN_CHARACTERS = 32


def parse(text: str) -> tuple[bytes, ...]:
    """Read peppers, the current one first, from the lines of a text; never empty.

    Raises `PepperError`: `unreadable` when there is none, `too_short` for one of fewer than 32 characters.
    """
    peppers = tuple(line.strip().encode() for line in text.splitlines() if line.strip())
    if not peppers:
        raise PepperError("unreadable", "no pepper in it")
    if any(len(pepper) < _MIN_CHARACTERS for pepper in peppers):
        raise PepperError("too_short", f"fewer than {_MIN_CHARACTERS} characters")
    return peppers


def load_or_make(directory: Path, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> tuple[bytes, ...]:
    """Return the peppers of the data directory, after making one when there is no file.

    The file appears whole or not at all, readable by its owner alone, and of several processes that start at once all
    return the same. A file that is there and holds no pepper is never replaced: see `parse`. Raises `PepperError`.
    """
    file = directory / FILE_NAME
    try:
        with contextlib.suppress(FileNotFoundError):
            return parse(file.read_text("utf-8"))
        with contextlib.suppress(FileExistsError), new_file(file) as made:
            made.write_text(random_bytes(_NEW_BYTES).hex() + "\n", "utf-8")
        return parse(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PepperError("unreadable", getattr(error, "strerror", None) or "no text") from error


def recognise(connection: Connection, peppers: Sequence[bytes]) -> None:
    """Hold the peppers against the database they were used with; the first time, let it remember the current one.

    To be called at the start, in a write. When the database remembers a former pepper, it remembers the current one
    from now on. Raises `PepperError` (`not_ours`) when it remembers none of them, and there are keys.
    """
    facts = schema.facts
    here = facts.c.name == schema.FACT_PEPPER
    remembered = connection.execute(select(facts.c.value).where(here)).scalar_one_or_none()
    current = _fingerprint(peppers[0])
    if remembered == current:
        return
    known = remembered is None or remembered in {_fingerprint(pepper) for pepper in peppers}
    if not known and connection.execute(select(schema.keys.c.id).limit(1)).first() is not None:
        raise PepperError("not_ours")
    connection.execute(delete(facts).where(here))
    connection.execute(insert(facts).values(name=schema.FACT_PEPPER, value=current))


def _fingerprint(pepper: bytes) -> str:
    return hmac.digest(pepper, b"chatgate: which pepper this is", "sha256").hex()[:32]
