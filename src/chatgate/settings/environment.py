"""The environment's part of the configuration: its names, and what they mean in the settings tree.

Owns the names: the seed's, `CHATGATE_*`, and the `…_FILE` variant of every secret. An empty variable counts as unset,
since container tools pass unset ones so. Does not decide what wins. Called by `reading` and `upstreams`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from chatgate.settings.entries import Entries, Entry, is_list
from chatgate.settings.keys import SECTIONS
from chatgate.settings.problems import Place, Problems, Refusal, nearest

_PREFIX = "CHATGATE_"
_SECRET_MAX_BYTES = 1 << 16

_SEED_KEYS = {"ROUTE": ("server", "route"), "LANG": ("server", "language"), "IP_WHITELIST": ("access", "allow")}
_SEED_VALUES = {
    "SECOND_LIMIT": "limits per second",
    "MINUTE_LIMIT": "limits per minute",
    "HOUR_LIMIT": "limits per hour",
    "DAY_LIMIT": "limits per day",
    "DEFAULT_MODEL": "DEFAULT_MODEL",
}

_SHORT_KEYS = {
    "CHATGATE_HOST": ("server", "host"),
    "CHATGATE_PORT": ("server", "port"),
    "CHATGATE_WORKERS": ("server", "workers"),
}
_LONG_KEYS = {
    f"{_PREFIX}{section.upper()}__{field.name.upper()}": (section, field.name)
    for section, table in SECTIONS.items()
    for field in msgspec.structs.fields(table)
}
_OWN_SECRETS = ("CHATGATE_ADMIN_KEY", "CHATGATE_DATABASE_URL", "CHATGATE_PEPPER", "CHATGATE_REDIS_URL")
_KNOWN = frozenset(
    {
        *_SHORT_KEYS,
        *_LONG_KEYS,
        *_OWN_SECRETS,
        *(f"{name}_FILE" for name in _OWN_SECRETS),
        "CHATGATE_CONFIG",
        "CHATGATE_DATA",
        # These two belong to the terminal client, which may run on the same machine.
        "CHATGATE_KEY",
        "CHATGATE_URL",
    }
)

# What Kubernetes tells every pod about a service named chatgate or chatgate-….
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables (read 2026-11-23).
_SERVICE_NAME = re.compile(
    r"CHATGATE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)\Z"
)
_SERVICE_PORT_NAME = re.compile(r"CHATGATE_([A-Z0-9_]+_)?PORT\Z")
_SERVICE_PORT_VALUE = re.compile(r"(tcp|udp|sctp)://")

_NO_LANGUAGE = frozenset({"C", "POSIX"})


class Environment:
    """The variables that are set, without what Kubernetes put there."""

    __slots__ = ("_directory", "_problems", "_values")

    def __init__(self, environ: Mapping[str, str], directory: Path, problems: Problems) -> None:
        """Take the variables; relative paths in them start at `directory`."""
        self._directory = directory
        self._problems = problems
        stripped = {name: value.strip() for name, value in environ.items()}
        self._values = {name: value for name, value in stripped.items() if value and not _is_of_a_service(name, value)}

    def find(self, name: str, key: str = "") -> Entry | None:
        """Return the variable `name`, None when it is unset; `key` is the setting it speaks about, if there is one."""
        value = self._values.get(name)
        return None if value is None else Entry(value, Place(name, key or name), is_text=True)

    def find_any_case(self, name: str, key: str = "") -> Entry | None:
        """Return a variable that is also spelled in lower case, which wins as it does in curl."""
        return self.find(name.lower(), key) or self.find_secret(name, key)

    def find_secret(self, name: str, key: str = "") -> Entry | None:
        """Return the variable `name`, or the content of the file that its `…_FILE` variant names."""
        direct, file = self.find(name, key), self.find(f"{name}_FILE", key)
        if file is None:
            return direct
        if direct is not None:
            self._problems.add(file.place, f"cannot be set together with {name}", "unset one of the two")
            return direct
        with self._problems.about(file.place):
            return Entry(read_secret_file(self._directory / file.value), file.place, is_text=True)
        return None

    def seed_sections(self) -> dict[str, Entries]:
        """Return what the seed's names say about sections."""
        sections = self._sections(_SEED_KEYS)
        language = sections["server"].get("language")
        # Every shell and image sets LANG; these values choose no language.
        if language and re.split("[.@]", language.value)[0].upper() in _NO_LANGUAGE:
            del sections["server"]["language"]
        return sections

    def seed_values(self) -> Entries:
        """Return what the seed's names say that is no key of a section."""
        found = {name: self.find(name, key) for name, key in _SEED_VALUES.items()}
        return {name: entry for name, entry in found.items() if entry is not None}

    def own_sections(self) -> dict[str, Entries]:
        """Return what `CHATGATE_*` says about sections; the same key twice is a problem."""
        for name, key in _SHORT_KEYS.items():
            long = f"{_PREFIX}{key[0].upper()}__{key[1].upper()}"
            if name in self._values and long in self._values:
                self._problems.add(Place(long, long), f"cannot be set together with {name}", "unset one of the two")
        return self._sections(_LONG_KEYS | _SHORT_KEYS)

    def check_names(self) -> None:
        """Note a problem for every `CHATGATE_*` name that means nothing."""
        for name in sorted(self._values):
            if name.startswith(_PREFIX) and name not in _KNOWN:
                self._problems.add(Place(name, name), "is not a known variable", nearest(name, _KNOWN))

    def _sections(self, names: Mapping[str, tuple[str, str]]) -> dict[str, Entries]:
        sections: dict[str, Entries] = {section: {} for section in SECTIONS}
        for name, (section, key) in names.items():
            entry = self.find(name, f"{section}.{key}")
            if entry is None:
                continue
            if is_list(SECTIONS[section], key):
                items = [item.strip() for item in entry.value.split(",") if item.strip()]
                if not items:
                    # An allow list that became empty by a slip must not let everyone in.
                    self._problems.add(entry.place, "holds nothing but commas", "unset it, or list something")
                entry = Entry(items, entry.place)
            sections[section][key] = entry
        return sections


def read_secret_file(path: Path) -> str:
    """Return a secret kept in a file, without blanks around it. The path is not repeated in a `Refusal`.

    An operator who puts the secret itself where the path belongs must not find it in a log.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_SECRET_MAX_BYTES).decode().strip()
    except UnicodeDecodeError:
        raise Refusal("names a file that is not text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "bad path"
        raise Refusal(f"names a file that cannot be read: {reason}", "give the path of a file") from None
    if not text:
        raise Refusal("names an empty file")
    return text


def _is_of_a_service(name: str, value: str) -> bool:
    return bool(_SERVICE_NAME.match(name) or (_SERVICE_PORT_NAME.match(name) and _SERVICE_PORT_VALUE.match(value)))
