"""Find the address a call really comes from, and say whether it may come in.

Owns the reading of address lists, of `X-Forwarded-For`, and what counts as one caller. Does no I/O and resolves no
names. The composition root builds `Addresses`; the pipeline asks it once per call, before the body is read.

Who is believed: only a peer on the list of trusted proxies may speak `X-Forwarded-For`. Each proxy appends the address
it was called from, so the header is read from its right end, where our own proxies wrote, and reading stops at the
first address that is not one of them. Whatever a caller puts into the header himself stands further left and is never
reached.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from msgspec import Struct

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_HOPS = 20
_MAX_HOP_BYTES = 64
_MAX_PORT = 65_535
_REMEMBERED = 4096

_CIDR = re.compile(r"[0-9A-Fa-f.:]+(/[0-9]+)?")
"""What addresses and blocks are spelled with; the library would also take zone ids and netmasks."""

_IPV6_FLAG = 1 << 64
_LOCAL = 1 << 32


class Address(Struct, frozen=True, gc=False):
    """An address that was judged.

    `text` is its usual spelling, for the log; `local` when the other end of the socket has no address. `counted_as` is
    what limits count, as in `Caller`. `trusted` says that it may speak for others.
    """

    text: str
    counted_as: int
    may_enter: bool
    trusted: bool


class Addresses:
    """Judges addresses by two lists: who may come in, and whose word about others is taken."""

    def __init__(self, allow: Sequence[str], trusted_proxies: Sequence[str]) -> None:
        """Read both lists; an empty `allow` lets everyone in, an empty `trusted_proxies` trusts nobody.

        Raises ValueError with the offending text, see `parse_network`.
        """
        self._allowed = _Networks(parse_network(text) for text in allow)
        self._proxies = _Networks(parse_network(text) for text in trusted_proxies)
        # Most calls come from few peers; a flood of others only costs the parsing it would cost anyway.
        self._peer: Callable[[str], Address] = lru_cache(_REMEMBERED)(self._judge_peer)
        self._hop: Callable[[bytes], Address | None] = lru_cache(_REMEMBERED)(self._judge_hop)

    def caller_address(self, peer: str, forwarded_for: bytes | None) -> Address:
        """Return where the call comes from. Never raises, whatever the header holds.

        `peer` is the other end of the socket as text, "" when it has none. `forwarded_for` is the value of
        `X-Forwarded-For`, several lines joined by `, `; None when it was not sent. It is read from right to left past
        trusted proxies, over at most 20 hops. The walk ends at the first address that is not a proxy's, and at
        anything that is no address: then the last proxy that was recognised is the caller, for it vouched for nobody.
        """
        address = self._peer(peer)
        if forwarded_for is None or not address.trusted:
            return address
        for hop in reversed(forwarded_for.rsplit(b",", _MAX_HOPS)[-_MAX_HOPS:]):
            written = hop.strip(b" \t")
            # Long ones are never addresses, and must not fill the memory of the judged.
            named = self._hop(written) if len(written) <= _MAX_HOP_BYTES else None
            if named is None:
                break
            address = named
            if not named.trusted:
                break
        return address

    def _judge_peer(self, peer: str) -> Address:
        """Judge the other end of a socket; one without an address can be on no list."""
        try:
            # The system names the interface of a link-local peer: fe80::1%eth0.
            return self._judge(_unmapped(ipaddress.ip_address(peer.partition("%")[0])))
        except ValueError:
            return Address("local", _LOCAL, may_enter=not self._allowed, trusted=False)

    def _judge_hop(self, hop: bytes) -> Address | None:
        """Judge what a proxy wrote; None when it is no address."""
        address = _parse_hop(hop)
        return None if address is None else self._judge(address)

    def _judge(self, address: IPAddress) -> Address:
        return Address(
            str(address),
            _counted_as(address),
            may_enter=not self._allowed or address in self._allowed,
            trusted=address in self._proxies,
        )


def parse_network(text: str) -> IPNetwork:
    """Read an address or a CIDR block of a list.

    An IPv4-mapped IPv6 block (`::ffff:10.0.0.0/104`) is the IPv4 block. Names, zone ids, netmasks, address ranges, and
    blocks with bits set behind their prefix (a slip more often than not, and it would let in more than was meant) raise
    ValueError with the offending text.
    """
    block = text.strip()
    wrong = ValueError(f"{text!r} is not an IP address or CIDR block")
    if not _CIDR.fullmatch(block):
        raise wrong
    try:
        own = ipaddress.ip_address(block.partition("/")[0])
        network = ipaddress.ip_network(block, strict=False)
    except ValueError:
        raise wrong from None
    if network.network_address != own:
        raise ValueError(f"{text!r} has bits set behind its prefix: write {network} or {own}")
    mapped = _unmapped(network.network_address)
    if mapped.version != network.version and network.prefixlen >= 96:  # noqa: PLR2004 - RFC 4291, 2.5.5.2
        return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


def _parse_hop(hop: bytes) -> IPAddress | None:
    """Read an address with or without a port: `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:443`."""
    try:
        text = hop.decode("ascii")
        if text.startswith("["):
            inside, bracket, rest = text[1:].partition("]")
            if not bracket or ":" not in inside or (rest and not _is_port(rest)):
                return None
            text = inside
        elif text.count(":") == 1:
            text, _, port = text.partition(":")
            if not _is_port(f":{port}"):
                return None
        return None if "%" in text else _unmapped(ipaddress.ip_address(text))
    except ValueError:
        return None


def _is_port(text: str) -> bool:
    """Tell whether the text is a colon and a port."""
    digits = text[1:]
    return text[0] == ":" and digits.isdigit() and len(digits) <= len("65535") and int(digits) <= _MAX_PORT


def _unmapped(address: IPAddress) -> IPAddress:
    """Return the IPv4 address inside an IPv4-mapped IPv6 address, and any other address as it is."""
    return getattr(address, "ipv4_mapped", None) or address


def _counted_as(address: IPAddress) -> int:
    """Return what limits count: see `Caller.counted_as`."""
    return int(address) if address.version == 4 else _IPV6_FLAG | int(address) >> 64  # noqa: PLR2004 - IP version 4


class _Networks:
    """A set of blocks that answers in the time of a binary search, however long the list is."""

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        """Merge the blocks into ascending ranges that do not touch, IPv4 before IPv6."""
        blocks = list(networks)
        merged: list[IPNetwork] = [
            *ipaddress.collapse_addresses(block for block in blocks if isinstance(block, ipaddress.IPv4Network)),
            *ipaddress.collapse_addresses(block for block in blocks if isinstance(block, ipaddress.IPv6Network)),
        ]
        self._firsts = [_place(block.network_address) for block in merged]
        self._lasts = [_place(block.broadcast_address) for block in merged]

    def __bool__(self) -> bool:
        """Tell whether there is any block."""
        return bool(self._firsts)

    def __contains__(self, address: IPAddress) -> bool:
        """Tell whether a block holds the address."""
        place = _place(address)
        at = bisect_right(self._firsts, place) - 1
        return at >= 0 and place <= self._lasts[at]


def _place(address: IPAddress) -> int:
    """Order all addresses, those of IPv4 before those of IPv6."""
    return int(address) if address.version == 4 else 1 << 128 | int(address)  # noqa: PLR2004 - IP version 4
