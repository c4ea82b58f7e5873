"""The terminal client, `chatgate chat`: a single question or a dialogue, with the plain API or OpenAI's protocol.

command     the options, the single question, the exit codes
terminal    the interactive session: prompt, keys, commands
dialogue    what has been said, and its form in a file
server      one server: its address, requests, answers as they arrive
wire        request bodies and events of the two protocols
printable   what may reach a terminal
words       every sentence that is shown
"""

from chatgate.cli.chat.command import chat

__all__ = ["chat"]
