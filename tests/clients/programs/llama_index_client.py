"""LlamaIndex, by its OpenAI-like model."""

import json
import sys

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

root, model, key, greeting, question = sys.argv[1:]
llm = OpenAILike(
    model=model,
    api_base=f"{root}/v1",
    api_key=key,
    max_retries=0,
    is_chat_model=True,
    is_function_calling_model=True,
)


def look(at: str) -> str:
    """Look at something."""
    assert at == "sea"
    return "calm as glass"


tool = FunctionTool.from_defaults(fn=look)
plain = llm.chat([ChatMessage(role="user", content=greeting)]).message.content
pieces = [piece.delta for piece in llm.stream_chat([ChatMessage(role="user", content=greeting)]) if piece.delta]
asked = ChatMessage(role="user", content=question)
called = llm.chat_with_tools([tool], chat_history=[asked])
(call,) = llm.get_tool_calls_from_response(called)
result = ChatMessage(
    role=MessageRole.TOOL, content=str(tool(**call.tool_kwargs)), additional_kwargs={"tool_call_id": call.tool_id}
)
told = llm.chat_with_tools([tool], chat_history=[asked, called.message, result]).message.content
print(json.dumps({"plain": plain, "stream": pieces, "tool": told}))
