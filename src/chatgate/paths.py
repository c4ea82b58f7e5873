"""Which URL is which operation in which protocol.

A table made once: every path is looked up whole, so a path that is spelled in any other way (a doubled slash, a dot
segment, an encoded letter) is unknown. `endpoints` asks it for every head that it has not seen before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from msgspec import structs

from chatgate.administration.routes import PREFIX as ADMIN_PREFIX
from chatgate.protocols.gemini.call import COUNT, METHODS, STREAM
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.exchange import Endpoint, Operation, Surface

if TYPE_CHECKING:
    from collections.abc import Mapping

OPENAI_PREFIXES = ("/v1", "", "/v1/v1")
"""Where the providers' protocols are mounted: base URLs come with and without the version, and with it doubled."""

GEMINI_PREFIXES = ("/v1beta", "/v1/v1beta", "/v1beta/v1beta")
"""Where Gemini's protocol is mounted; its clients add the version to whatever base URL they have. What is asked of a
model is under OpenAI's prefixes, too: the present google-genai package for Python asks for version 1."""

GOOGLE_HEADERS = (b"x-goog-api-client", b"x-goog-api-key")
"""What Google's clients send, the like of `ANTHROPIC_VERSION`."""

ANTHROPIC_VERSION = b"anthropic-version"
"""The header that every Anthropic client sends: it decides whose answers the paths give that two protocols share."""

ADMIN = Endpoint(Operation.ADMIN, Surface.ADMIN)
"""What is administered; the rest of the way is in a table of its own."""

CONVERSATION = Endpoint(Operation.CONVERSATION, Surface.RESPONSES)
"""A WebSocket that someone wants to open."""

_MEDIA = (
    ("/images/generations", Operation.IMAGE, Surface.IMAGES, False),
    ("/images/edits", Operation.IMAGE, Surface.IMAGE_EDITS, True),
    ("/images/variations", Operation.IMAGE, Surface.IMAGE_VARIATIONS, True),
    ("/audio/speech", Operation.SPEECH, Surface.SPEECH, False),
    ("/audio/transcriptions", Operation.TRANSCRIPTION, Surface.TRANSCRIPTIONS, True),
    ("/audio/translations", Operation.TRANSLATION, Surface.TRANSLATIONS, True),
)
"""Where pictures and sound are, and whether they take files."""

_OLLAMA = (
    ("chat", Operation.CHAT, Surface.OLLAMA, "POST"),
    ("generate", Operation.CHAT, Surface.OLLAMA_GENERATE, "POST"),
    ("embed", Operation.EMBEDDING, Surface.OLLAMA_EMBED, "POST"),
    ("embeddings", Operation.EMBEDDING, Surface.OLLAMA_EMBEDDINGS, "POST"),
    ("tags", Operation.MODELS, Surface.OLLAMA, "GET"),
    ("tags", Operation.MODELS, Surface.OLLAMA, "HEAD"),
    ("show", Operation.MODEL, Surface.OLLAMA, "POST"),
    ("ps", Operation.RUNNING, Surface.OLLAMA, "GET"),
    ("version", Operation.VERSION, Surface.OLLAMA, "GET"),
)
"""What Ollama's clients ask for, below `/api`. Models are neither fetched nor changed here."""

_OLLAMA_PATHS = tuple(f"/api/{name}" for name in ("pull", "push", "create", "copy", "delete", "blobs/"))
_OPENAI_PATHS = ("/v1/", "/chat/", "/models/", "/responses/", "/dashboard/", "/images/", "/audio/")
_ANTHROPIC_PATHS = ("/v1/messages", "/messages", "/v1/v1/messages")
_GEMINI_PATHS = ("/v1beta", "/v1/v1beta")

Methods = dict[str, Endpoint]


