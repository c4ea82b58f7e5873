"""compose.yaml and .env.example: the seed's variables, and a container that may do little."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.stand_in_engine import instructions

ROOT = Path(__file__).parents[2]
SEED_VARIABLES = {"API_KEY", "SECOND_LIMIT", "MINUTE_LIMIT", "HOUR_LIMIT", "DAY_LIMIT", "ROUTE", "LANG", "IP_WHITELIST"}


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    """Return the one service."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    (only,) = services.values()
    assert isinstance(only, dict)
    return only


def test_it_is_published_and_restarted_as_the_seed_was(service: dict[str, Any]) -> None:
    """An operator of the seed finds the port and the restart policy unchanged."""
    assert service["ports"] == ["5000:5000"]
    assert service["restart"] == "always"


def test_the_seeds_environment_can_be_uncommented_in_place() -> None:
    """Each variable of the seed's compose file stands there as a comment that is valid once its # is removed."""
    text = re.sub(r"^( +)# ([A-Z_]+: )", r"\1\2", (ROOT / "compose.yaml").read_text(), flags=re.MULTILINE)
    environment = yaml.safe_load(text)["services"]["chatgate"]["environment"]
    assert environment == {
        "CHATGATE_HOST": "0.0.0.0",
        "API_KEY": "YourOpenAIApiKey",
        "HOUR_LIMIT": 50,
        "MINUTE_LIMIT": 3,
        "SECOND_LIMIT": 1,
        "ROUTE": "api",
        "LANG": "zh_CN",
    }


def test_it_sets_no_variable_that_env_file_could_not_override(service: dict[str, Any]) -> None:
    """What compose.yaml sets wins over .env, so it sets nothing an operator chooses, and starts without a .env."""
    assert set(service["environment"]) == {"CHATGATE_HOST"}
    assert service["env_file"] == [{"path": ".env", "required": False}]


def test_env_example_sets_nothing_and_names_every_variable_of_the_seed() -> None:
    """Copied as it is it changes nothing; each of its lines becomes a setting when its # is removed."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert all(not line or line.startswith("#") for line in lines)
    assignments = [found for line in lines if (found := re.fullmatch(r"#([A-Z_]+)=(\S+)", line))]
    assert {found[1] for found in assignments} >= SEED_VARIABLES


def test_the_container_may_do_little(service: dict[str, Any]) -> None:
    """Its root is read-only, it has no capabilities and can gain none, and only /data and /tmp are written."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]
    assert [volume.partition(":")[2] for volume in service["volumes"]] == ["/data"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "user"} & set(service)


def test_its_health_check_is_the_images(service: dict[str, Any]) -> None:
    """Engines that drop an image's own health check find the same one here."""
    (declared,) = (rest for word, rest in instructions((ROOT / "Dockerfile").read_text()) if word == "HEALTHCHECK")
    options, _, command = declared.partition(" CMD ")
    check = service["healthcheck"]
    assert check["test"] == ["CMD", *yaml.safe_load(command)]
    assert dict(option[2:].split("=") for option in options.split()) == {
        "interval": check["interval"],
        "timeout": check["timeout"],
        "start-period": check["start_period"],
        "retries": str(check["retries"]),
    }
