"""An OpenAI chat's body as an Ollama request.

Owns which field becomes which, and what cannot become anything. Pure; called for upstreams that speak Ollama's
protocol, whatever the caller speaks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from chatgate.protocols.losses import Losses
from chatgate.protocols.reading import Json, mapping, objects, required, text
from chatgate.vocabulary.errors import CallerError, Kind

_OPTIONS: Final = (
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "top_k",
    "min_p",
    "repeat_penalty",
)
_SAME: Final = ("logprobs", "top_logprobs", "keep_alive")
_HANDLED: Final = frozenset(
    {*_OPTIONS, *_SAME, "model", "messages", "stream", "stream_options", "stop", "tools", "tool_choice"}
    | {"max_tokens", "max_completion_tokens", "response_format", "reasoning_effort"}
)
_PART_UNLESS: Final[dict[str, Callable[[object], bool]]] = {
    "n": lambda value: value in (None, 1),
    "logit_bias": lambda value: not value,
    "functions": lambda value: not value,
    "function_call": lambda value: value in (None, "none"),
    "modalities": lambda value: value in (None, ["text"]),
    "audio": lambda value: value is None,
    "web_search_options": lambda value: value is None,
}
"""Fields without which something else would be asked, and when they ask for nothing."""

_MESSAGE_FIELDS: Final = frozenset(
    {"role", "content", "tool_call_id", "tool_calls", "refusal", "reasoning_content", "reasoning"}
)
_EFFORTS: Final[dict[str, object]] = {"none": False, "minimal": "low", "xhigh": "high"}
_DATA_URL: Final = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.+-]+)*;base64,")
_UNSAID: Final[tuple[object, ...]] = (None, [], {}, "")


def to_ollama(body: Json) -> tuple[Json, Losses]:
    """Return the request and what it could not carry. Raises `CallerError` where a value has the wrong type."""
    losses = Losses()
    request: Json = {
        "model": body["model"],
        "messages": _messages(body, losses),
        "stream": body.get("stream") is True,
    }
    options: Json = {name: body[name] for name in _OPTIONS if body.get(name) is not None}
    if stops := body.get("stop"):
        options["stop"] = [stops] if isinstance(stops, str) else stops
    if limit := body.get("max_completion_tokens") or body.get("max_tokens"):
        options["num_predict"] = limit
    if options:
        request["options"] = options
    request |= {name: body[name] for name in _SAME if body.get(name) is not None}
    _tools(body, request, losses)
    _format(body, request, losses)
    effort = body.get("reasoning_effort")
    if effort is not None:
        effort = text(effort, "reasoning_effort")
        request["think"] = _EFFORTS.get(effort, effort)
    for name, value in body.items():
        says_nothing = _PART_UNLESS.get(name)
        if says_nothing is not None:
            if not says_nothing(value):
                losses.part(name)
        elif name not in _HANDLED and value not in _UNSAID:
            losses.hint(name)
    return request, losses


def _tools(body: Json, request: Json, losses: Losses) -> None:
    tools: list[Json] = []
    for tool, path in objects(body.get("tools"), "tools"):
        if tool.get("type", "function") != "function":
            losses.part(path)
            continue
        function = mapping(tool.get("function"), f"{path}.function")
        if function.get("strict"):
            losses.hint(f"{path}.function.strict")
        kept = {name: value for name, value in function.items() if name != "strict"}
        kept.setdefault("parameters", {"type": "object", "properties": {}})
        tools.append({"type": "function", "function": kept})
    choice = body.get("tool_choice")
    if choice not in (None, "auto", "none"):
        losses.part("tool_choice")
    if tools and choice != "none":
        request["tools"] = tools


def _format(body: Json, request: Json, losses: Losses) -> None:
    wanted = mapping(body.get("response_format") or {}, "response_format")
    match wanted.get("type"):
        case None | "text":
            return
        case "json_object":
            request["format"] = "json"
        case "json_schema":
            schema = mapping(wanted.get("json_schema"), "response_format.json_schema")
            request["format"] = mapping(schema.get("schema"), "response_format.json_schema.schema")
        case _:
            losses.part("response_format")


def _messages(body: Json, losses: Losses) -> list[Json]:
    turns: list[Json] = []
    names: dict[str, str] = {}
    for message, path in objects(body.get("messages"), "messages"):
        role = required(message, "role", path)
        said, images = _content(message.get("content"), f"{path}.content", losses)
        if message.get("refusal"):
            said += text(message["refusal"], f"{path}.refusal")
        turn: Json = {"role": "system" if role == "developer" else role, "content": said}
        if images:
            turn["images"] = images
        thought = message.get("reasoning_content") or message.get("reasoning")
        if isinstance(thought, str) and thought:
            turn["thinking"] = thought
        calls = _calls(message, path, names, losses)
        if calls:
            turn["tool_calls"] = calls
        if role == "tool":
            identity = required(message, "tool_call_id", path)
            turn["tool_call_id"] = identity
            if identity in names:
                turn["tool_name"] = names[identity]
        elif role not in {"system", "developer", "user", "assistant"}:
            losses.part(path)
        _note_rest(message, path, losses)
        turns.append(turn)
    if not turns:
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param="messages", parameters={"field": "messages"})
    return turns


def _note_rest(message: Json, path: str, losses: Losses) -> None:
    for name, value in message.items():
        if name not in _MESSAGE_FIELDS and value not in _UNSAID:
            note = losses.part if name in {"audio", "function_call"} else losses.hint
            note(f"{path}.{name}")


def _calls(message: Json, path: str, names: dict[str, str], losses: Losses) -> list[Json]:
    calls: list[Json] = []
    for call, where in objects(message.get("tool_calls"), f"{path}.tool_calls"):
        if call.get("type", "function") != "function":
            losses.part(where)
            continue
        function = mapping(call.get("function"), f"{where}.function")
        name, identity = required(function, "name", f"{where}.function"), required(call, "id", where)
        arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
        names[identity] = name
        calls.append({"id": identity, "function": {"name": name, "arguments": arguments}})
    return calls


def _arguments(value: object, path: str) -> Json:
    """Return the arguments of a call. Raises `CallerError` when they are no object."""
    written = text(value or "{}", path)
    try:
        found = msgspec.json.decode(written)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        found = None
    return mapping(found, path)


def _content(content: object, path: str, losses: Losses) -> tuple[str, list[str]]:
    """Return the text of a content, and its pictures in base64."""
    if content is None:
        return "", []
    if isinstance(content, str):
        return content, []
    texts: list[str] = []
    images: list[str] = []
    for part, where in objects(content, path):
        match part.get("type"):
            case "text" | "refusal":
                texts.append(required(part, str(part["type"]), where))
            case "image_url":
                image = mapping(part.get("image_url"), f"{where}.image_url")
                url = required(image, "url", f"{where}.image_url")
                found = _DATA_URL.match(url)
                if found is None:
                    losses.part(f"{where}.image_url.url")  # Ollama looks nothing up.
                else:
                    images.append(url[found.end() :])
                if image.get("detail") not in (None, "auto"):
                    losses.hint(f"{where}.image_url.detail")
            case _:
                losses.part(where)
    return "".join(texts), images
