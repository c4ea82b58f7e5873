"""Forms are watched as they pass: what they say is read however they are cut, and what is not clear is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols.multipart import MAX_PART_HEAD_BYTES, MAX_PARTS, MAX_VALUE_BYTES, Watch, boundary_of
from chatgate.vocabulary.errors import CallerError

BOUNDARY = b"----a-boundary-1"
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8).filter(
    lambda name: not set(name) & set('"\\;')
)


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    """Return a part as clients write it."""
    more = "" if filename is None else f'; filename="{filename}"\r\nContent-Type: audio/mpeg'
    return f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value


def form(*parts: bytes, boundary: bytes = BOUNDARY) -> bytes:
    """Return a whole form."""
    return b"".join(b"--%b\r\n%b\r\n" % (boundary, each) for each in parts) + b"--%b--\r\n" % boundary


def watched(body: bytes, cuts: list[int] | None = None) -> Watch:
    """Watch a whole form pass in pieces."""
    watch = Watch(BOUNDARY, ("model", "prompt"), ("model",))
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts or ()), len(body)]
    for begin, end in itertools.pairwise(edges):
        watch.feed(body[begin:end])
    watch.end()
    return watch


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=40), st.none() | NAMES), max_size=5),
    st.binary(min_size=0, max_size=30),
    st.lists(st.integers(0, 600), max_size=12),
)
def test_it_reads_the_same_however_it_is_cut(
    others: list[tuple[str, bytes, str | None]], model: bytes, cuts: list[int]
) -> None:
    """A field's value and its place are found among files and other fields, cut at any byte."""
    parts = [part(name, value, filename) for name, value, filename in others if name not in {"model", "prompt"}]
    body = form(*parts, part("model", model), part("file", b"\r\n--not it\r\n", "a.mp3"))
    watch = watched(body, cuts)
    start, end = watch.spans["model"]
    assert watch.values["model"] == model == body[start:end]
    assert watch.is_complete


def test_every_cut_of_one_form() -> None:
    """Two pieces, cut at each byte, are the whole."""
    body = form(part("file", b"\r\n-" * 20, "a"), part("model", b"m"), part("prompt", b""))
    for cut in range(len(body)):
        watch = watched(body, [cut])
        assert (watch.values, watch.text_bytes) == ({"model": b"m", "prompt": b""}, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--%b--\r\n" % BOUNDARY,
        form(part("model", b"m"))[:-4],
        form(part("model", b"m"))[:-8],
        b"preamble\r\n" + form(part("model", b"m")),
        form(part("model", b"m")) + b"epilogue",
        form(part("model", b"m")) + b"\r\n\r\n\r\n",
        form(part("model", b"m")) + form(part("model", b"n")),
        form(part("model", b"m")).replace(BOUNDARY + b"\r\n", BOUNDARY + b" \r\n"),
        form(part("model", b"m")).replace(b"\r\n", b"\n"),
        form(part("model", b"m"), part("model", b"n")),
        form(part("model", b"m", "a.txt")),
        form(part("model", b"m" * (MAX_VALUE_BYTES + 1))),
        form(b"\r\nno head"),
        form(b"Content-Type: text/plain\r\n\r\nno name"),
        form(b"Content-Disposition: attachment; name=model\r\n\r\nm"),
        form(b"Content-Disposition: form-data\r\n\r\nm"),
        form(b'Content-Disposition: form-data; name=""\r\n\r\nm'),
        form(b'Content-Disposition: form-data; name="model"; name="x"\r\n\r\nm'),
        form(b"Content-Disposition: form-data; name=\"x\"; name*=utf-8''model\r\n\r\nm"),
        form(b'Content-Disposition: form-data; name="mo\\"del"\r\n\r\nm'),
        form(b'Content-Disposition: form-data; name="model\0"\r\n\r\nm'),
        form(b'Content-Disposition: form-data; name="\xff"\r\n\r\nm'),
        form(b'Content-Disposition: form-data; name="model" oops\r\n\r\nm'),
        form(b'Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="model"\r\n\r\nm'),
        form(b'Content-Disposition : form-data; name="model"\r\n\r\nm'),
        form(b'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: base64\r\n\r\nbQ=='),
        form(b"X: " + b"y" * MAX_PART_HEAD_BYTES + b"\r\n\r\n"),
        form(*[part(f"p{number}", b"") for number in range(MAX_PARTS + 1)]),
    ],
)
def test_what_is_not_clear_is_refused(body: bytes) -> None:
    """No form is accepted that another reader could understand in another way; nor is one that goes on for ever."""
    for cuts in ([], list(range(0, len(body), 7))):
        with pytest.raises(CallerError):
            watched(body, cuts)


def test_an_endless_head_is_not_collected() -> None:
    """The head of a part, and a text before the first, are given up as soon as they are too long."""
    watch = Watch(BOUNDARY, (), ())
    watch.feed(b"--%b\r\n" % BOUNDARY)
    for _ in range(MAX_PART_HEAD_BYTES // 1024):
        watch.feed(b"X-Header: %b\r\n" % (b"y" * 1012))
    with pytest.raises(CallerError):
        watch.feed(b"X")
    with pytest.raises(CallerError):
        Watch(BOUNDARY, (), ()).feed(b"preamble " * 10)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; Boundary="a b:c"', b"a b:c"),
        ("multipart/form-data;boundary=----x;charset=utf-8", b"----x"),
    ],
)
def test_boundaries(content_type: str, boundary: bytes) -> None:
    """They are read as clients write them."""
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "a" * 71,
        "multipart/form-data; boundary=" + "a" * (1 << 20),
        "multipart/form-data; boundary=a; boundary=b",
        'multipart/form-data; boundary="a\\"b"',
        "multipart/form-data; boundary=a\0b",
        'multipart/form-data; boundary="a "',
        "multipart/form-data; xboundary=a",
        "multipart/form-data; boundary=ä",
    ],
)
def test_what_is_no_boundary(content_type: str) -> None:
    """Missing, doubled, too long or of other letters: refused."""
    with pytest.raises(CallerError):
        boundary_of(content_type)
