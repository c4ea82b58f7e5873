"""OpenAI's package for Python, by chat completions."""

import json
import sys

from openai import OpenAI

root, model, key, greeting, question = sys.argv[1:]
client = OpenAI(base_url=f"{root}/v1", api_key=key, max_retries=0)
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}


def ask(text):
    return [{"role": "user", "content": text}]


plain = client.chat.completions.create(model=model, messages=ask(greeting)).choices[0].message.content
pieces = [
    chunk.choices[0].delta.content
    for chunk in client.chat.completions.create(model=model, messages=ask(greeting), stream=True)
    if chunk.choices and chunk.choices[0].delta.content
]
with client.chat.completions.stream(model=model, messages=ask(question), tools=[LOOK]) as stream:
    called = stream.get_final_completion().choices[0].message
(call,) = called.tool_calls
assert json.loads(call.function.arguments) == {"at": "sea"}, call
dialogue = [
    *ask(question),
    {"role": "assistant", "tool_calls": [call.model_dump(exclude={"index"}, exclude_none=True)]},
    {"role": "tool", "tool_call_id": call.id, "content": "calm as glass"},
]
tool = client.chat.completions.create(model=model, messages=dialogue, tools=[LOOK]).choices[0].message.content
print(json.dumps({"plain": plain, "stream": pieces, "tool": tool}))
