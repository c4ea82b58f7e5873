"""Run a module as `python -m` does, and count its bytecodes: `python -m bench.traced OUT python -m MODULE ARG…`.

When it ends, OUT has, by function of the gateway's own, how often it was called or taken up again, and how many
bytecodes it executed, in all threads: JSON, `{"pipeline.py:Pipeline.answer": [calls, bytecodes], …}`. `where` calls it.
"""

from __future__ import annotations

import json
import runpy
import sys
import threading
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import chatgate

ROOT = f"{Path(chatgate.__file__).parent}/"


def main() -> None:
    """Run it, and write what was counted however it ends."""
    out, (module, *arguments) = Path(sys.argv[1]), sys.argv[4:]
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])

    def trace(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ANN401 - a trace function, or None
        del argument
        path = frame.f_code.co_filename
        if not path.startswith(ROOT):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        counted = counts[f"{path[len(ROOT) :]}:{frame.f_code.co_qualname}"]
        counted[0] += event == "call"
        counted[1] += event == "opcode"
        return trace

    sys.argv = [module, *arguments]
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.settrace(None)
        out.write_text(json.dumps(counts))


if __name__ == "__main__":
    main()
