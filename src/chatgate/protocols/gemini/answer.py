"""Whole answers, both ways: Gemini's response and OpenAI's completion.

Pure. The streams use the same parts.
Sources (read 2026-11-23): https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse,
https://platform.openai.com/docs/api-reference/chat/object.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw, Struct

from chatgate.protocols.chat_body import inline_data
from chatgate.protocols.gemini.counts import (
    BROKEN,
    finish_reason,
    gemini_reason,
    to_gemini_logprobs,
    to_gemini_usage,
    to_openai_logprobs,
    to_openai_usage,
)
from chatgate.protocols.gemini.signatures import UNSIGNED, extra_content, is_signature, signature_of
from chatgate.protocols.reading import Json
from chatgate.vocabulary.errors import UpstreamError

BLOCK_CODE = "content_filter"
"""The code of an error that is about what was asked."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode_object = msgspec.json.Decoder(Json).decode


def completion_id(identity: object) -> str:
    """Return an id of a completion as OpenAI's look."""
    told = identity if isinstance(identity, str) and identity else "0"
    return told if told.startswith("chatcmpl-") else f"chatcmpl-{told}"


def response_id(identity: object) -> str:
    """Return an id of a response as Gemini's look."""
    told = identity if isinstance(identity, str) and identity else "0"
    return told.removeprefix("chatcmpl-")


def candidate(index: int, parts: list[Json], finish: str | None = None) -> Json:
    """Return a candidate, or what a piece of a stream says of one."""
    told: Json = {"content": {"parts": parts, "role": "model"}}
    if finish is not None:
        told["finishReason"] = finish
    told["index"] = index
    return told


# --- OpenAI to Gemini -------------------------------------------------------------------------------------------------


class Function(Struct, gc=False):
    """A function as a call names it, or as a piece of a stream does."""

    name: str | None = None
    arguments: str | None = None


class Call(Struct, gc=False):
    """A call of a tool, or a piece of one."""

    index: int = 0
    id: str | None = None
    function: Function | None = None
    extra_content: Any = None


class _Said(Struct):
    content: Any = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[Call] | None = None
    images: Any = None


class _Choice(Struct):
    message: _Said
    index: int = 0
    finish_reason: str | None = None
    logprobs: Any = None


class _Completion(Struct):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    usage: Any = None


_decode_completion = msgspec.json.Decoder(_Completion).decode


def to_response(body: bytes, model: str, *, shows_thoughts: bool) -> bytes:
    """Write a completion as a response. Raises `UpstreamError` when it is none.

    `model` is reported when the provider does not say which one answered. `shows_thoughts` says that the caller wants
    to see them.
    """
    try:
        completion = _decode_completion(body)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    candidates = [_candidate(choice, shows_thoughts=shows_thoughts) for choice in completion.choices]
    return msgspec.json.encode(response_of(completion.id, completion.model or model, candidates, completion.usage))


def response_of(identity: object, model: str, candidates: list[Json], usage: object = None) -> Json:
    """Return a response, or a piece of one; `usage` is OpenAI's."""
    told: Json = {"candidates": candidates}
    if counted := to_gemini_usage(usage):
        told["usageMetadata"] = counted
    return {**told, "modelVersion": model, "responseId": response_id(identity)}


def _candidate(choice: _Choice, *, shows_thoughts: bool) -> Json:
    said = choice.message
    parts: list[Json] = []
    thought = said.reasoning_content or said.reasoning
    if shows_thoughts and isinstance(thought, str) and thought:
        parts.append({"text": thought, "thought": True})
    parts += [{"text": text} for text in (_text_of(said.content), said.refusal) if text]
    parts += images_in(said.images)
    parts += call_parts(said.tool_calls or ())
    finish = gemini_reason(choice.finish_reason, refused=bool(said.refusal))
    told = candidate(choice.index, parts or [{"text": ""}], finish)
    if (likely := to_gemini_logprobs(choice.logprobs)) is not None:
        told["logprobsResult"] = likely
    return told


def call_parts(calls: Iterable[Call]) -> list[Json]:
    """Return whole calls of tools as parts, the first one signed. Raises `UpstreamError` when one is none.

    Gemini refuses a dialogue in which it is not, and the caller may go on with Gemini.
    """
    parts = [_call_part(call) for call in calls]
    if parts:
        parts[0].setdefault("thoughtSignature", UNSIGNED)
    return parts


def _call_part(call: Call) -> Json:
    function = call.function or Function()
    try:
        arguments = _decode_object(function.arguments or "{}")
    except (*_UNREADABLE, UnicodeEncodeError):
        raise UpstreamError("upstream_bad_answer") from None
    if not function.name:
        raise UpstreamError("upstream_bad_answer")
    told: Json = {"functionCall": {"id": call.id or f"call_{call.index}", "name": function.name, "args": arguments}}
    signature = signature_of({"extra_content": call.extra_content})
    if signature is not None:
        told["thoughtSignature"] = signature
    return told


def images_in(images: object) -> list[Json]:
    """Return the images that some servers put beside a message."""
    parts = []
    for each in images if isinstance(images, list) else ():
        match each:
            case {"image_url": {"url": str(url)}} if (found := inline_data(url)) is not None:
                parts.append({"inlineData": {"mimeType": found[0], "data": found[1]}})
    return parts


