"""Limits: the file's, the seed's windows over them, and what is not enforced yet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chatgate.settings import Settings, SettingsError

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


@pytest.mark.parametrize(
    ("scope", "resource", "per"),
    [
        ("key", "requests", "hour"),
        ("address", "tokens", "day"),
        ("global", "usd", "month"),
        ("address", "in_flight", None),
    ],
)
def test_a_limit_that_is_not_enforced_is_refused(load_text: Load, scope: str, resource: str, per: str | None) -> None:
    """Whoever sets a limit relies on it: what this version does not count stops the start, unless it is unlimited."""
    with pytest.raises(SettingsError, match="not enforced yet by this version") as caught:
        load_text(limit(5, per, scope, resource))
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [(1, "limits[0]")]
    assert rules(load_text(limit(0, per, scope, resource))) == []


def test_several_workers_need_limits_to_be_absent(load_text: Load) -> None:
    """Each would count for itself; a limit of 0 is none."""
    assert load_text(limit(0, "hour"), {"MINUTE_LIMIT": "0"}, workers=2).server.workers == 2
    assert rules(load_text(limit(1, "hour"), workers=1)) == [(1, "hour")]
    with pytest.raises(SettingsError, match=r"--workers: server\.workers must be 1 while there are limits"):
        load_text(limit(1, "hour"), workers=2)


def test_several_workers_need_linux(load_text: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere one of them would get all calls."""
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(SettingsError, match="only Linux"):
        load_text("", {"CHATGATE_WORKERS": "2"})
