"""What Gemini's answers and OpenAI's say in numbers and single words, both ways: tokens, reasons to stop, likelihoods.

Pure; whole answers and streams use the same tables.
Sources (read 2026-11-23): https://ai.google.dev/api/generate-content#UsageMetadata and #FinishReason,
https://platform.openai.com/docs/api-reference/chat/object.
"""

from __future__ import annotations

from chatgate.protocols.reading import Json

BLOCKED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    }
)
"""Reasons to stop that are about what was said."""

BROKEN = frozenset(
    {
        "OTHER",
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
        "IMAGE_OTHER",
        "NO_IMAGE",
    }
)
"""Reasons to stop by which an answer failed: what there is of it is not to be taken for whole."""

_TO_GEMINI = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


def finish_reason(reason: object, *, calls: bool) -> str:
    """Return OpenAI's word for why an answer ended; `calls` says that it calls tools.

    What is unknown is taken for the usual end.
    """
    if reason == "MAX_TOKENS":
        return "length"
    if reason in BLOCKED:
        return "content_filter"
    return "tool_calls" if calls else "stop"


def gemini_reason(reason: object, *, refused: bool) -> str:
    """Return Gemini's word for why an answer ended."""
    return "SAFETY" if refused else _TO_GEMINI.get(str(reason), "STOP")


def _count(source: object, name: str) -> int:
    value = source.get(name) if isinstance(source, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _of_modality(usage: Json, name: str, modality: str) -> int:
    details = usage.get(name)
    found = details if isinstance(details, list) else []
    return sum(
        _count(each, "tokenCount") for each in found if isinstance(each, dict) and each.get("modality") == modality
    )


def to_openai_usage(usage: object) -> Json | None:
    """Return Gemini's counts as OpenAI's, whose output has the thoughts in it; None when there is no count."""
    if not isinstance(usage, dict) or "promptTokenCount" not in usage:
        return None
    thoughts = _count(usage, "thoughtsTokenCount")
    sent, answered = usage["promptTokenCount"], usage.get("candidatesTokenCount", 0)
    if isinstance(sent, int):
        sent += _count(usage, "toolUsePromptTokenCount")
    if isinstance(answered, int):
        answered += thoughts
    told: Json = {"prompt_tokens": sent, "completion_tokens": answered}
    if isinstance(sent, int) and isinstance(answered, int):
        told["total_tokens"] = sent + answered
    told["prompt_tokens_details"] = {
        "cached_tokens": _count(usage, "cachedContentTokenCount"),
        "audio_tokens": _of_modality(usage, "promptTokensDetails", "AUDIO"),
    }
    told["completion_tokens_details"] = {
        "reasoning_tokens": thoughts,
        "audio_tokens": _of_modality(usage, "candidatesTokensDetails", "AUDIO"),
    }
    return told


def to_gemini_usage(usage: object) -> Json:
    """Return OpenAI's counts as Gemini's; what is not known is left out."""
    if not isinstance(usage, dict):
        return {}
    sent, answered = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    thoughts = _count(usage.get("completion_tokens_details"), "reasoning_tokens")
    told = {
        "promptTokenCount": sent,
        "candidatesTokenCount": max(answered - thoughts, 0),
        "totalTokenCount": sent + answered,
    }
    if cached := _count(usage.get("prompt_tokens_details"), "cached_tokens"):
        told["cachedContentTokenCount"] = cached
    if thoughts:
        told["thoughtsTokenCount"] = thoughts
    return told


# --- Likelihoods ------------------------------------------------------------------------------------------------------


def to_openai_logprobs(result: object) -> Json | None:
    """Return Gemini's likelihoods as OpenAI's, None when there are none."""
    if not isinstance(result, dict) or not isinstance(result.get("chosenCandidates"), list):
        return None
    tops = result.get("topCandidates")
    content = []
    for index, chosen in enumerate(result["chosenCandidates"]):
        told = _openai_token(chosen)
        beside = tops[index] if isinstance(tops, list) and index < len(tops) else {}
        others = beside.get("candidates") if isinstance(beside, dict) else None
        told["top_logprobs"] = [_openai_token(each) for each in others or ()]
        content.append(told)
    return {"content": content, "refusal": None}


def _openai_token(token: object) -> Json:
    found = token if isinstance(token, dict) else {}
    said = str(found.get("token", ""))
    return {"token": said, "logprob": found.get("logProbability", 0.0), "bytes": list(said.encode())}


def to_gemini_logprobs(logprobs: object) -> Json | None:
    """Return OpenAI's likelihoods as Gemini's, None when there are none."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return None
    tokens = [each for each in content if isinstance(each, dict)]
    return {
        "chosenCandidates": [_gemini_token(each) for each in tokens],
        "topCandidates": [
            {"candidates": [_gemini_token(top) for top in each.get("top_logprobs") or () if isinstance(top, dict)]}
            for each in tokens
        ],
    }


def _gemini_token(token: Json) -> Json:
    return {"token": token.get("token", ""), "logProbability": token.get("logprob", 0.0)}
