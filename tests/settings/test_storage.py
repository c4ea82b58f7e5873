"""The URLs of the stores, and the pepper: where they come from, what they may be, and that they are kept secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chatgate.settings import Settings, SettingsError
from chatgate.storage.database import read_url
from chatgate.storage.pepper import parse
from chatgate.vocabulary.stores import RedisAddress

Load = Callable[..., Settings]

PEPPER = "test-pepper-0123456789-0123456789"
FORMER = "test-former-pepper-0123456789-0123456789"

URLS = [
    "postgresql://u:pw-test@db/x",
    "postgres://u:pw-test@[::1]:5432/x?sslmode=require",
    "postgresql+psycopg://u@db/x?password=pw-test",
    "postgresql:///x",
    "postgresql://db/x",
    "postgresql://u:p%2Fw-t%40est@db/x",
    "sqlite:////data/a@b/chatgate.db",
    "sqlite:///beside.db",
]


def test_without_the_variables_there_is_none(load_text: Load) -> None:
    """The database is then a file in the data directory, and the pepper is kept there too; counters stay here."""
    settings = load_text("")
    assert (settings.database_url, settings.redis, settings.pepper) == (None, None, None)


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_is_taken_is_one_that_the_storage_takes(load_text: Load, tmp_path: Path, url: str) -> None:
    """As a variable and from a file."""
    (tmp_path / "url").write_text(f"{url}\n")
    for environ in ({"CHATGATE_DATABASE_URL": url}, {"CHATGATE_DATABASE_URL_FILE": "url"}):
        assert load_text("", environ).database_url == url
    assert read_url(url).database


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        (URLS[0], {"pw-test"}),
        (URLS[1], {"pw-test"}),
        (URLS[2], {"pw-test"}),
        (URLS[3], set()),
        (URLS[5], {"p%2Fw-t%40est", "p/w-t@est"}),
        (URLS[6], set()),
    ],
)
def test_the_password_in_a_url_is_a_secret(load_text: Load, url: str, secrets: set[str]) -> None:
    """As it is written and as it is meant; the rest of the URL is none."""
    settings = load_text("", {"CHATGATE_DATABASE_URL": url})
    assert settings.secrets() == secrets
    assert "pw-test" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "pw-test",
        "/data/pw-test.db",
        "mysql://u:pw-test@db/x",
        "postgresql://u:pw-test@db",
        "postgresql://u:pw-test@db/",
        "postgresql://u:pw-test@db/?x=y",
        "postgresql://u:pw-test@db/x\x1b[2J",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///pw-test?mode=ro",
    ],
)
def test_what_is_no_url_of_a_database_is_refused(load_text: Load, url: str) -> None:
    """The start is stopped, with an example, and nothing of the value is shown."""
    with pytest.raises(SettingsError) as caught:
        load_text("", {"CHATGATE_DATABASE_URL": url})
    (problem,) = caught.value.problems
    assert (problem.source, problem.problem) == (
        "CHATGATE_DATABASE_URL",
        "must be the URL of a PostgreSQL or SQLite database",
    )
    assert "postgresql://" in problem.hint
    assert "pw-test" not in caught.value.render()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://db", RedisAddress("db", 6379)),
        ("redis://127.0.0.1:6380/2", RedisAddress("127.0.0.1", 6380, db=2)),
        ("rediss://[::1]/", RedisAddress("::1", 6379, tls=True)),
        ("redis://:pw-test@db", RedisAddress("db", 6379, password="pw-test")),
        ("redis://anna:p%2Fw-t%40est@db/1", RedisAddress("db", 6379, user="anna", password="p/w-t@est", db=1)),
        ("unix:///run/redis.sock?db=3", RedisAddress("", 0, "/run/redis.sock", db=3)),
    ],
)
def test_the_url_of_redis(load_text: Load, tmp_path: Path, url: str, address: RedisAddress) -> None:
    """As a variable and from a file; its password is a secret as it is written and as it is meant."""
    (tmp_path / "url").write_text(f"{url}\n")
    for environ in ({"CHATGATE_REDIS_URL": url}, {"CHATGATE_REDIS_URL_FILE": "url"}):
        settings = load_text("", environ)
        assert settings.redis == address
        assert address.password is None or address.password in settings.secrets()
        assert not any(secret in str(address) + repr(address) + repr(settings) for secret in settings.secrets())


def test_the_password_of_redis_is_a_secret_as_it_is_written(load_text: Load) -> None:
    """Logs may show it either way."""
    settings = load_text("", {"CHATGATE_REDIS_URL": "redis://anna:p%2Fw-t%40est@db/1"})
    assert settings.secrets() == {"p%2Fw-t%40est", "p/w-t@est"}
    assert load_text("", {"CHATGATE_REDIS_URL": "redis://db/1"}).secrets() == set()


@pytest.mark.parametrize(
    "url",
    [
        "pw-test",
        "http://u:pw-test@db/0",
        "redis://",
        "redis://u:pw-test@",
        "redis://u:pw-test@db:99999",
        "redis://u:pw-test@db/first",
        "redis://u:pw-test@db/0?db=1&ssl=pw-test",
        "redis://u:pw-test@db/0\x1b[2J",
        "unix://u:pw-test@host/run/redis.sock",
        "unix://",
    ],
)
def test_what_is_no_url_of_redis_is_refused(load_text: Load, url: str) -> None:
    """The start is stopped, with an example, and nothing of the value is shown."""
    with pytest.raises(SettingsError) as caught:
        load_text("", {"CHATGATE_REDIS_URL": url})
    (problem,) = caught.value.problems
    assert (problem.source, problem.problem) == (
        "CHATGATE_REDIS_URL",
        "must be the URL of a Redis or Valkey server",
    )
    assert "redis://" in problem.hint
    assert "pw-test" not in caught.value.render()


@pytest.mark.parametrize(("database", "warnings"), [(None, 1), ("sqlite:////data/x.db", 1), (URLS[0], 0)])
def test_redis_beside_sqlite_is_worth_a_warning(load_text: Load, database: str | None, warnings: int) -> None:
    """Machines that count together need one ledger."""
    environ = {"CHATGATE_REDIS_URL": "redis://db", **({"CHATGATE_DATABASE_URL": database} if database else {})}
    assert len(load_text("", environ).warnings) == warnings


def test_a_pepper_may_be_given_and_be_followed_by_former_ones(load_text: Load, tmp_path: Path) -> None:
    """As a variable and from a file; the storage reads the same peppers out of it, and each is a secret."""
    (tmp_path / "pepper").write_text(f"{PEPPER}\n\n {FORMER}\n")
    settings = load_text("", {"CHATGATE_PEPPER_FILE": "pepper"})
    assert settings.pepper is not None
    assert parse(settings.pepper) == (PEPPER.encode(), FORMER.encode())
    assert settings.secrets() == {PEPPER, FORMER}
    assert PEPPER not in repr(settings)
    assert load_text("", {"CHATGATE_PEPPER": PEPPER}).pepper == PEPPER


@pytest.mark.parametrize("pepper", ["too-short-a-pepper", f"{PEPPER}\nshort", f"{PEPPER}\x1b", f"{PEPPER}\udcff"])
def test_a_pepper_that_protects_nothing_is_refused(load_text: Load, pepper: str) -> None:
    """A short or unprintable one stops the start, and is not shown."""
    with pytest.raises(SettingsError) as caught:
        load_text("", {"CHATGATE_PEPPER": pepper})
    (problem,) = caught.value.problems
    assert (problem.source, problem.key) == ("CHATGATE_PEPPER", "CHATGATE_PEPPER")
    assert pepper.rsplit(maxsplit=1)[-1] not in caught.value.render()
