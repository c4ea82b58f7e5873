"""The tokens of one-api and new-api as keys to be made.

Owns what a token may, and what of that a key can be held to. See https://github.com/songquanpeng/one-api at 8df4a26
(model/token.go, model/user.go, common/network/ip.go, common/config: 500 000 quota units are a dollar) and
https://github.com/QuantumNous/new-api (model/token.go). Pure.

A key is another text than the token it stands for: chatgate keeps no text of a key, and takes none that it has not
made. A budget is what is left of the token's quota, and no more than is left to its user's account; what was used is
past. A restriction that a key cannot hold makes it a disabled one, never one that may do more.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import msgspec

from chatgate.cli.importing.rows import is_set, text_of, texts_of, whole_of
from chatgate.settings.problems import printable
from chatgate.vocabulary.keys import MAX_ITEMS, MAX_NAME_CHARACTERS, InvalidField, KeyBudget, NewKey, check
from chatgate.vocabulary.money import MAX_NANO_USD, NANO_PER_USD, format_usd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chatgate.cli.importing.plan import Plan
    from chatgate.storage.foreign import Row

_QUOTA_PER_USD: Final = 500_000
_ENABLED, _EXPIRED, _EXHAUSTED = 1, 3, 4
_NEVER: Final = -1
_NO_BOUND_NANO_USD: Final = 10**8 * NANO_PER_USD
"""What both programs tell chat apps of a quota without bounds."""


def read_tokens(tables: Mapping[str, Sequence[Row]], plan: Plan, now: datetime) -> None:
    """Put a key into a plan for each token that has not ended."""
    users = {whole_of(row, "id"): row for row in tables.get("users", ()) if not text_of(row, "deleted_at")}
    quota_per_usd = _quota_per_usd(tables.get("options", ()), plan)
    shared: Counter[int] = Counter()
    for row in tables["tokens"]:
        if text_of(row, "deleted_at"):
            continue
        user = users.get(whole_of(row, "user_id"))
        token = _Token(row, user, quota_per_usd, plan)
        if user is None and "users" in tables:
            token.disable("its user is gone, and its key is disabled")
        key = token.key(now)
        if key is not None:
            plan.keys.append(key)
            shared[whole_of(row, "user_id")] += 1
    for number, keys in shared.items():
        left = _left_to(users.get(number), quota_per_usd)
        if left is not None and keys > 1:
            told = (
                f"its {keys} keys shared what is left to the account (${format_usd(left)}), and now each has a budget"
            )
            plan.lose(f"user {text_of(users[number], 'username')}", told)


def _left_to(user: Row | None, quota_per_usd: Fraction) -> int | None:
    """Return the money left to an account, None when that is without bounds, as for the first user."""
    if user is None or "quota" not in user:
        return None
    left = _nano_usd(whole_of(user, "quota"), quota_per_usd)
    return None if left >= _NO_BOUND_NANO_USD else left


def _quota_per_usd(options: Sequence[Row], plan: Plan) -> Fraction:
    """Return how many units of quota are a dollar; an operator may have changed it."""
    for row in options:
        if text_of(row, "key") == "QuotaPerUnit":
            try:
                units = Fraction(text_of(row, "value"))
            except (ValueError, ZeroDivisionError):
                units = Fraction(0)
            if units > 0:
                return units
            plan.lose("option QuotaPerUnit", f"is no number above 0; {_QUOTA_PER_USD} units are taken for a dollar")
    return Fraction(_QUOTA_PER_USD)


def _nano_usd(quota: int, quota_per_usd: Fraction) -> int:
    """Return the money that a quota is, never more than it is."""
    return min(max(int(quota * NANO_PER_USD / quota_per_usd), 0), MAX_NANO_USD)


class _Token:
    """A token on its way to a key."""

    def __init__(self, row: Row, user: Row | None, quota_per_usd: Fraction, plan: Plan) -> None:
        self._row = row
        self._user = user
        self._quota_per_usd = quota_per_usd
        self._plan = plan
        self._enabled = True
        self._called = f"token {row.get('id')} ({text_of(row, 'name') or 'no name'})"

    def disable(self, why: str) -> None:
        """Have the key open nothing, and tell why."""
        self._enabled = False
        self._lose(why)

    def key(self, now: datetime) -> NewKey | None:
        """Return the key, None when the token has ended, or is nothing that a key could be."""
        expires_at = self._end()
        status = whole_of(self._row, "status", _ENABLED)
        if status == _EXPIRED or (expires_at is not None and expires_at <= now):
            self._lose("left out: it has expired")
            return None
        if status not in {_ENABLED, _EXHAUSTED}:
            self.disable("it is disabled, and so is its key")
        if self._user is not None and whole_of(self._user, "status", _ENABLED) != _ENABLED:
            self.disable("its user is disabled, and so is its key")
        name = printable(text_of(self._row, "name"))[:MAX_NAME_CHARACTERS] or f"token-{self._row.get('id')}"
        new = NewKey(
            name,
            owner="" if self._user is None else text_of(self._user, "username"),
            expires_at=expires_at,
            allowed_models=self._models(),
            allowed_addresses=self._addresses(),
            budgets=self._budgets(),
            notes=f"made for token {self._row.get('id')} by chatgate import",
        )
        if text_of(self._row, "group"):
            self._lose(f"its group {text_of(self._row, 'group')} is not carried")
        new = msgspec.structs.replace(new, enabled=self._enabled)
        try:
            check(new)
        except InvalidField as error:
            self._lose(f"left out: its {error.field.replace('_', ' ')} cannot be kept ({error.problem})")
            return None
        return new

    def _lose(self, why: str) -> None:
        self._plan.lose(self._called, why)

    def _end(self) -> datetime | None:
        seconds = whole_of(self._row, "expired_time", _NEVER)
        if seconds == _NEVER:
            return None
        try:
            return datetime.fromtimestamp(max(seconds, 0), UTC)
        except (ValueError, OverflowError, OSError):
            # A year that no calendar has is one that nobody will see.
            return None

    def _models(self) -> tuple[str, ...]:
        if "model_limits_enabled" in self._row:
            limited, models = is_set(self._row, "model_limits_enabled"), texts_of(self._row, "model_limits", ",")
        else:
            models = texts_of(self._row, "models", ",")
            limited = bool(models)
        if not limited:
            return ()
        if not models:
            self.disable("it may use no model, and its key is disabled")
        return self._fitting(tuple(dict.fromkeys(models)), "models")

    def _addresses(self) -> tuple[str, ...]:
        """Return the networks in canonical form: the old programs take bits behind the prefix for none."""
        named = texts_of(self._row, "subnet", ",") or [
            part.strip(", ") for part in texts_of(self._row, "allow_ips", "\n") if part.strip(", ")
        ]
        networks = []
        for text in named:
            try:
                networks.append(str(ipaddress.ip_network(text.replace(" ", ""), strict=False)))
            except ValueError:
                self._lose(f"{text[:40]} is no address and no CIDR, and lets nobody in")
        if named and not networks:
            self.disable("none of its addresses can be read, and its key is disabled")
        return self._fitting(tuple(dict.fromkeys(networks)), "addresses")

    def _fitting(self, items: tuple[str, ...], what: str) -> tuple[str, ...]:
        if len(items) > MAX_ITEMS:
            self.disable(f"names {len(items)} {what}, of which a key holds the first {MAX_ITEMS}; it is disabled")
        return items[:MAX_ITEMS]

    def _budgets(self) -> tuple[KeyBudget, ...]:
        bounds = [_left_to(self._user, self._quota_per_usd)]
        if not is_set(self._row, "unlimited_quota"):
            left = 0 if whole_of(self._row, "status") == _EXHAUSTED else whole_of(self._row, "remain_quota")
            bounds.append(_nano_usd(left, self._quota_per_usd))
        known = [bound for bound in bounds if bound is not None]
        return (KeyBudget(min(known), "ever"),) if known else ()
