"""The catalogue of providers: one TOML file per vendor, read and checked whole at start."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

import msgspec
from msgspec import Struct

from chatgate.vocabulary.upstreams import Continuation

_CATALOGUE = files("chatgate.providers").joinpath("catalog")


class CatalogueError(Exception):
    """A file of the catalogue is broken; `str()` names it and says why."""


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    """How this vendor's parameters differ.

    `rename` maps OpenAI's names to the vendor's. `add` maps a model to what a body of the gateway's own making needs.
    """

    rename: dict[str, str] = {}
    add: dict[str, dict[str, str]] = {}


class Provider(Struct, frozen=True, forbid_unknown_fields=True):
    """A vendor.

    `base_url` is its own address, None for software that runs anywhere. `keys_url` is where a person gets a key.
    `small_model` is what the plain API asks for when nobody names a model.
    `key_needed` says that nothing there answers without one. `continuation` is how it is asked to go on with an
    assistant's message, None when it cannot be, or when that depends on what runs there.
    """

    title: str
    protocol: Literal["openai_chat"]
    base_url: str | None = None
    keys_url: str | None = None
    key_needed: bool = False
    small_model: str | None = None
    continuation: Continuation | None = None
    parameters: Parameters = Parameters()


def load(folder: Traversable = _CATALOGUE) -> dict[str, Provider]:
    """Return the catalogue by the files' names. Raises `CatalogueError`."""
    catalogue = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name, dot, suffix = entry.name.rpartition(".")
        if not dot or suffix != "toml":
            continue
        try:
            catalogue[name] = msgspec.toml.decode(entry.read_bytes(), type=Provider)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CatalogueError(f"providers/catalog/{entry.name}: {error}") from error
    return catalogue
