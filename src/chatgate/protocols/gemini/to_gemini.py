"""An OpenAI chat's body as a Gemini request.

Owns which field becomes which, and what cannot become anything; the messages are `turns`'s. Pure; called for upstreams
that speak Gemini's protocol, whatever the caller speaks.
Sources (read 2026-11-23): https://ai.google.dev/api/generate-content,
https://ai.google.dev/gemini-api/docs/openai, https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from chatgate.protocols.gemini.turns import turns_of
from chatgate.protocols.losses import Losses
from chatgate.protocols.reading import Json, mapping, objects, required, text
from chatgate.vocabulary.errors import CallerError, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

_SAME = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_HANDLED = frozenset(_SAME) | {
    "model",
    "stream",
    "stream_options",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "logprobs",
    "top_logprobs",
    "response_format",
    "reasoning_effort",
    "tools",
    "tool_choice",
    "service_tier",
}
_PART_UNLESS: dict[str, Callable[[object], bool]] = {
    "logit_bias": lambda value: not value,
    "functions": lambda value: not value,
    "function_call": lambda value: value in (None, "none"),
    "modalities": lambda value: value in (None, ["text"]),
    "audio": lambda value: value is None,
    "web_search_options": lambda value: value is None,
}
"""Fields without which something else would be asked, and when they ask for nothing."""

_MODES = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
_TIERS = {"default": "standard", "flex": "flex", "priority": "priority"}
_LEVELS = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH"}
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
"""What efforts are for models that know no levels. Source: https://ai.google.dev/gemini-api/docs/openai#thinking (read
2026-11-23)."""

_WITHOUT_LEVELS = re.compile(r"(models/)?gemini-[12]\b")
"""Models of before Gemini 3: they know budgets of thinking and no levels, and want no signatures of calls."""

_UNSAID: tuple[object, ...] = (None, [], {}, "")


def to_gemini(body: Json) -> tuple[Json, Losses]:
    """Return the request and what it could not carry. Raises `CallerError` where a value has the wrong type."""
    losses = Losses()
    is_old = _WITHOUT_LEVELS.match(str(body.get("model"))) is not None
    system, contents = turns_of(body.get("messages"), losses, wants_signatures=not is_old)
    request: Json = {}
    if system:
        request["systemInstruction"] = {"parts": system}
    request["contents"] = contents
    _tools(body, request, losses)
    config = _config(body, losses)
    _effort(body, config, is_old=is_old)
    if config:
        request["generationConfig"] = config
    tier = body.get("service_tier")
    if isinstance(tier, str) and tier in _TIERS:
        request["serviceTier"] = _TIERS[tier]
    elif tier not in (None, "auto"):
        losses.hint("service_tier")
    for name, value in body.items():
        says_nothing = _PART_UNLESS.get(name)
        if says_nothing is not None:
            if not says_nothing(value):
                losses.part(name)
        elif name == "parallel_tool_calls" and value is not False:
            pass  # That is how Gemini works.
        elif name not in _HANDLED and value not in _UNSAID:
            losses.hint(name)
    return request, losses


def _config(body: Json, losses: Losses) -> Json:
    config: Json = {theirs: body[name] for name, theirs in _SAME.items() if body.get(name) is not None}
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None:
        config["maxOutputTokens"] = limit
    if stops := body.get("stop"):
        config["stopSequences"] = [stops] if isinstance(stops, str) else stops
    if body.get("logprobs"):
        config["responseLogprobs"] = True
        if body.get("top_logprobs"):
            config["logprobs"] = body["top_logprobs"]
    wanted = mapping(body.get("response_format") or {}, "response_format")
    match wanted.get("type"):
        case None | "text":
            pass
        case "json_object":
            config["responseMimeType"] = "application/json"
        case "json_schema":
            schema = mapping(wanted.get("json_schema"), "response_format.json_schema").get("schema")
            config["responseMimeType"] = "application/json"
            if schema is not None:
                config["responseJsonSchema"] = mapping(schema, "response_format.json_schema.schema")
        case _:
            losses.part("response_format")
    return config


def _effort(body: Json, config: Json, *, is_old: bool) -> None:
    """Carry how much to think, and have it shown."""
    effort = body.get("reasoning_effort")
    if effort is None:
        return
    effort = text(effort, "reasoning_effort")
    if effort not in _LEVELS:
        raise CallerError(
            Kind.INVALID_VALUE, "invalid_field", param="reasoning_effort", parameters={"field": "reasoning_effort"}
        )
    thinking: Json = {"thinkingBudget": _BUDGETS[effort]} if is_old else {"thinkingLevel": _LEVELS[effort]}
    if effort != "none":
        thinking["includeThoughts"] = True
    config["thinkingConfig"] = thinking


def _tools(body: Json, request: Json, losses: Losses) -> None:
    functions: list[Json] = []
    for tool, path in objects(body.get("tools"), "tools"):
        if tool.get("type") != "function":
            losses.part(path)
            continue
        where = f"{path}.function"
        function = mapping(tool.get("function"), where)
        told: Json = {"name": required(function, "name", where)}
        if function.get("description") is not None:
            told["description"] = function["description"]
        if function.get("parameters"):
            told["parametersJsonSchema"] = function["parameters"]
        if function.get("strict"):
            losses.hint(f"{where}.strict")
        functions.append(told)
    if functions:
        request["tools"] = [{"functionDeclarations": functions}]
        if (calling := _choice(body.get("tool_choice"), losses)) is not None:
            request["toolConfig"] = {"functionCallingConfig": calling}


def _choice(choice: object, losses: Losses) -> Json | None:
    if choice is None:
        return None
    if isinstance(choice, str) and choice in _MODES:
        return {"mode": _MODES[choice]}
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = mapping(choice.get("function"), "tool_choice.function")
        return {"mode": "ANY", "allowedFunctionNames": [required(function, "name", "tool_choice.function")]}
    losses.part("tool_choice")
    return None
