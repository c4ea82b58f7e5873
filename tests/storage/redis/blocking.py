"""The statements, one at a time and by a clock that stands until it is moved.

The scripts are the real ones but for one line: the time is read from a list in the database.
"""

from __future__ import annotations

import socket
from typing import Any

import hiredis

from chatgate.storage.redis.statements import Script, Statement
from storage.redis.redis_server import RedisServer

BEGINNING_US = 1_795_000_000_000_000


class Blocking:
    """A connection that waits for each answer."""

    def __init__(self, server: RedisServer) -> None:
        """Connect, empty the database, and set the clock."""
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        self._reader = hiredis.Reader()
        self._scripts: dict[bytes, Script] = {}
        self.now_us = 0
        self.begin()

    def begin(self) -> None:
        """Empty the database, and set the clock to the beginning."""
        self.command("FLUSHALL")
        self.move_to(BEGINNING_US)

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()

    def move_to(self, now_us: int) -> None:
        """Set the clock."""
        self.now_us = now_us
        self.command("DEL", "clock")
        self.command("RPUSH", "clock", *divmod(now_us, 1_000_000))

    def ask(self, statement: Statement) -> Any:
        """Run a statement and return its answer."""
        script = self._scripts.get(statement.script.digest)
        if script is None:
            clockwork = statement.script.text.replace(b"redis.call('TIME')", b"redis.call('LRANGE', 'clock', 0, 1)")
            digest = self.command("SCRIPT", "LOAD", clockwork)
            script = self._scripts[statement.script.digest] = Script(clockwork, digest)
        return self.command(*statement._replace(script=script).by_digest())

    def command(self, *words: Any) -> Any:
        """Give a command and return its answer. Raises `hiredis.ReplyError`."""
        self._socket.sendall(hiredis.pack_command(words))
        while (answer := self._reader.gets()) is False:
            data = self._socket.recv(65536)
            assert data, "the server closed the connection"
            self._reader.feed(data)
        if isinstance(answer, hiredis.ReplyError):
            raise answer
        return answer
