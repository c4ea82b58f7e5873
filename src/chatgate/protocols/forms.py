"""A caller's form with files, of which the beginning is known: what it says of itself, and how it is sent on.

The bytes of it are held, and read on, by whoever receives it; here it is only known what the short fields say and where
the model's name stands, which is all of it that ever changes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol, Self

from chatgate.protocols.multipart import Watch, boundary_of
from chatgate.vocabulary.errors import CallerError, GateError, Kind, UpstreamError

if TYPE_CHECKING:
    from chatgate.vocabulary.exchange import Pieces

WANTED: Final = ("model", "stream", "response_format", "n", "prompt")
"""The fields that are read; all others only pass."""

SINGLE: Final = ("model", "stream", "response_format", "n")
"""Those that decide what becomes of a call: of two of a name we might read one, and a provider the other."""

BYTES_PER_RECKONED_BYTE: Final = 16
"""A file is reckoned as a text of a sixteenth of its size, which is a token for every 64 bytes: speech at 6 kbit/s, the
least that Opus has, makes ten or a dozen tokens a second."""

_TOKEN: Final = re.compile(r"[0-9A-Za-z'+_.-]+")
_UNKNOWN_LENGTH_BYTES: Final = 25 << 20
"""What a form of unknown length is reckoned at: the largest file that OpenAI takes for a transcript."""


class Source(Protocol):
    """Where the bytes of a form are."""

    def open(self, start: int, end: int, replacement: bytes) -> Pieces:
        """Return all of it, with the bytes from `start` to `end` replaced."""

    @property
    def may_open(self) -> bool:
        """Tell whether it can be read from its beginning: nothing was taken of it that is not here."""


class Form(bytes):
    """A form as a body.

    Its length is what it is reckoned at in limits and estimates: files count for less than their bytes.
    `error` is what is wrong with it, None as long as nothing is; then `watch` has seen its beginning, with `model` in
    it. `length_bytes` is that of all of it, None when not known yet.
    """

    watch: Watch
    source: Source
    content_type: str
    length_bytes: int | None
    error: GateError | None

    @classmethod
    def begun(cls, watch: Watch, source: Source, content_type: str, length_bytes: int | None) -> Self:
        """Return a form whose beginning was read."""
        form = cls()
        form.watch, form.source, form.content_type = watch, source, _as_understood(content_type)
        form.length_bytes, form.error = length_bytes, None
        return form

    @classmethod
    def broken(cls, error: GateError) -> Self:
        """Return a form that is not well-formed, or that did not arrive."""
        form = cls()
        form.length_bytes, form.error = 0, error
        return form

    @classmethod
    def whole(cls, body: bytes, content_type: str) -> Self:
        """Return a form that is all there. Raises `CallerError` when it is not well-formed."""
        watch = watch_of(content_type)
        watch.feed(body)
        watch.end()
        return cls.begun(watch, _Body(body), content_type, len(body))

    def __len__(self) -> int:
        """Return how many bytes of text it is reckoned at."""
        if self.error is not None:
            return 0
        length_bytes = _UNKNOWN_LENGTH_BYTES if self.length_bytes is None else self.length_bytes
        return self.watch.text_bytes + max(length_bytes - self.watch.text_bytes, 0) // BYTES_PER_RECKONED_BYTE

    def value(self, field: str) -> str | None:
        """Return what a field says, None as long as it was not there. Raises `CallerError` when that is no text."""
        raw = self.watch.values.get(field)
        if raw is None:
            return None
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise CallerError(Kind.INVALID_VALUE, "invalid_field", param=field, parameters={"field": field}) from None

    def pieces(self, model: str | None) -> tuple[Pieces, int | None]:
        """Return all of it with another name of the model, None for its own, and how long that is.

        Raises `UpstreamError` when it cannot be read a second time.
        """
        if not self.source.may_open:
            error = UpstreamError("upstream_cut")
            raise error
        start, end = self.watch.spans["model"]
        replacement = self.watch.values["model"] if model is None else model.encode()
        length_bytes = self.length_bytes
        if length_bytes is not None:
            length_bytes += len(replacement) - (end - start)
        return self.source.open(start, end, replacement), length_bytes


def watch_of(content_type: str) -> Watch:
    """Return what watches a form. Raises `CallerError` when its type states no boundary."""
    return Watch(boundary_of(content_type), WANTED, SINGLE)


def _as_understood(content_type: str) -> str:
    """Return a form's type with nothing in it but the boundary, so that nobody reads another one in it."""
    boundary = boundary_of(content_type).decode()
    return (
        f"multipart/form-data; boundary={boundary}"
        if _TOKEN.fullmatch(boundary)
        else (f'multipart/form-data; boundary="{boundary}"')
    )


class _Body:
    """A form that came in one piece."""

    may_open = True

    def __init__(self, body: bytes) -> None:
        self._body = body

    def open(self, start: int, end: int, replacement: bytes) -> Pieces:
        return _Once(self._body[:start] + replacement + self._body[end:])


class _Once:
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def next_piece(self) -> bytes:
        body, self._body = self._body, b""
        return body
