"""The catalogue as it is shown: a line for each vendor, or JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chatgate.cli.columns import table
from chatgate.vocabulary.upstreams import BEARER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chatgate.cli.speaking import Speaker
    from chatgate.providers.spec import Provider


def as_object(name: str, provider: Provider) -> dict[str, Any]:
    """Return what there is to say about a vendor for JSON."""
    return {
        "name": name,
        "title": provider.title,
        "protocol": provider.protocol,
        "base_url": provider.base_url,
        "example_url": provider.example_url,
        "also_at": list(provider.also_at),
        "key_env": provider.key_env,
        "key_needed": provider.key_needed,
        "keys_url": provider.keys_url,
        "auth": provider.auth,
        "continuation": provider.continuation,
        "reasoning_field": provider.reasoning_field,
        "takes_stream_options": provider.takes_stream_options,
        "renamed": {**provider.parameters.rename, **provider.parameters.unknown},
        "failures": dict(provider.failures),
    }


def as_table(catalogue: Mapping[str, Provider], say: Speaker) -> Iterator[str]:
    """Return a heading and a line for each vendor."""
    rows = [tuple(map(say, ("providers_name", "providers_url", "providers_key", "providers_notes")))]
    for name, provider in catalogue.items():
        url = provider.base_url or provider.example_url or say("providers_any_url")
        rows.append((name, url, provider.key_env or "-", _notes(provider, say)))
    return table(rows)


def _notes(provider: Provider, say: Speaker) -> str:
    """Return a vendor's name, and what is not as usual about it."""
    notes = [provider.title]
    if provider.also_at:
        notes.append(say("providers_also_at", urls=", ".join(provider.also_at)))
    if provider.auth != BEARER:
        notes.append(provider.auth.partition(" {key}")[0].removesuffix(":"))
    if not provider.key_needed:
        notes.append(say("providers_no_key"))
    if provider.continuation:
        notes.append(say("providers_continues"))
    return "; ".join(notes)
