"""The limits: the file's `[[limits]]`, with the seed's four windows over them.

Owns what a limit may say; one that makes no sense is refused, never ignored. Called by `reading`.
"""

from __future__ import annotations

from chatgate.settings.document import Document
from chatgate.settings.entries import Item, read_items
from chatgate.settings.keys import LimitKeys, SeedKeys
from chatgate.settings.problems import Problems, nearest
from chatgate.settings.tree import LimitRule
from chatgate.vocabulary.money import MAX_NANO_USD, parse_usd

_WINDOWS = ("second", "minute", "hour", "day", "week", "month")
_SCOPES = ("address", "key", "model", "upstream", "global")
_MAX_AMOUNT = 10**12

_ADDRESS, _REQUESTS = ("address",), "requests"


def read_limits(document: Document, seed: SeedKeys, problems: Problems) -> tuple[LimitRule, ...]:
    """Return the limits without those that are unlimited.

    Those on the calls of one address come first, the shortest window first; the others are in the order of the file.
    """
    items = read_items(LimitKeys, document, ("limits",), problems)
    rules = [_read(item, problems) for item in items]
    _refuse_twins(items, rules, problems)
    amounts = {rule.per: rule.amount for rule in rules if _is_of_seed(rule)}
    asked = {
        "second": seed.SECOND_LIMIT,
        "minute": seed.MINUTE_LIMIT,
        "hour": seed.HOUR_LIMIT,
        "day": seed.DAY_LIMIT,
    }
    amounts |= {window: amount for window, amount in asked.items() if amount is not None}
    of_addresses = [LimitRule(amounts[window], window) for window in _WINDOWS if amounts.get(window)]
    return (*of_addresses, *[rule for rule in rules if rule.amount and not _is_of_seed(rule)])


def _is_of_seed(rule: LimitRule) -> bool:
    """Tell whether a rule is of the kind that the seed's variables set."""
    return (rule.scope, rule.resource) == (_ADDRESS, _REQUESTS)


def _read(item: Item[LimitKeys], problems: Problems) -> LimitRule:
    keys = item.keys
    if keys.resource == "in_flight" and keys.per is not None:
        problems.add(item.place("per"), "must be absent for in_flight")
    if keys.resource != "in_flight" and keys.per is None:
        problems.add(item.place("per"), "is missing", f"one of {', '.join(_WINDOWS)}")
    return LimitRule(_amount(item, problems), keys.per or "", _scope(item, problems), keys.resource)


def _scope(item: Item[LimitKeys], problems: Problems) -> tuple[str, ...]:
    """Return what calls are counted by, in one order however it is written."""
    parts = [part.strip() for part in item.keys.scope.split("+")]
    for part in parts:
        if part not in _SCOPES:
            rule = "must be one of address, key, model, upstream, global, or several joined by +"
            problems.add(item.place("scope"), rule, nearest(part, _SCOPES))
            break
    if len(set(parts)) < len(parts):
        problems.add(item.place("scope"), "names the same twice")
    elif "global" in parts and len(parts) > 1:
        problems.add(item.place("scope"), "joins global, which counts every call, with others", "leave it out")
    return tuple([scope for scope in _SCOPES if scope in parts])


def _amount(item: Item[LimitKeys], problems: Problems) -> int:
    """Return how much is allowed; money in nano-USD."""
    amount = item.keys.amount
    if item.keys.resource != "usd":
        if isinstance(amount, int) and 0 <= amount <= _MAX_AMOUNT:
            return amount
        problems.add(item.place("amount"), f"must be a whole number from 0 (no limit) to {_MAX_AMOUNT}, without quotes")
        return 0
    try:
        nano_usd = parse_usd(str(amount))
    except ValueError:
        nano_usd = -1
    if not 0 <= nano_usd <= MAX_NANO_USD:
        problems.add(item.place("amount"), "must be an amount of dollars from 0 (no limit), with at most nine decimals")
        return 0
    return nano_usd


def _refuse_twins(items: list[Item[LimitKeys]], rules: list[LimitRule], problems: Problems) -> None:
    seen: set[tuple[tuple[str, ...], str, str]] = set()
    for item, rule in zip(items, rules, strict=True):
        same = (rule.scope, rule.resource, rule.per)
        if same in seen:
            problems.add(item.place(), "limits the same as an earlier one", "keep one of the two")
        seen.add(same)
