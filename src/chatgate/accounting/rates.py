"""What tokens cost: usage by rates makes a charge, exact to the nano-dollar.

Owns the arithmetic and nothing else: where rates come from is the business of `prices`. A rate is an integer of
yocto-USD (10⁻²⁴) per token, so that a price with up to eighteen decimals per million tokens is held exactly; only the
sum of a call is rounded, once, to the nearest nano-USD.

Some providers charge a whole call by another rate when its input is long. A `Tariff` is therefore a row of `Rates`, of
which one holds for a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final

from msgspec import Struct

from chatgate.accounting.usage import Usage
from chatgate.vocabulary.money import MAX_NANO_USD

_YOCTO_PER_NANO: Final = 10**15
_HALF_A_NANO: Final = _YOCTO_PER_NANO // 2
_YOCTO_PER_USD: Final = 10**24
_TOKENS: Final = 10**6


class Rates(Struct, frozen=True, cache_hash=True, gc=False):
    """What each kind of token costs, in yocto-USD per token, and what a call costs on top, in yocto-USD.

    A kind without a price of its own has that of the tokens it is a part of.
    """

    input: int
    output: int
    cached: int
    cache_write: int
    reasoning: int
    input_audio: int
    cached_audio: int
    output_audio: int
    call: int = 0

    @classmethod
    def of(cls, usd: Mapping[str, Decimal]) -> Rates:
        """Return the rates stated by US dollars per million tokens, and per call for `call`.

        `input` must be there. A model without a price for output, as for embeddings, has no output; should it answer
        all the same, that costs what input does. Raises ValueError for a price that is negative or no number.
        """
        known = {kind: _exact(kind, price) for kind, price in usd.items()}
        sent = known["input"]
        got = known.get("output", sent)
        cached = known.get("cached", sent)
        heard = known.get("input_audio", sent)
        return cls(
            sent,
            got,
            cached,
            known.get("cache_write", sent),
            known.get("reasoning", got),
            heard,
            known.get("cached_audio", cached if "input_audio" not in known else heard),
            known.get("output_audio", got),
            known.get("call", 0),
        )

    @classmethod
    def parse(cls, text: str) -> Rates:
        """Return the rates that `text` was made of. Raises ValueError when it was not."""
        try:
            usd = {kind: Decimal(price) for kind, _, price in (word.partition("=") for word in text.split())}
            return cls.of(usd)
        except (KeyError, ArithmeticError) as error:
            raise ValueError("these are no rates") from error

    @property
    def text(self) -> str:
        """Return them as `input=0.25 output=2 cached=0.025`, to be kept with what they were charged for."""
        return _text(self)

    def charge(self, usage: Usage) -> int:
        """Return what a call costs, in nano-USD.

        A provider does not say which of the cached tokens are audio: they are taken to be text as far as there is any.
        """
        if not (
            usage.cached_input_tokens
            or usage.cache_write_tokens
            or usage.reasoning_tokens
            or usage.audio_input_tokens
            or usage.audio_output_tokens
        ):
            return _nano(self.call + usage.input_tokens * self.input + usage.output_tokens * self.output)
        text = usage.input_tokens - usage.audio_input_tokens - usage.cache_write_tokens
        cached_text = min(usage.cached_input_tokens, max(text, 0))
        cached_audio = min(usage.cached_input_tokens - cached_text, usage.audio_input_tokens)
        # Where the provider's parts overlap in some other way, what is left over is never negative.
        plain = max(text - cached_text, 0)
        yocto = (
            self.call
            + plain * self.input
            + cached_text * self.cached
            + usage.cache_write_tokens * self.cache_write
            + (usage.audio_input_tokens - cached_audio) * self.input_audio
            + cached_audio * self.cached_audio
            + (usage.output_tokens - usage.reasoning_tokens - usage.audio_output_tokens) * self.output
            + usage.reasoning_tokens * self.reasoning
            + usage.audio_output_tokens * self.output_audio
        )
        return _nano(yocto)

    def most(self, input_tokens: int, output_tokens: int, *, audio: bool) -> int:
        """Return the most that so many tokens of any kind can cost, in nano-USD."""
        sent = max(self.input, self.cached, self.cache_write)
        got = max(self.output, self.reasoning)
        if audio:
            sent = max(sent, self.input_audio, self.cached_audio)
            got = max(got, self.output_audio)
        return _nano(self.call + input_tokens * sent + output_tokens * got)


class Tariff(Struct, frozen=True, gc=False):
    """What a model costs.

    `steps` are rates and the number of input tokens above which they hold for the whole call, ascending; the first
    number is -1. `context_tokens` is what the model can keep in mind, None when that is not known.
    """

    steps: tuple[tuple[int, Rates], ...]
    context_tokens: int | None = None

    def rates(self, input_tokens: int) -> Rates:
        """Return the rates of a call with so much input."""
        for start, rates in reversed(self.steps):
            if input_tokens > start:
                return rates
        return self.steps[0][1]

    def charge(self, usage: Usage) -> int:
        """Return what a call costs, in nano-USD."""
        return self.rates(usage.input_tokens).charge(usage)

    def most(self, input_tokens: int, output_tokens: int, *, audio: bool = False) -> int:
        """Return the most that a call can cost with at most so many tokens, in nano-USD.

        `audio` says that some of them may be audio. What is in no way bounded by them is left out: fees for searches.
        """
        return max(
            rates.most(input_tokens, output_tokens, audio=audio) for start, rates in self.steps if start < input_tokens
        )


FREE: Final = Tariff(((-1, Rates(0, 0, 0, 0, 0, 0, 0, 0)),))
"""What a model costs that belongs to the gateway itself."""


def _exact(kind: str, price: Decimal) -> int:
    """Return dollars per million tokens, or per call, as yocto-USD per token or call; nearest if there is no such."""
    if not price.is_finite() or price < 0:
        raise ValueError("a price is a number of dollars, zero or more")
    return round(Fraction(price) * _YOCTO_PER_USD / (1 if kind == "call" else _TOKENS))


@lru_cache(maxsize=1024)
def _text(rates: Rates) -> str:
    words = [f"{kind}={_written(rates, kind)}" for kind in ("input", "output")]
    words += [
        f"{kind}={_written(rates, kind)}"
        for kind, usual in (
            ("cached", rates.input),
            ("cache_write", rates.input),
            ("reasoning", rates.output),
            ("input_audio", rates.input),
            ("output_audio", rates.output),
            ("call", 0),
        )
        if getattr(rates, kind) != usual
    ]
    if rates.cached_audio != (rates.cached if rates.input_audio == rates.input else rates.input_audio):
        words.append(f"cached_audio={_written(rates, 'cached_audio')}")
    return " ".join(words)


def _written(rates: Rates, kind: str) -> str:
    scale = 24 if kind == "call" else 18
    digits = f"{getattr(rates, kind):0{scale + 1}d}"
    return f"{digits[:-scale]}.{digits[-scale:]}".rstrip("0").rstrip(".")


def _nano(yocto: int) -> int:
    """Round to nano-USD; what no column could hold becomes the most that it can."""
    nano = (yocto + _HALF_A_NANO) // _YOCTO_PER_NANO
    return min(nano, MAX_NANO_USD)
