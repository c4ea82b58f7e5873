"""Stores on other machines, as configured: where they are and how we log in there."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

REDIS_PORT: Final = 6379
_HIGHEST_PORT: Final = 65_535

_URL = re.compile(
    r"(?P<scheme>rediss?|unix)://"
    r"(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?"
    r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@]*)(?::(?P<port>\d{1,5}))?)"
    r"(?P<path>/[^?#]*)?(?:\?db=(?P<db>\d{1,4}))?"
)


class RedisAddress(Struct, frozen=True):
    """A database of a Redis or Valkey server.

    `path` is a Unix socket's, "" where `host` and `port` are used. `user` and `password` are None when not given.
    """

    host: str
    port: int
    path: str = ""
    tls: bool = False
    user: str | None = None
    password: str | None = None
    db: int = 0

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Read `redis://[[user]:password@]host[:port][/db]`; `rediss://` is the same over TLS.

        A Unix socket is `unix://[[user]:password@]/path[?db=1]`. Raises ValueError, with nothing of the URL in it.
        """
        found = _URL.fullmatch(url) if url.isprintable() else None
        if found is None:
            raise ValueError("no URL of a Redis server")
        scheme, path, db = found["scheme"], found["path"] or "", found["db"] or "0"
        host, port = found["host"].strip("[]"), int(found["port"] or REDIS_PORT)
        user = unquote(found["user"]) if found["user"] else None
        password = unquote(found["password"]) if found["password"] else None
        if scheme == "unix":
            if host or found["port"] or len(path) <= 1:
                raise ValueError("a Unix socket has a path and no host")
            return cls("", 0, unquote(path), user=user, password=password, db=int(db))
        number = path.removeprefix("/") or db
        if not host or not 0 < port <= _HIGHEST_PORT or not re.fullmatch(r"\d{1,4}", number):
            raise ValueError("a Redis server has a host and perhaps the number of a database")
        return cls(host, port, tls=scheme == "rediss", user=user, password=password, db=int(number))

    def __str__(self) -> str:
        """Say where it is, without what logs in there."""
        if self.path:
            return f"unix://{self.path}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.db}"

    def __repr__(self) -> str:
        """Leave user and password out."""
        return f"RedisAddress({self})"
