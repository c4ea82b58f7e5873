"""Who may administer over HTTP: the key of the environment, and the file's `[[admins]]`. Called by `reading`."""

from __future__ import annotations

import re

from msgspec import Struct

from chatgate.settings.document import Document
from chatgate.settings.entries import Item, read_items
from chatgate.settings.environment import Environment, read_secret_file
from chatgate.settings.keys import AdminKeys
from chatgate.settings.problems import Place, Problems
from chatgate.settings.tree import AdminSettings
from chatgate.vocabulary.identity import GATEWAY_KEY_PREFIX

MIN_KEY_CHARACTERS = 32

_OF_ENVIRONMENT = "CHATGATE_ADMIN_KEY"
_WELL_FORMED = re.compile(rf"[\x21-\x7e]{{{MIN_KEY_CHARACTERS},512}}")
_MAKE_ONE = "make one with: openssl rand -hex 32"


class Admins(Struct, frozen=True):
    """Everybody who may administer, and their keys for redaction."""

    admins: tuple[AdminSettings, ...]
    secrets: frozenset[str]

    def __repr__(self) -> str:
        """Hide the keys."""
        return f"Admins({self.admins})"


def read_admins(document: Document, environment: Environment, problems: Problems) -> Admins:
    """Read them; the one of the environment may do everything, and is called after its variable."""
    found: list[AdminSettings] = []
    places: list[Place] = []
    entry = environment.find_secret(_OF_ENVIRONMENT)
    if entry is not None:
        found.append(AdminSettings(_OF_ENVIRONMENT, entry.value))
        places.append(entry.place)
    for item in read_items(AdminKeys, document, ("admins",), problems):
        place = item.place("key_file" if item.keys.key_file else "key")
        found.append(AdminSettings(item.keys.name, _key_of(item, place, problems), item.keys.owner, item.keys.may))
        places.append(place)
    for number, (admin, place) in enumerate(zip(found, places, strict=True)):
        _judge(admin, place, found[:number], problems)
    return Admins(tuple(found), frozenset(admin.key for admin in found if admin.key))


def _key_of(item: Item[AdminKeys], place: Place, problems: Problems) -> str:
    """Return the key of an item, "" when there is none."""
    if item.keys.key and item.keys.key_file:
        problems.add(place, "cannot stand beside key", "keep one of the two")
    elif item.keys.key_file:
        with problems.about(place):
            return read_secret_file(item.document.directory / item.keys.key_file)
    elif not item.keys.key:
        problems.add(place, "is missing", _MAKE_ONE)
    return item.keys.key or ""


def _judge(admin: AdminSettings, place: Place, others: list[AdminSettings], problems: Problems) -> None:
    if admin.key.startswith(GATEWAY_KEY_PREFIX):
        problems.add(place, "is a key for callers", _MAKE_ONE)
    elif admin.key and _WELL_FORMED.fullmatch(admin.key) is None:
        problems.add(place, f"must be {MIN_KEY_CHARACTERS} to 512 characters of ASCII without blanks", _MAKE_ONE)
    if admin.key and any(admin.key == other.key for other in others):
        problems.add(place, "is the key of another admin too", "give each one their own")
    if any(admin.name == other.name for other in others):
        problems.add(place, "belongs to a name that another admin has too", "the log tells them apart by it")
