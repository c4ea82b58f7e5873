"""Refusals have the shape of their surface, the caller's language, and say when to come back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import chatgate
from chatgate.admission.limits import Rule, Standing
from chatgate.i18n import LANGUAGES, Catalogues
from chatgate.pipeline import Dialect
from chatgate.protocols.anthropic.dialect import AnthropicDialect
from chatgate.protocols.gemini.dialect import GeminiDialect
from chatgate.protocols.ollama.call import Clocks
from chatgate.protocols.ollama.dialect import OllamaDialect
from chatgate.protocols.ollama.embedding import EmbedDialect
from chatgate.protocols.openai_dialect import OpenAIDialect
from chatgate.protocols.openai_media import MEDIA, MediaDialect
from chatgate.protocols.openai_operations import OPERATIONS, OperationDialect
from chatgate.protocols.plain import PlainDialect
from chatgate.protocols.responses.dialect import ResponsesDialect
from chatgate.refusals import Refusals, limit_reached
from chatgate.vocabulary.errors import CallerError, GateError, InternalError, Kind, Overloaded, Phrase, UpstreamError
from chatgate.vocabulary.exchange import Envelope, Reply, Surface

KEYS_URL = "https://provider.invalid/keys"
CATALOGUES = Catalogues()
CLOCKS = Clocks(lambda: 0.0, lambda: 0.0)
DIALECTS: dict[Surface, Dialect] = {
    Surface.PLAIN: PlainDialect("gpt-x"),
    Surface.OPENAI: OpenAIDialect(),
    Surface.ADMIN: OpenAIDialect(),
    Surface.ANTHROPIC: AnthropicDialect(),
    Surface.GEMINI: GeminiDialect(),
    Surface.GEMINI_ARRAY: GeminiDialect(in_array=True),
    Surface.RESPONSES: ResponsesDialect(lambda: "0123", lambda: 0.0, keeps=False),
    **{operation.surface: OperationDialect(operation) for operation in OPERATIONS},
    **{operation.surface: MediaDialect(operation) for operation in MEDIA},
    Surface.OLLAMA: OllamaDialect("ollama", (), CLOCKS),
    Surface.OLLAMA_GENERATE: OllamaDialect("ollama_generate", (), CLOCKS),
    Surface.OLLAMA_EMBED: EmbedDialect("ollama_embed", (), CLOCKS),
    Surface.OLLAMA_EMBEDDINGS: EmbedDialect("ollama_embeddings", (), CLOCKS),
}
FIELDS = {
    **{surface: {"error"} for surface in Surface},
    Surface.PLAIN: {"code", "msg", "data", "error"},
    Surface.ANTHROPIC: {"type", "error", "request_id"},
}
REFUSALS = Refusals(CATALOGUES, DIALECTS, "ru_RU", KEYS_URL)
ENVELOPE = Envelope("req_1", "POST", "/", "", {}, "192.0.2.7", 0.0)


def reply(error: GateError, surface: Surface = Surface.OPENAI, language: str = "en_US", more: bytes = b"") -> Reply:
    """Return the answer that refuses a call."""
    return REFUSALS.reply(surface, error, language, ENVELOPE, more)


def headers(answer: Reply) -> dict[str, str]:
    """Return an answer's headers; none may be there twice."""
    lines = answer.headers.decode().split("\r\n")
    assert lines.pop() == ""
    found = dict(line.split(": ", 1) for line in lines)
    assert len(found) == len(lines)
    return found


def message(answer: Reply) -> str:
    """Return the reason in words."""
    body: dict[str, Any] = json.loads(answer.body)
    if "data" in body:
        return str(body["data"]["response"])
    return str(body["error"]["message"] if isinstance(body["error"], dict) else body["error"])


# --- Shape ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("surface", Surface)
def test_every_situation_has_an_answer_on_every_surface(kind: Kind, surface: Surface) -> None:
    """Status, ids and a body of the surface's own shape; the status of the plain body is the answer's."""
    answer = reply(CallerError(kind, "unknown_path"), surface)
    assert answer.status == DIALECTS[surface].status_of(kind)
    found = headers(answer)
    assert found["x-request-id"] == found["request-id"] == "req_1"
    assert found["content-type"] == "application/json"
    body = json.loads(answer.body)
    assert set(body) == FIELDS[surface]
    assert body.get("code", answer.status) == answer.status
    assert message(answer) == CATALOGUES.translate("en_US", Phrase("unknown_path"))


def test_the_challenge_comes_with_401_and_only_there() -> None:
    """RFC 9110 wants to know how a key is shown."""
    for kind in Kind:
        for surface in Surface:
            answer = reply(CallerError(kind, "x" if kind is Kind.INTERNAL_ERROR else "unknown_path"), surface)
            assert ("www-authenticate" in headers(answer)) is (answer.status == 401)


def test_more_headers_are_kept() -> None:
    """Where the caller stands with the limits is told with a refusal too."""
    assert (
        headers(reply(InternalError(), more=b"x-ratelimit-limit-requests: 5\r\n"))["x-ratelimit-limit-requests"] == "5"
    )


