"""Own the conversation with one server: where it is, what is sent there, and how its answer arrives.

Knows nothing of terminals and keeps no dialogue. Called by `command` and `terminal`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct

from chatgate import __version__
from chatgate.cli.chat.wire import (
    OPENAI,
    PLAIN,
    Dialect,
    Piece,
    Question,
    failure_in,
    model_ids,
    parse,
    well_formed,
)
from chatgate.cli.chat.words import WORDS, say
from chatgate.protocols.sse import EventSplitter, data_of
from chatgate.vocabulary.errors import UpstreamError
from chatgate.vocabulary.exchange import Answer, OutboundRequest, Sender
from chatgate.vocabulary.upstreams import Origin, Timeouts

BODY_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""The largest body read whole; streams have no limit."""

TIMEOUTS: Final = Timeouts(
    connect_seconds=10.0, first_token_seconds=300.0, idle_seconds=300.0, total_seconds=4 * 3600.0
)
"""Longer than a gateway's own, so that its error arrives instead of ours; who is impatient has Ctrl-C."""

_SUCCESS: Final = range(200, 300)
_REDIRECT: Final = range(300, 400)
_PORTS: Final = range(1, 1 << 16)


class ChatFailureError(Exception):
    """There is no whole answer; the text is the reason, ready to be shown."""


class Address(Struct, frozen=True):
    """A server's address as the user gave it.

    `path` takes the questions of the plain API, or is the base path of OpenAI's operations, without a trailing slash.
    `query` is empty or starts with its question mark.
    """

    url: str
    origin: Origin
    dialect: Dialect
    path: str
    query: str = ""


class Said(Struct, frozen=True):
    """A whole answer; `cut_at_limit` says that the token limit ended it."""

    text: str
    cut_at_limit: bool


