"""Forms with files on their way in: read as far as has to be known before they can go anywhere, then passed on.

Where a call goes depends on its model, and many clients name that before the file, but not all: the official client for
Node and the examples for curl send the file first. What comes before the name is therefore put by, in memory while it
is short, else in a file without a name that is gone with whatever ends it; how much may be put by is bounded, for one
form and for all of them. A form that is all there before it goes on can be sent a second time; of any other the rest is
handed on as it comes, once.

Called by the endpoints for bodies that are still arriving.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Final

from chatgate.protocols.forms import Form, watch_of
from chatgate.vocabulary.errors import CallerError, GateError, Kind, Overloaded, UpstreamError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from chatgate.protocols.multipart import Watch
    from chatgate.vocabulary.exchange import Pieces, Upload

WHOLE_BYTES: Final = 256 << 10
"""A form of up to this size is read to its end first, so that it can be sent again when an upstream fails."""

MAX_PUT_BY_BYTES: Final = 64 << 20
"""So much may come before the name of the model."""

MAX_ALL_PUT_BY_BYTES: Final = 1 << 30
"""So much of all forms together is put by."""

_IN_MEMORY_BYTES: Final = 512 << 10
_PIECE_BYTES: Final = 128 << 10


class Receiving:
    """Receives forms. `put_by_bytes` is how much of all of them is put by now."""

    def __init__(self, directory: Path) -> None:
        """`directory` is where files are made, if it is there."""
        self._directory = directory
        self.put_by_bytes = 0

    async def begin(self, upload: Upload, content_type: str) -> tuple[Form, Beginning | None]:
        """Read a form until its model is known; what is wrong with it is told by the form itself.

        What is returned besides has to be closed when the call has ended.
        """
        beginning: Beginning | None = None
        try:
            watch = watch_of(content_type)
            beginning = Beginning(self, upload, watch)
            await beginning.read()
        except GateError as error:
            if beginning is not None:
                beginning.close()
            return Form.broken(error), None
        except BaseException:
            if beginning is not None:
                beginning.close()
            raise
        return Form.begun(watch, beginning, content_type, beginning.length_bytes), beginning

    def make_file(self) -> IO[bytes]:
        """Return a file without a name, which is in memory as long as it is short."""
        directory = str(self._directory) if self._directory.is_dir() else None
        return tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, dir=directory)

    def put_by(self, size_bytes: int) -> None:
        """Count bytes that are put by, or, as a negative number, no more. Raises `Overloaded` for too many."""
        if size_bytes > 0 and self.put_by_bytes + size_bytes > MAX_ALL_PUT_BY_BYTES:
            raise Overloaded
        self.put_by_bytes += size_bytes


class Beginning:
    """What has come of one form, and the way to the rest of it: a `Source`."""

    def __init__(self, receiving: Receiving, upload: Upload, watch: Watch) -> None:
        """Start with nothing read."""
        self._receiving = receiving
        self._upload = upload
        self._watch = watch
        self._file = receiving.make_file()
        self._size_bytes = 0
        self._is_whole = False
        self._is_taken = False
        self._is_closed = False
        self._reader: _Reader | None = None

    @property
    def length_bytes(self) -> int | None:
        """Return how long the form is, None when that is not known yet."""
        return self._size_bytes if self._is_whole else self._upload.length_bytes

    @property
    def may_open(self) -> bool:
        """Tell whether it can be read from its beginning."""
        return self._is_whole or not self._is_taken

    async def read(self) -> None:
        """Read until the model is known, and a short form to its end. Raises `GateError`."""
        watch = self._watch
        while "model" not in watch.values or self._size_bytes <= WHOLE_BYTES:
            piece = await self._upload.next_piece()
            if not piece:
                watch.end()
                self._is_whole = True
                return
            watch.feed(piece)
            self._keep(piece)

    def open(self, start: int, end: int, replacement: bytes) -> Pieces:
        """Return all of it, with the bytes from `start` to `end` replaced, which are among those read."""
        self._reader = _Reader(self, start, end, replacement)
        return self._reader

    def close(self) -> None:
        """Forget what was put by. May be called again."""
        self._receiving.put_by(-self._size_bytes)
        self._size_bytes = 0
        self._is_closed = True
        self._file.close()

    def read_at(self, start: int, end: int) -> bytes:
        """Return a piece of what was put by, b"" when there is nothing from `start` on. Raises `CallerError`."""
        if self._is_closed:  # The caller has left.
            raise CallerError(Kind.INVALID_VALUE, "bad_request")
        if start >= min(end, self._size_bytes):
            return b""
        self._file.seek(start)
        return self._file.read(min(end, self._size_bytes, start + _PIECE_BYTES) - start)

    async def next_of_rest(self, reader: _Reader) -> bytes:
        """Return the next piece that was not put by; b"" once, at the end. Raises `GateError`.

        The rest is there for one reader, the last one: another target may have been asked beside the first.
        """
        if self._is_whole:
            return b""
        if reader is not self._reader:
            raise UpstreamError("upstream_cut")
        self._is_taken = True
        piece = await self._upload.next_piece()
        if piece:
            self._watch.feed(piece)
        else:
            self._watch.end()
        return piece

    def _keep(self, piece: bytes) -> None:
        if self._size_bytes + len(piece) > MAX_PUT_BY_BYTES:
            raise CallerError(Kind.INVALID_VALUE, "form_model_late", param="model")
        self._receiving.put_by(len(piece))
        self._size_bytes += len(piece)
        try:
            self._file.write(piece)
        except OSError:  # The disk is full.
            raise Overloaded from None


class _Reader:
    """A form as it is sent on, once."""

    def __init__(self, beginning: Beginning, start: int, end: int, replacement: bytes) -> None:
        self._beginning = beginning
        self._start = start
        self._end = end
        self._replacement = replacement
        self._at = 0

    async def next_piece(self) -> bytes:
        """Return the next piece; b"" once, at the end. Raises `GateError`."""
        if self._at < self._start:
            piece = self._beginning.read_at(self._at, self._start)
            self._at += len(piece)
            return piece
        if self._at < self._end or self._replacement:
            piece, self._replacement = self._replacement, b""
            self._at = max(self._at, self._end)
            return piece
        piece = self._beginning.read_at(self._at, self._beginning.length_bytes or MAX_PUT_BY_BYTES)
        self._at += len(piece)
        return piece or await self._beginning.next_of_rest(self)
