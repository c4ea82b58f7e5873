"""The description of the HTTP surface, for programs: what `GET /openapi.json` answers.

It tells what this version serves and nothing that is still to come, whatever the configuration says but for the
route. The parts that operations share are in `openapi_components`. Called once, by `app`.
Source of the format: https://spec.openapis.org/oas/v3.1.0 (read 2026-11-23).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from chatgate import __version__
from chatgate.protocols import openapi_gemini, openapi_ollama
from chatgate.protocols.openapi_components import COMPONENTS, ESTIMATED, IDS, STANDING, WHO, Part, json_body, schema


class More(Struct, frozen=True):
    """What else is served: a tag, its paths, and the schemas that these refer to."""

    tag: Part
    paths: dict[str, Part]
    schemas: Part


_COMPONENTS: Part = COMPONENTS | {
    "schemas": COMPONENTS["schemas"] | openapi_gemini.SCHEMAS,
    "responses": COMPONENTS["responses"] | openapi_gemini.RESPONSES,
}


def describe(route: str, more: More | None = None) -> bytes:
    """Return the document as JSON; `route` is the plain API's path without its slash, "" for the root."""
    paths: dict[str, Part] = {"/": {"get": _page("showPage"), "head": _PROBE}}
    if route:
        paths[f"/{route}"] = {"get": _page("showPageOfRoute")}
    paths[f"/{route}"]["post"] = _ASK
    tags, components = _TAGS, _COMPONENTS
    if more is not None:
        tags = [*tags, more.tag]
        paths |= more.paths
        components = components | {"schemas": components["schemas"] | more.schemas}
    document = {
        "openapi": "3.1.0",
        "info": _INFO,
        "servers": [{"url": "/", "description": "The address that this document came from."}],
        "tags": tags,
        "security": [{}, *({name: []} for name in COMPONENTS["securitySchemes"])],
        "paths": paths | _PATHS | openapi_gemini.PATHS,
        "components": components,
    }
    return msgspec.json.encode(document)


def _answers(surface: str, statuses: str, success: Part, status: str = "200") -> Part:
    """Return the responses of an operation: its success, and the refusals that it shares with its surface."""
    refusals = {each: {"$ref": f"#/components/responses/{surface}{each}"} for each in statuses.split()}
    return {status: {"headers": IDS, **success}, **refusals}


def _page(operation_id: str) -> Part:
    return {
        "tags": ["plain"],
        "operationId": operation_id,
        "summary": "Show a person with a browser how to call",
        "description": "Only what accepts `text/html` gets the page; programs get 403.",
        "responses": _answers(
            "Plain", "403", {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}
        ),
    }


_INFO: Part = {
    "title": "chatgate",
    "version": __version__,
    "summary": "A self-hosted ChatGPT API gateway: one address in front of model providers.",
    "description": (
        "Call it by its own plain JSON route, by OpenAI's protocol, Anthropic's or Gemini's; limits, keys and models "
        "are the same for all. "
        "Every path under `/v1` is also there without `/v1`, and under `/v1/v1`, so that either kind of base URL "
        "works. The models `demo/echo`, `demo/story`, `demo/tools`, `demo/slow`, `demo/429`, `demo/500` and "
        "`demo/cut` are built in and need no provider's key. Messages are in the language of `Accept-Language` when it "
        "is one of `en`, `zh-CN`, `zh-TW` and `ru`, else in the server's."
    ),
    "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
}

_TAGS = [
    {"name": "plain", "description": "One JSON route for scripts, shortcuts and forms."},
    {"name": "openai", "description": "OpenAI's protocol, for its SDKs and everything built on them."},
    {"name": "anthropic", "description": "Anthropic's protocol, for its SDKs and coding agents."},
    openapi_gemini.TAG,
    openapi_ollama.TAG,
    {"name": "operations", "description": "For those who run the gateway."},
]


def _operation(tag: str, operation_id: str, summary: str, responses: Part, **more: Any) -> Part:  # noqa: ANN401 - JSON
    return {"tags": [tag], "operationId": operation_id, "summary": summary, "responses": responses, **more}


def _events(description: str) -> Part:
    return {"text/event-stream": {"schema": {"type": "string", "description": description}}}


_ASK = _operation(
    "plain",
    "ask",
    "Ask a model",
    _answers(
        "Plain",
        "400 401 403 405 408 413 415 429 500",
        {
            "description": "The answer.",
            "headers": IDS | STANDING | WHO,
            "content": json_body("PlainAnswer")
            | _events(
                'With `stream`: events `data: {"delta": "…"}`, then one event with the whole PlainAnswer. A stream '
                "that breaks ends with a PlainError instead."
            ),
        },
    ),
    requestBody={
        "required": True,
        "content": json_body("PlainQuestion")
        | {
            "application/x-www-form-urlencoded": {"schema": schema("PlainForm")},
            "text/plain": {"schema": {"type": "string", "minLength": 1, "description": "The question itself."}},
        },
    },
)

