"""Own the page that a person sees who opens the address of the plain API in a browser.

Pure text: one self-contained HTML document without scripts, in the reader's language, whose examples carry the real
addresses and can be pasted. The pipeline renders it for `GET /{ROUTE}` when the caller is a browser. It must not know
where messages come from: translating is passed in.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Literal

from chatgate.vocabulary.errors import Parameter

Translate = Callable[[str, Mapping[str, Parameter]], str]
"""Returns the text of a message, by its code and parameters, in one language that was chosen before."""

KeyNeeded = Literal["never", "except_demo", "always"]

_DEMO_MODEL = "demo/echo"
_PLACEHOLDER_KEY = "YOUR_KEY"

_STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --text: #1d2426; --quiet: #5a6568; --line: #dfe4e3;
  --code: #f0f3f2; --accent: #0b7261; }
@media (prefers-color-scheme: dark) { :root { --ground: #14191a; --text: #e4e9e8; --quiet: #9aa6a7; --line: #2c3536;
  --code: #1d2526; --accent: #4cc3aa; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 1rem/1.6 system-ui, sans-serif;
  overflow-wrap: anywhere; -webkit-text-size-adjust: 100%; }
main { max-width: 46rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header { border-bottom: 1px solid var(--line); padding-bottom: 1rem; }
h1 { margin: 0; font-size: 2rem; line-height: 1.2; }
h2 { margin: 2.25rem 0 .5rem; font-size: 1.2rem; line-height: 1.3; }
p { margin: .5rem 0; }
header p { margin: .25rem 0 0; color: var(--quiet); }
pre, code { font: .875em/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre code { font-size: 1em; }
p code, td code, li code { padding: .1em .3em; border-radius: .25rem; background: var(--code); }
pre { margin: .75rem 0; padding: .875rem 1rem; overflow-x: auto; overflow-wrap: normal; border-radius: .5rem;
  border: 1px solid var(--line); background: var(--code); }
.address code { padding: 0; background: none; color: var(--accent); font-size: 1rem; font-weight: 600; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .5rem .75rem .5rem 0; border-bottom: 1px solid var(--line); text-align: start;
  vertical-align: top; }
th { color: var(--quiet); font-weight: 600; font-size: .875rem; }
td:first-child { white-space: nowrap; }
small { display: block; color: var(--accent); font-size: .8125rem; }
ul { display: flex; flex-wrap: wrap; gap: .5rem; margin: .75rem 0; padding: 0; list-style: none; }
"""

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath fill='%230b7261' d='M2 15V7a6 6 0 0 1 12 0v8h-3V7a3 3 0 0 0-6 0v8z'/%3E%3C/svg%3E"
)

_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest())

PAGE_HEADERS = (
    b"Content-Type: text/html; charset=utf-8\r\n"
    b"Content-Security-Policy: default-src 'none'; style-src 'sha256-" + _STYLE_HASH + b"'; img-src data:; "
    b"form-action 'none'; frame-ancestors 'none'; base-uri 'none'\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"Referrer-Policy: no-referrer\r\n"
    b"Cache-Control: no-store\r\n"
    b"Vary: Accept, Accept-Language\r\n"
)
"""Header lines of the page, each ending in CRLF; the policy allows its style sheet by hash, its icon, and no more."""


