"""Errors are read from whatever a provider sends, and written in OpenAI's shape for every situation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols import openai_errors
from chatgate.protocols.openai_dialect import OpenAIDialect
from chatgate.protocols.openai_errors import ProviderError
from chatgate.vocabulary.errors import CallerError, InternalError, Kind, Overloaded, UpstreamError

SITUATIONS = {
    Kind.INVALID_JSON: (400, "invalid_request_error", "invalid_json"),
    Kind.INVALID_VALUE: (400, "invalid_request_error", "invalid_value"),
    Kind.MISSING_KEY: (401, "invalid_request_error", "invalid_api_key"),
    Kind.INVALID_KEY: (401, "invalid_request_error", "invalid_api_key"),
    Kind.PERMISSION_DENIED: (403, "permission_error", "permission_denied"),
    Kind.MODEL_NOT_FOUND: (404, "invalid_request_error", "model_not_found"),
    Kind.NOT_FOUND: (404, "invalid_request_error", "not_found"),
    Kind.METHOD_NOT_ALLOWED: (405, "invalid_request_error", "method_not_allowed"),
    Kind.REQUEST_TIMEOUT: (408, "invalid_request_error", "request_timeout"),
    Kind.REQUEST_TOO_LARGE: (413, "invalid_request_error", "request_too_large"),
    Kind.UNSUPPORTED_MEDIA_TYPE: (415, "invalid_request_error", "unsupported_media_type"),
    Kind.RATE_LIMIT_EXCEEDED: (429, "rate_limit_error", "rate_limit_exceeded"),
    Kind.INSUFFICIENT_QUOTA: (429, "insufficient_quota", "insufficient_quota"),
    Kind.UPSTREAM_ERROR: (502, "upstream_error", "upstream_error"),
    Kind.UPSTREAM_TIMEOUT: (504, "upstream_error", "upstream_timeout"),
    Kind.OVERLOADED: (503, "server_error", "overloaded"),
    Kind.INTERNAL_ERROR: (500, "server_error", "internal_error"),
}


@pytest.mark.parametrize("kind", Kind)
def test_every_situation_has_its_status_type_and_code(kind: Kind) -> None:
    """The table of the contract holds, and no situation is missing from it."""
    status, kind_of_error, code = SITUATIONS[kind]
    dialect = OpenAIDialect()
    assert dialect.status_of(kind) == status
    written = json.loads(dialect.encode_error(CallerError(kind, "any", param="messages[0]"), "Why.", "req_1"))
    assert written == {"error": {"message": "Why.", "type": kind_of_error, "param": "messages[0]", "code": code}}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamError("upstream_cut"), "upstream_error"),
        (UpstreamError("upstream_silent", kind=Kind.UPSTREAM_TIMEOUT), "upstream_timeout"),
        (Overloaded(), "overloaded"),
        (InternalError(), "internal_error"),
        (CallerError(Kind.INVALID_VALUE, "provider_refused", provider_code="context_length_exceeded"),
         "context_length_exceeded"),
    ],
)  # fmt: skip
def test_a_providers_code_goes_before_ours(error: CallerError, code: str) -> None:
    """Programs that look for a provider's code find it; `param` is null when no field is at fault."""
    written = json.loads(openai_errors.encode_error(error, "Why."))["error"]
    assert (written["code"], written["param"]) == (code, None)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "M", "type": "t", "code": "c", "param": "p"}}, ProviderError("M", "c", "p", "t")),
        ({"error": {"message": "M", "code": 429, "param": None}}, ProviderError("M", "429")),
        ({"code": 20012, "message": "M", "data": None}, ProviderError("M", "20012")),
        ({"error": {"message": "M", "code": True}}, ProviderError("M")),
        ({"error": {"message": "M", "code": 10**30, "type": ""}}, ProviderError("M")),
        ({"base_resp": {"status_code": 1008, "status_msg": "M"}}, ProviderError("M", "1008")),
        ({"base_resp": {"status_code": 0, "status_msg": "success"}}, ProviderError("success")),
        ({"error": "M"}, ProviderError("M")),
        ({"error": {"message": {"detail": "x"}, "detail": "M"}}, ProviderError("M")),
        ({"object": "error", "message": "M", "code": "c"}, ProviderError("M", "c")),
        ({"error": None, "message": "M"}, ProviderError("M")),
        ({"detail": "M"}, ProviderError("M")),
        ({"error_msg": "M", "error_code": 5}, ProviderError("M")),
        ([{"error": {"message": "M", "code": 400}}], ProviderError("M", "400")),
        ("M", ProviderError("M")),
        ({"error": {}}, ProviderError()),
        ({"error": ["M"]}, ProviderError()),
        ({}, ProviderError()),
        ([], ProviderError()),
        (None, ProviderError()),
        (5, ProviderError()),
    ],
)
def test_errors_are_read_in_many_shapes(body: Any, said: ProviderError) -> None:
    """The message is found wherever OpenAI-compatible servers put it."""
    assert openai_errors.read_error(json.dumps(body).encode()) == said
    assert openai_errors.message_of(json.dumps(body).encode()) == said.message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "param", "type", "base_resp", "status_code"]),
            inner,
            max_size=4,
        )
    ),
)


@given(st.binary() | _JSON.map(lambda value: json.dumps(value).encode()))
def test_reading_an_error_never_fails(body: bytes) -> None:
    """Whatever a provider sends with a bad status, it is at most not understood."""
    said = openai_errors.read_error(body)
    for part in (said.message, said.code, said.param, said.kind):
        assert part is None or isinstance(part, str)


@pytest.mark.parametrize(
    "body", [b"<html>Bad Gateway</html>", b"[" * 100_000, b'{"error":"\xff"}', b"", b"upstream sad"]
)
def test_what_is_no_json_says_nothing(body: bytes) -> None:
    """Pages of a proxy in between are not passed on as a provider's words."""
    assert openai_errors.read_error(body) == ProviderError()
