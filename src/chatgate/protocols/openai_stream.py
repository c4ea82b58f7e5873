"""An upstream's stream of OpenAI chat chunks, on its way to a caller.

`Relay` watches a stream event by event, cut at any byte; its heirs say what a caller gets of each. Both the OpenAI
surface, which gets the events as they came, and the plain API are served so.
Source: https://platform.openai.com/docs/api-reference/chat-streaming (read 2026-11-23).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from chatgate.protocols import openai_chat, sse
from chatgate.protocols.chunk_form import NO_FORM, form_of, is_text
from chatgate.protocols.resume import Transcript
from chatgate.vocabulary.chat import Usage
from chatgate.vocabulary.errors import UpstreamError

DONE = b"data: [DONE]\n\n"

MAX_FORMS = 32
"""How often the form of a stream's events is looked for: it changes when a provider tells the time in each."""

_NULL = Raw(b"null")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_UNSAID = frozenset({"role", "name"})


class _End(Struct, gc=False):
    index: int = 0
    finish_reason: Any = None


_ONLY = _End()
_GOING_ON = [_ONLY]


class _Outline(Struct, gc=False):
    """What is looked at in a chunk that is passed on as it is."""

    choices: list[_End] | None = None
    usage: Raw = _NULL
    error: Raw = _NULL


class _Piece(Struct, gc=False):
    """What shows that a chunk is just one more piece of an answer."""

    choices: list[_End] | None = None
    usage: Any = None
    error: Any = None


class _Delta(Struct):
    delta: dict[str, Any] | None = None


class _Beginning(Struct):
    choices: list[_Delta] | None = None


class _BegunDelta(Struct, gc=False):
    content: Annotated[str, Meta(min_length=1)]


class _BegunChoice(Struct, gc=False):
    delta: _BegunDelta
    index: Literal[0] = 0
    finish_reason: None = None


class _Begun(Struct, gc=False):
    """A chunk that begins the text of the one choice that there is, as nearly all answers begin."""

    choices: tuple[_BegunChoice]
    usage: None = None
    error: None = None


_decode_begun = msgspec.json.Decoder(_Begun).decode
_decode_outline = msgspec.json.Decoder(_Outline).decode
_decode_piece = msgspec.json.Decoder(_Piece).decode
_decode_beginning = msgspec.json.Decoder(_Beginning).decode


