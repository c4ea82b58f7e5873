"""What a connection may cost before the server refuses it; `Server` takes these, `app` fills them from the settings."""

from __future__ import annotations

import resource

from msgspec import Struct

FEWEST_CONNECTIONS = 16
"""What a server takes however few file descriptors it may open."""


class WireLimits(Struct, frozen=True):
    """The limits of the wire; every one of them is per connection but the last.

    A head has `header_bytes` in `headers` lines, its target `target_bytes`, and `header_seconds` from its first byte to
    its last; a connection that never sends a byte has as long. A body has `body_bytes`, one that is handed on while it
    arrives `upload_bytes`, and either `body_seconds` plus one second for every `body_bytes_per_second` received so far.
    A connection may be silent between two calls for `idle_seconds`. A caller who reads slower than we write is waited
    for above `write_buffer_bytes`, and dropped after `stall_seconds` in which nothing moved. `max_connections` None
    takes what the file descriptors allow.

    A WebSocket's message is limited as a body is. It is pinged after `ping_seconds` of silence and given up after twice
    that, closed after `talk_idle_seconds` without a call, and when it is `talk_seconds` old.
    """

    header_bytes: int = 32 << 10
    headers: int = 100
    target_bytes: int = 8 << 10
    header_seconds: float = 10.0
    body_bytes: int = 10 << 20
    upload_bytes: int = 256 << 20
    body_seconds: float = 30.0
    body_bytes_per_second: int = 64 << 10
    idle_seconds: float = 75.0
    stall_seconds: float = 60.0
    write_buffer_bytes: int = 256 << 10
    max_connections: int | None = None
    ping_seconds: float = 30.0
    talk_idle_seconds: float = 600.0
    talk_seconds: float = 3600.0


def connection_cap(configured: int | None) -> int:
    """Return how many connections to take: never so many that calls to upstreams find no file descriptor left.

    A call may need one descriptor here and one towards the upstream, and files and listeners need some too.
    """
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft_limit == resource.RLIM_INFINITY:
        return configured or 1 << 20
    affordable = max(FEWEST_CONNECTIONS, int(soft_limit * 0.45) - 64)
    return min(configured, affordable) if configured else affordable
