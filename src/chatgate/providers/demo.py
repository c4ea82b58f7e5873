"""The demo models: a provider inside the process, for trying the gateway, setting up clients, and tests.

It takes the same requests as any upstream and answers in the same protocol, so that everything before and behind it is
the ordinary pipeline. The same request always gets the same bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from chatgate.protocols import sse
from chatgate.vocabulary.errors import UpstreamError
from chatgate.vocabulary.exchange import Verdict
from chatgate.vocabulary.upstreams import Origin, Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from chatgate.vocabulary.exchange import Answer, OutboundRequest, PassOn

    Sleep = Callable[[float], Awaitable[object]]

PREFIX = "demo/"
MODELS = ("demo/echo", "demo/story", "demo/tools", "demo/slow", "demo/429", "demo/500", "demo/cut")
"""What exists under the prefix."""

UPSTREAM = Upstream(name="demo", provider="demo", origin=Origin("http", "demo.invalid", 80), base_path="/v1")

CREATED = 1700000000
"""The time that every demo answer bears, so that answers repeat."""

CUT_AFTER_WORDS = 5
SLOW_START_SECONDS = 2.0
SLOW_WORD_SECONDS = 0.4
STORY_WORD_SECONDS = 0.03

STORY = """\
At the edge of a small town stood a gate, and beside it sat a keeper who knew every road behind it. Travellers came \
with questions in all the languages of the world. Some wanted the shortest way, some the cheapest, and some did not \
know where they wanted to go, only that they had to start somewhere. The keeper listened to each of them, looked up \
at the hills, and chose a road. When a bridge was down, she sent the traveller over another one before he had noticed \
anything. When a road was crowded, she asked people to wait, and told them exactly how long. She counted who had \
passed, and her numbers were always right, for she wrote a line in her book before she opened the gate and another \
one when the traveller had come home. Once a stranger asked her why she did not simply leave the gate open. She \
pointed at the book, at the bridges, and at the people waiting patiently in the shade. "Because somebody has to keep \
the promises," she said, and turned to the next one. In the evening, when the last traveller was gone, she read her \
book from the first line to the last, found that every line had its partner, and went to sleep."""


class _Property(msgspec.Struct):
    type: str | list[str] | None = None
    enum: list[Any] | None = None


class _Schema(msgspec.Struct):
    properties: dict[str, _Property] = {}
    required: list[str] = []


class _Function(msgspec.Struct):
    name: str
    parameters: _Schema | None = None


class _Tool(msgspec.Struct):
    function: _Function


class _Asked(msgspec.Struct):
    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[_Tool] | None = None


class DemoAnswer:
    """An answer whose body is made as it is read."""

    __slots__ = ("_chunks", "headers", "status")

    whole: ClassVar[None] = None

    def __init__(self, status: int, headers: Mapping[bytes, bytes], chunks: AsyncIterator[bytes]) -> None:
        """Take the body's pieces."""
        self.status = status
        self.headers = headers
        self._chunks = chunks

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body; more than `limit_bytes` of it is an error."""
        body = b"".join([chunk async for chunk in self._chunks])
        if len(body) > limit_bytes:
            raise UpstreamError("upstream_too_large")
        return body

    async def next_chunk(self) -> bytes:
        """Return the next piece; b"" at the end."""
        return await anext(self._chunks, b"")

    async def forward(
        self,
        take: Callable[[bytes], Verdict],
        pass_on: PassOn | None = None,  # noqa: ARG002 - an answer's method
    ) -> bool:
        """Hand every piece to `take`; False once it wants no more for now."""
        async for chunk in self._chunks:
            if take(chunk) is Verdict.STOP:
                return False
        return True

    def release(self) -> None:
        """Hold nothing, so give nothing back."""

    def close(self) -> None:
        """Hold nothing, so end nothing."""


class Demo:
    """Answers for the demo models."""

    def __init__(self, sleep: Sleep = asyncio.sleep) -> None:
        """`sleep` makes the pauses of the slow models; it takes seconds."""
        self._sleep = sleep

    async def send(self, request: OutboundRequest, may_repeat: object = None) -> Answer:  # noqa: ARG002 - never has to
        """Answer a chat request, as a provider would: what it cannot read it refuses."""
        try:
            asked = msgspec.json.decode(request.body, type=_Asked)
        except msgspec.ValidationError as error:
            body = _error(str(error), "invalid_request_error")
            return DemoAnswer(400, {b"content-type": b"application/json"}, _one(body))
        match asked.model.removeprefix(PREFIX):
            case "429":
                headers = {b"content-type": b"application/json", b"retry-after": b"1"}
                body = _error("This model always answers that its limit is reached.", "rate_limit_exceeded")
                return DemoAnswer(429, headers, _one(body))
            case "500":
                body = _error("This model always fails.", "server_error")
                return DemoAnswer(500, {b"content-type": b"application/json"}, _one(body))
            case "slow":
                await self._sleep(SLOW_START_SECONDS)
        identity = "chatcmpl-demo-" + hashlib.sha256(request.body).hexdigest()[:16]
        if asked.stream:
            return DemoAnswer(200, {b"content-type": b"text/event-stream"}, _stream(asked, identity, self._sleep))
        return DemoAnswer(200, {b"content-type": b"application/json"}, _whole(asked, identity, self._sleep))


def _error(message: str, code: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": code, "param": None, "code": code}})


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _words(asked: _Asked) -> list[str]:
    """Return the answer's words, each with the space before it."""
    match asked.model.removeprefix(PREFIX):
        case "story" | "cut":
            text = STORY
        case "slow":
            text = "This answer came slowly, word by word, and on purpose."
        case "tools" if _tool_has_answered(asked):
            text = "The tool answered: " + text_of(asked.messages[-1].get("content"))
        case "tools":
            text = "Offer me a tool, and I shall call the first one."
        case _:
            text = _last_user_text(asked.messages)
    pieces = text.split(" ")
    return [piece if index == 0 else " " + piece for index, piece in enumerate(pieces)]


