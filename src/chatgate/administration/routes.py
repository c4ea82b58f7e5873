"""The one table of the admin API: every method and path, what it does, what it reads, what it answers, who may.

Dispatch and description both come from `ROUTES`; nothing is routed, allowed or described anywhere else.
`Administration` leads a request through it: by its head who asks, then path, method, permission, query, body, and then
the desk.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from chatgate.administration.desk import (
    Asked,
    Desk,
    KeyPage,
    ListQuery,
    NoBody,
    NoQuery,
    UsagePage,
    UsageQuery,
)
from chatgate.protocols import document
from chatgate.protocols.key_document import KeyToChange, KeyToMake, ShownKey
from chatgate.refusals import JSON_TYPE
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.exchange import Envelope, Identified, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatgate.administration.door import Admin, Door

PREFIX: Final = "/admin/api/v1/"

MAX_BODY_BYTES: Final = 256 << 10
"""Far more than a key with everything in it takes, as people write it."""

_MAX_PARAMETERS: Final = 20
_SAFE = frozenset({"GET", "HEAD"})
_OK, _CREATED = 200, 201

_encode = msgspec.json.Encoder().encode


class Permission(enum.StrEnum):
    """What an admin key has to be good for; each is so within its owner only, if it has one."""

    READ = "read"
    CHANGE = "change"


class Route(Struct, frozen=True):
    """An operation. `path` follows the prefix and may hold `{id}`; GET stands for HEAD too."""

    method: str
    path: str
    operation: str
    summary: str
    permission: Permission
    query: type[Struct]
    body: type[Struct]
    answer: type[Struct]
    work: Callable[[Desk, Asked], Awaitable[Struct]]
    status: int = _OK


ROUTES: Final = (
    Route(
        "GET",
        "keys",
        "listKeys",
        "List keys, oldest first",
        Permission.READ,
        ListQuery,
        NoBody,
        KeyPage,
        Desk.list_keys,
    ),
    Route(
        "POST",
        "keys",
        "createKey",
        "Make a key, and show it this once",
        Permission.CHANGE,
        NoQuery,
        KeyToMake,
        ShownKey,
        Desk.create_key,
        _CREATED,
    ),
    Route(
        "GET",
        "keys/{id}",
        "getKey",
        "Show what a key may; never the key itself",
        Permission.READ,
        NoQuery,
        NoBody,
        ShownKey,
        Desk.get_key,
    ),
    Route(
        "PATCH",
        "keys/{id}",
        "updateKey",
        "Change what a key may; a field replaces all that it said before",
        Permission.CHANGE,
        NoQuery,
        KeyToChange,
        ShownKey,
        Desk.update_key,
    ),
    Route(
        "POST",
        "keys/{id}/revoke",
        "revokeKey",
        "End a key for ever, and the calls under way with it; again changes nothing",
        Permission.CHANGE,
        NoQuery,
        NoBody,
        ShownKey,
        Desk.revoke_key,
    ),
    Route(
        "POST",
        "keys/{id}/rotate",
        "rotateKey",
        "Give a key another secret, shown this once; the old one ends at once, and again means another one again",
        Permission.CHANGE,
        NoQuery,
        NoBody,
        ShownKey,
        Desk.rotate_key,
    ),
    Route(
        "GET",
        "usage",
        "getUsageOfKeys",
        "Tell calls, tokens and cost in groups",
        Permission.READ,
        UsageQuery,
        NoBody,
        UsagePage,
        Desk.get_usage,
    ),
)


def _by_path() -> dict[tuple[str, ...], dict[str, Route]]:
    found: dict[tuple[str, ...], dict[str, Route]] = {}
    for route in ROUTES:
        methods = found.setdefault(tuple(route.path.split("/")), {})
        methods[route.method] = route
        if route.method == "GET":
            methods["HEAD"] = route
    return found


_PATHS: Final = _by_path()


class Administration:
    """Answers the admin API."""

    def __init__(self, door: Door, desk: Desk) -> None:
        """Take the parts."""
        self.door = door
        self.desk = desk

    def arrive(self, identified: Identified) -> None:
        """Judge a request by its head, before its body is collected. Raises `CallerError`."""
        envelope = identified.envelope
        admin = self.door.enter(envelope.headers, identified.caller.counted_as)
        _route_for(envelope, admin)

    async def answer(self, identified: Identified, body: bytes) -> Reply:
        """Do what is asked. Raises `GateError`."""
        envelope, caller = identified.envelope, identified.caller
        # The key is looked at again: the configuration may be another one by now.
        admin = self.door.enter(envelope.headers, caller.counted_as)
        route, key_id = _route_for(envelope, admin)
        if len(body) > MAX_BODY_BYTES:
            parameters = {"limit_bytes": MAX_BODY_BYTES}
            raise CallerError(Kind.REQUEST_TOO_LARGE, "body_too_large", parameters=parameters)
        query = _read_query(envelope.query, route.query)
        _check_body(route, envelope.headers, body)
        asked = Asked(admin, caller.address, envelope.request_id, key_id, query, body)
        return Reply(route.status, JSON_TYPE, _encode(await route.work(self.desk, asked)))


def _route_for(envelope: Envelope, admin: Admin) -> tuple[Route, str]:
    """Return the route of a request, and the key's id in its path, "" without one. Raises `CallerError`."""
    steps = envelope.path.removeprefix(PREFIX).split("/")
    key_id = ""
    if len(steps) > 1 and steps[0] == "keys" and steps[1]:
        key_id, steps[1] = steps[1], "{id}"
    methods = _PATHS.get(tuple(steps))
    if methods is None:
        raise CallerError(Kind.NOT_FOUND, "unknown_path")
    route = methods.get(envelope.method)
    if route is None:
        parameters = {"method": envelope.method, "allowed": ", ".join(methods)}
        raise CallerError(Kind.METHOD_NOT_ALLOWED, "method_not_allowed", parameters=parameters)
    if route.permission is Permission.CHANGE and not admin.may_change:
        raise CallerError(Kind.PERMISSION_DENIED, "admin_key_reads_only")
    return route, key_id


def _read_query(text: str, query: type[Struct]) -> Struct:
    """Read what stands behind the question mark. Raises `CallerError` for what is unknown, wrong or there twice."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS, errors="strict")
    except ValueError:
        raise CallerError(Kind.INVALID_VALUE, "bad_request") from None
    found = dict(pairs)
    for name in found:
        if len([other for other, _ in pairs if other == name]) > 1:
            field = name[: document.MAX_SHOWN_CHARACTERS]
            raise CallerError(Kind.INVALID_VALUE, "duplicate_field", param=field, parameters={"field": field})
    try:
        return msgspec.convert(found, query, strict=False)
    except msgspec.ValidationError as error:
        raise document.refusal_of(error) from None


def _check_body(route: Route, headers: Mapping[bytes, bytes], body: bytes) -> None:
    """Refuse a body that is not JSON by its type, and one that says something where nothing is to be said."""
    if route.method in _SAFE or (route.body is NoBody and not body):
        return
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        parameters: dict[str, Any] = {"content_type": content_type[:100]}
        raise CallerError(Kind.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", parameters=parameters)
    if route.body is NoBody:
        document.parse(body)
        try:
            msgspec.json.decode(body, type=NoBody)
        except msgspec.ValidationError as error:
            raise document.refusal_of(error) from None
