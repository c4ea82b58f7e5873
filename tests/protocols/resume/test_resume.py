"""A broken stream goes on seamlessly with another target's, or not at all: no text is lost, doubled or mixed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from chatgate.protocols import document, openai_stream, plain, sse
from chatgate.protocols.resume import Resumption, Transcript, continued_body
from chatgate.protocols.resume import transcript as transcript_module
from chatgate.protocols.resume.resumption import MAX_HELD_BYTES, TELLING_CHARACTERS
from chatgate.protocols.resume.transcript import FOLD_BYTES, MAX_CHOICES
from chatgate.vocabulary.chat import Message
from chatgate.vocabulary.document import Document
from chatgate.vocabulary.upstreams import Continuation

Style = Callable[[Any], bytes]
Deltas = list[tuple[int, dict[str, Any]]]


def compact(content: Any) -> bytes:
    """Write JSON without spaces, in UTF-8."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def spaced(content: Any) -> bytes:
    """Write JSON with spaces, in UTF-8."""
    return json.dumps(content, ensure_ascii=False).encode()


def escaped(content: Any) -> bytes:
    """Write JSON in ASCII, with every other character as an escape."""
    return json.dumps(content).encode()


STYLES: list[Style] = [compact, spaced, escaped]
DONE = b"data: [DONE]\n\n"
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
PLACES = st.lists(st.integers(0, 10**6), max_size=8)
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
LONG = "A text that is long enough to be told from any other one."


class Source:
    """Writes the events of one target's stream, all under one id."""

    def __init__(self, name: str, style: Style = compact) -> None:
        """`name` makes the id, the time and the model."""
        self.style = style
        self.names = {"id": f"chatcmpl-{name}", "created": 1700000000 + ord(name[0]), "model": f"model-{name}"}

    def chunk(self, *choices: dict[str, Any], **fields: Any) -> bytes:
        """Write a chunk with these choices."""
        names = {**self.names, "object": "chat.completion.chunk"}
        return sse.event(self.style({**names, "choices": list(choices), **fields}))

    def delta(self, choice: int = 0, **delta: Any) -> bytes:
        """Write what one choice says next."""
        return self.chunk({"index": choice, "delta": delta, "finish_reason": None})

    def finish(self, reason: str = "stop", choice: int = 0, **fields: Any) -> bytes:
        """Write how one choice ends."""
        return self.chunk({"index": choice, "delta": {}, "finish_reason": reason}, **fields)

    def usage(self) -> bytes:
        """Write the counts in a chunk of their own."""
        return self.chunk(usage=USAGE)

    def said(self, *texts: str) -> list[bytes]:
        """Write an answer up to here, a chunk for each text."""
        return [self.delta(role="assistant", content=""), *(self.delta(content=text) for text in texts)]

    def answer(self, *texts: str) -> list[bytes]:
        """Write a whole answer."""
        return [*self.said(*texts), self.finish(), self.usage(), DONE]


A, B, C = Source("a"), Source("b"), Source("c")


class Caller:
    """Reads events as the client libraries do: by joining what is said in each field."""

    def __init__(self, stream: bytes) -> None:
        """Read a stream of whole events."""
        self.texts: dict[tuple[int, str], str] = {}
        self.calls: dict[tuple[int, int], dict[str, str]] = {}
        self.finish_reasons: list[tuple[int, str]] = []
        self.roles = 0
        self.chunks: list[dict[str, Any]] = []
        self.done = False
        splitter = sse.EventSplitter()
        events = splitter.feed(stream)
        assert splitter.finish() == b""
        for event in events:
            data = sse.data_of(event)
            assert not self.done
            if data == b"[DONE]":
                self.done = True
            elif data:
                self._take(json.loads(data))

    def _take(self, chunk: dict[str, Any]) -> None:
        self.chunks.append(chunk)
        for choice in chunk.get("choices") or ():
            index = choice.get("index", 0)
            if choice.get("finish_reason"):
                self.finish_reasons.append((index, choice["finish_reason"]))
            for name, value in (choice.get("delta") or {}).items():
                if name == "role":
                    self.roles += 1
                elif name == "tool_calls":
                    for piece in value:
                        call = self.calls.setdefault((index, piece["index"]), {"id": "", "name": "", "arguments": ""})
                        call["id"] += piece.get("id") or ""
                        for part, text in piece.get("function", {}).items():
                            call[part] += text
                elif isinstance(value, str) and value:
                    self.texts[index, name] = self.texts.get((index, name), "") + value

    @property
    def text(self) -> str:
        """Return the first choice's content."""
        return self.texts.get((0, "content"), "")

    def names(self, name: str) -> set[Any]:
        """Return the values that chunks had for a name."""
        return {chunk.get(name) for chunk in self.chunks}


def cut(whole: Any, places: list[int]) -> list[Any]:
    """Cut a text or a stream at some places."""
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[begin:end] for begin, end in itertools.pairwise(edges)]


def whole_events(stream: bytes) -> bytes:
    """Return what of a stream's beginning can be passed on."""
    return b"".join(sse.EventSplitter().feed(stream))


def noted(*events: bytes) -> Transcript:
    """Return a transcript of some events."""
    transcript = Transcript()
    for event in events:
        transcript.note(event)
    return transcript


def resume(transcript: Transcript, pieces: list[bytes], *, continued: bool = False) -> tuple[bytes, Resumption]:
    """Feed a whole stream; return what was passed on, which is noted as it comes."""
    resumption = Resumption(transcript, continued=continued)
    out = b""
    for step in (*(lambda piece=piece: resumption.feed(piece) for piece in pieces), resumption.end):
        passed = step()
        transcript.note(passed)
        transcript.read()
        out += passed
    return out, resumption


# --- What was said so far ---------------------------------------------------------------------------------------------


