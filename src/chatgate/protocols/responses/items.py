"""The items of a Responses input, as the messages of a chat.

Owns how items are grouped: what an assistant said and called in one turn is one message of a chat, in which results
must follow their calls at once. Pure; called by the translation of requests.
Sources (read 2026-11-23): https://developers.openai.com/api/reference/resources/responses,
https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from chatgate.protocols.reading import Json, mapping, objects, required, text, wrong_type
from chatgate.protocols.responses.tools import custom_arguments, function_name
from chatgate.vocabulary.errors import CallerError, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chatgate.protocols.losses import Losses

SEAL = "chatgate:"
"""How the `encrypted_content` begins that this gateway writes: the reasoning's own text, in base64."""

_ROLES = frozenset({"user", "system", "developer", "assistant"})
_UNSAID: tuple[object, ...] = (None, [], {}, "")
_TEXTS = frozenset({"input_text", "output_text", "text"})
_KNOWN = {
    "message": frozenset({"type", "id", "role", "content", "status"}),
    "function_call": frozenset({"type", "id", "call_id", "name", "namespace", "arguments", "status"}),
    "custom_tool_call": frozenset({"type", "id", "call_id", "name", "namespace", "input", "status"}),
    "function_call_output": frozenset({"type", "id", "call_id", "output", "status", "name", "namespace"}),
    "custom_tool_call_output": frozenset({"type", "id", "call_id", "output", "status"}),
    "reasoning": frozenset({"type", "id", "summary", "content", "encrypted_content", "status"}),
}


def seal(reasoning: str) -> str:
    """Write reasoning as what callers hand back unread."""
    return SEAL + base64.b64encode(reasoning.encode("utf-8", "surrogatepass")).decode()


def unseal(content: object) -> str:
    """Read it back; "" when somebody else wrote it."""
    if not isinstance(content, str) or not content.startswith(SEAL):
        return ""
    try:
        return base64.b64decode(content.removeprefix(SEAL), validate=True).decode("utf-8", "surrogatepass")
    except (binascii.Error, UnicodeDecodeError):
        return ""


