"""The accounts at providers: from the file, the seed's names and the proxies of the environment.

Owns which credential, base URL and proxy each upstream gets. Called by `reading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from chatgate.settings.document import Document
from chatgate.settings.entries import Entry, Item, read_items
from chatgate.settings.environment import Environment, read_secret_file
from chatgate.settings.keys import UpstreamKeys
from chatgate.settings.network import Exemption, Proxy, read_base_url, read_no_proxy, read_proxy
from chatgate.settings.problems import Place, Problems, Refusal, nearest, shown
from chatgate.vocabulary.identity import KeyKind, read_key
from chatgate.vocabulary.upstreams import Continuation, Origin, Upstream

OPENAI = "openai"
OPENAI_BASE_URL = "https://api.openai.com/v1"
OPENAI_COMPATIBLE = "openai_compatible"
"""The provider of an upstream that names none."""

_OPENAI_ORIGIN = read_base_url(OPENAI_BASE_URL)[0]
_KEYED = frozenset({OPENAI, "openai_responses", "anthropic", "gemini"})
"""Providers at whose own addresses nothing answers without a key."""

_CREDENTIAL_KEYS = ("api_key", "api_keys", "api_key_env", "api_key_file")
_NO_PROXY_WORDS = frozenset({"", "none"})
_DEMO = "demo"


class Accounts(Struct, frozen=True):
    """The upstreams, the default one first, what they say about continuing, and every secret read for them."""

    upstreams: tuple[Upstream, ...]
    continuations: Mapping[str, Continuation | None]
    secrets: frozenset[str]


class _Credential(Struct, frozen=True):
    """What is shown to a provider. `is_none` says that the operator declared that no key is needed."""

    api_keys: tuple[str, ...] = ()
    is_none: bool = False


def read_upstreams(
    document: Document, environment: Environment, providers: Mapping[str, str | None], problems: Problems
) -> Accounts:
    """Read `[[upstreams]]`, or make the one that the environment alone describes.

    `providers` maps the names of the catalogue to their base URLs, None for software that runs anywhere.
    """
    return _Reader(document, environment, providers, problems).read()


def read_one(
    table: Mapping[str, object],
    directory: Path,
    environment: Environment,
    providers: Mapping[str, str | None],
    problems: Problems,
) -> Upstream | None:
    """Read an upstream that stands in no file, with the proxy of the environment; None when something is wrong.

    `table` is what an item of `[[upstreams]]` would be; relative paths in it start at `directory`.
    """
    document = Document("the command line", directory, {"upstreams": [table]})
    reader = _Reader(document, environment, providers, problems)
    items = read_items(UpstreamKeys, document, ("upstreams",), problems)
    return reader.read_item(items[0], is_default=False) if items else None


class _Reader:
    def __init__(
        self,
        document: Document,
        environment: Environment,
        providers: Mapping[str, str | None],
        problems: Problems,
    ) -> None:
        self._providers = providers
        self._document = document
        self._environment = environment
        self._problems = problems
        self._secrets: set[str] = set()
        self._proxy = self._read_environment_proxy()
        self._exemptions = self._read_exemptions()

    def read(self) -> Accounts:
        items = read_items(UpstreamKeys, self._document, ("upstreams",), self._problems)
        self._refuse_bad_names(items)
        if items:
            found = [self.read_item(item, is_default=item.path[-1] == 0) for item in items]
            upstreams = tuple(upstream for upstream in found if upstream is not None)
        else:
            upstreams = (self._read_environment_upstream(),)
        continuations = {
            item.keys.name: None if item.keys.continuation == "none" else item.keys.continuation
            for item in items
            if item.keys.continuation is not None
        }
        return Accounts(upstreams, continuations, frozenset(self._secrets))

    def _refuse_bad_names(self, items: list[Item[UpstreamKeys]]) -> None:
        seen: set[str] = set()
        for item in items:
            name = item.keys.name
            if name == _DEMO:
                self._problems.add(item.place("name"), f"must not be {_DEMO}", "the built-in models have that name")
            elif name in seen:
                self._problems.add(item.place("name"), "is the name of another upstream too")
            seen.add(name)

    def _read_environment_upstream(self) -> Upstream:
        origin, path = self._base_url_of_environment() or read_base_url(OPENAI_BASE_URL)
        credential = self._credential_of_environment() or _Credential()
        is_openai = origin == _OPENAI_ORIGIN
        return Upstream(
            name=OPENAI,
            provider=OPENAI if is_openai else OPENAI_COMPATIBLE,
            origin=self._with_proxy(origin, self._environment_proxy_for(origin)),
            base_path=path,
            api_keys=credential.api_keys,
            # An unset API_KEY has always meant that callers bring one, wherever the calls go.
            key_needed=not credential.is_none and (is_openai or not credential.api_keys),
            is_default=True,
        )

    def read_item(self, item: Item[UpstreamKeys], *, is_default: bool) -> Upstream | None:
        provider = item.keys.provider or OPENAI_COMPATIBLE
        if provider not in self._providers:
            hint = nearest(provider, self._providers) or f"known are {', '.join(sorted(self._providers))}"
            self._problems.add(item.place("provider"), f"must be a provider of the catalogue{shown(provider)}", hint)
            return None
        own_credential = self._credential_of_item(item)
        credential = (self._credential_of_environment() if is_default else None) or own_credential
        own_base = self._base_url_of_item(item)
        base = (self._base_url_of_environment() if is_default else None) or own_base
        if base is None:
            if item.keys.base_url is None:
                self._problems.add(item.place("base_url"), "is missing", f"{provider} is known without an address")
            return None
        origin, path = base
        known = self._providers[provider]
        return Upstream(
            name=item.keys.name,
            provider=provider,
            origin=self._with_proxy(origin, self._proxy_of_item(item, origin)),
            base_path=path,
            api_keys=credential.api_keys,
            key_needed=not credential.is_none
            and provider in _KEYED
            and known is not None
            and origin == read_base_url(known)[0],
            is_default=is_default,
            max_in_flight=item.keys.max_in_flight,
        )

    def _base_url_of_environment(self) -> tuple[Origin, str] | None:
        entry = self._environment.find("OPENAI_BASE_URL", "upstreams[0].base_url")
        return None if entry is None else self._base_url(entry.value, entry.place)

    def _base_url_of_item(self, item: Item[UpstreamKeys]) -> tuple[Origin, str] | None:
        if item.keys.base_url is not None:
            return self._base_url(item.keys.base_url, item.place("base_url"))
        known = self._providers.get(item.keys.provider or OPENAI_COMPATIBLE)
        return None if known is None else read_base_url(known)

    def _base_url(self, url: str, place: Place) -> tuple[Origin, str] | None:
        with self._problems.about(place):
            return read_base_url(url)
        return None

    def _credential_of_environment(self) -> _Credential | None:
        entry = self._environment.find_secret("API_KEY", "upstreams[0].api_key")
        return None if entry is None else self._credential(entry.value, entry.place)

    def _credential_of_item(self, item: Item[UpstreamKeys]) -> _Credential:
        given = [name for name in _CREDENTIAL_KEYS if getattr(item.keys, name)]
        if len(given) > 1:
            self._problems.add(item.place(given[1]), f"cannot stand beside {given[0]}", "keep one of the two")
        secrets = self._keys_of_item(item, given[0]) if given else []
        places = [item.place(given[0], *([index] if given[0] == "api_keys" else [])) for index in range(len(secrets))]
        credentials = [self._credential(secret, place) for secret, place in zip(secrets, places, strict=True)]
        for index, (credential, place) in enumerate(zip(credentials, places, strict=True)):
            if credential in credentials[:index]:
                self._problems.add(place, "is the same key as an earlier one", "list each key once")
            elif credential.is_none and len(credentials) > 1:
                self._problems.add(place, "says that no key is needed, beside other keys", "remove it, or the others")
        return _Credential(
            tuple(key for credential in credentials for key in credential.api_keys),
            is_none=any(credential.is_none for credential in credentials),
        )

    def _keys_of_item(self, item: Item[UpstreamKeys], way: str) -> list[str]:
        """Return the keys that an item names in one of the four ways, the best first."""
        keys, place = item.keys, item.place(way)
        with self._problems.about(place):
            match way:
                case "api_key":
                    return [keys.api_key or ""]
                case "api_key_env":
                    # Its value is not repeated: a key pasted here in place of a name would end up in a log.
                    entry = self._environment.find_secret(keys.api_key_env or "", place.key)
                    if entry is None:
                        raise Refusal("names a variable that is not set", "it takes a name, not the key itself")
                    return [entry.value]
                case "api_key_file":
                    return [read_secret_file(item.document.directory / (keys.api_key_file or ""))]
                case _:
                    return keys.api_keys or []
        return []

    def _credential(self, secret: str, place: Place) -> _Credential:
        """Judge a key by what a header can carry."""
        kind = read_key(secret).kind
        if kind is KeyKind.NONE and secret:
            return _Credential(is_none=True)
        if kind is KeyKind.GATEWAY:
            self._problems.add(place, "is a key of this gateway", "a provider's key is needed here")
        elif not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
            self._problems.add(place, "must be a key without blanks and without characters outside ASCII")
        else:
            self._secrets.add(secret)
        return _Credential((secret,))

    def _read_environment_proxy(self) -> Proxy | None:
        for name in ("HTTPS_PROXY", "ALL_PROXY"):
            if entry := self._environment.find_any_case(name):
                return self._read_proxy(entry)
        return None

    def _read_exemptions(self) -> tuple[Exemption, ...]:
        entry = self._environment.find_any_case("NO_PROXY")
        if entry is not None:
            with self._problems.about(entry.place):
                return read_no_proxy(entry.value)
        return ()

    def _proxy_of_item(self, item: Item[UpstreamKeys], origin: Origin) -> Proxy | None:
        own = item.keys.proxy
        if own is None:
            return self._environment_proxy_for(origin)
        if own.lower() in _NO_PROXY_WORDS:
            return None
        return self._read_proxy(Entry(own, item.place("proxy")))

    def _environment_proxy_for(self, origin: Origin) -> Proxy | None:
        return None if any(exemption.covers(origin) for exemption in self._exemptions) else self._proxy

    def _read_proxy(self, entry: Entry) -> Proxy | None:
        with self._problems.about(entry.place):
            proxy = read_proxy(entry.value)
            self._secrets |= proxy.secrets
            return proxy
        return None

    @staticmethod
    def _with_proxy(origin: Origin, proxy: Proxy | None) -> Origin:
        return Origin(origin.scheme, origin.host, origin.port, proxy.url if proxy else None)
