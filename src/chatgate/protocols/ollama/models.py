"""Ollama's lists of models, written for callers from OpenAI's entries; and the version.

Nothing is loaded here and nothing has a size: what the gateway does not know stands as empty as Ollama has it for
models that run elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from chatgate.protocols import document as documents
from chatgate.protocols.ollama.answer import moment
from chatgate.protocols.openai_models import Entry
from chatgate.protocols.reading import Json
from chatgate.vocabulary.errors import CallerError, Kind

API_VERSION: Final = "0.12.11"
"""The release whose protocol is spoken: clients ask for one that has what they need."""

VERSION: Final = msgspec.json.encode({"version": API_VERSION})
RUNNING: Final = msgspec.json.encode({"models": []})
_MAX_TIME: Final = 253_402_300_799
_DETAILS: Final[Json] = {
    "parent_model": "",
    "format": "",
    "family": "",
    "families": None,
    "parameter_size": "",
    "quantization_level": "",
}


class _Asked(Struct):
    model: str | None = None
    name: str | None = None


def encode_list(entries: Sequence[Entry]) -> bytes:
    """Write the list."""
    models = [
        {
            "name": each["id"],
            "model": each["id"],
            "modified_at": _modified_at(each),
            "size": 0,
            "digest": "",
            "details": _DETAILS,
        }
        for each in entries
    ]
    return msgspec.json.encode({"models": models})


def encode_entry(found: Entry) -> bytes:
    """Write what is told of one model. What it can do is what the gateway carries; the model may do less."""
    return msgspec.json.encode(
        {
            "modelfile": "",
            "parameters": "",
            "template": "",
            "details": _DETAILS,
            "model_info": {},
            "capabilities": ["completion", "tools"],
            "modified_at": _modified_at(found),
        }
    )


def asked_model(body: bytes) -> str:
    """Return which model a caller asks about. Raises `CallerError`."""
    checked = documents.parse(body)
    try:
        asked = msgspec.json.decode(checked.body, type=_Asked)
    except msgspec.ValidationError as error:
        raise documents.refusal_of(error) from None
    name = asked.model or asked.name
    if not name:
        raise CallerError(Kind.INVALID_VALUE, "missing_field", param="model", parameters={"field": "model"})
    return name


def _modified_at(entry: Entry) -> str:
    created = entry.get("created")
    return moment(created if isinstance(created, int) and 0 <= created <= _MAX_TIME else 0)
