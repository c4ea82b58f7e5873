"""Precedence, sections and what the environment may say about them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from chatgate.settings import (
    LedgerSettings,
    RetrySettings,
    Settings,
    SettingsError,
    StreamSettings,
    load,
    load_from_process,
)
from chatgate.settings.keys import SECTIONS

Load = Callable[..., Settings]


def test_nothing_configured_is_a_local_gateway_with_the_contracts_defaults(load_text: Load, tmp_path: Path) -> None:
    """Without any setting the gateway listens on this machine only, for everyone, towards OpenAI."""
    settings = load_text()
    assert (settings.server.host, settings.server.port, settings.server.workers) == ("127.0.0.1", 5000, 1)
    assert (settings.server.route, settings.server.language) == ("", "en_US")
    assert settings.server.language_source == "default"
    assert settings.access.allow == ()
    assert settings.access.anonymous
    assert not any((settings.limits, settings.prices, settings.models, settings.warnings))
    timeouts = settings.timeouts
    assert (timeouts.connect_seconds, timeouts.first_token_seconds) == (5.0, 60.0)
    assert (timeouts.idle_seconds, timeouts.total_seconds) == (120.0, 1800.0)
    assert settings.retry == RetrySettings(2, "resume")
    assert settings.streams == StreamSettings("cancel", 15.0, 50)
    assert settings.hedging_share == 0.0
    assert settings.response_seconds == 0
    assert settings.drops_unsupported is False
    assert settings.continuations == {}
    assert settings.default_model is None
    assert settings.config is None
    assert settings.data == tmp_path / "home" / ".local" / "share" / "chatgate"
    assert [upstream.name for upstream in settings.upstreams] == ["openai"]


PRECEDENCE = [
    ({}, {}, "", 5000),
    ({}, {}, "[server]\nport = 1", 1),
    ({}, {"CHATGATE_SERVER__PORT": "2"}, "[server]\nport = 1", 2),
    ({}, {"CHATGATE_PORT": "3"}, "[server]\nport = 1", 3),
    ({"port": 4}, {"CHATGATE_PORT": "3"}, "[server]\nport = 1", 4),
    ({"port": None}, {"CHATGATE_PORT": "3"}, "[server]\nport = 1", 3),
    ({"port": 0}, {"CHATGATE_PORT": "3"}, "", 0),
]


@pytest.mark.parametrize(("arguments", "environ", "text", "port"), PRECEDENCE)
def test_the_stronger_source_wins(
    load_text: Load, arguments: dict[str, object], environ: dict[str, str], text: str, port: int
) -> None:
    """The command line beats the environment, which beats the file, which beats the default."""
    assert load_text(text, environ, **arguments).server.port == port


def test_own_names_beat_the_seeds_names_and_these_beat_the_file(load_text: Load) -> None:
    """`CHATGATE_SERVER__ROUTE` beats `ROUTE`, which beats the file's route."""
    text = '[server]\nroute = "file"'
    assert load_text(text).server.route == "file"
    assert load_text(text, {"ROUTE": "seed"}).server.route == "seed"
    assert load_text(text, {"ROUTE": "seed", "CHATGATE_SERVER__ROUTE": "own"}).server.route == "own"


@pytest.mark.parametrize("empty", ["", " ", "\t"])
def test_an_empty_variable_is_an_unset_one(load_text: Load, empty: str) -> None:
    """Container tools pass unset variables as empty ones: they change nothing."""
    names = (
        "API_KEY API_KEY_FILE SECOND_LIMIT MINUTE_LIMIT HOUR_LIMIT DAY_LIMIT ROUTE LANG IP_WHITELIST OPENAI_BASE_URL "
        "DEFAULT_MODEL HTTPS_PROXY ALL_PROXY NO_PROXY https_proxy CHATGATE_CONFIG CHATGATE_DATA CHATGATE_HOST "
        "CHATGATE_PORT CHATGATE_WORKERS CHATGATE_DATABASE_URL CHATGATE_REDIS_URL CHATGATE_ACCESS__ALLOW CHATGATE_TYPO"
    )
    assert load_text("", dict.fromkeys(names.split(), empty)) == load_text()


