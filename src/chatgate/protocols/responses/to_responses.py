"""An OpenAI chat's body as a Responses request.

Owns which field becomes which, and what cannot become anything. Pure; called for upstreams that speak Responses and
nothing else, whatever the caller speaks.
Sources (read 2026-11-23): https://developers.openai.com/api/reference/resources/responses/methods/create,
https://developers.openai.com/api/docs/guides/migrate-to-responses,
https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chatgate.protocols.losses import Losses
from chatgate.protocols.reading import Json, mapping, objects, required, text, wrong_type
from chatgate.protocols.responses.request import LOGPROBS
from chatgate.vocabulary.errors import CallerError, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

_SAME = (
    "model",
    "stream",
    "temperature",
    "top_p",
    "service_tier",
    "parallel_tool_calls",
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "moderation",
    "user",
)
_HANDLED = frozenset(
    {*_SAME, "messages", "max_tokens", "max_completion_tokens", "tools", "tool_choice", "response_format", "verbosity"}
    | {"reasoning_effort", "logprobs", "top_logprobs", "store", "stream_options"}
)
_PART_UNLESS: dict[str, Callable[[object], bool]] = {
    "n": lambda value: value in (None, 1),
    "stop": lambda value: not value,
    "presence_penalty": lambda value: not value,
    "frequency_penalty": lambda value: not value,
    "logit_bias": lambda value: not value,
    "functions": lambda value: not value,
    "function_call": lambda value: value in (None, "none"),
    "modalities": lambda value: value in (None, ["text"]),
    "audio": lambda value: value is None,
    "web_search_options": lambda value: value is None,
}
"""Fields without which something else would be asked, and when they ask for nothing."""

_KNOWN = frozenset({"role", "content", "tool_call_id", "tool_calls", "refusal", "name"})
_MODES = frozenset({"auto", "none", "required"})
_UNSAID: tuple[object, ...] = (None, [], {}, "", False)


def to_responses(body: Json) -> tuple[Json, Losses]:
    """Return the request and what it could not carry. Raises `CallerError` where a value has the wrong type."""
    losses = Losses()
    request: Json = {name: body[name] for name in _SAME if body.get(name) is not None}
    request["input"] = _items(body, losses)
    # What is kept there unasked would be there for whoever has the operator's key.
    request["store"] = body.get("store") is True
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None:
        request["max_output_tokens"] = limit
    _tools(body, request, losses)
    _form(body, request, losses)
    if body.get("reasoning_effort") is not None:
        request["reasoning"] = {"effort": body["reasoning_effort"]}
    if body.get("logprobs"):
        request["include"] = [LOGPROBS]
        if body.get("top_logprobs"):
            request["top_logprobs"] = body["top_logprobs"]
    for name, value in body.items():
        says_nothing = _PART_UNLESS.get(name)
        if says_nothing is not None:
            if not says_nothing(value):
                losses.part(name)
        elif name not in _HANDLED and value not in _UNSAID:
            losses.hint(name)
    return request, losses


def _form(body: Json, request: Json, losses: Losses) -> None:
    """Carry the form of the answer."""
    told: Json = {}
    if body.get("verbosity") is not None:
        told["verbosity"] = body["verbosity"]
    wanted = mapping(body.get("response_format") or {}, "response_format")
    match wanted.get("type"):
        case "json_schema":
            schema = mapping(wanted.get("json_schema"), "response_format.json_schema")
            names = ("name", "description", "schema", "strict")
            told["format"] = {"type": "json_schema"}
            told["format"] |= {name: schema[name] for name in names if schema.get(name) is not None}
        case "json_object":
            told["format"] = {"type": "json_object"}
        case None | "text":
            pass
        case _:
            losses.part("response_format")
    if told:
        request["text"] = told


# --- Tools ------------------------------------------------------------------------------------------------------------


def _tools(body: Json, request: Json, losses: Losses) -> None:
    tools: list[Json] = []
    for tool, path in objects(body.get("tools"), "tools"):
        if tool.get("type") != "function":
            losses.part(path)
            continue
        where = f"{path}.function"
        function = mapping(tool.get("function"), where)
        told: Json = {"type": "function", "name": required(function, "name", where)}
        if function.get("description") is not None:
            told["description"] = function["description"]
        told["parameters"] = function.get("parameters") or {"type": "object", "properties": {}}
        # A chat's tools are not strict unless they say so, those of Responses are.
        told["strict"] = function.get("strict") is True
        tools.append(told)
    if tools:
        request["tools"] = tools
    choice = body.get("tool_choice")
    if choice is not None:
        _choose(choice, request, losses)


def _choose(choice: Any, request: Json, losses: Losses) -> None:  # noqa: ANN401 - any JSON
    if isinstance(choice, str) and choice in _MODES:
        request["tool_choice"] = choice
        return
    chosen = mapping(choice, "tool_choice")
    match chosen.get("type"):
        case "function":
            request["tool_choice"] = _chosen(chosen, "tool_choice")
        case "allowed_tools":
            allowed = mapping(chosen.get("allowed_tools"), "tool_choice.allowed_tools")
            tools = objects(allowed.get("tools"), "tool_choice.allowed_tools.tools")
            told = {"type": "allowed_tools", "mode": allowed.get("mode", "auto")}
            request["tool_choice"] = {**told, "tools": [_chosen(tool, path) for tool, path in tools]}
        case _:
            losses.part("tool_choice")


def _chosen(tool: Json, path: str) -> Json:
    where = f"{path}.function"
    return {"type": "function", "name": required(mapping(tool.get("function"), where), "name", where)}


# --- Messages ---------------------------------------------------------------------------------------------------------


def _items(body: Json, losses: Losses) -> list[Json]:
    items: list[Json] = []
    for message, path in objects(body.get("messages"), "messages"):
        where, content = f"{path}.content", message.get("content")
        match message.get("role"):
            case "system" | "developer" | "user" as role:
                items.append({"type": "message", "role": role, "content": _content(content, where, losses)})
            case "assistant":
                items += _assistant(message, path, losses, len(items))
            case "tool":
                told = {"type": "function_call_output", "call_id": required(message, "tool_call_id", path)}
                items.append({**told, "output": _content(content, where, losses)})
            case _:
                losses.part(path)
        for name, value in message.items():
            if name not in _KNOWN and value not in _UNSAID:
                note = losses.part if name in {"audio", "function_call"} else losses.hint
                note(f"{path}.{name}")
            elif name == "name" and value:
                losses.hint(f"{path}.name")
    if not items:
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param="messages", parameters={"field": "messages"})
    return items


def _assistant(message: Json, path: str, losses: Losses, position: int) -> list[Json]:
    parts = _said(message.get("content"), f"{path}.content", losses)
    if message.get("refusal"):
        parts.append({"type": "refusal", "refusal": text(message["refusal"], f"{path}.refusal")})
    items: list[Json] = []
    if len(parts) == 1 and parts[0]["type"] == "output_text":
        items.append({"type": "message", "role": "assistant", "content": parts[0]["text"]})
    elif parts:
        # What is more than a text is only taken as what an answer had, which has an id and is over.
        answered = {"type": "message", "id": f"msg_{position}", "status": "completed", "role": "assistant"}
        items.append({**answered, "content": parts})
    for call, where in objects(message.get("tool_calls"), f"{path}.tool_calls"):
        if call.get("type", "function") != "function":
            losses.part(where)
            continue
        function = mapping(call.get("function"), f"{where}.function")
        told = {"type": "function_call", "call_id": required(call, "id", where)}
        told["name"] = required(function, "name", f"{where}.function")
        arguments = function.get("arguments")
        told["arguments"] = "{}" if arguments in (None, "") else text(arguments, f"{where}.function.arguments")
        items.append(told)
    return items


def _said(content: Any, path: str, losses: Losses) -> list[Json]:  # noqa: ANN401 - any JSON
    """Return the parts of what an assistant has said."""
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [_text(content)]
    parts: list[Json] = []
    for part, where in objects(content, path):
        match part.get("type"):
            case "text":
                parts.append(_text(required(part, "text", where)))
            case "refusal":
                parts.append({"type": "refusal", "refusal": required(part, "refusal", where)})
            case _:
                losses.part(where)
    return parts


def _text(said: str) -> Json:
    return {"type": "output_text", "text": said, "annotations": []}


def _content(content: Any, path: str, losses: Losses) -> str | list[Json]:  # noqa: ANN401 - any JSON
    """Return what was said to the model."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong_type(path, "string")
    parts = (_part(part, where, losses) for part, where in objects(content, path))
    return [part for part in parts if part is not None]


def _part(part: Json, path: str, losses: Losses) -> Json | None:
    """Return a part; None for what cannot be carried, which is noted."""
    match part.get("type"):
        case "text":
            return {"type": "input_text", "text": required(part, "text", path)}
        case "image_url":
            image = mapping(part.get("image_url"), f"{path}.image_url")
            url = required(image, "url", f"{path}.image_url")
            return {"type": "input_image", "image_url": url, "detail": image.get("detail") or "auto"}
        case "file":
            file = mapping(part.get("file"), f"{path}.file")
            names = ("file_data", "file_id", "filename")
            return {"type": "input_file", **{name: file[name] for name in names if file.get(name) is not None}}
        case "input_audio":
            return {"type": "input_audio", "input_audio": mapping(part.get("input_audio"), f"{path}.input_audio")}
        case _:
            losses.part(path)
            return None
