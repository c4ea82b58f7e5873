"""One connection to Redis for all calls of a process.

Owns the bytes: what is asked in one turn of the loop leaves in one write, and answers come in the same order. hiredis
writes and reads the protocol. Nobody has a timer of their own: while something is asked, a look at the oldest question
now and then tells whether the server has fallen silent, and then the connection ends, and with it all that was asked.
Knows no policy: `counters` opens connections and judges what their loss means.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import hiredis

from chatgate.storage.redis.statements import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.storage.redis.statements import Statement
    from chatgate.vocabulary.stores import RedisAddress

_LOOKS = 5
"""An answer that has not come by so many looks does not come. They are spread over the patience, and looks are counted
and not seconds, so that it is the server who is slow and not a loop or a machine that was held up itself."""

_pack = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", hiredis.pack_command)
"""Its own type knows of one word only."""


class RedisError(Exception):
    """The server does not answer, or not as it should; `str()` says why, in one line and with no secret."""


class RedisRefusedError(RedisError):
    """The server answered with an error."""


class _Question:
    """What was asked: whoever waits for it, and what becomes of an answer that nobody waits for any more."""

    __slots__ = ("future", "look", "on_late", "statement")

    def __init__(
        self,
        future: asyncio.Future[Any] | None,
        statement: Statement | None = None,
        on_late: Callable[[Any], object] | None = None,
    ) -> None:
        self.future = future
        self.statement = statement
        self.on_late = on_late
        self.look = 0


class Connection(asyncio.Protocol):
    """A connection that is open until `ended`. Made by `connect`."""

    def __init__(self, patience_seconds: float) -> None:
        """`patience_seconds` is how long the server may be silent while something is asked."""
        self._loop = asyncio.get_running_loop()
        self._patience_seconds = patience_seconds
        self._reader = hiredis.Reader()
        self._questions: deque[_Question] = deque()
        self._out: list[bytes] = []
        self._looks = 0
        self._watching: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.ended: asyncio.Future[RedisError] = self._loop.create_future()
        """Why the connection ended, once it has."""

    @property
    def is_open(self) -> bool:
        """Tell whether something can be asked."""
        return not self.ended.done()

    def expect_answers_within(self, patience_seconds: float) -> None:
        """Have another patience from now on, when nothing is being asked."""
        self._patience_seconds = patience_seconds
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def ask(self, statement: Statement, on_late: Callable[[Any], object] | None = None) -> asyncio.Future[Any]:
        """Run a script and return its answer, to be awaited; `on_late` gets it when that was cancelled.

        Awaiting raises `RedisError`. A script that the server has forgotten is sent again.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._send(statement.by_digest(), _Question(future, statement, on_late))
        return future

    def command(self, *words: bytes | str | int) -> asyncio.Future[Any]:
        """Give any command, as `ask` does with scripts."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._send(words, _Question(future))
        return future

    def tell(self, statement: Statement, on_done: Callable[[Any], object] | None = None) -> None:
        """Run a script without waiting for it; `on_done` gets the answer, and is not called when there is none.

        When the server refuses, the connection ends.
        """
        self._send(statement.by_digest(), _Question(None, statement, on_done))

    def end(self, error: RedisError) -> None:
        """End the connection; whoever waits is told why. Again changes nothing."""
        if self.ended.done():
            return
        self.ended.set_result(error)
        if self._watching is not None:
            self._watching.cancel()
        if self._transport is not None:
            self._transport.abort()
        questions, self._questions = self._questions, deque()
        for question in questions:
            if question.future is not None and not question.future.done():
                question.future.set_exception(error)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; called by the loop."""
        self.end(RedisError(_first_line(exc) if exc is not None else "the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Hand out answers; called by the loop."""
        reader = self._reader
        reader.feed(data)
        try:
            while (answer := reader.gets()) is not False:
                if not self._questions:
                    self.end(RedisError("the server says what it was not asked"))
                    return
                self._answer(self._questions.popleft(), answer)
        except hiredis.ProtocolError as error:
            self.end(RedisError(f"it does not speak Redis's protocol: {_first_line(error)}"))

    def _answer(self, question: _Question, answer: Any) -> None:  # noqa: ANN401 - answers are of any kind
        future = question.future
        if isinstance(answer, hiredis.ReplyError):
            if question.statement is not None and str(answer).startswith("NOSCRIPT"):
                # Somebody emptied the server's memory of scripts.
                self._send(question.statement.by_text(), question)
            elif future is None:
                # Nobody would ever know.
                self.end(RedisRefusedError(_first_line(answer)))
            elif not future.done():
                future.set_exception(RedisRefusedError(_first_line(answer)))
        elif future is not None and not future.done():
            future.set_result(answer)
        elif question.on_late is not None:
            question.on_late(answer)

    def _send(self, words: tuple[bytes | str | int, ...], question: _Question) -> None:
        if self.ended.done():
            if question.future is not None:
                question.future.set_exception(self.ended.result())
            return
        question.look = self._looks
        self._questions.append(question)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(_pack(words))
        if self._watching is None:
            self._watching = self._loop.call_later(self._patience_seconds / _LOOKS, self._watch)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.ended.done():
            self._transport.write(b"".join(out))

    def _watch(self) -> None:
        """Look at the oldest question, and end the connection when it was seen too often."""
        self._watching = None
        self._looks += 1
        if not self._questions:
            return
        if self._looks - self._questions[0].look >= _LOOKS:
            self.end(RedisError("the server does not answer"))
        else:
            self._watching = self._loop.call_later(self._patience_seconds / _LOOKS, self._watch)


async def connect(address: RedisAddress, patience_seconds: float, connect_seconds: float) -> Connection:
    """Open a connection, log in and make the scripts known. Raises `RedisError`."""
    loop = asyncio.get_running_loop()
    connection: Connection | None = None
    try:
        async with asyncio.timeout(connect_seconds):
            if address.path:
                _, connection = await loop.create_unix_connection(lambda: Connection(connect_seconds), address.path)
            else:
                _, connection = await loop.create_connection(
                    lambda: Connection(connect_seconds), address.host, address.port, ssl=True if address.tls else None
                )
            await _log_in(connection, address)
    except TimeoutError as error:
        problem = RedisError("the server does not answer")
        if connection is not None:
            connection.end(problem)
        raise problem from error
    except OSError as error:
        raise RedisError(_first_line(error.strerror or error)) from error
    except BaseException as error:
        if connection is not None:
            connection.end(error if isinstance(error, RedisError) else RedisError("it is not needed any more"))
        raise
    connection.expect_answers_within(patience_seconds)
    return connection


async def _log_in(connection: Connection, address: RedisAddress) -> None:
    """Say who we are, all in one write. Raises `RedisError`."""
    waiting: list[asyncio.Future[Any]] = []
    if address.password is not None:
        user = () if address.user is None else (address.user,)
        waiting.append(connection.command("AUTH", *user, address.password))
    if address.db:
        waiting.append(connection.command("SELECT", address.db))
    waiting += [connection.command("SCRIPT", "LOAD", script) for script in SCRIPTS]
    about = connection.command("INFO", "cluster")
    answers = await asyncio.gather(*waiting, about, return_exceptions=True)
    for answer in answers[:-1]:
        if isinstance(answer, BaseException):
            raise answer
    # Whoever may not ask that is trusted to have a server of their own.
    if isinstance(answers[-1], bytes) and b"cluster_enabled:1" in answers[-1]:
        raise RedisRefusedError("it is a node of a Redis Cluster, which chatgate does not use")


def _first_line(error: BaseException | str) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:200]
