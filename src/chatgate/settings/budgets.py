"""The budgets of owners and of everybody: the file's `[[budgets]]`. Those of keys are kept with the keys.

Owns what a budget may say; one that makes no sense is refused, never ignored. Called by `reading`.
"""

from __future__ import annotations

from chatgate.settings.document import Document
from chatgate.settings.entries import Item, read_items
from chatgate.settings.keys import BudgetKeys
from chatgate.settings.problems import Problems
from chatgate.settings.tree import BudgetRule
from chatgate.vocabulary.keys import InvalidField, KeyChanges, check
from chatgate.vocabulary.money import MAX_NANO_USD, parse_usd


def read_budgets(document: Document, problems: Problems) -> tuple[BudgetRule, ...]:
    """Return them in the order of the file."""
    found: list[BudgetRule] = []
    for item in read_items(BudgetKeys, document, ("budgets",), problems):
        keys = item.keys
        _check_owner(item, problems)
        budget = BudgetRule(keys.scope, keys.owner or "", _amount(item, problems), keys.per, keys.warn_at_percent)
        if any((each.scope, each.owner, each.per) == (budget.scope, budget.owner, budget.per) for each in found):
            problems.add(item.place(), "is for the same and per the same as an earlier one", "keep one of the two")
        found.append(budget)
    return tuple(found)


def _check_owner(item: Item[BudgetKeys], problems: Problems) -> None:
    owner = item.keys.owner
    if item.keys.scope == "global":
        if owner is not None:
            problems.add(item.place("owner"), "must be absent for global", 'it goes with scope = "owner"')
        return
    if not owner:
        problems.add(item.place("owner"), "is missing", "the owner of keys, as chatgate keys list shows it")
        return
    try:
        check(KeyChanges(owner=owner))
    except InvalidField:
        problems.add(item.place("owner"), "is nothing that an owner of keys can be called")


def _amount(item: Item[BudgetKeys], problems: Problems) -> int:
    """Return the amount in nano-USD."""
    try:
        nano_usd = parse_usd(str(item.keys.amount_usd))
    except ValueError:
        nano_usd = 0
    if not 0 < nano_usd <= MAX_NANO_USD:
        problems.add(item.place("amount_usd"), "must be an amount of dollars above 0, with at most nine decimals")
    return nano_usd
