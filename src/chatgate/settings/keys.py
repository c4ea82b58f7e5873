"""The keys of the configuration, each with the rule that its value obeys.

Owns which keys exist, their types, ranges and defaults; a rule's description completes "must be …". Reads nothing.
Rules that a type cannot say (URLs, addresses, names that must exist) are checked by `reading`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

_SECRET = {"secret": True}

Flag = Annotated[bool, Meta(description="true or false")]
Text = Annotated[str, Meta(min_length=1, max_length=256, description="a text that is not empty")]
OptionalText = Annotated[str, Meta(max_length=256, description="a text")]
Secret = Annotated[str, Meta(max_length=4096, description="a text", extra=_SECRET)]
Secrets = Annotated[list[str], Meta(description="a list of texts", extra=_SECRET)]
Texts = Annotated[list[str], Meta(description="a list of texts")]
Names = Annotated[list[Text], Meta(description="a list of names")]
Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._-]{1,64}\Z",
        description="a name of at most 64 letters, digits, dots, dashes, underscores",
    ),
]
Port = Annotated[int, Meta(ge=0, le=65_535, description="a whole number from 0 to 65535")]
Workers = Annotated[int, Meta(ge=1, le=1_024, description="a whole number from 1 to 1024")]
Weight = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")]
Priority = Annotated[int, Meta(ge=0, le=1_000, description="a whole number from 0 (used first) to 1000")]
Tokens = Annotated[int, Meta(ge=1, le=10**9, description="a whole number from 1 to 1000000000")]
InFlight = Annotated[int, Meta(ge=0, le=1_000_000, description="a whole number from 0 (any number) to 1000000")]
Drains = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")]
HedgingPercent = Annotated[float, Meta(ge=0, le=50, description="a number from 0 (off) to 50")]
Retries = Annotated[int, Meta(ge=0, le=10, description="a whole number from 0 to 10")]
Amount = Annotated[int, Meta(ge=0, le=10**12, description="a whole number from 0 (no limit) to 1000000000000")]
Seconds = Annotated[float, Meta(gt=0, le=86_400, description="a number of seconds above 0, at most 86400 (a day)")]
Dollars = Annotated[
    str | int,
    Meta(description='an amount in decimal digits, in quotes so that it stays exact ("0.25")'),
]
LimitAmount = Annotated[
    str | int,
    Meta(description='a whole number from 0 (no limit) to 1000000000000, or for usd an amount in quotes ("0.50")'),
]
Scope = Annotated[
    str,
    Meta(description='one of address, key, model, upstream, global, or several joined as in "key+model"'),
]
Resource = Annotated[
    Literal["requests", "input_tokens", "output_tokens", "tokens", "usd", "in_flight"],
    Meta(description="one of requests, input_tokens, output_tokens, tokens, usd, in_flight"),
]
Per = Annotated[
    Literal["second", "minute", "hour", "day", "week", "month"] | None,
    Meta(description="one of second, minute, hour, day, week, month"),
]
BudgetScope = Annotated[Literal["owner", "global"], Meta(description="one of owner, global")]
BudgetPer = Annotated[Literal["day", "week", "month", "ever"], Meta(description="one of day, week, month, ever")]
WarnAt = Annotated[int, Meta(ge=0, le=100, description="a whole number from 0 (never) to 100")]
May = Annotated[Literal["change", "read"], Meta(description="one of change, read")]
Durability = Annotated[Literal["process", "power"], Meta(description="one of process, power")]
Days = Annotated[int, Meta(ge=0, le=36_500, description="a whole number of days from 0 (for ever) to 36500")]
StoreSeconds = Annotated[
    int, Meta(ge=0, le=2_592_000, description="a whole number of seconds from 0 (nothing is kept) to 2592000 (30 days)")
]
Recovery = Annotated[Literal["resume", "error"], Meta(description="one of resume, error")]
OnDisconnect = Annotated[Literal["cancel", "drain"], Meta(description="one of cancel, drain")]
Balance = Annotated[Literal["weighted", "least_loaded"], Meta(description="one of weighted, least_loaded")]
Continuation = Annotated[
    Literal["assistant_last", "prefix", "partial", "continue_final_message", "none"] | None,
    Meta(description="one of assistant_last, prefix, partial, continue_final_message, none"),
]
TargetTables = Annotated[
    list[dict[str, Any]],
    Meta(min_length=1, description="a list of at least one { upstream = …, model = …, weight = … }"),
]


class ServerKeys(Struct, frozen=True):
    """`[server]`: where the gateway listens and how it speaks."""

    host: Text = "127.0.0.1"
    port: Port = 5000
    workers: Workers = 1
    route: OptionalText = ""
    language: Text = "en_US"
    trusted_proxies: Texts = []


class AccessKeys(Struct, frozen=True):
    """`[access]`: who may come in."""

    allow: Texts = []
    anonymous: Flag = True


class TimeoutKeys(Struct, frozen=True):
    """`[timeouts]`: how long an upstream may take, in seconds."""

    connect_seconds: Seconds = 5.0
    first_token_seconds: Seconds = 60.0
    idle_seconds: Seconds = 120.0
    total_seconds: Seconds = 1800.0


class RetryKeys(Struct, frozen=True):
    """`[retry]`: extra attempts on the same target, and what becomes of a stream that breaks off."""

    max_retries: Retries = 2
    recovery: Recovery = "resume"


class StreamKeys(Struct, frozen=True):
    """`[streams]`: what becomes of an answer whose caller has left."""

    on_disconnect: OnDisconnect = "cancel"
    drain_seconds: Seconds = 15.0
    drain_calls: Drains = 50


class HedgingKeys(Struct, frozen=True):
    """`[hedging]`: second calls where the first one is late, in per cent of all calls."""

    share_percent: HedgingPercent = 0.0


class TranslationKeys(Struct, frozen=True):
    """`[translation]`: whether parts of a call go missing that an upstream's protocol cannot carry."""

    drop_unsupported: Flag = False


