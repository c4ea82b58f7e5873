"""Which key a caller shows, and whether it opens this gateway.

The key is looked for in every place that a client of any protocol puts it. A provider's key that a caller brings is
never judged here: only the provider can.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.identity import NO_KEY, Key, KeyKind, read_key

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_KEY_CHARACTERS = 512
"""Longer than any provider's key; the longest seen are tokens of about 300 characters."""

_WELL_FORMED = re.compile(r"[\x21-\x7e]*")
_KEY_HEADERS = (b"x-api-key", b"api-key", b"x-goog-api-key")
_BEARER = b"bearer"


def key_of_head(headers: Mapping[bytes, bytes], query: str) -> Key:
    """Return the key of a request's head: Bearer first, then the other headers, then `?key=`.

    Raises `CallerError` of kind `INVALID_KEY` when what is shown cannot be a key.
    """
    authorization = headers.get(b"authorization")
    if authorization is not None and (key := _bearer(authorization)) is not NO_KEY:
        return key
    for name in _KEY_HEADERS:
        if name in headers and (key := check_key(headers[name].strip().decode("latin-1"))) is not NO_KEY:
            return key
    if "key=" in query:
        for pair in query.split("&"):
            field, _, value = pair.partition("=")
            if field == "key":
                return check_key(unquote(value, errors="replace").strip())
    return NO_KEY


@lru_cache(maxsize=1024)
def _bearer(authorization: bytes) -> Key:
    """Return the key of an Authorization line. Callers show the same line with every call, so it is read once."""
    scheme, _, shown = authorization.partition(b" ")
    return check_key(shown.strip().decode("latin-1")) if scheme.lower() == _BEARER else NO_KEY


def check_key(shown: str) -> Key:
    """Return the key that a text is. Raises `CallerError` when the text could not be one."""
    if len(shown) > MAX_KEY_CHARACTERS or _WELL_FORMED.fullmatch(shown) is None:
        raise CallerError(Kind.INVALID_KEY, "malformed_key")
    return read_key(shown)


class Door:
    """Decides which kinds of keys open the gateway."""

    def __init__(self, *, anonymous: bool) -> None:
        """`anonymous` lets in callers without a key of this gateway."""
        self._anonymous = anonymous

    def check(self, key: Key) -> None:
        """Let a caller in, or raise `CallerError`. Which keys of the gateway's own open it, the keyring tells."""
        if not self._anonymous and key.kind is not KeyKind.GATEWAY:
            if key.kind is KeyKind.NONE:
                raise CallerError(Kind.MISSING_KEY, "missing_key")
            raise CallerError(Kind.INVALID_KEY, "provider_key_not_accepted")
