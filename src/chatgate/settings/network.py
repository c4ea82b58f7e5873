"""What may stand where an address, a URL, a proxy or a path is asked for.

Pure readers of single values: each returns what it understood or raises `Refusal`, which never repeats a URL, since a
URL may carry a password. Called by `reading` and `upstreams`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct

from chatgate.settings.problems import Refusal, shown
from chatgate.vocabulary.upstreams import Origin

_LABELS = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?\Z")
_ROUTE = re.compile(r"[A-Za-z0-9._~/-]*\Z")
_PRINTABLE = re.compile(r"[!-~]+\Z")
_HOST_MAX_CHARACTERS = 253

# IANA's registered ports (https://www.iana.org/assignments/service-names-port-numbers, read 2026-11-23).
_PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_BUILT_IN_PATHS = frozenset({"chat/completions", "healthz", "metrics", "models", "openapi.json", "readyz", "v1"})
_BUILT_IN_FOLDERS = ("models/", "v1/")


def read_host(text: str) -> str:
    """Return a host name in lower case, or an address, which may stand in brackets, without them."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in host:
        try:
            # A zone (`%eth0`) names an interface of one machine, which no configuration should depend on.
            return str(ipaddress.IPv6Address(host.replace("%", "/")))
        except ValueError:
            raise Refusal(f"is no host name and no address{shown(text)}") from None
    if len(host) > _HOST_MAX_CHARACTERS or not _LABELS.match(host):
        raise Refusal(f"is no host name and no address{shown(text)}", "names outside ASCII are written as xn--…")
    if host.rstrip(".").rpartition(".")[2].isdigit():
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise Refusal(f"is no valid IPv4 address{shown(text)}") from None
    return host.lower()


def read_network(text: str) -> str:
    """Return an address or a CIDR in its canonical form.

    Bits behind the prefix are refused: they are a slip more often than not, and would let in more than was meant.
    """
    address, slash, prefix = text.partition("/")
    # A zone has no meaning here, and a netmask in place of a prefix is too easily the wrong way round.
    unreadable = "%" in text or (slash and not (prefix.isascii() and prefix.isdigit()))
    try:
        network = ipaddress.ip_network("" if unreadable else text, strict=False)
        own = ipaddress.ip_address(address)
    except ValueError:
        raise Refusal(
            f"is no address and no CIDR{shown(text)}", "a CIDR looks like 10.0.0.0/8 or 2001:db8::/32"
        ) from None
    if network.network_address != own:
        raise Refusal(f"has bits set behind its prefix{shown(text)}", f"write {network} or {own}")
    return str(network if slash else own)


def read_route(text: str) -> str:
    """Return the path of the plain API without slashes around it; "" means `POST /`."""
    if not _ROUTE.match(text):
        raise Refusal(
            "must be a path of letters, digits and . _ ~ / -",
            "api means POST /api; host names and schemes are left out",
        )
    route = text.strip("/")
    if any(segment in {"", ".", ".."} for segment in route.split("/")) and route:
        raise Refusal("must not have empty, . or .. segments")
    if route in _BUILT_IN_PATHS or route.startswith(_BUILT_IN_FOLDERS):
        raise Refusal(f"is a path that the gateway itself answers on{shown(route)}", "choose another one, such as api")
    return route


def _split(url: str, allowed: str) -> tuple[SplitResult, str, int | None]:
    """Take a URL apart: its pieces, its host and its port."""
    if not _PRINTABLE.match(url):
        raise Refusal("must be a URL without blanks and without characters outside ASCII")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refusal("must be a URL; its host or port cannot be read") from None
    if "://" not in url or parts.scheme not in allowed.split(", "):
        raise Refusal(f"must be a URL that starts with {allowed}", "write it as scheme://host:port")
    if not parts.hostname or port == 0 or parts.netloc.endswith(":"):
        raise Refusal("must be a URL that names a host, and a port from 1 to 65535 if any")
    if "?" in url or "#" in url:
        raise Refusal("must be a URL without a query and without a fragment")
    try:
        return parts, read_host(parts.hostname), port
    except Refusal as refusal:
        raise Refusal("must be a URL; its host is no host name and no address", refusal.hint) from None


def read_base_url(url: str) -> tuple[Origin, str]:
    """Return the origin of a provider's base URL, without a proxy, and its path without a trailing slash."""
    parts, host, port = _split(url, "http, https")
    if "@" in parts.netloc:
        raise Refusal("must be a URL without a user name or password", "the key goes into api_key")
    path = parts.path.rstrip("/")
    if path.endswith(("/chat/completions", "/models")):
        raise Refusal(
            "must be the URL that the paths of the API are added to", "leave /chat/completions or /models out"
        )
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    return Origin(scheme, host, port or (443 if scheme == "https" else 80)), path


class Proxy(Struct, frozen=True):
    """A proxy: its full URL with an explicit port, and those parts of it that must stay secret."""

    url: str
    secrets: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        """Hide the credentials."""
        return f"Proxy({without_credentials(self.url)})"


def read_proxy(url: str) -> Proxy:
    """Return an outbound proxy; a port that was left out is the one registered for the scheme."""
    parts, host, port = _split(url, "http, https, socks5, socks5h")
    if parts.path not in {"", "/"}:
        raise Refusal("must be a proxy's URL without a path")
    user_information, at, _ = parts.netloc.rpartition("@")
    user, _, password = user_information.partition(":")
    # Some proxies take a token as the user name and no password at all.
    secret = password or user
    address = f"[{host}]" if ":" in host else host
    return Proxy(
        f"{parts.scheme}://{user_information}{at}{address}:{port or _PROXY_PORTS[parts.scheme]}",
        frozenset({secret, unquote(secret)} - {""}),
    )


def without_credentials(proxy_url: str) -> str:
    """Return a proxy's URL as it may be shown."""
    scheme, _, rest = proxy_url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


class Exemption(Struct, frozen=True):
    """One item of NO_PROXY. Exactly one of `network`, `domain` says which hosts; "" as `domain` means all of them."""

    domain: str = ""
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None

    def covers(self, origin: Origin) -> bool:
        """Say whether connections to `origin` go past the proxy. Names are not resolved."""
        if self.port not in {None, origin.port}:
            return False
        if self.network is not None:
            try:
                return ipaddress.ip_address(origin.host) in self.network
            except ValueError:
                return False
        return not self.domain or f".{origin.host.rstrip('.')}".endswith(f".{self.domain}")


def read_no_proxy(text: str) -> tuple[Exemption, ...]:
    """Return the items of a NO_PROXY list, which commas or blanks separate.

    As in curl, a domain stands for itself and everything below it, with or without a leading dot or `*.`.
    """
    return tuple(_read_exemption(item) for item in re.split(r"[,\s]+", text) if item)


def _read_exemption(item: str) -> Exemption:
    if item == "*":
        return Exemption()
    try:
        return Exemption(network=ipaddress.ip_network(item.strip("[]"), strict=False))
    except ValueError:
        pass
    host, colon, port = item.rpartition(":")
    if colon and not (port.isascii() and port.isdigit() and int(port[:6]) in range(1, 65_536)):
        raise Refusal(f"has an item with a bad port{shown(item)}")
    try:
        name = read_host((host if colon else item).removeprefix("*").removeprefix("."))
    except Refusal:
        raise Refusal(
            f"has an item that is no host, suffix, address or CIDR{shown(item)}", "a network is written as 10.0.0.0/8"
        ) from None
    number = int(port) if colon else None
    try:
        return Exemption(network=ipaddress.ip_network(name), port=number)
    except ValueError:
        return Exemption(name.rstrip("."), port=number)
