"""The keys this gateway gives out: how one is made, read, shown and turned into what is stored.

    sk-cg-<id>-<secret><checksum>        67 characters, digits and letters of either case

Owns the format and nothing else: it does no I/O, and knows neither the database nor where the pepper is. The commands
and the admin API make keys, the guard of calls reads them.

`id` is public: 64 random bits, and what people and the database call the key by. `secret` is 256 random bits.
`checksum` is the CRC-32 of everything before it, so that a key with a slip of the pen is refused without a look-up; it
finds every change of up to four neighbouring characters, and protects from nothing else. What is stored of a key is
`digest`, which opens nothing.
"""

from __future__ import annotations

import hmac
import re
from binascii import crc32
from typing import TYPE_CHECKING

from msgspec import Struct

from chatgate.vocabulary.identity import GATEWAY_KEY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_BYTES = 8
_SECRET_BYTES = 32
_ID_CHARACTERS = 11
_SECRET_CHARACTERS = 43
_CHECKSUM_CHARACTERS = 6

_FORMAT = re.compile(
    rf"{GATEWAY_KEY_PREFIX}(?P<id>[0-9A-Za-z]{{{_ID_CHARACTERS}}})-"
    rf"[0-9A-Za-z]{{{_SECRET_CHARACTERS}}}(?P<checksum>[0-9A-Za-z]{{{_CHECKSUM_CHARACTERS}}})"
)


class GatewayKey(Struct, frozen=True, gc=False):
    """A key of this gateway in clear text, to be shown once and then forgotten."""

    id: str
    text: str

    @property
    def display(self) -> str:
        """Return what may be shown of the key at any time: `sk-cg-<id>-…`."""
        return display(self.id)

    def __repr__(self) -> str:
        """Hide the secret, wherever this object ends up."""
        return f"GatewayKey({self.display})"


def make(random_bytes: Callable[[int], bytes], key_id: str | None = None) -> GatewayKey:
    """Make a key from `random_bytes(n)`, which is `secrets.token_bytes` but for tests.

    `key_id` is the id of a key that gets a new secret; None makes a new id.
    """
    if key_id is None:
        key_id = _base62(int.from_bytes(random_bytes(_ID_BYTES)), _ID_CHARACTERS)
    secret = _base62(int.from_bytes(random_bytes(_SECRET_BYTES)), _SECRET_CHARACTERS)
    body = f"{GATEWAY_KEY_PREFIX}{key_id}-{secret}"
    return GatewayKey(key_id, body + _checksum(body))


def parse(shown: str) -> GatewayKey | None:
    """Read a key as a caller shows it; None when it cannot be one of ours.

    That it can be one does not mean that it is: only the database knows.
    """
    found = _FORMAT.fullmatch(shown)
    if found is None or _checksum(shown[:-_CHECKSUM_CHARACTERS]) != found["checksum"]:
        return None
    return GatewayKey(found["id"], shown)


def display(key_id: str) -> str:
    """Return what may be shown of a key with this id."""
    return f"{GATEWAY_KEY_PREFIX}{key_id}-…"


def digest(pepper: bytes, key: GatewayKey) -> str:
    """Return what is stored of a key and what it is found by: HMAC-SHA-256 under the pepper, 64 hexadecimal digits.

    A key has 256 random bits, so nothing slower is needed: nobody can try them all.
    """
    return hmac.digest(pepper, key.text.encode("ascii"), "sha256").hex()


def _checksum(body: str) -> str:
    return _base62(crc32(body.encode("ascii")), _CHECKSUM_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    """Write a number with a fixed count of digits, leading zeros included."""
    written = ""
    for _ in range(characters):
        number, digit = divmod(number, len(_DIGITS))
        written = _DIGITS[digit] + written
    return written
