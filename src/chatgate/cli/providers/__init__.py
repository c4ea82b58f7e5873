"""The command `chatgate providers`: which vendors are known by name, and whether one answers with the operator's key.

command  the commands, their options and exit codes
shown    the catalogue as a table and as JSON
trial    one vendor, step by step: reached, key, models, a chat, a stream
trouble  what a failure most likely means, and what helps
"""

from chatgate.cli.providers.command import providers

__all__ = ["providers"]
