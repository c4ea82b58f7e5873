"""Pictures and sound go to whoever speaks OpenAI's protocol: forms as they arrive, answers as they come."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.media import END, FORM, MediaProvider, Taken, part
from fakes.raw_server import Peer, answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON_TYPE = b"Content-Type: application/json"
TRANSCRIPT = {
    "text": "Good day.",
    "usage": {"type": "tokens", "input_tokens": 14, "input_token_details": {"audio_tokens": 10}, "output_tokens": 4},
}
PICTURES = {"created": 1, "data": [{"b64_json": "AAAA"}], "usage": {"input_tokens": 9, "output_tokens": 200}}
CONFIG = """
[[upstreams]]
name = "default"
base_url = "{url}"
[[models]]
name = "whisper"
targets = [{{ upstream = "default", model = "whisper-large-5" }}]
[[models]]
name = "painter"
targets = [{{ upstream = "default", model = "paint-1" }}]
[[prices]]
model = "whisper"
input_usd_per_million = "6"
output_usd_per_million = "10"
[retry]
max_retries = 1
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider_of_file() -> AsyncIterator[MediaProvider]:
    """Run a provider for the tests of this file."""
    provider = MediaProvider()
    async with provider.server:
        yield provider


@pytest.fixture
def provider(provider_of_file: MediaProvider) -> MediaProvider:
    """Return it with an empty log."""
    provider_of_file.taken.clear()
    provider_of_file.answers.clear()
    provider_of_file.before = None
    return provider_of_file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(provider_of_file: MediaProvider, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of it."""
    return await start_gateway(config=CONFIG.format(url=provider_of_file.url))


def said(body: bytes, *fields: bytes) -> bytes:
    """Return an answer that closes nothing."""
    return answer(body, *(fields or (JSON_TYPE,)))


def streamed(*pieces: bytes, kind: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Return an answer in chunks."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind + chunks + end


async def test_a_small_form_is_passed_and_charged(gateway: Gateway, provider: MediaProvider) -> None:
    """Only the model's name changes; a failure is tried again, since all of it is here. Usage is what is charged."""
    provider.answers += [
        answer(b'{"error":{"message":"Down."}}', JSON_TYPE, status=b"503 No"),
        said(json.dumps(TRANSCRIPT).encode()),
    ]
    sound = bytes(range(256)) * 4
    body = part("file", sound, "a.mp3") + part("model", b"whisper") + part("language", b"en") + END
    response = await http.request(gateway.port, "POST", "/v1/audio/transcriptions", [FORM], body)
    assert (response.status, response.json()) == (200, TRANSCRIPT)
    assert response.header("x-chatgate-attempts") == "2"
    taken = provider.taken[-1]
    assert (taken.target, bytes(taken.body)) == (
        "/v1/audio/transcriptions",
        body.replace(b"\r\nwhisper\r\n", b"\r\nwhisper-large-5\r\n"),
    )
    assert (taken.header("content-type"), taken.header("content-length")) == (FORM[1], str(len(taken.body)))
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    facts = (line["operation"], line["surface"], line["input_tokens"], line["output_tokens"], line["cost_usd"])
    assert facts == ("transcription", "transcriptions", 14, 4, "0.000124")


@pytest.mark.parametrize("order", ["model first", "file first"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_large_form_passes_as_it_arrives(
    gateway: Gateway, provider: MediaProvider, order: str, framing: str
) -> None:
    """64 MiB pass in any order and framing, while the gateway holds little of them."""
    provider.answers += [said(json.dumps(TRANSCRIPT).encode())] * 2
    small = part("model", b"whisper") + END
    await http.request(gateway.port, "POST", "/v1/audio/transcriptions", [FORM], small)  # Prices are loaded by now.
    provider.taken.clear()
    size = (64 << 20) if order == "model first" else (24 << 20)
    block = bytes(range(256)) * 256
    name = part("model", b"whisper")
    head, tail = part("file", b"", "a.wav")[:-2], b"\r\n" + END
    head, tail = (name + head, tail) if order == "model first" else (head, b"\r\n" + name + END)
    total = len(head) + size + len(tail)
    expected = hashlib.sha256(head.replace(b"\r\nwhisper\r\n", b"\r\nwhisper-large-5\r\n"))
    before_kib = gateway.resident_kib()
    peak_kib = 0
    async with await http.connect(gateway.port) as connection:
        how = ("Content-Length", str(total)) if framing == "length" else ("Transfer-Encoding", "chunked")
        lines = "".join(f"{name}: {value}\r\n" for name, value in (("Host", "x"), FORM, how))
        connection.send(f"POST /v1/audio/transcriptions HTTP/1.1\r\n{lines}\r\n".encode())
        for piece in (head, *([block] * (size // len(block))), tail):
            connection.send(piece if framing == "length" else b"%x\r\n%b\r\n" % (len(piece), piece))
            await connection.writer.drain()
            peak_kib = max(peak_kib, gateway.resident_kib())
            if piece is block:
                expected.update(block)
        if framing == "chunks":
            connection.send(b"0\r\n\r\n")
        response = await connection.read_response()
        assert (response.status, response.json()) == (200, TRANSCRIPT)
        provider.answers.append(said(json.dumps(PICTURES).encode()))
        again = await connection.request(
            "POST", "/v1/images/generations", [http.JSON], b'{"model":"painter","prompt":"x"}'
        )
        assert again.status == 200  # The connection goes on.
    expected.update(tail.replace(b"\r\nwhisper\r\n", b"\r\nwhisper-large-5\r\n"))
    taken = provider.taken[0]
    assert (taken.is_whole, taken.digest) == (True, expected.hexdigest())
    assert (taken.header("transfer-encoding") is None) == (framing == "length")
    assert peak_kib - before_kib < 8 << 10, f"{(peak_kib - before_kib) >> 10} MiB were held"
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert (line["input_tokens"], line["outcome"], line["attempts"]) == (14, "completed", 1)
    assert not [name for name in gateway.files() if "tmp" in name]


async def test_an_early_answer_reaches_the_caller(gateway: Gateway, provider: MediaProvider) -> None:
    """An upstream that refuses in the middle of the body, and closes, is heard; nothing is sent a second time."""

    async def refuse(peer: Peer, taken: Taken) -> bool:
        await peer.reader.readexactly(1 << 20)
        taken.size = 1 << 20
        await peer.send(answer(b'{"error":{"message":"Too long.","code":"too_long"}}', JSON_TYPE, status=b"413 Long"))
        return True

    provider.before = refuse
    async with await http.connect(gateway.port) as connection:
        head = part("model", b"whisper") + part("file", b"", "a.wav")[:-2]
        lines = f"Host: x\r\n{FORM[0]}: {FORM[1]}\r\nContent-Length: {len(head) + (32 << 20)}\r\n"
        connection.send(f"POST /audio/transcriptions HTTP/1.1\r\n{lines}\r\n".encode() + head + bytes(4 << 20))
        response = await connection.read_response()
    assert (response.status, response.header("connection")) == (413, "close")
    assert "Too long." in response.json()["error"]["message"]
    assert len(provider.taken) == 1
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert (line["attempts"], line["outcome"]) == (1, "upstream_failed")


async def test_a_failure_after_the_body_is_not_tried_again(gateway: Gateway, provider: MediaProvider) -> None:
    """What was passed on as it came is nowhere any more."""
    provider.answers += [answer(b"{}", JSON_TYPE, status=b"503 No"), said(json.dumps(TRANSCRIPT).encode())]
    body = part("model", b"whisper") + part("file", bytes(4 << 20), "a.wav") + END
    response = await http.request(gateway.port, "POST", "/v1/audio/transcriptions", [FORM], body)
    assert response.status == 502
    assert (len(provider.taken), response.header("x-chatgate-attempts")) == (1, "1")


async def test_a_caller_who_leaves_takes_the_upstream_along(gateway: Gateway, provider: MediaProvider) -> None:
    """The connection to the upstream ends at once."""
    body = part("model", b"whisper") + part("file", bytes(1 << 20), "a.wav")
    async with await http.connect(gateway.port) as connection:
        lines = f"Host: x\r\n{FORM[0]}: {FORM[1]}\r\nContent-Length: {64 << 20}\r\n"
        connection.send(f"POST /v1/audio/transcriptions HTTP/1.1\r\n{lines}\r\n".encode() + body)
        taken = await provider.took(1 << 19)
    async with asyncio.timeout(5):  # It takes a few milliseconds; machines may be busy.
        while not taken.has_left:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
    [line] = await gateway.logged("call", outcome="client_left")
    assert line["operation"] == "transcription"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (part("model", b"whisper") + part("model", b"painter") + END, 400, "model"),
        (part("model", b"whisper") + part("file", bytes(1 << 20), "a") + part("model", b"x") + END, 400, "model"),
        (part("file", b"x", "a") + END, 400, "model"),
        (part("model", b"whi\0sper") + END, 400, "model"),
        (part("model", b"\xff") + END, 400, "model"),
        (part("model", b"whisper", "m.txt") + END, 400, "model"),
        (part("model", b"whisper") + part("file", bytes(1 << 20), "a"), 400, None),
        (b"x" * (1 << 20), 400, None),
        (b"", 400, None),
    ],
)
async def test_forms_that_are_not_clear(
    gateway: Gateway, provider: MediaProvider, body: bytes, status: int, param: str | None
) -> None:
    """They are refused in OpenAI's shape, and no upstream gets a whole one."""
    for headers in ([FORM], [FORM, ("Transfer-Encoding", "chunked")]):
        sent = body if len(headers) == 1 else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        async with await http.connect(gateway.port) as connection:
            lines = "".join(f"{name}: {value}\r\n" for name, value in (("Host", "x"), *headers))
            length = f"Content-Length: {len(body)}\r\n" if len(headers) == 1 else ""
            connection.send(f"POST /v1/audio/transcriptions HTTP/1.1\r\n{lines}{length}\r\n".encode() + sent)
            response = await connection.read_response()
        assert (response.status, response.json()["error"]["param"]) == (status, param)
    assert not [taken for taken in provider.taken if taken.is_whole and b"painter" in taken.body]


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/mixed; boundary=a", "application/json", "text/plain"]
)
async def test_other_types(gateway: Gateway, provider: MediaProvider, kind: str) -> None:
    """A transcript needs a form with a boundary."""
    response = await http.request(
        gateway.port, "POST", "/v1/audio/transcriptions", [("Content-Type", kind)], b'{"model":"whisper"}'
    )
    assert response.status == (400 if kind == "multipart/form-data" else 415)
    assert provider.taken == []


async def test_a_form_over_the_limit(gateway: Gateway, provider: MediaProvider) -> None:
    """It is refused by its stated length."""
    async with await http.connect(gateway.port) as connection:
        connection.send(
            f"POST /v1/images/edits HTTP/1.1\r\nHost: x\r\n{FORM[0]}: {FORM[1]}\r\n".encode()
            + b"Content-Length: %d\r\n\r\n" % (1 << 40)
        )
        response = await connection.read_response()
    assert (response.status, response.json()["error"]["code"]) == (413, "request_too_large")
    assert provider.taken == []


async def test_a_transcript_streams(gateway: Gateway, provider: MediaProvider) -> None:
    """Events pass byte for byte, whether the wish for them comes before the file or after it."""
    delta = b'event: transcript.text.delta\ndata: {"type":"transcript.text.delta","delta":"Good"}\n\n'
    done = b"data: " + json.dumps({"type": "transcript.text.done", **TRANSCRIPT}).encode() + b"\n\n"
    for end in (b"", b"data: [DONE]\n\n"):
        provider.answers.append(streamed(delta, done + end, kind=b"text/event-stream"))
        body = part("model", b"whisper") + part("file", bytes(1 << 20), "a") + part("stream", b"true") + END
        response = await http.request(gateway.port, "POST", "/v1/audio/transcriptions", [FORM], body)
        assert (response.status, response.body) == (200, delta + done + end)
        assert (response.header("content-type") or "").startswith("text/event-stream")
        [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
        assert (line["input_tokens"], line["output_tokens"], line["stream"]) == (14, 4, True)
    provider.answers.append(streamed(delta, kind=b"text/event-stream"))
    broken = await http.request(
        gateway.port,
        "POST",
        "/v1/audio/transcriptions",
        [FORM],
        part("stream", b"true") + part("model", b"whisper") + END,
    )
    assert json.loads(broken.events()[-1])["error"]["code"] == "upstream_error"


@pytest.mark.parametrize("size", [100, 1 << 20])
async def test_a_transcript_as_text(gateway: Gateway, provider: MediaProvider, size: int) -> None:
    """What is no JSON passes with its own type, from a small form or a large one."""
    provider.answers.append(said(b"1\n00:00 --> 00:01\ndata: hello\n", b"Content-Type: text/plain; charset=utf-8"))
    body = part("model", b"whisper") + part("response_format", b"srt") + part("file", bytes(size), "a") + END
    response = await http.request(gateway.port, "POST", "/v1/audio/translations", [FORM], body)
    assert (response.status, response.body) == (200, b"1\n00:00 --> 00:01\ndata: hello\n")
    assert response.header("content-type") == "text/plain; charset=utf-8"
    assert provider.taken[-1].target == "/v1/audio/translations"


async def test_speech_passes_as_it_comes(gateway: Gateway, provider: MediaProvider) -> None:
    """Sound passes byte for byte with its type, each piece before the next one is there; a cut is a cut."""
    go_on = asyncio.Event()
    sound = bytes(range(256)) * 8

    async def speak(peer: Peer, taken: Taken) -> bool:
        taken.body += await peer.reader.readexactly(int(taken.header("content-length") or 0))
        await peer.send(streamed(sound, kind=b"audio/mpeg", end=b""))
        await go_on.wait()
        cut = b"cut" in taken.body
        await peer.send(b"3\r\n\r\n\xff\r\n" + (b"" if cut else b"0\r\n\r\n"))
        return True

    provider.before = speak
    for word in ("good", "cut"):
        go_on.clear()
        asked = {"model": "painter", "input": word, "voice": "alloy"}
        async with http.open_stream(gateway.port, "/v1/audio/speech", asked) as stream:
            assert (stream.head.status, stream.head.header("content-type")) == (200, "audio/mpeg")
            await stream.until(sound)
            go_on.set()
            if word == "good":
                assert await stream.rest() == sound + b"\r\n\xff"
            else:
                with pytest.raises((http.Truncated, ConnectionResetError)):
                    await stream.rest()
    assert json.loads(provider.taken[0].body)["model"] == "paint-1"


async def test_pictures(gateway: Gateway, provider: MediaProvider) -> None:
    """JSON and events pass as they are, however large a picture in an event is; usage is read from both."""
    exact = json.dumps(PICTURES, indent=1).encode()
    provider.answers.append(said(exact))
    response = await http.post_json(
        gateway.port, "/images/generations", {"model": "painter", "prompt": "a gate", "new": 1}
    )
    assert (response.status, response.body) == (200, exact)
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert (line["operation"], line["input_tokens"], line["output_tokens"]) == ("image", 9, 200)
    partial = (
        b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image","b64_json":"%b"}\n\n'
        % (b"A" * (3 << 20))
    )
    last = b"data: " + json.dumps({"type": "image_generation.completed", "usage": PICTURES["usage"]}).encode() + b"\n\n"
    provider.answers.append(streamed(partial, last, kind=b"text/event-stream"))
    response = await http.post_json(
        gateway.port, "/v1/images/generations", {"model": "painter", "prompt": "x", "stream": True}
    )
    assert response.body == partial + last
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert (line["input_tokens"], line["output_tokens"]) == (9, 200)


async def test_pictures_from_pictures(gateway: Gateway, provider: MediaProvider) -> None:
    """Edits take a form or JSON, variations a form."""
    for path in ("edits", "variations"):
        provider.answers.append(said(json.dumps(PICTURES).encode()))
        body = part("image[]", bytes(500_000), "a.png") + part("model", b"painter") + part("prompt", b"more") + END
        response = await http.request(gateway.port, "POST", f"/v1/images/{path}", [FORM], body)
        assert (response.status, response.json()) == (200, PICTURES)
        assert provider.taken[-1].target == f"/v1/images/{path}"
    provider.answers.append(said(json.dumps(PICTURES).encode()))
    asked = {"model": "painter", "prompt": "more", "images": [{"file_id": "file-1"}]}
    assert (await http.post_json(gateway.port, "/v1/images/edits", asked)).status == 200
    assert json.loads(provider.taken[-1].body) == {**asked, "model": "paint-1"}
    refused = await http.post_json(gateway.port, "/v1/images/edits", {"model": "painter"})
    assert (refused.status, refused.json()["error"]["param"]) == (400, "prompt")


async def test_the_demo_has_no_ear(gateway: Gateway, provider: MediaProvider) -> None:
    """Who does not offer it is not asked."""
    body = part("model", b"demo/echo") + part("file", bytes(1 << 20), "a") + END
    response = await http.request(gateway.port, "POST", "/v1/audio/transcriptions", [FORM], body)
    assert (response.status, response.json()["error"]["param"]) == (400, "model")
    assert provider.taken == []