class Table:
    """Every URL of the gateway."""

    def __init__(self, route: str) -> None:
        """`route` is the plain API's path without its slash; "" is the root."""
        paths: dict[str, Methods] = {}

        def add(path: str, operation: Operation, surface: Surface, *methods: str) -> None:
            for method in methods:
                paths.setdefault(path, {})[method] = Endpoint(operation, surface)

        # First of all, so that the operator may have the plain API in the place of one of these.
        for path, operation, surface, method in _OLLAMA:
            add(f"/api/{path}", operation, surface, method)
        add("/", Operation.PAGE, Surface.PLAIN, "GET")
        add("/", Operation.PROBE, Surface.PLAIN, "HEAD")
        add("/api/hello", Operation.PROBE, Surface.PLAIN, "HEAD")  # Claude Code looks there for a gateway.
        for path in {f"/{route}", f"/{route}/" if route else "/"}:
            add(path, Operation.CHAT, Surface.PLAIN, "POST")
            add(path, Operation.PAGE, Surface.PLAIN, "GET")
            add(path, Operation.PROBE if path == "/" else Operation.PAGE, Surface.PLAIN, "HEAD")
        for prefix in OPENAI_PREFIXES:
            add(f"{prefix}/chat/completions", Operation.CHAT, Surface.OPENAI, "POST")
            add(f"{prefix}/responses", Operation.CHAT, Surface.RESPONSES, "POST")
            add(f"{prefix}/completions", Operation.COMPLETION, Surface.COMPLETIONS, "POST")
            add(f"{prefix}/embeddings", Operation.EMBEDDING, Surface.EMBEDDINGS, "POST")
            add(f"{prefix}/moderations", Operation.MODERATION, Surface.MODERATIONS, "POST")
            for path, operation, surface, takes_files in _MEDIA:
                paths[f"{prefix}{path}"] = {"POST": Endpoint(operation, surface, takes_files=takes_files)}
            add(f"{prefix}/messages", Operation.CHAT, Surface.ANTHROPIC, "POST")
            add(f"{prefix}/messages/count_tokens", Operation.COUNT_TOKENS, Surface.ANTHROPIC, "POST")
            add(f"{prefix}/models", Operation.MODELS, Surface.OPENAI, "GET", "HEAD")
            add(f"{prefix}/dashboard/billing/subscription", Operation.SUBSCRIPTION, Surface.OPENAI, "GET", "HEAD")
            add(f"{prefix}/dashboard/billing/usage", Operation.USAGE, Surface.OPENAI, "GET", "HEAD")
        for path in GEMINI_PREFIXES:
            add(f"{path}/models", Operation.MODELS, Surface.GEMINI, "GET", "HEAD")
        add("/healthz", Operation.HEALTH, Surface.PLAIN, "GET", "HEAD")
        add("/readyz", Operation.READY, Surface.PLAIN, "GET", "HEAD")
        add("/metrics", Operation.METRICS, Surface.PLAIN, "GET", "HEAD")
        add("/openapi.json", Operation.OPENAPI, Surface.PLAIN, "GET", "HEAD")
        self._paths = paths
        self._models = tuple(f"{prefix}/models/" for prefix in OPENAI_PREFIXES)
        self._responses = tuple(f"{prefix}/responses/" for prefix in OPENAI_PREFIXES)
        self._sockets = frozenset(f"{prefix}/responses" for prefix in OPENAI_PREFIXES)

    def find(self, method: str, path: str, query: str = "", *, upgrades: bool = False) -> Endpoint:
        """Return what a URL is. Raises `CallerError` when it is nothing, or takes other methods.

        `upgrades` says that the caller wants to go on in another protocol than HTTP.
        Where several protocols share a path it is OpenAI's; see `in_callers_protocol`.
        """
        methods = self._paths.get(path)
        if methods is None:
            if path.startswith(ADMIN_PREFIX):
                return ADMIN
            methods = _gemini_at(path, query) or self._model_at(path) or self._response_at(path)
        if methods is None:
            raise CallerError(Kind.NOT_FOUND, "unknown_path")
        endpoint = methods.get(method)
        if endpoint is None and upgrades and method == "GET" and path in self._sockets:
            return CONVERSATION
        if endpoint is None:
            parameters = {"method": method, "allowed": ", ".join(methods)}
            reason = "no_websocket" if upgrades else "method_not_allowed"
            raise CallerError(Kind.METHOD_NOT_ALLOWED, reason, parameters=parameters)
        return endpoint

    def surface_of(self, path: str, headers: Mapping[bytes, bytes]) -> Surface:
        """Return whose errors a path gets, whether it exists or not."""
        if ANTHROPIC_VERSION in headers or path.startswith(_ANTHROPIC_PATHS):
            return Surface.ANTHROPIC
        if path.startswith(_GEMINI_PATHS) or _is_googles(headers):
            return Surface.GEMINI
        if path == "/v1" or path.startswith(_OPENAI_PATHS):
            return Surface.OPENAI
        if path.startswith(ADMIN_PREFIX):
            return Surface.ADMIN
        methods = self._paths.get(path)
        if methods is None and path.startswith(_OLLAMA_PATHS):
            return Surface.OLLAMA
        return next(iter(methods.values())).surface if methods else Surface.PLAIN

    def _model_at(self, path: str) -> Methods | None:
        for prefix in self._models:
            if path.startswith(prefix) and len(path) > len(prefix):
                model = unquote(path[len(prefix) :], errors="replace")
                endpoint = Endpoint(Operation.MODEL, Surface.OPENAI, model)
                return {"GET": endpoint, "HEAD": endpoint}
        return None

    def _response_at(self, path: str) -> Methods | None:
        for prefix in self._responses:
            if path.startswith(prefix) and len(path) > len(prefix):
                response_id, slash, rest = unquote(path[len(prefix) :], errors="replace").partition("/")
                if not slash:
                    shown = Endpoint(Operation.RESPONSE, Surface.RESPONSES, response_id)
                    return {"GET": shown, "DELETE": structs.replace(shown, operation=Operation.RESPONSE_DELETION)}
                if rest == "cancel":
                    return {"POST": Endpoint(Operation.RESPONSE_CANCELLATION, Surface.RESPONSES, response_id)}
                if rest == "input_items":
                    return {"GET": Endpoint(Operation.RESPONSE_ITEMS, Surface.RESPONSES, response_id)}
        return None