def _tool_has_answered(asked: _Asked) -> bool:
    return asked.messages[-1].get("role") == "tool"


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    for message in reversed(messages):
        if message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def text_of(content: object) -> str:
    """Return the text of a message's content: a string, or its parts of type text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))


def _limited(asked: _Asked) -> tuple[list[str], str]:
    """Return the words that fit the asked number of tokens, a word being a token, and why the answer ends."""
    words = _words(asked)
    limit = asked.max_completion_tokens or asked.max_tokens
    if limit is not None and len(words) > limit:
        return words[:limit], "length"
    return words, "stop"


def _usage(asked: _Asked, output_tokens: int) -> dict[str, int]:
    input_tokens = sum(len(text_of(message.get("content")).split()) for message in asked.messages)
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


def _tool_call(asked: _Asked) -> dict[str, Any] | None:
    """Return the call of the first offered function, with a value for each required parameter.

    None once a tool has answered, so that a client which goes on until there is text comes to an end.
    """
    if asked.model != PREFIX + "tools" or not asked.tools or _tool_has_answered(asked):
        return None
    function = asked.tools[0].function
    schema = function.parameters or _Schema()
    arguments = {name: _sample(schema.properties.get(name, _Property())) for name in schema.required}
    return {
        "id": "call_demo_1",
        "type": "function",
        "function": {"name": function.name, "arguments": msgspec.json.encode(arguments).decode()},
    }


def _sample(wanted: _Property) -> object:
    if wanted.enum:
        return wanted.enum[0]
    samples: dict[str, object] = {
        "string": "demo",
        "integer": 1,
        "number": 1.5,
        "boolean": True,
        "array": [],
        "object": {},
    }
    types = [wanted.type] if isinstance(wanted.type, str) else wanted.type or []
    return next((samples[name] for name in types if name in samples), None)


async def _whole(asked: _Asked, identity: str, sleep: Sleep) -> AsyncIterator[bytes]:
    words, reason = _limited(asked)
    call = _tool_call(asked)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(words), "refusal": None}
    if call is not None:
        words, reason = [], "tool_calls"
        message |= {"content": None, "tool_calls": [call]}
    if asked.model == PREFIX + "slow":
        await sleep(SLOW_WORD_SECONDS * len(words))
    body = msgspec.json.encode(
        {
            "id": identity,
            "object": "chat.completion",
            "created": CREATED,
            "model": asked.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
            "usage": _usage(asked, len(words) or 1),
        }
    )
    if asked.model == PREFIX + "cut":
        yield body[: len(body) // 2]
        raise UpstreamError("upstream_cut")
    yield body


async def _stream(asked: _Asked, identity: str, sleep: Sleep) -> AsyncIterator[bytes]:
    frame = {"id": identity, "object": "chat.completion.chunk", "created": CREATED, "model": asked.model}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
        return sse.event(msgspec.json.encode({**frame, "choices": choices}))

    words, reason = _limited(asked)
    call = _tool_call(asked)
    pauses = {"story": STORY_WORD_SECONDS, "slow": SLOW_WORD_SECONDS, "cut": STORY_WORD_SECONDS}
    pause = pauses.get(asked.model.removeprefix(PREFIX), 0.0)
    yield chunk({"role": "assistant", "content": ""})
    if call is not None:
        words, reason = [], "tool_calls"
        arguments = call["function"].pop("arguments")
        yield chunk({"tool_calls": [{"index": 0, **call, "function": {**call["function"], "arguments": ""}}]})
        yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]})
    is_cut = asked.model == PREFIX + "cut"
    for word in words[: CUT_AFTER_WORDS if is_cut else None]:
        yield chunk({"content": word})
        if pause:
            await sleep(pause)
    if is_cut:
        raise UpstreamError("upstream_cut")
    yield chunk({}, reason)
    if (asked.stream_options or {}).get("include_usage"):
        usage = _usage(asked, len(words) or 1)
        yield sse.event(msgspec.json.encode({**frame, "choices": [], "usage": usage}))
    yield b"data: [DONE]\n\n"
