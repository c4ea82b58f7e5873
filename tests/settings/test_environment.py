"""Names of variables: the known ones, the unknown ones, those of Kubernetes, and secrets kept in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chatgate.settings import Settings, SettingsError

Load = Callable[..., Settings]

KUBERNETES = {
    "CHATGATE_PORT": "tcp://10.96.0.12:5000",
    "CHATGATE_SERVICE_HOST": "10.96.0.12",
    "CHATGATE_SERVICE_PORT": "5000",
    "CHATGATE_SERVICE_PORT_HTTP": "5000",
    "CHATGATE_PORT_5000_TCP": "tcp://10.96.0.12:5000",
    "CHATGATE_PORT_5000_TCP_ADDR": "10.96.0.12",
    "CHATGATE_PORT_5000_TCP_PORT": "5000",
    "CHATGATE_PORT_5000_TCP_PROTO": "tcp",
    "CHATGATE_PORT_53_UDP": "udp://10.96.0.12:53",
    "CHATGATE_REDIS_PORT": "tcp://10.96.0.13:6379",
    "CHATGATE_REDIS_SERVICE_HOST": "10.96.0.13",
    "CHATGATE_REDIS_PORT_6379_TCP_ADDR": "10.96.0.13",
}


def test_what_kubernetes_injects_is_ignored(load_text: Load) -> None:
    """A service named chatgate puts a dozen variables into every pod; none of them is a setting."""
    assert load_text("", KUBERNETES) == load_text()


def test_variables_of_the_terminal_client_are_ignored(load_text: Load) -> None:
    """CHATGATE_URL and CHATGATE_KEY belong to `chatgate chat`, and other programs' variables to them."""
    environ = {"CHATGATE_URL": "http://x", "CHATGATE_KEY": "sk-test-chat", "PATH": "/bin", "CHAT_X": "1"}
    assert load_text("", environ) == load_text()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CHATGATE_PROT", "CHATGATE_PORT"),
        ("CHATGATE_SERVER__RUOTE", "CHATGATE_SERVER__ROUTE"),
        ("CHATGATE_SERVER_ROUTE", "CHATGATE_SERVER__ROUTE"),
        ("CHATGATE_DATABASE", "CHATGATE_DATABASE_URL"),
        ("CHATGATE_CONFIG_FILE", "CHATGATE_CONFIG"),
    ],
)
def test_an_unknown_variable_of_ours_is_a_slip(load_text: Load, name: str, hint: str) -> None:
    """A `CHATGATE_*` name that means nothing stops the start and names the one that was meant."""
    with pytest.raises(SettingsError) as caught:
        load_text("", {name: "sk-test-secret"})
    (problem,) = caught.value.problems
    assert (problem.source, problem.line) == (name, None)
    assert hint in problem.hint
    assert "sk-test-secret" not in caught.value.render()


def test_a_secret_may_come_from_a_file(load_text: Load, tmp_path: Path) -> None:
    """API_KEY_FILE names a file with the key; blanks and line ends around it do not count."""
    (tmp_path / "key").write_text(" sk-test-file \n")
    for path in ("key", str(tmp_path / "key")):
        settings = load_text("", {"API_KEY_FILE": path})
        assert settings.upstreams[0].api_key == "sk-test-file"
        assert settings.secrets() == {"sk-test-file"}


def test_a_proxy_with_a_password_may_come_from_a_file(load_text: Load, tmp_path: Path) -> None:
    """Every secret has a `_FILE` variant, the proxies' passwords too."""
    (tmp_path / "proxy").write_text("http://u:pw-test@proxy:3128")
    settings = load_text("", {"HTTPS_PROXY_FILE": "proxy"})
    assert settings.upstreams[0].origin.proxy == "http://u:pw-test@proxy:3128"
    assert settings.secrets() == {"pw-test"}


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_secret_file_that_holds_no_secret_stops_the_start(
    load_text: Load, tmp_path: Path, content: bytes | None
) -> None:
    """A missing, empty or binary file is refused, and its path not repeated: it may be the key itself."""
    if content is not None:
        (tmp_path / "sk-test-path").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_text("", {"API_KEY_FILE": "sk-test-path"})
    (problem,) = caught.value.problems
    assert (problem.source, problem.key) == ("API_KEY_FILE", "upstreams[0].api_key")
    assert "sk-test-path" not in caught.value.render()


def test_a_secret_and_its_file_exclude_each_other(load_text: Load, tmp_path: Path) -> None:
    """API_KEY beside API_KEY_FILE is refused: nobody could tell which one is meant."""
    (tmp_path / "key").write_text("sk-test-file")
    with pytest.raises(SettingsError, match="together with API_KEY"):
        load_text("", {"API_KEY": "sk-test-direct", "API_KEY_FILE": "key"})


def test_both_spellings_of_one_key_exclude_each_other(load_text: Load) -> None:
    """CHATGATE_PORT and CHATGATE_SERVER__PORT are the same key, so both at once is one problem."""
    with pytest.raises(SettingsError) as caught:
        load_text("", {"CHATGATE_PORT": "1", "CHATGATE_SERVER__PORT": "1"})
    assert [problem.source for problem in caught.value.problems] == ["CHATGATE_SERVER__PORT"]


@pytest.mark.parametrize("name", ["IP_WHITELIST", "CHATGATE_ACCESS__ALLOW", "CHATGATE_SERVER__TRUSTED_PROXIES"])
def test_a_list_of_nothing_but_commas_is_refused_once(load_text: Load, name: str) -> None:
    """An allow list that a slip has emptied must not let everyone in."""
    with pytest.raises(SettingsError) as caught:
        load_text("", {name: " , ,"})
    (problem,) = caught.value.problems
    assert (problem.source, problem.problem) == (name, "holds nothing but commas")
