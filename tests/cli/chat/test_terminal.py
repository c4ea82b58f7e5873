"""The dialogue on a terminal: keys in, screen out, real sockets behind."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pty
import re
import sys
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output

from chatgate.cli.chat.dialogue import Dialogue
from chatgate.cli.chat.server import Server, read_address
from chatgate.cli.chat.terminal import HISTORY_NAME, Terminal
from chatgate.transport import Transport
from fakes.scripts import chunk, error_body, event, stream, text_events, whole
from fakes.upstream import FakeUpstream, Tap

ENTER = "\r"
ALT_ENTER = "\x1b\r"
CTRL_C = "\x03"
CTRL_D = "\x04"
UP = "\x1b[A"
PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"
PROMPT = "\n>"
"""The space after it is made by moving the cursor."""

ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[=>78])")


def visible(screen: str) -> str:
    """Return what is left of a terminal's input when its control sequences are taken out."""
    return ESCAPES.sub("", screen).replace("\r", "")


def names_in(directory: Path) -> list[str]:
    """Return what is in a directory."""
    return sorted(path.name for path in directory.iterdir())


class Talk:
    """Types into a session of its own against an upstream, and keeps everything the session wrote."""

    def __init__(self, upstream: FakeUpstream, directory: Path, path: str = "/v1") -> None:
        """Begin a new dialogue."""
        self.upstream = upstream
        self.directory = directory
        self.dialogue = Dialogue(system="", model="m", max_tokens=None)
        self._address = read_address(f"http://127.0.0.1:{upstream.port}{path}")

    async def type(self, keys: str) -> str:
        """Type these keys and leave with Ctrl-D; return the screen."""
        screen = io.StringIO()
        output = Vt100_Output(
            screen, lambda: Size(40, 120), default_color_depth=ColorDepth.DEPTH_1_BIT, enable_cpr=False
        )
        transport = Transport()
        transport.start()
        try:
            with create_pipe_input() as keyboard:
                keyboard.send_text(keys + CTRL_D)
                server = Server(transport, self._address, "")
                async with asyncio.timeout(20):
                    await Terminal(server, self.dialogue, self.directory, input=keyboard, output=output).run()
        finally:
            await transport.close()
        return visible(screen.getvalue())

    @property
    def asked(self) -> list[list[str]]:
        """Return the texts of every call's messages."""
        return [[message["content"] for message in call.json()["messages"]] for call in self.upstream.calls]


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncIterator[Talk]:
    """Give a session against an upstream that answers with the last user text."""
    async with FakeUpstream() as upstream:
        yield Talk(upstream, tmp_path / "data")


async def test_the_dialogue_is_kept(talk: Talk) -> None:
    """Each question is sent with all whole exchanges before it, and the answers are shown."""
    screen = await talk.type("one" + ENTER + "two" + ENTER)
    assert talk.asked == [["one"], ["one", "one", "two"]]
    assert "\none\n\n" in screen
    assert "\ntwo\n\n" in screen


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("one\\" + ENTER + "two" + ENTER, "one\ntwo"),
        ("one" + ALT_ENTER + "two" + ENTER, "one\ntwo"),
        (PASTE_BEGIN + "def f():\r\n    return 1\n\nwhy?" + PASTE_END + ENTER, "def f():\n    return 1\n\nwhy?"),
        (" /usr/bin is a path" + ENTER, "/usr/bin is a path"),
    ],
    ids=["backslash", "alt-enter", "paste", "leading space"],
)
async def test_what_is_typed_is_sent_whole(talk: Talk, keys: str, text: str) -> None:
    """New lines inside a message do not send it."""
    await talk.type(keys)
    assert talk.asked == [[text]]


@pytest.mark.parametrize("word", ["exit", "Quit", "/exit", "/quit", ""])
async def test_leaving_sends_nothing(talk: Talk, word: str) -> None:
    """The bare words, the commands and Ctrl-D end the session; what was typed after is not asked."""
    await talk.type(word + (ENTER + "more" + ENTER if word else ""))
    assert talk.asked == []


