"""OpenAI's package for Python, by responses over one WebSocket, whose turns go on from each other."""

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


with client.responses.connect() as connection:

    def turn(**request):
        """Make a turn; return the pieces of its text, and the response."""
        connection.response.create(model=model, store=False, tools=[LOOK], **request)
        pieces = []
        for event in connection:
            assert event.type not in ("error", "response.failed"), event
            if event.type == "response.output_text.delta":
                pieces.append(event.delta)
            if event.type == "response.completed":
                break
        return pieces, event.response

    prepared = turn(input=greeting, generate=False)[1]
    pieces, greeted = turn(input=[], previous_response_id=prepared.id)
    first = turn(input=question, previous_response_id=greeted.id)[1]
    (call,) = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "calm as glass"}
    told = turn(input=[result], previous_response_id=first.id)[1]
print(json.dumps({"plain": greeted.output_text, "stream": pieces, "tool": told.output_text}))
