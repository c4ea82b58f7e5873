"""An Ollama request as an OpenAI chat's body.

Owns which field becomes which, and what cannot become anything. Pure; called for upstreams that speak OpenAI's
protocol, and by every translation that starts from there. Ollama's clients send many options as a habit, so what a
target has nothing like is left out and told; only what would change the question is refused.
"""

from __future__ import annotations

from typing import Final

import msgspec

from chatgate.protocols.losses import Losses
from chatgate.protocols.reading import Json, mapping, objects, required, text, wrong_type
from chatgate.vocabulary.errors import CallerError, Kind

_OPTIONS: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_EXTENSIONS: Final = ("top_k", "min_p")
"""Options that OpenAI-compatible servers have added to the protocol."""

_HANDLED: Final = frozenset(
    {"model", "messages", "stream", "options", "format", "tools", "think", "logprobs", "top_logprobs"}
    | {"prompt", "system", "images"}
)
_PARTS: Final = frozenset({"suffix", "template", "context", "raw", "width", "height", "steps"})
"""Fields of a completion without which something else would be asked."""

_MESSAGE_FIELDS: Final = frozenset(
    {"role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id", "name"}
)
_UNSAID: Final[tuple[object, ...]] = (None, [], {}, "", False)
_PICTURES: Final = {"iVBOR": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp"}
"""How pictures of a kind begin in base64."""


def to_chat(request: Json, *, extended: bool) -> tuple[Json, Losses]:
    """Return the body and what it could not carry; the request is for a chat, or has a `prompt`.

    `extended` says that the upstream takes what OpenAI-compatible servers have added to the protocol. Raises
    `CallerError` where a value has the wrong type.
    """
    losses = Losses()
    messages = _messages(request, losses, extended=extended) if "messages" in request else _prompt(request)
    body: Json = {"model": request["model"], "messages": messages, "stream": request.get("stream") is not False}
    _options(request, body, losses, extended=extended)
    _format(request, body, losses)
    tools = [tool for tool, _ in objects(request.get("tools"), "tools")]
    if tools:
        body["tools"] = [{"type": "function", **tool} for tool in tools]
    think = request.get("think")
    if isinstance(think, str) and think:
        body["reasoning_effort"] = think
    elif think is False:
        losses.hint("think")
    for name in ("logprobs", "top_logprobs"):
        if request.get(name) not in _UNSAID:
            body[name] = request[name]
    for name, value in request.items():
        if name in _PARTS and value not in _UNSAID:
            losses.part(name)
        elif name not in _HANDLED and value not in _UNSAID:
            losses.hint(name)
    return body, losses


def picture_url(data: object, path: str) -> str:
    """Return the URL that holds a picture. Raises `CallerError`."""
    shown = text(data, path)
    kind = next((kind for start, kind in _PICTURES.items() if shown.startswith(start)), "png")
    return shown if shown.startswith("data:") else f"data:image/{kind};base64,{shown}"


def _prompt(request: Json) -> list[Json]:
    """Return the dialogue that a completion asks for."""
    messages: list[Json] = []
    if request.get("system"):
        messages.append({"role": "system", "content": text(request["system"], "system")})
    said = text(request.get("prompt") or "", "prompt")
    messages.append({"role": "user", "content": _content(said, request.get("images"), "images")})
    return messages


def _content(said: str, images: object, path: str) -> str | list[Json]:
    if not images:
        return said
    if not isinstance(images, list):
        raise wrong_type(path, "array")
    urls = [picture_url(each, f"{path}[{index}]") for index, each in enumerate(images)]
    parts: list[Json] = [{"type": "text", "text": said}] if said else []
    return parts + [{"type": "image_url", "image_url": {"url": url}} for url in urls]


def _messages(request: Json, losses: Losses, *, extended: bool) -> list[Json]:
    messages: list[Json] = []
    waiting: list[tuple[str, str]] = []  # Calls without a result yet, as id and name.
    for message, path in objects(request["messages"], "messages"):
        role = required(message, "role", path)
        said = text(message.get("content") or "", f"{path}.content")
        told: Json = {"role": role, "content": _content(said, message.get("images"), f"{path}.images")}
        if message.get("thinking"):
            if extended:
                told["reasoning_content"] = text(message["thinking"], f"{path}.thinking")
            else:
                losses.hint(f"{path}.thinking")
        calls = _calls(message, path, len(messages))
        if calls:
            told["tool_calls"] = calls
            told["content"] = told["content"] or None
            waiting += [(call["id"], call["function"]["name"]) for call in calls]
        if role == "tool":
            told["tool_call_id"] = _answered(message, path, waiting)
        for name, value in message.items():
            if name not in _MESSAGE_FIELDS and value not in _UNSAID:
                losses.hint(f"{path}.{name}")
        messages.append(told)
    if not messages:
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param="messages", parameters={"field": "messages"})
    return messages


def _calls(message: Json, path: str, turn: int) -> list[Json]:
    """Return the calls of tools; those without an id get one, the same for the same place."""
    calls: list[Json] = []
    for call, where in objects(message.get("tool_calls"), f"{path}.tool_calls"):
        function = mapping(call.get("function"), f"{where}.function")
        name = required(function, "name", f"{where}.function")
        arguments = mapping(function.get("arguments") or {}, f"{where}.function.arguments")
        identity = text(call.get("id") or f"call_{turn}_{len(calls)}", f"{where}.id")
        written = msgspec.json.encode(arguments).decode()
        calls.append({"id": identity, "type": "function", "function": {"name": name, "arguments": written}})
    return calls


def _answered(message: Json, path: str, waiting: list[tuple[str, str]]) -> str:
    """Return the id of the call that a message answers: the one it names, else the first by that tool, else the next.

    Raises `CallerError` when there is none.
    """
    asked = message.get("tool_call_id")
    name = message.get("tool_name") or message.get("name")
    found = next((call for call in waiting if call[0] == asked), None)
    if found is None and asked:
        return text(asked, f"{path}.tool_call_id")
    found = found or next((call for call in waiting if call[1] == name), waiting[0] if waiting else None)
    if found is None:
        raise CallerError(Kind.INVALID_VALUE, "invalid_field", param=path, parameters={"field": path})
    waiting.remove(found)
    return found[0]


def _options(request: Json, body: Json, losses: Losses, *, extended: bool) -> None:
    options = mapping(request.get("options") or {}, "options")
    for name, value in options.items():
        if value is None:
            continue
        if name in _OPTIONS:
            body[_OPTIONS[name]] = value
        elif name == "num_predict":
            if isinstance(value, int) and value > 0:
                body["max_tokens"] = value
        elif name in _EXTENSIONS and extended:
            body[name] = value
        else:
            losses.hint(f"options.{name}")


def _format(request: Json, body: Json, losses: Losses) -> None:
    wanted = request.get("format")
    if wanted == "json":
        body["response_format"] = {"type": "json_object"}
    elif isinstance(wanted, dict) and wanted:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}
    elif wanted not in _UNSAID:
        losses.part("format")