def render(
    language: str,
    translate: Translate,
    *,
    url: str,
    openai_url: str,
    models: Sequence[str],
    key_needed: KeyNeeded,
    max_tokens_default: int,
    max_tokens_limit: int,
) -> bytes:
    """Return the page.

    `url` is the address of the plain API and `openai_url` the base URL of the OpenAI surface, both as the reader's
    browser sees the gateway. `models` are names to show, best first, maybe none; the first one that is not a demo is
    used in the examples. `key_needed` says for which models callers have to bring a key. The last two are the plain
    API's.
    """
    model = next((name for name in models if not name.startswith("demo/")), _DEMO_MODEL)
    key = "" if key_needed == "never" or (key_needed == "except_demo" and model == _DEMO_MODEL) else _PLACEHOLDER_KEY
    demo_key = _PLACEHOLDER_KEY if key_needed == "always" else ""
    question = translate("page_question", {})

    def text(code: str, **parameters: Parameter) -> str:
        return _marked_up(translate(code, parameters))

    key_note = f"<p>{text('page_key')}</p>"
    trial = [f"<p>{text('page_try_text')}</p>", _code(_curl_example(url, question, demo_key))]
    python = [_code(_requests_example(url, question, model, key))]
    if demo_key:
        trial.insert(1, key_note)
    elif key:
        python.insert(0, key_note)
    openai = [
        f"<p>{text('page_openai_text', url=openai_url)}</p>",
        _code(_openai_example(openai_url, question, model, key)),
    ]
    listing = [
        "<ul>",
        *(f"<li><code>{escape(name)}</code></li>" for name in models),
        "</ul>",
        f"<p>{text('page_models_text', url=openai_url + '/models')}</p>",
    ]
    body = [
        f"<header><h1>chatgate</h1><p>{text('page_tagline')}</p></header>",
        f"<p>{text('page_intro')}</p>",
        f'<p class="address"><code>POST {escape(url)}</code></p>',
        *_section(text("page_try"), *trial),
        *_section(text("page_python"), *python),
        *_section(text("page_openai"), *openai),
        *_section(text("page_answer"), f"<p>{text('page_answer_text')}</p>"),
        *_section(text("page_fields"), *_field_table(text, max_tokens_default, max_tokens_limit)),
        *_section(text("page_models"), *listing),
    ]
    return _document(language, text("page_tagline"), body).encode()


def _document(language: str, title: str, body: Sequence[str]) -> str:
    lines = "\n".join(body)
    return f"""<!DOCTYPE html>
<html lang="{language.replace("_", "-")}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>chatgate: {title}</title>
<link rel="icon" href="{_ICON}">
<style>{_STYLE}</style>
</head>
<body>
<main>
{lines}
</main>
</body>
</html>
"""


def _section(heading: str, *content: str) -> tuple[str, ...]:
    return ("<section>", f"<h2>{heading}</h2>", *content, "</section>")


def _field_table(text: Callable[..., str], max_tokens_default: int, max_tokens_limit: int) -> list[str]:
    required = f" <small>{text('page_required')}</small>"
    meanings = [
        (f"<code>user_content</code>{required}", text("page_user_content")),
        ("<code>sys_content</code>", text("page_sys_content")),
        ("<code>model</code>", text("page_model")),
        ("<code>api_key</code>", text("page_api_key")),
        ("<code>max_tokens</code>", text("page_max_tokens", low=1, high=max_tokens_limit, default=max_tokens_default)),
        ("<code>continuous</code>", text("page_continuous")),
        ("<code>stream</code>", text("page_stream")),
    ]
    rows = [f"<tr><td>{name}</td><td>{meaning}</td></tr>" for name, meaning in meanings]
    head = f"<thead><tr><th>{text('page_field')}</th><th>{text('page_meaning')}</th></tr></thead>"
    return ["<table>", head, "<tbody>", *rows, "</tbody>", "</table>"]


def _marked_up(text: str) -> str:
    """Escape a message, then turn what stands between backticks into code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _code(example: str) -> str:
    # Wide examples scroll sideways, and without a tab index that cannot be done from the keyboard.
    return f'<pre tabindex="0"><code>{escape(example)}</code></pre>'


def _curl_example(url: str, question: str, key: str) -> str:
    body = json.dumps(_plain_fields(question, _DEMO_MODEL, key), ensure_ascii=False)
    return f"curl {shlex.quote(url)} \\\n  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"


def _requests_example(url: str, question: str, model: str, key: str) -> str:
    fields = _plain_fields(question, model, key)
    lines = "".join(f"        {_literal(name)}: {_literal(value)},\n" for name, value in fields.items())
    return f"""import requests

answer = requests.post(
    {_literal(url)},
    json={{
{lines}    }},
    timeout=120,
)
print(answer.json()["data"]["response"])"""


def _openai_example(openai_url: str, question: str, model: str, key: str) -> str:
    return f"""from openai import OpenAI

client = OpenAI(
    base_url={_literal(openai_url)},
    api_key={_literal(key or "none")},
)
answer = client.chat.completions.create(
    model={_literal(model)},
    messages=[{{"role": "user", "content": {_literal(question)}}}],
)
print(answer.choices[0].message.content)"""


def _plain_fields(question: str, model: str, key: str) -> dict[str, str]:
    fields = {"user_content": question, "model": model}
    return {**fields, "api_key": key} if key else fields


def _literal(value: str) -> str:
    """Return text as a literal that Python and JSON read alike."""
    return json.dumps(value, ensure_ascii=False)
