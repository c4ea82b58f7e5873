"""The settings that a process runs with: one frozen tree.

Owns the shape of what is configured, resolved into the nouns of `vocabulary` where they exist. Reads and checks
nothing; made by `reading`, used by `app` and the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Literal

from msgspec import Struct

from chatgate.vocabulary.money import format_usd
from chatgate.vocabulary.stores import RedisAddress
from chatgate.vocabulary.upstreams import Continuation, Timeouts, Upstream


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
    """At most `amount` (1 or more) of a resource `per` second, minute, hour, day, week or month.

    `scope` says in whose name calls are counted: `("global",)`, or some of address, key, model and upstream, in this
    order, for each combination of them. Money is in nano-USD. `per` is "" for what is in flight.
    """

    amount: int
    per: str
    scope: tuple[str, ...] = ("address",)
    resource: str = "requests"

    def __str__(self) -> str:
        """Describe the limit for the operator: `50 requests per hour for each address`."""
        what = f"${format_usd(self.amount)}" if self.resource == "usd" else f"{self.amount} {self.resource}"
        rate = f"{what} per {self.per}" if self.per else f"{self.amount} calls at once"
        whose = "in all" if self.scope == ("global",) else f"for each {' and '.join(self.scope)}"
        return f"{rate.replace('_', ' ')} {whose}"


class BudgetRule(Struct, frozen=True):
    """At most so much money, in nano-USD, per day, week, month or `ever`, from the keys of an owner or by all calls.

    `owner` is "" for the scope `global`. From `warn_at_percent` of it on it is worth a warning; 0 for never.
    """

    scope: Literal["owner", "global"]
    owner: str
    amount_nano_usd: int
    per: Literal["day", "week", "month", "ever"]
    warn_at_percent: int = 80

    def __str__(self) -> str:
        """Describe the budget for the operator: `$5 per month for the keys of alice`."""
        whose = "in all" if self.scope == "global" else f"for the keys of {self.owner}"
        period = "ever" if self.per == "ever" else f"per {self.per}"
        return f"${format_usd(self.amount_nano_usd)} {period} {whose}"


class AdminSettings(Struct, frozen=True):
    """Who may administer over HTTP. `owner` is whose keys only, None for all; with `"read"` nothing is changed."""

    name: str
    key: str
    owner: str | None = None
    may: Literal["change", "read"] = "change"

    def __repr__(self) -> str:
        """Hide the key."""
        return f"AdminSettings({self.name})"

    def __str__(self) -> str:
        """Describe what the admin may, for the operator."""
        what = "may change" if self.may == "change" else "may read"
        whose = "all keys" if self.owner is None else f"the keys of {self.owner}"
        return f"{self.name} {what} {whose}"


class Price(Struct, frozen=True):
    """What a model costs, in US dollars for a million tokens, exactly as written."""

    model: str
    input_usd_per_million: Decimal
    output_usd_per_million: Decimal


class RetrySettings(Struct, frozen=True):
    """How often a target is tried again, and what follows on a stream that broke off: another target, or an error."""

    max_retries: int
    recovery: Literal["resume", "error"]


class StreamSettings(Struct, frozen=True):
    """What becomes of an answer whose caller has left.

    With `"drain"` it is read on for its usage, `drain_seconds` at most, and `drain_calls` such answers at once.
    """

    on_disconnect: Literal["cancel", "drain"]
    drain_seconds: float
    drain_calls: int


class LedgerSettings(Struct, frozen=True):
    """How the record of calls is kept.

    With `"power"` a record is on the disk itself before the call goes on, with `"process"` it outlives the process.
    Calls are deleted `retention_days` after their end, never when that is 0.
    """

    durability: Literal["process", "power"]
    retention_days: int


class TargetSettings(Struct, frozen=True):
    """One model at one upstream.

    `model` is None when the asked name goes there unchanged; in a wildcard model it may hold one `*`, which stands for
    what the model's `*` matched. `weight` is its share among targets of the same `priority`, the lowest of which comes
    first. `context_tokens` is None when not known.
    """

    upstream: str
    model: str | None
    weight: int = 1
    priority: int = 0
    context_tokens: int | None = None


class ModelSettings(Struct, frozen=True):
    """A model that callers may ask for by its name or by one of its aliases.

    `name` may hold one `*`, which matches any text; then there are no aliases. `targets` is never empty and in the
    order of the file. `fallbacks` are names of other models, or of demo models, in order: no aliases, no wildcards, and
    they lead in no loop.
    """

    name: str
    targets: tuple[TargetSettings, ...]
    fallbacks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    balance: Literal["weighted", "least_loaded"] = "weighted"

    @property
    def is_wildcard(self) -> bool:
        """Tell whether the name is a pattern."""
        return "*" in self.name


class Settings(Struct, frozen=True):
    """Everything decided before the start.

    `config` is the file that was read, None when there was none. `data` is the absolute data directory, which need not
    exist yet. `upstreams` is never empty and begins with the default one. `models` is empty when any name goes to the
    default upstream. `drops_unsupported` says that parts of a call which an upstream's protocol cannot carry go
    missing; else it is refused. `hedging_share` is how many second calls there may be for one call, 0 to 0.5.
    `response_seconds` is how long responses are kept for their callers, 0 for not at all. `continuations` says for
    upstreams by name how they go on with an assistant's message, None for not at all; an upstream that is not in it
    does what its provider does. `default_model` is None when not set. `database_url` is None for a file in `data`,
    `redis` where nobody else counts the same calls, and `pepper`, one a line with the current one first, None for the
    one that `data` keeps. `warnings` are sentences that an operator may regret not to have read.
    """

    config: Path | None
    data: Path
    server: ServerSettings
    access: AccessSettings
    limits: tuple[LimitRule, ...]
    budgets: tuple[BudgetRule, ...]
    admins: tuple[AdminSettings, ...]
    timeouts: Timeouts
    retry: RetrySettings
    streams: StreamSettings
    ledger: LedgerSettings
    drops_unsupported: bool
    hedging_share: float
    response_seconds: int
    prices: tuple[Price, ...]
    upstreams: tuple[Upstream, ...]
    continuations: Mapping[str, Continuation | None]
    models: tuple[ModelSettings, ...]
    default_model: str | None
    database_url: str | None
    redis: RedisAddress | None
    pepper: str | None
    warnings: tuple[str, ...]
    secret_values: frozenset[str]

    def __repr__(self) -> str:
        """Hide every secret."""
        return f"Settings(config={self.config}, data={self.data}, upstreams={self.upstreams})"

    def secrets(self) -> frozenset[str]:
        """Return every secret that was loaded, for redaction: provider keys, passwords in URLs, the pepper."""
        return self.secret_values
