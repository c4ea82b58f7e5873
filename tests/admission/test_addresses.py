"""Addresses: who a call really comes from, and who may come in."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.admission.addresses import Addresses, parse_network

PROXIES = ["127.0.0.1", "10.0.0.0/8", "2001:db8:ffff::/48", "::1"]

WALKS: list[tuple[str, bytes | None, str]] = [
    # A peer that is no proxy speaks for itself only.
    ("192.0.2.1", None, "192.0.2.1"),
    ("192.0.2.1", b"198.51.100.7", "192.0.2.1"),
    ("192.0.2.1", b"127.0.0.1", "192.0.2.1"),
    ("2001:db8::5", b"198.51.100.7", "2001:db8::5"),
    ("2001:DB8:0:0::5", None, "2001:db8::5"),
    ("::ffff:192.0.2.1", None, "192.0.2.1"),
    ("::ffff:c000:201", b"198.51.100.7", "192.0.2.1"),
    ("fe80::1%eth0", b"198.51.100.7", "fe80::1"),
    ("9.255.255.255", b"198.51.100.7", "9.255.255.255"),
    ("11.0.0.0", b"198.51.100.7", "11.0.0.0"),
    ("2001:db8:fffe:ffff::", b"198.51.100.7", "2001:db8:fffe:ffff::"),
    ("", None, "local"),
    ("", b"198.51.100.7", "local"),
    ("no address", b"198.51.100.7", "local"),
    # A proxy's last word counts, and what stands left of it does not.
    ("127.0.0.1", None, "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7", "198.51.100.7"),
    ("::ffff:127.0.0.1", b"198.51.100.7", "198.51.100.7"),
    ("::1", b"198.51.100.7", "198.51.100.7"),
    ("10.255.255.255", b"198.51.100.7", "198.51.100.7"),
    ("2001:db8:ffff:1::9", b"198.51.100.7", "198.51.100.7"),
    ("127.0.0.1", b"203.0.113.9, 198.51.100.7", "198.51.100.7"),
    ("127.0.0.1", b"10.0.0.1, 198.51.100.7", "198.51.100.7"),
    ("127.0.0.1", b"garbage, 198.51.100.7", "198.51.100.7"),
    ("127.0.0.1", b"\xff\x00, 198.51.100.7", "198.51.100.7"),
    ("127.0.0.1", b", , ,198.51.100.7", "198.51.100.7"),
    # Proxies in a row are passed.
    ("127.0.0.1", b"198.51.100.7, 10.0.0.1", "198.51.100.7"),
    ("127.0.0.1", b"198.51.100.7,10.0.0.1,10.0.0.2", "198.51.100.7"),
    ("127.0.0.1", b"203.0.113.9, 198.51.100.7, 10.0.0.1, ::1", "198.51.100.7"),
    ("127.0.0.1", b"198.51.100.7, ::ffff:10.0.0.1", "198.51.100.7"),
    ("127.0.0.1", b"198.51.100.7, [2001:db8:ffff::1]:99, 10.0.0.1:80", "198.51.100.7"),
    # When all are proxies, the first of them called.
    ("127.0.0.1", b"10.0.0.1", "10.0.0.1"),
    ("127.0.0.1", b"10.0.0.2, 10.0.0.1", "10.0.0.2"),
    ("127.0.0.1", b"127.0.0.1", "127.0.0.1"),
    # What is no address ends the walk at the last good one.
    ("127.0.0.1", b"", "127.0.0.1"),
    ("127.0.0.1", b" ", "127.0.0.1"),
    ("127.0.0.1", b",", "127.0.0.1"),
    ("127.0.0.1", b"unknown", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7, unknown", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7, unknown, 10.0.0.1", "10.0.0.1"),
    ("127.0.0.1", b"198.51.100.7, , 10.0.0.1", "10.0.0.1"),
    ("127.0.0.1", b"198.51.100.7,", "127.0.0.1"),
    ("127.0.0.1", b"_hidden", "127.0.0.1"),
    ("127.0.0.1", b"for=198.51.100.7", "127.0.0.1"),
    ("127.0.0.1", b'"198.51.100.7"', "127.0.0.1"),
    ("127.0.0.1", b"example.com", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7/32", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.256", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.07", "127.0.0.1"),
    ("127.0.0.1", b"3325256711", "127.0.0.1"),
    ("127.0.0.1", b"0x7f000001", "127.0.0.1"),
    ("127.0.0.1", b"127.1", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7 203.0.113.9", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7;203.0.113.9", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7\x00", "127.0.0.1"),
    ("127.0.0.1", b"\r198.51.100.7", "127.0.0.1"),
    ("127.0.0.1", "\u0661.2.3.4".encode(), "127.0.0.1"),
    ("127.0.0.1", b"fe80::1%eth0", "127.0.0.1"),
    ("127.0.0.1", b"[fe80::1%25eth0]:80", "127.0.0.1"),
    ("127.0.0.1", b"9" * 100_000, "127.0.0.1"),
    ("127.0.0.1", b"1.2.3.4" + b"0" * 60, "127.0.0.1"),
    # Ports, brackets and white space.
    ("127.0.0.1", b" \t198.51.100.7\t ", "198.51.100.7"),
    ("127.0.0.1", b"198.51.100.7" + b" " * 100, "198.51.100.7"),
    ("127.0.0.1", b"198.51.100.7:567", "198.51.100.7"),
    ("127.0.0.1", b"198.51.100.7:0", "198.51.100.7"),
    ("127.0.0.1", b"198.51.100.7:65535", "198.51.100.7"),
    ("127.0.0.1", b"198.51.100.7:65536", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7:", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7:-1", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7:8o", "127.0.0.1"),
    ("127.0.0.1", b"198.51.100.7:000080", "127.0.0.1"),
    ("127.0.0.1", b":80", "127.0.0.1"),
    ("127.0.0.1", b"2001:db8::1", "2001:db8::1"),
    ("127.0.0.1", b"2001:db8::1:443", "2001:db8::1:443"),
    ("127.0.0.1", b"[2001:db8::1]", "2001:db8::1"),
    ("127.0.0.1", b"[2001:db8::1]:443", "2001:db8::1"),
    ("127.0.0.1", b"[::ffff:198.51.100.7]:443", "198.51.100.7"),
    ("127.0.0.1", b"::ffff:198.51.100.7", "198.51.100.7"),
    ("127.0.0.1", b"64:ff9b::198.51.100.7", "64:ff9b::c633:6407"),
    ("127.0.0.1", b"[2001:db8::1]443", "127.0.0.1"),
    ("127.0.0.1", b"[2001:db8::1]:", "127.0.0.1"),
    ("127.0.0.1", b"[2001:db8::1", "127.0.0.1"),
    ("127.0.0.1", b"2001:db8::1]", "127.0.0.1"),
    ("127.0.0.1", b"[[2001:db8::1]]", "127.0.0.1"),
    ("127.0.0.1", b"[198.51.100.7]:80", "127.0.0.1"),
    ("127.0.0.1", b"[]:80", "127.0.0.1"),
    ("127.0.0.1", b"2001:db8::g", "127.0.0.1"),
    # Twenty hops are read, and not one more.
    ("127.0.0.1", b"198.51.100.7, " + b", ".join([b"10.0.0.1"] * 19), "198.51.100.7"),
    ("127.0.0.1", b"198.51.100.7, 10.0.0.2, " + b", ".join([b"10.0.0.1"] * 19), "10.0.0.2"),
    ("127.0.0.1", b"198.51.100.7, " * 5000 + b"10.0.0.9", "198.51.100.7"),
    ("127.0.0.1", b"," * 60_000, "127.0.0.1"),
]


@pytest.mark.parametrize(("peer", "forwarded_for", "caller"), WALKS)
def test_finds_the_caller(peer: str, forwarded_for: bytes | None, caller: str) -> None:
    """The caller is the first address from the right that is not a trusted proxy's."""
    addresses = Addresses([], PROXIES)
    assert addresses.caller_address(peer, forwarded_for).text == caller
    assert addresses.caller_address(peer, forwarded_for).text == caller, "and it is remembered as such"


