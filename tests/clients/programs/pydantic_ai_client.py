"""pydantic-ai, by its OpenAI model: `chat` or `responses`."""

import asyncio
import json
import sys

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

kind, root, model, key, greeting, question = sys.argv[1:]
provider = OpenAIProvider(base_url=f"{root}/v1", api_key=key)
made = {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}[kind](model, provider=provider)
agent = Agent(made)
looking = Agent(made)


@looking.tool_plain
def look(at: str) -> str:
    """Look at something."""
    assert at == "sea"
    return "calm as glass"


async def main():
    plain = (await agent.run(greeting)).output
    async with agent.run_stream(greeting) as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    tool = (await looking.run(question)).output
    print(json.dumps({"plain": plain, "stream": pieces, "tool": tool}))


asyncio.run(main())