# --- When to come back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "wait", "pointless"),
    [
        (CallerError(Kind.RATE_LIMIT_EXCEEDED, "provider_limit"), None, False),
        (CallerError(Kind.RATE_LIMIT_EXCEEDED, "provider_limit", retry_after_seconds=0.0), ("1", "1"), False),
        (CallerError(Kind.RATE_LIMIT_EXCEEDED, "provider_limit", retry_after_seconds=0.25), ("1", "250"), False),
        (CallerError(Kind.RATE_LIMIT_EXCEEDED, "provider_limit", retry_after_seconds=60.0), ("60", "60000"), False),
        (CallerError(Kind.RATE_LIMIT_EXCEEDED, "provider_limit", retry_after_seconds=60.5), ("61", "60500"), True),
        (CallerError(Kind.INSUFFICIENT_QUOTA, "provider_quota"), None, True),
        (UpstreamError("upstream_failed", retry_after_seconds=7.0, parameters={"status": 503}), ("7", "7000"), False),
        (Overloaded(), ("2", "2000"), False),
        (Overloaded("draining"), ("2", "2000"), False),
        (InternalError(), None, False),
    ],
)
def test_waits_are_told_in_both_units(error: GateError, wait: tuple[str, str] | None, *, pointless: bool) -> None:
    """Seconds rounded up and milliseconds; SDKs are told when their own retries can only fail."""
    found = headers(reply(error))
    assert (found.get("retry-after"), found.get("retry-after-ms")) == (wait or (None, None))
    assert (found.get("x-should-retry") == "false") is pointless


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1 s"),
        (0.2, "1 s"),
        (59.1, "60 s"),
        (120.0, "120 s"),
        (120.1, "3 min"),
        (7200.0, "120 min"),
        (7201.0, "3 h"),
        (172800.0, "48 h"),
        (172801.0, "3 d"),
    ],
)
def test_a_reached_limit_names_the_limits_and_the_wait(seconds: float, text: str) -> None:
    """Every limit in the way is named, and the wait is in a unit that a person would use, rounded up."""
    reached = (Rule(5, 60.0, "minute"), Rule(50, 3600.0, "hour"))
    standing = Standing(
        admitted=False, limit=5, remaining=0, reset_seconds=1.0, retry_after_seconds=seconds, reached=reached
    )
    error = limit_reached(standing)
    assert (error.kind, error.retry_after_seconds) == (Kind.RATE_LIMIT_EXCEEDED, seconds)
    said = message(reply(error, Surface.PLAIN))
    assert "5 per minute, 50 per hour" in said
    assert f" {text}." in said


@pytest.mark.parametrize("per", ["second", "minute", "hour", "day", "week", "month"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_window_has_a_name_in_every_language(per: str, language: str) -> None:
    """No limit is told by its code."""
    standing = Standing(
        admitted=False, limit=5, remaining=0, reset_seconds=1.0, retry_after_seconds=1.0, reached=(Rule(5, 1.0, per),)
    )
    said = message(reply(limit_reached(standing), language=language))
    assert "5" in said
    assert "limit_per" not in said
    assert "wait_" not in said


# --- Words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "language"),
    [(None, "ru_RU"), (b"zh-CN,zh;q=0.9", "zh_CN"), (b"fr", "ru_RU"), (b"", "ru_RU"), (b"fr, en;q=0.5", "en_US")],
)
def test_the_language_is_the_callers_or_the_servers(wish: bytes | None, language: str) -> None:
    """A wish for one of ours is followed; everything else gets the server's language."""
    assert REFUSALS.language_of({} if wish is None else {b"accept-language": wish}) == language


def test_a_missing_key_says_how_to_get_one() -> None:
    """On the plain API the reason names the provider's page and the model that needs no key."""
    error = REFUSALS.missing_key(Surface.PLAIN)
    answer = reply(error, Surface.PLAIN)
    assert (answer.status, error.param) == (400, "api_key")
    assert KEYS_URL in message(answer)
    assert "demo/echo" in message(answer)
    assert reply(REFUSALS.missing_key(Surface.OPENAI)).status == 401


def test_a_providers_words_follow_ours() -> None:
    """What the provider said stands in brackets; its refusal of a value is passed on bare to programs."""
    failed = UpstreamError("upstream_failed", provider_message="Sorry {x}", parameters={"status": 503})
    for surface in Surface:
        said = message(reply(failed, surface))
        assert said.endswith("(Sorry {x})")
        assert "503" in said
    refused = CallerError(
        Kind.INVALID_VALUE, "provider_refused", provider_message="Too long", parameters={"message": "Too long"}
    )
    assert message(reply(refused, Surface.OPENAI)) == message(reply(refused, Surface.ANTHROPIC)) == "Too long"
    assert message(reply(refused, Surface.PLAIN)) == CATALOGUES.translate(
        "en_US", Phrase("provider_refused", {"message": "Too long"})
    )
    silent = CallerError(Kind.INVALID_VALUE, "provider_refused", parameters={"message": "422"})
    assert "422" in message(reply(silent, Surface.OPENAI))


def test_a_fault_of_ours_tells_the_number_of_the_call_only() -> None:
    """The caller can name the call to the operator, and learns nothing else."""
    for surface in Surface:
        assert "req_1" in message(reply(InternalError(), surface))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_in_the_code_has_a_message(language: str) -> None:
    """No error that the code can raise is told by its code."""
    source = "\n".join(path.read_text() for path in Path(chatgate.__file__).parent.rglob("*.py"))
    named = r'(?:CallerError\(\s*Kind\.\w+,|UpstreamError\(|Overloaded\(|_refusal\(|_invalid\(|Phrase\()\s*"([a-z_]+)"'
    reasons = set(re.findall(named, source))
    assert len(reasons) > 30
    for reason in reasons:
        assert CATALOGUES.translate(language, Phrase(reason)) != reason, reason