class Messages:
    """The messages of one chat while they are written."""

    def __init__(self, losses: Losses, *, extended: bool) -> None:
        """Start without messages; `extended` says that the upstream is not OpenAI itself.

        Then it takes the reasoning of earlier turns back, and may not know its newer roles.
        """
        self.written: list[Json] = []
        self._losses = losses
        self._extended = extended
        self._turn: Json | None = None

    def add(self, items: Iterable[tuple[Json, str]]) -> None:
        """Write items, each with its path. Raises `CallerError`."""
        for item, path in items:
            self._add(item, path)

    def _add(self, item: Json, path: str) -> None:
        kind = item.get("type") or "message"
        match kind:
            case "message":
                self._message(item, path)
            case "function_call":
                arguments = required(item, "arguments", path)
                self._call(item, path, arguments)
            case "custom_tool_call":
                self._call(item, path, custom_arguments(required(item, "input", path)))
            case "function_call_output" | "custom_tool_call_output":
                self._result(item, path)
            case "reasoning":
                self._reasoning(item, path)
            case "item_reference":
                where = f"{path}.id"
                raise CallerError(Kind.INVALID_VALUE, "unknown_item", param=where, parameters={"field": where})
            case _:
                self._losses.part(path)
                return
        for name, value in item.items():
            if name not in _KNOWN[kind] and value not in _UNSAID:
                self._losses.hint(f"{path}.{name}")

    def _message(self, item: Json, path: str) -> None:
        role = required(item, "role", path)
        if role not in _ROLES:
            where = f"{path}.role"
            raise CallerError(Kind.INVALID_VALUE, "invalid_field", param=where, parameters={"field": where})
        content = self._content(item.get("content"), f"{path}.content")
        if role != "assistant":
            self._turn = None
            # Only OpenAI itself knows developers, and takes a system for one.
            told = "system" if role == "developer" and self._extended else role
            self.written.append({"role": told, "content": content})
            return
        turn = self._turn
        if turn is None or ("content" in turn and "tool_calls" not in turn):
            turn = self._begin_turn()
        turn["content"] = _joined(turn.get("content"), content)

    def _call(self, item: Json, path: str, arguments: str) -> None:
        turn = self._turn or self._begin_turn()
        namespace = item.get("namespace")
        name = function_name(required(item, "name", path), namespace if isinstance(namespace, str) else "")
        call = {"id": required(item, "call_id", path), "type": "function"}
        turn.setdefault("content", None)
        turn.setdefault("tool_calls", []).append(call | {"function": {"name": name, "arguments": arguments}})

    def _result(self, item: Json, path: str) -> None:
        self._turn = None
        output = item.get("output")
        content = output if isinstance(output, str) else self._texts(output, f"{path}.output")
        self.written.append({"role": "tool", "tool_call_id": required(item, "call_id", path), "content": content})

    def _reasoning(self, item: Json, path: str) -> None:
        """Hand reasoning back to upstreams that want it; others would not take it."""
        thought = "".join(text(part.get("text"), f"{at}.text") for part, at in objects(item.get("content"), path))
        thought = thought or unseal(item.get("encrypted_content"))
        if not thought or not self._extended:
            self._losses.hint(path)
            return
        turn = self._turn
        if turn is None or ("content" in turn and "tool_calls" not in turn):
            turn = self._begin_turn()
        turn["reasoning_content"] = turn.get("reasoning_content", "") + thought

    def finish(self) -> list[Json]:
        """Return the messages; a turn that was thought and nothing else is none."""
        return [message for message in self.written if message["role"] != "assistant" or "content" in message]

    def _begin_turn(self) -> Json:
        self._turn = turn = {"role": "assistant"}
        self.written.append(turn)
        return turn

    def _content(self, content: Any, path: str) -> str | list[Json]:  # noqa: ANN401 - any JSON
        if isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise wrong_type(path, "string")
        parts = [self._part(part, at) for part, at in objects(content, path)]
        return _plain([part for part in parts if part is not None])

    def _texts(self, content: Any, path: str) -> str | list[Json]:  # noqa: ANN401 - any JSON
        """Return a tool's result, of which a chat carries the texts."""
        if not isinstance(content, list):
            raise wrong_type(path, "string")
        parts = []
        for part, at in objects(content, path):
            if part.get("type") in _TEXTS:
                parts.append({"type": "text", "text": required(part, "text", at)})
            else:
                self._losses.part(at)
        return _plain(parts)

    def _part(self, part: Json, path: str) -> Json | None:
        """Return a part of a message; None for what a chat cannot carry, which is noted."""
        kind = part.get("type")
        written: Json | None = None
        if kind in _TEXTS:
            written = {"type": "text", "text": required(part, "text", path)}
        elif kind == "refusal":
            written = {"type": "refusal", "refusal": required(part, "refusal", path)}
        elif kind == "input_image" and part.get("image_url") is not None:
            image: Json = {"url": required(part, "image_url", path)}
            if part.get("detail") is not None:
                image["detail"] = part["detail"]
            written = {"type": "image_url", "image_url": image}
        elif kind == "input_file" and part.get("file_url") is None:
            names = ("file_data", "file_id", "filename")
            file = {name: part[name] for name in names if part.get(name) is not None}
            written = {"type": "file", "file": file}
        elif kind == "input_audio":
            written = {"type": "input_audio", "input_audio": mapping(part.get("input_audio"), f"{path}.input_audio")}
        if written is None:
            self._losses.part(path)
        elif part.get("prompt_cache_breakpoint") is not None:
            written["prompt_cache_breakpoint"] = part["prompt_cache_breakpoint"]
        return written


def _plain(parts: list[Json]) -> str | list[Json]:
    """Return a single text as the text itself, which more servers take."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        return str(parts[0]["text"])
    return parts or ""


def _joined(earlier: str | list[Json] | None, later: str | list[Json]) -> str | list[Json]:
    if earlier is None:
        return later
    return [*_parts(earlier), *_parts(later)]


def _parts(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