def test_every_key_of_every_section_can_be_set_by_a_variable(load_text: Load) -> None:
    """`CHATGATE_<SECTION>__<KEY>` exists for each key, lists being separated by commas."""
    given_values = {
        "CHATGATE_SERVER__HOST": "0.0.0.0",
        "CHATGATE_SERVER__PORT": " 8080 ",
        "CHATGATE_SERVER__WORKERS": "3",
        "CHATGATE_SERVER__ROUTE": "/api/",
        "CHATGATE_SERVER__LANGUAGE": "ru",
        "CHATGATE_SERVER__TRUSTED_PROXIES": "10.0.0.0/8, ::1",
        "CHATGATE_ACCESS__ALLOW": "192.0.2.1,",
        "CHATGATE_ACCESS__ANONYMOUS": "False",
        "CHATGATE_TIMEOUTS__CONNECT_SECONDS": "1",
        "CHATGATE_TIMEOUTS__FIRST_TOKEN_SECONDS": "2.5",
        "CHATGATE_TIMEOUTS__IDLE_SECONDS": "3",
        "CHATGATE_TIMEOUTS__TOTAL_SECONDS": "4e2",
        "CHATGATE_RETRY__MAX_RETRIES": "0",
        "CHATGATE_RETRY__RECOVERY": "error",
        "CHATGATE_STREAMS__ON_DISCONNECT": "drain",
        "CHATGATE_STREAMS__DRAIN_SECONDS": "2.5",
        "CHATGATE_STREAMS__DRAIN_CALLS": "7",
        "CHATGATE_LEDGER__DURABILITY": "power",
        "CHATGATE_LEDGER__RETENTION_DAYS": "90",
        "CHATGATE_HEDGING__SHARE_PERCENT": "12.5",
        "CHATGATE_RESPONSES__STORE_SECONDS": "3600",
        "CHATGATE_TRANSLATION__DROP_UNSUPPORTED": "true",
    }
    known = {f"CHATGATE_{s.upper()}__{key.upper()}" for s, table in SECTIONS.items() for key in table.__struct_fields__}
    assert set(given_values) == known
    settings = load_text("", given_values)
    assert settings.server.workers == 3
    assert (settings.server.host, settings.server.port, settings.server.route) == ("0.0.0.0", 8080, "api")
    assert (settings.server.language, settings.server.language_source) == ("ru", "CHATGATE_SERVER__LANGUAGE")
    assert settings.server.trusted_proxies == ("10.0.0.0/8", "::1")
    assert settings.access.allow == ("192.0.2.1",)
    assert not settings.access.anonymous
    assert (settings.timeouts.connect_seconds, settings.timeouts.first_token_seconds) == (1.0, 2.5)
    assert (settings.timeouts.idle_seconds, settings.timeouts.total_seconds) == (3.0, 400.0)
    assert settings.retry == RetrySettings(0, "error")
    assert settings.streams == StreamSettings("drain", 2.5, 7)
    assert settings.ledger == LedgerSettings("power", 90)
    assert settings.hedging_share == 0.125
    assert settings.response_seconds == 3600
    assert settings.drops_unsupported


def test_the_configuration_file_is_found_where_it_is_asked_for(load_text: Load, tmp_path: Path) -> None:
    """`--config` beats `CHATGATE_CONFIG`, which beats `./chatgate.toml`."""
    for name, port in (("asked.toml", 1), ("named.toml", 2), ("chatgate.toml", 3)):
        (tmp_path / name).write_text(f"[server]\nport = {port}")
    environ = {"CHATGATE_CONFIG": str(tmp_path / "named.toml")}
    assert load_text(config=tmp_path / "asked.toml", environ=environ).server.port == 1
    assert load_text(config="asked.toml", environ=environ).config == tmp_path / "asked.toml"
    assert load_text(environ=environ).server.port == 2
    assert load_text().server.port == 3
    assert load_text().config == tmp_path / "chatgate.toml"


@pytest.mark.parametrize("arguments", [{"config": "absent.toml"}, {"config": "."}])
def test_a_file_that_was_asked_for_must_be_readable(load_text: Load, arguments: dict[str, object]) -> None:
    """A missing file, or a directory, given as the configuration stops the start."""
    with pytest.raises(SettingsError, match="cannot be read"):
        load_text(**arguments)


def test_the_data_directory_is_absolute_and_per_user_by_default(load_text: Load, tmp_path: Path) -> None:
    """`--data` beats `CHATGATE_DATA`, then come XDG_DATA_HOME when absolute, and HOME."""
    environ = {"CHATGATE_DATA": "/data", "XDG_DATA_HOME": "/xdg"}
    assert load_text(environ=environ, data=Path("mine")).data == tmp_path / "mine"
    assert load_text(environ=environ).data == Path("/data")
    assert load_text(environ={"XDG_DATA_HOME": "/xdg"}).data == Path("/xdg/chatgate")
    assert load_text(environ={"XDG_DATA_HOME": "xdg"}).data == tmp_path / "home/.local/share/chatgate"


