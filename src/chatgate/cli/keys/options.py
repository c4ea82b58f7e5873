"""What people write after the options of `chatgate keys`: limits, budgets, dates and lists, read exactly.

Owns their spelling. Nothing is guessed, and nothing that may have become empty by a slip takes a restriction off: that
needs its word (`all`, `none`, `never`). Everything here raises `click.BadParameter`, which is wrong usage: exit 2.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import UNSET

from chatgate.admission.addresses import parse_network
from chatgate.i18n import LANGUAGES
from chatgate.vocabulary.keys import MAX_COUNT, KeyBudget, KeyLimit
from chatgate.vocabulary.money import MAX_NANO_USD, parse_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Command = TypeVar("Command", bound="Callable[..., object]")

RESOURCES = ("requests", "input_tokens", "output_tokens", "tokens", "usd", "in_flight")
WINDOWS = ("second", "minute", "hour", "day", "week", "month")
PERIODS = ("day", "week", "month", "ever")

_LIMIT = re.compile(
    r"(?P<resource>[a-z_-]+)=(?P<amount>[0-9.]+)(?:/(?P<per>[a-z]+))?(?::(?P<model>.+))?", re.IGNORECASE
)
_SPAN = re.compile(r"([0-9]{1,5})([hdw])")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SPAN_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def _reading(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback that reads an option's texts; `read` raises ValueError with a sentence about a text."""

    def callback(ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...] | None) -> object:
        try:
            if isinstance(value, tuple):
                return tuple(read(text.strip()) for text in value)
            return UNSET if value is None else read(value.strip())
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def read_limit(text: str) -> KeyLimit | None:
    """Read `requests=100/minute`, `in_flight=4` or, for some models only, `tokens=5000/day:gpt-*`; None is `none`."""
    if text == "none":
        return None
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} does not look like requests=100/minute, in_flight=4 or tokens=5000/day:gpt-*")
    resource = _one_of(RESOURCES, found["resource"])
    if resource == "in_flight":
        if found["per"] is not None:
            raise ValueError("in_flight is how many calls at once and has no window: write in_flight=4")
        per = None
    elif found["per"] is None:
        raise ValueError(f"{text!r} needs a window: {resource}={found['amount']}/minute")
    else:
        per = _one_of(WINDOWS, found["per"])
    amount = read_usd(found["amount"]) if resource == "usd" else _count(found["amount"])
    return KeyLimit(resource, amount, per, found["model"])


def read_usd(text: str) -> int:
    """Read an amount of dollars above 0 and return nano-USD."""
    try:
        nano_usd = parse_usd(text)
    except ValueError:
        raise ValueError(f"{text!r} is no amount of dollars such as 5 or 0.25") from None
    if not 0 < nano_usd <= MAX_NANO_USD:
        raise ValueError(f"{text!r} must be above 0 and below {MAX_NANO_USD // 10**9} dollars")
    return nano_usd


def read_budget(text: str) -> int | None:
    """Read a budget's dollars; None is `none`."""
    return None if text == "none" else read_usd(text)


def read_models(text: str) -> tuple[str, ...]:
    """Read names and patterns with commas between; `all` is every model, which is the empty tuple."""
    models = _items(text)
    if "all" in models and len(models) > 1:
        raise ValueError("'all' cannot stand beside other models")
    return () if models == ("all",) else models


def read_addresses(text: str) -> tuple[str, ...]:
    """Read addresses and CIDRs with commas between; `all` is every address, which is the empty tuple."""
    addresses = _items(text)
    if addresses == ("all",):
        return ()
    for address in addresses:
        parse_network(address)
    return addresses


def read_end(text: str, now: datetime) -> datetime | None:
    """Read when a key ends: `30d`, `12h`, `2w`, a date, which is the last day in UTC, a time, or `never` (None)."""
    if text == "never":
        return None
    span = _SPAN.fullmatch(text)
    if span is not None and int(span[1]):
        return now.replace(microsecond=0) + int(span[1]) * _SPAN_UNITS[span[2]]
    try:
        end = datetime.fromisoformat(text if _DAY.match(text) else "")
        if _DAY.fullmatch(text):
            end += timedelta(days=1)
        end = end.replace(tzinfo=UTC) if end.tzinfo is None else end.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is none of 30d, 12h, 2w, 2026-12-31, 2026-12-31T18:00+02:00, never") from None
    if end <= now:
        raise ValueError(f"{text!r} is in the past")
    return end