_PROBE = _operation(
    "operations", "probe", "Answer monitors", _answers("Plain", "", {"description": "It is there."}), security=[{}]
)

_MODEL_PARAMETER = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "The model's name; slashes in it may stay as they are.",
    "schema": schema("ModelName"),
}
_METRICS_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_MODEL_REFUSALS = "401 403 429 500"
_DAYS = [
    {
        "name": name,
        "in": "query",
        "description": f"{which} day, in UTC. Without days: what counts against the budget that is told.",
        "schema": {"type": "string", "format": "date"},
    }
    for name, which in (("start_date", "First"), ("end_date", "Last"))
]

_MODEL_CALL_REFUSALS = "400 401 403 404 405 408 413 415 429 500 502 503 504"


def _model_call(operation_id: str, summary: str, schemas: tuple[str, str], events: str = "") -> Part:
    """Return a call of a model in OpenAI's protocol; `schemas` are its request's and its answer's."""
    request, answer = schemas
    content = json_body(answer) | (_events(events) if events else {})
    success = {"description": "The answer.", "headers": IDS | STANDING | WHO, "content": content}
    answers = _answers("OpenAI", _MODEL_CALL_REFUSALS, success)
    return _operation(
        "openai", operation_id, summary, answers, requestBody={"required": True, "content": json_body(request)}
    )


def _of_response(operation_id: str, summary: str, statuses: str, success: str) -> Part:
    """Return what can be done with a response that is kept; the JSON of `success` is its answer."""
    answers = _answers(
        "OpenAI", statuses, {"description": "Done.", "headers": IDS | STANDING, "content": json_body(success)}
    )
    return _operation("openai", operation_id, summary, answers, parameters=[_RESPONSE_PARAMETER])


_RESPONSE_PARAMETER = {
    "name": "response",
    "in": "path",
    "required": True,
    "description": "The id of a response that was asked for with the same key.",
    "schema": {"type": "string"},
}
_OPERATION = ("OperationRequest", "OperationAnswer")
_MEDIA_EVENTS = "With `stream`, or `stream_format` for speech: the provider's events."


