"""The Dockerfile: what it promises, and that its steps lead to a gateway that serves."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from deployment.stand_in_engine import USER_INSIDE, Stage, build, context, instructions, missing_ability

ROOT = Path(__file__).parents[2]
LACKING = missing_ability()

# Run inside the finished image: start what the image starts, wait until the image's own health check agrees, ask the
# gateway once from outside it, and stop it as an engine would. Each line printed is one finding.
_LIFE = """
health=$1; shift
touch /data/written && echo 'data: writable'
touch /chatgate/written 2>/dev/null || echo 'root: read-only'
echo "user: $(id -u)"
"$@" >/tmp/log 2>&1 &
gateway=$!
for attempt in $(seq 50); do
    if $health >/dev/null 2>&1; then echo 'health: good'; break; fi
    kill -0 $gateway || break
    sleep 0.2
done
python -c 'from urllib.request import urlopen
print("healthz:", urlopen("http://127.0.0.1:5000/healthz", timeout=5).status)' || true
kill -TERM $gateway
code=0; wait $gateway || code=$?
echo "exit: $code"
if $health >/dev/null 2>&1; then echo 'health: good when dead'; fi
cat /tmp/log
"""

# Run inside as well: ask the plain API once more than a minute allows, and print the status and body of each answer.
_FOUR_QUESTIONS = """
"$@" >/tmp/log 2>&1 &
gateway=$!
for attempt in $(seq 50); do chatgate health >/dev/null 2>&1 && break; sleep 0.2; done
python -c 'from urllib.error import HTTPError
from urllib.request import urlopen
for question in range(4):
    try:
        answer = urlopen("http://127.0.0.1:5000/api", b"model=demo/echo&user_content=%d" % question, timeout=5)
    except HTTPError as refused:
        answer = refused
    print(answer.status, answer.read().decode())' || cat /tmp/log
kill -KILL $gateway
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Build the image once, in a clean directory."""
    if LACKING is not None:
        pytest.skip(f"the Dockerfile's steps were NOT run: {LACKING}")
    directory = tmp_path_factory.mktemp("image")
    return build((ROOT / "Dockerfile").read_text(), context(ROOT, directory / "context"), directory / "stages")


def test_the_finished_image_is_made_without_running_anything_as_root() -> None:
    """The last stage only copies and sets, and names an unprivileged user by number."""
    steps = instructions((ROOT / "Dockerfile").read_text())
    last = steps[max(index for index, (word, _) in enumerate(steps) if word == "FROM") :]
    assert "RUN" not in [word for word, _ in last]
    assert ("USER", "10001:10001") in last


def test_the_image_declares_how_it_is_run(image: Stage) -> None:
    """Port, volume, stop signal, user and addresses are what compose.yaml and the documents rely on."""
    told = {word: image.declared[word] for word in ("EXPOSE", "VOLUME", "STOPSIGNAL", "USER")}
    assert told == {"EXPOSE": "5000", "VOLUME": "/data", "STOPSIGNAL": "SIGTERM", "USER": "10001:10001"}
    assert image.environment["CHATGATE_HOST"] == "0.0.0.0"
    assert image.environment["CHATGATE_DATA"] == "/data"


def test_the_image_holds_the_runtime_lock_and_no_build_tools(image: Stage) -> None:
    """What requirements.txt names is installed beside the gateway, and nothing else is."""
    listing = "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"
    installed = image.run(["/chatgate/bin/python", "-I", "-c", listing]).stdout.split()
    names = [entry.partition("==")[0].lower().replace("_", "-") for entry in installed]
    locked = [line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    # A line may be for another platform only, so what is installed is compared with the lock and not the reverse.
    assert set(names) - set(locked) == {"chatgate"}
    assert {"msgspec", "uvloop", "httptools"} <= set(names)


def test_the_container_serves_from_a_read_only_root_without_a_network(image: Stage) -> None:
    """Started as an engine would, it turns healthy, writes only to /data, and ends in good order on its stop signal."""
    health = " ".join(image.commands["HEALTHCHECK"])
    life = ["sh", "-c", _LIFE, "life", health, *image.commands["ENTRYPOINT"], *image.commands["CMD"]]
    done = image.run(life, writable="/data", network=False, timeout_seconds=60)
    findings = done.stdout.splitlines()[:6]
    expected = ["data: writable", "root: read-only", f"user: {USER_INSIDE}", "health: good", "healthz: 200", "exit: 0"]
    assert findings == expected, done.stdout + done.stderr
    assert "health: good when dead" not in done.stdout


def test_the_seeds_compose_environment_works_in_the_container(image: Stage) -> None:
    """With the very variables of the seed's compose file the API is at its route, limited, and speaks Chinese."""
    seed = {
        "API_KEY": "YourOpenAIApiKey",
        "HOUR_LIMIT": "50",
        "MINUTE_LIMIT": "3",
        "SECOND_LIMIT": "1",
        "ROUTE": "api",
        "LANG": "zh_CN",
    }
    container = dataclasses.replace(image, environment=image.environment | seed)
    ask = ["sh", "-c", _FOUR_QUESTIONS, "ask", *image.commands["ENTRYPOINT"], *image.commands["CMD"]]
    done = container.run(ask, writable="/data", network=False, timeout_seconds=60)
    answers = [line.partition(" ") for line in done.stdout.splitlines()]
    assert [answers[0][0], answers[-1][0]] == ["200", "429"], done.stdout + done.stderr
    assert json.loads(answers[0][2])["current_response"] == "0"
    assert re.search(r"[\u4e00-\u9fff]", json.loads(answers[-1][2])["data"]["response"])