@pytest.mark.parametrize(("peer", "forwarded_for"), [(peer, header) for peer, header, _ in WALKS])
def test_trusts_nobody_by_default(peer: str, forwarded_for: bytes | None) -> None:
    """Without trusted proxies no header changes anything."""
    addresses = Addresses([], [])
    assert addresses.caller_address(peer, forwarded_for) == addresses.caller_address(peer, None)


def test_everyone_may_be_trusted() -> None:
    """With all addresses trusted, the leftmost is the caller."""
    addresses = Addresses([], ["0.0.0.0/0", "::/0"])
    assert addresses.caller_address("192.0.2.1", b"198.51.100.7, 203.0.113.9, ::5").text == "198.51.100.7"
    assert addresses.caller_address("", b"198.51.100.7").text == "local", "but what has no address is never trusted"


PLACES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
HOPS = st.one_of(
    PLACES.map(lambda place: str(place).encode()),
    st.sampled_from([b"10.0.0.1", b"127.0.0.1", b"[2001:db8:ffff::1]:1", b"unknown", b"", b" "]),
    st.binary(max_size=30),
)


STRANGERS = st.one_of(
    PLACES.filter(lambda place: not Addresses([], PROXIES).caller_address(str(place), None).trusted).map(str),
    st.sampled_from(["unknown", "", "198.51.100.7:x", "_hidden", "[::1"]),
)


