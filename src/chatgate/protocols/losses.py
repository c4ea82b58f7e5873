"""What gets lost when a call is put into another protocol: noted field by field, then refused or reported.

Two kinds are told apart. Without a *part* the answer would be to another question: the call is refused, or, where the
operator allows it, goes without. A *hint* only asks for a way of working, such as what to cache: the call goes without,
and the caller is told so. Used by every translation of requests.
"""

from __future__ import annotations

import re

from chatgate.vocabulary.errors import CallerError, Kind, Remedy

_INDEX = re.compile(r"\[\d+\]")


class Losses:
    """What one translation could not carry."""

    __slots__ = ("_hints", "_parts")

    def __init__(self) -> None:
        """Start with nothing lost."""
        self._parts: list[str] = []
        self._hints: list[str] = []

    def part(self, path: str) -> None:
        """Note a field whose loss changes what is asked: `messages[0].content[1]`."""
        self._parts.append(path)

    def hint(self, path: str) -> None:
        """Note a field that the call can do without."""
        self._hints.append(path)

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the paths of the parts, in the order in which they were met."""
        return tuple(self._parts)

    def dropped(self, *, drops_parts: bool) -> tuple[str, ...]:
        """Return what the call goes without, each kind of field once: `tools[].cache_control`.

        Raises `CallerError` for the first part, unless the operator allows such losses. Another target may be able to
        carry it, so that is what may be tried next.
        """
        if self._parts and not drops_parts:
            path = self._parts[0]
            refusal = CallerError(Kind.INVALID_VALUE, "not_carried", param=path, parameters={"field": path})
            refusal.remedy = Remedy.ANOTHER_TARGET
            raise refusal
        return tuple(dict.fromkeys(_INDEX.sub("[]", path) for path in (*self._parts, *self._hints)))
