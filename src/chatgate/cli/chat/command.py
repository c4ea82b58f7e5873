"""Own the command `chatgate chat`: its options, the single question, and the exit codes.

0 the answer is whole, 1 there is none, 2 wrong usage, 130 Ctrl-C. A single question prints the answer and nothing else
to stdout, errors to stderr. Run by the command line; the dialogue on a terminal is `terminal`'s.
"""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path
from typing import Final

import click

from chatgate.cli.chat.dialogue import Dialogue
from chatgate.cli.chat.printable import printable
from chatgate.cli.chat.server import Address, ChatFailureError, Server, read_address
from chatgate.cli.chat.wire import OPENAI, well_formed
from chatgate.cli.chat.words import say
from chatgate.transport import Transport

INTERRUPTED: Final = 128 + 2
"""What a shell reports for a program ended by SIGINT."""


@click.command("chat", help=say("command_help"))
@click.argument("message", required=False)
@click.option(
    "--url",
    envvar="CHATGATE_URL",
    default="http://127.0.0.1:5000/v1",
    show_default=True,
    show_envvar=True,
    help=say("option_url"),
)
@click.option("--key", envvar="CHATGATE_KEY", default="", show_envvar=True, help=say("option_key"))
@click.option("--model", default="", help=say("option_model"))
@click.option("--system", default="", help=say("option_system"))
@click.option("--max-tokens", type=click.IntRange(min=1), help=say("option_max_tokens"))
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="CHATGATE_DATA", show_envvar=True, help=say("option_data")
)
@click.option("--data-home", type=click.Path(path_type=Path), envvar="XDG_DATA_HOME", hidden=True)
def chat(
    message: str | None,
    url: str,
    key: str,
    model: str,
    system: str,
    max_tokens: int | None,
    data: Path | None,
    data_home: Path | None,
) -> None:
    """Read the options, then ask the single question or hold the dialogue."""
    try:
        address = read_address(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise click.BadParameter(say("bad_key"), param_hint="--key")
    dialogue = Dialogue(system=well_formed(system), model=well_formed(model), max_tokens=max_tokens)
    # As the settings have it, a relative XDG_DATA_HOME is ignored. The home is looked up when a history is opened:
    # a user without one can still ask a single question.
    base = data_home if data_home is not None and data_home.is_absolute() else Path("~/.local/share")
    directory = data or base / "chatgate"
    try:
        text = _single_question(message)
        asyncio.run(_converse(address, key, dialogue, text, directory))
    except KeyboardInterrupt:
        click.echo(err=True)
        raise SystemExit(INTERRUPTED) from None
    except ChatFailureError as error:
        click.echo(printable(say("error", reason=error)), err=True)
        raise SystemExit(1) from error


def _single_question(message: str | None) -> str:
    """Return the message and the piped text, or "" when a dialogue is wanted. Raises click.UsageError when neither."""
    # There is no stdin at all when the caller closed it.
    on_terminal = sys.stdin is not None and sys.stdin.isatty()
    piped = b"" if sys.stdin is None or on_terminal else sys.stdin.buffer.read()
    parts = [message or "", piped.decode("utf-8-sig", "replace")]
    text = well_formed("\n\n".join(part.rstrip() for part in parts if part.strip()))
    if not text and not (message is None and on_terminal and sys.stdout.isatty()):
        raise click.UsageError(say("no_message"))
    return text


async def _converse(address: Address, key: str, dialogue: Dialogue, text: str, directory: Path) -> None:
    """Ask the single question, or hold a dialogue when the text is empty. Raises ChatFailureError."""
    transport = Transport()
    transport.start()
    try:
        server = Server(transport, address, key)
        if address.dialect is OPENAI and not dialogue.model:
            dialogue.model = await server.first_model()
        if text:
            await _answer(server, dialogue, text)
        else:
            # prompt_toolkit takes longer to load than all the rest, and a single question has no use for it.
            from chatgate.cli.chat.terminal import Terminal  # noqa: PLC0415

            await Terminal(server, dialogue, directory).run()
    finally:
        await transport.close()


async def _answer(server: Server, dialogue: Dialogue, text: str) -> None:
    """Print the answer to stdout as it arrives, and end it with a newline. Raises ChatFailureError."""
    on_terminal = sys.stdout.isatty()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    last = "\n"

    def write(delta: str) -> None:
        nonlocal last
        last = delta
        # What is piped on is the answer to the byte; only a terminal has to be protected from it.
        sys.stdout.write(printable(delta) if on_terminal else delta)
        sys.stdout.flush()

    try:
        said = await server.ask(dialogue.question(text), write)
    finally:
        if not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()
    if said.cut_at_limit:
        click.echo(say("cut_at_limit"), err=True)
