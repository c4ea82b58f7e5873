"""The responses that callers go on from, in the database that `keeping` lends.

Owns how `remembering.Shelf` is answered, and until when a response is kept.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from chatgate.admission.keyring import LookupUnavailable
from chatgate.storage import responses
from chatgate.storage.errors import StorageError
from chatgate.vocabulary.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from chatgate.app.keeping import Keeping

Result = TypeVar("Result")

_LOG = logging.getLogger(__name__)
_now = functools.partial(datetime.now, UTC)


class Shelf:
    """Responses, each for `seconds`."""

    def __init__(self, keeping: Keeping, seconds: int) -> None:
        """Ask the database that `keeping` lends."""
        self._keeping = keeping
        self._seconds = seconds

    async def put(self, identity: str, subject: str, body: str) -> None:
        """Keep one. An answer is worth more than its memory: what goes wrong here is logged, and ends no call."""
        until = _now() + timedelta(seconds=self._seconds)
        try:
            await _told(lambda: self._keeping.threads.write(responses.store, identity, subject, until, body))
        except (Overloaded, ValueError) as error:
            _LOG.error("A response was not kept: %s", error.__cause__ or error)

    async def get(self, identity: str, subject: str) -> str | None:
        """Return one; None when there is none for this subject. Raises `Overloaded`."""
        return await _told(lambda: self._keeping.threads.read(responses.find, identity, subject, _now()))

    async def remove(self, identity: str, subject: str) -> bool:
        """Delete one; False when there is none for this subject. Raises `Overloaded`."""
        return await _told(lambda: self._keeping.threads.write(responses.remove, identity, subject, _now()))


async def _told(ask: Callable[[], Coroutine[None, None, Result]]) -> Result:
    try:
        # A call is no task, and it takes one to wait for a thread with an end to the waiting.
        return await asyncio.create_task(ask())
    except (StorageError, LookupUnavailable) as error:
        raise Overloaded("responses_unavailable") from error
