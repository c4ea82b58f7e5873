"""A Responses request as an OpenAI chat's body.

Owns which field becomes which, and what cannot become anything. Pure; called by the dialect for upstreams that speak
OpenAI's chat, and by every translation that starts from there.
Sources (read 2026-11-23): https://developers.openai.com/api/reference/resources/responses/methods/create,
https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatgate.protocols.losses import Losses
from chatgate.protocols.reading import Json, mapping, objects, required, wrong_type
from chatgate.protocols.responses.items import Messages
from chatgate.protocols.responses.tools import to_chat_tools
from chatgate.vocabulary.errors import CallerError, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"

_SAME = (
    "model",
    "stream",
    "temperature",
    "top_p",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "moderation",
    "user",
)
_PARTS = frozenset({"background", "conversation", "prompt"})
"""Fields without which something else would be asked."""

_KEPT_HERE = frozenset({"metadata", "store", "previous_response_id", "truncation"})
"""Fields that are the gateway's own to keep to; of the ways to truncate only `auto` asks for anything."""

_HANDLED = frozenset(
    {*_SAME, *_PARTS, *_KEPT_HERE, "input", "instructions", "tools", "tool_choice", "parallel_tool_calls"}
    | {"text", "reasoning", "include", "max_output_tokens", "top_logprobs"}
)
_UNSAID: tuple[object, ...] = (None, [], {}, "", False)


def to_chat(request: Json, *, extended: bool, earlier: Sequence[Json] = ()) -> tuple[Json, Losses]:
    """Return the body and what it could not carry.

    `earlier` are the items of the responses before this one. `extended` says that the upstream takes the reasoning of
    earlier turns back. Raises `CallerError` where a value is missing or has the wrong type.
    """
    losses = Losses()
    body: Json = {name: request[name] for name in _SAME if request.get(name) is not None}
    body["messages"] = _messages(request, earlier, losses, extended=extended)
    if request.get("max_output_tokens") is not None:
        body["max_tokens"] = request["max_output_tokens"]
    to_chat_tools(request, body, losses)
    _form(request, body, losses)
    _reasoning(request, body, losses)
    _included(request, body, losses)
    if request.get("truncation") == "auto":
        losses.hint("truncation")
    for name, value in request.items():
        if name in _PARTS and value not in _UNSAID:
            losses.part(name)
        elif name not in _HANDLED and value not in _UNSAID:
            losses.hint(name)
    return body, losses


def items_of(request: Json) -> list[Json]:
    """Return the input as a list of items. Raises `CallerError`."""
    given = request.get("input")
    if given is None:
        return []
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    if not isinstance(given, list):
        raise wrong_type("input", "string")
    return [item for item, _ in objects(given, "input")]


def _messages(request: Json, earlier: Sequence[Json], losses: Losses, *, extended: bool) -> list[Json]:
    messages = Messages(losses, extended=extended)
    instructions = request.get("instructions")
    if isinstance(instructions, str) and instructions:
        messages.written.append({"role": "system", "content": instructions})
    elif instructions:
        raise wrong_type("instructions", "string")
    messages.add((item, f"previous_response_id.items[{index}]") for index, item in enumerate(earlier))
    messages.add((item, f"input[{index}]") for index, item in enumerate(items_of(request)))
    written = messages.finish()
    if all(message["role"] == "system" for message in written) and not request.get("input"):
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param="input", parameters={"field": "input"})
    return written


def _form(request: Json, body: Json, losses: Losses) -> None:
    """Carry the form of the answer."""
    wanted = mapping(request.get("text") or {}, "text")
    if wanted.get("verbosity") is not None:
        body["verbosity"] = wanted["verbosity"]
    form = mapping(wanted.get("format") or {}, "text.format")
    match form.get("type"):
        case "json_schema":
            schema = {"name": required(form, "name", "text.format")}
            schema |= {name: form[name] for name in ("description", "schema", "strict") if form.get(name) is not None}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        case "json_object":
            body["response_format"] = {"type": "json_object"}
        case None | "text":
            pass
        case _:
            losses.part("text.format")
    for name in wanted:
        if name not in ("format", "verbosity"):
            losses.hint(f"text.{name}")


def _reasoning(request: Json, body: Json, losses: Losses) -> None:
    """Carry how much to think; what a provider shows of it is shown as its summary where one is asked for."""
    reasoning = mapping(request.get("reasoning") or {}, "reasoning")
    if reasoning.get("effort") is not None:
        body["reasoning_effort"] = reasoning["effort"]
    for name, value in reasoning.items():
        if name not in ("effort", "summary", "generate_summary") and value not in _UNSAID:
            losses.hint(f"reasoning.{name}")


def _included(request: Json, body: Json, losses: Losses) -> None:
    """Carry what an answer is to have besides; the rest of it comes of tools that a chat does not have."""
    included = request.get("include") or []
    if not isinstance(included, list):
        raise wrong_type("include", "array")
    for index, wanted in enumerate(included):
        if wanted == LOGPROBS:
            body["logprobs"] = True
        elif wanted != ENCRYPTED:
            losses.hint(f"include[{index}]")
    if request.get("top_logprobs"):
        body |= {"logprobs": True, "top_logprobs": request["top_logprobs"]}
