"""A process that asks for one limit as often as it can, and prints when it was admitted, by the store's clock.

Run as a program, with where the server is, which of them it is, for how long, and the limit.
"""

from __future__ import annotations

import asyncio
import sys
import time

from chatgate.storage.redis import statements
from chatgate.storage.redis.connection import connect
from chatgate.storage.redis.statements import Ask
from chatgate.vocabulary.stores import RedisAddress

AT_ONCE = 8
LATER_US = 2**53


async def hammer(address: RedisAddress, process: str, seconds: float, most: int, length_us: int) -> list[int]:
    """Return when it was admitted."""
    connection = await connect(address, 30.0, 30.0)
    statements.session_of(await connection.ask(statements.open_session(process, 1, 60.0, "e", [])))
    asks = [Ask("window", statements.limit_key("hammered"), 1, most, length_us)]
    asking = statements.take(statements.session_name(process, 1), LATER_US, asks)
    admitted: list[int] = []
    end = time.monotonic() + seconds

    async def ask() -> None:
        while time.monotonic() < end:
            took = statements.took(await connection.ask(asking), asks)
            if took.is_taken:
                admitted.append(took.at_us)

    await asyncio.gather(*[ask() for _ in range(AT_ONCE)])
    return admitted


def main(url: str, process: str, seconds: str, most: str, length_us: str) -> None:
    """Hammer, and print."""
    times = asyncio.run(hammer(RedisAddress.parse(url), process, float(seconds), int(most), int(length_us)))
    sys.stdout.write(" ".join(map(str, times)))


if __name__ == "__main__":
    main(*sys.argv[1:])