def test_a_file_in_place_of_the_data_directory_stops_the_start(load_text: Load, tmp_path: Path) -> None:
    """The data directory need not exist, but must not be a file."""
    (tmp_path / "data").write_text("")
    with pytest.raises(SettingsError, match="--data: data must be a directory"):
        load_text(data="data")


@pytest.mark.parametrize("language", ["C", "POSIX", "C.UTF-8", "c.utf8", "POSIX.UTF-8", "C@x", ""])
def test_a_locale_that_names_no_language_leaves_the_files_language(load_text: Load, language: str) -> None:
    """Images and shells set LANG=C.UTF-8, which chooses nothing."""
    settings = load_text('[server]\nlanguage = "zh_CN"', {"LANG": language})
    assert (settings.server.language, settings.server.language_source) == ("zh_CN", "chatgate.toml")


@pytest.mark.parametrize("language", ["ru_RU.UTF-8", "zh", "en_US@euro", "Klingon"])
def test_lang_is_kept_as_written(load_text: Load, language: str) -> None:
    """Which catalogue a locale means is decided elsewhere, so its name is handed on raw, with where it came from."""
    server = load_text('[server]\nlanguage = "zh_CN"', {"LANG": language}).server
    assert (server.language, server.language_source) == (language, "LANG")


def test_ip_whitelist_replaces_the_files_list(load_text: Load) -> None:
    """IP_WHITELIST is the allow list, in canonical form."""
    text = '[access]\nallow = ["192.0.2.1"]'
    assert load_text(text).access.allow == ("192.0.2.1",)
    assert load_text(text, {"IP_WHITELIST": "10.0.0.0/8, 2001:DB8::/32 ,127.0.0.1"}).access.allow == (
        "10.0.0.0/8",
        "2001:db8::/32",
        "127.0.0.1",
    )


def test_default_model_is_questioned_when_it_leads_nowhere(load_text: Load) -> None:
    """With `[[models]]`, a DEFAULT_MODEL that is none of them is accepted with a warning; demo models always exist."""
    text = '[[models]]\nname = "m"\ntargets = [{ upstream = "openai" }]'
    assert load_text(text, {"DEFAULT_MODEL": "m"}).warnings == ()
    assert load_text(text, {"DEFAULT_MODEL": "demo/echo"}).warnings == ()
    assert "DEFAULT_MODEL" in load_text(text, {"DEFAULT_MODEL": "x"}).warnings[0]
    assert "DEFAULT_MODEL" in load_text(text.replace('"m"', '"x-*"'), {"DEFAULT_MODEL": "x"}).warnings[0]
    assert load_text(text + '\naliases = ["x"]', {"DEFAULT_MODEL": "x"}).warnings == ()
    for pattern in ("*", "x*", "*-1", "x*1", "x-1*"):
        assert load_text(text.replace('"m"', f'"{pattern}"'), {"DEFAULT_MODEL": "x-1"}).warnings == ()
    assert load_text("", {"DEFAULT_MODEL": "demo/echo"}).default_model == "demo/echo"


def test_the_process_is_where_settings_come_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`load_from_process` looks at the environment and the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHATGATE_PORT", "1234")
    (tmp_path / "chatgate.toml").write_text("[retry]\nmax_retries = 7")
    settings = load_from_process({}, {})
    assert (settings.server.port, settings.retry.max_retries) == (1234, 7)


@bounded(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "API_KEY",
                "HOUR_LIMIT",
                "ROUTE",
                "LANG",
                "NO_PROXY",
                "ALL_PROXY",
                "IP_WHITELIST",
                "OPENAI_BASE_URL",
                "CHATGATE_HOST",
                "CHATGATE_PORT",
                "CHATGATE_CONFIG",
                "CHATGATE_DATA",
                "CHATGATE_ACCESS__ANONYMOUS",
                "API_KEY_FILE",
                "DEFAULT_MODEL",
            ]
        ),
        st.text(st.characters(exclude_characters="\0")),
    )
)
def test_no_environment_breaks_the_reading(environ: dict[str, str]) -> None:
    """Whatever the variables hold, the settings are either loaded or refused."""
    with contextlib.suppress(SettingsError):
        load({}, {"HOME": "/nowhere", **environ}, Path("/nowhere"), {})
