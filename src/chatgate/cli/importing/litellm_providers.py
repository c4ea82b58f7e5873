"""The providers that LiteLLM names before a model's slash, as far as they speak OpenAI's dialect.

Data: well-known addresses, and the variables that keys are mostly in. LiteLLM's own list is at
https://docs.litellm.ai/docs/providers. For Anthropic, Gemini and Ollama LiteLLM speaks their own dialects; chatgate
goes to their OpenAI-compatible addresses.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct


class Provider(Struct, frozen=True):
    """A provider: its address, "" for software that runs anywhere.

    `variable` is where its key is if none is given, and `path` what an `api_base` without a path lacks.
    """

    address: str = ""
    variable: str = ""
    path: str = ""

    def address_of(self, api_base: str) -> str:
        """Return where calls go, "" when nobody says."""
        base = api_base.rstrip("/").removesuffix("/chat/completions")
        if not base:
            return self.address
        return base if not self.path or urlsplit(base).path else base + self.path


PROVIDERS = {
    "anthropic": Provider("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "/v1"),
    "cerebras": Provider("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "codestral": Provider("https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY"),
    "custom_openai": Provider(),
    "deepinfra": Provider("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "/v1"),
    "fireworks_ai": Provider("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "gemini": Provider("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", "/v1beta/openai"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "hosted_vllm": Provider(),
    "litellm_proxy": Provider(),
    "llamafile": Provider("http://127.0.0.1:8080/v1"),
    "lm_studio": Provider(),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "moonshot": Provider("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "nvidia_nim": Provider("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "ollama": Provider("http://localhost:11434/v1", path="/v1"),
    "ollama_chat": Provider("http://localhost:11434/v1", path="/v1"),
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "openai_like": Provider(),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "perplexity": Provider("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY"),
    "sambanova": Provider("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "together_ai": Provider("https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    "volcengine": Provider("https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY"),
    "xai": Provider("https://api.x.ai/v1", "XAI_API_KEY"),
}
