"""Who calls: the address that is counted, and the key that was shown."""

from __future__ import annotations

import enum

from msgspec import Struct

from chatgate.vocabulary.keys import KeyRecord


class KeyKind(enum.Enum):
    """What a shown key is."""

    NONE = "none"
    PROVIDER = "provider"
    GATEWAY = "gateway"


_GATEWAY = KeyKind.GATEWAY

GATEWAY_KEY_PREFIX = "sk-cg-"
"""Every key made by this gateway starts so, and one whose case was changed is still no provider's; anything else is."""

NO_KEY_WORDS = frozenset({"", "none", "empty", "chatgate", "-"})
"""Words that count as no key, in any case: SDKs insist on some key even where none is needed."""


class Key(Struct, frozen=True, gc=False):
    """A key as the caller showed it.

    `secret` is empty when none was shown. It never leaves this object except towards the default upstream's origin.
    """

    kind: KeyKind
    secret: str = ""

    def __repr__(self) -> str:
        """Hide the secret, wherever this object ends up."""
        return f"Key({self.kind.value})"


NO_KEY = Key(KeyKind.NONE)


def read_key(secret: str) -> Key:
    """Tell what kind of key a shown secret is."""
    if secret.lower() in NO_KEY_WORDS:
        return NO_KEY
    if secret.lower().startswith(GATEWAY_KEY_PREFIX):
        return Key(KeyKind.GATEWAY, secret)
    return Key(KeyKind.PROVIDER, secret)


class Caller(Struct, frozen=True, gc=False):
    """Who calls.

    `record` is what is known of a key of the gateway; None for other keys, and until the storage has been asked.
    `address` is the client's address as text, for the log. `counted_as` is what limits count: the IPv4 address as an
    integer, or the upper 64 bits of an IPv6 address tagged with bit 64, so that a /64 counts as one caller.
    """

    address: str
    counted_as: int
    key: Key = NO_KEY
    record: KeyRecord | None = None

    @property
    def is_unknown(self) -> bool:
        """Tell whether a key of the gateway was shown that nothing is known of yet."""
        return self.record is None and self.key.kind is _GATEWAY
