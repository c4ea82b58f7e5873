"""A Redis server for tests, empty for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage.redis.redis_server import RedisServer


@pytest.fixture(scope="module")
def redis_of_file() -> Iterator[RedisServer]:
    """Run a server for the tests of a file."""
    server = RedisServer()
    yield server
    server.remove()


@pytest.fixture
def redis(redis_of_file: RedisServer) -> RedisServer:
    """Return the file's server, empty."""
    redis_of_file.ask("FLUSHALL")
    return redis_of_file
