"""A Gemini request as an OpenAI chat's body.

Owns which field becomes which, and what cannot become anything; the turns are `dialogue`'s. Pure; called by the dialect
for upstreams that speak OpenAI's protocol, and by every translation that starts from there.
Sources (read 2026-11-23): https://ai.google.dev/api/generate-content,
https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chatgate.protocols.chat_body import effort_of, prefill
from chatgate.protocols.gemini.dialogue import messages_of
from chatgate.protocols.gemini.fields import fields, listed
from chatgate.protocols.gemini.schemas import json_schema
from chatgate.protocols.losses import Losses
from chatgate.protocols.reading import Json, mapping, required, text, wrong_type

if TYPE_CHECKING:
    from chatgate.vocabulary.upstreams import Continuation

_KNOWN = frozenset({"model", "contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "serviceTier"})
_CONFIG = "generationConfig"
_SAME = {
    "temperature": "temperature",
    "topP": "top_p",
    "maxOutputTokens": "max_tokens",
    "stopSequences": "stop",
    "candidateCount": "n",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "responseLogprobs": "logprobs",
    "logprobs": "top_logprobs",
}
_FORM = frozenset({"responseMimeType", "responseSchema", "responseJsonSchema", "_responseJsonSchema"})
_CONFIG_PARTS = frozenset({"speechConfig", "imageConfig", "responseFormat"})
_CONFIG_HANDLED = frozenset({*_SAME, *_FORM, *_CONFIG_PARTS, "topK", "responseModalities", "thinkingConfig"})
_FUNCTION_FIELDS = frozenset({"name", "description", "parameters", "parametersJsonSchema"})
_MODES = {"AUTO": "auto", "VALIDATED": "auto", "ANY": "required", "NONE": "none"}
_TIERS = {"standard": "default", "flex": "flex", "priority": "priority"}
_UNSAID: tuple[object, ...] = (None, [], {}, "")
_PLAIN_TEXT, _JSON = "text/plain", "application/json"
_NO_PARAMETERS: Json = {"type": "object", "properties": {}}


def to_chat(
    request: Json, model: str, *, stream: bool, extended: bool, continuation: Continuation | None
) -> tuple[Json, Losses]:
    """Return the body and what it could not carry.

    `extended` says that the upstream takes what OpenAI-compatible servers have added to the protocol (`top_k`, the
    reasoning of earlier turns, the provider's signatures), `continuation` how it is asked to go on with an assistant's
    message. Raises `CallerError` where a value is missing or has the wrong type.
    """
    losses = Losses()
    asked = fields(request, "")
    body: Json = {"model": model, "messages": messages_of(asked, losses, extended=extended)}
    if stream:
        body["stream"] = True
    _configure(fields(asked.get(_CONFIG) or {}, _CONFIG), body, losses, extended=extended)
    _tools(asked, body, losses)
    if (tier := asked.get("serviceTier")) not in (None, "unspecified"):
        body["service_tier"] = _TIERS.get(text(tier, "serviceTier").lower(), tier)
    prefill(body, losses, continuation, "contents")
    for name, value in asked.items():
        if name == "cachedContent" and value:
            losses.part(name)  # It is a piece of the dialogue that only the provider has.
        elif name not in _KNOWN and value not in _UNSAID:
            losses.hint(name)
    return body, losses


def _configure(config: Json, body: Json, losses: Losses, *, extended: bool) -> None:
    body |= {theirs: config[name] for name, theirs in _SAME.items() if config.get(name) not in (None, [])}
    if body.get("logprobs") is False or "logprobs" not in body:
        body.pop("logprobs", None)
        body.pop("top_logprobs", None)
    if config.get("topK") is not None:
        if extended:
            body["top_k"] = config["topK"]
        else:
            losses.part(f"{_CONFIG}.topK")
    if config.get("responseModalities") not in (None, [], ["TEXT"], ["Text"]):
        losses.part(f"{_CONFIG}.responseModalities")
    _form(config, body, losses)
    _effort(fields(config.get("thinkingConfig") or {}, f"{_CONFIG}.thinkingConfig"), body, losses)
    for name, value in config.items():
        if name in _CONFIG_PARTS and value not in _UNSAID:
            losses.part(f"{_CONFIG}.{name}")
        elif name not in _CONFIG_HANDLED and value not in _UNSAID:
            losses.hint(f"{_CONFIG}.{name}")


def _form(config: Json, body: Json, losses: Losses) -> None:
    """Carry the form of the answer."""
    kind = config.get("responseMimeType") or _PLAIN_TEXT
    schema = config.get("responseJsonSchema") or config.get("_responseJsonSchema")
    if schema is None and config.get("responseSchema"):
        schema = json_schema(config["responseSchema"], f"{_CONFIG}.responseSchema")
    if kind == _JSON and schema:
        wanted = {"name": "answer", "schema": mapping(schema, f"{_CONFIG}.responseJsonSchema")}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    elif kind == _JSON:
        body["response_format"] = {"type": "json_object"}
    elif kind != _PLAIN_TEXT or schema:
        losses.part(f"{_CONFIG}.responseMimeType")


def _effort(thinking: Json, body: Json, losses: Losses) -> None:
    """Carry how much to think; whether thoughts are shown is the dialect's to keep to."""
    path = f"{_CONFIG}.thinkingConfig"
    level, budget = thinking.get("thinkingLevel"), thinking.get("thinkingBudget")
    if level not in (None, "THINKING_LEVEL_UNSPECIFIED"):
        body["reasoning_effort"] = text(level, f"{path}.thinkingLevel").lower()
    elif isinstance(budget, int) and budget >= 0:
        body["reasoning_effort"] = effort_of(budget) if budget else "none"
    for name, value in thinking.items():
        if name not in ("thinkingLevel", "thinkingBudget", "includeThoughts") and value not in _UNSAID:
            losses.hint(f"{path}.{name}")


# --- Tools ------------------------------------------------------------------------------------------------------------


def _tools(asked: Json, body: Json, losses: Losses) -> None:
    tools: list[Json] = []
    for tool, path in listed(asked.get("tools"), "tools"):
        for name, value in tool.items():
            if name == "functionDeclarations":
                for function, where in listed(value, f"{path}.{name}"):
                    tools.append({"type": "function", "function": _function(function, where, losses)})
            else:
                losses.part(f"{path}.{name}")  # The provider would run it.
    config = fields(asked.get("toolConfig") or {}, "toolConfig")
    for name, value in config.items():
        if name != "functionCallingConfig" and value not in (*_UNSAID, False):
            losses.hint(f"toolConfig.{name}")
    if tools:
        calling = fields(config.get("functionCallingConfig") or {}, "toolConfig.functionCallingConfig")
        body["tools"] = _allowed(tools, calling, body)


def _function(function: Json, path: str, losses: Losses) -> Json:
    told: Json = {"name": required(function, "name", path)}
    if function.get("description"):
        told["description"] = function["description"]
    if function.get("parametersJsonSchema") is not None:
        told["parameters"] = mapping(function["parametersJsonSchema"], f"{path}.parametersJsonSchema")
    elif function.get("parameters"):
        told["parameters"] = json_schema(function["parameters"], f"{path}.parameters")
    else:
        told["parameters"] = _NO_PARAMETERS
    for name, value in function.items():
        if name not in _FUNCTION_FIELDS and value not in _UNSAID:
            losses.hint(f"{path}.{name}")
    return told


def _allowed(tools: list[Json], calling: Json, body: Json) -> list[Json]:
    """Say which tools have to be called; return those that may be, which is how an upstream is kept to them."""
    path = "toolConfig.functionCallingConfig"
    mode = text(calling.get("mode") or "AUTO", f"{path}.mode").upper()
    names: Any = calling.get("allowedFunctionNames") or []
    if not isinstance(names, list):
        raise wrong_type(f"{path}.allowedFunctionNames", "array")
    kept = [tool for tool in tools if not names or tool["function"]["name"] in names]
    choice = _MODES.get(mode)
    if choice == "required" and len(names) == 1 and kept:
        body["tool_choice"] = {"type": "function", "function": {"name": names[0]}}
        return tools
    if choice is not None and (choice != "auto" or "mode" in calling):
        body["tool_choice"] = choice
    return kept or tools