def test_a_transcript_knows_what_was_said() -> None:
    """The first names, each field's text, the tool calls and the ends are there after the events were noted."""
    transcript = noted(
        A.chunk(id="", created=0, model="", prompt_filter_results=[{}]),
        A.chunk({"index": 0, "delta": {"role": "assistant", "content": None}}, system_fingerprint="fp_1"),
        A.delta(reasoning_content="Hm"),
        A.delta(reasoning_content="m."),
        A.delta(content="On"),
        A.delta(content="e", refusal=None),
        A.delta(tool_calls=[{"index": 0, "id": "call_a", "type": "function", "function": {"name": "f"}}]),
        A.delta(tool_calls=[{"index": 0, "function": {"arguments": '{"x"'}}]),
        A.delta(choice=1, refusal="No", content=None),
        A.finish("stop", choice=1),
        B.usage(),
        b": keep-alive\n\n",
    )
    assert transcript.is_resumable
    assert transcript.text == "One"
    assert transcript.has_text
    assert transcript.finished
    assert transcript.texts == {
        (0, "reasoning_content", -1): "Hmm.",
        (0, "content", -1): "One",
        (0, "tool_calls", 0): '{"x"',
        (1, "refusal", -1): "No",
    }
    assert {place: (call.id, call.name) for place, call in transcript.calls.items()} == {(0, 0): ("call_a", "f")}
    assert transcript.finish_reasons == {1: "stop"}
    assert transcript.choices == {0, 1}
    assert (transcript.id, transcript.created, transcript.model) == ("chatcmpl-a", A.names["created"], "model-a")
    assert transcript.system_fingerprint == "fp_1"


def test_nothing_said_is_nothing_to_resume() -> None:
    """A transcript without events, or with a role only, holds no text."""
    assert not Transcript().has_text
    assert Transcript().is_resumable
    assert not noted(A.delta(role="assistant", content="")).has_text
    assert not noted(A.delta(role="assistant", content="")).finished


@pytest.mark.parametrize(
    "event",
    [
        A.chunk({"index": 0, "delta": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": -0.1}]}}),
        A.delta(audio={"id": "audio_1", "data": "AAAA"}),
        A.delta(content=[{"type": "thinking", "thinking": []}]),
        A.delta(reasoning_details=[{"type": "reasoning.text", "text": "x"}]),
        A.delta(function_call={"name": "f", "arguments": ""}),
        A.delta(tool_calls=[{"id": "x", "function": {"name": "f", "arguments": "{}"}}]),
        A.delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        A.delta(tool_calls=[{"index": 0, "id": "x", "type": "custom", "custom": {"name": "f", "input": "x"}}]),
        A.delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "f"}, "extra_content": {"signature": "x"}}]),
        A.delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": name}} for name in ("f", "g")]),
        A.delta(tool_calls=[{"index": n, "id": "x", "function": {"name": "f"}} for n in range(200)]),
        A.chunk(*({"index": n, "delta": {"content": "x"}} for n in range(MAX_CHOICES + 1))),
        A.chunk({"index": "0", "delta": {"content": "x"}}),
        A.chunk(choices={}),
        A.chunk(choices=[None]),
        b'data: {"choices":[\n\n',
        b"data: hello\n\n",
        b"data: []\n\n",
        b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_what_cannot_be_compared_cannot_be_resumed(event: bytes) -> None:
    """Log probabilities, audio, unknown fields and unreadable events rule a resumption out, and the caller has them."""
    for events in ((A.delta(content="x"), event), (event, A.delta(content="x")), (A.delta(content="x") + event,)):
        transcript = noted(*events)
        assert not transcript.is_resumable
        assert transcript.has_text
        out, resumption = resume(transcript, B.answer("x", "y"))
        assert (out, resumption.diverged, resumption.caught_up) == (b"", True, False)


def test_a_long_stream_is_kept_as_its_text_only() -> None:
    """What is kept of a stream is its text and a bounded rest, and the text is right."""
    transcript = Transcript()
    for number in range(5000):
        transcript.note(A.delta(content=f"{number} "))
        assert sum(map(len, transcript._events)) <= FOLD_BYTES
    assert transcript.text == "".join(f"{number} " for number in range(5000))
    assert transcript.content_chunks == 5000