def fields_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a key that the options of `key_options` speak of; what was not given is left out."""
    fields = {name: options[name] for name in ("owner", "notes") if options[name] is not None}
    if options["limit"]:
        fields["limits"] = limits_of(options["limit"])
    if options["budget_usd"] or options["per"] or options["warn_at"] is not None:
        fields["budgets"] = budgets_of(options["budget_usd"], options["per"], options["warn_at"])
    if options["models"]:
        fields["allowed_models"] = all_of(options["models"], "--models")
    if options["allow"]:
        fields["allowed_addresses"] = all_of(options["allow"], "--allow")
    if options["expires"] is not UNSET:
        fields["expires_at"] = options["expires"]
    if options["language"] is not None:
        fields["language"] = None if options["language"] == "none" else options["language"]
    return fields


_KEY_OPTIONS = (
    click.option("--owner", metavar="TEXT", help="Whose it is; '' for nobody's."),
    click.option(
        "--budget-usd",
        metavar="AMOUNT",
        callback=_reading(read_budget),
        multiple=True,
        help="Money it may spend per month, or see --per; none for no budget.",
    ),
    click.option(
        "--per", type=click.Choice(PERIODS), multiple=True, help="Period of the budget; a month if not given."
    ),
    click.option(
        "--warn-at", type=click.IntRange(1, 100), metavar="PERCENT", help="Warn from so much of the budget on."
    ),
    click.option(
        "--limit",
        metavar="LIMIT",
        callback=_reading(read_limit),
        multiple=True,
        help="requests=100/minute, in_flight=4, tokens=5000/day:gpt-*; may be given again; none for no limit.",
    ),
    click.option(
        "--models",
        metavar="NAMES",
        callback=_reading(read_models),
        multiple=True,
        help="Models it may ask for, such as 'gpt-*,demo/*'; or all.",
    ),
    click.option(
        "--allow",
        metavar="CIDR",
        callback=_reading(read_addresses),
        multiple=True,
        help="Addresses and CIDRs it may be used from; or all.",
    ),
    click.option(
        "--expires",
        metavar="WHEN",
        callback=_reading(lambda text: read_end(text, datetime.now(UTC))),
        help="30d, 12h, 2w, 2026-12-31 (the last day, UTC), a time, or never.",
    ),
    click.option("--language", type=click.Choice([*LANGUAGES, "none"]), help="Language of its messages."),
    click.option("--notes", metavar="TEXT", help="Whatever you want to remember."),
)


def key_options(command: Command) -> Command:
    """Give a command the options that say what a key may; `fields_of` reads them."""
    for option in reversed(_KEY_OPTIONS):
        command = option(command)
    return command


def all_of(texts: Sequence[tuple[str, ...]], option: str) -> tuple[str, ...]:
    """Put together what an option that was given several times lists; each item once."""
    if len(texts) > 1 and () in texts:
        raise click.BadParameter("'all' cannot stand beside others", param_hint=option)
    return tuple(dict.fromkeys(item for items in texts for item in items))


def limits_of(limits: Sequence[KeyLimit | None]) -> tuple[KeyLimit, ...]:
    """Return the limits of a key; `none` stands alone, and no two limit the same."""
    if limits == (None,):
        return ()
    found = [limit for limit in limits if limit is not None]
    if len(found) < len(limits):
        raise click.BadParameter("'none' cannot stand beside limits", param_hint="--limit")
    twin = _twin((limit.resource, limit.per, limit.model) for limit in found)
    if twin is not None:
        raise click.BadParameter(f"{twin[0]} is limited twice in the same way", param_hint="--limit")
    return tuple(found)


def budgets_of(amounts: Sequence[int | None], pers: Sequence[str], warn_at: int | None) -> tuple[KeyBudget, ...]:
    """Return the budgets of a key: each amount with its `--per`, in order; a single one is per month."""
    if amounts == (None,) and not pers and warn_at is None:
        return ()
    found = [amount for amount in amounts if amount is not None]
    if len(found) < len(amounts):
        raise click.BadParameter("'none' cannot stand beside other amounts or --per", param_hint="--budget-usd")
    if not found:
        raise click.UsageError("--per and --warn-at belong to a budget: add --budget-usd")
    if len(found) == 1 and not pers:
        pers = ("month",)
    if len(pers) != len(found):
        raise click.UsageError("several budgets need as many --per, in the same order")
    twin = _twin(zip(pers, strict=True))
    if twin is not None:
        raise click.BadParameter(f"there are two budgets per {twin[0]}", param_hint="--per")
    return tuple(KeyBudget(amount, per, warn_at) for amount, per in zip(found, pers, strict=True))


def _items(text: str) -> tuple[str, ...]:
    items = tuple(item.strip() for item in text.split(","))
    if not all(items):
        raise ValueError(f"{text!r} has an empty item; 'all' stands for no restriction")
    return items


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MAX_COUNT:
        raise ValueError(f"{text!r} is no whole number from 1 to {MAX_COUNT}")
    return int(text)


def _one_of(words: Sequence[str], asked: str) -> str:
    word = asked.lower().replace("-", "_")
    if word in words:
        return word
    near = difflib.get_close_matches(word, words, n=1)
    raise ValueError(f"{asked!r} is none of {', '.join(words)}{f'; did you mean {near[0]}?' if near else ''}")


def _twin(items: Iterable[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    seen: set[tuple[Any, ...]] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None
