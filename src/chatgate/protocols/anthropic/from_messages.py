"""An Anthropic request as an OpenAI chat's body.

Owns which field becomes which, and what cannot become anything. Pure; called by the dialect for upstreams that speak
OpenAI's protocol, and by every translation that starts from there.
Sources (read 2026-11-23): https://platform.claude.com/docs/en/api/messages,
https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

import hashlib

import msgspec

from chatgate.protocols.chat_body import effort_of, joined, prefill
from chatgate.protocols.losses import Losses
from chatgate.protocols.reading import Json, mapping, objects, required, text, wrong_type
from chatgate.vocabulary.upstreams import Continuation

MAX_USER_CHARACTERS = 64
"""A longer id of a user is hashed: OpenAI takes no more of its own `safety_identifier`."""

_SAME = ("temperature", "top_p", "stream")
_KNOWN = frozenset({*_SAME, "model", "messages", "system", "max_tokens", "stop_sequences", "top_k", "metadata"})
_HANDLED = _KNOWN | {"thinking", "output_config", "service_tier", "tools", "tool_choice"}
_PARTS = frozenset({"container", "mcp_servers", "inference_geo"})
"""Fields without which something else would be asked, or asked elsewhere than the caller allows."""

_TOOL_FIELDS = frozenset({"type", "name", "description", "input_schema", "strict"})
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_TIERS = {"auto": "auto", "standard_only": "default"}
_UNSAID: tuple[object, ...] = (None, [], {}, "")
_IMAGE_FOLLOWS = "The tool's images and files follow."


def to_chat(request: Json, *, extended: bool, continuation: Continuation | None) -> tuple[Json, Losses]:
    """Return the body and what it could not carry.

    `extended` says that the upstream takes what OpenAI-compatible servers have added to the protocol (`top_k`, the
    reasoning of earlier turns), `continuation` how it is asked to go on with an assistant's message. Raises
    `CallerError` where a value has the wrong type.
    """
    losses = Losses()
    body: Json = {"model": request["model"], "messages": _messages(request, losses, extended=extended)}
    _limit(request, body, losses)
    body |= {name: request[name] for name in _SAME if request.get(name) is not None}
    if stops := request.get("stop_sequences"):
        body["stop"] = stops
    if request.get("top_k") is not None:
        if extended:
            body["top_k"] = request["top_k"]
        else:
            losses.part("top_k")
    _user(request, body, losses)
    _effort(request, body, losses)
    _tools(request, body, losses)
    if (tier := request.get("service_tier")) is not None:
        body["service_tier"] = _TIERS.get(tier, tier) if isinstance(tier, str) else tier
    prefill(body, losses, continuation, "messages")
    for name, value in request.items():
        if name in _PARTS and value not in _UNSAID:
            losses.part(name)
        elif name not in _HANDLED and value not in _UNSAID:
            losses.hint(name)
    return body, losses


def _limit(request: Json, body: Json, losses: Losses) -> None:
    if request.get("max_tokens"):
        body["max_tokens"] = request["max_tokens"]
    elif request.get("max_tokens") == 0:
        losses.part("max_tokens")  # It fills the provider's cache and asks for no answer.


def _user(request: Json, body: Json, losses: Losses) -> None:
    metadata = mapping(request.get("metadata") or {}, "metadata")
    user = metadata.get("user_id")
    if user is not None:
        user = text(user, "metadata.user_id")
        body["user"] = user if len(user) <= MAX_USER_CHARACTERS else hashlib.sha256(user.encode()).hexdigest()
    for name in metadata:
        if name != "user_id":
            losses.hint(f"metadata.{name}")


def _effort(request: Json, body: Json, losses: Losses) -> None:
    """Carry how much to think, and the form of the answer."""
    output = mapping(request.get("output_config") or {}, "output_config")
    thinking = mapping(request.get("thinking") or {}, "thinking")
    if output.get("effort") is not None:
        body["reasoning_effort"] = output["effort"]
        if thinking:
            losses.hint("thinking")
    elif thinking.get("type") == "enabled" and isinstance(thinking.get("budget_tokens"), int):
        body["reasoning_effort"] = effort_of(thinking["budget_tokens"])
    elif thinking:
        losses.hint("thinking")
    wanted = output.get("format")
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        schema = {"name": "answer", "schema": wanted.get("schema"), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif wanted is not None:
        losses.part("output_config.format")
    for name in output:
        if name not in ("effort", "format"):
            losses.hint(f"output_config.{name}")


def _tools(request: Json, body: Json, losses: Losses) -> None:
    tools: list[Json] = []
    for tool, path in objects(request.get("tools"), "tools"):
        if tool.get("type") in (None, "custom"):
            tools.append({"type": "function", "function": _function(tool, path, losses)})
        else:
            losses.part(path)  # The provider would run it, or its model would know it without a description.
    if tools:
        body["tools"] = tools
        _choice(mapping(request.get("tool_choice") or {}, "tool_choice"), body, losses)


def _function(tool: Json, path: str, losses: Losses) -> Json:
    function: Json = {"name": required(tool, "name", path)}
    if tool.get("description") is not None:
        function["description"] = tool["description"]
    function["parameters"] = tool.get("input_schema") or {"type": "object", "properties": {}}
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    _marks(tool, path, losses, *_TOOL_FIELDS)
    return function


def _choice(choice: Json, body: Json, losses: Losses) -> None:
    kind = None if choice.get("type") is None else text(choice["type"], "tool_choice.type")
    if kind == "tool":
        name = required(choice, "name", "tool_choice")
        body["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif kind in _CHOICES:
        body["tool_choice"] = _CHOICES[kind]
    elif kind is not None:
        losses.part("tool_choice")
    if choice.get("disable_parallel_tool_use") is not None:
        body["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]


# --- Messages ---------------------------------------------------------------------------------------------------------


def _messages(request: Json, losses: Losses, *, extended: bool) -> list[Json]:
    messages: list[Json] = []
    system = _system_text(request.get("system"), "system", losses)
    if system:
        messages.append({"role": "system", "content": system})
    for message, path in objects(request["messages"], "messages"):
        content, role = message.get("content"), message.get("role")
        where = f"{path}.content"
        if role == "system":
            messages.append({"role": "system", "content": _system_text(content, where, losses)})
        elif role == "assistant":
            messages.append(_assistant(content, where, losses, extended=extended))
        else:
            messages += _user_messages(content, where, losses)
    if not messages:
        raise wrong_type("messages", "array")
    return messages


def _system_text(content: object, path: str, losses: Losses) -> str:
    """Return texts as one: many servers take no list here."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for block, where in objects(content, path):
        if block.get("type") == "text":
            texts.append(required(block, "text", where))
            _marks(block, where, losses, "type", "text")
        else:
            losses.part(where)
    return "\n\n".join(texts)


