"""Which tariff a model has: the operator's, else the catalogue's, else none.

Owns the precedence and remembers what was found. No tariff means that the price is unknown, which is never the same as
free: whoever has to charge by money refuses the call. Asked once per call, before anything is held.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Final, Protocol

from chatgate.accounting.rates import FREE, Rates, Tariff
from chatgate.settings.tree import Price
from chatgate.vocabulary.upstreams import Origin

_REMEMBERED: Final = 4096
"""Answers that are remembered; callers choose the names of models, so there must be an end to it."""

_MINUTE_SECONDS: Final = 60

OWN_PROVIDER: Final = "demo"
"""The gateway itself as a provider: what it answers costs nothing, unless the operator states a price."""

_Question = tuple[str, str, str, str, str]


class Finder(Protocol):
    """Where prices that the operator did not state are found."""

    def find(self, model: str, provider: str, base_url: str, at: datetime, service_tier: str) -> Tariff | None:
        """Return what a model costs at a time, None when that is not known."""


class PriceList:
    """The tariffs of all models."""

    def __init__(self, stated: Iterable[Price], catalogue: Finder) -> None:
        """`stated` are the operator's prices: they hold for every kind of token and go before any other."""
        self._stated = {
            price.model: Rates.of({"input": price.input_usd_per_million, "output": price.output_usd_per_million})
            for price in stated
        }
        self._catalogue = catalogue
        self._minute = -1
        self._found: dict[_Question, Tariff | None] = {}

    def tariff(
        self,
        sent_model: str,
        at: datetime,
        *,
        asked_model: str = "",
        provider: str = "",
        base_url: str = "",
        service_tier: str = "",
    ) -> Tariff | None:
        """Return what a call costs, None when that is not known.

        The operator may state a price for the model that is sent or, failing that, for the name that was asked for.
        The catalogue knows models by the name that is sent; for the rest see `Catalogue.find`. `at` is aware: some
        prices change with the date or the hour.
        """
        minute = int(at.timestamp()) // _MINUTE_SECONDS
        if minute != self._minute or len(self._found) >= _REMEMBERED:
            self._minute = minute
            self._found.clear()
        question = (sent_model, asked_model, provider, base_url, service_tier)
        try:
            return self._found[question]
        except KeyError:
            tariff = self._found[question] = self._look_up(question, at)
            return tariff

    def _look_up(self, question: _Question, at: datetime) -> Tariff | None:
        sent_model, asked_model, provider, base_url, service_tier = question
        if provider == OWN_PROVIDER:
            known: Tariff | None = FREE
        else:
            known = self._catalogue.find(sent_model, provider, base_url, at, service_tier)
        rates = self._stated.get(sent_model) or self._stated.get(asked_model)
        if rates is None:
            return known
        return Tariff(((-1, rates),), None if known is None else known.context_tokens)


@lru_cache(maxsize=1024)
def base_url(origin: Origin, base_path: str) -> str:
    """Return the address that a provider is known by: `https://api.example.com/v1`, without a usual port."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    port = "" if (origin.scheme, origin.port) in {("http", 80), ("https", 443)} else f":{origin.port}"
    return f"{origin.scheme}://{host}{port}{base_path}"