def test_an_endless_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound the text is given up, not the memory."""
    monkeypatch.setattr(transcript_module, "MAX_TEXT_CHARACTERS", 1000)
    transcript = noted(*(A.delta(content="x" * 100) for _ in range(11)))
    assert not transcript.is_resumable
    assert transcript.has_text
    assert transcript.texts == {}


@given(
    st.lists(
        st.sampled_from(
            [
                *A.answer("one", " two", "\u2028three"),
                *(A.delta(**delta) for delta in ({"refusal": "No."}, {"content": None}, {"role": "assistant"}, {})),
                A.delta(content="four", tool_calls=[]),
                A.delta(1, content="five"),
                A.chunk(id=None, created=None),
                b": ping\n\n",
                b"data: [DONE] \n\n",
            ]
        ),
        max_size=12,
    ),
    PLACES,
)
def test_events_are_read_the_same_however_they_were_noted(events: list[bytes], places: list[int]) -> None:
    """One at a time, in groups, all at once, in another writing of the line ends: the transcript is the same."""
    one_by_one = Transcript()
    for event in events:
        one_by_one.note(event)
        one_by_one.read()
    grouped = noted(*(b"".join(group) for group in cut(events, places)))
    other_line_ends = noted(*(event.replace(b"\n", b"\r\n") for event in events))
    old_line_ends = noted(*(event.replace(b"\n", b"\r") for event in events))
    for transcript in (grouped, other_line_ends, old_line_ends):
        assert transcript.is_resumable
        assert transcript.finished == one_by_one.finished
        for name in ("texts", "id", "created", "model", "choices", "calls", "finish_reasons", "content_chunks"):
            assert getattr(transcript, name) == getattr(one_by_one, name)


def test_two_halves_of_an_object_are_not_one() -> None:
    """Events that are no JSON each on its own are not joined to one that is."""
    assert not noted(b'data: {"choices":[{"delta":{}}\n\ndata: {"delta":{}}]}\n\n').is_resumable


def test_the_first_names_are_kept() -> None:
    """Each name is the first one that says something, wherever in the stream that is; odd ones are none."""
    transcript = noted(
        A.chunk(id=5, created="now", model=None),
        A.chunk(id="first", created=1.5, model="m1"),
        A.chunk(id="second", created=7, model="m2"),
        A.chunk(id="third", created=8, model="m3"),
    )
    transcript.read()
    assert (transcript.id, transcript.created, transcript.model) == ("first", 7, "m1")


# --- How another target goes on ---------------------------------------------------------------------------------------


@given(
    TEXTS,
    PLACES,
    st.integers(0, 10**6),
    PLACES,
    PLACES,
    st.sampled_from(STYLES),
    st.sampled_from(STYLES),
)
@example("🚪 \u2028 ä\r\n", [1, 2, 3], 10**5, [1], [], escaped, compact)
def test_a_broken_stream_becomes_whole(
    text: str, first: list[int], broken_at: int, second: list[int], wire: list[int], style: Style, other: Style
) -> None:
    """Whatever the text, its chunks, the place of the break and the writing: the caller reads the text, once."""
    stream = b"".join(Source("a", style).answer(*cut(text, first)))
    passed = whole_events(stream[: broken_at % (len(stream) + 1)])
    if passed.endswith(DONE):
        passed = passed.removesuffix(DONE)
    transcript = noted(*sse.EventSplitter().feed(passed))
    again = b"".join(Source("b", other).answer(*cut(text, second)))
    out, resumption = resume(transcript, cut(again, wire))
    assert resumption.caught_up
    assert not resumption.diverged
    caller = Caller(passed + out)
    assert caller.text == text
    assert caller.finish_reasons == [(0, "stop")]
    assert caller.done
    assert caller.roles == 1
    if passed:
        assert caller.names("id") == {"chatcmpl-a"}
        assert caller.names("created") == {A.names["created"]}
    assert {chunk["model"] for chunk in Caller(out).chunks} <= {"model-b"}


@given(TEXTS, TEXTS, PLACES, PLACES)
@example("ab", "ax", [1], [1])
@example("ab", "abc", [], [])
@example("ab", "a", [1], [])
def test_another_answer_is_never_mixed_in(sent: str, other: str, first: list[int], second: list[int]) -> None:
    """A text that does not begin with what was sent passes no byte, and its first other character tells."""
    transcript = noted(*A.said(*cut(sent, first)))
    if other.startswith(sent):
        out, resumption = resume(transcript, B.answer(*cut(other, second)))
        assert not resumption.diverged
        assert Caller(b"".join(A.said(sent)) + out).text == other
        return
    resumption = Resumption(transcript)
    said = ""
    for piece in cut(other, second):
        assert resumption.feed(B.delta(content=piece)) == b""
        said += piece
        assert resumption.diverged == (not sent.startswith(said))
    assert b"".join(map(resumption.feed, [B.finish(), B.usage(), DONE])) + resumption.end() == b""
    assert resumption.diverged
    assert not resumption.caught_up


ARGUMENTS = st.text(st.characters(codec="utf-8"), max_size=12)


def call_deltas(calls: list[tuple[str, str]], places: list[int], prefix: str, *, repeat: bool) -> Deltas:
    """Return the deltas of tool calls; `repeat` says id and name with every piece, as some providers do."""
    deltas: Deltas = []
    for index, (name, arguments) in enumerate(calls):
        head = {"id": f"call_{prefix}{index}", "type": "function"}
        deltas.append((0, {"tool_calls": [{"index": index, **head, "function": {"name": name, "arguments": ""}}]}))
        for piece in cut(arguments, places):
            again = {**head, "function": {"name": name, "arguments": piece}} if repeat else {}
            deltas.append((0, {"tool_calls": [{"index": index, "function": {"arguments": piece}} | again]}))
    return deltas


@given(
    calls=st.lists(st.tuples(st.sampled_from(["f", "g"]), ARGUMENTS), min_size=1, max_size=3),
    first=PLACES,
    second=PLACES,
    broken_at=st.integers(0, 10**6),
    repeat=st.booleans(),
)
def test_tool_calls_go_on_too(
    *, calls: list[tuple[str, str]], first: list[int], second: list[int], broken_at: int, repeat: bool
) -> None:
    """The arguments of tool calls are joined like text, under the ids that the caller knows."""
    deltas = call_deltas(calls, first, "a", repeat=False)
    passed = [A.delta(role="assistant", content=None)]
    passed += [A.delta(choice, **delta) for choice, delta in deltas[: broken_at % (len(deltas) + 1)]]
    again = [B.delta(role="assistant", content=None)]
    again += [B.delta(choice, **delta) for choice, delta in call_deltas(calls, second, "b", repeat=repeat)]
    sent = Caller(b"".join(passed))
    out, resumption = resume(noted(*passed), [*again, B.finish("tool_calls"), DONE])
    assert not resumption.diverged
    caller = Caller(b"".join(passed) + out)
    assert caller.finish_reasons == [(0, "tool_calls")]
    for index, (name, arguments) in enumerate(calls):
        call = caller.calls[0, index]
        assert call["arguments"] == arguments
        if (0, index) in sent.calls:
            assert (call["id"], call["name"]) == (f"call_a{index}", name)
        else:
            assert call["id"].startswith(f"call_b{index}")


@pytest.mark.parametrize(
    "piece",
    [
        {"index": 0, "id": "call_b", "function": {"name": "g", "arguments": ""}},
        {"index": 0, "id": "call_b", "function": {"name": "f", "arguments": '{"y'}},
        {"index": 1, "id": "call_b", "function": {"name": "f", "arguments": '{"x'}},
        {"index": 0, "id": "call_b", "function": {"name": "f"}, "extra_content": {"signature": "x"}},
        {"id": "call_b", "function": {"name": "f", "arguments": '{"x'}},
    ],
)
def test_another_tool_call_is_another_answer(piece: dict[str, Any]) -> None:
    """A different function, different arguments or another order of calls is not passed on."""
    begun = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x'}}
    transcript = noted(A.delta(role="assistant"), A.delta(tool_calls=[begun]))
    resumption = Resumption(transcript)
    assert resumption.feed(B.delta(role="assistant") + B.delta(tool_calls=[piece])) == b""
    assert resumption.diverged


def test_a_tool_call_that_was_begun_must_come_again() -> None:
    """Even when no more than its name was sent."""
    begun = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "f", "arguments": ""}}
    out, resumption = resume(noted(A.delta(role="assistant"), A.delta(tool_calls=[begun])), B.answer())
    assert (out, resumption.diverged) == (b"", True)


def interleaved(choices: list[Deltas], order: list[int]) -> Deltas:
    """Mix the deltas of several choices; each one's own stay in their order."""
    queues = [list(deltas) for deltas in choices]
    mixed: Deltas = []
    turns = itertools.cycle([*order, *range(len(queues))])
    while any(queues):
        queue = queues[next(turns) % len(queues)]
        if queue:
            mixed.append(queue.pop(0))
    return mixed


