"""Record what a real server says, byte for byte: `python tests/recordings/record.py`, with the real model installed.

The server is llama.cpp's with a small model; it speaks three protocols. Each is asked three things, for a whole answer
and for a stream, and the bodies of its answers are kept beside this file as `PROTOCOL-QUESTION-MANNER.body`.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from model.running import KEY, MODEL, running_model

HERE = Path(__file__).parent
_MODEL_FILE = re.compile(rb'[^"]+\.gguf')
"""What the server says the model's name is; where the file is, is nobody's business."""

SYSTEM = "Answer in one short sentence."
CAPITAL, FOREIGN = "What is the capital of France?", "Repeat: Привет, мир! 你好，世界！"  # noqa: RUF001 - as it was asked
QUESTIONS = {"words": (CAPITAL, 40), "cut": (CAPITAL, 3), "foreign": (FOREIGN, 40)}
"""What is asked, and how many tokens the answer may have."""

Json = dict[str, Any]


def chat(question: str, most: int) -> Json:
    """Return what is asked of a chat."""
    said = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return {"messages": said, "max_tokens": most}


def messages(question: str, most: int) -> Json:
    """Return the same for Anthropic's protocol."""
    return {"system": SYSTEM, "messages": [{"role": "user", "content": question}], "max_tokens": most}


def responses(question: str, most: int) -> Json:
    """Return the same for OpenAI's Responses."""
    return {"instructions": SYSTEM, "input": question, "max_output_tokens": most}


PROTOCOLS = {
    "chat": ("/v1/chat/completions", chat),
    "messages": ("/v1/messages", messages),
    "responses": ("/v1/responses", responses),
}


def main() -> None:
    """Record it all anew."""
    with running_model() as address:
        for protocol, (path, ask) in PROTOCOLS.items():
            for name, (question, most) in QUESTIONS.items():
                for manner in ("whole", "stream"):
                    body: Json = {"model": MODEL, "temperature": 0, **ask(question, most)}
                    if manner == "stream":
                        body["stream"] = True
                        body |= {"stream_options": {"include_usage": True}} if protocol == "chat" else {}
                    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
                    request = urllib.request.Request(address + path, json.dumps(body).encode(), headers)
                    with urllib.request.urlopen(request) as answer:
                        said = _MODEL_FILE.sub(MODEL.encode(), answer.read())
                        (HERE / f"{protocol}-{name}-{manner}.body").write_bytes(said)


if __name__ == "__main__":
    main()
