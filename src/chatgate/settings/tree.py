"""The settings that a process runs with: one frozen tree.

Owns the shape of what is configured, resolved into the nouns of `vocabulary` where they exist. Reads and checks
nothing; made by `reading`, used by `app` and the commands.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from msgspec import Struct

from chatgate.vocabulary.upstreams import Timeouts, Upstream


class ServerSettings(Struct, frozen=True):
    """Where the gateway listens and how it speaks.

    `route` is the plain API's path without slashes around it, "" for `POST /`. `language` is what the operator wrote,
    a locale's name such as `ru_RU.UTF-8`, and `language_source` where; which catalogue that means is not decided here.
    `trusted_proxies` are addresses and CIDRs in canonical form.
    """

    host: str
    port: int
    workers: int
    route: str
    language: str
    language_source: str
    trusted_proxies: tuple[str, ...]


class AccessSettings(Struct, frozen=True):
    """Who may come in: addresses and CIDRs in canonical form, none meaning everyone; and whether without a key."""

    allow: tuple[str, ...]
    anonymous: bool


class LimitRule(Struct, frozen=True):
    """At most `amount` calls (1 or more) of one client address `per` second, minute, hour, day, week or month."""

    amount: int
    per: str


class Price(Struct, frozen=True):
    """What a model costs, in US dollars for a million tokens, exactly as written."""

    model: str
    input_usd_per_million: Decimal
    output_usd_per_million: Decimal


class TargetSettings(Struct, frozen=True):
    """One model at one upstream; `model` is None when the asked name goes there unchanged."""

    upstream: str
    model: str | None
    weight: int


class ModelSettings(Struct, frozen=True):
    """A model that callers may ask for. `targets` is never empty; `fallbacks` names other models, in order."""

    name: str
    targets: tuple[TargetSettings, ...]
    fallbacks: tuple[str, ...]


class Settings(Struct, frozen=True):
    """Everything decided before the start.

    `config` is the file that was read, None when there was none. `data` is the absolute data directory, which need not
    exist yet. `upstreams` is never empty and begins with the default one. `models` is empty when any name goes to the
    default upstream. `default_model` is None when not set. `warnings` are sentences about what this version reads and
    does not do.
    """

    config: Path | None
    data: Path
    server: ServerSettings
    access: AccessSettings
    limits: tuple[LimitRule, ...]
    timeouts: Timeouts
    max_retries: int
    prices: tuple[Price, ...]
    upstreams: tuple[Upstream, ...]
    models: tuple[ModelSettings, ...]
    default_model: str | None
    warnings: tuple[str, ...]
    secret_values: frozenset[str]

    def __repr__(self) -> str:
        """Hide every secret."""
        return f"Settings(config={self.config}, data={self.data}, upstreams={self.upstreams})"

    def secrets(self) -> frozenset[str]:
        """Return every secret that was loaded, provider keys and proxy passwords, for redaction."""
        return self.secret_values