def field_deltas(choice: int, texts: tuple[str, str], places: list[int]) -> Deltas:
    """Return the deltas of a choice that thinks first."""
    reasoning, content = texts
    return [
        *((choice, {"reasoning_content": piece}) for piece in cut(reasoning, places)),
        *((choice, {"content": piece}) for piece in cut(content, places)),
    ]


@given(
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3),
    *[PLACES] * 2,
    *[st.lists(st.integers(0, 2), max_size=20)] * 2,
    st.integers(0, 10**6),
)
def test_every_choice_and_field_goes_on(
    choices: list[tuple[str, str]],
    first: list[int],
    second: list[int],
    order: list[int],
    other_order: list[int],
    broken_at: int,
) -> None:
    """Several choices that think and answer at once are each joined, field by field."""
    before = interleaved([field_deltas(n, texts, first) for n, texts in enumerate(choices)], order)
    after = interleaved([field_deltas(n, texts, second) for n, texts in enumerate(choices)], other_order)
    passed = [A.delta(choice, **delta) for choice, delta in before[: broken_at % (len(before) + 1)]]
    again = [B.delta(choice, **delta) for choice, delta in after]
    ends = [B.finish(choice=n) for n in range(len(choices))]
    out, resumption = resume(noted(*passed), [*again, *ends, DONE])
    assert not resumption.diverged
    caller = Caller(b"".join(passed) + out)
    expected = {(n, "reasoning_content"): texts[0] for n, texts in enumerate(choices) if texts[0]}
    expected |= {(n, "content"): texts[1] for n, texts in enumerate(choices) if texts[1]}
    assert caller.texts == expected
    assert sorted(caller.finish_reasons) == [(n, "stop") for n in range(len(choices))]


def test_nothing_passes_while_any_choice_is_behind() -> None:
    """One choice that is further than before waits until the other one has said all that was sent of it."""
    transcript = noted(A.delta(0, content="a"), A.delta(1, content="b"))
    resumption = Resumption(transcript)
    assert resumption.feed(B.delta(0, content="a") + B.delta(0, content="a") + B.finish()) == b""
    out = resumption.feed(B.delta(1, content="bb"))
    assert resumption.caught_up
    assert Caller(out).texts == {(0, "content"): "a", (1, "content"): "b"}
    assert Caller(out).finish_reasons == [(0, "stop")]


@pytest.mark.parametrize(
    "later",
    [
        B.delta(1, content="x"),
        B.finish(choice=1),
        B.delta(0, content="b"),
        B.finish("length"),
        B.chunk({"index": 0, "delta": {}, "logprobs": {"content": [{}]}}),
        B.delta(0, content=["a"]),
        B.delta(0, tool_calls=[{"index": 0, "id": "x", "function": {"name": "f"}}]),
        DONE,
        B.chunk(choices={}),
        B.chunk({"index": None, "delta": {}}),
        b"data: " + b"x" * (sse.MAX_EVENT_BYTES + 1),
    ],
)
def test_what_differs_in_any_way_ends_it(later: bytes) -> None:
    """Text, an early or another end, log probabilities, odd values: what was held back is never passed on."""
    transcript = noted(A.delta(0, content="a"), A.finish("stop"), A.delta(1, content="bc"))
    resumption = Resumption(transcript)
    begun = [B.delta(0, content="a"), B.delta(1, content="b"), B.delta(2, content="held")]
    assert b"".join(map(resumption.feed, begun)) == b""
    assert (resumption.diverged, resumption.caught_up) == (False, False)
    assert resumption.feed(later) == b""
    assert (resumption.diverged, resumption.caught_up) == (True, False)
    assert resumption.feed(B.delta(1, content="c")) == b""
    assert resumption.end() == b""


def test_an_answer_without_the_thoughts_that_were_sent_differs_at_once() -> None:
    """A target that answers without thinking first is found out as soon as it goes beyond what was sent."""
    resumption = Resumption(noted(A.delta(reasoning_content="Hm."), A.delta(content="a")))
    told = [(resumption.feed(B.delta(content=text)), resumption.diverged) for text in "ab"]
    assert told == [(b"", False), (b"", True)]


def test_thoughts_that_only_the_new_target_shows_come_late_but_whole() -> None:
    """Thoughts the first target did not show are kept for the caller until the answer has caught up."""
    resumption = Resumption(noted(*A.said("One")))
    assert resumption.feed(B.delta(role="assistant", reasoning="Hm") + B.delta(reasoning="m.", content="On")) == b""
    out = resumption.feed(B.delta(content="e, two"))
    assert Caller(out).texts == {(0, "reasoning"): "Hmm.", (0, "content"): ", two"}
    assert Caller(out).roles == 0


