"""Providers' accounts as configured: where they are, what we show there, and which models they serve."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Scheme = Literal["http", "https"]


class Origin(Struct, frozen=True, cache_hash=True, gc=False):
    """Where connections go: scheme, host and port, and the proxy on the way.

    `host` is a name or an address without brackets. `proxy` is an URL (http, https, socks5, socks5h) with its
    credentials, or None for a direct connection.
    """

    scheme: Scheme
    host: str
    port: int
    proxy: str | None = None

    def __repr__(self) -> str:
        """Leave the proxy out: its URL may carry a password."""
        return f"{self.scheme}://{self.host}:{self.port}"


class Timeouts(Struct, frozen=True, gc=False):
    """How long an upstream may take, in seconds.

    `first_token_seconds` runs from the moment the request is sent until the first byte of the answer's body;
    `idle_seconds` between two pieces of the body; `total_seconds` over all, connecting included.
    """

    connect_seconds: float = 5.0
    first_token_seconds: float = 60.0
    idle_seconds: float = 120.0
    total_seconds: float = 1800.0


class Upstream(Struct, frozen=True, gc=False):
    """An account at a provider.

    `base_path` is the path of the base URL without a trailing slash (`/v1`). `api_key` is what we show there, empty
    when nothing was configured. `key_needed` says that calls without any key are refused here, not there.
    `renamed` maps parameter names of the OpenAI chat protocol to this provider's, and `additions` a model's name to
    the fields that a body written by the gateway itself must have for it.
    """

    name: str
    provider: str
    origin: Origin
    base_path: str
    api_key: str = ""
    key_needed: bool = False
    is_default: bool = False
    renamed: dict[str, str] = {}
    additions: dict[str, dict[str, str]] = {}

    def __repr__(self) -> str:
        """Hide the credential."""
        return f"Upstream({self.name})"


class Target(Struct, frozen=True, gc=False):
    """One model at one upstream. `sent_model` is None when the asked name goes there unchanged."""

    upstream: Upstream
    sent_model: str | None = None