@given(STRANGERS, st.lists(st.just("10.0.0.1"), max_size=3), st.lists(HOPS, max_size=25))
def test_prepending_changes_nothing(seen: str, proxies: list[str], claimed: list[bytes]) -> None:
    """Whatever callers claim left of what the first of our proxies saw of them, they are who it saw."""
    addresses = Addresses([], PROXIES)
    honest = ", ".join([seen, *proxies]).encode()
    caller = addresses.caller_address("127.0.0.1", honest)
    assert addresses.caller_address("127.0.0.1", b", ".join([*claimed, honest])) == caller
    assert addresses.caller_address("127.0.0.1", b",".join(claimed) + b"," + honest) == caller


@given(st.text(max_size=40), st.binary(max_size=200), PLACES)
def test_untrusted_header_is_ignored(peer: str, forwarded_for: bytes, place: ipaddress.IPv4Address) -> None:
    """No header from a peer that is no proxy changes anything, and nothing raises."""
    addresses = Addresses([], [])
    for other in (peer, str(place)):
        assert addresses.caller_address(other, forwarded_for) == addresses.caller_address(other, None)


@given(st.lists(HOPS, max_size=30), st.binary(max_size=3))
def test_never_raises(hops: list[bytes], between: bytes) -> None:
    """Any bytes are taken, and lead to an address that is well formed."""
    address = Addresses([], [*PROXIES, "0.0.0.0/0"]).caller_address("127.0.0.1", between.join(hops))
    assert str(ipaddress.ip_address(address.text)) == address.text


COUNTED = [
    ("0.0.0.0", 0),
    ("192.0.2.1", 0xC0000201),
    ("255.255.255.255", 0xFFFFFFFF),
    ("::ffff:192.0.2.1", 0xC0000201),
    ("", 1 << 32),
    ("::", 1 << 64),
    ("::1", 1 << 64),
    ("2001:db8:1:2:3:4:5:6", 1 << 64 | 0x20010DB800010002),
    ("2001:db8:1:2:ffff::", 1 << 64 | 0x20010DB800010002),
    ("2001:db8:1:3::", 1 << 64 | 0x20010DB800010003),
    ("64:ff9b::192.0.2.1", 1 << 64 | 0x0064FF9B00000000),
    ("2002:c000:201::1", 1 << 64 | 0x2002C00002010000),
    ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", (1 << 65) - 1),
]


@pytest.mark.parametrize(("peer", "counted_as"), COUNTED)
def test_counts_callers(peer: str, counted_as: int) -> None:
    """An IPv4 address counts as itself, an IPv6 address as its /64, and a socket without address as one caller."""
    assert Addresses([], []).caller_address(peer, None).counted_as == counted_as


ALLOWED: list[tuple[Sequence[str], str, bool]] = [
    ([], "192.0.2.1", True),
    ([], "2001:db8::1", True),
    ([], "", True),
    (["192.0.2.1"], "192.0.2.1", True),
    (["192.0.2.1"], "::ffff:192.0.2.1", True),
    (["192.0.2.1"], "192.0.2.0", False),
    (["192.0.2.1"], "192.0.2.2", False),
    (["192.0.2.1"], "2001:db8::1", False),
    (["192.0.2.1"], "", False),
    (["192.0.2.1"], "no address", False),
    ([" 192.0.2.1 "], "192.0.2.1", True),
    (["192.0.2.0/24"], "192.0.2.255", True),
    (["192.0.2.0/24"], "192.0.3.0", False),
    (["192.0.2.0/31"], "192.0.2.1", True),
    (["0.0.0.0/0"], "203.0.113.9", True),
    (["0.0.0.0/0"], "::ffff:203.0.113.9", True),
    (["0.0.0.0/0"], "2001:db8::1", False),
    (["0.0.0.0/0"], "::203.0.113.9", False),
    (["::/0"], "2001:db8::1", True),
    (["::/0"], "203.0.113.9", False),
    (["::ffff:192.0.2.1"], "192.0.2.1", True),
    (["::ffff:192.0.2.1"], "192.0.2.2", False),
    (["::ffff:192.0.2.0/120"], "192.0.2.255", True),
    (["::ffff:192.0.2.0/120"], "192.0.3.0", False),
    (["::ffff:0:0/96"], "203.0.113.9", True),
    (["::ffff:0:0/96"], "2001:db8::1", False),
    (["::fffe:0:0/95"], "203.0.113.9", False),
    (["2001:db8::/32"], "2001:db8:ffff::1", True),
    (["2001:db8::/32"], "2001:db9::", False),
    (["2001:db8::1"], "2001:db8::1", True),
    (["2001:db8::1"], "2001:db8::2", False),
    (["fe80::/10"], "fe80::1%eth0", True),
    (["192.0.2.0/25", "192.0.2.128/25", "10.0.0.0/8", "10.1.0.0/16"], "192.0.2.200", True),
    (["10.0.0.0/8", "10.1.0.0/16"], "10.200.0.1", True),
    (["10.1.0.0/16", "::1", "10.3.0.0/16"], "10.2.0.1", False),
    (["10.1.0.0/16", "::1", "10.3.0.0/16"], "::1", True),
]