def test_what_is_held_back_has_a_bound() -> None:
    """A stream that never catches up is given up, not kept."""
    resumption = Resumption(noted(*A.said("One")))
    thought = B.delta(reasoning="x" * 100_000)
    fed = 0
    while not resumption.diverged:
        assert resumption.feed(thought) == b""
        fed += len(thought)
        assert fed < 2 * MAX_HELD_BYTES
    assert resumption._held == []


def test_a_stream_that_breaks_off_again_is_no_other_answer() -> None:
    """A second stream that is cut before it has caught up says nothing, and a third one can be tried."""
    transcript = noted(*A.said("One two"))
    out, resumption = resume(transcript, [B.delta(content="One"), b'data: {"choi'])
    assert (out, resumption.diverged, resumption.caught_up) == (b"", False, False)
    out, resumption = resume(transcript, C.answer("One two three"))
    assert resumption.caught_up
    assert Caller(out).text == " three"


@given(TEXTS, st.lists(st.tuples(PLACES, st.integers(0, 10**6)), min_size=2, max_size=5))
def test_a_stream_can_be_rescued_again_and_again(text: str, tries: list[tuple[list[int], int]]) -> None:
    """Each target goes a bit further; what a resumption passed on is part of the same transcript."""
    transcript, passed = Transcript(), b""
    for number, (places, broken_at) in enumerate(tries):
        stream = b"".join(Source("abcde"[number]).said(*cut(text, places)))
        resumption = Resumption(transcript)
        for piece in cut(stream[: broken_at % (len(stream) + 1)], places):
            out = resumption.feed(piece)
            assert not resumption.diverged
            transcript.note(out)
            passed += out
            assert Caller(passed).text == transcript.text
    out, _ = resume(transcript, Source("z").answer(text))
    caller = Caller(passed + out)
    assert caller.text == text
    assert len(caller.names("id")) == 1
    assert caller.roles == 1


@pytest.mark.parametrize("style", STYLES)
def test_what_follows_keeps_its_bytes_but_for_the_names(style: Style) -> None:
    """After the border a chunk is what the target wrote, with the first stream's id and time."""
    source = Source("b", style)
    resumption = Resumption(noted(*A.said("One")))
    resumption.feed(b"".join(source.said("One", " two")))
    assert resumption.caught_up
    chunk = source.chunk(
        {"index": 0, "delta": {"content": '"id":"chatcmpl-b", "created": 5 ö\n'}, "odd": 1.50, "finish_reason": None},
        service_tier="x",
    )
    finish = source.finish(usage=USAGE)
    names = [json.dumps(value).encode() for value in (*B.names.values(), *A.names.values())]
    expected = chunk + finish
    for name in ("id", "created"):
        old, new = (style({name: each.names[name]})[1:-1] for each in (B, A))
        expected = expected.replace(old, new)
    assert resumption.feed(chunk + finish) == expected
    assert names[0] not in expected.replace(b'\\"', b"")
    assert resumption.feed(DONE) == DONE


def test_a_chunk_across_the_border_keeps_its_other_fields() -> None:
    """Only text is taken out; numbers and unknown fields stay as they were written."""
    crossing = (
        b'data: {"id": "chatcmpl-b", "odd": [1.50, 1e3, 123456789012345678901234567890], "created": 1,\n'
        b'data:  "choices": [{"stop_reason": null, "index": 0, "delta": {"content": "One two", "extra": 2.0}}]}\r\n\r\n'
    )
    out, resumption = resume(noted(*A.said("One")), [crossing])
    assert resumption.caught_up
    assert b"[1.50, 1e3, 123456789012345678901234567890]" in out
    assert b'"extra":2.0' in out
    caller = Caller(out)
    assert caller.chunks[0]["choices"][0]["delta"]["content"] == " two"
    assert caller.names("id") == {"chatcmpl-a"}


@pytest.mark.parametrize(
    ("quirk", "expected"),
    [
        ([B.delta(role="assistant", content=None), B.delta(content="One two")], " two"),
        ([B.chunk({"index": 0, "delta": {}}), B.delta(content="One two")], " two"),
        ([B.chunk({"index": 0, "delta": None}), B.delta(content="One two")], " two"),
        ([B.chunk({"delta": {"content": "One"}}), B.chunk({"delta": {"content": " two"}})], " two"),
        ([B.chunk(prompt_filter_results=[{}], id="", created=0), B.delta(content="One two")], " two"),
        ([B.chunk(choices=None), B.delta(content="One two")], " two"),
        ([b": OPENROUTER PROCESSING\n\n", B.delta(content="One two")], " two"),
        ([b"event: ping\ndata:\n\n", B.delta(content="One two")], " two"),
        ([b'data: {"type":"ping"}\n\n', B.delta(content="One two")], " two"),
        ([b'data: {"id":"x\n\n', B.delta(content="One two")], " two"),
        ([B.delta(role="assistant", content="One"), B.delta(role="assistant", content=" two")], " two"),
        ([B.delta(content="One", refusal=None, tool_calls=[], annotations=[]), B.delta(content=" two")], " two"),
        ([B.chunk({"index": 0, "delta": {"content": "One two"}, "finish_reason": ""})], " two"),
        ([B.chunk({"index": 0, "delta": {"content": "One two"}}, error=None)], " two"),
        ([b'data:{"choices":[{"index":0,"delta":{"content":"\\u004fne two"}}]}\n\n'], " two"),
        ([b'data: {"created":1.5,"choices":[{"index":0,"delta":{"content":"One two"}}]}\n\n'], " two"),
        ([B.chunk({"index": 0, "delta": {"content": "One"}}, usage=USAGE), B.delta(content=" two")], " two"),
        ([B.delta(content="One"), B.delta(content="")], ""),
    ],
)
def test_vendors_quirks_make_no_difference(quirk: list[bytes], expected: str) -> None:
    """Nulls, empty and missing fields, preambles, comments and events of no meaning are no part of the comparison."""
    out, resumption = resume(noted(*A.said("On", "e")), [*quirk, B.finish(), B.usage(), DONE])
    assert resumption.caught_up
    caller = Caller(out)
    assert caller.text == expected
    assert caller.names("id") == {"chatcmpl-a"}
    assert caller.names("created") == {A.names["created"]}
    assert caller.roles == 0
    assert caller.done
    assert [chunk["usage"] for chunk in caller.chunks if chunk.get("usage")] == [USAGE]


