"""Own the interactive client: the prompt with its keys and history, the commands, and what is shown.

Reads questions until the user leaves; the dialogue itself is `dialogue`'s and the network `server`'s business.
Called by `command`, and only then is prompt_toolkit loaded. Everything is shown on the terminal the prompt is on,
errors included, so that they stand where the answer would be.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import termios
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.shortcuts import CompleteStyle

from chatgate import __version__
from chatgate.cli.chat.dialogue import Dialogue
from chatgate.cli.chat.printable import printable
from chatgate.cli.chat.server import ChatFailureError, Said, Server
from chatgate.cli.chat.wire import PLAIN, well_formed
from chatgate.cli.chat.words import say

HISTORY_NAME: Final = "chat_history"
"""The history's file in the data directory; readable by its owner only, for it holds what was asked."""

_T = TypeVar("_T")


class Terminal:
    """One interactive session. `input` and `output` are the process's terminal when None."""

    def __init__(
        self,
        server: Server,
        dialogue: Dialogue,
        data_directory: Path,
        *,
        input: Input | None = None,  # noqa: A002 - prompt_toolkit's own name for it
        output: Output | None = None,
    ) -> None:
        """Prepare the prompt; nothing is shown yet."""
        self._server = server
        self._dialogue = dialogue
        self._work: asyncio.Task[Any] | None = None
        self._leaving = False
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/system": self._set_system,
            "/model": self._set_model,
            "/retry": self._retry,
            "/clear": self._clear,
            "/save": self._save,
            "/help": self._help,
            "/exit": self._leave,
            "/quit": self._leave,
        }
        history, self._history_fault = _open_history(data_directory)
        self._prompt: PromptSession[str] = PromptSession(
            multiline=True,
            prompt_continuation="· ",
            history=history,
            key_bindings=_keys(),
            completer=WordCompleter(list(self._commands), sentence=True),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            input=input,
            output=output,
        )
        self._output = self._prompt.output
        # One bit of colour is how prompt_toolkit renders NO_COLOR and terminals that can do nothing.
        self._styled = self._output.get_default_color_depth() is not ColorDepth.DEPTH_1_BIT

    async def run(self) -> None:
        """Converse until the user leaves."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            model = self._dialogue.model or say("default_model")
            self._note(say("welcome", version=__version__, model=model, url=self._server.address.url))
            if self._history_fault:
                self._note(say("history_off", reason=self._history_fault))
            self._note(say("welcome_hint"))
            while not self._leaving:
                await self._turn()
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def _turn(self) -> None:
        """Read one input and do what it says."""
        message = FormattedText([("bold" if self._styled else "", "> ")])
        try:
            # The signal is handled here in `run`: prompt_toolkit would remove that handler after each prompt.
            text = well_formed(await self._prompt.prompt_async(message, handle_sigint=False))
        except KeyboardInterrupt:
            if not self._prompt.default_buffer.text:
                self._note(say("interrupt_hint"))
            return
        except EOFError:
            self._leaving = True
            return
        if text.strip().lower() in {"exit", "quit"}:
            self._leaving = True
        elif text.startswith("/"):
            await self._obey(text)
        elif text.strip():
            await self._ask(text.strip())

    def _interrupt(self) -> None:
        """Stop what is under way; at the prompt, act as the key would."""
        if self._work is not None:
            self._work.cancel()
        elif self._prompt.app.is_running:
            self._prompt.app.key_processor.send_sigint()

    async def _interruptible(self, work: Coroutine[Any, Any, _T]) -> _T | ChatFailureError | None:
        """Return the work's result, its failure, or None when the user stopped it."""
        self._work = asyncio.ensure_future(work)
        try:
            with _typing_ahead(self._prompt.input.fileno()):
                await asyncio.wait([self._work])
            if self._work.cancelled():
                return None
            failure = self._work.exception()
            if isinstance(failure, ChatFailureError):
                return failure
            result: _T = self._work.result()
            return result
        finally:
            self._work = None

    async def _ask(self, text: str) -> None:
        """Show the answer as it arrives; the dialogue keeps it only when it is whole."""
        written: list[str] = []

        def write(delta: str) -> None:
            written.append(delta)
            self._show(delta)

        said = await self._interruptible(self._server.ask(self._dialogue.question(text), write))
        if written:
            # An empty line sets the answer apart from what comes next.
            self._show("\n" if written[-1].endswith("\n") else "\n\n")
        if isinstance(said, Said):
            self._dialogue.answered(said.text)
            if said.cut_at_limit:
                self._note(say("cut_at_limit"))
        elif said is None:
            self._note(say("stopped"))
        else:
            self._fail(str(said))
            self._note(say("retry_hint"))

    async def _obey(self, text: str) -> None:
        name, _, argument = re.sub(r"\s+", " ", text, count=1).partition(" ")
        command = self._commands.get(name.lower())
        if command is None:
            self._fail(say("unknown_command", command=name))
        else:
            await command(argument.strip())

    async def _set_system(self, text: str) -> None:
        if text:
            self._dialogue.system = "" if text == "-" else text
        current = self._dialogue.system
        self._note(say("system_now", text=current) if current else say("system_none"))

    async def _set_model(self, name: str) -> None:
        if name:
            self._dialogue.model = name
        elif self._server.address.dialect is not PLAIN:
            await self._list_models()
            return
        model = self._dialogue.model or say("default_model")
        self._note(say("model_now" if name else "models_unlisted", model=model))

    async def _list_models(self) -> None:
        names = await self._interruptible(self._server.models())
        if isinstance(names, ChatFailureError):
            self._fail(str(names))
        elif names is not None:
            lines = [f"{'*' if name == self._dialogue.model else ' '} {name}" for name in names]
            self._note("\n".join(lines) or say("models_none"))

    async def _retry(self, _argument: str) -> None:
        if self._dialogue.unanswered:
            await self._ask(self._dialogue.unanswered)
        else:
            self._note(say("retry_nothing"))

    async def _clear(self, _argument: str) -> None:
        self._dialogue.clear()
        self._note(say("cleared"))

    async def _save(self, name: str) -> None:
        path = Path(name)
        if not name:
            self._fail(say("save_usage"))
        elif path.suffix.lower() not in {".md", ".json"}:
            self._fail(say("save_suffix"))
        elif not self._dialogue.messages:
            self._fail(say("save_nothing"))
        else:
            self._save_to(path)

    def _save_to(self, path: Path) -> None:
        try:
            path = path.expanduser()
            self._dialogue.save(path)
        except FileExistsError:
            self._fail(say("save_exists", path=path))
        except (OSError, RuntimeError) as error:
            self._fail(say("save_failed", path=path, reason=error))
        else:
            self._note(say("saved", path=path))

    async def _help(self, _argument: str) -> None:
        self._note(say("help"))

    async def _leave(self, _argument: str) -> None:
        self._leaving = True

    def _show(self, text: str) -> None:
        self._output.write(printable(text))
        self._output.flush()

    def _note(self, text: str) -> None:
        self._print("ansibrightblack", text)

    def _fail(self, reason: str) -> None:
        self._print("ansired", say("error", reason=reason))

    def _print(self, style: str, text: str) -> None:
        fragment = (style if self._styled else "", printable(text))
        print_formatted_text(FormattedText([fragment]), output=self._output)


