"""One vendor tried with the operator's key, step by step: is it reached, does it take the key, does it answer.

Each step is told as soon as it is done. A list of models that is missing stops nothing, since not every vendor has one;
a vendor that is not reached or that refuses the key does. The key is in no text that leaves here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from chatgate.cli.columns import padded
from chatgate.cli.providers.trouble import hint_of
from chatgate.protocols import openai_chat, openai_errors
from chatgate.protocols.openai_stream import OpenAIRelay
from chatgate.providers import failures
from chatgate.providers.translating import TranslatingSender, read_models, translations
from chatgate.settings import without_credentials
from chatgate.telemetry.redaction import Redaction
from chatgate.vocabulary.chat import Asked, ChatCall, Message
from chatgate.vocabulary.errors import GateError, Kind, UpstreamError
from chatgate.vocabulary.upstreams import Target, Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.cli.speaking import Speaker
    from chatgate.providers.requests import Requests
    from chatgate.vocabulary.exchange import Answer, OutboundRequest, Sender

TIMEOUTS = Timeouts(connect_seconds=10.0, first_token_seconds=60.0, idle_seconds=30.0, total_seconds=120.0)
"""How long each step may take: longer than in the gateway, since an operator waits for the reason."""

MAX_BYTES = 8 << 20
MAX_TOKENS = 64
"""Enough for a word after some thoughts, and next to nothing in money."""

_OK = 200
_NO_LIST = frozenset({404, 405, 501})
_NO_CHATS = ("embed", "rerank", "whisper", "tts", "audio", "image", "dall-e", "moderation", "ocr", "speech", "video")
_SHOWN_CHARACTERS = 60
_STEP_CELLS, _VERDICT_CELLS = 9, 11


class _Stopped(Exception):  # noqa: N818 - it ends a trial, after its reason was told
    """Nothing further makes sense."""


class Trial:
    """One trial. `model` is asked; None for the vendor's own small one, or the first of its list that may be a chat."""

    def __init__(
        self,
        requests: Requests,
        sender: Sender,
        say: Speaker,
        tell: Callable[[str], None],
        clock: Callable[[], float],
        *,
        model: str | None,
        small_model: str | None,
    ) -> None:
        """Take the parts; `tell` gets each line, and `clock` is monotonic, in seconds."""
        self._requests = requests
        self._upstream = requests.upstream
        self._sender = sender
        self._translation = translations(time.time, drops_parts=False).get(self._upstream.protocol)
        self._asking = sender if self._translation is None else TranslatingSender(sender, self._translation)
        self._say = say
        self._tell = tell
        self._clock = clock
        self._model = model
        self._small_model = small_model
        self._redaction = Redaction(self._upstream.api_keys)

    async def run(self) -> bool:
        """Try; return whether a chat and a stream came back."""
        try:
            names = await self._reach()
            model = self._choose(names)
            return all([await self._chat(model), await self._stream(model)])
        except _Stopped:
            return False

    async def _reach(self) -> list[str]:
        """Ask for the list of models: that shows whether the vendor is reached and, mostly, whether the key is good."""
        upstream, began = self._upstream, self._clock()
        origin = upstream.origin
        way = self._say("trial_through", proxy=without_credentials(origin.proxy)) if origin.proxy else ""
        where = f"{origin!r}{upstream.base_path}{way}"
        try:
            answer = await self._sender.send(self._requests.models(upstream.api_key, TIMEOUTS))
        except UpstreamError as error:
            self._fail("trial_reach", error, where)
            raise _Stopped from error
        self._well("trial_reach", where, began)
        try:
            body = await answer.read(MAX_BYTES)
        except UpstreamError:
            body = b""
        finally:
            answer.close()
        if answer.status == _OK:
            return self._listed(body, began)
        refusal = self._refusal(answer, body, self._model or "")
        if answer.status in _NO_LIST or refusal.kind in {Kind.UPSTREAM_ERROR, Kind.INVALID_VALUE}:
            self._unsure("trial_models", self._say("trial_no_list", status=answer.status))
            return []
        self._fail("trial_key", refusal)
        raise _Stopped

    def _listed(self, body: bytes, began: float) -> list[str]:
        self._well("trial_key", self._say("trial_key_shown" if self._upstream.api_key else "trial_key_none"))
        try:
            names = [str(each["id"]) for each in read_models(self._upstream.protocol, body)]
        except UpstreamError:
            self._unsure("trial_models", self._say("trial_no_list", status=_OK))
            return []
        self._well("trial_models", self._say("trial_listed", count=len(names), some=", ".join(names[:3])), began)
        if self._model and names and self._model not in names:
            self._unsure("trial_models", self._say("trial_not_listed", model=self._model))
        return names

    def _choose(self, names: list[str]) -> str:
        chats = [name for name in names if not any(word in name.lower() for word in _NO_CHATS)]
        model = self._model or self._small_model or next(iter(chats), None)
        if model is None:
            self._tell(self._line("trial_chat", "trial_failed", self._say("trial_name_a_model")))
            raise _Stopped
        return model

    async def _chat(self, model: str) -> bool:
        """Ask one tiny question."""
        began = self._clock()
        try:
            body = await self._ask(model, stream=False)
            said = openai_chat.read_answer(body)
        except GateError as error:
            self._fail("trial_chat", self._understood(error, model), model)
            return False
        usage = said.usage
        tokens = self._say("trial_tokens", count=usage.output_tokens) if usage else self._say("trial_no_usage")
        self._well("trial_chat", f"{model}: {self._shown(said.text[:_SHOWN_CHARACTERS])}, {tokens}", began)
        return True

    async def _stream(self, model: str) -> bool:
        """Ask it again, streamed, and read it to its end mark."""
        began, relay, events = self._clock(), OpenAIRelay(hide_usage=False), 0
        try:
            answer = await self._send(self._request(model, stream=True))
            try:
                if answer.status != _OK:
                    raise self._refusal(answer, await answer.read(MAX_BYTES), model)
                while not relay.is_over and (chunk := await answer.next_chunk()):
                    events += relay.feed(chunk).count(b"\n\n")
                relay.end()
                if relay.error is not None:
                    raise relay.error
            finally:
                answer.close()
        except GateError as error:
            self._fail("trial_stream", self._understood(error, model), model)
            return False
        counted = "" if relay.usage else ", " + self._say("trial_no_usage")
        self._well("trial_stream", self._say("trial_events", count=events) + counted, began)
        return True

    async def _ask(self, model: str, *, stream: bool) -> bytes:
        answer = await self._send(self._request(model, stream=stream))
        try:
            body = await answer.read(MAX_BYTES)
        finally:
            answer.close()
        if answer.status != _OK:
            raise self._refusal(answer, body, model)
        return body

    def _request(self, model: str, *, stream: bool) -> OutboundRequest:
        chat = ChatCall(model, stream, messages=(Message("user", "Say hello."),), max_tokens=MAX_TOKENS)
        target, key = Target(self._upstream, model), self._upstream.api_key
        if self._translation is None:
            return self._requests.chat(openai_chat.encode_request(chat, target), key)
        written = self._translation.write(Asked(chat), {}, target, None, passes=False)
        return written.onto(self._requests.chat(written.body, key, path=written.path))

    async def _send(self, request: OutboundRequest) -> Answer:
        return await self._asking.send(request)

    def _refusal(self, answer: Answer, body: bytes, model: str) -> GateError:
        said = openai_errors.read_error(body)
        error = failures.failure_of(
            answer.status,
            message=said.message,
            code=said.code,
            kind=said.kind,
            param=said.param,
            retry_after_seconds=None,
            model=model,
            own_key=False,
            classes=self._upstream.failures,
        )
        error.provider_message = said.message or self._say("trial_status", status=answer.status)
        return error

    def _understood(self, error: GateError, model: str) -> GateError:
        if isinstance(error, UpstreamError) and error.reason == "upstream_error_event":
            return failures.failure_in_answer(error, model=model, own_key=False, classes=self._upstream.failures)
        return error

    def _well(self, step: str, what: str, began: float | None = None) -> None:
        took = "" if began is None else f" ({round(1000 * (self._clock() - began))} ms)"
        self._tell(self._line(step, "trial_ok", what + took))

    def _unsure(self, step: str, what: str) -> None:
        self._tell(self._line(step, "trial_unsure", what))

    def _fail(self, step: str, error: GateError, what: str = "") -> None:
        """Tell of a failure: what was tried, what was said, and what helps."""
        said = error.provider_message or str(error.__cause__ or "") or self._say(error.reason)
        self._tell(self._line(step, "trial_failed", f"{what}: {self._shown(said)}" if what else self._shown(said)))
        hint = hint_of(error, self._upstream.origin)
        if hint is not None:
            self._tell(" " * (_STEP_CELLS + _VERDICT_CELLS) + self._say(hint))

    def _line(self, step: str, verdict: str, what: str) -> str:
        return padded(self._say(step), _STEP_CELLS) + padded(self._say(verdict), _VERDICT_CELLS) + what

    def _shown(self, text: str) -> str:
        """Return a text of the vendor's without line ends, controls and secrets, cut to a line."""
        plain = " ".join("".join(each if each.isprintable() else " " for each in text).split())
        safe = self._redaction.text(plain, *self._upstream.api_keys)
        return safe if len(safe) <= 4 * _SHOWN_CHARACTERS else safe[: 4 * _SHOWN_CHARACTERS] + "…"
