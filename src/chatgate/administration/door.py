"""Who may administer: the admin keys, and what becomes of wrong ones.

Owns the comparison, which takes as long for a near miss as for nonsense, and how many wrong keys an address may show.
Reads nothing but the head of a request, so that strangers cannot have bodies collected. A key of an owner sees the keys
and the usage of that owner only: that is for the statements of the database to ensure, see `desk`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from hashlib import blake2s
from typing import Final

from msgspec import Struct

from chatgate.admission.address_limits import AddressLimits
from chatgate.refusals import wait_phrase
from chatgate.vocabulary.errors import CallerError, Kind

WRONG_KEYS_PER_MINUTE: Final = 10
"""So many an address may show; then every key is refused that it shows, without a look, until a minute has passed."""

MAX_ADDRESSES: Final = 10_000
"""So many addresses are counted one by one, and more by neighbourhood."""

_BEARER = b"bearer"


class Admin(Struct, frozen=True):
    """Somebody who may administer. `owner` is whose keys only, None for all; `may_change` is more than looking."""

    name: str
    owner: str | None = None
    may_change: bool = True


class Door:
    """Lets administrators in."""

    def __init__(self, admins: Sequence[tuple[Admin, str]], wrong_keys: AddressLimits) -> None:
        """Take who may come in with which key; `wrong_keys` limits how many an address may show."""
        self._admins = [(admin, _mark(key.encode())) for admin, key in admins]
        self._wrong_keys = wrong_keys

    def enter(self, headers: Mapping[bytes, bytes], counted_as: int) -> Admin:
        """Return who shows this key. Raises `CallerError`; `counted_as` is the address as limits count it."""
        scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
        shown = shown.strip()
        if scheme.lower() != _BEARER or not shown:
            raise CallerError(Kind.MISSING_KEY, "missing_key")
        standing = self._wrong_keys.standing(counted_as)
        if not standing.admitted:
            raise CallerError(
                Kind.RATE_LIMIT_EXCEEDED,
                "too_many_wrong_keys",
                retry_after_seconds=standing.retry_after_seconds,
                parameters={"wait": wait_phrase(standing.retry_after_seconds)},
            )
        mark, found = _mark(shown), None
        for admin, known in self._admins:
            if hmac.compare_digest(mark, known):
                found = admin
        if found is None:
            self._wrong_keys.admit(counted_as)
            raise CallerError(Kind.INVALID_KEY, "unknown_admin_key")
        return found


def _mark(key: bytes) -> bytes:
    """Return what keys are compared by: digests, which are equally long and tell nothing of how much was right."""
    return blake2s(key).digest()
