"""What is known about clients: one TOML file each, with the text of its configuration.

Owns the files' form and how address, key and model are put in. `@URL@` in a text is the server's address without a
path, `@BASE@` the same with `/v1`, `@KEY@` and `@MODEL@` what they say.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

Protocol = Literal["openai_chat", "responses", "anthropic", "gemini"]

PROTOCOLS: dict[Protocol, str] = {
    "openai_chat": "OpenAI Chat Completions",
    "responses": "OpenAI Responses",
    "anthropic": "Anthropic Messages",
    "gemini": "Gemini",
}
"""What each is called."""

_FOLDER = files("chatgate.cli.connect").joinpath("catalog")
_PLACEHOLDER = re.compile(r"@(URL|BASE|KEY|MODEL)@")
# No quotes, backslashes and controls: what is filled in means the same in a shell, in JSON, YAML and TOML.
_HARMLESS = re.compile(r"[^'\"\\`$@\x00-\x20\x7f]+")
_URL = re.compile(r"https?://[A-Za-z0-9.\-_:\[\]/~%]+")
_CONTAINERS_HOST = "host.docker.internal"


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of a configuration: where it goes, and its text with placeholders."""

    where: str
    language: str
    text: str


class Client(Struct, frozen=True, forbid_unknown_fields=True):
    """A client. `in_container` says that it mostly runs in a container, where 127.0.0.1 is the container itself.

    `tried` is the version that this configuration was run with, against the demo models; None when none was.
    """

    title: str
    docs: str
    protocol: Protocol
    parts: tuple[Part, ...]
    in_container: bool = False
    tried: str | None = None


class Values(Struct, frozen=True):
    """What is put into a configuration. `url` has no path and no slash at its end. Raises ValueError when unfit."""

    url: str
    key: str
    model: str

    def __post_init__(self) -> None:
        """Refuse what would mean something else in one of the formats."""
        parts = urlsplit(self.url)
        if not _URL.fullmatch(self.url) or not parts.hostname:
            raise ValueError("--url must be an address such as http://127.0.0.1:5000")
        for name, value in (("--key", self.key), ("--model", self.model)):
            if not _HARMLESS.fullmatch(value):
                raise ValueError(f"{name} must be a text without blanks, quotes, backslashes, $ and @")


def load() -> dict[str, Client]:
    """Return the clients by the files' names."""
    found = {
        entry.name.removesuffix(".toml"): msgspec.toml.decode(entry.read_bytes(), type=Client)
        for entry in _FOLDER.iterdir()
        if entry.name.endswith(".toml")
    }
    return dict(sorted(found.items()))


def root_of(url: str) -> str:
    """Return an address without the `/v1` and the slash that people write after it."""
    return url.strip().rstrip("/").removesuffix("/v1").rstrip("/")


def filled(client: Client, part: Part, values: Values) -> str:
    """Return the text of a part. A client in a container reaches this machine by its host's name."""
    url = values.url
    if client.in_container:
        url = re.sub(r"//(127\.0\.0\.1|localhost|\[::1\])(?=:|/|$)", f"//{_CONTAINERS_HOST}", url)
    known = {"URL": url, "BASE": f"{url}/v1", "KEY": values.key, "MODEL": values.model}
    return _PLACEHOLDER.sub(lambda found: known[found[1]], part.text)
