"""One call on its way through the gateway: a frozen type per stage, and the ports at both ends.

    Envelope ─ identify ─► Identified ─ decode ─► Decoded ─ admit ─► Admitted ─ call ─► an answer ─ settle ─► Settled

Whoever holds a later type can only have got it from the earlier one, so "call an upstream without admission" is a type
error; `Admitted` is among the attempts, which know routes. The ports say what the pipeline needs of what carries it:
`CallerPort` towards the caller, `Sender` and `Answer` towards the upstream.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from chatgate.vocabulary.chat import Asked
from chatgate.vocabulary.errors import GateError
from chatgate.vocabulary.identity import Caller
from chatgate.vocabulary.upstreams import Origin, Timeouts

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping


class Operation(enum.StrEnum):
    """What a URL does; the value is the `operation` of the log and of the metrics."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    MODERATION = "moderation"
    IMAGE = "image"
    SPEECH = "speech"
    TRANSCRIPTION = "transcription"
    TRANSLATION = "translation"
    COUNT_TOKENS = "count_tokens"
    RESPONSE = "response"
    RESPONSE_DELETION = "response_deletion"
    RESPONSE_CANCELLATION = "response_cancellation"
    RESPONSE_ITEMS = "response_items"
    RESPONSE_PREPARATION = "response_preparation"
    CONVERSATION = "conversation"
    VERSION = "version"
    RUNNING = "running"
    MODELS = "models"
    MODEL = "model"
    SUBSCRIPTION = "subscription"
    USAGE = "usage"
    ADMIN = "admin"
    PAGE = "page"
    HEALTH = "healthz"
    READY = "readyz"
    METRICS = "metrics"
    OPENAPI = "openapi"
    PROBE = "probe"
    UNKNOWN = "unknown"


class Surface(enum.StrEnum):
    """Whose protocol an URL speaks: it decides the shape of answers and of errors."""

    PLAIN = "plain"
    OPENAI = "openai"
    ADMIN = "admin"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    GEMINI_ARRAY = "gemini_array"
    """The same, with streams that are one JSON array."""
    RESPONSES = "responses"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MODERATIONS = "moderations"
    OLLAMA = "ollama"
    OLLAMA_GENERATE = "ollama_generate"
    OLLAMA_EMBED = "ollama_embed"
    OLLAMA_EMBEDDINGS = "ollama_embeddings"
    IMAGES = "images"
    IMAGE_EDITS = "image_edits"
    IMAGE_VARIATIONS = "image_variations"
    SPEECH = "speech"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"


class Endpoint(Struct, frozen=True, gc=False):
    """What an URL is: an operation in a protocol.

    `parameter` is the rest of a path that names something (`gpt-6-luna` in `/v1/models/gpt-6-luna`), else "".
    `takes_files` says that a form with files may be sent there, which is passed on while it arrives.
    """

    operation: Operation
    surface: Surface
    parameter: str = ""
    takes_files: bool = False


class Envelope(Struct, frozen=True, gc=False):
    """The head of a request, as it arrived.

    `path` is the target without its query, still percent-encoded; `query` is without its question mark. Names in
    `headers` are in lower case; several lines of one name are joined by `, ` in their order. `peer` is the address of
    the other end of the socket as text, "" for a socket without one. `arrived_at` is monotonic, in seconds.
    """

    request_id: str
    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    peer: str
    arrived_at: float

    def __repr__(self) -> str:
        """Hide the headers and the query, which may hold a key."""
        return f"Envelope({self.request_id} {self.method} {self.path})"


class Identified(Struct, frozen=True, gc=False):
    """The envelope's caller is known and may come in; nothing of the body has been looked at.

    It `lasts` when the gate that said so would say so of every request with the same head by the same peer.
    """

    envelope: Envelope
    endpoint: Endpoint
    caller: Caller
    language: str
    lasts: bool = False

    def again(self, request_id: str, arrived_at: float) -> Identified:
        """Return the same of another request with the same head."""
        return replace(self, envelope=replace(self.envelope, request_id=request_id, arrived_at=arrived_at))


class Decoded(Struct, frozen=True, gc=False):
    """The body is understood, and the caller's key is known even when it came in the body."""

    identified: Identified
    caller: Caller
    asked: Asked


class Outcome(enum.StrEnum):
    """How a call ended; every call ends in exactly one of them."""

    COMPLETED = "completed"
    UPSTREAM_FAILED = "upstream_failed"
    CLIENT_LEFT = "client_left"
    REFUSED = "refused"
    REVOKED = "revoked"
    """Its key was taken away while it was under way."""


