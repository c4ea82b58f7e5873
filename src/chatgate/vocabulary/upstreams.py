"""Providers' accounts as configured: where they are, what we show there, and which models they serve."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Scheme = Literal["http", "https"]

Protocol = Literal[
    "openai_chat",
    "anthropic",
    "gemini",
    "ollama",
    "openai_responses",
    "openai_completions",
    "openai_embeddings",
    "openai_moderations",
    "openai_images",
    "openai_image_edits",
    "openai_image_variations",
    "openai_speech",
    "openai_transcriptions",
    "openai_translations",
    "ollama_generate",
    "ollama_embed",
    "ollama_embeddings",
]
"""What an upstream speaks. Those after Ollama's chat are spoken besides one of the first, under the same base URL."""

Continuation = Literal["assistant_last", "prefix", "partial", "continue_final_message"]
"""How a provider is asked to continue an assistant's message: it goes on with whatever assistant message comes last, or
that message must say `"prefix": true` or `"partial": true`, or the request `"continue_final_message": true`."""

FailureClass = Literal["key", "quota", "pace", "content", "length", "model", "down"]
"""What a provider's refusal means: our key is not accepted, the account is empty, calls come too fast, what was asked
or answered is not allowed, it was too long, there is no such model, or the provider is not well."""

BEARER = "Authorization: Bearer {key}"
"""The header line in which most providers are shown a key."""


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

    `base_path` is the path of the base URL without a trailing slash (`/v1`). `api_keys` are what we show there, empty
    when nothing was configured. `key_needed` says that calls without any key are refused here, not there.
    `max_in_flight` is how many calls may be under way there at once, 0 for any number.
    `auth` is the header line that shows a key, which stands in it as `{key}`. `renamed` maps parameter names of the
    OpenAI chat protocol to those that a body written by the gateway itself has in their place, and `additions` a
    model's name to the fields that such a body must have for it. `unknown` maps parameters that are not understood
    there to those that are, for callers' bodies. `takes_stream_options` says that a stream's usage may be asked for;
    otherwise it comes unasked or not at all. `continuation` is how the provider is asked to go on with an assistant's
    message, None when it cannot be. `failures` says what a code, a type or a status of its errors means, where that is
    not usual. `is_strict` says that a field which its protocol does not name makes it refuse a call.
    `also` is what it speaks besides its protocol: a caller's call in one of these goes there as it is.
    """

    name: str
    provider: str
    origin: Origin
    base_path: str
    api_keys: tuple[str, ...] = ()
    key_needed: bool = False
    is_default: bool = False
    max_in_flight: int = 0
    auth: str = BEARER
    renamed: dict[str, str] = {}
    additions: dict[str, dict[str, str]] = {}
    unknown: dict[str, str] = {}
    takes_stream_options: bool = True
    continuation: Continuation | None = None
    failures: dict[str, FailureClass] = {}
    protocol: Protocol = "openai_chat"
    is_strict: bool = False
    also: frozenset[Protocol] = frozenset()

    @property
    def api_key(self) -> str:
        """Return the first key, "" when there is none."""
        return self.api_keys[0] if self.api_keys else ""

    def answers_in(self, protocol: Protocol) -> Protocol:
        """Return the protocol in which it answers a caller of another one."""
        return protocol if protocol in self.also else self.protocol

    def __repr__(self) -> str:
        """Hide the credential."""
        return f"Upstream({self.name})"


class Target(Struct, frozen=True, gc=False):
    """One model at one upstream, under one of its keys.

    `sent_model` is None when the asked name goes there unchanged. `api_key` is shown there, "" for none, and
    `key_number` counts the keys from 1. Targets of a lower `priority` number are used first; of equals each gets its
    share by `weight`. `context_tokens` is how much the model can take in, None when that is not known.
    """

    upstream: Upstream
    sent_model: str | None = None
    api_key: str = ""
    key_number: int = 1
    weight: int = 1
    priority: int = 0
    context_tokens: int | None = None

    @property
    def name(self) -> str:
        """Return what logs and metrics call it: `openai/gpt-5-mini`, with several keys `openai/gpt-5-mini#2`."""
        number = f"#{self.key_number}" if len(self.upstream.api_keys) > 1 else ""
        return f"{self.upstream.name}/{self.sent_model or '*'}{number}"

    def __repr__(self) -> str:
        """Hide the credential."""
        return f"Target({self.name})"
