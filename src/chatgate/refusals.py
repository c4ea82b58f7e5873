"""What a caller is told when there is no answer: the shape of their surface, their language, and when to come back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from chatgate.admission.limits import retry_headers
from chatgate.i18n import language_of_header, language_of_locale
from chatgate.vocabulary.errors import CallerError, GateError, Kind, Phrase
from chatgate.vocabulary.exchange import Envelope, Reply, Surface

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from chatgate.admission.limits import Standing
    from chatgate.i18n import Catalogues
    from chatgate.protocols.openai_stream import Relay

    class Dialect(Protocol):
        """The part of a dialect that speaks of errors."""

        def status_of(self, kind: Kind) -> int:
            """Return the HTTP status for a situation."""

        def encode_error(self, error: GateError, message: str, request_id: str) -> bytes:
            """Write an error's body."""

        def encode_error_event(self, error: GateError, message: str, request_id: str, relay: Relay | None) -> bytes:
            """Write the event that ends a stream which broke; `relay` wrote what was sent of it."""


_MINUTE, _HOUR, _DAY = 60, 3600, 86400
JSON_TYPE = b"content-type: application/json\r\n"
_AUTHENTICATE = b"www-authenticate: Bearer\r\n"
_POINTLESS = b"x-should-retry: false\r\n"


class Refusals:
    """Writes refusals."""

    def __init__(
        self, catalogues: Catalogues, dialects: Mapping[Surface, Dialect], language: str, keys_url: str
    ) -> None:
        """`language` is the server's own; `keys_url` is where a person gets a key of the default provider."""
        self._catalogues = catalogues
        self._dialects = dialects
        self._language = language
        self._keys_url = keys_url

    def language_of(self, headers: Mapping[bytes, bytes], usual: str | None = None) -> str:
        """Return the language to speak: the caller's wish when it is one of ours, else `usual`, else the server's.

        `usual` is a locale's name, None when there is none.
        """
        wish = headers.get(b"accept-language")
        wished = language_of_header(wish) if wish is not None else None
        return wished or (language_of_locale(usual) if usual else None) or self._language

    def missing_key(self, surface: Surface) -> CallerError:
        """Return the refusal of a call that needs a key and brings none."""
        if surface is Surface.PLAIN:
            return CallerError(
                Kind.MISSING_KEY, "missing_key_plain", param="api_key", parameters={"url": self._keys_url}
            )
        return CallerError(Kind.MISSING_KEY, "missing_key")

    def ids_of(self, envelope: Envelope) -> bytes:
        """Return the lines that every answer carries."""
        request_id = envelope.request_id.encode()
        return b"x-request-id: %b\r\nrequest-id: %b\r\n" % (request_id, request_id)

    def body(self, surface: Surface, error: GateError, language: str, request_id: str) -> bytes:
        """Return an error's body in the shape of a surface."""
        return self._dialects[surface].encode_error(error, self._text(surface, error, language, request_id), request_id)

    def event(
        self, surface: Surface, error: GateError, language: str, request_id: str, relay: Relay | None = None
    ) -> bytes:
        """Return the event that ends a stream which broke, in the shape of a surface.

        `relay` wrote what was sent of the stream, None when nothing was.
        """
        text = self._text(surface, error, language, request_id)
        return self._dialects[surface].encode_error_event(error, text, request_id, relay)

    def reply(
        self, surface: Surface, error: GateError, language: str, envelope: Envelope, more_headers: bytes = b""
    ) -> Reply:
        """Return the whole answer that refuses a call."""
        status = self._dialects[surface].status_of(error.kind)
        headers = self.ids_of(envelope) + more_headers + JSON_TYPE
        if error.retry_after_seconds is not None:
            headers += retry_headers(error.retry_after_seconds)
        elif error.kind is Kind.INSUFFICIENT_QUOTA or error.reason == "call_exceeds_limit":
            headers += _POINTLESS
        if status == 401:  # noqa: PLR2004 - RFC 9110 section 11.6.1 wants the challenge with it
            headers += _AUTHENTICATE
        return Reply(status, headers, self.body(surface, error, language, envelope.request_id))

    def _text(self, surface: Surface, error: GateError, language: str, request_id: str) -> str:
        """Return the reason in words; what the provider said itself follows it."""
        said = error.provider_message
        if error.reason == "provider_refused" and said and surface is not Surface.PLAIN:
            return said  # Programs look for the provider's own words.
        parameters = {**error.parameters, "request_id": request_id}
        text = self._catalogues.translate(language, Phrase(error.reason, parameters))
        return f"{text} ({said})" if said and error.reason != "provider_refused" else text


def limit_reached(standing: Standing) -> CallerError:
    """Return the refusal of a call that a limit stands against."""
    rules = tuple(rule.phrase for rule in standing.reached)
    if not standing.fits:
        return CallerError(Kind.RATE_LIMIT_EXCEEDED, "call_exceeds_limit", parameters={"limits": rules})
    return CallerError(
        Kind.RATE_LIMIT_EXCEEDED,
        "rate_limit_exceeded",
        retry_after_seconds=standing.retry_after_seconds,
        parameters={"limits": rules, "wait": wait_phrase(standing.retry_after_seconds)},
    )


def wait_phrase(seconds: float) -> Phrase:
    """Return a wait in the unit that a person would use, rounded up."""
    if seconds <= 2 * _MINUTE:
        return Phrase("wait_seconds", {"seconds": max(1, math.ceil(seconds))})
    if seconds <= 2 * _HOUR:
        return Phrase("wait_minutes", {"minutes": math.ceil(seconds / _MINUTE)})
    if seconds <= 2 * _DAY:
        return Phrase("wait_hours", {"hours": math.ceil(seconds / _HOUR)})
    return Phrase("wait_days", {"days": math.ceil(seconds / _DAY)})
