"""Eight processes hammer one limit: no window, wherever it begins, holds more than it allows, and none much less."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

from storage.redis.redis_server import RedisServer

SECONDS = float(os.environ.get("CHATGATE_TEST_HAMMER_SECONDS", "2"))
PROCESSES = 8
LENGTH_US = 500_000
EXACT = 2048


@pytest.mark.parametrize("most", [100, 5000])
def test_eight_processes_and_one_limit(redis: RedisServer, most: int) -> None:
    """Over-admission 0, by the times at which the store itself admitted.

    A limit of up to 2048 is used to the full. Above that, neighbours leave a window together, and late rather than
    early.
    """
    program = Path(__file__).with_name("hammer.py")

    started = [
        subprocess.Popen(
            [sys.executable, str(program), redis.url, f"p{number}", str(SECONDS), str(most), str(LENGTH_US)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    told = [process.communicate(timeout=SECONDS + 30)[0] for process in started]
    assert [process.returncode for process in started] == [0] * PROCESSES
    admitted = sorted(int(at) for text in told for at in text.split())
    window: deque[int] = deque()
    for at in admitted:
        while window and window[0] <= at - LENGTH_US:
            window.popleft()
        window.append(at)
        assert len(window) <= most
    if most <= EXACT:
        # Whatever the machine is busy with, a window is long enough to fill it.
        assert len(admitted) >= most * ((admitted[-1] - admitted[0]) // LENGTH_US)
    else:
        assert admitted
