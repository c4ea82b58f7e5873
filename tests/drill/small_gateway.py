"""Gateways to drill that are not ours: a small one that does everything right, and its relatives with one vice each.

The good one takes a whole answer from somebody before it says a word, so that it can try again as often as it must: the
drill has to be content with it. Each vice is something that a gateway of the market does, and the drill has to see it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from chatgate.drill.course import Course, Place
from chatgate.settings import Settings

LONGEST_WAIT_SECONDS = 3.0


@dataclass(slots=True)
class Said:
    """What an upstream said: a status, the pieces of its text, and whether it came to its proper end."""

    status: int = 0
    wait_seconds: float | None = None
    body: bytes = b""
    pieces: list[str] = field(default_factory=list)
    model: str = ""
    usage: Any = None
    is_whole: bool = False


@dataclass
class SmallGateway:
    """A gateway without a vice, unless one is named.

    `lies`: what was said until a cut counts as whole. `hangs`: it has no timeouts. `leaks`: it closes no connection.
    `insists`: a refusal is tried again. `detours`: a refusal is routed around. `gives_up`: nobody else is tried.
    `gossips`: it repeats what upstreams say of keys. `misnames`: it names the model that was asked for. `hurries`: it
    waits for nothing. `stammers`: it says the last word of an answer twice. `forgets`: it never goes back to a place
    that failed.
    """

    settings: Settings
    course: Course
    vices: frozenset[str]
    refused: set[tuple[str, int]] = field(default_factory=set)
    failed: set[Place] = field(default_factory=set)
    open: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one call."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            asked = json.loads(await reader.readexactly(length))
            answering = asyncio.ensure_future(self._answer(asked))
            leaving = asyncio.ensure_future(reader.read(1))
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            if answering.done():
                writer.write(answering.result())
                await writer.drain()
            elif "leaks" not in self.vices:
                answering.cancel()
        writer.close()

    async def _answer(self, asked: dict[str, Any]) -> bytes:
        last = Said(status=502)
        too_small: set[str] = set()
        for place in self._order():
            if str(place) in too_small:
                continue
            last = await self._try(place, asked)
            if last.is_whole:
                return self._render(last, is_stream=bool(asked.get("stream")))
            if last.status == 400 and not self._goes_on(last):
                break
            if last.status == 400:
                too_small.add(str(place))
            if last.status == 401:
                self.refused.add((place.upstream, place.key_number))
            self.failed.add(place)
            if "gives_up" in self.vices:
                break
        return self._refuse(last)

    async def _try(self, place: Place, asked: dict[str, Any]) -> Said:
        """Call a place until it answers, or until another try would be in vain."""
        said = Said()
        for _ in range(1 + self.settings.retry.max_retries):
            said = await self._call(place, asked)
            if said.pieces and "lies" in self.vices:
                said.is_whole = True
            if said.is_whole or not self._tries_again(said):
                return said
            if "hurries" not in self.vices:
                await asyncio.sleep(said.wait_seconds or 0.02)
        return said

    def _order(self) -> list[Place]:
        places = [place for place in self.course.places if (place.upstream, place.key_number) not in self.refused]
        if "forgets" in self.vices:
            places = [place for place in places if place not in self.failed]
        return places or list(self.course.places)

    def _goes_on(self, said: Said) -> bool:
        return b"context_length_exceeded" in said.body or "detours" in self.vices

    def _tries_again(self, said: Said) -> bool:
        if said.status == 400:
            return "insists" in self.vices
        if said.wait_seconds is not None:
            return said.wait_seconds <= LONGEST_WAIT_SECONDS
        return said.status in {0, 408, 429, 500, 502, 503} and said.body != b"silence"

    def _refuse(self, said: Said) -> bytes:
        tellable = {400, 429, 401} if "gossips" in self.vices else {400, 429}
        if said.status in tellable and said.body:
            return _whole(said.status, said.body)
        return _whole(502, _error("upstream_error", "nobody answered"))

    async def _call(self, place: Place, asked: dict[str, Any]) -> Said:
        """Call a place and take all it says; every way to fail is a `Said` that is not whole."""
        upstream = next(each for each in self.settings.upstreams if each.name == place.upstream)
        key = upstream.api_keys[place.key_number - 1] if upstream.api_keys else ""
        body = json.dumps(asked | {"model": place.model}).encode()
        head = (
            f"POST {upstream.base_path}/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        said, writer = Said(), None
        seconds = None if "hangs" in self.vices else self.settings.timeouts.idle_seconds
        try:
            reader, writer = await asyncio.open_connection(upstream.origin.host, upstream.origin.port)
            self.open.append(writer)
            writer.write(head + body)
            await self._read(reader, said, lambda: asyncio.timeout(seconds))
        except TimeoutError:
            said.is_whole, said.body = False, b"silence"
        except (OSError, asyncio.IncompleteReadError, ValueError, LookupError, TypeError):
            said.is_whole = False
        finally:
            if writer is not None and "leaks" not in self.vices:
                writer.close()
        return said

    async def _read(self, reader: asyncio.StreamReader, said: Said, patience: Callable[[], asyncio.Timeout]) -> None:
        async with patience():
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        said.status = int(head.split(" ")[1])
        if "retry-after:" in head:
            said.wait_seconds = float(head.split("retry-after:")[1].split("\r\n")[0])
        if "text/event-stream" in head:
            await self._read_stream(reader, said, patience)
            return
        async with patience():
            said.body = await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
        answer = json.loads(said.body)
        if said.status == 200:
            said.pieces, said.model, said.usage = [_text(answer)], answer["model"], answer["usage"]
            said.is_whole = "error" not in answer

    async def _read_stream(
        self, reader: asyncio.StreamReader, said: Said, patience: Callable[[], asyncio.Timeout]
    ) -> None:
        left, is_finished = b"", False
        while True:
            async with patience():
                size = int(await reader.readuntil(b"\r\n"), 16)
                left += (await reader.readexactly(size + 2))[:-2]
            *events, left = left.replace(b"\r\n", b"\n").split(b"\n\n")
            for event in events:
                lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
                with contextlib.suppress(json.JSONDecodeError):
                    is_finished |= _take(json.loads(b"\n".join(lines)), said)
            if not size:
                said.is_whole = is_finished
                return

    def _render(self, said: Said, *, is_stream: bool) -> bytes:
        if "misnames" in self.vices:
            said.model = self.course.asked_model
        pieces = [*said.pieces, said.pieces[-1]] if "stammers" in self.vices else said.pieces
        if not is_stream:
            message = {"choices": [{"message": {"content": "".join(pieces)}}], "model": said.model, "usage": said.usage}
            return _whole(200, json.dumps(message).encode())
        chunks = [{"model": said.model, "choices": [{"delta": {"content": piece}}]} for piece in pieces]
        chunks.append({"model": said.model, "choices": [], "usage": said.usage})
        data = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"
        return _whole(200, data, "text/event-stream")


def _take(chunk: dict[str, Any], said: Said) -> bool:
    """Take a chunk in, and tell whether it is the last with a word. Raises `ValueError` for an error."""
    if "error" in chunk:
        raise ValueError("an error inside the stream")
    said.model = chunk["model"]
    said.usage = chunk.get("usage") or said.usage
    choices = chunk["choices"]
    if choices and choices[0]["delta"].get("content"):
        said.pieces.append(choices[0]["delta"]["content"])
    return bool(choices and choices[0]["finish_reason"])


def _text(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def _error(code: str, message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "param": None, "code": code}}).encode()


def _whole(status: int, body: bytes, kind: str = "application/json") -> bytes:
    return b"HTTP/1.1 %d Said\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status,
        kind.encode(),
        len(body),
        body,
    )


class Start:
    """Starts small gateways for a course."""

    def __init__(self, course: Course, *vices: str) -> None:
        """Remember what they are like."""
        self._course = course
        self._vices = frozenset(vices)

    @contextlib.asynccontextmanager
    async def __call__(self, settings: Settings) -> AsyncIterator[tuple[str, int]]:
        """Run one."""
        gateway = SmallGateway(settings, self._course, self._vices)
        server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
        try:
            host, port = server.sockets[0].getsockname()
            yield host, port
        finally:
            server.close()
            for writer in gateway.open:
                writer.close()