def test_a_first_stream_without_names_leaves_the_new_ones() -> None:
    """Where the first stream had no id there is none to keep."""
    passed = b'data: {"choices":[{"index":0,"delta":{"content":"One"}}]}\n\n'
    out, _ = resume(noted(passed), B.answer("One", " two", " three"))
    assert Caller(out).text == " two three"
    assert Caller(out).names("id") == {"chatcmpl-b"}


def test_a_stream_that_only_had_a_role_gets_no_second_one() -> None:
    """There is nothing to catch up with, and still the message is begun only once."""
    resumption = Resumption(noted(A.delta(role="assistant", content="")))
    assert resumption.caught_up
    assert resumption.feed(B.delta(role="assistant")) == b""
    out = b"".join(resumption.feed(B.delta(role="assistant", content=word)) for word in ("One", " two"))
    assert (Caller(out).text, Caller(out).roles) == ("One two", 0)


def test_what_follows_keeps_its_fields_even_when_it_has_to_be_read() -> None:
    """Empty fields, chunks without choices and chunks that say nothing are the caller's, once all is caught up."""
    resumption = Resumption(noted(*A.said("One")))
    assert resumption.feed(b"".join(B.said("One"))) == b""
    delta: dict[str, Any] = {"content": "", "refusal": None, "x": []}
    out = resumption.feed(
        B.chunk({"index": 0, "delta": delta, "finish_reason": None}, id="x", odd=1)
        + B.chunk({"index": 0, "delta": {}, "content_filter_results": {"hate": {}}}, id="y", odd=1)
        + B.chunk(id="z", odd=1)
        + b'data: {"type":"ping"}\n\n'
    )
    chunks = Caller(out).chunks
    assert [chunk.get("id") for chunk in chunks] == [*["chatcmpl-a"] * 3, None]
    assert [chunk.get("odd") for chunk in chunks] == [1, 1, 1, None]
    assert chunks[0]["choices"][0]["delta"] == delta
    assert chunks[1]["choices"] == [{"index": 0, "delta": {}, "content_filter_results": {"hate": {}}}]


def test_an_empty_name_is_not_mistaken_for_another_one() -> None:
    """Only the chunk's own names are changed, also where a tool call's looks like the last chunk's."""
    resumption = Resumption(noted(*A.said("One")))
    for word in ("One", " two"):
        resumption.feed(B.chunk({"index": 0, "delta": {"content": word}}, id=""))
    call = {"index": 0, "id": "", "function": {"name": "f", "arguments": ""}}
    caller = Caller(resumption.feed(B.delta(tool_calls=[call])))
    assert caller.names("id") == {"chatcmpl-a"}
    assert caller.calls[0, 0]["id"] == ""


def test_what_was_left_unended_comes_out_at_the_end() -> None:
    """The last event may lack its blank line."""
    stream = b"".join(B.answer("One", " two"))
    out, _ = resume(noted(*A.said("One")), [stream.rstrip(b"\n")])
    assert (Caller(out).text, Caller(out).done) == (" two", True)


def test_a_preamble_is_not_repeated_and_early_counts_are_kept() -> None:
    """A chunk without choices before the border passes only when it counts."""
    preamble = B.chunk(prompt_filter_results=[{}])
    out, _ = resume(noted(*A.said("One")), [preamble, B.usage(), B.delta(content="One two")])
    assert [(chunk["choices"] == [], "usage" in chunk) for chunk in Caller(out).chunks] == [
        (True, True),
        (False, False),
    ]


def test_names_may_change_with_every_chunk() -> None:
    """A provider that names each chunk anew, or writes the fields in changing order, is read all the same."""
    resumption = Resumption(noted(*A.said("One")))
    out = resumption.feed(B.delta(content="One") + B.delta(content=" two"))
    for number in range(4):
        out += resumption.feed(
            B.chunk({"index": 0, "delta": {"content": str(number)}}, id=f"x{number}", created=number)
        )
        out += resumption.feed(b'data: {"choices":[{"delta":{"content":"-"}}],"created" : 1,"id":"chatcmpl-b"}\n\n')
        out += resumption.feed(b'data: {"choices":[{"delta":{"content":"+"}}]}\n\n')
    assert Caller(out).text == " two0-+1-+2-+3-+"
    assert Caller(out).names("id") == {"chatcmpl-a"}
    assert Caller(out).names("created") == {A.names["created"]}


def test_counts_in_the_chunk_that_finishes_are_kept() -> None:
    """When all else of the last chunk was sent before, its counts still pass."""
    transcript = noted(*A.said("One"), A.finish())
    out, resumption = resume(transcript, [B.delta(content="One"), B.finish(usage=USAGE), DONE])
    assert resumption.caught_up
    (chunk,) = Caller(out).chunks
    assert (chunk["choices"], chunk["usage"]) == ([], USAGE)
    assert Caller(out).done


def test_an_error_passes_at_any_time_and_nothing_with_it() -> None:
    """The error event of the new stream is for those who watch the stream, without the text that came along."""
    error = {"message": "Overloaded", "code": 502}
    chunk = B.chunk({"index": 0, "delta": {"content": "secret"}, "finish_reason": "error"}, error=error)
    for sent in ("One", ""):
        resumption = Resumption(noted(*A.said(sent)))
        assert Caller(resumption.feed(chunk)).chunks == [{"error": error}]
    continued = Resumption(noted(*A.said(LONG)), continued=True)
    assert Caller(continued.feed(B.delta(content=LONG[:5]) + chunk)).chunks == [{"error": error}]


