"""Signatures by which Gemini's models know their own thoughts again.

Since Gemini 3 the first call of a tool in an answer has to come back with the signature that it was sent with. In a
chat a signature stands where Google's own OpenAI-compatible address puts it. Calls that no Gemini model made bear a
word that Google takes for one.
Source: https://ai.google.dev/gemini-api/docs/thought-signatures (read 2026-11-23).
"""

from __future__ import annotations

from chatgate.protocols.reading import Json

UNSIGNED = "skip_thought_signature_validator"
"""What stands for the signature of a call that no Gemini model has signed."""

_SLASHED = UNSIGNED.replace("_", "/")
"""The same after it was read as base64 and written again in the other alphabet."""


def is_signature(value: object) -> bool:
    """Tell whether a value is the signature of a Gemini model."""
    return isinstance(value, str) and value not in ("", UNSIGNED, _SLASHED)


def extra_content(signature: object) -> Json:
    """Return what a call in a chat says besides, with a signature in it."""
    return {"google": {"thought_signature": signature}}


def signature_of(call: Json) -> str | None:
    """Return the signature of a call in a chat, None when there is none."""
    match call.get("extra_content"):
        case {"google": {"thought_signature": str(signature)}} if signature:
            return signature
        case _:
            return None
