"""Configurations with many upstreams and models, written as an operator would write them.

A circuit, a retry budget and a refused key belong to a target or an upstream. So that one call cannot disturb the next,
journeys give every call a model of its own, with upstreams of its own, which all lead to the same few fakes. It only
makes text, and knows no gateway. Journeys call it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

QUICK = """
[timeouts]
connect_seconds = 2
first_token_seconds = 1
idle_seconds = 1
total_seconds = 20
"""
"""Deadlines that end a silence soon, yet not before a busy machine has had its turn."""


def written(value: Any) -> str:
    """Return a value in TOML."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {written(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def upstream(name: str, base_url: str, **more: Any) -> str:
    """Return an item of `[[upstreams]]`; one without keys says that none is needed."""
    if not {"api_key", "api_keys"} & set(more):
        more["api_key"] = "none"
    return table("upstreams", {"name": name, "base_url": base_url, **more})


def model(name: str, targets: Sequence[Mapping[str, Any]], **more: Any) -> str:
    """Return an item of `[[models]]`."""
    return table("models", {"name": name, "targets": list(targets), **more})


def target(upstream: str, model: str, **more: Any) -> dict[str, Any]:
    """Return an item of a model's targets."""
    return {"upstream": upstream, "model": model, **more}


def pair(name: str, first: str, second: str, **more: Any) -> str:
    """Return a model with an upstream of its own at each of two base URLs, the second for when the first one fails.

    There it is called `NAME-a` and `NAME-b`; the keys given here are those of both upstreams.
    """
    return (
        upstream(f"{name}-a", first, **more)
        + upstream(f"{name}-b", second, **more)
        + model(name, [target(f"{name}-a", f"{name}-a"), target(f"{name}-b", f"{name}-b", priority=1)])
    )


def limit(scope: str, amount: int, resource: str = "requests", per: str = "minute") -> str:
    """Return an item of `[[limits]]`; of what is in flight there is no `per`."""
    window = {} if resource == "in_flight" else {"per": per}
    return table("limits", {"scope": scope, "resource": resource, "amount": amount, **window})


def price(model: str, input_usd: object, output_usd: object) -> str:
    """Return an item of `[[prices]]`: what a million tokens cost."""
    prices = {"input_usd_per_million": str(input_usd), "output_usd_per_million": str(output_usd)}
    return table("prices", {"model": model, **prices})


def table(kind: str, values: Mapping[str, Any]) -> str:
    """Return an item of an array of tables."""
    return f"[[{kind}]]\n" + "".join(f"{key} = {written(value)}\n" for key, value in values.items()) + "\n"