@pytest.mark.parametrize(("allow", "peer", "may_enter"), ALLOWED)
def test_lets_in(allow: Sequence[str], peer: str, may_enter: bool) -> None:  # noqa: FBT001 - a column of the table
    """Only who is on the list may come in; an empty list lets everyone in."""
    assert Addresses(allow, []).caller_address(peer, None).may_enter is may_enter


def test_judges_the_caller_and_not_the_proxy() -> None:
    """Behind a proxy it is the caller's address that must be on the list."""
    addresses = Addresses(["198.51.100.7"], ["127.0.0.1"])
    assert addresses.caller_address("127.0.0.1", b"198.51.100.7").may_enter
    assert not addresses.caller_address("127.0.0.1", b"198.51.100.7, 198.51.100.8").may_enter
    assert not addresses.caller_address("198.51.100.8", b"198.51.100.7").may_enter
    assert not addresses.caller_address("127.0.0.1", None).may_enter


NETWORKS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: ipaddress.ip_network(pair, strict=False))


@given(st.lists(NETWORKS, min_size=1, max_size=12), st.lists(PLACES, max_size=12))
def test_lists_agree_with_the_blocks(
    networks: list[ipaddress.IPv4Network], places: list[ipaddress.IPv4Address]
) -> None:
    """A list lets in exactly what one of its blocks holds, up to the blocks' edges."""
    addresses = Addresses([str(network) for network in networks], [])
    edges = [edge for network in networks for edge in (network.network_address, network.broadcast_address)]
    for place in [*places, *edges]:
        if getattr(place, "ipv4_mapped", None) is None:
            expected = any(place in network for network in networks)
            assert addresses.caller_address(str(place), None).may_enter is expected


WRONG = [
    "",
    " ",
    "/",
    "/8",
    "example.com",
    "10.0.0",
    "10.0.0.256",
    "010.0.0.1",
    "10.0.0.1/",
    "10.0.0.0/33",
    "10.0.0.0/-1",
    "10.0.0.0/ 8",
    "10.0.0.0/8/8",
    "10.0.0.0/255.0.0.0",
    "10.0.0.0/0.255.255.255",
    "10.0.0.0-10.0.0.9",
    "10.0.0.1/8",
    "192.0.2.1/31",
    "2001:db8::1/64",
    "::ffff:10.0.0.1/104",
    "2001:db8::/129",
    "2001:db8::g",
    "fe80::1%eth0",
    "fe80::%eth0/64",
    "[::1]",
    "10.0.0.1:80",
    "\u0661.2.3.4",
    "10.0.0.0/\u0668",
    "10.0.0.0/" + "9" * 5000,
    "10.0.0.1,10.0.0.2",
    "*",
]


@pytest.mark.parametrize("text", WRONG)
def test_refuses_wrong_lists(text: str) -> None:
    """A list with anything but addresses and exact CIDR blocks is refused, with the text at fault."""
    with pytest.raises(ValueError, match=r"is not an IP address or CIDR block|bits set behind its prefix") as caught:
        Addresses([text], [])
    assert repr(text) in str(caught.value)
    with pytest.raises(ValueError, match=r"is not an IP address or CIDR block|bits set behind its prefix"):
        Addresses([], ["10.0.0.0/8", text])


def test_suggests_the_block() -> None:
    """A block with bits behind its prefix is refused with both things that may have been meant."""
    with pytest.raises(ValueError, match=r"write 10\.0\.0\.0/8 or 10\.0\.0\.1"):
        parse_network("10.0.0.1/8")


@given(st.text(max_size=30))
def test_only_value_errors(text: str) -> None:
    """Any text is either read or refused with a ValueError."""
    said = ""
    try:
        parse_network(text)
    except ValueError as error:
        said = str(error)
    assert not said or repr(text) in said


def test_remembers_a_bounded_number() -> None:
    """A flood of addresses and of garbage leaves no more than a fixed number of them in memory."""
    addresses = Addresses([], ["0.0.0.0/0"])
    for number in range(10_000):
        addresses.caller_address(f"10.0.{number >> 8}.{number & 255}", b"garbage %d" % number)
    remembered = [addresses._peer.cache_info(), addresses._hop.cache_info()]  # type: ignore[attr-defined]
    assert [info.currsize for info in remembered] == [4096, 4096]
