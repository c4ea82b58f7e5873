"""The seam for protocols in which callers ask how many tokens a request has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from chatgate.vocabulary.chat import Asked
from chatgate.vocabulary.upstreams import Protocol as WireProtocol
from chatgate.vocabulary.upstreams import Target


class Question(Struct, frozen=True):
    """What asks an upstream: `path` is below its base URL, `lines` are header lines that go with the body."""

    path: str
    body: bytes
    lines: bytes = b""


class CountingProtocol(Protocol):
    """A protocol whose requests can be counted; `parameter` is what the caller's URL names, else ""."""

    @property
    def protocol(self) -> WireProtocol:
        """Return which one: upstreams that speak it can be asked."""

    def decode(self, body: bytes, parameter: str) -> Asked:
        """Read a caller's body. Raises `CallerError`, as the call itself would."""

    def question(self, asked: Asked, body: bytes, headers: Mapping[bytes, bytes], target: Target) -> Question:
        """Return what asks an upstream that speaks the protocol; `headers` are the caller's."""

    def decode_error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of a refusal as OpenAI's."""

    def estimate(self, body: bytes) -> bytes:
        """Return an answer with about how many tokens a request has that was found to be one."""
