"""LangChain, by its chat models for OpenAI or, with `claude` in the model's name, Anthropic."""

import json
import sys

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool as as_tool

kind, root, model, key, greeting, question = sys.argv[1:]
if kind == "anthropic":
    from langchain_anthropic import ChatAnthropic

    chat = ChatAnthropic(model=model, base_url=root, api_key=key, max_retries=0, max_tokens=99)
else:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(
        model=model, base_url=f"{root}/v1", api_key=key, max_retries=0, use_responses_api=kind == "responses"
    )


@as_tool
def look(at: str) -> str:
    """Look at something."""
    assert at == "sea"
    return "calm as glass"


plain = chat.invoke(greeting).text
pieces = [chunk.text for chunk in chat.stream(greeting) if chunk.text]
with_tools = chat.bind_tools([look])
dialogue = [HumanMessage(question)]
called = None
for chunk in with_tools.stream(dialogue):
    called = chunk if called is None else called + chunk
dialogue += [called, look.invoke(called.tool_calls[0])]
told = with_tools.invoke(dialogue).text
print(json.dumps({"plain": str(plain), "stream": [str(piece) for piece in pieces], "tool": str(told)}))
