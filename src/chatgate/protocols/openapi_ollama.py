"""The part of the description that tells of Ollama's protocol. Read by `openapi`."""

from __future__ import annotations

from chatgate.protocols.openapi_components import IDS, STANDING, WHO, Part, json_body

TAG = {"name": "ollama", "description": "Ollama's protocol, for its clients."}

_REFUSALS = "400 401 403 404 405 408 413 415 429 500 502 503 504"
_LINES = {
    "application/x-ndjson": {
        "schema": {
            "type": "string",
            "description": (
                "Unless `stream` is false: objects, one a line, the last with `done`. A stream that breaks ends with "
                "an OllamaError."
            ),
        }
    }
}


def _refused(statuses: str) -> Part:
    return {status: {"$ref": f"#/components/responses/Ollama{status}"} for status in statuses.split()}


def _call(operation_id: str, summary: str, *, streams: bool = False) -> Part:
    content = json_body("OllamaAnswer") | (_LINES if streams else {})
    success = {"description": "The answer.", "headers": IDS | STANDING | WHO, "content": content}
    return {
        "tags": ["ollama"],
        "operationId": operation_id,
        "summary": summary,
        "requestBody": {"required": True, "content": json_body("OllamaRequest")},
        "responses": {"200": success} | _refused(_REFUSALS),
    }


def _look(operation_id: str, summary: str, statuses: str) -> Part:
    content = json_body("OllamaAnswer")
    success = {"description": "What there is.", "headers": IDS | STANDING, "content": content}
    return {
        "tags": ["ollama"],
        "operationId": operation_id,
        "summary": summary,
        "responses": {"200": success} | _refused(statuses),
    }


PATHS: dict[str, Part] = {
    "/api/chat": {"post": _call("ollamaChat", "Go on with a dialogue", streams=True)},
    "/api/generate": {"post": _call("ollamaGenerate", "Go on from a prompt", streams=True)},
    "/api/embed": {"post": _call("ollamaEmbed", "Create embeddings")},
    "/api/embeddings": {"post": _call("ollamaEmbeddings", "Create one embedding, as older clients ask")},
    "/api/tags": {"get": _look("ollamaTags", "List the models", "401 403 429 500")},
    "/api/show": {
        "post": _look("ollamaShow", "Tell of a model", "400 401 403 404 413 429 500")
        | {"requestBody": {"required": True, "content": json_body("OllamaRequest")}}
    },
    "/api/ps": {"get": _look("ollamaPs", "List the models that are loaded: none", "401 403")},
    "/api/version": {"get": _look("ollamaVersion", "Tell which release's protocol is spoken", "401 403")},
}