def _text_of(content: object) -> str:
    """Return what is said: a text, or the texts of parts, as some servers answer."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


# --- Gemini to OpenAI -------------------------------------------------------------------------------------------------


def to_completion(body: bytes, created: int) -> bytes:
    """Write a response as a completion; `created` is Unix time. Raises `UpstreamError` when it is no response.

    A body with an error in it, or one that says that the question was blocked, becomes an OpenAI body with an error.
    """
    try:
        response = _decode_object(body)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    error = error_in(response)
    if error is not None:
        return msgspec.json.encode({"error": error})
    candidates = response.get("candidates")
    if not isinstance(candidates, list) or not all(isinstance(each, dict) for each in candidates):
        raise UpstreamError("upstream_bad_answer")
    identity = response.get("responseId")
    choices = [_choice(each, index, identity) for index, each in enumerate(candidates)]
    model = response.get("modelVersion")
    return msgspec.json.encode(
        {
            "id": completion_id(identity),
            "object": "chat.completion",
            "created": created,
            "model": model if isinstance(model, str) else "",
            "choices": choices,
            "usage": to_openai_usage(response.get("usageMetadata")),
        }
    )


def usage_in(body: bytes) -> Raw:
    """Return what a response that passes says it took, as OpenAI's. Raises `UpstreamError` when it is no response.

    What is wrong with its answer, or with what was asked, is the caller's to read.
    """
    try:
        response = _decode_object(body)
    except _UNREADABLE:
        raise UpstreamError("upstream_bad_answer") from None
    if isinstance(response.get("error"), dict):
        error = error_in(response) or {}
        broken = UpstreamError("upstream_error_event", provider_message=error.get("message"))
        broken.provider_code = error.get("code")
        raise broken
    if not isinstance(response.get("candidates"), list) and block_reason(response) is None:
        raise UpstreamError("upstream_bad_answer")
    return Raw(msgspec.json.encode(to_openai_usage(response.get("usageMetadata"))))


def error_in(response: Json) -> Json | None:
    """Return what is wrong with an answer as OpenAI's error, None when nothing is."""
    error = response.get("error")
    if isinstance(error, dict):
        return {"message": str(error.get("message") or ""), "code": str(error.get("status") or error.get("code"))}
    found = response.get("candidates")
    for each in found if isinstance(found, list) else ():
        ended = each.get("finishReason") if isinstance(each, dict) else None
        if ended in BROKEN:
            said = each.get("finishMessage")
            return {"message": said if isinstance(said, str) and said else str(ended), "code": str(ended)}
    blocked = block_reason(response)
    return None if blocked is None else {"message": f"The prompt was blocked: {blocked}", "code": BLOCK_CODE}


def block_reason(response: Json) -> str | None:
    """Return why the question was blocked, None when it was not."""
    feedback = response.get("promptFeedback")
    blocked = feedback.get("blockReason") if isinstance(feedback, dict) else None
    return str(blocked) if blocked and not response.get("candidates") else None


def _choice(found: Json, index: int, identity: object) -> Json:
    texts, thoughts = [], []
    calls: list[Json] = []
    images: list[Json] = []
    for part in parts_of(found):
        match part:
            case {"functionCall": {"name": str(_)}}:
                calls.append(openai_call(part, identity, len(calls)))
            case {"text": str(text), "thought": True}:
                thoughts.append(text)
            case {"text": str(text)}:
                texts.append(text)
            case {"inlineData": {"mimeType": str(kind), "data": str(data)}}:
                images.append(openai_image(kind, data))
    content = "".join(texts) if texts or not calls else None
    message: Json = {"role": "assistant", "content": content, "refusal": None}
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    if images:
        message["images"] = images
    return {
        "index": found.get("index", index),
        "message": message,
        "logprobs": to_openai_logprobs(found.get("logprobsResult")),
        "finish_reason": finish_reason(found.get("finishReason"), calls=bool(calls)),
    }


def parts_of(found: Json) -> list[Json]:
    """Return the parts of a candidate. Raises `UpstreamError` when they are none."""
    content = found.get("content") or {}
    parts = content.get("parts") or [] if isinstance(content, dict) else None
    if not isinstance(parts, list) or not all(isinstance(each, dict) for each in parts):
        raise UpstreamError("upstream_bad_answer")
    return parts


def openai_call(part: Json, identity: object, number: int) -> Json:
    """Return a part that calls a tool as OpenAI's call; one without an id gets one of the answer's and its number."""
    call = part["functionCall"]
    arguments = msgspec.json.encode(call.get("args") or {}).decode()
    told: Json = {
        "id": call.get("id") or f"call_{response_id(identity)}_{number}",
        "type": "function",
        "function": {"name": call["name"], "arguments": arguments},
    }
    if is_signature(part.get("thoughtSignature")):
        told["extra_content"] = extra_content(part["thoughtSignature"])
    return told


def openai_image(kind: str, data: str) -> Json:
    """Return an image as servers that answer with images put it beside a message."""
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
