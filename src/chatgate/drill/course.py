"""Where the calls for a model can lead: every place of the configuration, in the order of preference.

Reads settings and does nothing else; the gateway's own routing is what is judged, so it is not asked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from chatgate.settings import ModelSettings, Settings

_DEMO: Final = "demo/"
_MATCHED: Final = "drill"
"""What the caller puts in the place of a wildcard."""


class Place(Struct, frozen=True):
    """One model at one upstream under one of its keys.

    `is_own` says that it serves the model itself, not one of its fallbacks. `context_tokens` is None when not known.
    """

    upstream: str
    key_number: int
    model: str
    is_own: bool
    context_tokens: int | None = None

    @property
    def key(self) -> tuple[str, int, str]:
        """Return what tells it from all others."""
        return self.upstream, self.key_number, self.model

    def __str__(self) -> str:
        """Say it as the gateway's log does."""
        return f"{self.upstream}/{self.model}"


class Course(Struct, frozen=True):
    """The name that the caller asks for, and the places that may serve it: never empty, the first ones first."""

    asked_model: str
    places: tuple[Place, ...]

    @property
    def sites(self) -> tuple[str, ...]:
        """Return the places for people, each once: keys are not told apart."""
        return tuple(dict.fromkeys(str(place) for place in self.places))


def courses(settings: Settings, plain_model: str) -> list[Course]:
    """Return a course for each configured model; for `plain_model` alone when any name goes to the first upstream."""
    if not settings.models:
        upstream = settings.upstreams[0]
        keys = range(1, max(1, len(upstream.api_keys)) + 1)
        return [Course(plain_model, tuple(Place(upstream.name, key, plain_model, is_own=True) for key in keys))]
    return [_course(settings, model) for model in settings.models]


def without_demo(model: ModelSettings) -> tuple[str, ...]:
    """Return the fallbacks that lead to an upstream: a demo model answers with a text of its own."""
    return tuple(name for name in model.fallbacks if not name.startswith(_DEMO))


def _course(settings: Settings, model: ModelSettings) -> Course:
    asked = model.name.replace("*", _MATCHED)
    places = [*_places(settings, model, asked, is_own=True)]
    for fallback in _fallbacks(settings, model):
        places += _places(settings, fallback, fallback.name, is_own=False)
    # A place may serve the model and a fallback too; the first time counts.
    unique = {place.key: place for place in reversed(places)}
    return Course(asked, tuple(reversed(unique.values())))


def _places(settings: Settings, model: ModelSettings, asked: str, *, is_own: bool) -> Iterator[Place]:
    keys = {upstream.name: max(1, len(upstream.api_keys)) for upstream in settings.upstreams}
    for target in sorted(model.targets, key=lambda target: (target.priority, -target.weight)):
        sent = asked if target.model is None else target.model
        if model.is_wildcard:
            sent = sent.replace("*", _MATCHED)
        for number in range(1, keys[target.upstream] + 1):
            yield Place(target.upstream, number, sent, is_own, target.context_tokens)


def _fallbacks(settings: Settings, model: ModelSettings) -> list[ModelSettings]:
    """Return the models that may stand in, each once: the direct ones first, then theirs."""
    by_name = {name: each for each in settings.models for name in (each.name, *each.aliases)}
    found: list[ModelSettings] = []
    waiting = [model]
    while waiting:
        for name in without_demo(waiting.pop(0)):
            fallback = by_name[name]
            if fallback not in found and fallback is not model:
                found.append(fallback)
                waiting.append(fallback)
    return found
