"""One call to the gateway, as a careful client makes it: what came back, and whether it was whole.

Owns one connection per call. It is strict: an answer that ends before its own framing, or its own protocol, says so is
not taken for a whole one. Knows nothing of what had to come. Called by `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from chatgate.protocols.sse import EventSplitter, data_of

Ending: TypeAlias = Literal["whole", "error", "broken", "hang", "left"]
"""How a call ended: with a whole answer, with an error that says so, neither properly, not at all, or by ourselves."""

_OK: Final = 200
_REFUSALS: Final = 400
_HEAD_BYTES: Final = 1 << 20


class Received(Struct):
    """What a call brought.

    `why` says in a few words what is wrong with a broken one. `text` is what was said until then. `model` is the last
    one that was named. `raw` is everything, for the search for secrets.
    """

    status: int = 0
    ending: Ending = "broken"
    why: str = ""
    text: str = ""
    code: str = ""
    message: str = ""
    model: str = ""
    has_usage: bool = False
    elapsed_seconds: float = 0.0
    raw: bytes = b""


class _Left(Exception):  # noqa: N818 - no error: the caller has seen enough
    """The caller goes away now."""


class _Call:
    """A call under way."""

    def __init__(self, received: Received, leave_after_words: int | None) -> None:
        self.received = received
        self._leave_after_words = leave_after_words
        self._splitter = EventSplitter()
        self._failed = self._done = self._after_done = False

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read the answer to its end."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        received = self.received
        received.raw += head.encode("latin-1")
        received.status = int(head.split(" ", 2)[1])
        lines = (line.partition(":") for line in head.split("\r\n")[1:])
        headers = {name.lower(): value.strip() for name, _, value in lines}
        is_stream = headers.get("content-type", "").startswith("text/event-stream")
        body = b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                data = (await reader.readexactly(size + 2))[:-2]
                received.raw += data
                if is_stream:
                    self._feed(data)
                else:
                    body += data
            await reader.readuntil(b"\r\n")
        else:
            body = await reader.readexactly(int(headers["content-length"]))
            received.raw += body
            if is_stream:
                self._feed(body)
        if is_stream:
            self._end_of_stream()
        else:
            self._whole(body)

    def _feed(self, data: bytes) -> None:
        for event in self._splitter.feed(data):
            said = data_of(event)
            if said is None:
                continue
            self._after_done = self._after_done or self._done
            if said == b"[DONE]":
                self._done = True
            else:
                self._chunk(said)
        if self._leave_after_words is not None and len(self.received.text.split()) >= self._leave_after_words:
            raise _Left

    def _chunk(self, said: bytes) -> None:
        received = self.received
        try:
            chunk = json.loads(said)
        except ValueError:
            received.why = "an event was no JSON"
            return
        if isinstance(chunk.get("error"), dict):
            self._failed = True
            self._error(chunk["error"])
            return
        received.model = chunk.get("model") or received.model
        received.has_usage = received.has_usage or bool(chunk.get("usage"))
        for choice in chunk.get("choices", ()):
            received.text += (choice.get("delta") or {}).get("content") or ""

    def _end_of_stream(self) -> None:
        received = self.received
        if received.why:
            return
        if self._failed and self._done:
            received.why = "[DONE] was said besides an error"
        elif self._after_done:
            received.why = "something was said after [DONE]"
        elif self._failed:
            received.ending = "error"
        elif self._done:
            received.ending = "whole"
        else:
            received.why = "the stream ended with neither an error nor [DONE]"

    def _whole(self, body: bytes) -> None:
        received = self.received
        try:
            answer = json.loads(body)
            if received.status >= _REFUSALS:
                self._error(answer["error"])
                received.ending = "error"
                return
            received.text = answer["choices"][0]["message"]["content"]
            received.model = answer["model"]
            received.has_usage = bool(answer.get("usage"))
            received.ending = "whole" if received.status == _OK else "broken"
        except (ValueError, LookupError, TypeError):
            received.why = f"status {received.status} with a body that is neither an answer nor an error"

    def _error(self, error: dict[str, object]) -> None:
        self.received.code = str(error.get("code") or "")
        self.received.message = str(error.get("message") or "")


async def call(
    host: str,
    port: int,
    asked: dict[str, object],
    *,
    limit_seconds: float,
    leave_after_words: int | None = None,
) -> Received:
    """Ask for a chat and take the answer; wait `limit_seconds` at most, or leave after so many words.

    With 0 words it leaves as soon as the gateway has had a moment to call somebody. Raises nothing.
    """
    received = Received()
    began = time.monotonic()
    body = json.dumps(asked).encode()
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body
    writer = None
    try:
        async with asyncio.timeout(limit_seconds):
            reader, writer = await asyncio.open_connection(host, port, limit=_HEAD_BYTES)
            writer.write(request)
            if leave_after_words == 0:
                await asyncio.sleep(_MOMENT_SECONDS)
                received.ending = "left"
            else:
                await _Call(received, leave_after_words).read(reader)
    except TimeoutError:
        received.ending = "hang"
    except _Left:
        received.ending = "left"
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, LookupError, ValueError) as error:
        received.ending, received.why = "broken", f"the answer was cut off ({type(error).__name__})"
    finally:
        received.elapsed_seconds = time.monotonic() - began
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    return received


_MOMENT_SECONDS: Final = 0.3