def test_the_relays_take_a_resumed_stream_for_one() -> None:
    """Both APIs' relays end whole when the events of the first stream are followed by those of the resumption."""
    passed = A.said("One", " two")
    out, _ = resume(noted(*passed), B.answer("One two", " three"))
    openai_relay = openai_stream.OpenAIRelay(hide_usage=True)
    seen = openai_relay.feed(b"".join(passed)) + openai_relay.feed(out)
    assert openai_relay.finished
    assert openai_relay.usage is not None
    assert Caller(seen).text == "One two three"
    plain_relay = plain.PlainRelay("m", (Message("user", "Count"),))
    seen = plain_relay.feed(b"".join(passed)) + plain_relay.feed(out) + plain_relay.end()
    assert plain_relay.done
    last = json.loads(sse.data_of(sse.EventSplitter().feed(seen)[-1]) or b"")
    assert last["data"]["response"] == "One two three"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "One", "stop", "f", "{"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["index", "name", "x"]), inner),
    max_leaves=4,
)
ODD_CALLS = st.lists(st.dictionaries(st.sampled_from(["index", "id", "type", "function"]), JSON_VALUES), max_size=2)
ODD_DELTAS = st.dictionaries(st.sampled_from(["role", "content", "reasoning", "x"]), JSON_VALUES)
ODD_CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": JSON_VALUES,
        "delta": st.builds(dict, ODD_DELTAS, tool_calls=ODD_CALLS | JSON_VALUES) | ODD_DELTAS | JSON_VALUES,
        "finish_reason": JSON_VALUES,
        "logprobs": JSON_VALUES,
    },
)
ODD_CHUNKS = st.fixed_dictionaries(
    {}, optional={"id": JSON_VALUES, "created": JSON_VALUES, "choices": st.lists(ODD_CHOICES, max_size=2) | JSON_VALUES}
)
ODD_EVENTS = (ODD_CHUNKS | JSON_VALUES).map(lambda chunk: sse.event(compact(chunk))) | st.binary(max_size=30)


@given(before=st.lists(ODD_EVENTS, max_size=4), after=st.lists(ODD_EVENTS, max_size=4), continued=st.booleans())
def test_nothing_that_comes_in_breaks_it(*, before: list[bytes], after: list[bytes], continued: bool) -> None:
    """Any bytes before and after: no exception, and nothing but comments passes before all is caught up."""
    transcript = noted(*before)
    resumption = Resumption(transcript, continued=continued)
    for piece in [*after, *B.answer("One")]:
        out = resumption.feed(piece)
        if not resumption.caught_up:
            assert all(sse.data_of(event) in (None, b"") for event in sse.EventSplitter().feed(out + b"\n\n"))
    resumption.end()


# --- Continuing an assistant's message --------------------------------------------------------------------------------


def request(**fields: Any) -> Document:
    """Open a caller's request."""
    messages = [{"role": "user", "content": "Hi"}]
    return document.parse(spaced({"model": "m", "messages": messages, "stream": True, **fields}))


@given(TEXTS, TEXTS, PLACES, PLACES, PLACES, st.sampled_from(["goes on", "repeats all", "repeats what it got"]))
@example("", " ", [], [], [], "goes on")
@example("\n\n", "A", [], [1], [], "goes on")
def test_a_continued_text_is_joined_whether_it_is_repeated_or_not(
    more: str, rest: str, first: list[int], second: list[int], wire: list[int], kind: str
) -> None:
    """The caller reads what was sent and what comes, once, when a provider goes on and when it repeats."""
    sent = LONG + more
    prefill = sent.rstrip()
    begins = {"goes on": sent[len(prefill) :], "repeats all": sent, "repeats what it got": sent}[kind]
    new = begins + rest
    assume(kind != "goes on" or not new.startswith(LONG[:TELLING_CHARACTERS]))
    transcript = noted(*A.said(*cut(sent, first)))
    stream = b"".join(B.answer(*cut(new, second)))
    out, resumption = resume(transcript, cut(stream, wire), continued=True)
    assert resumption.caught_up
    assert not resumption.diverged
    caller = Caller(b"".join(A.said(sent)) + out)
    assert caller.text == sent + rest
    assert (caller.done, caller.roles, caller.finish_reasons) == (True, 1, [(0, "stop")])
    assert caller.names("id") == {"chatcmpl-a"}


@pytest.mark.parametrize("rest", ["A", "A text", " A text", "A text that is", "", "Nothing"])
@pytest.mark.parametrize("ending", [[B.finish(), DONE], [B.finish()], [DONE]])
def test_a_short_rest_that_begins_like_the_answer_comes_out_at_the_end(rest: str, ending: list[bytes]) -> None:
    """What could still have been a repetition when the stream ended was none."""
    out, resumption = resume(noted(*A.said(LONG)), [*B.said(rest), *ending], continued=True)
    assert resumption.caught_up
    assert Caller(out).text == rest
    assert Caller(out).done == (DONE in ending)


def test_a_short_rest_of_a_stream_that_broke_off_stays_inside() -> None:
    """Until it is clear what a text is it does not pass, and a cut makes nothing clear."""
    out, resumption = resume(noted(*A.said(LONG)), [*B.said("A text"), b"data: {"], continued=True)
    assert (out, resumption.caught_up, resumption.diverged) == (b"", False, False)


@pytest.mark.parametrize("end", [[], [B.finish(), DONE]])
def test_an_answer_made_anew_is_not_appended(end: list[bytes]) -> None:
    """A new text that begins like the answer for a long while and then differs or ends is another answer."""
    anew = LONG[: TELLING_CHARACTERS + 5] + ("" if end else "!")
    out, resumption = resume(noted(*A.said(LONG)), [*B.said(anew), *end], continued=True)
    assert (out, resumption.diverged) == (b"", True)


