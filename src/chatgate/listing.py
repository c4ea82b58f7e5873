"""Which models a caller is told of.

Those that the configuration names, the demo models, and, where any name goes to the default upstream, what that one
lists itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from chatgate.protocols import openai_models
from chatgate.providers.translating import read_models
from chatgate.vocabulary.errors import CallerError, Kind, UpstreamError
from chatgate.vocabulary.identity import KeyKind
from chatgate.vocabulary.upstreams import Timeouts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from chatgate.protocols.openai_models import Entry
    from chatgate.providers.requests import Requests
    from chatgate.vocabulary.exchange import Sender
    from chatgate.vocabulary.identity import Key

REMEMBERED_SECONDS = 60.0
"""How long the default upstream's list, as seen with one key, is told without asking again."""

MAX_REMEMBERED = 256
"""For so many keys at once."""

MAX_LIST_BYTES = 8 << 20

_TIMEOUTS = Timeouts(connect_seconds=3.0, first_token_seconds=6.0, idle_seconds=3.0, total_seconds=8.0)
_OK, _UNAUTHORIZED = 200, 401


class Upstreams(Struct, frozen=True):
    """Where the default upstream's own list is asked for."""

    requests: Requests
    sender: Sender


class Listing:
    """Tells which models exist."""

    def __init__(
        self, own: Sequence[Entry], default: Upstreams | None, assumed: Sequence[Entry], clock: Callable[[], float]
    ) -> None:
        """Take what is known beforehand.

        `own` always exists. `default` is None when the configuration names every model; else the default upstream is
        asked, and `assumed` is told when it gives no list.
        """
        self._own = tuple(own)
        self._default = default
        self._assumed = tuple(assumed)
        self._clock = clock
        self._remembered: dict[str, tuple[float, tuple[Entry, ...] | None]] = {}

    async def all(self, key: Key, take: Callable[[], Awaitable[None]]) -> tuple[Entry, ...]:
        """Return every model, as this caller may see them.

        `take` is awaited before the provider is asked with the caller's own key; it may raise to refuse that. Raises
        `CallerError` when the provider does not accept the key.
        """
        offered = await self._offered(key, take)
        return (*(self._assumed if offered is None else offered), *self._own)

    async def one(self, name: str, key: Key, take: Callable[[], Awaitable[None]]) -> Entry:
        """Return a model; see `all`. Raises `CallerError` when there is none of that name."""
        known = {each["id"]: each for each in self._own}
        if name in known:
            return known[name]
        offered = await self._offered(key, take)
        for each in offered or ():
            if each["id"] == name:
                return each
        if self._default is not None and offered is None:
            return openai_models.entry(name, self._default.requests.upstream.name)
        raise CallerError(Kind.MODEL_NOT_FOUND, "unknown_model", param="model", parameters={"model": name[:100]})

    async def _offered(self, key: Key, take: Callable[[], Awaitable[None]]) -> tuple[Entry, ...] | None:
        """Return what the default upstream lists, None when that cannot be known."""
        if self._default is None:
            return ()
        upstream = self._default.requests.upstream
        own_key = key.kind is KeyKind.PROVIDER
        secret = key.secret if own_key else upstream.api_key
        if upstream.key_needed and not secret:
            return None
        until, offered = self._remembered.get(secret, (0.0, None))
        if self._clock() < until:
            return offered
        if own_key:
            await take()
        offered = await self._ask(self._default, secret, own_key=own_key)
        self._remembered.pop(secret, None)
        while len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[secret] = (self._clock() + REMEMBERED_SECONDS, offered)
        return offered

    async def _ask(self, default: Upstreams, secret: str, *, own_key: bool) -> tuple[Entry, ...] | None:
        try:
            answer = await default.sender.send(default.requests.models(secret, _TIMEOUTS))
            try:
                body = await answer.read(MAX_LIST_BYTES)
            finally:
                answer.close()
            if answer.status == _UNAUTHORIZED and own_key:
                raise CallerError(Kind.INVALID_KEY, "provider_refused_key_caller")
            return tuple(read_models(default.requests.upstream.protocol, body)) if answer.status == _OK else None
        except UpstreamError:
            return None
