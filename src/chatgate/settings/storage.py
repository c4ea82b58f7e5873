"""Where keys and records are kept, where machines count together, and the secret that digests of keys are made under.

Owns what the three variables may hold; opens nothing. What a URL of a database means in full is the storage's business.
Called by `reading`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from msgspec import Struct

from chatgate.settings.problems import Refusal
from chatgate.vocabulary.stores import RedisAddress

if TYPE_CHECKING:
    from chatgate.settings.environment import Environment
    from chatgate.settings.problems import Problems

MIN_PEPPER_BYTES = 32

_POSTGRESQL = frozenset({"postgres", "postgresql", "postgresql+psycopg"})
_DATABASE_NAME = re.compile(r"[^/?#]*/[^?#]")
_PASSWORD_OF_QUERY = re.compile(r"[?&](?:ssl)?password=([^&]*)")
_LOOKS_LIKE = "it looks like postgresql://user:password@host:5432/name or sqlite:////a/path"


class StorageSettings(Struct, frozen=True):
    """The values as they were given, None when they were not, and what in them must stay secret."""

    database_url: str | None
    redis: RedisAddress | None
    pepper: str | None
    secrets: frozenset[str]

    def __repr__(self) -> str:
        """Hide all of it."""
        return "StorageSettings()"


def read_storage(environment: Environment, problems: Problems) -> StorageSettings:
    """Read the variables, or the files that their `…_FILE` variants name."""
    url = environment.find_secret("CHATGATE_DATABASE_URL")
    redis_url = environment.find_secret("CHATGATE_REDIS_URL")
    pepper = environment.find_secret("CHATGATE_PEPPER")
    redis: RedisAddress | None = None
    secrets: set[str] = set()
    if url is not None:
        with problems.about(url.place):
            secrets |= secrets_of_url(url.value)
    if redis_url is not None:
        with problems.about(redis_url.place):
            redis = read_redis(redis_url.value)
            # As it is written and as it is meant.
            secrets |= {redis.password or "", redis_url.value.rpartition("@")[0].rpartition(":")[2]} - {"", "//"}
    if pepper is not None:
        with problems.about(pepper.place):
            secrets |= set(peppers_of(pepper.value))
    return StorageSettings(
        None if url is None else url.value, redis, None if pepper is None else pepper.value, frozenset(secrets)
    )


def read_redis(url: str) -> RedisAddress:
    """Read the URL of a Redis or Valkey server. Raises `Refusal`."""
    try:
        return RedisAddress.parse(url)
    except ValueError as error:
        raise Refusal(
            "must be the URL of a Redis or Valkey server",
            "it looks like redis://user:password@host:6379/0, or rediss:// for TLS",
        ) from error


def secrets_of_url(url: str) -> frozenset[str]:
    """Return the password in a database's URL, as written and as meant. Raises `Refusal` for what is no such URL."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        is_known = rest.startswith("/") and "?" not in rest and rest not in {"/", "/:memory:"}
        found = set()
    else:
        credentials, _, place = rest.rpartition("@")
        is_known = scheme in _POSTGRESQL and _DATABASE_NAME.match(place) is not None
        found = {credentials.partition(":")[2], *_PASSWORD_OF_QUERY.findall(place)}
    if not is_known or not url.isprintable():
        raise Refusal("must be the URL of a PostgreSQL or SQLite database", _LOOKS_LIKE)
    return frozenset({*found, *map(unquote, found)} - {""})


def peppers_of(text: str) -> tuple[str, ...]:
    """Return the peppers on the lines of a text, the current one first; never empty. Raises `Refusal`."""
    peppers = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not all(pepper.isprintable() and len(pepper.encode()) >= MIN_PEPPER_BYTES for pepper in peppers):
        raise Refusal(
            f"must be at least {MIN_PEPPER_BYTES} printable characters, and so must each former one below it",
            "make one with: openssl rand -hex 32",
        )
    return peppers
