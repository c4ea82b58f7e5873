"""Two providers of different protocols behind one gateway, for clients to meet the one that they do not speak."""

from __future__ import annotations

from dataclasses import dataclass

from fakes.gateway import Gateway
from fakes.upstream import FakeUpstream

CONFIG = """
[[upstreams]]
name = "chat"
base_url = "{chat}"
[[upstreams]]
name = "claude"
provider = "anthropic"
base_url = "{claude}"
[[models]]
name = "over-chat"
targets = [{{ upstream = "chat", model = "gpt-far" }}]
[[models]]
name = "over-claude"
targets = [{{ upstream = "claude", model = "claude-far" }}]
[retry]
max_retries = 0
"""


@dataclass(frozen=True)
class Far:
    """A gateway in front of two providers: `over-chat` is answered by OpenAI's chat, `over-claude` by Anthropic's."""

    gateway: Gateway
    chat: FakeUpstream
    claude: FakeUpstream

    def of(self, model: str) -> FakeUpstream:
        """Return the provider of a model."""
        return {"over-chat": self.chat, "over-claude": self.claude}[model]