class LedgerKeys(Struct, frozen=True):
    """`[ledger]`: how safe a record is before a call goes on, and how long calls are kept, in days; 0 is for ever."""

    durability: Durability = "process"
    retention_days: Days = 0


class ResponsesKeys(Struct, frozen=True):
    """`[responses]`: how long callers may go on from a response, in seconds; 0 is never."""

    store_seconds: StoreSeconds = 0


class LimitKeys(Struct, frozen=True):
    """An item of `[[limits]]`; `per` is None for what is in flight, and only then. Money is in US dollars."""

    scope: Scope
    resource: Resource
    amount: LimitAmount
    per: Per = None


class BudgetKeys(Struct, frozen=True):
    """An item of `[[budgets]]`; `owner` is None for all together. Money is in US dollars."""

    scope: BudgetScope
    amount_usd: Dollars
    per: BudgetPer
    owner: Text | None = None
    warn_at_percent: WarnAt = 80


class AdminKeys(Struct, frozen=True):
    """An item of `[[admins]]`; `owner` is None for everybody's keys."""

    name: Name
    key: Secret | None = None
    key_file: Secret | None = None
    owner: Text | None = None
    may: May = "change"


class PriceKeys(Struct, frozen=True):
    """An item of `[[prices]]`, in US dollars for a million tokens."""

    model: Text
    input_usd_per_million: Dollars
    output_usd_per_million: Dollars


class UpstreamKeys(Struct, frozen=True):
    """An item of `[[upstreams]]`; None means that the key is absent."""

    name: Name
    provider: Name | None = None
    base_url: Secret | None = None
    api_key: Secret | None = None
    api_keys: Secrets | None = None
    api_key_env: Secret | None = None
    api_key_file: Secret | None = None
    proxy: Secret | None = None
    max_in_flight: InFlight = 0
    continuation: Continuation = None


class TargetKeys(Struct, frozen=True):
    """An item of a model's `targets`; without `model` the asked name goes there unchanged."""

    upstream: Text
    model: Text | None = None
    weight: Weight = 1
    priority: Priority = 0
    context_tokens: Tokens | None = None


class ModelKeys(Struct, frozen=True):
    """An item of `[[models]]`; one `*` in `name` stands for any text."""

    name: Text
    targets: TargetTables
    aliases: Names = []
    fallbacks: Names = []
    balance: Balance = "weighted"


class SeedKeys(Struct, frozen=True):
    """The seed's names that are no key of a section; None when unset, 0 in a window means unlimited."""

    SECOND_LIMIT: Amount | None = None
    MINUTE_LIMIT: Amount | None = None
    HOUR_LIMIT: Amount | None = None
    DAY_LIMIT: Amount | None = None
    DEFAULT_MODEL: Text | None = None


SECTIONS: dict[str, type[Struct]] = {
    "server": ServerKeys,
    "access": AccessKeys,
    "timeouts": TimeoutKeys,
    "retry": RetryKeys,
    "streams": StreamKeys,
    "ledger": LedgerKeys,
    "hedging": HedgingKeys,
    "responses": ResponsesKeys,
    "translation": TranslationKeys,
}
"""The tables that the environment can speak about too (`CHATGATE_<SECTION>__<KEY>`)."""

LISTS: dict[str, type[Struct]] = {
    "limits": LimitKeys,
    "budgets": BudgetKeys,
    "admins": AdminKeys,
    "prices": PriceKeys,
    "upstreams": UpstreamKeys,
    "models": ModelKeys,
}
"""The arrays of tables, which only the file has."""
