"""Puts a call to an upstream: the head from parts that are prepared once, the body from the caller's or from the chat.

Only headers named here are ever sent; nothing of the caller's head goes upstream.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import structs

from chatgate import __version__
from chatgate.vocabulary.exchange import OutboundRequest

if TYPE_CHECKING:
    from chatgate.vocabulary.upstreams import Origin, Timeouts, Upstream

_USER_AGENT = f"chatgate/{__version__}"


class Requests:
    """Writes the requests to one upstream."""

    __slots__ = ("_auth", "_chat", "_models", "_timeouts", "upstream")

    def __init__(self, upstream: Upstream, timeouts: Timeouts) -> None:
        """Prepare what every request to this upstream has in common."""
        self.upstream = upstream
        self._timeouts = timeouts
        self._auth = upstream.auth
        common = f"Host: {_host(upstream.origin)}\r\nUser-Agent: {_USER_AGENT}\r\nAccept-Encoding: identity\r\n"
        self._chat = (
            f"POST {upstream.base_path}/chat/completions HTTP/1.1\r\n{common}"
            "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        ).encode()
        self._models = f"GET {upstream.base_path}/models HTTP/1.1\r\n{common}Accept: application/json\r\n".encode()

    def chat(
        self, body: bytes, secret: str, left_seconds: float | None = None, patience_seconds: float | None = None
    ) -> OutboundRequest:
        """Return the request for a chat; `secret` is the key to show, "" for none.

        `left_seconds` is what is left of the call's time, None when all of it is; `patience_seconds` how long it may
        take to connect, and again to say the first word, None for as long as is configured.
        """
        head = b"%b%bContent-Length: %d\r\n\r\n" % (self._chat, _authorization(self._auth, secret), len(body))
        timeouts = self._timeouts
        if left_seconds is not None:
            timeouts = structs.replace(timeouts, total_seconds=left_seconds)
        if patience_seconds is not None:
            timeouts = structs.replace(
                timeouts,
                connect_seconds=min(timeouts.connect_seconds, patience_seconds),
                first_token_seconds=min(timeouts.first_token_seconds, patience_seconds),
            )
        return OutboundRequest(self.upstream.origin, head, body, timeouts)

    def models(self, secret: str, timeouts: Timeouts) -> OutboundRequest:
        """Return the request for the list of models."""
        head = b"%b%b\r\n" % (self._models, _authorization(self._auth, secret))
        return OutboundRequest(self.upstream.origin, head, b"", timeouts)


@lru_cache(maxsize=1024)
def _authorization(auth: str, secret: str) -> bytes:
    """Return the line that shows a key, b"" when there is none to show."""
    return auth.replace("{key}", secret).encode("ascii") + b"\r\n" if secret else b""


def _host(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    usual = 443 if origin.scheme == "https" else 80
    return host if origin.port == usual else f"{host}:{origin.port}"
