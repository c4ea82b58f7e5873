"""An OpenAI chat's body as an Anthropic request.

Owns which field becomes which, and what cannot become anything. Pure; called for upstreams that speak Anthropic's
protocol, whatever the caller speaks.
Sources (read 2026-11-23): https://platform.claude.com/docs/en/api/messages,
https://platform.claude.com/docs/en/api/openai-sdk, https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from chatgate.protocols.chat_body import inline_data
from chatgate.protocols.losses import Losses
from chatgate.protocols.reading import Json, mapping, objects, required, text
from chatgate.vocabulary.errors import CallerError, Kind

MAX_TOKENS_DEFAULT = 8192
"""What a call may answer that sets no limit: Anthropic's protocol wants one, and each of its present models has it."""

_SAME = frozenset({"model", "stream", "top_p", "top_k"})
_HANDLED = _SAME | {
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "temperature",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "user",
    "safety_identifier",
    "reasoning_effort",
    "response_format",
    "service_tier",
    "stream_options",
}
_PART_UNLESS: dict[str, Callable[[object], bool]] = {
    "n": lambda value: value in (None, 1),
    "logprobs": lambda value: not value,
    "top_logprobs": lambda value: not value,
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

_MESSAGE_FIELDS = frozenset({"role", "content", "tool_call_id", "tool_calls", "refusal"})
_EFFORTS = {"minimal": "low"}
_TIERS = {"auto": "auto", "default": "standard_only"}
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_UNSAID: tuple[object, ...] = (None, [], {}, "")


def to_messages(body: Json) -> tuple[Json, Losses]:
    """Return the request and what it could not carry. Raises `CallerError` where a value has the wrong type."""
    losses = Losses()
    request: Json = {"model": body["model"], "max_tokens": _limit(body)}
    system, messages = _messages(body, losses)
    if system:
        request["system"] = system
    request["messages"] = messages
    request |= {name: body[name] for name in ("stream", "top_p", "top_k") if body.get(name) is not None}
    stops = body.get("stop")
    if stops:
        request["stop_sequences"] = [stops] if isinstance(stops, str) else stops
    _temperature(body, request, losses)
    _tools(body, request, losses)
    user = body.get("safety_identifier") or body.get("user")
    if user is not None:
        request["metadata"] = {"user_id": text(user, "user")}
    _output(body, request, losses)
    tier = body.get("service_tier")
    if isinstance(tier, str) and tier in _TIERS:
        request["service_tier"] = _TIERS[tier]
    elif tier is not None:
        losses.hint("service_tier")
    for name, value in body.items():
        says_nothing = _PART_UNLESS.get(name)
        if says_nothing is not None:
            if not says_nothing(value):
                losses.part(name)
        elif name not in _HANDLED and value not in _UNSAID:
            losses.hint(name)
    return request, losses


def _limit(body: Json) -> int:
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    return asked if isinstance(asked, int) else MAX_TOKENS_DEFAULT


def _temperature(body: Json, request: Json, losses: Losses) -> None:
    """Carry the temperature: Anthropic's ends at 1."""
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and temperature > 1:
        losses.part("temperature")
    elif temperature is not None:
        request["temperature"] = temperature


def _output(body: Json, request: Json, losses: Losses) -> None:
    """Carry how much to think, and the form of the answer."""
    output: Json = {}
    effort = body.get("reasoning_effort")
    if effort == "none":
        request["thinking"] = {"type": "disabled"}
    elif effort is not None:
        effort = text(effort, "reasoning_effort")
        output["effort"] = _EFFORTS.get(effort, effort)
    wanted = mapping(body.get("response_format") or {}, "response_format")
    if wanted.get("type") == "json_schema":
        schema = mapping(wanted.get("json_schema"), "response_format.json_schema")
        output["format"] = {"type": "json_schema", "schema": schema.get("schema")}
    elif wanted and wanted.get("type") != "text":
        losses.part("response_format")
    if output:
        request["output_config"] = output


def _tools(body: Json, request: Json, losses: Losses) -> None:
    tools: list[Json] = []
    for tool, path in objects(body.get("tools"), "tools"):
        if tool.get("type") != "function":
            losses.part(path)
            continue
        where = f"{path}.function"
        function = mapping(tool.get("function"), where)
        told: Json = {"name": required(function, "name", where)}
        if function.get("description") is not None:
            told["description"] = function["description"]
        told["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
        if function.get("strict") is not None:
            told["strict"] = function["strict"]
        tools.append(told)
    if tools:
        request["tools"] = tools
    choice = _choice(body.get("tool_choice"), losses)
    if body.get("parallel_tool_calls") is not None and tools:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = not body["parallel_tool_calls"]
    if choice is not None:
        request["tool_choice"] = choice


def _choice(choice: object, losses: Losses) -> Json | None:
    if choice is None:
        return None
    if isinstance(choice, str) and choice in _CHOICES:
        return {"type": _CHOICES[choice]}
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = mapping(choice.get("function"), "tool_choice.function")
        return {"type": "tool", "name": required(function, "name", "tool_choice.function")}
    losses.part("tool_choice")
    return None


# --- Messages ---------------------------------------------------------------------------------------------------------


def _messages(body: Json, losses: Losses) -> tuple[str | list[Json], list[Json]]:
    """Return the system text and the turns, neighbours of one role brought together."""
    system: list[Json] = []
    turns: list[Json] = []
    for message, path in objects(body.get("messages"), "messages"):
        where, content = f"{path}.content", message.get("content")
        match message.get("role"):
            case "system" | "developer":
                if turns:
                    losses.hint(f"{path} (moved to the beginning)")
                system += _texts(content, where, losses)
            case "user":
                _add(turns, "user", _parts(content, where, losses))
            case "assistant":
                _add(turns, "assistant", _assistant(message, path, losses))
            case "tool":
                _add(turns, "user", [_result(message, path, losses)])
            case _:
                losses.part(path)
        _note_rest(message, path, losses)
    if not turns:
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param="messages", parameters={"field": "messages"})
    for turn in turns:
        turn["content"] = _simplest(turn["content"])
    return _simplest(system), turns


def _note_rest(message: Json, path: str, losses: Losses) -> None:
    for name, value in message.items():
        if name not in _MESSAGE_FIELDS and value not in _UNSAID:
            note = losses.part if name in {"audio", "function_call"} else losses.hint
            note(f"{path}.{name}")


def _add(turns: list[Json], role: str, blocks: list[Json]) -> None:
    """Add to the last turn if it is the same one's: what several tools answered belongs in one.

    A turn that says nothing is left out, as it would be refused.
    """
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _simplest(blocks: list[Json]) -> str | list[Json]:
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks


def _texts(content: object, path: str, losses: Losses) -> list[Json]:
    """Return what is text of a content; empty texts are refused there, and say nothing."""
    blocks = _parts(content, path, losses)
    for index, block in enumerate(blocks):
        if block["type"] != "text":
            losses.part(f"{path}[{index}]")
    return [block for block in blocks if block["type"] == "text"]


def _assistant(message: Json, path: str, losses: Losses) -> list[Json]:
    blocks = _parts(message.get("content"), f"{path}.content", losses)
    if message.get("refusal"):
        blocks.append({"type": "text", "text": text(message["refusal"], f"{path}.refusal")})
    for call, where in objects(message.get("tool_calls"), f"{path}.tool_calls"):
        if call.get("type", "function") != "function":
            losses.part(where)
            continue
        function = mapping(call.get("function"), f"{where}.function")
        name = required(function, "name", f"{where}.function")
        arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
        identity = safe_id(required(call, "id", where))
        blocks.append({"type": "tool_use", "id": identity, "name": name, "input": arguments})
    return blocks


def _arguments(value: object, path: str) -> Json:
    """Return the arguments of a call. Raises `CallerError` when they are no object."""
    written = text(value or "{}", path)
    try:
        found = msgspec.json.decode(written)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        found = None
    return mapping(found, path)


def _result(message: Json, path: str, losses: Losses) -> Json:
    result: Json = {"type": "tool_result", "tool_use_id": safe_id(required(message, "tool_call_id", path))}
    blocks = _parts(message.get("content"), f"{path}.content", losses)
    if blocks:
        result["content"] = _simplest(blocks)
    return result


def _parts(content: object, path: str, losses: Losses) -> list[Json]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    blocks: list[Json] = []
    for part, where in objects(content, path):
        match part.get("type"):
            case "text" | "refusal":
                said = required(part, str(part["type"]), where)
                if said:
                    blocks.append({"type": "text", "text": said})
            case "image_url":
                image = mapping(part.get("image_url"), f"{where}.image_url")
                blocks.append({"type": "image", "source": _source(required(image, "url", f"{where}.image_url"))})
                if image.get("detail") not in (None, "auto"):
                    losses.hint(f"{where}.image_url.detail")
            case "file":
                blocks += _file(mapping(part.get("file"), f"{where}.file"), where, losses)
            case _:
                losses.part(where)
    return blocks


def _source(url: str) -> Json:
    found = inline_data(url)
    if found is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": found[0], "data": found[1]}


def _file(file: Json, path: str, losses: Losses) -> list[Json]:
    data = file.get("file_data")
    found = inline_data(data) if isinstance(data, str) else None
    if found is None:
        losses.part(f"{path}.file")
        return []
    document: Json = {
        "type": "document",
        "source": {"type": "base64", "media_type": found[0], "data": found[1]},
    }
    if isinstance(file.get("filename"), str):
        document["title"] = file["filename"]
    return [document]


def safe_id(identity: str) -> str:
    """Return a tool call's id as Anthropic takes it: `^[a-zA-Z0-9_-]+$`, the same for call and result."""
    return _NOT_IN_ID.sub("_", identity)