async def test_an_unknown_command_is_not_sent(talk: Talk) -> None:
    """A slash at the beginning is never taken for a question; nor is an empty line."""
    screen = await talk.type("/sytem be brief" + ENTER + "  " + ENTER)
    assert "There is no command /sytem" in screen
    assert talk.asked == []


async def test_system_text_can_be_set_shown_and_removed(talk: Talk) -> None:
    """The text comes first in the next question, may have several lines, and `-` removes it."""
    keys = "/system be brief\\" + ENTER + "and kind" + ENTER + "/system" + ENTER + "hi" + ENTER
    screen = await talk.type(keys + "/system -" + ENTER + "ho" + ENTER)
    assert "System: be brief\nand kind\n" in screen
    assert "There is no system text." in screen
    assert talk.asked == [["be brief\nand kind", "hi"], ["hi", "hi", "ho"]]


async def test_model_can_be_chosen_and_listed(talk: Talk) -> None:
    """The list marks the chosen model, and the next question names it."""
    screen = await talk.type("/model gpt-fake-small" + ENTER + "/model" + ENTER + "hi" + ENTER)
    assert "  gpt-fake-large\n* gpt-fake-small\n" in screen
    assert talk.upstream.calls[-1].json()["model"] == "gpt-fake-small"


async def test_the_plain_api_lists_no_models(tmp_path: Path) -> None:
    """Over the plain API /model alone says which one is used; the dialogue goes into `continuous`."""
    async with FakeUpstream() as upstream:
        success = event({"code": 200, "msg": "success", "data": {"response": "Hello"}})
        upstream.queue(*[stream([event({"delta": "Hello"})], end=success)] * 2)
        screen = await Talk(upstream, tmp_path, "/api").type("/model" + ENTER + "hi" + ENTER + "ho" + ENTER)
        assert "the model is m" in screen
        assert [message["content"] for message in upstream.calls[1].json()["continuous"]] == ["hi", "Hello"]


async def test_clear_forgets_the_exchanges(talk: Talk) -> None:
    """After /clear a question is sent alone."""
    await talk.type("one" + ENTER + "/clear" + ENTER + "two" + ENTER)
    assert talk.asked == [["one"], ["two"]]


@pytest.mark.parametrize(
    "script",
    [
        whole(error_body("it broke"), 500),
        stream([event(chunk({"content": "half"})), event(error_body("it broke"))], end=b""),
    ],
    ids=["refused", "broken"],
)
async def test_a_failed_answer_can_be_asked_again(talk: Talk, script: Any) -> None:
    """The reason is shown, nothing of the failure enters the dialogue, and /retry sends the text again, once."""
    talk.upstream.queue(script)
    screen = await talk.type("one" + ENTER + "/retry" + ENTER + "/retry" + ENTER + "two" + ENTER)
    assert "Error: it broke\n/retry asks again." in screen
    assert "There is nothing to ask again." in screen
    assert talk.asked == [["one"], ["one"], ["one", "one", "two"]]


async def test_the_terminal_is_protected_from_the_answer(talk: Talk) -> None:
    """An answer and a reason that hold control sequences are shown without the characters that make them work."""
    talk.upstream.queue(stream(text_events("\x1b]0;owned\x07 done")), whole(error_body("\x1b[2Jgone"), 500))
    screen = await talk.type("hi" + ENTER + "ho" + ENTER)
    assert "]0;owned done" in screen
    assert "Error: [2Jgone" in screen
    assert "\x1b]" not in screen
    assert "\x07" not in screen
    assert "\x1b]0;owned\x07 done" in talk.dialogue.messages[1].content