class _PrivateHistory(FileHistory):
    """A history that a full disk does not stop the dialogue for."""

    def store_string(self, string: str) -> None:
        """Append it to the file, or go on without."""
        try:
            super().store_string(string)
        except OSError:
            return


def _open_history(data_directory: Path) -> tuple[History, str]:
    """Return the history and "", or one in memory and the reason why it cannot be kept."""
    try:
        data_directory = data_directory.expanduser()
        data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = data_directory / HISTORY_NAME
        path.touch(mode=0o600)
        path.read_bytes()
    except (OSError, RuntimeError) as error:
        return InMemoryHistory(), str(error)
    return _PrivateHistory(str(path)), ""


@contextlib.contextmanager
def _typing_ahead(keyboard: int) -> Iterator[None]:
    """Keep what is typed now for the next prompt, instead of showing it in the middle of an answer.

    Ctrl-C remains a signal. `keyboard` is a file descriptor; one that is no terminal is left alone.
    """
    if not os.isatty(keyboard):
        yield
        return
    before = termios.tcgetattr(keyboard)
    during = termios.tcgetattr(keyboard)
    during[0] &= ~termios.ICRNL
    during[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(keyboard, termios.TCSANOW, during)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)


def _keys() -> KeyBindings:
    """Return the keys: Enter sends, a backslash before it or Escape or Alt with it makes a new line."""
    keys = KeyBindings()
    in_prompt = has_focus(DEFAULT_BUFFER)

    @keys.add("enter", filter=in_prompt)
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=in_prompt)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
