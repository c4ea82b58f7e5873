"""An OpenAI chat's messages as the turns of a Gemini request.

Owns which part becomes which. Neighbours of one role are brought together: what several tools answered belongs in one
turn. Pure; called by `to_gemini`.
Sources (read 2026-11-23): https://ai.google.dev/api/caching#Content,
https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

import mimetypes
from urllib.parse import urlsplit

import msgspec

from chatgate.protocols.chat_body import inline_data
from chatgate.protocols.gemini.dialogue import OUTPUT
from chatgate.protocols.gemini.signatures import UNSIGNED, signature_of
from chatgate.protocols.losses import Losses
from chatgate.protocols.reading import Json, mapping, objects, required, text
from chatgate.vocabulary.errors import CallerError, Kind

_FIELDS = frozenset({"role", "content", "tool_call_id", "tool_calls", "refusal", "reasoning_content", "reasoning"})
_PARTS = frozenset({"audio", "function_call"})
_UNSAID: tuple[object, ...] = (None, [], {}, "")


def turns_of(messages: object, losses: Losses, *, wants_signatures: bool) -> tuple[list[Json], list[Json]]:
    """Return the parts of the system text and the turns.

    `wants_signatures` says that calls of tools have to be signed, if only by `UNSIGNED`. Raises `CallerError`.
    """
    system: list[Json] = []
    turns: list[Json] = []
    names: dict[str, str] = {}
    for message, path in objects(messages, "messages"):
        where, content = f"{path}.content", message.get("content")
        match message.get("role"):
            case "system" | "developer":
                if turns:
                    losses.hint(f"{path} (moved to the beginning)")
                system += _texts(content, where, losses)
            case "user":
                _add(turns, "user", _parts(content, where, losses))
            case "assistant":
                _add(turns, "model", _assistant(message, path, losses, names, wants_signatures=wants_signatures))
            case "tool":
                _add(turns, "user", [_result(message, path, losses, names)])
            case _:
                losses.part(path)
        for name, value in message.items():
            if name not in _FIELDS and value not in _UNSAID:
                note = losses.part if name in _PARTS else losses.hint
                note(f"{path}.{name}")
    if not turns:
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param="messages", parameters={"field": "messages"})
    return system, turns


def _add(turns: list[Json], role: str, parts: list[Json]) -> None:
    """Add to the last turn if it is the same one's; a turn that says nothing is left out, as it would be refused."""
    if not parts:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["parts"] += parts
    else:
        turns.append({"role": role, "parts": parts})


def _texts(content: object, path: str, losses: Losses) -> list[Json]:
    """Return what is text of a content."""
    parts = _parts(content, path, losses)
    for index, part in enumerate(parts):
        if "text" not in part:
            losses.part(f"{path}[{index}]")
    return [part for part in parts if "text" in part]


def _assistant(
    message: Json, path: str, losses: Losses, names: dict[str, str], *, wants_signatures: bool
) -> list[Json]:
    """Return an assistant's turn, and learn the names of the tools that it calls."""
    parts: list[Json] = []
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought:
        parts.append({"text": thought, "thought": True})
    parts += _parts(message.get("content"), f"{path}.content", losses)
    if message.get("refusal"):
        parts.append({"text": text(message["refusal"], f"{path}.refusal")})
    is_first = True
    for call, where in objects(message.get("tool_calls"), f"{path}.tool_calls"):
        if call.get("type", "function") != "function":
            losses.part(where)
            continue
        function = mapping(call.get("function"), f"{where}.function")
        identity, name = required(call, "id", where), required(function, "name", f"{where}.function")
        names[identity] = name
        arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
        part: Json = {"functionCall": {"id": identity, "name": name, "args": arguments}}
        signature = signature_of(call)
        if signature is None and is_first and wants_signatures:
            signature = UNSIGNED  # Of calls at the same time only the first one is signed.
        if signature is not None:
            part["thoughtSignature"] = signature
        parts.append(part)
        is_first = False
    return parts


def _arguments(value: object, path: str) -> Json:
    """Return the arguments of a call. Raises `CallerError` when they are no object."""
    written = text(value or "{}", path)
    try:
        found = msgspec.json.decode(written)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        found = None
    return mapping(found, path)


def _result(message: Json, path: str, losses: Losses, names: dict[str, str]) -> Json:
    identity = required(message, "tool_call_id", path)
    parts = _parts(message.get("content"), f"{path}.content", losses)
    response = _response("".join(part["text"] for part in parts if "text" in part))
    result: Json = {"id": identity, "name": names.get(identity, identity), "response": response}
    if files := [part for part in parts if "inlineData" in part]:
        result["parts"] = files
    for part in parts:
        if "fileData" in part:
            losses.part(f"{path}.content")
    return {"functionResponse": result}


def _response(said: str) -> Json:
    """Return what a tool answered as an object: its own, or one around the text."""
    try:
        found = msgspec.json.decode(said)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        found = None
    if isinstance(found, dict) and not (found.keys() == {OUTPUT} and isinstance(found[OUTPUT], str)):
        return found
    return {OUTPUT: said}


def _parts(content: object, path: str, losses: Losses) -> list[Json]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"text": content}]
    parts: list[Json] = []
    for part, where in objects(content, path):
        told = _part(part, where, losses)
        if told is None:
            losses.part(where)
        elif told:
            parts.append(told)
    return parts


def _part(part: Json, path: str, losses: Losses) -> Json | None:
    """Return a part; {} for an empty text, and None for what cannot be carried."""
    match part.get("type"):
        case "text" | "refusal":
            said = required(part, str(part["type"]), path)
            return {"text": said} if said else {}
        case "image_url":
            where = f"{path}.image_url"
            image = mapping(part.get("image_url"), where)
            if image.get("detail") not in (None, "auto"):
                losses.hint(f"{where}.detail")
            return _file(required(image, "url", where), "image/jpeg")
        case "input_audio":
            where = f"{path}.input_audio"
            audio = mapping(part.get("input_audio"), where)
            kind = f"audio/{required(audio, 'format', where)}"
            return {"inlineData": {"mimeType": kind, "data": required(audio, "data", where)}}
        case "file":
            data = mapping(part.get("file"), f"{path}.file").get("file_data")
            is_whole = isinstance(data, str) and inline_data(data) is not None
            return _file(str(data), "") if is_whole else None
        case _:
            return None


def _file(url: str, usual: str) -> Json:
    """Return a file that is in an URL, or where one says; `usual` is what it is taken for when nothing tells."""
    found = inline_data(url)
    if found is not None:
        return {"inlineData": {"mimeType": found[0], "data": found[1]}}
    return {"fileData": {"mimeType": mimetypes.guess_type(urlsplit(url).path)[0] or usual, "fileUri": url}}
