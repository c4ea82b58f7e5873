"""Takes secrets out of texts that leave the gateway: by value for those it knows, by shape for the rest."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASK = "[redacted]"

MIN_SECRET_CHARACTERS = 6
"""A shorter value would match ordinary words; no provider issues one."""

_KEY_SHAPE = re.compile(
    r"""
    \bsk-[\w\-.*]{5,}[\w\-*]
    | (?<![\w\-.*])(?:pk|rk|gsk|xai|hf|nvapi|key|api|tok)[-_](?=[\w\-.]*[\d*])[\w\-.*]{6,}[\w\-*]
    | \bAIza[\w\-*]{10,}
    | (?<![\w\-.])eyJ[\w\-]{8,}+\.[\w\-]++\.[\w\-]*
    | (?i:\bbearer)[ ]++(?=\S*[\d*])[^\s"'<>]{6,}
    """,
    re.VERBOSE | re.ASCII,
)
_URL = re.compile(r"\b(?:https?|wss?|socks5h?)://(?:\[[^\s\]]*\])?[^\s\"'<>)\]]*", re.IGNORECASE)
_URL_SAFE = str.maketrans("+/", "-_")


class Redaction:
    """Knows the secrets of the configuration, in the forms in which they turn up in texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Take the secrets that were loaded; their forms in URLs, base64 and JSON are known too."""
        self._forms = _forms_of(secrets)

    def text(self, text: str, *more: str) -> str:
        """Return the text without secrets, without anything shaped like a key, and without URLs.

        `more` are secrets of this call, such as the caller's own key.
        """
        for form in (*self._forms, *_forms_of(more)):
            text = text.replace(form, MASK)
        return _KEY_SHAPE.sub(MASK, _URL.sub(MASK, text))

    def known(self, line: bytes) -> bytes:
        """Return a log line without the secrets of the configuration."""
        for form in self._forms:
            line = line.replace(form.encode(), MASK.encode())
        return line


def _forms_of(secrets: Iterable[str]) -> tuple[str, ...]:
    forms: set[str] = set()
    for secret in secrets:
        if len(secret) >= MIN_SECRET_CHARACTERS:
            forms |= {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], *_base64_forms(secret.encode())}
    return tuple(sorted(forms, key=len, reverse=True))


def _base64_forms(secret: bytes) -> Iterator[str]:
    """Yield the letters that stand for a secret inside of any longer text in base64, whatever comes around it."""
    for before in range(3):
        whole = (before + len(secret)) * 4 // 3
        letters = base64.b64encode(bytes(before) + secret).decode()[-(-before * 4 // 3) : whole]
        yield letters
        yield letters.translate(_URL_SAFE)