def read_address(url: str) -> Address:
    """Tell from an address which protocol is spoken there.

    Without any path it is a gateway's root and means its `/v1`. A path with a version in it (`/v1`, `/api/v4`) speaks
    OpenAI's protocol; the full path of the chat operation is understood, too. Any other path, `/` included, is a plain
    API. Raises ValueError when it is no http or https address or carries a user name.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = (parts.hostname or "").encode("ascii" if ":" in (parts.hostname or "") else "idna").decode()
    except ValueError as error:
        raise ValueError(say("bad_url", url=url)) from error
    if parts.scheme not in {"http", "https"} or not host or parts.username is not None or port not in _PORTS:
        raise ValueError(say("bad_url", url=url))
    origin = Origin("https" if parts.scheme == "https" else "http", host, port)
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._") or "/v1"
    query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?") if parts.query else ""
    if re.search(r"/v\d", path):
        base_path = path.rstrip("/").removesuffix("/chat/completions")
        return Address(url, origin, OPENAI, base_path, query)
    return Address(url, origin, PLAIN, path, query)


class Server:
    """A server that answers questions. `key` is "" when none is shown."""

    def __init__(self, sender: Sender, address: Address, key: str) -> None:
        """Keep where to ask and what carries the question."""
        self.address = address
        self._sender = sender
        self._key = key

    async def ask(self, question: Question, write: Callable[[str], None]) -> Said:
        """Ask, hand each part of the answer to `write` as it arrives, and return the whole.

        Raises ChatFailureError, also after parts were written. Cancelling it closes the connection at once.
        """
        dialect = self.address.dialect
        path = self.address.path + ("/chat/completions" if dialect is OPENAI else "")
        answer = await self._send("POST", path, msgspec.json.encode(dialect.write(question)))
        try:
            content_type = answer.headers.get(b"content-type", b"").lower()
            if answer.status in _SUCCESS and content_type.startswith(b"text/event-stream"):
                return await self._read_stream(answer, write)
            piece = dialect.read(await self._read_document(answer))
        except UpstreamError as error:
            raise self._failure(error) from error
        finally:
            answer.close()
        if piece.failure is not None:
            raise ChatFailureError(piece.failure or say("not_understood"))
        if piece.whole is None:
            raise ChatFailureError(say("no_text" if piece.ended else "not_understood"))
        write(piece.whole)
        return Said(well_formed(piece.whole), piece.cut_at_limit)

    async def models(self) -> list[str]:
        """Return the ids of the server's models in its order. Raises ChatFailureError."""
        answer = await self._send("GET", self.address.path + "/models", b"")
        try:
            ids = model_ids(await self._read_document(answer))
        except UpstreamError as error:
            raise self._failure(error) from error
        finally:
            answer.close()
        if ids is None:
            raise ChatFailureError(say("not_understood"))
        return ids

    async def first_model(self) -> str:
        """Return the model to use when the user named none: the first real one, else the one that always exists."""
        return next((name for name in await self.models() if not name.startswith("demo/")), "demo/echo")

    async def _send(self, method: str, path: str, body: bytes) -> Answer:
        origin = self.address.origin
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        lines = [
            f"{method} {path}{self.address.query} HTTP/1.1",
            f"Host: {host}:{origin.port}",
            f"User-Agent: chatgate-chat/{__version__}",
            "Accept: text/event-stream, application/json",
        ]
        if self._key:
            lines.append(f"Authorization: Bearer {self._key}")
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        try:
            return await self._sender.send(OutboundRequest(origin, head, body, TIMEOUTS))
        except UpstreamError as error:
            raise self._failure(error) from error

    async def _read_stream(self, answer: Answer, write: Callable[[str], None]) -> Said:
        """Read events up to the protocol's end. One that stops before it is a failure, whatever came until then."""
        splitter = EventSplitter()
        parts: list[str] = []
        last = Piece()
        while not last.ended or self.address.dialect is OPENAI:
            chunk = await answer.next_chunk()
            if not chunk:
                break
            for event in splitter.feed(chunk):
                data = data_of(event)
                if data == b"[DONE]":
                    return _said(parts, Piece(ended=True, cut_at_limit=last.cut_at_limit), write)
                piece = self.address.dialect.read(parse(data or b""))
                if piece.failure is not None:
                    raise ChatFailureError(piece.failure or say("not_understood"))
                if piece.delta:
                    parts.append(piece.delta)
                    write(piece.delta)
                if piece.ended:
                    last = piece
        if not last.ended:
            raise ChatFailureError(say("upstream_cut"))
        return _said(parts, last, write)

    async def _read_document(self, answer: Answer) -> object:
        """Return the JSON body of a success. Raises ChatFailureError with the server's reason otherwise."""
        document = parse(await answer.read(BODY_LIMIT_BYTES))
        if answer.status not in _SUCCESS:
            raise _refusal(answer, failure_in(document) or "")
        return document

    def _failure(self, error: UpstreamError) -> ChatFailureError:
        """Word an error of the transport; what the operating system said tells a refusal from a bad certificate."""
        known = error.reason in WORDS
        sentence = say(error.reason, origin=self.address.origin) if known else error.reason
        return ChatFailureError(
            say("because", sentence=sentence, cause=error.__cause__) if error.__cause__ else sentence
        )


def _said(parts: list[str], last: Piece, write: Callable[[str], None]) -> Said:
    """Make the answer of its parts. A server may send the whole text only at the end, then it is written now."""
    if not parts and last.whole:
        parts = [last.whole]
        write(last.whole)
    text = well_formed("".join(parts))
    if not text:
        raise ChatFailureError(say("no_text"))
    return Said(text, last.cut_at_limit)


def _refusal(answer: Answer, reason: str) -> ChatFailureError:
    """Word an error answer: the server's own reason when it gave one, and how long to wait when it said so."""
    location = answer.headers.get(b"location", b"").decode("latin-1")
    if not reason and answer.status in _REDIRECT and location:
        return ChatFailureError(say("redirected", status=answer.status, location=location))
    reason = reason or say("http_status", status=answer.status)
    retry_after = answer.headers.get(b"retry-after", b"").decode("latin-1").strip()
    if retry_after.isdigit():
        reason = say("retry_after_seconds", reason=reason, seconds=retry_after)
    elif retry_after:
        reason = say("retry_after_date", reason=reason, date=retry_after)
    return ChatFailureError(reason)
