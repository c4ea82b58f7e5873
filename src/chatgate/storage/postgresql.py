"""PostgreSQL: how its connections are opened.

Owns what is special about this database; `database` is the only user. It is spoken through psycopg, whose wheels bring
the client library along, so that both databases are used in the same way: from threads.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Engine, create_engine

_CONNECTIONS = 5


def engine(url: URL, wait_seconds: float) -> Engine:
    """Return the engine. Nothing is connected yet.

    A connection is tried before each use, so that a restart of the server costs nobody an error. A server that has
    vanished is noticed within some ten seconds; one that is frozen only by those who wait for it.
    """
    milliseconds = round(wait_seconds * 1000)
    arguments: dict[str, Any] = {
        "connect_timeout": max(2, round(wait_seconds)),
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 2 * milliseconds,
        "application_name": "chatgate",
        # Poolers between us and the server do not keep prepared statements.
        "prepare_threshold": None,
    }
    if "options" not in url.query:
        arguments["options"] = f"-c lock_timeout={milliseconds} -c idle_in_transaction_session_timeout=60s"
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=arguments,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=wait_seconds,
        pool_pre_ping=True,
        # An error is logged, and what it was about may be a digest.
        hide_parameters=True,
    )
