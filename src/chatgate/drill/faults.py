"""What a provider can do with a call: answer it, or go wrong in every way that providers do.

Each function makes a `Script`, which writes bytes by hand and may break every rule. They keep nothing between calls.
Named by the `scenarios`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from chatgate.drill import answers
from chatgate.drill.answers import WORDS
from chatgate.drill.provider import Exchange, Script
from chatgate.drill.timing import Timing

Fault: TypeAlias = Callable[[Timing], Script]
"""A script that still has to be told the pace."""

JSON: Final = "application/json"
HTML: Final = "text/html"
_DONE: Final = b"data: [DONE]\n\n"
_END: Final = b"0\r\n\r\n"
_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body>cloud</body></html>"
_REJECTED: Final = (
    "This model does not support assistant message prefill. The conversation must end with a user message."
)


def answer(words: Sequence[str] = WORDS, *, prefill: bool = True) -> Fault:
    """Answer well; without `prefill` a conversation that ends with an assistant's message is refused."""

    def at(timing: Timing) -> Script:
        async def script(exchange: Exchange) -> None:
            attempt = exchange.attempt
            said = answers.pieces(words)
            if attempt.prefill is not None:
                left = answers.left_after(attempt.prefill, words) if prefill else None
                if left is None:
                    attempt.did = "400 no prefill here"
                    await _whole(exchange, 400, answers.error(_REJECTED, "invalid_request_error", "invalid_prefill"))
                    return
                said = left
            if not attempt.stream:
                attempt.spoke = True
                await _whole(exchange, 200, answers.completion(attempt.model, said))
                return
            await _stream(exchange, answers.events(attempt.model, said, usage=attempt.usage), timing)
            await exchange.send(_framed(_DONE) + _END)

        return script

    return at


def status(number: int, message: str, code: str | None = None, wait: str | None = None) -> Fault:
    """Refuse with a status and an error in OpenAI's words; `wait` becomes Retry-After, `{wait}` the pace's own."""
    kind = "server_error" if number >= 500 else "invalid_request_error"  # noqa: PLR2004 - where faults of servers begin

    def at(timing: Timing) -> Script:
        async def script(exchange: Exchange) -> None:
            headers = {}
            if wait is not None:
                headers["Retry-After"] = wait.format(wait=timing.retry_after_seconds)
            await _whole(exchange, number, answers.error(message, kind, code), headers=headers)

        return script

    return _named(str(number), at)


def refused_key() -> Fault:
    """Refuse the key and repeat it in the message, as OpenAI does."""

    async def script(exchange: Exchange) -> None:
        message = "Incorrect API key provided: sk-drill-0-1. You can find your API key in the console."
        await _whole(exchange, 401, answers.error(message, "invalid_request_error", "invalid_api_key"))

    return _plain("401 for this key", script)


def silence() -> Fault:
    """Take the request and never answer."""
    return _plain("no answer", Exchange.hang)


def hang_up(*, reset: bool) -> Fault:
    """Take the request and end the connection."""

    async def script(exchange: Exchange) -> None:
        exchange.cut(reset=reset)

    return _plain("reset" if reset else "hung up", script)


def page(number: int) -> Fault:
    """Answer with a web page, as something on the way to the provider does."""

    async def script(exchange: Exchange) -> None:
        await _whole(exchange, number, _PAGE, kind=HTML)

    return _plain(f"{number} with a web page", script)


def body(data: bytes, kind: str = JSON) -> Fault:
    """Answer 200 with this body."""

    async def script(exchange: Exchange) -> None:
        await _whole(exchange, 200, data, kind=kind)

    return _plain(f"200 with {len(data)} wrong bytes", script)


def whole_for_stream() -> Fault:
    """Answer a call for a stream with one JSON object."""

    async def script(exchange: Exchange) -> None:
        exchange.attempt.spoke = True
        await _whole(exchange, 200, answers.completion(exchange.attempt.model, answers.pieces(WORDS)))

    return _plain("200 with JSON for a stream", script)


def slow_first_word() -> Fault:
    """Send the head, then nothing for long, then a good answer."""

    def at(timing: Timing) -> Script:
        async def script(exchange: Exchange) -> None:
            attempt = exchange.attempt
            said = answers.pieces(WORDS)
            if attempt.stream:
                await exchange.send(_STREAM_HEAD, timing.slow_seconds)
                await _events(exchange, answers.events(attempt.model, said, usage=attempt.usage), timing)
                await exchange.send(_framed(_DONE) + _END)
            else:
                data = answers.completion(attempt.model, said)
                await exchange.send(_head(200, JSON, len(data)), timing.slow_seconds)
                attempt.spoke = True
                await exchange.send(data)

        return script

    return _named("first word late", at)


def begins(count: int, then: Callable[[Exchange, Timing], Awaitable[None]], did: str) -> Fault:
    """Begin a stream well, say that many words, and then do something else."""

    def at(timing: Timing) -> Script:
        async def script(exchange: Exchange) -> None:
            said = answers.pieces(WORDS[:count])
            events = answers.events(exchange.attempt.model, said, usage=False)[:-1]
            await _stream(exchange, events, timing)
            await then(exchange, timing)

        return script

    return _named(f"{did} after {count} words", at)


async def then_cut(exchange: Exchange, _timing: Timing) -> None:
    """End the connection inside the answer."""
    exchange.cut()


async def then_reset(exchange: Exchange, _timing: Timing) -> None:
    """Reset the connection; what was sent has time to arrive."""
    await exchange.send(b"", 0.05)
    exchange.cut(reset=True)


