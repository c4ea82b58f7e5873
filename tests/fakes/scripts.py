"""What a fake provider can do with a call: good answers, odd ones, broken ones, and silence.

A script gets an `Exchange` (the hands of `fakes.upstream`) and writes bytes; the functions here make scripts and the
bodies that they send. They must not keep anything between calls. Clients' and journeys' tests queue them at a
`FakeUpstream`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from fakes.upstream import Exchange, Tap

Script: TypeAlias = "Callable[[Exchange], Awaitable[None]]"
Headers: TypeAlias = Iterable[tuple[str, str]]

MODELS = ("gpt-fake-large", "gpt-fake-small")
"""What `GET /v1/models` lists."""

DONE = b"data: [DONE]\n\n"


def completion(text: str, model: str = "gpt-fake-small", **more: Any) -> dict[str, Any]:
    """Return a whole chat completion; the usage counts words, and what is given here wins over the usual fields."""
    usage = {"prompt_tokens": 7, "completion_tokens": len(text.split()), "total_tokens": 7 + len(text.split())}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [choice],
        "usage": usage,
        **more,
    }


def chunk(delta: Mapping[str, Any] | None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one chunk of a streamed completion; no delta means no choices, as in the usage chunk."""
    choices = [] if delta is None else [{"index": 0, "delta": dict(delta), "finish_reason": finish}]
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-fake-small",
        "choices": choices,
        **more,
    }


def event(value: Any) -> bytes:
    """Return a server-sent event that carries a JSON value, in UTF-8 as providers send it."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def text_events(text: str, *, usage: bool = False) -> list[bytes]:
    """Return the events of a streamed text, word by word, without the final `[DONE]`."""
    words = [word if number == 0 else " " + word for number, word in enumerate(text.split(" "))]
    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": word}) for word in words)]
    chunks.append(chunk({}, finish="stop"))
    if usage:
        counted = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
        chunks.append(chunk(None, usage=counted))
    return [event(each) for each in chunks]


def told(text: str, *, by: str = "", characters: int = 0, usage: bool = False) -> list[bytes]:
    """Return the events of a text as one of several providers streams it, `by` whom its names tell.

    They come word by word, or in pieces of so many characters.
    """
    if characters:
        pieces = [text[at : at + characters] for at in range(0, len(text), characters)]
    else:
        pieces = [word if number == 0 else " " + word for number, word in enumerate(text.split(" "))]
    named: dict[str, Any] = {"id": f"chatcmpl-{by}", "created": 1_700_000_000 + sum(by.encode()), "model": f"gpt-{by}"}
    chunks = [chunk({"role": "assistant", "content": ""}, **named)]
    chunks += [chunk({"content": piece}, **named) for piece in pieces]
    chunks.append(chunk({}, finish="stop", **named))
    if usage:
        counted = {"prompt_tokens": 7, "completion_tokens": len(pieces), "total_tokens": 7 + len(pieces)}
        chunks.append(chunk(None, usage=counted, **named))
    return [event(each) for each in chunks]


def telling(text: str, *, by: str = "", characters: int = 0) -> Script:
    """Answer with this text, whole or streamed as `told` says, with usage if asked."""

    async def script(exchange: Exchange) -> None:
        asked = exchange.call.json()
        if asked.get("stream"):
            usage = bool((asked.get("stream_options") or {}).get("include_usage"))
            await stream(told(text, by=by, characters=characters, usage=usage))(exchange)
        else:
            await whole(completion(text, f"gpt-{by}", id=f"chatcmpl-{by}"))(exchange)

    return script


def either(whole_one: Script, streamed_one: Script) -> Script:
    """Play one script for calls that want a whole answer, the other for those that want a stream."""

    async def script(exchange: Exchange) -> None:
        await (streamed_one if exchange.call.json().get("stream") else whole_one)(exchange)

    return script


def beginning(pieces: Sequence[bytes], tap: Tap, then: Script) -> Script:
    """Stream the pieces, wait for the tap, and go on with another script."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD + b"".join(map(framed, pieces)))
        await tap.passed()
        await then(exchange)

    return script


def error_body(message: str, code: str | None = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    """Return an error as OpenAI words it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def head(status: int, headers: Headers) -> bytes:
    """Return the head of an answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode("latin-1")


def framed(data: bytes) -> bytes:
    """Return the data as one chunk of a chunked body; no data is the body's end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = head(200, [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")])


def whole(body: bytes | Mapping[str, Any], status: int = 200, headers: Headers = ()) -> Script:
    """Answer with a body of known length; a mapping is sent as JSON, and headers given here win over the usual ones."""
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    usual = {"Content-Type": "application/json", "Content-Length": str(len(data))}
    given = {name.title() for name, _ in headers}
    lines = [(name, value) for name, value in usual.items() if name not in given]
    return raw(head(status, [*lines, *headers]) + data)


def raw(data: bytes, then: str = "keep") -> Script:
    """Write bytes as they are, then `keep` the connection, `close` it, `reset` it or `hang`."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(data)
        await _then(exchange, then)

    return script


def silent() -> Script:
    """Take the request and never answer."""
    return raw(b"", then="hang")


def stream(
    pieces: Sequence[bytes], *, tap: Tap | None = None, end: bytes = DONE, then: str = "keep", close: bool = True
) -> Script:
    """Stream the pieces, one chunk each, then `end`, then the body's end unless `close` is False, then as `raw`.

    With a tap every piece, and `end`, waits for it.
    """

    async def script(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        for piece in [*pieces, end] if end else pieces:
            if tap is not None:
                await tap.passed()
            await exchange.send(framed(piece))
        if close:
            await exchange.send(framed(b""))
        await _then(exchange, then)

    return script


async def provider(exchange: Exchange) -> None:
    """Answer as a well-behaved provider does: the last user text comes back, whole or streamed, with usage if asked."""
    call = exchange.call
    path = call.target.partition("?")[0]
    if call.method == "GET" and path.startswith("/v1/models"):
        await _models(exchange, path.removeprefix("/v1/models").lstrip("/"))
        return
    if path != "/v1/chat/completions":
        await whole(error_body(f"no such path: {path}", "not_found"), 404)(exchange)
        return
    asked = call.json()
    text = _last_user_text(asked)
    if asked.get("stream"):
        usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        await stream(text_events(text, usage=usage))(exchange)
    else:
        await whole(completion(text, asked["model"]))(exchange)


async def refuse_key(exchange: Exchange) -> None:
    """Refuse the key in OpenAI's manner, which repeats it in the message."""
    shown = (exchange.call.header("authorization") or "").removeprefix("Bearer ")
    refusal = error_body(
        f"Incorrect API key provided: {shown}. You can find your API key in the console.", "invalid_api_key"
    )
    await whole(refusal, 401)(exchange)


async def _models(exchange: Exchange, asked: str) -> None:
    models = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "fake"} for name in MODELS]
    if not asked:
        await whole({"object": "list", "data": models})(exchange)
    elif asked in MODELS:
        await whole(models[MODELS.index(asked)])(exchange)
    else:
        await whole(error_body(f"The model '{asked}' does not exist", "model_not_found"), 404)(exchange)


def _last_user_text(asked: Mapping[str, Any]) -> str:
    content = [message["content"] for message in asked["messages"] if message["role"] == "user"][-1]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


async def _then(exchange: Exchange, what: str) -> None:
    match what:
        case "keep":
            return
        case "close":
            exchange.cut()
        case "reset":
            exchange.cut(reset=True)
        case "hang":
            await exchange.hang()
        case _:
            raise ValueError(what)
