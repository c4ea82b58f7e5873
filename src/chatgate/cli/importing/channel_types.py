"""The kinds of channels of one-api and new-api, and where chatgate reaches the same provider in OpenAI's dialect.

Data. The two programs number the kinds differently from 26 on. For numbers and addresses see
https://github.com/songquanpeng/one-api at 8df4a26 (relay/channeltype/define.go and url.go) and
https://github.com/QuantumNous/new-api (constant/channel.go). The OpenAI-compatible addresses of providers that have a
dialect of their own as well are the well-known ones.
"""

from __future__ import annotations

from msgspec import Struct


class Kind(Struct, frozen=True):
    """A kind of channel: its name, its own address, "" when a channel has to say, and what is added to the address.

    `was_native` says that the old program spoke the provider's own dialect, and chatgate its OpenAI-compatible one.
    """

    title: str
    address: str = ""
    path: str = "/v1"
    was_native: bool = False


_GEMINI = Kind("Gemini", "https://generativelanguage.googleapis.com", "/v1beta/openai", was_native=True)
_ANTHROPIC = Kind("Anthropic", "https://api.anthropic.com", was_native=True)
_ALI = Kind("Alibaba Cloud", "https://dashscope.aliyuncs.com", "/compatible-mode/v1", was_native=True)
_ZHIPU = Kind("Zhipu", "https://open.bigmodel.cn", "/api/paas/v4", was_native=True)
_COHERE = Kind("Cohere", "https://api.cohere.ai", "/compatibility/v1", was_native=True)
_OLLAMA = Kind("Ollama", "http://localhost:11434", was_native=True)
_MISTRAL = Kind("Mistral", "https://api.mistral.ai")
_DEEPSEEK = Kind("DeepSeek", "https://api.deepseek.com")
_SILICONFLOW = Kind("SiliconFlow", "https://api.siliconflow.cn")
_XAI = Kind("xAI", "https://api.x.ai")
_DOUBAO = Kind("Volcengine", "https://ark.cn-beijing.volces.com", "/api/v3")
_BAIDU_V2 = Kind("Baidu Qianfan", "https://qianfan.baidubce.com", "/v2")

_BOTH = {
    1: Kind("OpenAI", "https://api.openai.com"),
    6: Kind("OpenAIMax", "https://api.openaimax.com"),
    7: Kind("OhMyGPT", "https://api.ohmygpt.com"),
    10: Kind("AI Proxy", "https://api.aiproxy.io"),
    12: Kind("API2GPT", "https://api.api2gpt.com"),
    13: Kind("AIGC2D", "https://api.aigc2d.com"),
    14: _ANTHROPIC,
    16: _ZHIPU,
    17: _ALI,
    20: Kind("OpenRouter", "https://openrouter.ai/api"),
    22: Kind("FastGPT", "https://fastgpt.run/api/openapi"),
    24: _GEMINI,
    25: Kind("Moonshot", "https://api.moonshot.cn"),
    31: Kind("01.AI", "https://api.lingyiwanwu.com"),
}

ONE_API = _BOTH | {
    2: Kind("API2D", "https://oa.api2d.net"),
    4: Kind("CloseAI", "https://api.closeai-proxy.xyz"),
    5: Kind("OpenAI-SB", "https://api.openai-sb.com"),
    8: Kind("custom"),
    9: Kind("AILS", "https://api.caipacity.com"),
    19: Kind("360", "https://ai.360.cn"),
    26: Kind("Baichuan", "https://api.baichuan-ai.com"),
    28: _MISTRAL,
    29: Kind("Groq", "https://api.groq.com/openai"),
    30: _OLLAMA,
    32: Kind("StepFun", "https://api.stepfun.com"),
    35: _COHERE,
    36: _DEEPSEEK,
    39: Kind("Together AI", "https://api.together.xyz"),
    40: _DOUBAO,
    41: Kind("Novita", "https://api.novita.ai/v3/openai", ""),
    44: _SILICONFLOW,
    45: _XAI,
    47: _BAIDU_V2,
    48: Kind("Xunfei Spark", "https://spark-api-open.xf-yun.com"),
    49: Kind("Alibaba Bailian", "https://dashscope.aliyuncs.com", "/compatible-mode/v1"),
    50: Kind("OpenAI-compatible", "", ""),
    51: Kind("Gemini", "https://generativelanguage.googleapis.com/v1beta/openai", ""),
}

NEW_API = _BOTH | {
    4: _OLLAMA,
    8: Kind("custom", "", ""),
    9: Kind("AILS", "https://api.caipacity.com"),
    19: Kind("360", "https://api.360.cn"),
    26: _ZHIPU,
    27: Kind("Perplexity", "https://api.perplexity.ai", ""),
    34: _COHERE,
    40: _SILICONFLOW,
    42: _MISTRAL,
    43: _DEEPSEEK,
    45: _DOUBAO,
    46: _BAIDU_V2,
    47: Kind("Xinference"),
    48: _XAI,
    53: Kind("Submodel", "https://llm.submodel.ai"),
}

NOT_YET = {3: "Azure", 11: "PaLM", 15: "Baidu", 18: "Xunfei", 21: "AI Proxy library", 23: "Tencent", 33: "AWS"}
"""Kinds that have the same number in both and nothing that chatgate could speak to."""