async def test_save_writes_a_new_file_only(talk: Talk, tmp_path: Path) -> None:
    """Markdown and JSON by the suffix; another suffix, an existing file or a missing folder is told."""
    mine = tmp_path / "mine.md"
    mine.write_text("mine")
    names = ["", "early.md", "talk.txt", "mine.md", "missing/talk.md", "talk.md", "talk.json"]
    keys = [f"/save {tmp_path / name if name else ''}{ENTER}" for name in names]
    keys.insert(2, "hi" + ENTER)
    screen = await talk.type("".join(keys))
    assert "Name a file" in screen
    assert "There is nothing to save yet." in screen
    assert "has to end in .md or .json" in screen
    assert "exists already" in screen
    assert "could not be written" in screen
    assert mine.read_text() == "mine"
    assert "## Assistant\n\nhi" in (tmp_path / "talk.md").read_text()
    assert '"content": "hi"' in (tmp_path / "talk.json").read_text()
    assert names_in(tmp_path) == ["data", "mine.md", "talk.json", "talk.md"]


async def test_help_lists_every_command(talk: Talk) -> None:
    """All commands stand in the help, and Tab completes their names."""
    screen = await talk.type("/he\t" + ENTER)
    for name in ("/system", "/model", "/retry", "/clear", "/save", "/help", "/exit", "/quit"):
        assert f"\n{name}" in screen or f", {name}" in screen


async def test_ctrl_c_at_the_prompt(talk: Talk) -> None:
    """With text it drops the text; without it tells how to leave. Nothing is sent, the session goes on."""
    dropped = await talk.type("never mind" + CTRL_C)
    assert "Ctrl-D or /exit leaves" not in dropped
    assert "Ctrl-D or /exit leaves" in await talk.type(CTRL_C + "hi" + ENTER)
    assert talk.asked == [["hi"]]


async def test_history_outlives_the_session(talk: Talk) -> None:
    """Up brings back the last session's text, several lines included; only the owner can read the file."""
    await talk.type("one\\" + ENTER + "two" + ENTER)
    talk.dialogue.clear()
    await talk.type(UP + ENTER)
    assert talk.asked == [["one\ntwo"], ["one\ntwo"]]
    assert (talk.directory / HISTORY_NAME).stat().st_mode & 0o777 == 0o600
    assert talk.directory.stat().st_mode & 0o777 == 0o700


async def test_a_history_that_cannot_be_kept_stops_nothing(talk: Talk) -> None:
    """The session says so and goes on."""
    talk.directory.write_text("a file is in the way")
    assert "history is not kept" in await talk.type("hi" + ENTER)
    assert talk.asked == [["hi"]]


class Console:
    """A real terminal with the command in it, in a process of its own."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.raw = ""
        self._master = -1
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def run(
        self, upstream: FakeUpstream, home: Path, *arguments: str, **environment: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the command with this terminal as its controlling one, so that Ctrl-C is a signal to it."""
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 120))
        code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from chatgate.cli.chat import chat; chat()"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, "--model", "m", *arguments),
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "TERM": "xterm-256color",
                "PROMPT_TOOLKIT_NO_CPR": "1",
                "CHATGATE_URL": upstream.base_url,
                **environment,
            },
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._master, self._read)
        try:
            async with asyncio.timeout(30):
                yield process
        finally:
            loop.remove_reader(self._master)
            os.close(self._master)
            if process.returncode is None:
                process.kill()
                await process.wait()

    def type(self, keys: str) -> None:
        """Type these keys."""
        os.write(self._master, keys.encode())

    async def wait_for(self, seen: Callable[[str], bool]) -> str:
        """Return what is visible once it is what the test waits for."""
        try:
            async with asyncio.timeout(10):
                while not seen(screen := visible(self.raw)):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pytest.fail(f"the terminal got {self.raw!r}")
        return screen

    def _read(self) -> None:
        # Linux reports the end of the other side as an error.
        with contextlib.suppress(OSError):
            self.raw += os.read(self._master, 65536).decode(errors="replace")
        self._changed.set()


