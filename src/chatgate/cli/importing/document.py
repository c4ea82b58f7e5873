"""A plan as the text of a `chatgate.toml`.

Owns the spelling of TOML 1.0 (https://toml.io/en/v1.0.0) as far as a plan needs it. Pure; called by the command.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chatgate.cli.importing.plan import needs_no_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chatgate.cli.importing.plan import Model, Plan, Target, Upstream

KEY_DIRECTORY = "upstream-keys"
"""Where the files with the providers' keys are, beside the configuration."""


def render(plan: Plan, *, inline_keys: bool) -> str:
    """Return the configuration; without `inline_keys` it names a file for each provider's key."""
    return "\n".join(_lines(plan, inline_keys=inline_keys))


def _lines(plan: Plan, *, inline_keys: bool) -> Iterator[str]:
    yield "# Written by `chatgate import`. See what it means with: chatgate check --config FILE"
    # Where this came from, nobody got in without a key.
    yield from ("", "[access]", "anonymous = false")
    if plan.total_seconds is not None:
        yield from ("", "[timeouts]", f"total_seconds = {plan.total_seconds}")
    if plan.max_retries is not None:
        yield from ("", "[retry]", f"max_retries = {plan.max_retries}")
    for resource, amount in plan.limits.items():
        yield from ("", "[[limits]]", 'scope = "upstream"', f"resource = {_text(resource)}")
        yield from (f"amount = {amount}", 'per = "minute"')
    for model, (of_input, of_output) in plan.prices.items():
        yield from ("", "[[prices]]", f"model = {_text(model)}")
        yield from (f"input_usd_per_million = {_text(of_input)}", f"output_usd_per_million = {_text(of_output)}")
    for upstream in plan.upstreams:
        yield from _upstream(upstream, inline_keys=inline_keys)
    for each in plan.models:
        yield from _model(each)
    yield ""


def _upstream(upstream: Upstream, *, inline_keys: bool) -> Iterator[str]:
    yield from ("", "[[upstreams]]", f"name = {_text(upstream.name)}", f"provider = {_text(upstream.provider)}")
    yield f"base_url = {_text(upstream.base_url)}"
    if upstream.variable:
        yield f"api_key_env = {_text(upstream.variable)}"
    elif needs_no_key(upstream.secret):
        yield 'api_key = "none"'
    elif inline_keys:
        yield f"api_key = {_text(upstream.secret)}"
    else:
        yield f"api_key_file = {_text(f'{KEY_DIRECTORY}/{upstream.name}')}"
    if upstream.max_in_flight:
        yield f"max_in_flight = {upstream.max_in_flight}"


def _model(model: Model) -> Iterator[str]:
    yield from ("", "[[models]]", f"name = {_text(model.name)}")
    if model.aliases:
        yield f"aliases = {_list(model.aliases)}"
    yield "targets = ["
    for target in model.targets:
        yield f"    {_target(target)},"
    yield "]"
    if model.fallbacks:
        yield f"fallbacks = {_list(model.fallbacks)}"


def _target(target: Target) -> str:
    parts = [f"upstream = {_text(target.upstream)}", f"model = {_text(target.model)}"]
    if target.weight != 1:
        parts.append(f"weight = {target.weight}")
    if target.priority:
        parts.append(f"priority = {target.priority}")
    return f"{{ {', '.join(parts)} }}"


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_text, texts))}]"


def _text(text: str) -> str:
    """Write a basic string: JSON's escapes are TOML's, but for the delete character, which JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