async def then_cut_inside_a_character(exchange: Exchange, _timing: Timing) -> None:
    """Say half of an event that ends within a character of three bytes, and end the connection."""
    event = b"data: " + answers.chunk(exchange.attempt.model, {"content": " tok→"})
    half = event[: event.index("→".encode()) + 1]
    await exchange.send(b"%x\r\n%b" % (len(event) + 2, half))
    exchange.cut()


async def then_stall(exchange: Exchange, timing: Timing) -> None:
    """Say nothing for long, then end the connection."""
    await exchange.send(b"", timing.stall_seconds)
    exchange.cut()


async def then_hang(exchange: Exchange, _timing: Timing) -> None:
    """Say nothing more until the gateway leaves."""
    await exchange.hang()


async def then_end(exchange: Exchange, _timing: Timing) -> None:
    """End the body properly, though neither a finish nor `[DONE]` was said."""
    await exchange.send(_END)


async def then_error(exchange: Exchange, _timing: Timing) -> None:
    """Say an error inside the stream, and end it as if it were whole."""
    failure = answers.error("The server had an error while it was answering.")
    await exchange.send(_framed(b"data: %b\n\n" % failure) + _framed(_DONE) + _END)


async def then_malformed(exchange: Exchange, timing: Timing) -> None:
    """Say an event that is no JSON, and go on with the rest of the answer."""
    at = 10
    await exchange.send(_framed(b'data: {"id": "chatcmpl-drill", "choices": [{"delta": {"content": \n\n'))
    attempt = exchange.attempt
    rest = answers.events(attempt.model, answers.pieces(WORDS)[at:], usage=attempt.usage)[1:]
    await _events(exchange, rest, timing)
    await exchange.send(_framed(_DONE) + _END)


def error_first() -> Fault:
    """Answer 200, and say an error as the first event of the stream."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(_STREAM_HEAD)
        failure = answers.error("The engine is currently overloaded. Please try again later.", code="overloaded")
        await exchange.send(_framed(b"data: %b\n\n" % failure) + _framed(_DONE) + _END)

    return _plain("200 with an error as first event", script)


def no_done() -> Fault:
    """Answer well and leave `[DONE]` out."""

    def at(timing: Timing) -> Script:
        async def script(exchange: Exchange) -> None:
            attempt = exchange.attempt
            events = answers.events(attempt.model, answers.pieces(WORDS), usage=attempt.usage)
            await _stream(exchange, events, timing)
            await exchange.send(_END)

        return script

    return _named("no [DONE]", at)


def odd_framing() -> Fault:
    """Answer well in the oddest way that is allowed: CRLF, comments, data over two lines, a few bytes at a time."""
    bytes_at_once = 23

    def at(_timing: Timing) -> Script:
        async def script(exchange: Exchange) -> None:
            attempt = exchange.attempt
            said = answers.events(attempt.model, answers.pieces(WORDS), usage=attempt.usage)
            data = b": hello\r\n\r\n"
            for event in said:
                first, comma, rest = event.partition(b", ")
                data += b"event: message\r\ndata:%b%b\r\n: comment\r\ndata: %b\r\n\r\n" % (first, comma, rest)
            data += b"data: [DONE]\r\n\r\n"
            attempt.spoke = True
            await exchange.send(_STREAM_HEAD)
            for begin in range(0, len(data), bytes_at_once):
                await exchange.send(_framed(data[begin : begin + bytes_at_once]))
            await exchange.send(_END)

        return script

    return _named("answered in odd pieces", at)


def half_a_body(*, stall: bool) -> Fault:
    """State a length, send a part of it, and end the connection; or say nothing for long before that."""
    share = 0.6

    def at(timing: Timing) -> Script:
        async def script(exchange: Exchange) -> None:
            data = answers.completion(exchange.attempt.model, answers.pieces(WORDS))
            await exchange.send(_head(200, JSON, len(data)) + data[: int(len(data) * share)])
            if stall:
                await exchange.send(b"", timing.stall_seconds)
            exchange.cut()

        return script

    return _named("stopped inside the body" if stall else "cut inside the body", at)


_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def _named(did: str, fault: Fault) -> Fault:
    """Return the fault with its name in the log of the attempts."""

    def at(timing: Timing) -> Script:
        script = fault(timing)

        async def logged(exchange: Exchange) -> None:
            exchange.attempt.did = did
            await script(exchange)

        return logged

    return at


def _plain(did: str, script: Script) -> Fault:
    """Return a script that needs no pace as a fault."""
    return _named(did, lambda _timing: script)


async def _whole(
    exchange: Exchange, number: int, data: bytes, *, kind: str = JSON, headers: dict[str, str] | None = None
) -> None:
    await exchange.send(_head(number, kind, len(data), headers) + data)


async def _stream(exchange: Exchange, events: Sequence[bytes], timing: Timing) -> None:
    await exchange.send(_STREAM_HEAD)
    await _events(exchange, events, timing)


async def _events(exchange: Exchange, events: Sequence[bytes], timing: Timing) -> None:
    exchange.attempt.spoke = True
    for event in events:
        await exchange.send(_framed(b"data: %b\n\n" % event), timing.word_seconds)


def _head(number: int, kind: str, length: int, headers: dict[str, str] | None = None) -> bytes:
    lines = {"Content-Type": kind, "Content-Length": str(length)} | (headers or {})
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {number} Said\r\n{text}\r\n".encode()


def _framed(data: bytes) -> bytes:
    """Return the data as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
