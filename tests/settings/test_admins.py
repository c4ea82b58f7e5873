"""Who may administer: where their keys come from, and that nobody sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chatgate.settings import AdminSettings, BudgetRule, Settings, SettingsError

Load = Callable[..., Settings]

KEY = "test-admin-0123456789-0123456789-01"


def test_nobody_administers_until_somebody_may(load_text: Load) -> None:
    """Without a key there is no admin API."""
    assert load_text("").admins == ()


@pytest.mark.parametrize("variable", ["CHATGATE_ADMIN_KEY", "CHATGATE_ADMIN_KEY_FILE"])
def test_one_variable_is_enough(load_text: Load, tmp_path: Path, variable: str) -> None:
    """Its key may do everything, and is a secret."""
    (tmp_path / "admin.key").write_text(f"{KEY}\n")
    settings = load_text("", {variable: KEY if variable == "CHATGATE_ADMIN_KEY" else "admin.key"})
    assert settings.admins == (AdminSettings("CHATGATE_ADMIN_KEY", KEY),)
    assert settings.secrets() == {KEY}
    assert str(settings.admins[0]) == "CHATGATE_ADMIN_KEY may change all keys"


def test_the_file_names_more_of_them(load_text: Load, tmp_path: Path) -> None:
    """Each with a key of its own, and of an owner's keys or to look only where that is said."""
    (tmp_path / "alice.key").write_text(f"{KEY}-alice\n")
    text = '[[admins]]\nname = "alice"\nkey_file = "alice.key"\nowner = "Alice A"\nmay = "read"\n'
    settings = load_text(text, {"CHATGATE_ADMIN_KEY": KEY})
    assert settings.admins[1] == AdminSettings("alice", f"{KEY}-alice", "Alice A", "read")
    assert str(settings.admins[1]) == "alice may read the keys of Alice A"
    assert settings.secrets() == {KEY, f"{KEY}-alice"}
    assert KEY not in repr(settings.admins)


def test_a_bad_key_is_refused_and_not_repeated(load_text: Load) -> None:
    """What is wrong with it is said, and not what it is."""
    with pytest.raises(SettingsError) as error:
        load_text("", {"CHATGATE_ADMIN_KEY": "not-long-enough"})
    assert "32 to 512" in str(error.value)
    assert "not-long-enough" not in str(error.value)


def test_budgets_are_those_of_the_file(load_text: Load) -> None:
    """Of owners and of all together, exact, with a warning at 80 per cent unless it says otherwise."""
    text = (
        '[[budgets]]\nscope = "owner"\nowner = "alice"\namount_usd = "0.000000001"\nper = "day"\n'
        '[[budgets]]\nscope = "global"\namount_usd = 50\nper = "ever"\nwarn_at_percent = 0\n'
    )
    settings = load_text(text)
    assert settings.budgets == (BudgetRule("owner", "alice", 1, "day"), BudgetRule("global", "", 50 * 10**9, "ever", 0))
    assert [*map(str, settings.budgets)] == ["$0.000000001 per day for the keys of alice", "$50 ever in all"]
