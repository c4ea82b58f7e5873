"""How many tokens a call took, from the best source there is.

Owns the precedence: the provider's final numbers; those it told on the way; a count of what was sent and got; an
estimate from bytes. The source stays with the numbers. Numbers that cannot be counts are refused, and what was wrong
with them is told. Knows no prices. Asked by whoever settles a call.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec
from msgspec import Struct

from chatgate.vocabulary import chat
from chatgate.vocabulary.chat import MAX_TOKENS

BYTES_PER_TOKEN: Final = 4
"""What an estimate takes for a token: about four characters of English, or one and a third of Chinese."""

UNKNOWN_OUTPUT_CAP: Final = 128_000
"""What a call is taken to answer at most when neither it nor its model says so."""


class Source(enum.StrEnum):
    """Where a number comes from, best first."""

    FINAL = "final"
    """The provider's last word."""
    PARTIAL = "partial"
    """What the provider said before the answer broke off."""
    COUNTED = "counted"
    """A count of what was sent or got."""
    ESTIMATED = "estimated"
    """Bytes."""


_ORDER = tuple(Source)


class Usage(Struct, frozen=True, array_like=True, gc=False):
    """Tokens of a call.

    `input_tokens` and `output_tokens` are all of them; the others are parts of these: `cached_input_tokens` (read from
    the provider's cache), `cache_write_tokens` and `audio_input_tokens` of the input, `reasoning_tokens` and
    `audio_output_tokens` of the output. `source` is where the less certain of the two sums comes from.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    source: Source = Source.FINAL


class Flaw(enum.StrEnum):
    """What is wrong with a provider's number."""

    UNREADABLE = "unreadable"
    """Not an object of numbers, or a number that is no whole one."""
    NEGATIVE = "negative"
    TOO_LARGE = "too_large"
    PART_EXCEEDS_WHOLE = "part_exceeds_whole"


class Reported(Struct, frozen=True, gc=False):
    """What a provider reported: None for a sum that it did not name or that is no count; parts fit their sums."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0

    def usage(self) -> Usage | None:
        """Return the call's tokens if this is all that is to be said of them, None when a sum is missing."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return Usage(
            self.input_tokens,
            self.output_tokens,
            self.cached_input_tokens,
            self.cache_write_tokens,
            self.reasoning_tokens,
            self.audio_input_tokens,
            self.audio_output_tokens,
        )


class _Counts(chat.UsageParts, frozen=True, gc=False):
    """A usage object, with one of its sums or with none."""

    prompt_tokens: chat.Count | None = None
    completion_tokens: chat.Count | None = None


_decode_counts = msgspec.json.Decoder(_Counts | None).decode
_decode_any = msgspec.json.Decoder().decode
_NO_INPUT_DETAILS = chat.InputDetails()
_NO_OUTPUT_DETAILS = chat.OutputDetails()


def final_usage(said: chat.Usage | bytes | msgspec.Raw) -> tuple[Usage | None, tuple[str, ...]]:
    """Return a call's tokens by a provider's last word, None when a sum is missing, and what was wrong with it."""
    # Nearly always all of it fits, and stands where OpenAI has it.
    if type(said) is chat.Usage and said.cached_tokens is None and said.prompt_cache_hit_tokens is None:
        inputs, outputs = said.prompt_tokens_details, said.completion_tokens_details
        if inputs is None and outputs is None:
            return Usage(said.input_tokens, said.output_tokens), ()
        usage = _usage_with(said, inputs or _NO_INPUT_DETAILS, outputs or _NO_OUTPUT_DETAILS)
        if usage is not None:
            return usage, ()
    reported, flaws = read_usage(said)
    return None if reported is None else reported.usage(), flaws


def _usage_with(said: chat.Usage, inputs: chat.InputDetails, outputs: chat.OutputDetails) -> Usage | None:
    """Return the tokens of a usage object with its details, None when these take a closer look."""
    sent, answered = said.input_tokens, said.output_tokens
    cached, written, heard = inputs.cached_tokens or 0, inputs.cache_write_tokens or 0, inputs.audio_tokens or 0
    reasoning, spoken = outputs.reasoning_tokens or 0, outputs.audio_tokens or 0
    if cached + written > sent or heard + written > sent or reasoning + spoken > answered:
        return None
    if reasoning and said.total_tokens == sent + answered + reasoning:
        return None
    return Usage(sent, answered, cached, written, reasoning, heard, spoken)


