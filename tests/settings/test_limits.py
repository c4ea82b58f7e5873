"""Limits: the file's, and the seed's windows over them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chatgate.settings import LimitRule, Settings, SettingsError

Load = Callable[..., Settings]


def limit(amount: int, per: str | None, scope: str = "address", resource: str = "requests") -> str:
    """Return an item of `[[limits]]`."""
    window = "" if per is None else f'per = "{per}"\n'
    return f'[[limits]]\nscope = "{scope}"\nresource = "{resource}"\namount = {amount}\n{window}'


def rules(settings: Settings) -> list[tuple[int, str]]:
    """Return the limits as pairs."""
    return [(rule.amount, rule.per) for rule in settings.limits]


def test_limits_come_out_shortest_window_first(load_text: Load) -> None:
    """Every window that a limit may have is kept, in the order of length."""
    text = "".join(limit(n, per) for n, per in enumerate(["month", "day", "second", "week", "hour", "minute"], 1))
    assert rules(load_text(text)) == [(3, "second"), (6, "minute"), (5, "hour"), (2, "day"), (4, "week"), (1, "month")]


def test_a_seeds_window_replaces_the_files_limit_of_that_window_only(load_text: Load) -> None:
    """HOUR_LIMIT replaces the hour's limit, SECOND_LIMIT adds one, the day's stays."""
    text = limit(50, "hour") + limit(100, "day")
    assert rules(load_text(text, {"HOUR_LIMIT": "7", "SECOND_LIMIT": "1"})) == [
        (1, "second"),
        (7, "hour"),
        (100, "day"),
    ]


def test_zero_means_unlimited(load_text: Load) -> None:
    """An amount of 0 drops the limit, in the file and in a variable, where it lifts the file's."""
    assert rules(load_text(limit(0, "hour"))) == []
    assert rules(load_text(limit(50, "hour") + limit(9, "day"), {"HOUR_LIMIT": "0"})) == [(9, "day")]
    assert rules(load_text("", {"MINUTE_LIMIT": "0", "DAY_LIMIT": "5"})) == [(5, "day")]


@pytest.mark.parametrize("resource", ["requests", "input_tokens", "output_tokens", "tokens", "usd"])
@pytest.mark.parametrize("scope", ["address", "key", "model", "upstream", "global", "key+model", "address+key+model"])
def test_anything_can_be_limited_by_anything(load_text: Load, scope: str, resource: str) -> None:
    """Every scope, alone or with others, goes with every resource; an amount of 0 is no limit."""
    expected = LimitRule(5 * 10**9 if resource == "usd" else 5, "week", tuple(scope.split("+")), resource)
    assert load_text(limit(5, "week", scope, resource)).limits == (expected,)
    assert load_text(limit(0, "week", scope, resource)).limits == ()


def test_calls_in_flight_have_no_window(load_text: Load) -> None:
    """They are limited at every moment."""
    assert load_text(limit(4, None, "key", "in_flight")).limits == (LimitRule(4, "", ("key",), "in_flight"),)


@pytest.mark.parametrize(
    ("amount", "nano_usd"), [('"0.50"', 500_000_000), ('"3"', 3 * 10**9), ("3", 3 * 10**9), ('"0.000000001"', 1)]
)
def test_money_is_exact(load_text: Load, amount: str, nano_usd: int) -> None:
    """Dollars are decimals in quotes or whole numbers, and become nano-USD."""
    text = f'[[limits]]\nscope = "key"\nresource = "usd"\namount = {amount}\nper = "day"\n'
    assert [rule.amount for rule in load_text(text).limits] == [nano_usd]


def test_those_of_addresses_come_first(load_text: Load) -> None:
    """The others stay in the order of the file; the seed's variables replace none of them."""
    text = limit(9, "hour", "key") + limit(7, "hour") + limit(8, "minute", "address", "tokens") + limit(6, "second")
    found = load_text(text, {"HOUR_LIMIT": "5", "MINUTE_LIMIT": "4"}).limits
    assert [(rule.amount, rule.per, rule.scope, rule.resource) for rule in found] == [
        (6, "second", ("address",), "requests"),
        (4, "minute", ("address",), "requests"),
        (5, "hour", ("address",), "requests"),
        (9, "hour", ("key",), "requests"),
        (8, "minute", ("address",), "tokens"),
    ]


def test_a_scope_reads_the_same_in_any_order(load_text: Load) -> None:
    """What is counted by model and key is counted by key and model, so a second limit on it is one too many."""
    with pytest.raises(SettingsError, match="the same as an earlier one"):
        load_text(limit(1, "hour", "key+model") + limit(2, "hour", "model + key"))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (LimitRule(50, "hour"), "50 requests per hour for each address"),
        (
            LimitRule(500, "minute", ("key", "model"), "input_tokens"),
            "500 input tokens per minute for each key and model",
        ),
        (LimitRule(2_500_000_000, "day", ("global",), "usd"), "$2.5 per day in all"),
        (LimitRule(4, "", ("key",), "in_flight"), "4 calls at once for each key"),
    ],
)
def test_limits_can_be_read(rule: LimitRule, text: str) -> None:
    """A limit is told to the operator in words."""
    assert str(rule) == text


def test_several_workers_need_linux(load_text: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere one of them would get all calls."""
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(SettingsError, match="only Linux"):
        load_text("", {"CHATGATE_WORKERS": "2"})
