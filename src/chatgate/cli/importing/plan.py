"""What moves in: upstreams, models and keys as chatgate has them, and what of the old configuration has no place here.

Owns the nouns that the readers of other programs' configurations fill, and the rules that hold for all of them: names
are made fit, what no configuration may hold is left out, and everything that is left out is told. Reads and writes
nothing. A restriction that cannot be kept never just disappears: what it restricted is left out, or disabled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from chatgate.settings.models import DEMO_PREFIX
from chatgate.settings.network import read_base_url
from chatgate.settings.problems import Refusal, printable
from chatgate.settings.upstreams import OPENAI_COMPATIBLE
from chatgate.vocabulary.identity import GATEWAY_KEY_PREFIX, NO_KEY_WORDS
from chatgate.vocabulary.keys import NewKey

MAX_MODEL_CHARACTERS = 256
MAX_PRIORITY = 1000
MAX_WEIGHT = 1_000_000

_MAX_SECRET_CHARACTERS = 4096
_MAX_SLUG_CHARACTERS = 50
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = frozenset({"demo"})


class Upstream(Struct):
    """An account at a provider. At most one of `secret` and `variable`, which names an environment variable, is set."""

    name: str
    provider: str
    base_url: str
    secret: str = ""
    variable: str = ""
    max_in_flight: int = 0


class Target(Struct):
    """A model at an upstream; `model` is the name that is sent there. The lowest `priority` comes first."""

    upstream: str
    model: str
    weight: int = 1
    priority: int = 0


class Model(Struct):
    """What callers ask for."""

    name: str
    targets: list[Target]
    aliases: list[str] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)


class Plan(Struct):
    """Everything that moves in, and a line in `losses` for each thing that does not, or not as it was.

    `prices` maps models to dollars for a million tokens of input and of output, `limits` resources to how much of them
    each upstream may take in a minute. `catalogue` maps the names of known providers to their base URLs.
    """

    catalogue: Mapping[str, str | None]
    upstreams: list[Upstream] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    prices: dict[str, tuple[str, str]] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    keys: list[NewKey] = field(default_factory=list)
    max_retries: int | None = None
    total_seconds: float | None = None
    losses: list[str] = field(default_factory=list)

    def lose(self, what: str, why: str) -> None:
        """Note that something is not carried, or not as it was. Never told: a secret."""
        self.losses.append(printable(f"{what}: {why}"))

    def add_upstream(self, wanted: str, base_url: str, secret: str, variable: str = "", in_flight: int = 0) -> str:
        """Add an account and return its name, which is like the wanted one. Raises `Refusal` when none can be made."""
        address = read_base_url(base_url)
        check_secret(secret)
        provider = OPENAI_COMPATIBLE
        for known, known_url in self.catalogue.items():
            # A port of this machine says nothing about the program that listens on it.
            if known_url is not None and known_url.startswith("https:") and read_base_url(known_url) == address:
                provider = known
                break  # Of two ways to one address the first by name is the usual one.
        name = self._free_name(wanted)
        self.upstreams.append(Upstream(name, provider, base_url, secret, variable, in_flight))
        return name

    def _free_name(self, wanted: str) -> str:
        """Make a name that the configuration takes, and that is a file's name on every system."""
        slug = _NOT_IN_NAME.sub("-", wanted)[:_MAX_SLUG_CHARACTERS].strip("-.") or "upstream"
        taken = {upstream.name.lower() for upstream in self.upstreams} | _RESERVED
        name, number = slug, 2
        while name.lower() in taken:
            name, number = f"{slug}-{number}", number + 1
        return name


def check_secret(secret: str) -> None:
    """Raise `Refusal` for what no header can carry; "" and the words for no key are fine."""
    if len(secret) > _MAX_SECRET_CHARACTERS or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise Refusal("its key is not one that a header can carry")
    if secret.lower().startswith(GATEWAY_KEY_PREFIX):
        raise Refusal("its key is one of chatgate itself")


def needs_no_key(secret: str) -> bool:
    """Tell whether a provider's key is a word that stands for none."""
    return secret.lower() in NO_KEY_WORDS


def why_no_model(name: str) -> str | None:
    """Return why callers cannot ask for a model of this name, None when they can."""
    if not name.strip():
        return "has no name"
    if len(name) > MAX_MODEL_CHARACTERS or not name.isprintable():
        return f"its name is longer than {MAX_MODEL_CHARACTERS} characters, or has some that cannot be printed"
    if name.startswith(DEMO_PREFIX):
        return f"names that begin with {DEMO_PREFIX} are built in"
    return "its name has more than one *" if name.count("*") > 1 else None


def ranked(values: Iterable[int], *, highest_first: bool) -> dict[int, int]:
    """Map priorities of any size and direction to chatgate's, 0 coming first."""
    ordered = sorted(set(values), reverse=highest_first)
    return {value: min(rank, MAX_PRIORITY) for rank, value in enumerate(ordered)}
