"""The channels of one-api and new-api as upstreams and models; their tokens are the business of `tokens`.

Owns what the rows of these two programs mean. They share the tables and differ in columns and in the numbers of kinds.
See https://github.com/songquanpeng/one-api at 8df4a26 (model/channel.go, model/ability.go, model/option.go) and
https://github.com/QuantumNous/new-api (model/channel.go, model/ability.go, relay/channel/openai/adaptor.go). Pure;
called by the command.

What they do, as far as it matters here: callers ask for a model; of the enabled channels that list it, those of the
highest priority come first, and one of them is drawn. one-api draws each with the same chance, new-api by weight plus
ten. The channel's mapping says what the model is called there; new-api follows it from name to name.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from chatgate.cli.importing import channel_types
from chatgate.cli.importing.plan import MAX_WEIGHT, Model, Target, ranked, why_no_model
from chatgate.cli.importing.rows import text_of, texts_of, whole_of
from chatgate.settings.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chatgate.cli.importing.channel_types import Kind
    from chatgate.cli.importing.plan import Plan
    from chatgate.storage.foreign import Row

COLUMNS: Final = {
    "channels": (
        *("id", "type", "key", "status", "name", "weight", "base_url", "models", "group", "model_mapping", "priority"),
        # Only in new-api, and what it can say here that has no place in chatgate.
        *("auto_ban", "openai_organization", "status_code_mapping", "setting", "param_override", "header_override"),
        # Only in one-api.
        "system_prompt",
    ),
    "tokens": (
        *("id", "user_id", "name", "status", "expired_time", "remain_quota", "unlimited_quota", "group", "deleted_at"),
        *("models", "subnet", "model_limits_enabled", "model_limits", "allow_ips"),
    ),
    "users": ("id", "username", "status", "quota", "deleted_at"),
    "options": ("key", "value"),
}
"""What is read of which table. Passwords and the tokens themselves are not: nothing here needs them."""

_ENABLED: Final = 1
_SETTINGS_WITHOUT_PLACE: Final = (
    "openai_organization",
    "status_code_mapping",
    "setting",
    "param_override",
    "header_override",
    "system_prompt",
)
_NEW_API_ADDS: Final = 10
_MAX_MAPPING_STEPS: Final = 10
_ENDPOINT: Final = "/chat/completions"
_CLOUDFLARE: Final = "https://gateway.ai.cloudflare.com"


def is_new_api(tables: Mapping[str, Sequence[Row]]) -> bool:
    """Tell the two apart by a column that new-api has had from its beginning."""
    return any("auto_ban" in row for row in tables["channels"]) or any(
        "model_limits_enabled" in row for row in tables["tokens"]
    )


def read_channels(channels: Sequence[Row], plan: Plan, *, new_api: bool) -> None:
    """Put the enabled channels into a plan."""
    by_model: dict[str, list[tuple[Target, int]]] = {}
    for row in channels:
        names = _upstreams_of(row, plan, new_api=new_api)
        if not names:
            continue
        weight = whole_of(row, "weight") + _NEW_API_ADDS if new_api else 1
        mapping = _mapping_of(row, plan)
        for model in dict.fromkeys(texts_of(row, "models", ",")):
            sent = _followed(mapping, model) if new_api else mapping.get(model, model)
            for name in names:
                target = Target(name, sent, min(max(weight, 1), MAX_WEIGHT))
                by_model.setdefault(model, []).append((target, whole_of(row, "priority")))
    for model, found in by_model.items():
        why = why_no_model(model)
        if why is not None:
            plan.lose(f"model {model[:80]}", f"left out: {why}")
            continue
        ranks = ranked((priority for _, priority in found), highest_first=True)
        same = len({target.weight for target, _ in found}) == 1
        for target, priority in found:
            target.priority = ranks[priority]
            target.weight = 1 if same else target.weight
        plan.models.append(Model(model, [target for target, _ in found]))


def _upstreams_of(row: Row, plan: Plan, *, new_api: bool) -> list[str]:
    """Add an upstream for each key of a channel, and return their names; none for a channel that is left out."""
    called = called_channel(row)
    status, number = whole_of(row, "status", _ENABLED), whole_of(row, "type")
    if status != _ENABLED:
        plan.lose(called, "left out: it is disabled")
        return []
    kind = (channel_types.NEW_API if new_api else channel_types.ONE_API).get(number)
    if kind is None:
        title = channel_types.NOT_YET.get(number, f"number {number}")
        plan.lose(called, f"left out: chatgate cannot speak to channels of its kind ({title})")
        return []
    keys = list(dict.fromkeys(texts_of(row, "key", "\n"))) or [""]
    names: list[str] = []
    try:
        address = _address_of(row, kind)
        wanted = text_of(row, "name") or f"channel-{row.get('id')}"
        names.extend(plan.add_upstream(wanted, address, key) for key in keys)
    except Refusal as refusal:
        plan.lose(called, f"{f'only {len(names)} of its keys are carried' if names else 'left out'}: {refusal.problem}")
    if names:
        _tell_differences(row, kind, names, plan)
    return names


def _address_of(row: Row, kind: Kind) -> str:
    own = text_of(row, "base_url").rstrip("/")
    address = own or kind.address
    if not address:
        raise Refusal("it has no base URL")
    if address.endswith(_ENDPOINT):
        return address.removesuffix(_ENDPOINT)
    if "{model}" in address:
        raise Refusal("its base URL has the model's name in it")
    if address.endswith(kind.path) or (kind.title == "OpenAI" and address.startswith(_CLOUDFLARE)):
        return address
    return address + kind.path


def _tell_differences(row: Row, kind: Kind, names: Sequence[str], plan: Plan) -> None:
    called = called_channel(row)
    if kind.was_native:
        plan.lose(called, f"goes to {kind.title}'s OpenAI-compatible address now; check that it answers there")
    if len(names) > 1:
        plan.lose(called, f"its {len(names)} keys are an upstream each, so that it gets {len(names)} shares of calls")
    groups = [group for group in texts_of(row, "group", ",") if group != "default"]
    if groups:
        plan.lose(called, f"was for the groups {', '.join(groups)}; now any key that may use its models gets there")
    for column in _SETTINGS_WITHOUT_PLACE:
        if text_of(row, column) not in {"", "{}", "null"}:
            plan.lose(called, f"{column} is not carried")


def called_channel(row: Row) -> str:
    """Return what a channel is called in the report."""
    return f"channel {row.get('id')} ({text_of(row, 'name') or 'no name'})"


def _mapping_of(row: Row, plan: Plan) -> dict[str, str]:
    text = text_of(row, "model_mapping")
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        plan.lose(called_channel(row), "its model mapping cannot be read; models go there by their own names")
        return {}
    return {model: sent for model, sent in found.items() if isinstance(sent, str) and sent}


def _followed(mapping: Mapping[str, str], model: str) -> str:
    """Follow a mapping from name to name, as new-api does, to the last one or until it turns in a circle."""
    for _ in range(_MAX_MAPPING_STEPS):
        following = mapping.get(model, model)
        if following == model:
            break
        model = following
    return model