async def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path: Path) -> None:
    """The connection is closed at once, the dialogue goes on without the stopped exchange, and Ctrl-D ends with 0."""
    async with FakeUpstream() as upstream:
        upstream.queue(stream([event(chunk({"content": "endless tale"}))], end=b"", close=False, then="hang"))
        console = Console()
        async with console.run(upstream, tmp_path) as process:
            await console.wait_for(lambda screen: PROMPT in screen)
            console.type("tell" + ENTER)
            await console.wait_for(lambda screen: "endless tale" in screen)
            console.type(CTRL_C)
            await console.wait_for(lambda screen: "Stopped. /retry asks again." in screen)
            assert (await upstream.last_call()).ended == "gateway_left"
            console.type("another question" + ENTER)
            await console.wait_for(lambda screen: "\nanother question\n" in screen and screen.count(PROMPT) == 3)
            console.type(CTRL_D)
            assert await process.wait() == 0
        assert [call.json()["messages"] for call in upstream.calls[1:]] == [
            [{"role": "user", "content": "another question"}]
        ]
        assert "Traceback" not in console.raw
    assert (tmp_path / ".local/share/chatgate" / HISTORY_NAME).exists()


async def test_what_is_typed_during_an_answer_waits_for_the_prompt(tmp_path: Path) -> None:
    """Keys do not show up inside the answer; the next prompt gets them, Enter included."""
    async with FakeUpstream() as upstream:
        tap = Tap(2)
        upstream.queue(stream(text_events("one two"), tap=tap))
        console = Console()
        async with console.run(upstream, tmp_path) as process:
            await console.wait_for(lambda screen: PROMPT in screen)
            console.type("first" + ENTER)
            await console.wait_for(lambda screen: "\none" in screen)
            console.type("second" + ENTER)
            tap.let(10)
            screen = await console.wait_for(lambda screen: "\nsecond\n" in screen and screen.count(PROMPT) == 3)
            assert "\none two\n\n" in screen
            console.type(CTRL_D)
            assert await process.wait() == 0


async def test_a_kill_with_sigint_at_the_prompt_acts_as_ctrl_c(tmp_path: Path) -> None:
    """The session stays, in its second prompt too."""
    async with FakeUpstream() as upstream:
        console = Console()
        async with console.run(upstream, tmp_path, XDG_DATA_HOME=str(tmp_path / "xdg")) as process:
            for prompts in (1, 2):
                await console.wait_for(lambda screen, prompts=prompts: screen.count(PROMPT) >= prompts)  # type: ignore[misc]
                process.send_signal(2)
                await console.wait_for(lambda screen, hints=prompts: screen.count("/exit leaves") >= hints)  # type: ignore[misc]
            console.type("/exit" + ENTER)
            assert await process.wait() == 0
    assert (tmp_path / "xdg/chatgate" / HISTORY_NAME).exists()


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["plain", "NO_COLOR", "dumb"])
async def test_colour_only_where_it_is_wanted(tmp_path: Path, environment: dict[str, str]) -> None:
    """Notes are coloured and the prompt is bold, unless NO_COLOR or the terminal says otherwise."""
    async with FakeUpstream() as upstream:
        console = Console()
        async with console.run(upstream, tmp_path, **environment) as process:
            await console.wait_for(lambda screen: PROMPT in screen)
            console.type("/exit" + ENTER)
            await process.wait()
    styles = set(re.findall(r"\x1b\[([0-9;]*)m", console.raw)) - {"", "0"}
    assert bool(styles) == (not environment)


async def test_a_single_question_on_a_terminal_is_protected_too(tmp_path: Path) -> None:
    """On a terminal, an argument prints the answer without control characters and ends."""
    async with FakeUpstream() as upstream:
        upstream.queue(stream(text_events("\x1b[31mred")))
        console = Console()
        async with console.run(upstream, tmp_path, "hi") as process:
            assert await process.wait() == 0
            await console.wait_for(lambda screen: "red\n" in screen)
        assert console.raw == "[31mred\r\n"