class Settled(Struct, gc=False, omit_defaults=True):
    """What there is to say about a call at its end; never holds text of the caller's or of the model's.

    It is filled on the way, noted once, at the end, and not changed after that. The fields' order is
    that of the log's line. `first_token_ms` is None when nothing was streamed, the tokens when nobody counted them.
    `code` is the stable error code, "" after a success. `attempts` counts the requests that were sent upstream, and
    `target` is where the last of them went. `key` is the id of the gateway's key, and `cost_usd` what the call cost its
    caller, as a decimal number.
    """

    request_id: str
    operation: Operation
    surface: Surface
    address: str
    model: str
    upstream: str
    status: int
    outcome: Outcome
    code: str
    stream: bool
    duration_ms: float
    first_token_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    attempts: int = 0
    target: str = ""
    key: str = ""
    cost_usd: str = ""


NoteEnd: TypeAlias = "Callable[[tuple[float, Settled]], None]"
"""Takes note of the end of a call: when that was, in seconds since the epoch, and what there is to say about it."""


class OutboundRequest(Struct, frozen=True, gc=False):
    """A request to an upstream. `head` is the whole head with its blank line; `body` has the length it states.

    `is_native` says that the caller speaks the upstream's own protocol, and wants the answer in it.
    """

    origin: Origin
    head: bytes
    body: bytes
    timeouts: Timeouts
    is_native: bool = False

    def __repr__(self) -> str:
        """Hide the head, which holds a key, and the body, which holds a prompt."""
        return f"OutboundRequest({self.origin!r})"


class Pieces(Protocol):
    """A body that comes piece by piece, for one reader."""

    async def next_piece(self) -> bytes:
        """Return the next piece as soon as there is one; b"" once, at its regular end.

        Raises `GateError` when there will be no such end.
        """


class Upload(Pieces, Protocol):
    """A caller's body that is still arriving. While nobody takes its pieces, the caller is made to wait."""

    @property
    def length_bytes(self) -> int | None:
        """Return how long it is as a whole, None when that is not known before its end."""


class UploadRequest(OutboundRequest, frozen=True, gc=False):
    """A request whose body is still arriving: `pieces` are all of it, and `body` is empty."""

    pieces: Pieces | None = None


class Reply(Struct, frozen=True, gc=False):
    """A whole answer. `headers` are rendered lines, each ending in CRLF, without Content-Length and Connection."""

    status: int
    headers: bytes
    body: bytes


class Upgrade(Reply, frozen=True, gc=False):
    """The beginning of the answer to a caller who wants to go on over a WebSocket, and may ask for it."""

    identified: Identified


class Verdict(enum.Enum):
    """What whoever takes an answer's pieces makes of one."""

    MORE = enum.auto()
    """It was worth waiting for; more is wanted."""
    NOTHING = enum.auto()
    """It said nothing, such as a comment: the silence goes on."""
    STOP = enum.auto()
    """Nothing more is wanted for now."""


PassOn = Callable[[bytes, int], bool]
"""Takes a chunk (RFC 9112 section 7.1) as it came, size line and all, and where its data begins; the CRLF after them is
its end. Returns False, having done nothing, when the data has to be looked at."""


