"""The page for browsers is well-formed, harmless and translated, and its examples work when they are pasted."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import pytest

from chatgate.i18n import LANGUAGES, Catalogues
from chatgate.protocols.page import PAGE_HEADERS, render
from chatgate.vocabulary.errors import Phrase

_CATALOGUES = Catalogues()
_VOID = {"meta", "link"}


class _Page(HTMLParser):
    """Reads a page: its elements in order, the text of each kind of element, and whether all of them are closed."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data


def _render(
    language: str = "en_US",
    url: str = "http://gate.test:5000/api",
    openai_url: str = "http://gate.test:5000/v1",
    models: tuple[str, ...] = ("gpt-5-mini", "demo/echo"),
    key_needed: Literal["never", "except_demo", "always"] = "except_demo",
) -> bytes:
    return render(
        language,
        lambda code, parameters: _CATALOGUES.translate(language, Phrase(code, parameters)),
        url=url,
        openai_url=openai_url,
        models=models,
        key_needed=key_needed,
        max_tokens_default=111,
        max_tokens_limit=3456,
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_whole_in_every_language(language: str, caplog: pytest.LogCaptureFixture) -> None:
    """Every element is closed, the language is declared, and no message or parameter is missing."""
    page = _Page(_render(language))
    assert page.open == []
    assert page.elements[0] == ("html", {"lang": language.replace("_", "-")})
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.elements
    text = page.texts["main"][0]
    assert not re.search(r"page_|[`…]", text)
    assert caplog.records == []
    fields = " ".join(page.texts["tr"])
    for name in ("user_content", "sys_content", "model", "api_key", "max_tokens", "continuous", "stream"):
        assert name in fields
    assert "111" in fields
    assert "3456" in fields
    assert "http://gate.test:5000/v1/models" in text


def test_the_page_differs_between_languages() -> None:
    """Every sentence of the page is translated."""
    paragraphs = [_Page(_render(language)).texts for language in LANGUAGES]
    for tag in ("h2", "p", "td"):
        for first, *others in zip(*(texts[tag] for texts in paragraphs), strict=True):
            if first.startswith(("POST ", "http")) or re.fullmatch(r"[a-z_]+", first):
                continue
            assert first not in others


def test_the_policy_allows_the_style_sheet_and_nothing_else() -> None:
    """The style sheet in the page is the one whose hash the policy names; nothing is loaded from elsewhere."""
    page = _Page(_render())
    (style,) = page.texts["style"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest())
    (policy,) = re.findall(rb"Content-Security-Policy: ([^\r]+)\r\n", PAGE_HEADERS)
    directives = {part.split()[0]: part.split()[1:] for part in policy.split(b";")}
    assert directives == {
        b"default-src": [b"'none'"],
        b"style-src": [b"'sha256-" + digest + b"'"],
        b"img-src": [b"data:"],
        b"form-action": [b"'none'"],
        b"frame-ancestors": [b"'none'"],
        b"base-uri": [b"'none'"],
    }
    assert not {"script", "img", "iframe", "form", "base"} & {tag for tag, _ in page.elements}
    assert not any("style" in attributes or "src" in attributes for _, attributes in page.elements)
    links = [attributes["href"] for tag, attributes in page.elements if tag == "link"]
    assert all(link is not None and link.startswith("data:") for link in links)


def test_header_lines_are_complete() -> None:
    """Every header line has a name, a value and its CRLF, and says what kind of document this is."""
    lines = PAGE_HEADERS.split(b"\r\n")
    assert lines.pop() == b""
    names = [line.partition(b": ")[0].lower() for line in lines]
    assert all(line.partition(b": ")[2] for line in lines)
    assert len(names) == len(set(names))
    assert b"Content-Type: text/html; charset=utf-8" in lines
    assert b"X-Content-Type-Options: nosniff" in lines
    assert {b"referrer-policy", b"cache-control"} <= set(names)


def test_inserted_values_are_only_text() -> None:
    """Markup and quotes in addresses and model names stay what they are: text."""
    hostile = "a\"'><script>alert(1)</script>&lt;<b onclick=x>`<i>`\\"
    plain = [tag for tag, _ in _Page(_render()).elements if tag not in {"li", "code"}]
    page = _Page(_render(url=f"http://x/{hostile}", openai_url=f"http://x/v1{hostile}", models=(hostile,)))
    assert [tag for tag, _ in page.elements if tag not in {"li", "code"}] == plain
    assert page.open == []
    assert page.texts["li"] == [hostile]
    assert f"POST http://x/{hostile}" in page.texts["p"]
    assert not any("onclick" in attributes for _, attributes in page.elements)


@pytest.mark.parametrize(
    ("key_needed", "models", "keys"),
    [
        ("never", ("gpt-5-mini",), [False, False, False]),
        ("except_demo", ("demo/echo", "gpt-5-mini"), [False, True, True]),
        ("except_demo", ("demo/echo",), [False, False, False]),
        ("except_demo", (), [False, False, False]),
        ("always", ("gpt-5-mini",), [True, True, True]),
        ("always", (), [True, True, True]),
    ],
)
def test_examples_show_a_key_where_one_is_needed(
    key_needed: Literal["never", "except_demo", "always"], models: tuple[str, ...], keys: list[bool]
) -> None:
    """A place for the key stands in the examples that need one, and is explained once, before the first of them."""
    page = _Page(_render(models=models, key_needed=key_needed))
    assert ["YOUR_KEY" in example for example in page.texts["pre"]] == keys
    text = page.texts["main"][0]
    note = "Put your own key in place of YOUR_KEY."
    assert text.count(note) == any(keys)
    if any(keys):
        assert text.index("YOUR_KEY") == text.index(note) + note.index("YOUR_KEY")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_curl_line_is_a_call_of_the_demo_model(language: str) -> None:
    """A shell reads the line as one command, whose body is JSON, whatever the address holds."""
    url = "http://gate.test/it's $HOME"
    command = shlex.split(_Page(_render(language, url=url)).texts["pre"][0].replace("\\\n", ""))
    assert command[:4] == ["curl", url, "-H", "Content-Type: application/json"]
    question = _CATALOGUES.translate(language, Phrase("page_question"))
    assert json.loads(command[5]) == {"user_content": question, "model": "demo/echo"}


class _Provider(BaseHTTPRequestHandler):
    """Answers both protocols with what it was asked, as JSON."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization")
        said = json.dumps({"path": self.path, "key": key, "body": body})
        answer = {
            "data": {"response": said},
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}],
        }
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Keep the tests' output clean."""


@pytest.fixture(name="provider_url")
def _provider_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_python_examples_run(provider_url: str) -> None:
    """Pasted into a file, both examples ask the addresses that they show, and print the answer."""
    page = _Page(_render("zh_TW", url=f"{provider_url}/api", openai_url=f"{provider_url}/v1", models=('m"x\\y',)))
    question = _CATALOGUES.translate("zh_TW", Phrase("page_question"))
    environment = {"PATH": os.environ["PATH"], "NO_PROXY": "*", "PYTHONIOENCODING": "utf-8"}
    said = []
    for example in page.texts["pre"][1:]:
        run = subprocess.run(
            [sys.executable, "-c", example], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        said.append(json.loads(run.stdout))
    assert said[0] == {
        "path": "/api",
        "key": None,
        "body": {"user_content": question, "model": 'm"x\\y', "api_key": "YOUR_KEY"},
    }
    assert said[1] == {
        "path": "/v1/chat/completions",
        "key": "Bearer YOUR_KEY",
        "body": {"model": 'm"x\\y', "messages": [{"role": "user", "content": question}]},
    }
