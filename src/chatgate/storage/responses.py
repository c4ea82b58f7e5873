"""The responses that callers may look at again and go on from, each until its time is over.

Owns the table of them; what is in a body is its writer's business. Nobody gets to see one without its subject, and what
has expired is not there any more, whether it was deleted yet or not. Each function takes a connection, see `database`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, insert, select

from chatgate.storage import schema

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

MAX_CHARACTERS = schema.MAX_RESPONSE_CHARACTERS
"""What is longer is not stored."""

_RESPONSES = schema.responses


def store(connection: Connection, identity: str, subject: str, expires_at: datetime, body: str) -> None:
    """Store a response; one with the same id is replaced. Raises ValueError for a body that is too long."""
    if len(body) > MAX_CHARACTERS:
        raise ValueError("the response is too long to be stored whole")
    connection.execute(delete(_RESPONSES).where(_RESPONSES.c.id == identity, _RESPONSES.c.subject == subject))
    values = {"id": identity, "subject": subject, "expires_at": expires_at, "body": body}
    connection.execute(insert(_RESPONSES).values(values))


def find(connection: Connection, identity: str, subject: str, now: datetime) -> str | None:
    """Return the body of a response; None when there is none that this subject may see."""
    there = select(_RESPONSES.c.body).where(_is(identity, subject), _RESPONSES.c.expires_at > now)
    return connection.execute(there).scalar_one_or_none()


def remove(connection: Connection, identity: str, subject: str, now: datetime) -> bool:
    """Delete a response; False when there is none that this subject may see."""
    here = and_(_is(identity, subject), _RESPONSES.c.expires_at > now)
    return connection.execute(delete(_RESPONSES).where(here)).rowcount == 1


def forget(connection: Connection, now: datetime, limit: int) -> int:
    """Delete some that have expired, the oldest first; return how many."""
    old = select(_RESPONSES.c.id).where(_RESPONSES.c.expires_at <= now).order_by(_RESPONSES.c.expires_at).limit(limit)
    return connection.execute(delete(_RESPONSES).where(_RESPONSES.c.id.in_(old.scalar_subquery()))).rowcount


def _is(identity: str, subject: str) -> ColumnElement[bool]:
    return and_(_RESPONSES.c.id == identity, _RESPONSES.c.subject == subject)
