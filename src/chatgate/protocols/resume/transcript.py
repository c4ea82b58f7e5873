"""What a caller has been sent of a stream: noted at next to no cost, and read when it is needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from chatgate.protocols import sse
from chatgate.vocabulary.errors import UpstreamError

FOLD_BYTES = 64 << 10
"""So much of a stream is kept as it came before it is read and reduced to its text."""

MANY_PIECES = 256
"""So many pieces of text are kept as they came before they are joined."""

MAX_CHOICES, MAX_CALLS = 16, 128
"""How many choices, and tool calls in all of them, a stream may have that can still be resumed."""

MAX_TEXT_CHARACTERS = 4 << 20
"""A longer answer is not kept."""

Key = tuple[int, str, int]
"""A choice, a field of its delta, and the tool call in it."""

NO_CALL = -1
CONTENT: Key = (0, "content", NO_CALL)
TEXTS = frozenset({"content", "refusal", "reasoning_content", "reasoning"})
NULL = Raw(b"null")
NOTHING = (b"null", b'""', b"[]", b"{}")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Part(Struct, gc=False):
    """A choice of a chunk."""

    index: int = 0
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class Chunk(Struct, gc=False):
    """What is read of a chunk."""

    id: Any = None
    created: Any = None
    model: Any = None
    system_fingerprint: Any = None
    choices: list[Part] | None = None


class _Text(Struct, forbid_unknown_fields=True, gc=False):
    role: str | None = None
    content: str | None = None


class _TextPart(Struct, gc=False):
    delta: _Text
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None


class _TextChunk(Struct, gc=False):
    """A chunk with nothing in it but more of the first choice's text: most of a long answer are such."""

    choices: tuple[_TextPart]


class FunctionPart(Struct, forbid_unknown_fields=True):
    """A piece of the function that is called."""

    name: str | None = None
    arguments: str | None = None


class CallPart(Struct, forbid_unknown_fields=True):
    """A piece of a tool call that can be compared; what has more in it cannot."""

    index: int
    id: str | None = None
    type: str | None = None
    function: FunctionPart | None = None


class ToolCall(Struct, frozen=True):
    """How a tool call was begun."""

    id: str
    name: str


