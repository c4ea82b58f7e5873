"""What is limited: the rules, and what they look at of a call.

Owns the nouns of limiting and their words; decides and remembers nothing. The settings and the keys become `Rule`s
here, the pipeline says `Facts` and a `Bound`, `limits` decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType

from msgspec import Struct

from chatgate.vocabulary.errors import Phrase
from chatgate.vocabulary.keys import KeyLimit
from chatgate.vocabulary.money import format_usd

_DAY_SECONDS = 86_400.0

WINDOW_SECONDS: Mapping[str, float] = MappingProxyType(
    {
        "second": 1.0,
        "minute": 60.0,
        "hour": 3_600.0,
        "day": _DAY_SECONDS,
        "week": 7 * _DAY_SECONDS,
        "month": 30 * _DAY_SECONDS,
    }
)
"""How long the windows are that an operator can name; they slide, so a month is thirty days."""

SCOPES = ("address", "key", "model", "upstream", "global")
"""What calls can be counted by. Several together count for each combination of them."""

REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS, TOKENS, USD, IN_FLIGHT = RESOURCES = (
    "requests",
    "input_tokens",
    "output_tokens",
    "tokens",
    "usd",
    "in_flight",
)
"""What can be limited, in the order of `Bound.amounts`."""

TOKEN_RESOURCES = frozenset({INPUT_TOKENS, OUTPUT_TOKENS, TOKENS})
RESERVED = TOKEN_RESOURCES | {USD}
"""What is not known before the call: an upper bound is reserved, and the truth settled."""

MAX_AMOUNT = 2**63 - 1


Subject = int | str | tuple[int | str, ...]
"""Whose calls are counted together: an address, the id of a key, a name, or several of them."""


class Rule(Struct, frozen=True):
    """At most `amount` of a resource in any `window_seconds`; `per` is the window's name, for messages.

    Calls are counted apart for each combination of what `scope` names; with `models`, a pattern in which `*` stands for
    any text, only calls for such models are. Money is in nano-USD. For `in_flight`, which limits calls at any one time,
    the window is 0 and `per` "".
    """

    amount: int
    window_seconds: float
    per: str
    scope: tuple[str, ...] = ("address",)
    resource: str = REQUESTS
    models: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a rule that would admit nothing, hold for no time, or count nothing known."""
        if not 1 <= self.amount <= MAX_AMOUNT or (self.window_seconds <= 0) != (self.resource == IN_FLIGHT):
            raise ValueError(f"a limit needs an amount and a window: {self.amount} per {self.window_seconds} s")
        if self.resource not in RESOURCES or not self.scope or not set(self.scope) <= set(SCOPES):
            raise ValueError(f"nothing known is limited: {self.resource} by {self.scope}")

    @property
    def phrase(self) -> Phrase:
        """Return the rule in words, as `limits` of the message `rate_limit_exceeded`."""
        if self.resource == REQUESTS:
            return Phrase(f"limit_per_{self.per}", {"amount": self.amount})
        if self.resource == IN_FLIGHT:
            return Phrase("limit_in_flight", {"amount": self.amount})
        amount = format_usd(self.amount) if self.resource == USD else self.amount
        return Phrase(f"limit_{self.resource}", {"amount": amount, "window": Phrase(f"window_{self.per}")})


Identity = tuple[tuple[str, ...], str, int, str | None]
"""What is counted, whatever the limit is: scope, resource, window and models."""

_SECOND_NS = 1_000_000_000


def identity_of(rule: Rule) -> Identity:
    """Return what a rule counts; its window is in nanoseconds."""
    return rule.scope, rule.resource, round(rule.window_seconds * _SECOND_NS), rule.models


def lowest_of(rules: Iterable[Rule]) -> dict[Identity, Rule]:
    """Return the rule that counts of those on the same: that with the lowest amount."""
    lowest: dict[Identity, Rule] = {}
    for rule in rules:
        other = lowest.get(identity := identity_of(rule))
        lowest[identity] = rule if other is None or rule.amount < other.amount else other
    return lowest


def subject_of(scope: tuple[str, ...]) -> Callable[[Facts], Subject | None]:
    """Return what reads from a call in whose name it counts; everybody's is one.

    It returns None, or a tuple with a None in it, for a call that the scope does not hold for.
    """
    names = [name for name in scope if name != "global"]
    return attrgetter(*names) if names else lambda _: ""


def matcher_of(models: str) -> Callable[[str], object]:
    """Return what tells whether a model's name matches a pattern in which `*` stands for any text."""
    return re.compile(".*".join(map(re.escape, models.split("*"))), re.DOTALL).fullmatch


def rules_of_key(limits: Sequence[KeyLimit]) -> tuple[Rule, ...]:
    """Return the rules that the limits of a key are; an amount of 0 is no limit, as everywhere.

    Raises ValueError for a limit that cannot be understood. Keep it with the key: `Limits` knows it again.
    """
    return tuple(
        [
            rule_of(limit.amount, limit.per or "", ("key",), limit.resource, limit.model)
            for limit in limits
            if limit.amount
        ]
    )


def rule_of(amount: int, per: str, scope: tuple[str, ...], resource: str, models: str | None = None) -> Rule:
    """Return the rule with a window of this name, "" for what is in flight. Raises ValueError if it makes no sense."""
    return Rule(amount, WINDOW_SECONDS.get(per, 0.0), per, scope, resource, models)


class Facts(Struct, frozen=True, gc=False):
    """What the scopes of rules look at. `address` is `Caller.counted_as`.

    `key` is the id of the gateway's key, None without one: rules by key do not hold then. `model` is its name here, one
    for all of its aliases, "" when none is asked for. `upstream` is the name of the one that is to be called next, None
    before that is known.
    """

    address: int
    key: str | None = None
    model: str = ""
    upstream: str | None = None


class Bound(Struct, frozen=True, gc=False):
    """How much a call may take at the most, or has taken. `nano_usd` is None when the model has no price."""

    input_tokens: int = 0
    output_tokens: int = 0
    nano_usd: int | None = 0

    @property
    def amounts(self) -> tuple[int, int, int, int, int | None, int]:
        """Return how much of each resource that is, in the order of `RESOURCES`."""
        tokens_in, tokens_out = self.input_tokens, self.output_tokens
        return 1, tokens_in, tokens_out, tokens_in + tokens_out, self.nano_usd, 1


NOTHING = Bound()
"""The bound of a call that no rule about tokens or money looks at."""
