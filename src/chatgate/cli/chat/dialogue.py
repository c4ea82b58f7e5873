"""Own the dialogue: which exchanges are part of it, under which system text and model, and its form in a file.

Only whole exchanges belong to it. A question whose answer failed or was stopped is kept aside, to be asked again.
No terminal and no network here. Called by `terminal`.
"""

from __future__ import annotations

import json
from pathlib import Path

from chatgate.cli.chat.wire import Question
from chatgate.vocabulary.chat import Message


class Dialogue:
    """A dialogue as it grows; `unanswered` is the last question without a whole answer, "" when there is none."""

    def __init__(self, *, system: str, model: str, max_tokens: int | None) -> None:
        """Start without exchanges."""
        self.system = system
        self.model = model
        self.max_tokens = max_tokens
        self.messages: tuple[Message, ...] = ()
        self.unanswered = ""

    def question(self, text: str) -> Question:
        """Return what to ask for this text; it counts as unanswered until `answered`."""
        self.unanswered = text
        return Question(text, self.messages, self.system, self.model, self.max_tokens)

    def answered(self, answer: str) -> None:
        """Keep the exchange of the unanswered question and its whole answer."""
        self.messages += (Message("user", self.unanswered), Message("assistant", answer))
        self.unanswered = ""

    def clear(self) -> None:
        """Forget all exchanges and the unanswered question; system text and model stay."""
        self.messages = ()
        self.unanswered = ""

    def save(self, path: Path) -> None:
        """Write the dialogue to a new file, as JSON or Markdown by its suffix.

        Raises FileExistsError when there is one already, another OSError when it cannot be written.
        """
        text = self._as_json() if path.suffix.lower() == ".json" else self._as_markdown()
        with path.open("x", encoding="utf-8") as file:
            file.write(text)

    def _with_system(self) -> tuple[Message, ...]:
        return (Message("system", self.system), *self.messages) if self.system else self.messages

    def _as_json(self) -> str:
        """Write it as OpenAI's request has it, so that the file can be sent again."""
        messages = [{"role": message.role, "content": message.content} for message in self._with_system()]
        return json.dumps({"model": self.model, "messages": messages}, ensure_ascii=False, indent=2) + "\n"

    def _as_markdown(self) -> str:
        sections = [f"## {message.role.capitalize()}\n\n{message.content}\n" for message in self._with_system()]
        title = f"# Chat with {self.model}\n" if self.model else "# Chat\n"
        return "\n".join([title, *sections])
