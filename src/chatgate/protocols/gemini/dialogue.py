"""The turns of a Gemini request as an OpenAI chat's messages.

Owns which part becomes which, and how calls of tools and their answers find each other: Gemini's may come without ids,
and are then told apart by their names and their order. Pure; called by `from_gemini`.
Source: https://ai.google.dev/api/caching#Content (read 2026-11-23).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import msgspec

from chatgate.protocols.chat_body import joined
from chatgate.protocols.gemini.fields import fields, listed
from chatgate.protocols.gemini.signatures import extra_content, is_signature
from chatgate.protocols.reading import Json, mapping, required, text
from chatgate.vocabulary.errors import CallerError, Kind

if TYPE_CHECKING:
    from chatgate.protocols.losses import Losses

OUTPUT = "output"
"""Under this name a text stands that a tool answered: its answers have to be objects."""

_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mp3": "mp3", "audio/mpeg": "mp3"}
_KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse")
_SAYS_NOTHING = frozenset({"thought", "thoughtSignature", "partMetadata"})
"""What a part has in which the model only signs."""

_GOOGLES = "https://generativelanguage.googleapis.com/"
_FILES_FOLLOW = "The tool's images and files follow."
_CALL_FIELDS = frozenset({"id", "name", "args"})
_RESULT_FIELDS = frozenset({"id", "name", "response", "parts"})


def messages_of(asked: Json, losses: Losses, *, extended: bool) -> list[Json]:
    """Return the messages; `extended` as for the request. Raises `CallerError` where there is no turn."""
    dialogue = _Dialogue(losses, extended=extended)
    if asked.get("systemInstruction") is not None:
        dialogue.system(asked["systemInstruction"])
    for content, path in listed(asked.get("contents"), "contents"):
        if content.get("role") == "model":
            dialogue.model(content, path)
        else:
            dialogue.user(content, path)
    if all(message["role"] == "system" for message in dialogue.messages):
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param="contents", parameters={"field": "contents"})
    return dialogue.messages


class _Dialogue:
    """The messages so far, and the calls of tools that have no answer yet."""

    def __init__(self, losses: Losses, *, extended: bool) -> None:
        self.messages: list[Json] = []
        self._losses = losses
        self._extended = extended
        self._open: list[tuple[str, str]] = []
        self._calls = 0

    def system(self, content: object) -> None:
        """Take what the model is told beforehand: texts."""
        texts = []
        for part, where in _parts(fields(content, "systemInstruction"), "systemInstruction"):
            if "text" in part:
                texts.append(text(part["text"], f"{where}.text"))
                self._note_rest(part, where, "text")
            else:
                self._losses.part(where)
        if texts:
            self.messages.append({"role": "system", "content": "\n\n".join(texts)})

    def model(self, content: Json, path: str) -> None:
        """Take a turn of the model's."""
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[Json] = []
        for part, where in _parts(content, path):
            if "functionCall" in part:
                calls.append(self._call(part, where))
            elif part.keys() <= _SAYS_NOTHING:
                self._note_rest(part, where, "thought")
            elif "text" not in part:
                self._losses.part(where)
            elif not part.get("thought"):
                texts.append(text(part["text"], f"{where}.text"))
                self._note_rest(part, where, "text", "thought")
            elif self._extended:
                thoughts.append(text(part["text"], f"{where}.text"))
                self._note_rest(part, where, "text", "thought")
            else:
                self._losses.hint(f"{where} (thought)")
        if not texts and not thoughts and not calls:
            return
        message: Json = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        if calls:
            message["tool_calls"] = calls
        self.messages.append(message)

    def user(self, content: Json, path: str) -> None:
        """Take a turn of the user's: first what the tools answered, a message each, then the rest as one message."""
        parts: list[Json] = []
        found = _parts(content, path)
        results = 0
        for part, where in found:
            if "functionResponse" in part:
                results += 1
                parts += self._result(part, where)
            else:
                parts += self._part(part, where)
        if parts or not results:
            self.messages.append({"role": "user", "content": joined(parts)})

    def _call(self, part: Json, path: str) -> Json:
        where = f"{path}.functionCall"
        call = fields(part["functionCall"], where)
        name = required(call, "name", where)
        self._calls += 1
        identity = call.get("id") or f"call_{self._calls}"
        self._open.append((text(identity, f"{where}.id"), name))
        arguments = msgspec.json.encode(mapping(call.get("args") or {}, f"{where}.args")).decode()
        told: Json = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
        known = ["functionCall", "thoughtSignature"]
        if is_signature(part.get("thoughtSignature")):
            if self._extended:
                told["extra_content"] = extra_content(part["thoughtSignature"])
            else:
                known.pop()
        self._note_rest(part, path, *known)
        self._hint(call, where, _CALL_FIELDS)
        return told

    def _result(self, part: Json, path: str) -> list[Json]:
        """Add a tool's answer; return its images and files, which only a user's message can hold."""
        where = f"{path}.functionResponse"
        result = fields(part["functionResponse"], where)
        parts = []
        for each, at in listed(result.get("parts"), f"{where}.parts"):
            parts += self._part(each, at)
        said = _said(mapping(result.get("response") or {}, f"{where}.response"))
        if parts and said == "{}":
            said = _FILES_FOLLOW
        identity = self._identity(result, where)
        self.messages.append({"role": "tool", "tool_call_id": identity, "content": said})
        self._note_rest(part, path, "functionResponse")
        self._hint(result, where, _RESULT_FIELDS)
        return parts

    def _identity(self, result: Json, path: str) -> str:
        """Return the id of the call that is answered: the same id, else the first open call of that name."""
        name, asked = required(result, "name", path), result.get("id")
        for each in self._open:
            if asked == each[0] or (not asked and each[1] == name):
                self._open.remove(each)
                return each[0]
        return text(asked, f"{path}.id") if asked else f"call_{name}"

    def _part(self, part: Json, path: str) -> list[Json]:
        """Return a part of a user's as parts; none when it cannot be carried."""
        kind = next((each for each in _KINDS if each in part), None)
        told: Json | None = None
        if kind == "text" and not part.get("thought"):
            told = {"type": "text", "text": text(part["text"], f"{path}.text")}
        elif kind == "inlineData":
            told = _inline(fields(part[kind], f"{path}.{kind}"), f"{path}.{kind}")
        elif kind == "fileData":
            told = _file(fields(part[kind], f"{path}.{kind}"), f"{path}.{kind}")
        if told is None or kind is None:
            self._losses.part(path)
            return []
        self._note_rest(part, path, kind)
        return [told]

    def _note_rest(self, part: Json, path: str, *known: str) -> None:
        """Note what a part says besides what is carried."""
        for name, value in part.items():
            if name in known or value in (None, "", {}, False):
                continue
            if name == "videoMetadata":
                self._losses.part(f"{path}.{name}")
            else:
                self._losses.hint(f"{path}.{name}")

    def _hint(self, message: Json, path: str, known: frozenset[str]) -> None:
        for name in message:
            if name not in known:
                self._losses.hint(f"{path}.{name}")


