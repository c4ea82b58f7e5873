"""Anthropic's package for Python."""

import json
import sys

from anthropic import Anthropic

root, model, key, greeting, question = sys.argv[1:]
client = Anthropic(base_url=root, api_key=key, max_retries=0)
LOOK = {
    "name": "look",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}


def ask(text):
    return [{"role": "user", "content": text}]


plain = client.messages.create(model=model, max_tokens=99, messages=ask(greeting)).content[0].text
with client.messages.stream(model=model, max_tokens=99, messages=ask(greeting)) as stream:
    pieces = list(stream.text_stream)
with client.messages.stream(model=model, max_tokens=99, messages=ask(question), tools=[LOOK]) as stream:
    called = stream.get_final_message()
call = called.content[-1]
assert call.input == {"at": "sea"}, call
dialogue = [
    *ask(question),
    {"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "calm as glass"}]},
]
tool = client.messages.create(model=model, max_tokens=99, messages=dialogue, tools=[LOOK]).content[0].text
print(json.dumps({"plain": plain, "stream": pieces, "tool": tool}))
