"""How another target goes on with a stream that broke off."""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw, Struct

from chatgate.protocols import openai_chat, sse
from chatgate.protocols.resume.transcript import (
    CONTENT,
    NO_CALL,
    NOTHING,
    NULL,
    UNREADABLE,
    CallPart,
    DifferenceError,
    FunctionPart,
    Key,
    Transcript,
    decode_chunk,
    prefill,
)
from chatgate.vocabulary.errors import UpstreamError

MAX_HELD_BYTES = 4 << 20
"""How much of a new stream is held back until it is clear that it may be passed on."""

TELLING_CHARACTERS = 24
"""So many characters at the beginning of an answer, said once more, are no accident."""

_ANSWERS = frozenset({"content", "refusal", "tool_calls"})


class _Place(Struct):
    index: int


_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_delta = msgspec.json.Decoder(dict[str, Raw] | None).decode
_decode_choices = msgspec.json.Decoder(list[dict[str, Raw]] | None).decode
_decode_calls = msgspec.json.Decoder(list[Raw] | None).decode
_decode_call = msgspec.json.Decoder(CallPart).decode
_decode_place = msgspec.json.Decoder(_Place).decode
_decode_integer = msgspec.json.Decoder(int).decode


class Resumption:
    """Turns the stream of another target into the rest of a stream that broke off.

    What the caller was already sent is compared and swallowed, the chunk that goes beyond it is cut, and all that
    follows passes, as parts of the first stream's message: under its `id` and `created` and with the ids of its tool
    calls. The `model` stays the one that answers.

    After `feed` look at `diverged`: this stream is another answer, or cannot be compared, or finished too early; none
    of it was passed on, and none will be. `caught_up` tells that it has said everything that was sent; a stream that
    just breaks off before that is neither. What is returned belongs to the caller's side of the first stream: note it
    in the same transcript.

    With `continued` the stream answers a `continued_body`. Its text goes on where the text that was sent ends, or, at
    some providers, begins by repeating that. So events are held back as long as the new text is a beginning of the
    sent text; then either all of that has come again, or the first character that differs, or the end, tells which it
    is. A new text that begins like the sent one for `TELLING_CHARACTERS` and then differs is an answer made anew.
    Only a text that in truth goes on by repeating its whole beginning would be misread.
    """

    __slots__ = (
        "_calls",
        "_choices",
        "_finish_reasons",
        "_held",
        "_held_bytes",
        "_identity",
        "_matched",
        "_new_text",
        "_pending",
        "_renames",
        "_splitter",
        "_texts",
        "_undecided",
        "caught_up",
        "diverged",
    )

    def __init__(self, transcript: Transcript, *, continued: bool = False) -> None:
        """Start from what the transcript holds now."""
        self.diverged = not transcript.is_resumable
        self._texts = dict(transcript.texts)
        self._calls = dict(transcript.calls)
        self._finish_reasons = dict(transcript.finish_reasons)
        self._choices = frozenset(transcript.choices)
        identity = {"id": transcript.id, "created": transcript.created}
        self._identity = {name: Raw(_encode(value)) for name, value in identity.items() if value is not None}
        self._matched = dict.fromkeys(self._texts, 0)
        self._pending: set[Key] = {
            *self._texts,
            *((choice, "finish_reason", NO_CALL) for choice in self._finish_reasons),
            *((choice, "name", call) for choice, call in self._calls),
        }
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._undecided = continued and CONTENT in self._texts
        self._new_text = ""
        self._renames: list[tuple[bytes, bytes]] | None = None
        self._splitter = sse.EventSplitter()
        self.caught_up = not self._pending and not self.diverged

    def feed(self, data: bytes) -> bytes:
        """Return what can be passed on now: whole events only."""
        if self.diverged:
            return b""
        if self.caught_up and not self._splitter.tail and data.endswith(b"\n\n"):
            renamed = self._rename(data)
            if renamed is not None:
                return renamed
        out: list[bytes] = []
        try:
            for event in self._splitter.feed(data):
                self._take(event, out)
        except (DifferenceError, UpstreamError):
            self._give_up()
        return b"".join(out)

    def end(self) -> bytes:
        """Return what is still to be passed on at the regular end of the new stream's body."""
        out: list[bytes] = []
        last = openai_chat.last_event(self._splitter.finish())
        try:
            if last and not self.diverged:
                self._take(last, out)
        except DifferenceError:
            self._give_up()
        return b"".join(out)

    def _give_up(self) -> None:
        self.diverged = True
        self._held.clear()

    def _take(self, event: bytes, out: list[bytes]) -> None:
        """Pass on, hold or swallow one event."""
        if self.caught_up and (renamed := self._rename(event)) is not None:
            out.append(renamed)
            return
        data = (sse.data_of(event) or b"").strip()
        if not data:
            out.append(event)  # A comment that keeps the connection alive.
            return
        if data == b"[DONE]":
            self._take_end_mark(event, out)
        else:
            self._take_data(event, data, out)

    def _take_end_mark(self, event: bytes, out: list[bytes]) -> None:
        if self._undecided:
            self._weigh("", out, ended=True)
        if not self.caught_up:
            raise DifferenceError
        out.append(event)

    def _take_data(self, event: bytes, data: bytes, out: list[bytes]) -> None:
        try:
            fields = _decode_object(data)
        except UNREADABLE:
            fields = {}
        if bytes(fields.get("error", NULL)) not in NOTHING:
            out.append(sse.event(_encode({"error": fields["error"]})))
        elif "choices" not in fields:
            # What is no chunk has no part in the comparison; before that is over, it is nothing for the caller.
            if self.caught_up:
                out.append(event)
        elif self._undecided:
            self._hold(event)
            self._glance(data, out)
        else:
            self._take_chunk(event, data, fields, out)

    def _take_chunk(self, event: bytes, data: bytes, fields: dict[str, Raw], out: list[bytes]) -> None:
        try:
            rest = self._cut(fields)
        except UNREADABLE:
            if not self.caught_up:
                raise DifferenceError from None
            rest = event
        if self.caught_up:
            out.append(rest)
            self._learn_names(data, fields)
            return
        if rest:
            self._hold(rest)
        if not self._pending:
            self.caught_up = True
            out += self._held
            self._held.clear()

    def _hold(self, event: bytes) -> None:
        self._held.append(event)
        self._held_bytes += len(event)
        if self._held_bytes > MAX_HELD_BYTES:
            raise DifferenceError

    # Cutting: what was sent is compared and taken out of a chunk.

    def _cut(self, fields: dict[str, Raw]) -> bytes:
        """Return the event with what a chunk says beyond what was sent; b"" when that is nothing."""
        choices = _decode_choices(fields["choices"]) or []
        kept = [rest for choice in choices if (rest := self._cut_choice(choice)) is not None]
        if not kept and (choices or not self.caught_up):
            # Counts are told once, at the end: by a chunk of their own, or by the one that finishes.
            final = not choices or any(bytes(choice.get("finish_reason", NULL)) != b"null" for choice in choices)
            if not final or bytes(fields.get("usage", NULL)) == b"null":
                return b""
        return sse.event(_encode({**fields, "choices": kept, **self._identity}))

    def _cut_choice(self, choice: dict[str, Raw]) -> dict[str, Raw] | None:
        """Return a choice without what was sent; None when it says nothing else."""
        index = _decode_integer(choice.get("index", b"0"))
        if index not in self._choices:
            return choice
        delta = _decode_delta(choice.get("delta", NULL)) or {}
        rest = {field: left for field, raw in delta.items() if (left := self._cut_field(index, field, raw)) is not None}
        if not self.caught_up:
            if bytes(choice.get("logprobs", NULL)) not in NOTHING:
                raise DifferenceError
            choice = choice | {"finish_reason": self._cut_finish(index, choice.get("finish_reason", NULL))}
            if not _ANSWERS.isdisjoint(rest) and self._lacks(index):
                raise DifferenceError
        if not rest and (delta or not self.caught_up) and bytes(choice.get("finish_reason", NULL)) == b"null":
            return None
        return choice | {"delta": Raw(_encode(rest))}

    def _cut_field(self, choice: int, field: str, raw: Raw) -> Raw | None:
        if field == "role":
            return None
        if field == "tool_calls":
            return self._cut_calls(choice, raw)
        if self.caught_up:
            return raw
        if bytes(raw) in NOTHING:
            return None
        key = (choice, field, NO_CALL)
        if key not in self._texts:
            return raw
        rest = self._match(key, msgspec.json.decode(raw, type=str))
        return Raw(_encode(rest)) if rest else None

    def _cut_calls(self, choice: int, raw: Raw) -> Raw | None:
        """Take out what was sent of tool calls, their beginnings included: the caller has those with the first ids."""
        kept: list[Raw] = []
        for piece in _decode_calls(raw) or []:
            index = _decode_place(piece).index
            call = self._calls.get((choice, index))
            if call is None:
                kept.append(piece)
                continue
            function = _decode_call(piece).function or FunctionPart()
            if function.name:
                if function.name != call.name:
                    raise DifferenceError
                self._pending.discard((choice, "name", index))
            rest = self._match((choice, "tool_calls", index), function.arguments or "")
            if rest:
                kept.append(Raw(_encode({"index": index, "function": {"arguments": rest}})))
        return Raw(_encode(kept)) if kept else None

    def _cut_finish(self, choice: int, raw: Raw) -> Raw:
        """Compare how a choice ends, when it does: it may not end before it has said all that was sent."""
        if bytes(raw) in NOTHING:
            return raw
        sent = self._finish_reasons.get(choice)
        if sent is not None:
            if msgspec.json.decode(raw) != sent:
                raise DifferenceError
            self._pending.discard((choice, "finish_reason", NO_CALL))
        if self._lacks(choice):
            raise DifferenceError
        return raw if sent is None else NULL

    def _lacks(self, choice: int) -> bool:
        """Tell whether a choice has not yet said all that was sent of it."""
        return any(key[0] == choice for key in self._pending)

    def _match(self, key: Key, text: str) -> str:
        """Compare the next text of a field with what was sent of it; return what goes beyond that."""
        sent, begin = self._texts.get(key, ""), self._matched.get(key, 0)
        missing = len(sent) - begin
        if len(text) < missing:
            if not sent.startswith(text, begin):
                raise DifferenceError
            self._matched[key] = begin + len(text)
            return ""
        if missing and not text.startswith(sent[begin:]):
            raise DifferenceError
        self._matched[key] = len(sent)
        self._pending.discard(key)
        return text[missing:]

    # Passing on: once all is caught up, only names change.

    def _learn_names(self, data: bytes, fields: dict[str, Raw]) -> None:
        """Learn how this stream writes its `id` and `created`, to change them without reading the chunks to come."""
        renames: list[tuple[bytes, bytes]] = []
        for name, value in self._identity.items():
            written = bytes(fields.get(name, NULL))
            member = re.search(rb'("%b": ?)%b([,}])' % (name.encode(), re.escape(written)), data)
            if member is None or written in NOTHING:
                return
            renames.append((member[0], member[1] + value + member[2]))
        self._renames = renames

    def _rename(self, events: bytes) -> bytes | None:
        """Return events with the first stream's names; None when they need a closer look.

        A quote inside of a JSON text is escaped, so what looks like a member there is one.
        """
        if self._renames is None or events.find(b'"role"') >= 0:
            return None
        if self._calls and events.find(b'"tool_calls"') >= 0:
            return None
        count = events.count(b"\n\n")
        for old, new in self._renames:
            if events.count(old) != count:
                return None
            events = events.replace(old, new)
        return events

    # Weighing: does a continued text go on, or does it begin by repeating?

    def _glance(self, data: bytes, out: list[bytes]) -> None:
        """Look at a chunk that is held back, and let it weigh."""
        try:
            parts = decode_chunk(data).choices or []
        except UNREADABLE:
            raise DifferenceError from None
        text, ended = "", False
        for part in parts:
            delta = part.delta or {}
            ended = ended or bool(part.finish_reason or delta.get("tool_calls") or delta.get("refusal"))
            if isinstance(content := delta.get("content"), str):
                text += content
        self._weigh(text, out, ended=ended)

    def _weigh(self, text: str, out: list[bytes], *, ended: bool) -> None:
        """Decide, when it is clear, what this stream should begin with, and take what was held back accordingly."""
        self._new_text = new = self._new_text + text
        sent = self._texts[CONTENT]
        left_out = sent[len(prefill(sent)) :]
        expected = left_out
        if new.startswith(sent):
            expected = sent
        elif not ended and (sent.startswith(new) or (left_out.startswith(new) and new != left_out)):
            return
        elif new.startswith(sent[:TELLING_CHARACTERS]):
            raise DifferenceError
        elif ended and left_out.startswith(new):
            expected = new  # Nothing more was to be said, but for some of the white space that it was asked without.
        self._texts[CONTENT] = expected
        if not expected:
            self._pending.discard(CONTENT)
        self.caught_up = not self._pending
        self._undecided = False
        events, self._held, self._held_bytes = self._held, [], 0
        for event in events:
            self._take(event, out)
