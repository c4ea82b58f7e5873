"""Carry out a Dockerfile where there is no container engine.

Owns the reading of a Dockerfile and the running of its steps, in order, each in a root directory of its own that is
entered through a mount namespace: paths are the real ones, the machine's own Debian and Python stand in for the base
image, and every RUN is made by an unprivileged user, which is stricter than an engine would be. It knows the
instructions our Dockerfile uses and refuses any other. It must not be mistaken for an engine: there are no layers, no
cache, no volumes, and no base image. Called by `test_dockerfile.py` only.

The instructions are those of the Dockerfile reference, https://docs.docker.com/reference/dockerfile/ (read 2026-11-23).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

_UNPRIVILEGED = 10001
_AS_ROOT = os.geteuid() == 0
# Who runs the steps, as seen from inside: someone unprivileged who makes a namespace is called 0 in it, and is no more.
USER_INSIDE = _UNPRIVILEGED if _AS_ROOT else 0
# What of the machine stands in for the base image. The user who runs the steps may write to none of it.
_BASE_DIRECTORIES = ("bin", "dev", "etc", "lib", "lib64", "opt", "proc", "sbin", "usr")

_ENTER = """
root=$1 writable=$2 network=$3 workdir=$4; shift 4
mount --bind "$root" "$root"
for top in BASE; do
    if [ -d "/$top" ]; then
        mount --rbind "/$top" "$root/$top"
        mount -o remount,bind,ro "$root/$top" 2>/dev/null || true
    fi
done
mount -t tmpfs none "$root/tmp"
chmod 1777 "$root/tmp"
if [ "$writable" != / ]; then
    mount --bind "$root$writable" "$root$writable"
    mount -o remount,bind,ro "$root"
fi
if [ "$network" = no ]; then
    python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh22x", b"lo", 1))'
