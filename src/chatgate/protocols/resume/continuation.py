"""Asking a provider to continue an assistant's message, where it can."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from chatgate.protocols.resume.resumption import TELLING_CHARACTERS
from chatgate.protocols.resume.transcript import CONTENT, NULL, UNREADABLE, Transcript, prefill
from chatgate.vocabulary.document import Document
from chatgate.vocabulary.upstreams import Continuation


class _Turn(Struct):
    role: str


_encode = msgspec.json.Encoder().encode
_decode_turns = msgspec.json.Decoder(list[_Turn]).decode


def continued_body(document: Document, transcript: Transcript, continuation: Continuation) -> bytes | None:
    """Return the caller's request with the text so far as the beginning of the answer, in the provider's way.

    None when that would not be the same call: something else than text was sent or was asked for, or the caller
    already wrote the beginning, or too little was sent to tell whether the new stream repeats it. White space at the
    end of the text is left out, since some providers refuse it and others remove it in silence; the resumption expects
    it at the beginning of what comes. A limit of tokens is lowered by the number of chunks that were sent, a token
    being the least that a provider sends at a time. Read the answer with `Resumption(…, continued=True)`.
    """
    text = prefill(transcript.text)
    if len(text) < TELLING_CHARACTERS or not _said_only_content(transcript) or not _asks_for_text(document):
        return None
    message: dict[str, str | bool] = {"role": "assistant", "content": text}
    if continuation in ("prefix", "partial"):
        message[continuation] = True
    changes = {"messages": bytes(document.fields["messages"]).rstrip()[:-1] + b"," + _encode(message) + b"]"}
    if continuation == "continue_final_message":
        changes |= {"continue_final_message": b"true", "add_generation_prompt": b"false"}
    for limit in ("max_tokens", "max_completion_tokens"):
        asked = document.value(limit)
        if asked is not None:
            if type(asked) is not int or asked <= transcript.content_chunks:
                return None
            changes[limit] = b"%d" % (asked - transcript.content_chunks)
    return document.splice(changes)


def _said_only_content(transcript: Transcript) -> bool:
    plain = transcript.texts.keys() == {CONTENT} and not transcript.calls and transcript.choices == {0}
    return plain and transcript.is_resumable and not transcript.finished


def _asks_for_text(document: Document) -> bool:
    """Tell whether a request is for one plain text that no assistant's message of the caller's own begins."""
    wanted = document.value("response_format")
    if wanted is not None and not (isinstance(wanted, dict) and wanted.get("type") == "text"):
        return False
    if document.value("n") not in (None, 1) or document.value("logprobs") or document.value("audio"):
        return False
    try:
        turns = _decode_turns(document.fields.get("messages", NULL))
    except UNREADABLE:
        return False
    return bool(turns) and turns[-1].role != "assistant"
