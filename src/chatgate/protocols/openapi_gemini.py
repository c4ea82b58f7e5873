"""What the description of the HTTP surface says of Gemini's protocol: its paths, schemas and refusals.

Put into the document by `openapi`.
"""

from __future__ import annotations

from typing import Any

from chatgate.protocols.openapi_components import (
    ESTIMATED,
    IDS,
    STANDING,
    WHO,
    json_body,
    object_of,
    refusals,
    schema,
)

Part = dict[str, Any]

TAG = {"name": "gemini", "description": "Gemini's protocol, for Google's SDKs and the Gemini CLI."}

_CALL = "400 401 403 404 405 408 413 415 429 500 502 503 504"
_LISTING = "400 401 403 405 429 500 503"
_MODEL = {"name": "model", "in": "path", "required": True, "schema": schema("ModelName")}
_EVENTS = (
    "With `alt=sse`: responses as events, the last of which says why the answer ended. A stream that breaks ends with "
    "a bare GeminiError instead."
)


def _operation(operation_id: str, summary: str, statuses: str, success: Part, **more: Any) -> Part:  # noqa: ANN401 - JSON
    refused = {status: {"$ref": f"#/components/responses/Gemini{status}"} for status in statuses.split()}
    answers = {"200": {"headers": IDS | STANDING, **success}, **refused}
    return {"tags": ["gemini"], "operationId": operation_id, "summary": summary, "responses": answers, **more}


PATHS: dict[str, Part] = {
    "/v1beta/models/{model}:generateContent": {
        "post": _operation(
            "generateContent",
            "Generate an answer",
            _CALL,
            {"description": "The answer.", "headers": IDS | STANDING | WHO, "content": json_body("GeminiResponse")},
            description="Also under `/v1/models`, where OpenAI's protocol is.",
            parameters=[_MODEL],
            requestBody={"required": True, "content": json_body("GeminiRequest")},
        )
    },
    "/v1beta/models/{model}:streamGenerateContent": {
        "post": _operation(
            "streamGenerateContent",
            "Generate an answer piece by piece",
            _CALL,
            {
                "description": "The answer: one array, or events.",
                "headers": IDS | STANDING | WHO,
                "content": {
                    "application/json": {"schema": {"type": "array", "items": schema("GeminiResponse")}},
                    "text/event-stream": {"schema": {"type": "string", "description": _EVENTS}},
                },
            },
            parameters=[_MODEL, {"name": "alt", "in": "query", "schema": {"enum": ["sse"]}}],
            requestBody={"required": True, "content": json_body("GeminiRequest")},
        )
    },
    "/v1beta/models/{model}:countTokens": {
        "post": _operation(
            "countContentTokens",
            "Count the tokens of a request",
            "400 401 403 404 405 413 429 500 503",
            {
                "description": "The count, by the provider where it can count, else estimated.",
                "headers": IDS | STANDING | ESTIMATED,
                "content": json_body("GeminiCount"),
            },
            parameters=[_MODEL],
            requestBody={"required": True, "content": json_body("GeminiRequest")},
        )
    },
    "/v1beta/models": {
        "get": _operation(
            "listGeminiModels",
            "List the models",
            _LISTING,
            {"description": "A page of the models.", "content": json_body("GeminiModels")},
            parameters=[
                {"name": name, "in": "query", "schema": {"type": "integer"}} for name in ("pageSize", "pageToken")
            ],
        )
    },
    "/v1beta/models/{model}": {
        "get": _operation(
            "retrieveGeminiModel",
            "Tell of one model",
            f"404 {_LISTING}",
            {"description": "The model.", "content": json_body("GeminiModel")},
            parameters=[_MODEL],
        )
    },
}

_TEXT: Part = {"type": "string"}
_OBJECT: Part = {"type": "object"}

SCHEMAS: dict[str, Part] = {
    "GeminiRequest": object_of(
        {
            "contents": {"type": "array", "items": _OBJECT},
            "systemInstruction": _OBJECT,
            "tools": {"type": "array", "items": _OBJECT},
            "toolConfig": _OBJECT,
            "generationConfig": _OBJECT,
        },
        "",
        description=(
            "Google's request, its names in either of protobuf's ways. A Gemini upstream gets it unchanged; for any "
            "other it is translated, and refused when a part of it cannot be, unless the server leaves such parts out."
        ),
        additionalProperties=True,
    ),
    "GeminiResponse": object_of(
        {
            "candidates": {"type": "array", "items": _OBJECT},
            "promptFeedback": _OBJECT,
            "usageMetadata": _OBJECT,
            "modelVersion": _TEXT,
            "responseId": _TEXT,
        },
        "",
        description="Google's response, byte for byte where a Gemini upstream sent it.",
        additionalProperties=True,
    ),
    "GeminiCount": object_of({"totalTokens": {"type": "integer"}}, "totalTokens", additionalProperties=True),
    "GeminiModel": object_of(
        {
            "name": _TEXT,
            "version": _TEXT,
            "displayName": _TEXT,
            "supportedGenerationMethods": {"type": "array", "items": _TEXT},
        },
        "name",
    ),
    "GeminiModels": object_of(
        {"models": {"type": "array", "items": schema("GeminiModel")}, "nextPageToken": _TEXT}, "models"
    ),
    "GeminiError": object_of(
        {
            "error": object_of(
                {
                    "code": {"type": "integer"},
                    "message": _TEXT,
                    "status": _TEXT,
                    "details": {"type": "array", "items": _OBJECT},
                },
                "code message status",
            )
        },
        "error",
    ),
}

RESPONSES: Part = refusals(
    "Gemini",
    {
        "400": "Bad JSON, a wrong field, or one that the provider's protocol has nothing like.",
        "401": "The key is missing, unknown, revoked, disabled or expired here, or refused by the provider.",
        "403": "The address or the key may not do this, or the model has no known price where money is limited.",
        "404": "There is no such model.",
        "405": "The path does not take this method.",
        "408": "The request did not arrive in time.",
        "413": "The body is too large.",
        "415": "The type of the body is not understood.",
        "429": "A limit was reached or too little is left of a budget, here or at the provider.",
        "500": "A fault of the gateway's.",
        "502": "Every provider that could be tried failed or gave a bad answer.",
        "503": (
            "The gateway or the model's providers are overloaded, or the gateway is being restarted, "
            "or it cannot check keys or write down calls."
        ),
        "504": "Every provider that could be tried took too long.",
    },
)
