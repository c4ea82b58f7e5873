"""The tools of a Responses request, for a chat.

A chat knows functions only. A custom tool, whose input is any text, becomes a function with one text; a tool of a
namespace gets the namespace's name in front. `Names` leads back from the function that a model calls to the tool that
the caller offered. Tools that the provider itself would run have nothing that could run them here: they are an offer,
which is left out and reported as long as others remain, and is refused where the answer would hang on it.
Source: https://developers.openai.com/api/docs/guides/function-calling (read 2026-11-23).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from chatgate.protocols.reading import Json, mapping, objects, required, text

if TYPE_CHECKING:
    from chatgate.protocols.losses import Losses

SEPARATOR = "__"
"""What stands between the names of a namespace and of a tool in it."""

_MODES = frozenset({"auto", "none", "required"})
_INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
_CARRIED = frozenset({"type", "name", "description", "parameters", "strict", "format"})
_UNSAID: tuple[object, ...] = (None, [], {}, "", False)


class Name(Struct, frozen=True):
    """A tool as the caller knows it. `namespace` is "" when it is in none."""

    name: str
    is_custom: bool = False
    namespace: str = ""


Names = dict[str, Name]
"""The tools of one request by the names of their functions."""


def function_name(name: str, namespace: str = "") -> str:
    """Return the name under which a chat model knows a tool."""
    return f"{namespace}{SEPARATOR}{name}" if namespace else name


def custom_arguments(text_input: str) -> str:
    """Write the input of a custom tool as its function's arguments."""
    return msgspec.json.encode({"input": text_input}).decode()


def custom_input(arguments: str) -> str:
    """Read it back; what a model wrote in any other form is the input itself."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    if isinstance(value, dict) and isinstance(value.get("input"), str):
        return str(value["input"])
    return arguments


def names_of(request: Json) -> Names:
    """Return the tools that a request offers as functions. Raises `CallerError`."""
    return {function_name(name.name, name.namespace): name for name, _, _ in _offered(request)}


def to_chat_tools(request: Json, body: Json, losses: Losses) -> None:
    """Write the tools, and which of them may be chosen. Raises `CallerError`."""
    tools = [_function(name, tool, path, losses) for name, tool, path in _offered(request)]
    hosted = [path for tool, path in objects(request.get("tools"), "tools") if tool.get("type") not in _OURS]
    for path in hosted:
        if tools:
            losses.hint(path)
        else:
            losses.part(path)
    choice = request.get("tool_choice")
    if not tools:
        if choice not in (None, "auto", "none") and not hosted:
            losses.part("tool_choice")
        return
    body["tools"] = tools
    if choice is not None:
        _choose(choice, body, losses)
    if request.get("parallel_tool_calls") is not None:
        body["parallel_tool_calls"] = request["parallel_tool_calls"]


_OURS = frozenset({"function", "custom", "namespace"})


def _offered(request: Json) -> list[tuple[Name, Json, str]]:
    """Return the tools that the caller runs, each with its path."""
    found: list[tuple[Name, Json, str]] = []
    for tool, path in objects(request.get("tools"), "tools"):
        kind = tool.get("type")
        if kind == "namespace":
            namespace = required(tool, "name", path)
            for inner, inner_path in objects(tool.get("tools"), f"{path}.tools"):
                name = Name(required(inner, "name", inner_path), inner.get("type") == "custom", namespace)
                found.append((name, inner, inner_path))
        elif kind in _OURS:
            found.append((Name(required(tool, "name", path), kind == "custom"), tool, path))
    return found


def _function(name: Name, tool: Json, path: str, losses: Losses) -> Json:
    function: Json = {"name": function_name(name.name, name.namespace)}
    if tool.get("description"):
        function["description"] = text(tool["description"], f"{path}.description")
    if name.is_custom:
        function["parameters"] = _INPUT
        form = mapping(tool.get("format") or {}, f"{path}.format")
        if form.get("type") == "grammar":
            losses.hint(f"{path}.format")
            _describe_grammar(function, form)
    else:
        function["parameters"] = tool.get("parameters") or {"type": "object", "properties": {}}
        if tool.get("strict") is not None:
            function["strict"] = tool["strict"]
    for field, value in tool.items():
        if field not in _CARRIED and value not in _UNSAID:
            losses.hint(f"{path}.{field}")
    return {"type": "function", "function": function}


def _describe_grammar(function: Json, form: Json) -> None:
    """Tell the model of a grammar that nothing will hold it to."""
    definition = form.get("definition")
    if isinstance(definition, str):
        told = f"The input must follow this {form.get('syntax')} grammar:\n{definition}"
        function["description"] = "\n\n".join(filter(None, (function.get("description"), told)))


def _choose(choice: Any, body: Json, losses: Losses) -> None:  # noqa: ANN401 - any JSON
    if isinstance(choice, str) and choice in _MODES:
        body["tool_choice"] = choice
        return
    chosen = mapping(choice, "tool_choice")
    kind = chosen.get("type")
    if kind in ("function", "custom"):
        body["tool_choice"] = _chosen(chosen, "tool_choice")
    elif kind == "allowed_tools":
        allowed = objects(chosen.get("tools"), "tool_choice.tools")
        carried = [_chosen(tool, path) for tool, path in allowed if tool.get("type") in ("function", "custom")]
        for tool, path in allowed:
            if tool.get("type") not in ("function", "custom"):
                losses.part(path)
        allowed_tools = {"mode": chosen.get("mode", "auto"), "tools": carried}
        body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": allowed_tools}
    else:
        losses.part("tool_choice")


def _chosen(tool: Json, path: str) -> Json:
    namespace = tool.get("namespace")
    name = function_name(required(tool, "name", path), namespace if isinstance(namespace, str) else "")
    return {"type": "function", "function": {"name": name}}
