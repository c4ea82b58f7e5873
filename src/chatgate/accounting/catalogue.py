"""The prices that genai-prices carries, as tariffs.

Reads the data inside the package and nothing else: no network, no thread, no cache that callers could fill. Loading it
takes about a sixth of a second and 12 to 30 MiB, most of both for libraries it brings along, so it is loaded when it is
first needed, by whoever has a thread for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Final

from chatgate.accounting.rates import Rates, Tariff

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_KINDS: Final = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached",
    "cache_write_mtok": "cache_write",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "input_audio",
    "cache_audio_read_mtok": "cached_audio",
    "output_audio_mtok": "output_audio",
}
"""The prices per million tokens that a chat can be charged by, as genai-prices and as `Rates` call them."""

_CALLS_PER_PRICE: Final = 1000


class Catalogue:
    """Finds a model's tariff."""

    def load(self) -> None:
        """Read the data now; later calls find it there."""
        _ = self._providers

    @cached_property
    def _providers(self) -> list[Provider]:
        from genai_prices.data import providers  # noqa: PLC0415 - the import is what costs

        return providers

    def find(self, model: str, provider: str, base_url: str, at: datetime, service_tier: str) -> Tariff | None:
        """Return what a model costs at a time; None when nobody knows.

        A provider is known by its address, else by its name. What is known of it counts alone, since the same model
        costs something else elsewhere; at an unknown one a model costs what its maker takes. `service_tier` is as in
        OpenAI's protocol, "" for the usual one.
        """
        found = self._provider(provider, base_url) or self._maker(model)
        info = None if found is None else found.find_model(model, all_providers=self._providers)
        if info is None or not info.prices:
            return None
        context = {"service_tier": service_tier} if service_tier else None
        return _tariff(info, info.get_prices(at, context))

    def _provider(self, name: str, base_url: str) -> Provider | None:
        for provider in self._providers:
            if base_url and re.match(provider.api_pattern, base_url):
                return provider
        return next((provider for provider in self._providers if provider.id == name), None)

    def _maker(self, model: str) -> Provider | None:
        return next(
            (
                provider
                for provider in self._providers
                if provider.model_match is not None and provider.model_match.is_match(model.lower())
            ),
            None,
        )


def _tariff(info: ModelInfo, price: ModelPrice) -> Tariff | None:
    """Return a model's tariff; None when it is not priced by tokens, or those of pictures have a price of their own.

    What was counted does not tell the two apart.
    """
    if price.input_mtok is None or price.input_image_mtok is not None or price.output_image_mtok is not None:
        return None
    starts = sorted({-1, *(start for name in _KINDS for start in _starts(price, name))})
    return Tariff(tuple((start, _rates(price, start)) for start in starts), info.context_window)


def _starts(price: ModelPrice, name: str) -> Iterator[int]:
    """Yield the numbers of input tokens above which another price holds."""
    value = getattr(price, name)
    if value is not None and not isinstance(value, Decimal):
        yield from (tier.start for tier in value.tiers)


def _rates(price: ModelPrice, start: int) -> Rates:
    """Return the rates above so many input tokens."""
    usd: dict[str, Decimal] = {}
    for name, kind in _KINDS.items():
        value = getattr(price, name)
        if isinstance(value, Decimal):
            usd[kind] = value
        elif value is not None:
            usd[kind] = next((tier.price for tier in reversed(value.tiers) if start >= tier.start), value.base)
    if isinstance(price.requests_kcount, Decimal):
        usd["call"] = price.requests_kcount / _CALLS_PER_PRICE
    return Rates.of(usd)
