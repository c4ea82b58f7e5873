"""The dialogue and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatgate.cli.chat.dialogue import Dialogue


def dialogue_of(*exchanges: tuple[str, str], system: str = "") -> Dialogue:
    """Return a dialogue in which these exchanges took place."""
    dialogue = Dialogue(system=system, model="m", max_tokens=None)
    for asked, answered in exchanges:
        dialogue.question(asked)
        dialogue.answered(answered)
    return dialogue


def test_only_answered_questions_belong_to_it() -> None:
    """A question without a whole answer is not sent along with the next one, and can be asked again."""
    dialogue = dialogue_of(("one", "two"))
    dialogue.question("lost")
    assert dialogue.unanswered == "lost"
    earlier = dialogue.question("three").earlier
    assert [message.content for message in earlier] == ["one", "two"]


def test_clear_keeps_system_text_and_model() -> None:
    """After clearing, nothing earlier is sent, but the instruction is."""
    dialogue = dialogue_of(("one", "two"), system="be brief")
    dialogue.clear()
    question = dialogue.question("three")
    assert (question.earlier, question.system, question.model) == ((), "be brief", "m")


def test_json_file_can_be_sent_again(tmp_path: Path) -> None:
    """The JSON file is a request: model and messages with the system text first."""
    path = tmp_path / "talk.JSON"
    dialogue_of(("один", "два"), system="be brief").save(path)
    assert json.loads(path.read_text("utf-8")) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "один"},
            {"role": "assistant", "content": "два"},
        ],
    }


def test_markdown_file_has_a_section_per_message(tmp_path: Path) -> None:
    """The Markdown file reads in the order of the dialogue."""
    path = tmp_path / "talk.md"
    dialogue_of(("one", "two")).save(path)
    assert path.read_text("utf-8") == "# Chat with m\n\n## User\n\none\n\n## Assistant\n\ntwo\n"


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    """Saving never overwrites."""
    path = tmp_path / "talk.md"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        dialogue_of(("one", "two")).save(path)
    assert path.read_text() == "mine"
