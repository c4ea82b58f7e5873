"""What can go wrong with a call.

    GateError
    ├── CallerError      the caller can mend it: key, address, body, model, pace
    ├── UpstreamError    the provider failed, was silent, or answered something unusable
    ├── Overloaded       the gateway is full or is shutting down; another try may work
    └── InternalError    a bug of ours

Every error says which `Kind` of situation it is (the protocols render a kind in their own shape, by an exhaustive
match), a `reason` (the id of a message in the catalogues, never a sentence) and typed parameters for it. Text is made
at the edge, in the caller's language.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct


class Kind(enum.StrEnum):
    """The situations a caller can be told of; the value is the stable code that programs may rely on."""

    INVALID_JSON = "invalid_json"
    INVALID_VALUE = "invalid_value"
    MISSING_KEY = "missing_key"
    INVALID_KEY = "invalid_api_key"
    PERMISSION_DENIED = "permission_denied"
    MODEL_NOT_FOUND = "model_not_found"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TOO_LARGE = "request_too_large"
    REQUEST_TIMEOUT = "request_timeout"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    INSUFFICIENT_QUOTA = "insufficient_quota"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    OVERLOADED = "overloaded"
    INTERNAL_ERROR = "internal_error"


class Remedy(enum.StrEnum):
    """What may be tried for a call after a failure, as long as nothing of an answer has reached the caller."""

    PASS_ON = "pass_on"  # noqa: S105 - no password
    """Nothing: the caller has to know."""
    RETRY = "retry"
    """The same target once more, or another."""
    ANOTHER_TARGET = "another_target"
    """Any target but this one."""
    LARGER_WINDOW = "larger_window"
    """A fallback that can take in more."""


class Blame(enum.StrEnum):
    """What a failure says about the target."""

    NOTHING = "nothing"
    TARGET = "target"
    """It is not well; when it happens again and again, the target is left alone for a while."""
    CREDENTIAL = "credential"
    """The key we show is refused."""
    PACE = "pace"
    """It wants fewer calls, for the time it named or for a moment."""


class Phrase(Struct, frozen=True):
    """A message of the catalogues with its parameters, to be rendered inside another message.

    `code` is the message id; the parameters fill its placeholders.
    """

    code: str
    parameters: Mapping[str, Parameter] = {}


Parameter = str | int | float | Phrase | tuple[Phrase, ...]


class GateError(Exception):
    """A call that ends without an answer.

    `reason` is a message id, `parameters` its placeholders, `param` the path of the field at fault
    (`messages[0].role`) or None. `retry_after_seconds` is the wait after which another try makes sense, None when
    unknown. `provider_message` and `provider_code` are the provider's own words, already freed of secrets. `remedy` and
    `blame` say what may be tried next and whose fault it was, as seen by whoever chooses targets. `standing` are the
    header lines that tell where the caller stands with the limits, None unless they have been asked already.
    """

    kind: Kind
    standing: bytes | None = None
    remedy: Remedy = Remedy.PASS_ON
    blame: Blame = Blame.NOTHING

    def __init__(
        self,
        kind: Kind,
        reason: str,
        *,
        param: str | None = None,
        retry_after_seconds: float | None = None,
        provider_message: str | None = None,
        provider_code: str | None = None,
        parameters: Mapping[str, Parameter] = MappingProxyType({}),
    ) -> None:
        """Keep the fields; nothing is rendered here."""
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        self.provider_message = provider_message
        self.provider_code = provider_code
        self.parameters = parameters

    @property
    def phrase(self) -> Phrase:
        """Return the message to render for the caller."""
        return Phrase(self.reason, self.parameters)


class CallerError(GateError):
    """The caller can mend it."""


class UpstreamError(GateError):
    """The provider failed, was silent for too long, or answered something unusable."""

    remedy = Remedy.RETRY
    blame = Blame.TARGET

    def __init__(
        self,
        reason: str,
        *,
        kind: Kind = Kind.UPSTREAM_ERROR,
        retry_after_seconds: float | None = None,
        provider_message: str | None = None,
        parameters: Mapping[str, Parameter] = MappingProxyType({}),
    ) -> None:
        """Keep the fields; the kind is `UPSTREAM_ERROR` unless it timed out."""
        super().__init__(
            kind,
            reason,
            retry_after_seconds=retry_after_seconds,
            provider_message=provider_message,
            parameters=parameters,
        )


class Overloaded(GateError):  # noqa: N818 - the situation's name is the field's term
    """The gateway cannot serve now: it is full or shutting down, or cannot check keys or keep its accounts."""

    def __init__(self, reason: str = "overloaded", *, retry_after_seconds: float = 2.0) -> None:
        """`reason` is the code of the message that says which it is."""
        super().__init__(Kind.OVERLOADED, reason, retry_after_seconds=retry_after_seconds)


class InternalError(GateError):
    """A bug of ours; the caller only learns the request id."""

    def __init__(self) -> None:
        """Carry nothing of the cause: it goes to the log."""
        super().__init__(Kind.INTERNAL_ERROR, "internal_error")
