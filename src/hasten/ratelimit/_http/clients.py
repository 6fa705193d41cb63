"""Who asks, as limits know it; and what is odd about that, said once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hasten._asgi import Scope
from hasten._logs import get_logger
from hasten.ratelimit._http.addresses import Addresses, is_private
from hasten.ratelimit._http.proxies import Proxies

logger = get_logger("hasten.ratelimit")

UNKNOWN: Final = "unknown"
"""The address of clients that have none: behind a Unix socket, in a test."""

LOOKED_AT: Final = 1_000
"""So many requests are looked at for signs of a proxy that nobody has told us of."""

_TEXTS: Final[Mapping[str, str]] = {
    "FORWARDED_BROKEN": "what a trusted proxy says of its client cannot be read",
    "OTHER_HEADER": "a trusted proxy does not name its client in the header that is read, but "
    "there is another one: its clients are counted as one; name the header by proxy_header=",
    "NO_CLIENT": "the server tells no client address: all clients without one are counted as one; "
    "behind a Unix socket, let the proxy name them: hops=1",
    "FORWARDED_HEADER": "requests come through a proxy that is not trusted, and all its clients "
    "are counted as one: name it by trusted_proxies=, or let the server tell the client's address",
    "DOUBLE_COUNT": "two middlewares around one application have equal limits: the inner one does "
    "not count them again. Install it once, or give each middleware a namespace of its own",
    "ROOT_PATH": "the application is not known to remove the root path or to keep it: limits are "
    "matched with and without it. Write their paths as the application's routes have them, and add "
    "the middleware to the application instead of wrapping it",
    "MOUNT_PATH": "a limit is for the path within a mounted application of Litestar; it is matched "
    "with and without the path of the mount. Write the whole path",
    "KEY_ADDRESS": "a key is the address of who is connected, as it is written: clients behind a "
    "proxy are one, and one of IPv6 has as many as it likes. Take request.client",
}


class Oddities:
    """What operators should know of, each said once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, code: str, detail: str = "") -> None:
        if code not in self._said:
            self._said.add(code)
            logger.warning("%s%s [%s]", _TEXTS[code], detail and f" ({detail})", code)


class Clients:
    """Addresses of clients, behind the proxies that there are."""

    def __init__(self, proxies: Proxies, addresses: Addresses, oddities: Oddities) -> None:
        self._proxies = proxies
        self._addresses = addresses
        self._oddities = oddities
        self._trusts = proxies.are_there
        self._looks_for_proxies = 0 if self._trusts else LOOKED_AT

    def of(self, scope: Scope) -> str:
        """Who asks. An address of IPv6 is its network; `UNKNOWN` if there is none."""
        if not self._trusts and not self._looks_for_proxies:
            peer = scope.get("client")
            if peer and peer[0]:
                return self._addresses.key(peer[0])
        address, oddity = self._proxies.client(scope)
        if oddity is not None:
            self._oddities.say(oddity)
        if self._looks_for_proxies:
            self._look_for_proxies(scope, address)
        if address is None:
            self._oddities.say("NO_CLIENT")
            return UNKNOWN
        return self._addresses.key(address)

    def _look_for_proxies(self, scope: Scope, address: str | None) -> None:
        """Say it if there is a proxy that nobody has told us of: all clients look like it."""
        self._looks_for_proxies -= 1
        if self._proxies.is_forwarded(scope) and is_private(address):
            self._looks_for_proxies = 0
            self._oddities.say("FORWARDED_HEADER", f"it is {address}")
