"""The command `chatgate connect`: the configuration of a client, with this server's address and a key.

command  the command, its options and exit codes
clients  what is known about clients: a file each in `catalog/`, and how its text is filled in
page     the same for the reader of `docs/clients.md`
"""

from chatgate.cli.connect.command import connect

__all__ = ["connect"]
