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
Retries = Annotated[int, Meta(ge=0, le=10, description="a whole number from 0 to 10")]
Amount = Annotated[int, Meta(ge=0, le=10**12, description="a whole number from 0 (no limit) to 1000000000000")]
Seconds = Annotated[float, Meta(gt=0, le=86_400, description="a number of seconds above 0, at most 86400 (a day)")]
Dollars = Annotated[
    str | int,
    Meta(description='an amount in decimal digits, in quotes so that it stays exact ("0.25")'),
]
Scope = Annotated[
    Literal["address", "key", "model", "upstream", "global"],
    Meta(description="one of address, key, model, upstream, global"),
]
Resource = Annotated[
    Literal["requests", "input_tokens", "output_tokens", "tokens", "usd", "in_flight"],
    Meta(description="one of requests, input_tokens, output_tokens, tokens, usd, in_flight"),
]
Per = Annotated[
    Literal["second", "minute", "hour", "day", "week", "month"] | None,
    Meta(description="one of second, minute, hour, day, week, month"),
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
    """`[retry]`: extra attempts on the same target."""

    max_retries: Retries = 2


class LimitKeys(Struct, frozen=True):
    """An item of `[[limits]]`; `per` is None for what is in flight, and only then."""

    scope: Scope
    resource: Resource
    amount: Amount
    per: Per = None


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


class TargetKeys(Struct, frozen=True):
    """An item of a model's `targets`; without `model` the asked name goes there unchanged."""

    upstream: Text
    model: Text | None = None
    weight: Weight = 1


class ModelKeys(Struct, frozen=True):
    """An item of `[[models]]`."""

    name: Text
    targets: TargetTables
    fallbacks: Texts = []


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
}
"""The tables that the environment can speak about too (`CHATGATE_<SECTION>__<KEY>`)."""

LISTS: dict[str, type[Struct]] = {
    "limits": LimitKeys,
    "prices": PriceKeys,
    "upstreams": UpstreamKeys,
    "models": ModelKeys,
}
"""The arrays of tables, which only the file has."""
