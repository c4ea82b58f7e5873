"""Takes secrets out of texts that leave the gateway: by value for those it knows, by shape for the rest."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "[redacted]"

MIN_SECRET_CHARACTERS = 6
"""A shorter value would match ordinary words; no provider issues one."""

_KEY_SHAPE = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|key|api|tok|hf|AIza|Bearer)[-_ ][A-Za-z0-9_\-.*]{6,}[A-Za-z0-9_\-*]|AIza[A-Za-z0-9_\-]{10,}"
)
_URL = re.compile(r"\b(?:https?|socks5h?)://[^\s\"'<>)\]]+")


class Redaction:
    """Knows the secrets of the configuration, in the forms in which they turn up in texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Take the secrets that were loaded; their URL-encoded and base64 forms are known too."""
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
            encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
            forms |= {secret, quote(secret, safe=""), encoded}
    return tuple(sorted(forms, key=len, reverse=True))