class Relay:
    """Watches one upstream's stream; its heirs turn the events into what the caller gets.

    After `feed` look at `done` (the whole answer was passed on; nothing more will be), at `error` (the stream broke
    before its end), at `begun` (something of the answer itself was there, not just a role) and at `heard` (this time
    there was more than comments). `finished` says that the answer is whole, though the end mark may be missing.
    `usage` is what the provider counted, once it has said so; `transcript` is all that was said.
    """

    __slots__ = (
        "_choices",
        "_form",
        "_forms_left",
        "_going_on",
        "_note",
        "_say",
        "_splitter",
        "_suspended",
        "_usual",
        "begun",
        "done",
        "error",
        "finished",
        "heard",
        "transcript",
        "usage",
    )

    passes_events = False
    """Whether the caller gets a chunk with a piece of the answer as it came."""

    def __init__(self) -> None:
        """Start before the first byte."""
        self._splitter = sse.EventSplitter()
        self._choices: dict[int, bool] = {}
        self._usual: _End | None = None
        # What all but a few chunks have as their choices, once that is known; between events, and inside of one.
        self._going_on: list[_End] | None = None
        self._suspended: list[_End] | None = None
        self.begun = False
        self.done = False
        self.error: UpstreamError | None = None
        self.finished = False
        self.heard = False
        self.usage: Usage | None = None
        self.transcript = Transcript()
        self._note = self.transcript.note
        self._say = self.transcript.say
        self._form = NO_FORM
        self._forms_left = MAX_FORMS

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more will come of it."""
        return self.done or self.error is not None

    def begin(self, data: bytes) -> bytes:
        """Return what `feed` returns; an heir may know how answers begin."""
        return self.feed(data)

    def feed(self, data: bytes) -> bytes:
        """Return what the caller gets of this: whole events only."""
        if self.goes_on(data, 0, len(data)):
            self.heard = True
            return data
        return self._look_at(data)

    def goes_on(self, data: bytes, start: int, end: int) -> bool:
        """Tell whether `data[start:end]` is an event that just goes on with the answer, which is noted then.

        The caller gets it as it is. With any other nothing has happened yet.
        """
        going_on = self._going_on
        if going_on is None:
            return False
        form = self._form
        if data.startswith(form.head, start) and data.endswith(form.tail, start + len(form.head), end):
            text = data[start + len(form.head) : end - len(form.tail)]
            if is_text(text):
                self._say(text)
                return True
        if not _is_event(data, start, end):
            return False
        event = data[start:end]
        try:
            piece = _decode_piece(event[6:])
        except _UNREADABLE:
            return False
        if piece.choices != going_on or piece.usage is not None or piece.error is not None:
            return False
        self._note(event)
        if self._forms_left:  # Where each event has a form of its own, there is no use in looking for it.
            self._forms_left -= 1
            self._form = form_of(event) or NO_FORM
        return True

    def _look_at(self, data: bytes) -> bytes:
        """Look closely at what may be more than one more piece of the answer."""
        done, error = self.done, self.error
        if done or error is not None:
            return b""
        self.heard = False
        going_on = self._going_on = self._suspended
        out: list[bytes] = []
        try:
            if not self._splitter.tail and _is_event(data, 0, len(data)):
                out.append(self._take(data, data[6:-2]))
            else:
                for event in self._splitter.feed(data):
                    if going_on is not None and self.goes_on(event, 0, len(event)):
                        self.heard = True
                        out.append(event)
                        continue
                    going_on = self._going_on = None
                    out.append(self._take(event, sse.data_of(event)))
                    if self.done:
                        break
        except UpstreamError as broken:
            self.error = broken
        self._going_on = self._suspended = None
        if self.passes_events and self.begun and self._usual is not None and not self.is_over:
            self._suspended = [self._usual]
            if not self._splitter.tail:
                self._going_on = self._suspended
        return b"".join(out)

    def end(self) -> bytes:
        """Return what is still to be passed on at the upstream's regular end of body.

        An answer that had finished is completed with the end mark that it lacks; any other one was cut.
        """
        self._going_on = None
        last = openai_chat.last_event(self._splitter.finish())
        out = self.feed(last) if last else b""
        if self.is_over:
            return out
        if not self.finished:
            self.error = UpstreamError("upstream_cut")
            return out
        return out + self.complete()

    def complete(self) -> bytes:
        """Return the end of an answer that has finished."""
        self._going_on = None
        self.done = True
        return self._last()

    def forget_tail(self) -> None:
        """Drop the beginning of an event: another stream goes on from here."""
        self._splitter = sse.EventSplitter()
        self.error = None

    def _take(self, event: bytes, data: bytes | None) -> bytes:
        """Look at one event; return what the caller gets of it."""
        if not data:
            return self._comment(event)
        if data.strip() == b"[DONE]":
            self.heard = self.done = True
            return self._mark(event)
        try:
            outline = _decode_outline(data)
        except _UNREADABLE as error:
            if not isinstance(error, msgspec.ValidationError) or not data.lstrip().startswith(b"{"):
                return b""  # It is broken, or nothing that has fields, and would break the caller's reader too.
            outline = _Outline()  # It is no chunk that we know: passed on unread.
        self.heard = True
        choices, usage = outline.choices, outline.usage
        if outline.error is not _NULL:
            openai_chat.check_error(outline.error, data)
        if choices and (len(choices) > 1 or choices[0] != self._usual):
            self._note_ends(choices)
        if not self.begun:
            self.begun = self.finished or _says_something(data)
        self._note(event)
        if usage is _NULL or bytes(usage) == b"null":
            return self._pass_on(event, data)
        self.usage = openai_chat.read_usage(usage) or self.usage
        return self._count(event, data) if choices == [] else self._pass_on(event, data)

    def _note_ends(self, choices: list[_End]) -> None:
        """Take note of the choices that have finished: an answer is whole when all that have begun are."""
        for choice in choices:
            if choice.finish_reason:
                self._usual = None
                self._choices[choice.index] = True
                self.finished = all(self._choices.values())
            elif choice.index not in self._choices:
                self._choices[choice.index] = self.finished = False
                # Nearly all chunks go on with the one choice that there is.
                self._usual = choice if len(self._choices) == 1 else None

    def _pass_on(self, event: bytes, data: bytes) -> bytes:
        """Return what the caller gets of a chunk."""
        raise NotImplementedError

    def _count(self, event: bytes, data: bytes) -> bytes:
        """Return what the caller gets of a chunk that holds nothing but the usage."""
        return self._pass_on(event, data)

    def _mark(self, event: bytes) -> bytes:  # noqa: ARG002 - an heir may pass it on
        """Return what the caller gets of the end mark."""
        return self._last()

    def _last(self) -> bytes:
        """Return what ends a whole answer."""
        raise NotImplementedError

    def _comment(self, event: bytes) -> bytes:
        """Return what the caller gets of an event without data."""
        raise NotImplementedError


class OpenAIRelay(Relay):
    """Passes the events on byte for byte to a caller of the OpenAI surface."""

    __slots__ = ("_hide_usage",)

    passes_events = True

    def __init__(self, *, hide_usage: bool) -> None:
        """`hide_usage` drops the chunk with the count, which the caller did not ask for."""
        super().__init__()
        self._hide_usage = hide_usage

    def begin(self, data: bytes) -> bytes:
        """Do what `feed` does as long as the answer has not begun, with less ado for how it usually does."""
        usual = self._usual
        if _is_event(data, 0, len(data)) and not self._splitter.tail and (usual == _ONLY or not self._choices):
            try:
                _decode_begun(data[6:-2])
            except _UNREADABLE:
                return self.feed(data)
            self._choices[0] = False
            self._usual, self._going_on, self._suspended = _ONLY, _GOING_ON, _GOING_ON
            self.begun = self.heard = True
            self._note(data)
            return data
        return self.feed(data)

    def _pass_on(self, event: bytes, data: bytes) -> bytes:  # noqa: ARG002 - an heir's signature
        return event

    def _count(self, event: bytes, data: bytes) -> bytes:  # noqa: ARG002 - an heir's signature
        return b"" if self._hide_usage else event

    def _mark(self, event: bytes) -> bytes:
        return event

    def _last(self) -> bytes:
        return DONE

    def _comment(self, event: bytes) -> bytes:
        return event


def _is_event(data: bytes, start: int, end: int) -> bool:
    """Tell whether `data[start:end]` is one event of one line, as nearly all are."""
    return (
        data.startswith(b"data: {", start)
        and data.find(b"\n", start) == end - 2
        and data.startswith(b"\n", end - 1)
        and data.find(b"\r", start, end) < 0
    )


def _says_something(chunk: bytes) -> bool:
    """Tell whether a chunk holds more of an answer than who speaks. Raises `UpstreamError` when it is a refusal."""
    try:
        choices = _decode_beginning(chunk).choices
    except _UNREADABLE:
        return False  # It is nothing that we know.
    if not choices:
        refusal = openai_chat.refusal_in(chunk)
        if refusal is not None:
            raise refusal
        return False
    return any(
        value not in (None, "", [], {})
        for choice in choices
        for name, value in (choice.delta or {}).items()
        if name not in _UNSAID
    )