class Answer(Protocol):
    """What an upstream answers; made by a `Sender`, always closed by whoever got it.

    Raises `UpstreamError` from `read` and `next_chunk`: kind `UPSTREAM_TIMEOUT` with reason `upstream_silent` (no first
    byte in time), `upstream_stalled` (silence inside the body) or `upstream_too_slow` (total), kind `UPSTREAM_ERROR`
    with reason `upstream_cut` (the connection ended inside the body), `upstream_garbled` (framing broken) or
    `upstream_too_large`.
    """

    @property
    def status(self) -> int:
        """Return the HTTP status."""

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """Return the headers, names in lower case."""

    @property
    def whole(self) -> bytes | None:
        """Return the body of a success (200) when all of it came at once; None where only `read` tells."""

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body; more than `limit_bytes` of it is an error."""

    async def next_chunk(self) -> bytes:
        """Return the next piece of the body as soon as there is one; b"" once, at its regular end."""

    async def forward(self, take: Callable[[bytes], Verdict], pass_on: PassOn | None = None) -> bool:
        """Hand every piece of the body to `take`, at the moment it arrives.

        A chunk of the body that arrived by itself may be offered to `pass_on` first; `take` gets what that declines.
        Returns True at the body's regular end, and False once `take` said `STOP`.
        """

    def release(self) -> None:
        """Give the connection back: all that was wanted is read, though the end of the body may still be to come."""

    def close(self) -> None:
        """End the connection, unless the body was read to its end or it was released. May be called again."""


class Sender(Protocol):
    """What carries a request to an upstream: the transport, or a provider inside the process."""

    async def send(self, request: OutboundRequest, may_repeat: Callable[[float], bool] | None = None) -> Answer:
        """Send the request and return once the head of the answer is there.

        A request that met a connection which was being closed is sent once more, if `may_repeat` says so when it is
        asked at that moment, in monotonic seconds; None for always.
        Raises `UpstreamError` with reason `upstream_unreachable` (dial, proxy or TLS failed), kind `UPSTREAM_TIMEOUT`
        with reason `upstream_connect_timeout` (not connected in time), or one of `Answer`'s. When the task is
        cancelled, nothing stays open.
        """


class UploadSender(Protocol):
    """What carries requests whose bodies are still arriving."""

    async def upload(self, request: UploadRequest) -> Answer:
        """Send the request as its body arrives; see `Sender`. It is sent once. Raises what reading the body raises."""


class CallerPort(Protocol):
    """What carries an answer to the caller. Nothing here blocks; `drained` waits when the caller reads too slowly.

    When the caller leaves, the task that serves the call is cancelled.
    """

    @property
    def is_congested(self) -> bool:
        """Tell whether the caller reads more slowly than is sent."""

    def reply(self, reply: Reply) -> None:
        """Send a whole answer and end it."""

    def start_stream(self, status: int, headers: bytes, first: bytes = b"") -> None:
        """Send the head of an answer whose length is not known, and the first piece of it, b"" for none yet."""

    def send(self, data: bytes) -> None:
        """Send a piece of the body, at once."""

    @property
    def takes_chunks(self) -> bool:
        """Tell whether the pieces of the answer that has begun are sent as chunks of HTTP."""

    def send_chunk(self, chunk: bytes) -> None:
        """Send a piece of the body that is framed already, at once, where `takes_chunks` says so."""

    def finish(self, last: bytes = b"") -> None:
        """Send a last piece, b"" for none, and end the body."""

    def cancel(self, message: str) -> None:
        """Cancel the call that is being served, with a message; nothing when it has ended."""

    async def drained(self) -> None:
        """Return at once while the caller reads; else when it reads again."""


class Channel(Protocol):
    """What carries one turn's messages over a WebSocket. Nothing here blocks but `drained`, as of a `CallerPort`."""

    @property
    def is_congested(self) -> bool:
        """Tell whether the caller reads more slowly than is sent."""

    def send(self, text: bytes) -> None:
        """Send a whole message, which is UTF-8."""

    def ping(self) -> None:
        """Let those on the way see that somebody is still there."""

    def cancel(self, message: str) -> None:
        """Cancel the turn, with a message; nothing when it has ended."""

    async def drained(self) -> None:
        """Return at once while the caller reads; else when it reads again."""


class Turn(Protocol):
    """A message that asks for something. Turns of one `lane` follow each other, those of others run beside them."""

    @property
    def lane(self) -> str:
        """Return the lane, "" where the caller named none."""

    async def serve(self, gate: Gate, channel: Channel) -> None:
        """Answer it, as `Gate.serve` answers a call."""


class Conversation(Protocol):
    """What is said over one WebSocket."""

    def take(self, text: bytes, request_id: str, arrived_at: float) -> Turn:
        """Take a whole message of the caller's, which is UTF-8."""

    def farewell(self, gate: Gate, request_id: str, arrived_at: float) -> bytes:
        """Return the message that says that the connection is as old as any may grow."""

    def end(self) -> None:
        """Forget what was said: the connection has ended."""


class Serve(Protocol):
    """What serves calls whose bodies are there."""

    def __call__(self, identified: Identified, body: bytes, port: CallerPort) -> Coroutine[None, None, None]:
        """Return what answers a call; it never raises, except when cancelled."""


class Gate(Protocol):
    """What the server asks of the gateway."""

    def arrive(self, envelope: Envelope) -> Identified | Reply:
        """Judge a request by its head: who it is and what it is for, or the answer that it gets at once.

        An `Upgrade` is no answer yet: `converse` has the last word.
        """

    def stands_by(self, identified: Identified) -> bool:
        """Tell whether `arrive` would say the same of another request with its head, by the same peer, now."""

    def refuse(self, envelope: Envelope, error: GateError) -> Reply:
        """Return the answer to a request that broke a rule of the wire; its path is "" when its head was unreadable."""

    def server_of(self, endpoint: Endpoint) -> Serve:
        """Return what serves the calls of an endpoint."""

    async def converse(self, identified: Identified) -> Conversation | Reply:
        """Begin a conversation over a WebSocket, or return the answer that refuses it."""

    async def prepare(self, identified: Identified, body: bytes) -> Reply:
        """Prepare a response that a later turn goes on from, without asking any model for an answer."""

    def receive(self, identified: Identified, upload: Upload, port: CallerPort) -> Coroutine[None, None, None]:
        """Return what answers a call whose body is still arriving; otherwise as `serve`."""
