"""The command line: one file per command, loaded when it is called."""

from __future__ import annotations

from importlib import import_module

import click

from chatgate import __version__

_COMMANDS = {
    "serve": ("chatgate.cli.serve", "Run the gateway; this is what `chatgate` alone does."),
    "chat": ("chatgate.cli.chat", "Talk to a model through a gateway, in the terminal."),
    "keys": ("chatgate.cli.keys", "Make, list, change and revoke the keys of this gateway."),
    "usage": ("chatgate.cli.usage", "Show calls, tokens and cost by key, model, day."),
    "audit": ("chatgate.cli.audit", "Recompute every counter from the ledger's rows."),
    "backup": ("chatgate.cli.backup", "Copy the database while the gateway runs."),
    "restore": ("chatgate.cli.restore", "Put a copy in the place of the database."),
    "import": ("chatgate.cli.importing", "Move in from one-api, new-api or LiteLLM."),
    "providers": ("chatgate.cli.providers", "List the vendors known by name, and try one with your key."),
    "connect": ("chatgate.cli.connect", "Print the configuration that connects a client with this server."),
    "check": ("chatgate.cli.check", "Validate the configuration and say what it will do."),
    "drill": ("chatgate.cli.drill", "Show how this configuration copes with providers that misbehave."),
    "health": ("chatgate.cli.health", "Ask the gateway of this configuration whether it is alive."),
}


class _Commands(click.Group):
    """Finds a command's module by its name, and takes `serve` when none is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        # The module's own name: that of a command may be a word of the language, such as import.
        command: click.Command = getattr(import_module(module), module.rpartition(".")[2])
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "--version"}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["--help", "-h"]})
@click.version_option(__version__, prog_name="chatgate", message="%(prog)s %(version)s")
def main() -> None:
    """Run chatgate: one address in front of your model providers."""
