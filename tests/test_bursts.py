"""Bursts: what is written at the end of a turn of the loop, and in which order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatgate.bursts import AT_ONCE, FEW, MOST, Burst


@asynccontextmanager
async def line() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """Yield one end of a connection as a transport, and the other as a socket that does not wait."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    try:
        yield transport, theirs
    finally:
        transport.abort()
        theirs.close()


def arrived(at: socket.socket) -> bytes:
    """Return what has arrived so far."""
    try:
        return at.recv(1 << 16)
    except BlockingIOError:
        return b""


async def test_all_is_written_at_the_end_of_the_turn_in_its_order() -> None:
    """Nothing leaves before the turn has ended; then everything does, each connection's pieces in their order."""
    burst = Burst()
    async with line() as (first, at_first), line() as (second, at_second):
        burst.write(first, b"one ")
        burst.write(second, b"other")
        burst.write(first, b"two")
        assert arrived(at_first) == arrived(at_second) == b""
        await asyncio.sleep(0)
        assert (arrived(at_first), arrived(at_second)) == (b"one two", b"other")
        burst.write(first, b"three")
        await asyncio.sleep(0)
        assert arrived(at_first) == b"three"


async def test_many_pieces_do_not_wait_for_more() -> None:
    """As many as are kept at most leave at once, and one more waits for the end of the turn again."""
    burst = Burst()
    async with line() as (transport, other_end):
        for _ in range(MOST):
            burst.write(transport, b".")
        assert arrived(other_end) == b"." * MOST
        burst.write(transport, b"!")
        assert arrived(other_end) == b""
        await asyncio.sleep(0)
        assert arrived(other_end) == b"!"


async def test_what_waits_can_be_written_now() -> None:
    """After a flush nothing waits, so that what is written past the burst comes behind it."""
    burst = Burst()
    async with line() as (transport, other_end):
        burst.write(transport, b"before ")
        burst.flush()
        transport.write(b"after")
        assert arrived(other_end) == b"before after"
        await asyncio.sleep(0)
        assert arrived(other_end) == b""


async def test_something_is_done_before_anything_leaves() -> None:
    """At the end of the turn, when there are many pieces, and before a flush, even one of nothing."""
    burst = Burst()
    async with line() as (transport, other_end):
        seen: list[bytes] = []
        burst.before = lambda: seen.append(arrived(other_end))
        burst.write(transport, b"end of turn")
        assert seen == []
        await asyncio.sleep(0)
        assert (seen.pop(), arrived(other_end)) == (b"", b"end of turn")
        for _ in range(AT_ONCE):
            burst.write(transport, b"!")
        assert arrived(other_end) == b"!" * AT_ONCE
        for _ in range(MOST):
            burst.write(transport, b".")
        assert (seen.pop(), arrived(other_end)) == (b"", b"." * MOST)
        burst.flush()
        assert seen == [b""]


async def test_who_asks_whether_pieces_are_kept_may_count_on_the_end_of_the_turn() -> None:
    """What has to be done before is done then, though no piece came; not where pieces leave as they come."""
    burst = Burst()
    done: list[str] = []
    burst.before = lambda: done.append("before")
    async with line() as (transport, _):
        assert burst.is_gathering()
        assert burst.is_gathering()
        assert done == []
        await asyncio.sleep(0)
        assert done == ["before"]
        for _ in range(AT_ONCE):
            assert not burst.is_gathering()
            burst.write(transport, b"!")
        assert burst.is_gathering()
        burst.write(transport, b"?")
        await asyncio.sleep(0)
        assert done == ["before"] * 2


async def test_who_is_gone_keeps_nobody_from_their_piece() -> None:
    """A connection that ended since gets nothing, and the others get theirs."""
    burst = Burst()
    async with line() as (gone, at_gone), line() as (there, at_there):
        burst.write(gone, b"lost")
        burst.write(there, b"kept")
        gone.abort()
        await asyncio.sleep(0)
        assert arrived(at_there) == b"kept"
        assert arrived(at_gone) == b""


async def test_where_little_is_written_nothing_waits() -> None:
    """After a turn with few pieces the next ones leave as they come, until it is tried whether there are more again."""
    burst = Burst()
    async with line() as (transport, other_end):
        for _ in range(FEW - 1):
            burst.write(transport, b".")
        await asyncio.sleep(0)
        assert arrived(other_end) == b"." * (FEW - 1)
        for _ in range(AT_ONCE):
            burst.write(transport, b"!")
            assert arrived(other_end) == b"!"
        burst.write(transport, b"?")
        assert arrived(other_end) == b""
        await asyncio.sleep(0)
        assert arrived(other_end) == b"?"
