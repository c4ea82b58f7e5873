"""The items of an answer while they are written: a message, reasoning, a call of a tool; each with its events.

Owns what each kind says when it begins, goes on and ends. An item is open from `begin` to `end`. Pure; driven by the
encoder, which owns their order.
Source: https://developers.openai.com/api/reference/resources/responses/streaming-events (read 2026-11-23).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from chatgate.protocols.responses.items import seal
from chatgate.protocols.responses.tools import Name, custom_input

if TYPE_CHECKING:
    from chatgate.protocols.reading import Json


class Write(Protocol):
    """What takes the events of one item; it adds their numbers and the item's place."""

    def __call__(self, kind: str, /, **fields: object) -> None:
        """Take an event `response.<kind>`."""


class Item:
    """One item. `item_id` is its id."""

    def __init__(self, item_id: str, write: Write) -> None:
        """Take where the events go."""
        self.item_id = item_id
        self._write = write

    def begin(self) -> None:
        """Write that there is an item."""
        self._write("output_item.added", item=self.told("in_progress"))

    def end(self, status: str) -> Json:
        """Write the item's end, and return it as it is then; `status` is `completed` or `incomplete`."""
        self._close()
        item = self.told(status)
        self._write("output_item.done", item=item)
        return item

    def told(self, status: str) -> Json:
        """Return the item as it is now."""
        raise NotImplementedError

    def _close(self) -> None:
        """Write the end of what is open inside the item."""
        raise NotImplementedError


class MessageItem(Item):
    """What the assistant says to the caller: parts of text, and of refusal."""

    def __init__(self, item_id: str, write: Write) -> None:
        """Begin without a part."""
        super().__init__(item_id, write)
        self._parts: list[Json] = []
        self._pieces: list[str] = []
        self._kind = ""

    def say(self, kind: str, piece: str, logprobs: list[Json]) -> None:
        """Go on with a part of a kind, `output_text` or `refusal`."""
        if self._kind != kind:
            self._close()
            self._kind = kind
            empty = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
            self._parts.append(empty if kind == "output_text" else {"type": "refusal", "refusal": ""})
            self._tell("content_part.added", part=self._parts[-1])
        self._pieces.append(piece)
        if kind == "refusal":
            self._tell("refusal.delta", delta=piece)
            return
        self._parts[-1]["logprobs"].extend(logprobs)
        self._tell("output_text.delta", delta=piece, logprobs=logprobs)

    def cite(self, annotation: Json) -> None:
        """Add an annotation to the text."""
        if self._kind != "output_text":
            self.say("output_text", "", [])
        annotations = self._parts[-1]["annotations"]
        self._parts[-1]["annotations"] = [*annotations, annotation]
        self._tell("output_text.annotation.added", annotation_index=len(annotations), annotation=annotation)

    def told(self, status: str) -> Json:
        """Return the item as it is now."""
        content = [dict(part) for part in self._parts]
        return {"id": self.item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def _tell(self, kind: str, **fields: object) -> None:
        self._write(kind, item_id=self.item_id, content_index=len(self._parts) - 1, **fields)

    def _close(self) -> None:
        if not self._kind:
            return
        part, text = self._parts[-1], "".join(self._pieces)
        if self._kind == "refusal":
            part["refusal"] = text
            self._tell("refusal.done", refusal=text)
        else:
            part["text"] = text
            self._tell("output_text.done", text=text, logprobs=part["logprobs"])
        self._tell("content_part.done", part=dict(part))
        self._kind, self._pieces = "", []


class ReasoningItem(Item):
    """What the model thought, as far as its provider shows it: as a summary, or as the text itself."""

    def __init__(self, item_id: str, write: Write, *, as_summary: bool, sealed: bool) -> None:
        """`sealed` adds it once more in the form that callers hand back unread."""
        super().__init__(item_id, write)
        self._pieces: list[str] = []
        self._as_summary = as_summary
        self._sealed = sealed
        self._text = ""

    def think(self, piece: str) -> None:
        """Go on thinking."""
        if not self._pieces:
            part = {"type": "summary_text" if self._as_summary else "reasoning_text", "text": ""}
            self._tell("reasoning_summary_part.added" if self._as_summary else "content_part.added", part=part)
        self._pieces.append(piece)
        self._tell(f"{self._kind}.delta", delta=piece)

    def told(self, status: str) -> Json:
        """Return the item as it is now."""
        part = {"type": "summary_text" if self._as_summary else "reasoning_text", "text": self._text}
        parts = [part] if self._text else []
        item: Json = {"id": self.item_id, "type": "reasoning", "status": status}
        item["summary"] = parts if self._as_summary else []
        if not self._as_summary:
            item["content"] = parts
        if self._sealed:
            item["encrypted_content"] = seal(self._text) if self._text else None
        return item

    @property
    def _kind(self) -> str:
        return "reasoning_summary_text" if self._as_summary else "reasoning_text"

    def _tell(self, kind: str, **fields: object) -> None:
        place = "summary_index" if self._as_summary else "content_index"
        self._write(kind, item_id=self.item_id, **{place: 0}, **fields)

    def _close(self) -> None:
        self._text = "".join(self._pieces)
        self._tell(f"{self._kind}.done", text=self._text)
        part = {"type": "summary_text" if self._as_summary else "reasoning_text", "text": self._text}
        self._tell("reasoning_summary_part.done" if self._as_summary else "content_part.done", part=part)


class CallItem(Item):
    """A call of one of the caller's tools."""

    def __init__(self, item_id: str, write: Write, call_id: str, name: Name) -> None:
        """`name` is the tool as the caller knows it."""
        super().__init__(item_id, write)
        self._call_id = call_id
        self._name = name
        self._pieces: list[str] = []
        self._said = ""

    def go_on(self, piece: str) -> None:
        """Go on with the arguments; of a custom tool they can only be read when all are there."""
        self._pieces.append(piece)
        if not self._name.is_custom:
            self._write("function_call_arguments.delta", item_id=self.item_id, delta=piece)

    def told(self, status: str) -> Json:
        """Return the item as it is now."""
        custom = self._name.is_custom
        item: Json = {
            "id": self.item_id,
            "type": "custom_tool_call" if custom else "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name.name,
            "input" if custom else "arguments": self._said,
        }
        if self._name.namespace:
            item["namespace"] = self._name.namespace
        return item

    def _close(self) -> None:
        self._said = "".join(self._pieces)
        if not self._name.is_custom:
            name, said = self._name.name, self._said
            self._write("function_call_arguments.done", item_id=self.item_id, name=name, arguments=said)
            return
        self._said = custom_input(self._said)
        self._write("custom_tool_call_input.delta", item_id=self.item_id, delta=self._said)
        self._write("custom_tool_call_input.done", item_id=self.item_id, input=self._said)