fi
exec chroot "$root" DROP sh -euc 'cd "$1"; shift; exec "$@"' sh "$workdir" "$@"
"""
_DROP = f"setpriv --reuid={_UNPRIVILEGED} --regid={_UNPRIVILEGED} --clear-groups --no-new-privs --bounding-set=-all"


@dataclass(slots=True)
class Stage:
    """One stage of a build: its root directory and what the instructions so far have set."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    declared: dict[str, str] = field(default_factory=dict)  # what an engine is only told: USER, EXPOSE, VOLUME, ...
    commands: dict[str, list[str]] = field(default_factory=dict)  # ENTRYPOINT, CMD and HEALTHCHECK, as words

    def inside(self, path: str) -> Path:
        """Return where a path of the image, absolute or relative to its WORKDIR, is on this machine."""
        return self.root / os.path.normpath(os.path.join(self.workdir, path)).lstrip("/")  # noqa: PTH118  pure text: nothing of it exists here

    def run(
        self, command: list[str], *, writable: str = "/", network: bool = True, timeout_seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as an unprivileged user; outside `writable` and /tmp the root directory is read-only."""
        namespaces = ["--mount", *([] if network else ["--net"]), *([] if _AS_ROOT else ["--user", "--map-root-user"])]
        script = _ENTER.replace("BASE", " ".join(_BASE_DIRECTORIES)).replace("DROP", _DROP if _AS_ROOT else "")
        arguments = [str(self.root), writable, "yes" if network else "no", self.workdir, *command]
        return subprocess.run(
            ["unshare", *namespaces, "sh", "-euc", script, "enter", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )


def missing_ability() -> str | None:
    """Return what this machine lacks for `build`, or None when it lacks nothing."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return "there are no unshare and setpriv here, as on anything but Linux"
    namespaces = ["--mount", "--net", *([] if _AS_ROOT else ["--user", "--map-root-user"])]
    if subprocess.run(["unshare", *namespaces, "true"], check=False, capture_output=True).returncode != 0:
        return "this kernel or sandbox allows no new namespaces"
    usable = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    if subprocess.run([_system_python(), "-c", usable], check=False, capture_output=True).returncode != 0:
        return "the system has no Python 3.11 or newer with venv (apt install python3-venv)"
    return None


def instructions(text: str) -> list[tuple[str, str]]:
    """Split a Dockerfile into (INSTRUCTION, arguments), comments dropped and continued lines joined."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = kept.replace("\\\n", " ")
    pairs = [line.strip().split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(word.upper(), rest.strip()) for word, rest in pairs]


def context(source: Path, into: Path) -> Path:
    """Copy what `.dockerignore` leaves of a source tree, and return the copy.

    Only the form that shuts everything out first and then names what is let in is understood.
    """
    patterns = [line for line in (source / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    if patterns[0] != "*":
        raise ValueError(".dockerignore must begin with *")
    into.mkdir()
    for name in (pattern[1:] for pattern in patterns if pattern.startswith("!")):
        if (source / name).is_dir():
            shutil.copytree(source / name, into / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source / name, into / name)
    return into


def build(dockerfile: str, sources: Path, into: Path) -> Stage:
    """Carry out every instruction, and return the last stage.

    Raises `RuntimeError` with its output when a step fails, and `ValueError` for an instruction it does not know.
    """
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    stage: Stage | None = None
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            name = rest.split()[2] if " AS " in rest else str(len(stages))
            stage = stages[name] = _new_stage(into / name)
        elif word == "ARG":
            name, _, default = rest.partition("=")
            arguments[name] = default
        elif stage is None:
            raise ValueError(f"{word} before FROM")
        elif word == "COPY":
            _copy(stage, rest.split(), stages, sources)
        elif word == "RUN":
            done = stage.run(["sh", "-c", rest])
            if done.returncode != 0:
                raise RuntimeError(f"RUN {rest}\n{done.stdout}\n{done.stderr}")
        else:
            _set(stage, word, rest)
    if stage is None:
        raise ValueError("no FROM")
    return stage


def _system_python() -> str:
    """Return the Python of the system's own: another may lie where an unprivileged user cannot read."""
    return shutil.which("python3", path="/usr/local/bin:/usr/bin") or "python3"


def _new_stage(root: Path) -> Stage:
    for directory in (*_BASE_DIRECTORIES, "base/bin", "tmp"):
        (root / directory).mkdir(parents=True)
    (root / "base/bin/python").symlink_to(_system_python())
    _hand_over(root)
    # How this machine reaches its package index is its own affair, and belongs to the network, not to the image.
    pip_settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return Stage(root, {"PATH": "/base/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/", **pip_settings})


def _hand_over(path: Path) -> None:
    if _AS_ROOT:
        os.chown(path, _UNPRIVILEGED, _UNPRIVILEGED)


def _copy(stage: Stage, words: list[str], stages: dict[str, Stage], sources: Path) -> None:
    options = dict(word[2:].split("=") for word in words if word.startswith("--"))
    *origins, destination = (word for word in words if not word.startswith("--"))
    target = stage.inside(destination)
    for origin in origins:
        found = stages[options["from"]].inside(origin) if "from" in options else sources / origin
        if found.is_dir():
            shutil.copytree(found, target, symlinks=True, dirs_exist_ok=True)
        elif destination.endswith("/"):
            shutil.copy(found, target / found.name)
        else:
            shutil.copy(found, target)
    if options.get("chown") == f"{_UNPRIVILEGED}:{_UNPRIVILEGED}":
        _hand_over(target)
    elif "chown" in options:
        raise ValueError(f"--chown={options['chown']} is not the unprivileged user")


def _set(stage: Stage, word: str, rest: str) -> None:
    """Carry out an instruction that only sets something."""
    match word:
        case "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                stage.environment[name] = re.sub(r"\$(\w+)", lambda found: stage.environment[found[1]], value)
        case "WORKDIR":
            stage.workdir = rest
            if not stage.inside(".").exists():
                stage.inside(".").mkdir(parents=True)
                _hand_over(stage.inside("."))
        case "USER" | "STOPSIGNAL" | "EXPOSE" | "VOLUME" | "LABEL":
            stage.declared[word] = rest
        case "ENTRYPOINT" | "CMD":
            stage.commands[word] = json.loads(rest)
        case "HEALTHCHECK":
            stage.commands[word] = json.loads(rest.partition(" CMD ")[2])
        case _:
            raise ValueError(f"unknown instruction {word}")
