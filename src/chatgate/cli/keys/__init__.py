"""The command `chatgate keys`: make, look at, change and end the keys of the gateway, while it runs or not.

command   the subcommands, their options and exit codes
options   what is written after the options: limits, budgets, dates, lists
shown     a key in words, in a table and in JSON
"""

from chatgate.cli.keys.command import keys

__all__ = ["keys"]