def test_a_continuation_passes_at_its_first_character_that_differs() -> None:
    """No more is held back than is needed to tell."""
    resumption = Resumption(noted(*A.said(LONG)), continued=True)
    assert resumption.feed(b"".join(B.said("A te"))) == b""
    assert Caller(resumption.feed(B.delta(content="n"))).text == "A ten"
    assert resumption.caught_up


def test_white_space_that_was_left_out_is_expected_back() -> None:
    """Other white space than the caller was sent is another answer, but for an answer that ends there."""
    sent = LONG + "\n\n"
    assert resume(noted(*A.said(sent)), B.answer("\n", " more"), continued=True)[1].diverged
    assert resume(noted(*A.said(sent)), B.answer("more"), continued=True)[1].diverged
    for rest in ("", "\n", "\n\n"):
        out, resumption = resume(noted(*A.said(sent)), B.answer(*rest), continued=True)
        assert resumption.caught_up
        assert Caller(out).text == ""
        assert Caller(out).finish_reasons == [(0, "stop")]


def test_a_continuation_may_think_and_call_tools() -> None:
    """What comes besides text is passed on once it is clear that the text goes on."""
    call = {"index": 0, "id": "call_b", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    resumption = Resumption(noted(*A.said(LONG)), continued=True)
    assert resumption.feed(B.delta(role="assistant", reasoning="Hm.")) == b""
    out = resumption.feed(B.delta(tool_calls=[call]))
    assert resumption.caught_up
    assert Caller(out).texts == {(0, "reasoning"): "Hm."}
    assert Caller(out).calls[0, 0]["id"] == "call_b"


@pytest.mark.parametrize(
    ("continuation", "message", "fields"),
    [
        ("assistant_last", {"role": "assistant", "content": LONG}, {}),
        ("prefix", {"role": "assistant", "content": LONG, "prefix": True}, {}),
        ("partial", {"role": "assistant", "content": LONG, "partial": True}, {}),
        (
            "continue_final_message",
            {"role": "assistant", "content": LONG},
            {"continue_final_message": True, "add_generation_prompt": False},
        ),
    ],
)
def test_each_provider_is_asked_in_its_way(
    continuation: Continuation, message: dict[str, Any], fields: dict[str, Any]
) -> None:
    """The text so far is the last message; what else the caller wrote is there byte by byte."""
    body = (
        b'{ "odd" : [1.50, {"a":1e2}],"messages":[{"role":"user","content":"\\u0048i", "x": 1.0 } ] ,'
        b'"model":"m","tools":[], "response_format": {"type":"text"},"n":1}'
    )
    for sent in (LONG, LONG + " \n"):
        continued = continued_body(document.parse(body), noted(*A.said(sent)), continuation)
        assert continued is not None
        assert continued.startswith(body[: body.index(b' ] ,"model"') - 1])
        assert json.loads(continued) == {
            **json.loads(body),
            "messages": [{"role": "user", "content": "Hi", "x": 1.0}, message],
            **fields,
        }
        tail = b'"model":"m","tools":[], "response_format": {"type":"text"},"n":1'
        assert tail in continued
        document.parse(continued)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He"}]},
        {"messages": []},
        {"messages": None},
        {"messages": ["Hi"]},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"response_format": "text"},
        {"logprobs": True},
        {"audio": {"voice": "x"}},
        {"max_tokens": 3},
        {"max_completion_tokens": 1},
        {"max_tokens": "many"},
    ],
)
def test_a_request_for_more_than_plain_text_is_not_continued(fields: dict[str, Any]) -> None:
    """A continued answer would not be what such a caller asked for."""
    transcript = noted(*A.said(*cut(LONG, [3, 9])))
    assert continued_body(request(), transcript, "prefix") is not None
    assert continued_body(request(**fields), transcript, "prefix") is None


@pytest.mark.parametrize(
    "events",
    [
        [],
        A.said(""),
        A.said("A short text."),
        A.said(" " * 100),
        [*A.said(LONG), A.finish()],
        [*A.said(LONG), A.delta(tool_calls=[{"index": 0, "id": "x", "function": {"name": "f"}}])],
        [A.delta(reasoning_content="Hm."), *A.said(LONG)],
        [*A.said(LONG), A.delta(refusal="No")],
        [*A.said(LONG), A.delta(choice=1, content="x")],
        [*A.said(LONG), A.delta(audio={"id": "x"})],
    ],
)
def test_an_answer_of_more_than_plain_text_is_not_continued(events: list[bytes]) -> None:
    """Thoughts, tool calls, ends and several choices cannot be put into an assistant's message."""
    assert continued_body(request(), noted(*events), "assistant_last") is None


def test_a_long_conversation_can_be_continued() -> None:
    """Only an assistant's message at the very end is in the way."""
    turns = [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")]
    assert continued_body(request(messages=turns), noted(*A.said(LONG)), "prefix") is not None


def test_a_limit_of_tokens_holds_for_both_parts() -> None:
    """What was sent counts against the caller's limit."""
    transcript = noted(*A.said(*cut(LONG, [3, 9])))
    body = continued_body(request(max_tokens=100, max_completion_tokens=4), transcript, "assistant_last")
    assert body is not None
    assert (json.loads(body)["max_tokens"], json.loads(body)["max_completion_tokens"]) == (97, 1)


@given(TEXTS, st.sampled_from(STYLES))
def test_the_text_goes_upstream_as_it_was_sent(more: str, style: Style) -> None:
    """Whatever characters were sent are in the request, but for white space at the end."""
    body = continued_body(request(), noted(*Source("a", style).said(LONG, more)), "assistant_last")
    assert body is not None
    assert json.loads(body)["messages"][-1]["content"] == (LONG + more).rstrip()
