"""Forms are read until it is known where they go; what is put by is bounded, and the rest has one reader."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chatgate import receiving
from chatgate.protocols.forms import Form
from chatgate.receiving import MAX_PUT_BY_BYTES, WHOLE_BYTES, Receiving
from chatgate.vocabulary.errors import CallerError, GateError, Kind, Overloaded, UpstreamError
from chatgate.vocabulary.exchange import Pieces
from fakes.media import END, FORM, part

NAME = part("model", b"a-model")
PIECE = bytes(1 << 16)


class FakeUpload:
    """A body that arrives as it is read."""

    def __init__(self, *pieces: bytes, error: GateError | None = None) -> None:
        """Give the pieces, then the end, or the error."""
        self.pieces = list(pieces)
        self.error = error
        self.length_bytes = None if error else sum(map(len, pieces))

    async def next_piece(self) -> bytes:
        """Return the next piece."""
        if not self.pieces and self.error is not None:
            raise self.error
        return self.pieces.pop(0) if self.pieces else b""


async def read(pieces: Pieces) -> bytes:
    """Return all of them."""
    out = b""
    while piece := await pieces.next_piece():
        out += piece
    return out


@contextlib.asynccontextmanager
async def begun(directory: Path, *pieces: bytes) -> AsyncIterator[tuple[Form, FakeUpload]]:
    """Give a form that was begun to be read."""
    upload = FakeUpload(*pieces)
    form, beginning = await Receiving(directory).begin(upload, FORM[1])
    assert beginning is not None
    yield form, upload
    beginning.close()


async def test_a_short_form_is_read_whole_and_again(tmp_path: Path) -> None:
    """It can be sent as often as it has to be, each time to another target."""
    body = NAME + part("file", b"x", "a") + END
    async with begun(tmp_path, *(bytes([byte]) for byte in body)) as (form, upload):
        assert (form.error, upload.pieces, form.length_bytes) == (None, [], len(body))
        for model in (None, "b", "a-longer-name"):
            pieces, length = form.pieces(model)
            sent = await read(pieces)
            assert sent == (body if model is None else body.replace(b"a-model", model.encode()))
            assert length == len(sent)


@pytest.mark.parametrize("late", [False, True])
async def test_a_long_form_is_read_on_once(tmp_path: Path, late: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The name may come first or last; what came before it is put by, and forgotten at the end."""
    file = part("file", b"", "a")[:-2]
    body = [file, *[PIECE] * 40, b"\r\n" + NAME + END] if late else [NAME + file, *[PIECE] * 40, b"\r\n" + END]
    upload, receiver = FakeUpload(*body), Receiving(tmp_path)
    form, beginning = await receiver.begin(upload, FORM[1])
    assert beginning is not None
    assert (receiver.put_by_bytes > 40 * len(PIECE)) == late
    assert bool(upload.pieces) != late
    pieces, _ = form.pieces("b")
    assert await read(pieces) == b"".join(body).replace(b"a-model", b"b")
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - a test may wait for a disk
    if not late:
        assert not form.source.may_open
        with pytest.raises(UpstreamError):
            form.pieces("b")
    beginning.close()
    beginning.close()
    assert receiver.put_by_bytes == 0


async def test_the_rest_has_one_reader(tmp_path: Path) -> None:
    """When a second target is asked beside the first, the first gets no more."""
    body = (NAME + part("file", b"", "a")[:-2], *[PIECE] * 9, b"\r\n" + END)
    async with begun(tmp_path, *body) as (form, _):
        (first, _), (second, _) = form.pieces(None), form.pieces(None)
        with pytest.raises(UpstreamError):
            await read(first)
        assert await read(second) == b"".join(body)


async def test_what_is_put_by_is_bounded(tmp_path: Path) -> None:
    """For one form, and for all of them; and nobody sends on what was closed."""
    file = part("file", b"", "a")[:-2]
    receiver = Receiving(tmp_path)
    form, beginning = await receiver.begin(FakeUpload(file, *[bytes(1 << 20)] * (MAX_PUT_BY_BYTES >> 20)), FORM[1])
    assert beginning is None
    assert isinstance(form.error, CallerError)
    assert (form.error.reason, receiver.put_by_bytes) == ("form_model_late", 0)
    receiver.put_by(receiving.MAX_ALL_PUT_BY_BYTES - 10)
    form, _ = await receiver.begin(FakeUpload(NAME + END), FORM[1])
    assert isinstance(form.error, Overloaded)
    receiver.put_by(-receiver.put_by_bytes)
    form, beginning = await receiver.begin(FakeUpload(NAME + file, PIECE * 9), FORM[1])
    assert beginning is not None
    pieces, _ = form.pieces(None)
    beginning.close()
    with pytest.raises(CallerError):
        await pieces.next_piece()


async def test_what_does_not_arrive_is_said_by_the_form(tmp_path: Path) -> None:
    """A caller who is too slow, or who breaks a rule of the wire, is told why."""
    error = CallerError(Kind.REQUEST_TIMEOUT, "request_timeout")
    form, _ = await Receiving(tmp_path).begin(FakeUpload(NAME, error=error), FORM[1])
    assert form.error is error
    assert len(form) == 0


async def test_files_are_reckoned_at_less_than_text(tmp_path: Path) -> None:
    """A file counts as a sixteenth of its bytes."""
    body = part("prompt", b"p" * 100) + NAME + part("file", PIECE * 9, "a") + END
    async with begun(tmp_path, body) as (form, _):
        assert form.length_bytes == len(body) > WHOLE_BYTES
        assert 100 < len(form) < len(body) / 15


@pytest.mark.parametrize(
    ("declared", "passed"),
    [
        ('multipart/form-data; charset=utf-8; Boundary="abc"', "multipart/form-data; boundary=abc"),
        ("Multipart/Form-Data; boundary=a:b; x=y", 'multipart/form-data; boundary="a:b"'),
    ],
)
async def test_a_type_is_passed_as_it_was_understood(tmp_path: Path, declared: str, passed: str) -> None:
    """Nothing goes along in which an upstream could read another boundary."""
    boundary = b"abc" if "abc" in declared else b"a:b"
    body = NAME + END
    upload = FakeUpload(body.replace(FORM[1].partition("=")[2].encode(), boundary))
    form, beginning = await Receiving(tmp_path).begin(upload, declared)
    assert (form.error, form.content_type) == (None, passed)
    assert beginning is not None
    beginning.close()