decode_chunk = msgspec.json.Decoder(Chunk).decode
_decode_chunks = msgspec.json.Decoder(list[Chunk]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_text_chunks = msgspec.json.Decoder(list[_TextChunk]).decode


class DifferenceError(Exception):
    """The new stream is not the old one over again, or says what cannot be compared."""


class Transcript(Struct, eq=False):
    """What a caller has been sent of a stream, whichever targets it came from.

    `id`, `created`, `model` and `system_fingerprint` are the first that were named, None before. `texts` holds what
    was said in each field, `calls` the tool calls by choice and index, `finish_reasons` how choices ended, `choices`
    which ones were begun. They are up to date after `read`, as they are after a look at any of the properties. When
    the stream cannot be resumed they are of no use.
    """

    id: str | None = None
    created: int | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    texts: dict[Key, str] = {}
    calls: dict[tuple[int, int], ToolCall] = {}
    finish_reasons: dict[int, str] = {}
    choices: set[int] = set()
    content_chunks: int = 0
    _events: list[bytes] = []
    _said: list[bytes] = []
    _size: int = 0
    _comparable: bool = True

    def note(self, events: bytes) -> None:
        """Take note of whole events that were passed on."""
        if self._said:
            self._join()
        self._events.append(events)
        self._size += len(events)
        if self._size > FOLD_BYTES:
            self.read()

    def say(self, text: bytes) -> None:
        """Take note of a piece of the first choice's content that was passed on, as it stands in JSON."""
        said = self._said
        if self._events:
            self.read()
        said.append(text)
        if len(said) >= MANY_PIECES:
            self._join()

    @property
    def is_resumable(self) -> bool:
        """Tell whether all that was sent can be compared.

        It cannot with log probabilities, audio, fields that nobody knows here, events that cannot be read.
        """
        self.read()
        return self._comparable

    @property
    def has_text(self) -> bool:
        """Tell whether the caller got any part of an answer: text, a tool call, or what cannot be compared."""
        self.read()
        return bool(self.texts or self.calls) or not self._comparable

    @property
    def finished(self) -> bool:
        """Tell whether a choice was said to be finished."""
        self.read()
        return bool(self.finish_reasons)

    @property
    def text(self) -> str:
        """Return the first choice's content."""
        self.read()
        return self.texts.get(CONTENT, "")

    def read(self) -> None:
        """Read what was noted since the last time."""
        if self._said:
            self._join()
        if not self._events:
            return
        events = b"".join(self._events)
        self._events.clear()
        self._size = 0
        if not self._comparable:
            return
        pieces: defaultdict[Key, list[str]] = defaultdict(list)
        try:
            self._read(events, pieces)
        except (DifferenceError, UpstreamError, *UNREADABLE):
            self._comparable = False
        for key, said in pieces.items():
            self.texts[key] = self.texts.get(key, "") + "".join(said)
        self.content_chunks += len(pieces.get(CONTENT, ()))
        self._limit()

    def _join(self) -> None:
        """Add to the text what was said since the last time."""
        said = self._said
        self.content_chunks += len(said)
        if self._comparable:
            try:
                text = _decode_text(b'"%b"' % b"".join(said))
                self.texts[CONTENT] = self.texts.get(CONTENT, "") + text
            except UNREADABLE:
                self._comparable = False
            self._limit()
        said.clear()

    def _limit(self) -> None:
        if sum(map(len, self.texts.values())) > MAX_TEXT_CHARACTERS:
            self._comparable = False
        if not self._comparable:
            self.texts.clear()

    def _read(self, events: bytes, pieces: defaultdict[Key, list[str]]) -> None:
        """Add what some events say to `pieces`."""
        if not self._is_named:
            for chunk in _chunks_of(events[: events.find(b"\n\n") + 2]):  # The first one does it, as a rule.
                self._name(chunk)
        if self._is_named and (texts := _texts_of(events)) is not None:
            self.choices.add(0)
            if texts:
                pieces[CONTENT] = texts
            return
        for chunk in _chunks_of(events):
            self._add(chunk, pieces)

    @property
    def _is_named(self) -> bool:
        return self.id is not None and self.created is not None

    def _add(self, chunk: Chunk, pieces: defaultdict[Key, list[str]]) -> None:
        if not self._is_named:
            self._name(chunk)
        for part in chunk.choices or ():
            self.choices.add(part.index)
            if part.logprobs or len(self.choices) > MAX_CHOICES:
                raise DifferenceError
            for field, value in (part.delta or {}).items():
                if field in TEXTS and isinstance(value, str):
                    if value:
                        pieces[part.index, field, NO_CALL].append(value)
                elif field == "tool_calls":
                    self._add_calls(part.index, msgspec.convert(value or [], list[CallPart]), pieces)
                elif field != "role" and value:
                    raise DifferenceError
            if part.finish_reason:
                self.finish_reasons.setdefault(part.index, part.finish_reason)

    def _add_calls(self, choice: int, parts: list[CallPart], pieces: defaultdict[Key, list[str]]) -> None:
        for part in parts:
            function = part.function or FunctionPart()
            call = self.calls.get((choice, part.index))
            if call is None:
                call = self.calls[choice, part.index] = ToolCall(part.id or "", function.name or "")
            # Some providers repeat the name with every piece; one that comes late, or in pieces, is not understood.
            if not call.name or function.name not in ("", None, call.name) or len(self.calls) > MAX_CALLS:
                raise DifferenceError
            if function.arguments:
                pieces[choice, "tool_calls", part.index].append(function.arguments)

    def _name(self, chunk: Chunk) -> None:
        """Take the first names that say something: a provider's preamble may have them empty."""
        if isinstance(chunk.id, str):
            self.id = self.id or chunk.id or None
        if type(chunk.created) is int:
            self.created = self.created or chunk.created or None
        if isinstance(chunk.model, str):
            self.model = self.model or chunk.model or None
        if isinstance(chunk.system_fingerprint, str):
            self.system_fingerprint = self.system_fingerprint or chunk.system_fingerprint or None


def _chunks_of(events: bytes) -> Iterator[Chunk]:
    """Read the chunks of some events. Raises what is in `UNREADABLE`."""
    listed = _listed(events)
    if listed is not None:
        try:
            chunks = _decode_chunks(listed)
        except UNREADABLE:
            chunks = []
        if len(chunks) == events.count(b"\n\n"):
            yield from chunks
            return
    splitter = sse.EventSplitter()
    for event in (*splitter.feed(events), splitter.finish()):
        data = (sse.data_of(event) or b"").strip()
        if data and data != b"[DONE]":
            yield decode_chunk(data)


def _texts_of(events: bytes) -> list[str] | None:
    """Read events that are nothing but pieces of the first choice's text; None when there is more in them."""
    listed = _listed(events)
    if listed is None:
        return None
    try:
        chunks = _decode_text_chunks(listed)
    except UNREADABLE:
        return None
    if len(chunks) != events.count(b"\n\n"):
        return None
    return [text for chunk in chunks if (text := chunk.choices[0].delta.content)]


def _listed(events: bytes) -> bytes | None:
    """Return the data of events as one JSON array, which costs half to read; None when they are written unusually.

    A count of what is in it has to show that they were not.
    """
    if not (events.startswith(b"data: {") and events.endswith(b"}\n\n") and events.find(b"\r") < 0):
        return None
    return b"[%b]" % events[6:-2].replace(b"}\n\ndata: {", b"},{")


def prefill(sent: str) -> str:
    """Return what a provider is given of a sent text to go on from."""
    return sent.rstrip()
