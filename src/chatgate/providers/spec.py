"""The catalogue of providers: one TOML file per vendor, read and checked whole at start."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, structs

from chatgate.vocabulary.upstreams import BEARER, Continuation, FailureClass, Protocol, Upstream

Auth = Annotated[str, Meta(pattern=r"^[A-Za-z-]+: ([A-Za-z-]+ )?\{key\}$")]
"""A header line with `{key}` in it, after a word at most."""

_CATALOGUE = files("chatgate.providers").joinpath("catalog")


class CatalogueError(Exception):
    """A file of the catalogue is broken; `str()` names it and says why."""


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    """How this vendor's parameters differ.

    `rename` maps OpenAI's names to those that a body of the gateway's own making has in their place, and `add` a model
    to what else it needs. `unknown` maps names that the vendor refuses or ignores to its own, in callers' bodies.
    """

    rename: dict[str, str] = {}
    add: dict[str, dict[str, str]] = {}
    unknown: dict[str, str] = {}


class Provider(Struct, frozen=True, forbid_unknown_fields=True):
    """A vendor.

    `base_url` is its own address, or where software of that kind listens unless told otherwise; None where each
    account has another one, such as `example_url`. `also_at` are its addresses for other regions or features.
    `keys_url` is where a person gets a key, `key_env` the variable that programs keep it in, and `auth` the header line
    that shows it. `key_needed` says that nothing there answers without one. `small_model` is what the plain API asks
    for when nobody names a model. `takes_stream_options` says that a stream's usage may be asked for; where that is
    refused, usage comes unasked or not at all. `continuation` is how it is asked to go on with an assistant's message,
    None when it cannot be, or when that depends on what runs there. `reasoning_field` is where an answer's thoughts
    stand, None when that is not known. `failures` says what a code, a type or a status of its errors means, where that
    is not usual. `strict` says that it refuses fields which its protocol does not name.
    `also` is what it speaks besides.
    """

    title: str
    protocol: Protocol
    base_url: str | None = None
    example_url: str | None = None
    also_at: tuple[str, ...] = ()
    keys_url: str | None = None
    key_env: str | None = None
    key_needed: bool = False
    auth: Auth = BEARER
    strict: bool = False
    also: frozenset[Protocol] = frozenset()
    small_model: str | None = None
    takes_stream_options: bool = True
    continuation: Continuation | None = None
    reasoning_field: str | None = None
    parameters: Parameters = Parameters()
    failures: dict[str, FailureClass] = {}

    def applied_to(self, upstream: Upstream) -> Upstream:
        """Return an upstream at this vendor with its differences."""
        return structs.replace(
            upstream,
            auth=self.auth,
            renamed=self.parameters.rename,
            additions=self.parameters.add,
            unknown=self.parameters.unknown,
            takes_stream_options=self.takes_stream_options,
            failures=self.failures,
            continuation=self.continuation,
            protocol=self.protocol,
            is_strict=self.strict,
            also=self.also,
        )


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