def _gemini_at(path: str, query: str) -> Methods | None:
    """Return what Gemini's protocol has at a path: a model, or what it is asked for, after a colon."""
    for prefix in (*GEMINI_PREFIXES, *OPENAI_PREFIXES):
        start = f"{prefix}/models/"
        if not path.startswith(start) or len(path) == len(start):
            continue
        parameter = unquote(path[len(start) :], errors="replace")
        method = parameter.rpartition(":")[2]
        if method not in METHODS:
            if prefix in OPENAI_PREFIXES:
                return None
            endpoint = Endpoint(Operation.MODEL, Surface.GEMINI, parameter)
            return {"GET": endpoint, "HEAD": endpoint}
        in_array = method == STREAM and "alt=sse" not in query.split("&")
        surface = Surface.GEMINI_ARRAY if in_array else Surface.GEMINI
        return {"POST": Endpoint(Operation.COUNT_TOKENS if method == COUNT else Operation.CHAT, surface, parameter)}
    return None


def in_callers_protocol(endpoint: Endpoint, headers: Mapping[bytes, bytes]) -> Endpoint:
    """Return what a path is for the caller: OpenAI's clients share those of the models with others."""
    if endpoint.surface is not Surface.OPENAI:
        return endpoint
    if ANTHROPIC_VERSION in headers:
        return structs.replace(endpoint, surface=Surface.ANTHROPIC)
    return structs.replace(endpoint, surface=Surface.GEMINI) if _is_googles(headers) else endpoint


def _is_googles(headers: Mapping[bytes, bytes]) -> bool:
    return any(name in headers for name in GOOGLE_HEADERS)
