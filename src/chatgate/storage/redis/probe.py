"""Whether a Redis server can be used, for an operator who asks before the start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chatgate.storage.redis.connection import RedisError, connect

if TYPE_CHECKING:
    from chatgate.vocabulary.stores import RedisAddress

_SECONDS: Final = 1.0
_SAFE_POLICY: Final = "noeviction"


async def probe(address: RedisAddress) -> str:
    """Log in as a gateway does, and return what is there: `Redis 7.0.15`. Raises `RedisError`.

    A server that forgets keys when its memory is full is told of: it would forget limits.
    """
    connection = await connect(address, _SECONDS, _SECONDS)
    try:
        about = dict(
            line.split(":", 1) for line in (await connection.command("INFO")).decode().splitlines() if ":" in line
        )
    finally:
        connection.end(RedisError("nothing more is asked"))
    is_valkey = "valkey_version" in about
    found = (
        f"Valkey {about['valkey_version']}" if is_valkey else f"Redis {about.get('redis_version', 'of some version')}"
    )
    policy = about.get("maxmemory_policy", _SAFE_POLICY)
    if policy == _SAFE_POLICY:
        return found
    return f"{found}, which forgets counts when its memory is full: maxmemory-policy is {policy}, not {_SAFE_POLICY}"
