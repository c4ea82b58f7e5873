"""Resolves a name and connects a TCP socket to the first of its addresses that answers.

Owns only that. Called by the dialler for upstreams and by `proxies` for proxies.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


async def connect_tcp(host: str, port: int, timeout_seconds: float) -> socket.socket:
    """Return a connected, non-blocking socket. Raises `OSError`, or `UnicodeError` for what cannot be a name."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + timeout_seconds
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [(family, address) for family, _, _, _, address in found]
    return await connect_first(addresses, give_up_at - loop.time())


async def connect_first(
    addresses: Sequence[tuple[socket.AddressFamily, SocketAddress]], timeout_seconds: float
) -> socket.socket:
    """Return a socket connected to the first of these addresses that answers; raises the last one's `OSError`.

    They are tried in their order, which is the resolver's preference. Each gets an equal share of the time that is
    left, so that an address that swallows packets (IPv6 on a network that has none, say) leaves time for the others.
    The last one has no limit here: the caller's own ends it.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + timeout_seconds
    failure = OSError("the name has no address")
    for index, (family, address) in enumerate(addresses):
        remaining = len(addresses) - index
        share_seconds = (give_up_at - loop.time()) / remaining if remaining > 1 else None
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)  # noqa: FBT003 - the parameter has no name
            async with asyncio.timeout(share_seconds):
                await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure
