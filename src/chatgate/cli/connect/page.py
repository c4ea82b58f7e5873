"""Writes `docs/clients.md` from the same files that the command prints.

After a change to a file of a client, or to what the gateway serves:

    python -m chatgate.cli.connect.page > docs/clients.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chatgate.cli.connect.clients import PROTOCOLS, Client, Values, filled, load
from chatgate.cli.connect.command import PLACEHOLDER_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VALUES = Values("http://127.0.0.1:5000", PLACEHOLDER_KEY, "gpt-6-luna")
"""What stands in the page for the reader's own."""

_OPENING = """\
# Clients

`chatgate connect CLIENT` prints these with the address of your server, a key and a model; `--url`, `--key` and
`--model` say others, and `chatgate connect` alone lists the clients. Here the address is the default one, `sk-cg-…`
stands for [a key of the gateway](keys.md) and `gpt-6-luna` for a model. A server that lets in callers without a key
takes the word `none` for one.

Some clients mostly run in a container, where `127.0.0.1` is the container itself. Their address is that of its host,
`host.docker.internal`, and chatgate has to listen there, with `--host 0.0.0.0`: let in only whom you want to.

`python -m chatgate.cli.connect.page` writes this page, from the files that the command prints.
"""


_TESTED = """## What the tests run

The configurations of Claude Code, Codex, curl, LangChain, llm and the `openai` packages are run as they are printed;
the other versions named above were run by hand. Each of these makes a plain turn, a streamed one and one in which a
tool is called and answers, with a provider that speaks another protocol than the client does:

- the `openai` packages for Python and Node, by chat completions, by responses, and by responses over a WebSocket;
- the `anthropic` packages for Python and TypeScript;
- Codex, over HTTP and over a WebSocket, Claude Code and Gemini CLI;
- `llm`, LangChain, LlamaIndex, pydantic-ai, openai-agents, and the Vercel AI SDK by four of its providers.
"""


def page() -> str:
    """Return the page."""
    return "\n".join([_OPENING, *_sections(load()), _TESTED]).rstrip() + "\n"


def _sections(clients: Mapping[str, Client]) -> Iterator[str]:
    for name, client in clients.items():
        yield f"## {client.title}\n"
        ran = (
            f"Run against the demo models with {client.tried}." if client.tried else "Not run: after its documentation."
        )
        yield f"`chatgate connect {name}`, over {PROTOCOLS[client.protocol]}. {ran}"
        yield f"[Its documentation]({client.docs}).\n"
        for part in client.parts:
            yield f"In {part.where}:\n"
            yield f"```{part.language}\n{filled(client, part, VALUES).strip(chr(10))}\n```\n"


if __name__ == "__main__":
    click.echo(page(), nl=False)
