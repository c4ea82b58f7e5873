"""The models that callers may ask for, and where they lead. Called by `reading`.

Owns the check that every name leads somewhere, and to one place only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from chatgate.settings.document import Document
from chatgate.settings.entries import Item, read_items
from chatgate.settings.keys import ModelKeys, TargetKeys
from chatgate.settings.problems import Place, Problems, nearest, shown
from chatgate.settings.tree import ModelSettings, TargetSettings

DEMO_PREFIX = "demo/"

_WILDCARD = "*"
_SHOWN_NAMES = 9


def answers_to(model: ModelSettings, name: str) -> bool:
    """Tell whether a caller who asks for `name` may get this model; another one may match it more closely."""
    start, wildcard, end = model.name.partition(_WILDCARD)
    if not wildcard:
        return name == model.name or name in model.aliases
    return len(name) >= len(start) + len(end) and name.startswith(start) and name.endswith(end)


def read_models(
    document: Document, upstreams: Collection[str], demo_models: Collection[str] | None, problems: Problems
) -> tuple[ModelSettings, ...]:
    """Return `[[models]]` in the order of the file.

    `upstreams` are the names that targets may name, and `demo_models` the names below `demo/` that fallbacks may name,
    None for any.
    """
    items = read_items(ModelKeys, document, ("models",), problems)
    _refuse_bad_names(items, problems)
    if demo_models is not None:
        _refuse_unknown_demos(items, demo_models, problems)
    owners = _owners(document)
    models = tuple(_read_model(item, owners, upstreams, problems) for item in items)
    _refuse_loops(items, models, problems)
    return models


def _owners(document: Document) -> dict[str, str]:
    """Map every name and alias to the name of its model, those of models with other faults too."""
    tables = document.at(("models",))
    owners: dict[str, str] = {}
    for table in tables if isinstance(tables, list) else ():
        name = table.get("name") if isinstance(table, dict) else None
        if isinstance(name, str):
            aliases = table.get("aliases")
            texts = [alias for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else []
            owners |= dict.fromkeys([*texts, name], name)
    return owners


def _refuse_bad_names(items: Sequence[Item[ModelKeys]], problems: Problems) -> None:
    names: set[str] = set()
    for item in items:
        name, place = item.keys.name, item.place("name")
        _refuse_bad_name(name, place, problems)
        if name.count(_WILDCARD) > 1:
            problems.add(place, f"must hold at most one {_WILDCARD}")
        if name in names:
            problems.add(place, "is the name of another model too")
        names.add(name)
    aliases: set[str] = set()
    for item in items:
        if item.keys.aliases and _WILDCARD in item.keys.name:
            problems.add(
                item.place("aliases"), "must be empty in a wildcard model", "give the alias a model of its own"
            )
        for index, alias in enumerate(item.keys.aliases):
            place = item.place("aliases", index)
            _refuse_bad_name(alias, place, problems)
            if _WILDCARD in alias:
                problems.add(place, f"must not hold {_WILDCARD}", "only the name of a model may be a pattern")
            elif alias in names:
                problems.add(place, "is the name of a model too")
            elif alias in aliases:
                problems.add(place, "is an alias already")
            aliases.add(alias)


def _refuse_bad_name(name: str, place: Place, problems: Problems) -> None:
    if name.startswith(DEMO_PREFIX):
        problems.add(place, f"must not start with {DEMO_PREFIX}", "these models are built in")
    if not name.isprintable():
        problems.add(place, "must not hold control characters")


def _refuse_unknown_demos(items: Sequence[Item[ModelKeys]], demo_models: Collection[str], problems: Problems) -> None:
    for item in items:
        for index, name in enumerate(item.keys.fallbacks):
            if name.startswith(DEMO_PREFIX) and name not in demo_models:
                hint = nearest(name, demo_models)
                problems.add(item.place("fallbacks", index), f"must be the name of a demo model{shown(name)}", hint)


def _read_model(
    item: Item[ModelKeys], owners: Mapping[str, str], upstreams: Collection[str], problems: Problems
) -> ModelSettings:
    keys = item.keys
    return ModelSettings(
        keys.name,
        _read_targets(item, upstreams, problems),
        _read_fallbacks(item, owners, problems),
        tuple(keys.aliases),
        keys.balance,
    )


def _read_targets(item: Item[ModelKeys], upstreams: Collection[str], problems: Problems) -> tuple[TargetSettings, ...]:
    targets = []
    destinations: set[tuple[str, str]] = set()
    for target in read_items(TargetKeys, item.document, (*item.path, "targets"), problems):
        keys = target.keys
        if keys.upstream not in upstreams:
            hint = nearest(keys.upstream, upstreams)
            problems.add(target.place("upstream"), f"must be the name of an upstream{shown(keys.upstream)}", hint)
        wildcards = (keys.model or "").count(_WILDCARD)
        if wildcards > item.keys.name.count(_WILDCARD):
            hint = f"it stands for what the {_WILDCARD} in the model's name matches"
            problems.add(target.place("model"), f"must not hold more {_WILDCARD} than the model's name", hint)
        destination = (keys.upstream, keys.model or item.keys.name)
        if destination in destinations:
            problems.add(target.place(), "leads to the same model at the same upstream as an earlier one")
        destinations.add(destination)
        targets.append(TargetSettings(keys.upstream, keys.model, keys.weight, keys.priority, keys.context_tokens))
    return tuple(targets)


def _read_fallbacks(item: Item[ModelKeys], owners: Mapping[str, str], problems: Problems) -> tuple[str, ...]:
    """Return the names of the models that the fallbacks mean, aliases followed."""
    fallbacks: list[str] = []
    for index, asked in enumerate(item.keys.fallbacks):
        place = item.place("fallbacks", index)
        name = asked if asked.startswith(DEMO_PREFIX) else owners.get(asked)
        if _WILDCARD in asked:
            problems.add(place, "must not be a wildcard", "name one model")
        elif name is None:
            hint = nearest(asked, [known for known in owners if _WILDCARD not in known])
            problems.add(place, f"must be the name or an alias of a model{shown(asked)}", hint)
        elif name == item.keys.name:
            problems.add(place, "names the model itself")
        elif name in fallbacks:
            problems.add(place, "names the same model as an earlier one")
        else:
            fallbacks.append(name)
    return tuple(fallbacks)


def _refuse_loops(items: Sequence[Item[ModelKeys]], models: Sequence[ModelSettings], problems: Problems) -> None:
    """Note a problem for fallbacks that lead back to where they began, where the loop begins."""
    places = {model.name: item.place("fallbacks") for item, model in zip(items, models, strict=True)}
    for loop in find_loops({model.name: model.fallbacks for model in models}):
        names = loop if len(loop) <= _SHOWN_NAMES else [*loop[: _SHOWN_NAMES - 2], "…", *loop[-2:]]
        problems.add(places[loop[0]], f"lead back to the model: {' → '.join(names)}", "take one of them out")


def find_loops(followers: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return loops, each as the names on it with the first one again at its end; none only when there is none.

    Of loops that hang together not all are returned, so that the work stays linear.
    """
    loops: list[list[str]] = []
    done: set[str] = set()
    for start in followers:
        path = {} if start in done else {start: iter(followers[start])}
        while path:
            following = next(path[next(reversed(path))], None)
            if following is None:
                done.add(path.popitem()[0])
            elif following in path:
                way = list(path)
                loops.append([*way[way.index(following) :], following])
                done |= path.keys()
                break
            elif following not in done:
                path[following] = iter(followers.get(following, ()))
    return loops
