"""What a failure of a trial most likely means, and what helps.

Pure: it looks at an error and at where it was met, and returns the ids of messages. Called by `trial`.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from chatgate.vocabulary.errors import Kind

if TYPE_CHECKING:
    from chatgate.vocabulary.errors import GateError
    from chatgate.vocabulary.upstreams import Origin

# What vendors say to callers from where they do not serve: OpenAI "Country, region, or territory not supported", Gemini
# "User location is not supported for the API use." (https://ai.google.dev/gemini-api/docs/available-regions).
_REGION = re.compile(r"country|region|territory|location is not supported|地区|地區|регион", re.IGNORECASE)
_TIMEOUTS = frozenset({"upstream_connect_timeout", "upstream_silent", "upstream_stalled", "upstream_too_slow"})

_OF_KINDS = {
    Kind.INVALID_KEY: "trial_key_refused",
    Kind.INSUFFICIENT_QUOTA: "trial_no_balance",
    Kind.RATE_LIMIT_EXCEEDED: "trial_pace",
    Kind.MODEL_NOT_FOUND: "trial_no_model",
    Kind.PERMISSION_DENIED: "trial_denied",
}


def hint_of(error: GateError, origin: Origin) -> str | None:
    """Return the id of the message that helps with a failure at an origin, None when nothing is known about it."""
    if error.reason == "upstream_unreachable":
        return _unreachable(error.__cause__, origin)
    if error.reason in _TIMEOUTS:
        return "trial_timeout_proxy" if origin.proxy else "trial_timeout"
    if error.kind in {Kind.PERMISSION_DENIED, Kind.INVALID_VALUE} and _REGION.search(error.provider_message or ""):
        return "trial_region"
    if error.reason in {"upstream_bad_answer", "upstream_garbled"}:
        return "trial_no_api"
    return _OF_KINDS.get(error.kind)


def _unreachable(cause: BaseException | None, origin: Origin) -> str:
    """Return what helps where no connection came about.

    What the TLS and proxy libraries raise is told by its module: only the transport may know those libraries.
    """
    module = type(cause).__module__
    if module == "ssl":
        return "trial_tls"
    if origin.proxy:
        return "trial_proxy"
    return "trial_dns" if isinstance(cause, socket.gaierror) else "trial_refused"
