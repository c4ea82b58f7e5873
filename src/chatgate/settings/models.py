"""The models that callers may ask for, and where they lead. Called by `reading`.

Owns the check that every name leads somewhere, and says what this version leaves unused.
"""

from __future__ import annotations

from collections.abc import Collection

from chatgate.settings.document import Document
from chatgate.settings.entries import Item, read_items
from chatgate.settings.keys import ModelKeys, TargetKeys
from chatgate.settings.problems import Place, Problems, nearest, shown
from chatgate.settings.tree import ModelSettings, TargetSettings

DEMO_PREFIX = "demo/"


def read_models(
    document: Document, upstreams: Collection[str], problems: Problems
) -> tuple[tuple[ModelSettings, ...], list[str]]:
    """Return `[[models]]` in the order of the file, and sentences about what is not used yet.

    `upstreams` are the names that targets may name.
    """
    items = read_items(ModelKeys, document, ("models",), problems)
    _refuse_bad_names(items, problems)
    models = [_read_model(item, document.names("models"), upstreams, problems) for item in items]
    return tuple(models), [warning for model in models for warning in _unused(model)]


def _refuse_bad_names(items: list[Item[ModelKeys]], problems: Problems) -> None:
    seen: set[str] = set()
    for item in items:
        name, place = item.keys.name, item.place("name")
        if name.startswith(DEMO_PREFIX):
            problems.add(place, f"must not start with {DEMO_PREFIX}", "these models are built in")
        if not name.isprintable():
            problems.add(place, "must not hold control characters")
        if name in seen:
            problems.add(place, "is the name of another model too")
        seen.add(name)


def _read_model(
    item: Item[ModelKeys], known: Collection[str], upstreams: Collection[str], problems: Problems
) -> ModelSettings:
    targets = read_items(TargetKeys, item.document, (*item.path, "targets"), problems)
    for target in targets:
        if target.keys.upstream not in upstreams:
            _refuse_unknown(target.place("upstream"), "an upstream", target.keys.upstream, upstreams, problems)
    for index, fallback in enumerate(item.keys.fallbacks):
        place = item.place("fallbacks", index)
        if fallback == item.keys.name:
            problems.add(place, "names the model itself")
        elif fallback not in known and not fallback.startswith(DEMO_PREFIX):
            _refuse_unknown(place, "a model", fallback, known, problems)
    return ModelSettings(
        item.keys.name,
        tuple(TargetSettings(target.keys.upstream, target.keys.model, target.keys.weight) for target in targets),
        tuple(item.keys.fallbacks),
    )


def _refuse_unknown(place: Place, what: str, name: str, known: Collection[str], problems: Problems) -> None:
    problems.add(place, f"must be the name of {what}{shown(name)}", nearest(name, known))


def _unused(model: ModelSettings) -> list[str]:
    warnings = []
    if len(model.targets) > 1:
        warnings.append(f"model {model.name}: this version uses the first of its {len(model.targets)} targets only")
    if model.fallbacks:
        warnings.append(f"model {model.name}: this version does not use its fallbacks yet")
    return warnings
