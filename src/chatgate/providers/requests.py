"""Puts a call to an upstream: the head from parts that are prepared once, the body from the caller's or from the chat.

Only headers named here are ever sent; nothing of the caller's head goes upstream.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from chatgate import __version__
from chatgate.vocabulary.exchange import OutboundRequest
from chatgate.vocabulary.upstreams import BEARER

if TYPE_CHECKING:
    from chatgate.protocols.counting import Question
    from chatgate.vocabulary.upstreams import Origin, Protocol, Timeouts, Upstream

_USER_AGENT = f"chatgate/{__version__}"


class Requests:
    """Writes the requests to one upstream."""

    __slots__ = ("_auth", "_begin", "_chat_path", "_models", "_origin", "_posted", "_root", "_timeouts", "upstream")

    def __init__(self, upstream: Upstream, timeouts: Timeouts) -> None:
        """Prepare what every request to this upstream has in common."""
        self.upstream = upstream
        self._origin = upstream.origin
        self._timeouts = timeouts
        self._auth = upstream.auth
        common = f"Host: {_host(upstream.origin)}\r\nUser-Agent: {_USER_AGENT}\r\nAccept-Encoding: identity\r\n"
        manner = _MANNERS[upstream.protocol]
        root = upstream.base_path
        if manner.is_unversioned:
            root = root.removesuffix("/v1")  # That is where the same server speaks OpenAI's protocol.
        if manner.version and _VERSION.search(root) is None:
            root += manner.version  # Its clients' base URLs come without.
        self._root = root
        self._chat_path = manner.chat
        self._posted = (
            f"HTTP/1.1\r\n{common}Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        )
        self._models = f"GET {root}{manner.models} HTTP/1.1\r\n{common}Accept: application/json\r\n".encode()
        self._models += manner.models_lines
        # Some paths hold the model's name, and it and the key may be the caller's to choose: not all are kept forever.
        self._begin = lru_cache(maxsize=_MAX_BEGINNINGS)(self._beginning)

    def chat(
        self,
        body: bytes,
        secret: str,
        left_seconds: float | None = None,
        patience_seconds: float | None = None,
        path: str = "",
    ) -> OutboundRequest:
        """Return the request for a chat; `secret` is the key to show, "" for none.

        `left_seconds` is what is left of the call's time, None when all of it is; `patience_seconds` how long it may
        take to connect, and again to say the first word, None for as long as is configured.
        `path` is where it goes below the base URL, "" for where chats go.
        """
        head = b"%bContent-Length: %d\r\n\r\n" % (self._begin(path, secret), len(body))
        timeouts = self._timeouts
        if left_seconds is not None:
            timeouts = structs.replace(timeouts, total_seconds=left_seconds)
        if patience_seconds is not None:
            timeouts = structs.replace(
                timeouts,
                connect_seconds=min(timeouts.connect_seconds, patience_seconds),
                first_token_seconds=min(timeouts.first_token_seconds, patience_seconds),
            )
        return OutboundRequest(self._origin, head, body, timeouts)

    def _beginning(self, path: str, secret: str) -> bytes:
        """Return the head of a request up to the key that is shown; "" is the path where chats go."""
        line = f"POST {self._root}{path or self._chat_path} {self._posted}"
        return line.encode() + _authorization(self._auth, secret)

    def count_tokens(self, question: Question, secret: str, timeouts: Timeouts) -> OutboundRequest:
        """Return the request that asks for a count of tokens."""
        begin = self._begin(question.path, secret)
        head = b"%b%bContent-Length: %d\r\n\r\n" % (begin, question.lines, len(question.body))
        return OutboundRequest(self._origin, head, question.body, timeouts)

    def models(self, secret: str, timeouts: Timeouts) -> OutboundRequest:
        """Return the request for the list of models."""
        head = b"%b%b\r\n" % (self._models, _authorization(self._auth, secret))
        return OutboundRequest(self._origin, head, b"", timeouts)


def _authorization(auth: str, secret: str) -> bytes:
    """Return the line that shows a key, b"" when there is none to show."""
    if secret.startswith(_LOGIN_PREFIX):
        auth = BEARER
    return auth.replace("{key}", secret).encode("ascii") + b"\r\n" if secret else b""


class _Manner(Struct, frozen=True):
    """Where the operations of a protocol are. `version` is a path that its base URLs may come without."""

    chat: str
    models: str
    version: str = ""
    is_unversioned: bool = False
    models_lines: bytes = b""


_LOGIN_PREFIX = "sk-ant-oat"
"""How tokens begin that a login at Anthropic gives; they are no keys, and are shown as bearer tokens."""

_VERSION = re.compile(r"/v1(beta|alpha)?$")

_MAX_BEGINNINGS = 1024

# Sources (read 2026-11-23): https://platform.claude.com/docs/en/api/overview and /models-list,
# https://ai.google.dev/api/models. Where a Gemini call goes is told with each one.
_MANNERS: dict[Protocol, _Manner] = {
    "openai_chat": _Manner("/chat/completions", "/models"),
    "openai_responses": _Manner("/responses", "/models"),
    "anthropic": _Manner(
        "/messages",
        "/models?limit=1000",
        version="/v1",
        models_lines=b"anthropic-version: 2023-06-01\r\n",
    ),
    "gemini": _Manner("", "/models?pageSize=1000", version="/v1beta"),
    # Its list of models is asked for in OpenAI's protocol: https://docs.ollama.com/api/openai-compatibility (the same).
    "ollama": _Manner("/api/chat", "/v1/models", is_unversioned=True),
}


def _host(origin: Origin) -> str:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    usual = 443 if origin.scheme == "https" else 80
    return host if origin.port == usual else f"{host}:{origin.port}"
