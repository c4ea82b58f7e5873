"""OpenAI's package for Python, by responses."""

import json
import sys

from openai import OpenAI

root, model, key, greeting, question = sys.argv[1:]
client = OpenAI(base_url=f"{root}/v1", api_key=key, max_retries=0)
LOOK = {
    "type": "function",
    "name": "look",
    "strict": False,
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}

plain = client.responses.create(model=model, input=greeting).output_text
with client.responses.stream(model=model, input=greeting) as stream:
    pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
with client.responses.stream(model=model, input=question, tools=[LOOK]) as stream:
    (call,) = stream.get_final_response().output
assert json.loads(call.arguments) == {"at": "sea"}, call
dialogue = [
    {"role": "user", "content": question},
    {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
    {"type": "function_call_output", "call_id": call.call_id, "output": "calm as glass"},
]
tool = client.responses.create(model=model, input=dialogue, tools=[LOOK]).output_text
print(json.dumps({"plain": plain, "stream": pieces, "tool": tool}))