def read_usage(said: chat.Usage | bytes | msgspec.Raw) -> tuple[Reported | None, tuple[str, ...]]:
    """Read a usage object; return what can be used of it, and what was wrong with the rest (`prompt_tokens:negative`).

    None when it says nothing. Explicit zeros are counts.
    """
    flaws: list[str] = []
    if isinstance(said, chat.Usage) and not isinstance(said, chat.OddUsage):
        return _reported(said.input_tokens, said.output_tokens, said, flaws), tuple(flaws)
    raw = said.raw if isinstance(said, chat.OddUsage) else said
    try:
        counts = _decode_counts(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        counts = _salvaged(raw, flaws)
    if counts is None:
        return None, tuple(flaws)
    return _reported(counts.prompt_tokens, counts.completion_tokens, counts, flaws), tuple(flaws)


def _reported(sent: int | None, answered: int | None, counts: chat.UsageParts, flaws: list[str]) -> Reported | None:
    if sent is None and answered is None:
        return None
    inputs = counts.prompt_tokens_details or _NO_INPUT_DETAILS
    outputs = counts.completion_tokens_details or _NO_OUTPUT_DETAILS
    reasoning = outputs.reasoning_tokens or 0
    if reasoning and None not in (sent, answered) and counts.total_tokens == (sent or 0) + (answered or 0) + reasoning:
        # xAI counts reasoning beside the completion and not in it, as its total shows.
        answered = (answered or 0) + reasoning
    cached = inputs.cached_tokens
    if cached is None:
        cached = counts.prompt_cache_hit_tokens
    if cached is None:
        cached = counts.cached_tokens or 0
    written = inputs.cache_write_tokens or 0
    if not (cached or written or reasoning or inputs.audio_tokens or outputs.audio_tokens):
        return Reported(sent, answered)
    if cached + written > (sent or 0):
        flaws.append(f"cached_input_tokens:{Flaw.PART_EXCEEDS_WHOLE}")
        cached = written = 0
    heard = _part(inputs.audio_tokens, sent, "audio_input_tokens", flaws)
    said = _part(outputs.audio_tokens, answered, "audio_output_tokens", flaws)
    if heard + written > (sent or 0):
        flaws.append(f"audio_input_tokens:{Flaw.PART_EXCEEDS_WHOLE}")
        heard = 0
    reasoning = _part(reasoning, answered, "reasoning_tokens", flaws)
    if reasoning + said > (answered or 0):
        flaws.append(f"audio_output_tokens:{Flaw.PART_EXCEEDS_WHOLE}")
        said = 0
    return Reported(sent, answered, cached, written, reasoning, heard, said)


def _part(part: int | None, whole: int | None, name: str, flaws: list[str]) -> int:
    """Return a part that fits its sum, 0 for one that does not."""
    if not part:
        return 0
    if part > (whole or 0):
        flaws.append(f"{name}:{Flaw.PART_EXCEEDS_WHOLE}")
        return 0
    return part


def _salvaged(raw: bytes | msgspec.Raw, flaws: list[str]) -> _Counts | None:
    """Take the counts out of an object that holds something else as well."""
    try:
        said = _decode_any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    if not isinstance(said, dict):
        flaws.append(f"usage:{Flaw.UNREADABLE}")
        return None
    inputs, outputs = said.get("prompt_tokens_details"), said.get("completion_tokens_details")
    return _Counts(
        prompt_tokens=_count(said, "prompt_tokens", flaws),
        completion_tokens=_count(said, "completion_tokens", flaws),
        total_tokens=_count(said, "total_tokens", flaws),
        cached_tokens=_count(said, "cached_tokens", flaws),
        prompt_cache_hit_tokens=_count(said, "prompt_cache_hit_tokens", flaws),
        prompt_tokens_details=chat.InputDetails(
            *(_count(inputs, name, flaws) for name in chat.InputDetails.__struct_fields__)
        ),
        completion_tokens_details=chat.OutputDetails(
            *(_count(outputs, name, flaws) for name in chat.OutputDetails.__struct_fields__)
        ),
    )


def _count(said: Any, name: str, flaws: list[str]) -> int | None:  # noqa: ANN401 - JSON may be anything
    """Return a field's count; None, and a flaw, when it holds something else."""
    value = said.get(name) if isinstance(said, dict) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        flaws.append(f"{name}:{Flaw.UNREADABLE}")
    elif value < 0:
        flaws.append(f"{name}:{Flaw.NEGATIVE}")
    elif value > MAX_TOKENS:
        flaws.append(f"{name}:{Flaw.TOO_LARGE}")
    else:
        return int(value)
    return None


class Meter:
    """What is known so far of a call's tokens; one for each attempt that gives an answer.

    `flaws` are what was wrong with the provider's numbers, each once.
    """

    __slots__ = ("_final", "_seen", "flaws")

    def __init__(self) -> None:
        """Know nothing."""
        self._final: Reported | None = None
        self._seen: Reported | None = None
        self.flaws: tuple[str, ...] = ()

    def take(self, said: chat.Usage | bytes | msgspec.Raw, *, final: bool) -> None:
        """Take a usage object of the answer; `final` when the answer is whole, or only usage can follow.

        Of several the last one counts: they are running totals.
        """
        reported, flaws = read_usage(said)
        if flaws:
            self.flaws = tuple(dict.fromkeys(self.flaws + flaws))
        if reported is not None and final:
            self._final = reported
        elif reported is not None:
            self._seen = reported

    def usage(
        self,
        sent_bytes: int,
        got_bytes: int,
        counted_input_tokens: int | None = None,
        counted_output_tokens: int | None = None,
    ) -> Usage:
        """Return the call's tokens.

        `sent_bytes` and `got_bytes` are of the text that was sent and of what the model produced, error texts left
        out; the counts are of the same texts, None when nobody counted. What a provider said on the way is never more
        than a lower bound of the output, so a higher count of what came after goes before it.
        """
        final, seen = self._final or _NOTHING, self._seen or _NOTHING
        sent, inputs, sent_source = _best(
            (final.input_tokens, final, Source.FINAL),
            (seen.input_tokens, seen, Source.PARTIAL),
            (counted_input_tokens, _NOTHING, Source.COUNTED),
            (_estimate(sent_bytes), _NOTHING, Source.ESTIMATED),
        )
        counted = (counted_output_tokens, _NOTHING, Source.COUNTED)
        runs_on = (counted_output_tokens or 0) > (seen.output_tokens or 0)
        got, outputs, got_source = _best(
            (final.output_tokens, final, Source.FINAL),
            counted if runs_on else (seen.output_tokens, seen, Source.PARTIAL),
            counted,
            (_estimate(got_bytes), _NOTHING, Source.ESTIMATED),
        )
        return Usage(
            sent,
            got,
            inputs.cached_input_tokens,
            inputs.cache_write_tokens,
            outputs.reasoning_tokens,
            inputs.audio_input_tokens,
            outputs.audio_output_tokens,
            max(sent_source, got_source, key=_ORDER.index),
        )


_NOTHING = Reported()


def _best(*known: tuple[int | None, Reported, Source]) -> tuple[int, Reported, Source]:
    """Return the first sum that is there, with the report whose parts fit it."""
    return next((count, told, source) for count, told, source in known if count is not None)


def _estimate(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_TOKEN)


def most_input_tokens(body_bytes: int) -> int:
    """Return what a request of this size can count at most, as long as it refers to nothing outside itself.

    A token stands for at least one byte, and what a model's template adds to a message is less than the JSON around it.
    """
    return body_bytes


def most_output_tokens(asked_tokens: int | None, context_tokens: int | None, choices: int = 1) -> int:
    """Return what a call can answer at most.

    `asked_tokens` is the caller's own limit for each of its `choices`, None without one: then it is all that the
    model can keep in mind, None when that is not known.
    """
    return choices * (asked_tokens or context_tokens or UNKNOWN_OUTPUT_CAP)