def _with_form(operation: str, summary: str, field: str) -> Part:
    """Describe a call that brings a file in a form; what comes back is the provider's, with its type."""
    described = _model_call(operation, summary, _OPERATION, _MEDIA_EVENTS)
    schema = {
        "type": "object",
        "required": ["model"],
        "properties": {"model": {"type": "string"}, field: {"type": "string", "format": "binary"}},
        "additionalProperties": True,
    }
    return {**described, "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_PATHS: dict[str, Part] = {
    "/v1/responses": {
        "post": _model_call(
            "createResponse",
            "Create a response",
            ("ResponsesRequest", "ResponsesAnswer"),
            "With `stream`: OpenAI's events, the last of which is `response.completed` or `response.incomplete`. A "
            "stream that breaks ends with `response.failed`, or with `error` where nothing was said yet.",
        ),
        "get": _operation(
            "openai",
            "openResponses",
            "Create responses over a WebSocket",
            _answers("OpenAI", "400 401 403 405 500", {"description": "The connection goes on as a WebSocket."}, "101"),
            description=(
                "With `Upgrade: websocket`. Each message of the caller's is a `response.create` with the fields of a "
                "ResponsesRequest, each event of an answer is one message."
            ),
        ),
    },
    "/v1/responses/{response}": {
        "get": _of_response("getResponse", "Show a response that is kept", "401 403 404 500 503", "ResponsesAnswer"),
        "delete": _of_response("deleteResponse", "Delete it", "401 403 404 500 503", "DeletedResponse"),
    },
    "/v1/responses/{response}/input_items": {
        "get": _of_response("listInputItems", "List what it answers", "400 401 403 404 500 503", "ResponseItems")
    },
    "/v1/responses/{response}/cancel": {
        "post": _of_response(
            "cancelResponse",
            "Refuse to cancel it: none runs in the background",
            "400 401 403 404 500 503",
            "ResponsesAnswer",
        )
    },
    "/v1/embeddings": {"post": _model_call("createEmbedding", "Create embeddings", _OPERATION)},
    "/v1/completions": {
        "post": _model_call(
            "createCompletion",
            "Create a legacy completion",
            _OPERATION,
            "With `stream`: OpenAI's chunks as the provider sent them, then `data: [DONE]`.",
        )
    },
    "/v1/moderations": {"post": _model_call("createModeration", "Classify texts and images", _OPERATION)},
    "/v1/images/generations": {"post": _model_call("createImage", "Create pictures", _OPERATION, _MEDIA_EVENTS)},
    "/v1/images/edits": {"post": _with_form("createImageEdit", "Change pictures", "image")},
    "/v1/images/variations": {"post": _with_form("createImageVariation", "Vary a picture", "image")},
    "/v1/audio/speech": {"post": _model_call("createSpeech", "Create speech", _OPERATION, _MEDIA_EVENTS)},
    "/v1/audio/transcriptions": {"post": _with_form("createTranscription", "Write down what is said", "file")},
    "/v1/audio/translations": {"post": _with_form("createTranslation", "Translate what is said", "file")},
    "/v1/chat/completions": {
        "post": _operation(
            "openai",
            "createChatCompletion",
            "Create a chat completion",
            _answers(
                "OpenAI",
                "400 401 403 404 405 408 413 415 429 500 502 503 504",
                {
                    "description": "The answer.",
                    "headers": IDS | STANDING | WHO,
                    "content": json_body("OpenAIChatAnswer")
                    | _events(
                        "With `stream`: OpenAI's chunks as the provider sent them, then `data: [DONE]`. A stream that "
                        "breaks ends with an OpenAIError and without `[DONE]`."
                    ),
                },
            ),
            requestBody={"required": True, "content": json_body("OpenAIChatRequest")},
        )
    },
    "/v1/messages": {
        "post": _operation(
            "anthropic",
            "createMessage",
            "Create a message",
            _answers(
                "Anthropic",
                "400 401 402 403 404 405 408 413 415 429 500 502 504 529",
                {
                    "description": "The answer.",
                    "headers": IDS | STANDING | WHO,
                    "content": json_body("AnthropicMessage")
                    | _events(
                        "With `stream`: Anthropic's events, the last of which is `message_stop`. A stream that breaks "
                        "ends with an `error` event instead."
                    ),
                },
            ),
            requestBody={"required": True, "content": json_body("AnthropicRequest")},
        )
    },
    "/v1/messages/count_tokens": {
        "post": _operation(
            "anthropic",
            "countTokens",
            "Count the tokens of a request",
            _answers(
                "Anthropic",
                "400 401 403 404 405 413 429 500",
                {
                    "description": "The count, by the provider where it can count, else estimated.",
                    "headers": IDS | STANDING | ESTIMATED,
                    "content": json_body("AnthropicCount"),
                },
            ),
            requestBody={"required": True, "content": json_body("AnthropicRequest")},
        )
    },
    **openapi_ollama.PATHS,
    "/v1/models": {
        "get": _operation(
            "openai",
            "listModels",
            "List the models",
            _answers(
                "OpenAI",
                _MODEL_REFUSALS,
                {"description": "The models.", "headers": IDS | STANDING, "content": json_body("ModelList")},
            ),
            description=(
                "With an `anthropic-version` header the answer, and every error, has Anthropic's shape; with an "
                "`x-goog-api-client` or `x-goog-api-key` header it has Google's."
            ),
        )
    },
    "/v1/models/{model}": {
        "get": _operation(
            "openai",
            "retrieveModel",
            "Tell of one model",
            _answers(
                "OpenAI",
                f"404 {_MODEL_REFUSALS}",
                {"description": "The model.", "headers": IDS | STANDING, "content": json_body("Model")},
            ),
            parameters=[_MODEL_PARAMETER],
        )
    },
    "/v1/dashboard/billing/subscription": {
        "get": _operation(
            "openai",
            "getSubscription",
            "Tell what the key may spend",
            _answers(
                "OpenAI",
                "401 403 500 503",
                {
                    "description": "The budget of the key that has the least left.",
                    "headers": IDS | STANDING,
                    "content": json_body("Subscription"),
                },
            ),
        )
    },
    "/v1/dashboard/billing/usage": {
        "get": _operation(
            "openai",
            "getUsage",
            "Tell what the key has spent",
            _answers(
                "OpenAI",
                "400 401 403 500 503",
                {"description": "What it has spent.", "headers": IDS | STANDING, "content": json_body("Usage")},
            ),
            parameters=_DAYS,
        )
    },
    "/healthz": {
        "get": _operation(
            "operations",
            "getHealth",
            "Say that the process is alive",
            _answers("Plain", "", {"description": "It is.", "content": json_body("Health")}),
            security=[{}],
        )
    },
    "/readyz": {
        "get": _operation(
            "operations",
            "getReadiness",
            "Say whether traffic may come",
            {
                **_answers("Plain", "", {"description": "It may.", "content": json_body("Health")}),
                "503": {"description": "The gateway is shutting down.", "headers": IDS, "content": json_body("Health")},
            },
            security=[{}],
        )
    },
    "/metrics": {
        "get": _operation(
            "operations",
            "getMetrics",
            "Return the metrics in Prometheus' text format",
            _answers("Plain", "401 403", {"description": "The metrics.", "content": _METRICS_TEXT}),
        )
    },
    "/openapi.json": {
        "get": _operation(
            "operations",
            "getOpenAPI",
            "Return this document",
            _answers(
                "Plain",
                "401 403",
                {"description": "This document.", "content": {"application/json": {"schema": {"type": "object"}}}},
            ),
        )
    },
}