def _parts(content: Json, path: str) -> list[tuple[Json, str]]:
    return listed(content.get("parts"), f"{path}.parts")


def _said(response: Json) -> str:
    """Return what a tool answered as a text: that of the one field which texts stand in, or the object."""
    if response.keys() == {OUTPUT} and isinstance(response[OUTPUT], str):
        return str(response[OUTPUT])
    return msgspec.json.encode(response).decode()


def _inline(blob: Json, path: str) -> Json | None:
    """Return a file that is in the request, None when a chat has no place for its type."""
    kind, data = required(blob, "mimeType", path), required(blob, "data", path)
    # Protobuf takes base64 of either alphabet, and OpenAI's only the usual one.
    data = data.replace("-", "+").replace("_", "/")
    url = f"data:{kind};base64,{data}"
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if kind in _AUDIO:
        return {"type": "input_audio", "input_audio": {"data": data, "format": _AUDIO[kind]}}
    if kind == "application/pdf":
        named = blob.get("displayName") or "document.pdf"
        return {"type": "file", "file": {"filename": named, "file_data": url}}
    if kind.startswith("text/"):
        return _text_file(data)
    return None


def _text_file(data: str) -> Json | None:
    try:
        return {"type": "text", "text": base64.b64decode(data, validate=True).decode()}
    except (binascii.Error, ValueError):
        return None


def _file(file: Json, path: str) -> Json | None:
    """Return a file that is elsewhere, None when only Google can get it, or when it is no image."""
    uri, kind = required(file, "fileUri", path), str(file.get("mimeType") or "")
    if not uri.startswith(("https://", "http://")) or uri.startswith(_GOOGLES) or not kind.startswith("image/"):
        return None
    return {"type": "image_url", "image_url": {"url": uri}}
