"""openai-agents, by its own choice of protocol: responses."""

import asyncio
import json
import sys

from agents import Agent, Runner, function_tool, set_default_openai_client, set_tracing_disabled
from openai import AsyncOpenAI

root, model, key, greeting, question = sys.argv[1:]
set_tracing_disabled(True)
set_default_openai_client(AsyncOpenAI(base_url=f"{root}/v1", api_key=key, max_retries=0), use_for_tracing=False)


@function_tool
def look(at: str) -> str:
    """Look at something."""
    assert at == "sea"
    return "calm as glass"


async def main():
    agent = Agent(name="Anna", model=model)
    plain = (await Runner.run(agent, greeting)).final_output
    result = Runner.run_streamed(agent, greeting)
    pieces = [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    tool = (await Runner.run(Agent(name="Anna", model=model, tools=[look]), question)).final_output
    print(json.dumps({"plain": plain, "stream": pieces, "tool": tool}))


asyncio.run(main())