def _assistant(content: object, path: str, losses: Losses, *, extended: bool) -> Json:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Json] = []
    for block, where in objects(content, path):
        match block.get("type"):
            case "text":
                texts.append(required(block, "text", where))
                _marks(block, where, losses, "type", "text")
            case "tool_use":
                arguments = msgspec.json.encode(block.get("input") or {}).decode()
                function = {"name": required(block, "name", where), "arguments": arguments}
                calls.append({"id": required(block, "id", where), "type": "function", "function": function})
                _marks(block, where, losses, "type", "id", "name", "input")
            case "thinking" if extended:
                thoughts.append(required(block, "thinking", where))
            case "thinking" | "redacted_thinking":
                losses.hint(f"{where} (thinking)")
            case _:
                losses.part(where)
    message: Json = {"role": "assistant", "content": "\n\n".join(texts) if texts or not calls else None}
    if thoughts:
        message["reasoning_content"] = "\n\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _user_messages(content: object, path: str, losses: Losses) -> list[Json]:
    """Return a user's turn: first what the tools answered, a message each, then the rest as one message."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results: list[Json] = []
    parts: list[Json] = []
    for block, where in objects(content, path):
        if block.get("type") == "tool_result":
            answer, rest = _result(block, where, losses)
            results.append(answer)
            parts += rest
        else:
            parts += _part(block, where, losses)
    if parts or not results:
        results.append({"role": "user", "content": joined(parts)})
    return results


def _result(block: Json, path: str, losses: Losses) -> tuple[Json, list[Json]]:
    """Return a tool's answer, and its images and files, which only a user's message can hold."""
    content = block.get("content")
    parts: list[Json] = []
    if isinstance(content, str):
        said = content
    else:
        for each, where in objects(content, f"{path}.content"):
            parts += _part(each, where, losses)
        said = "\n\n".join(part["text"] for part in parts if part["type"] == "text")
        parts = [part for part in parts if part["type"] != "text"]
        if parts and not said:
            said = _IMAGE_FOLLOWS
    _marks(block, path, losses, "type", "tool_use_id", "content", "is_error")
    if block.get("is_error"):
        losses.hint(f"{path}.is_error")
    return {"role": "tool", "tool_call_id": required(block, "tool_use_id", path), "content": said}, parts


def _part(block: Json, path: str, losses: Losses) -> list[Json]:
    """Return a block of a user's as parts; none when it cannot be carried."""
    match block.get("type"):
        case "text":
            _marks(block, path, losses, "type", "text")
            return [{"type": "text", "text": required(block, "text", path)}]
        case "image":
            _marks(block, path, losses, "type", "source")
            return _image(mapping(block.get("source"), f"{path}.source"), path, losses)
        case "document":
            _marks(block, path, losses, "type", "source", "title", "context", "citations")
            return _document(block, path, losses)
        case _:
            losses.part(path)
            return []


def _image(source: Json, path: str, losses: Losses) -> list[Json]:
    where = f"{path}.source"
    match source.get("type"):
        case "base64":
            url = f"data:{required(source, 'media_type', where)};base64,{required(source, 'data', where)}"
        case "url":
            url = required(source, "url", where)
        case _:
            losses.part(where)
            return []
    return [{"type": "image_url", "image_url": {"url": url}}]


def _document(block: Json, path: str, losses: Losses) -> list[Json]:
    citations = block.get("citations")
    if isinstance(citations, dict) and citations.get("enabled"):
        losses.part(f"{path}.citations")
    where = f"{path}.source"
    source = mapping(block.get("source"), where)
    before = [
        {"type": "text", "text": text(block[name], f"{path}.{name}")}
        for name in ("title", "context")
        if block.get(name) is not None
    ]
    match source.get("type"):
        case "base64":
            data = f"data:{required(source, 'media_type', where)};base64,{required(source, 'data', where)}"
            file = {"filename": block.get("title") or "document.pdf", "file_data": data}
            return [*before[block.get("title") is not None :], {"type": "file", "file": file}]
        case "text":
            return [*before, {"type": "text", "text": required(source, "data", where)}]
        case "content":
            content = source.get("content")
            if isinstance(content, str):
                return [*before, {"type": "text", "text": content}]
            inner = (_part(each, at, losses) for each, at in objects(content, f"{where}.content"))
            return [*before, *(part for parts in inner for part in parts)]
        case _:
            losses.part(where)
            return []


def _marks(block: Json, path: str, losses: Losses, *known: str) -> None:
    """Note what a block says besides what is carried: cache marks, citations, fields that nobody knows here."""
    for name, value in block.items():
        if name not in known and value not in _UNSAID:
            losses.hint(f"{path}.{name}")
