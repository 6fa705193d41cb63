"""Who the client is, behind proxies.

A header that names the client can be written by the client. It is believed only as far as the
proxies that are trusted have written it: from its right end to the left, as long as who is named
there is trusted itself. The first one who is not is the client.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, NamedTuple, TypeAlias

from hasten._asgi import Scope, header_values
from hasten.errors import InvalidLimit
from hasten.ratelimit.addresses import Address, parse
from hasten.ratelimit.rates import to_limit

Network: TypeAlias = IPv4Network | IPv6Network

FORWARDED: Final = "forwarded"
LISTS: Final = ("x-forwarded-for", FORWARDED)
"""Headers that every proxy on the way adds to. Of others the last value alone counts."""

MAX_HOPS: Final = 32

_FORWARDING: Final = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"true-client-ip"})

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


class Found(NamedTuple):
    """The client of a request: its address as it was written, and what was odd about that."""

    address: str | None
    """None if the connection has none."""
    oddity: str | None = None
    """The code of something that the operator should know."""


class Proxies:
    """The proxies in front of an application.

    trusted are addresses and ranges. hops is how many proxies there are, whatever their addresses:
    for those that nobody but them can reach. header is what they write.
    """

    def __init__(
        self, trusted: Collection[str] = (), *, hops: int = 0, header: str = "x-forwarded-for"
    ) -> None:
        if isinstance(trusted, str):
            raise InvalidLimit(
                "TRUSTED_PROXIES", "trusted_proxies", trusted, f"several: [{trusted!r}]"
            )
        self._trusted = [_network(each) for each in trusted]
        self._hops = _hops(hops)
        if self._trusted and self._hops:
            raise InvalidLimit("TRUSTED_PROXIES", "hops", hops, "no trusted_proxies beside it")
        self._name = header.lower().encode()
        if not _NAME.match(self._name):
            raise InvalidLimit("PROXY_HEADER", "proxy_header", header, "the name of a header")
        self._is_list = header.lower() in LISTS
        self._is_forwarded = header.lower() == FORWARDED
        self._known: dict[str, bool] = {}

    @property
    def are_there(self) -> bool:
        """Whether any is trusted."""
        return bool(self._trusted or self._hops)

    def client(self, scope: Scope) -> Found:
        """Who asked. An oddity is "FORWARDED_HEADER" where a header came and none is trusted, and
        "FORWARDED_BROKEN" where one of a trusted proxy could not be read."""
        peer: str | None = (scope.get("client") or (None,))[0]
        if peer is None and not self._hops:
            return Found(None)
        if not self.are_there:
            return Found(peer)
        if self._hops:
            return self._by_hops(peer, scope)
        if not self._is_trusted(peer or ""):
            return Found(peer)
        return self._by_address(peer, scope)

    @staticmethod
    def is_forwarded(scope: Scope) -> bool:
        """Whether some proxy seems to have handed the request on."""
        return any(name.lower() in _FORWARDING for name, _ in scope["headers"])

    def _by_address(self, peer: str | None, scope: Scope) -> Found:
        last = peer
        for element in self._elements(scope):
            address = parse(element)
            if address is None:
                # Whatever stands left of it, nobody whom we trust has vouched for.
                return Found(last, "FORWARDED_BROKEN")
            last = str(address)
            if not self._is_trusted(last):
                return Found(last)
        return Found(last)

    def _by_hops(self, peer: str | None, scope: Scope) -> Found:
        for number, element in enumerate(self._elements(scope), 1):
            if number == self._hops:
                address = parse(element)
                if address is not None:
                    return Found(str(address))
                return Found(peer, "FORWARDED_BROKEN")
        # With fewer elements than proxies one of them was passed by: the client wrote them all.
        return Found(peer)

    def _elements(self, scope: Scope) -> Iterator[str]:
        """Who is named, the nearest one first."""
        value = header_values(scope["headers"], self._name)
        if value is None:
            return
        text = value.decode("latin-1")
        if not self._is_list:
            yield text.rpartition(",")[2]
            return
        parts = _split(text) if self._is_forwarded else text.split(",")
        for part in list(reversed(parts))[: MAX_HOPS + self._hops]:
            yield _for(part) if self._is_forwarded else part

    def _is_trusted(self, text: str) -> bool:
        known = self._known.get(text)
        if known is None:
            address = parse(text)
            known = address is not None and any(_holds(each, address) for each in self._trusted)
            if len(self._known) >= 10_000:
                self._known.clear()
            self._known[text] = known
        return known


def _network(text: object) -> Network:
    try:
        network = ip_network(str(text), strict=False)
    except ValueError:
        raise InvalidLimit(
            "TRUSTED_PROXIES", "trusted_proxies", text, "addresses and ranges: ['10.0.0.0/8']"
        ) from None
    if not network.prefixlen:
        raise InvalidLimit(
            "TRUSTED_PROXIES",
            "trusted_proxies",
            text,
            "the addresses of your own proxies: trusting all lets each client choose its address",
        )
    return network


def _hops(hops: object) -> int:
    found = to_limit("hops", hops)
    if found > MAX_HOPS:
        raise InvalidLimit("HOPS", "hops", hops, f"at most {MAX_HOPS}")
    return found


def _holds(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network


def _split(text: str) -> list[str]:
    """The elements of a list, whose quoted strings may hold commas. RFC 9110, section 5.6.1."""
    parts: list[str] = []
    start = 0
    is_quoted = is_escaped = False
    for place, char in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_quoted and char == "\\":
            is_escaped = True
        elif char == '"':
            is_quoted = not is_quoted
        elif char == "," and not is_quoted:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _for(element: str) -> str:
    """Whom an element of Forwarded names, "" for nobody. RFC 7239, section 4."""
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip(" \t").lower() == "for":
            value = value.strip(" \t")
            if len(value) >= 2 and value[0] == value[-1] == '"':
                return re.sub(r"\\(.)", r"\1", value[1:-1])
            return value if _TOKEN.match(value) else ""
    return ""
