"""The house itself: locks, addresses, paths, and that the commands, the documents and CI say the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-build.txt", "requirements-model.txt")
# Written in pieces, so that this file does not hold what it looks for.
REGISTRIES = re.compile(
    r"https?://[a-z0-9.-]*(py" + r"pi|pythonhost" + r"ed|npm" + r"js|yarn" + r"pkg|deb\.debi" + r"an)[a-z.]*"
)
HOMES = re.compile(r"(?<![\w.~-])/(ro" + r"ot|ho" + r"me/\w+|Us" + r"ers/\w+|wo" + r"rk)/[\w.]")


@cache
def tree() -> dict[str, str]:
    """Return the text files of the project by path: those git tracks or would, or all where git does not know it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        made = re.compile(r"(^|/)(\.venv|node_modules|__pycache__|\.hypothesis|\.\w+_cache)(/|$)")
        paths = [path for path in ROOT.rglob("*") if not made.search(str(path.relative_to(ROOT)))]
    texts = {}
    for path in sorted(set(paths)):
        if path.is_file():
            content = path.read_bytes()
            if b"\0" not in content[:8192]:
                texts[str(path.relative_to(ROOT))] = content.decode(errors="replace")
    return texts


def pins(lock: str) -> dict[str, str]:
    """Return the version of each package a lock names."""
    lines = (ROOT / lock).read_text().splitlines()
    return {found[1]: found[2] for line in lines if (found := re.match(r"([\w.-]+)==([^\s;]+)", line))}


def dry_run(target: str) -> list[str]:
    """Return the commands a Makefile target would run, set-up included."""
    command = ["make", "--always-make", "--dry-run", "--no-print-directory", target]
    # These tests may themselves have been started by a make, whose options are not to be taken over.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_is_pinned_and_hashed(lock: str) -> None:
    """A package without a hash would be installed unchecked, so a lock holds nothing but pins, markers and hashes."""
    text = (ROOT / lock).read_text()
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[^\s;]+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry), entry


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address(lock: str) -> None:
    """Where packages come from is each machine's own setting."""
    assert not re.search(r"://|index-url|find-links|trusted-host| @ ", (ROOT / lock).read_text())


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-build.txt"])
def test_what_ships_is_what_was_tested(lock: str) -> None:
    """The image installs from its own locks, the tests from requirements-dev.txt, and the versions are the same."""
    assert pins(lock).items() <= pins("requirements-dev.txt").items()


def test_every_direct_dependency_is_locked() -> None:
    """A dependency added to pyproject.toml without `make lock` would be missing on the next fresh machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {
        "requirements.txt": project["project"]["dependencies"],
        "requirements-dev.txt": project["project"]["dependencies"] + project["dependency-groups"]["dev"],
        "requirements-build.txt": project["dependency-groups"]["build"],
        "requirements-model.txt": project["dependency-groups"]["model"],
    }
    assert set(wanted) == set(LOCKS)
    for lock, requirements in wanted.items():
        names = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements}
        assert names <= set(pins(lock)), lock


def test_node_locks_name_no_address() -> None:
    """An npm lock without `resolved` is installed from the registry each machine is set to, and checked by hash."""
    for path, text in tree().items():
        if path.endswith("package-lock.json"):
            packages = json.loads(text)["packages"]
            assert not [name for name, entry in packages.items() if "resolved" in entry], path
            assert all("integrity" in entry for name, entry in packages.items() if name), path


def test_no_file_names_a_package_registry() -> None:
    """The project is installed wherever its locks can be resolved, so no host of a registry stands in it."""
    assert [(path, found[0]) for path, text in tree().items() if (found := REGISTRIES.search(text))] == []


def test_no_file_holds_a_path_of_someones_machine() -> None:
    """What works only in one person's directory does not work."""
    assert [(path, found[0]) for path, text in tree().items() if (found := HOMES.search(text))] == []


def test_make_alone_lists_every_command() -> None:
    """Each target that is a command says in one line what it does."""
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert declared is not None
    listing = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^make (\w+) +\S", listing, re.MULTILINE)
    assert set(listed) == set(declared[1].split()) - {"new-venv"}


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """`make test` of the README is what `make check` of CI contains, command for command, and it ends CI's run."""
    assert re.search(r"\bmake test\b", tree()["README.md"]), "README.md does not name `make test`"
    commands = [line.strip() for line in tree()[".ci/run"].splitlines() if re.match(r"\s*(exec )?make ", line)]
    assert commands[-1] == "make check"
    tests, checks = dry_run("test"), dry_run("check")
    assert any("pytest" in line for line in tests)
    assert checks[-1] == tests[-1]
    assert set(tests) <= set(checks)


def test_the_readme_asks_for_no_other_set_up() -> None:
    """`make run` and `make test` prepare what they need: nobody is told to create an environment or install by hand."""
    readme = tree()["README.md"]
    assert not re.search(
        r"^ *\$? *(pip|uv|python3? -m (pip|venv)|npm) (install|ci|sync|venv|\.venv)", readme, re.MULTILINE
    )


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_the_documents_show_the_layers_that_are_checked(document: str) -> None:
    """The picture of the layers is the one import-linter enforces."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = [re.sub("[()]", "", row) for row in layers]
    assert "".join(f"    {row}\n" for row in rows) in tree()[document]


def test_the_code_map_names_every_part() -> None:
    """Each module and package of the source has its place in the map of ARCHITECTURE.md, and no other stands there."""
    parts = {path.removeprefix("src/chatgate/") for path in tree() if path.startswith("src/chatgate/")}
    parts = {re.sub("/.*", "/", part) for part in parts} - {"__init__.py", "__main__.py", "py.typed"}
    rows = re.findall(r"^\| (`.*?) \|", tree()["ARCHITECTURE.md"], re.MULTILINE)
    assert {part for row in rows for part in re.findall("`([^`]+)`", row)} == parts
