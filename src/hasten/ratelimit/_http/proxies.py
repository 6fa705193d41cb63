"""Who the client is, behind proxies.

A header that names the client can be written by the client. It is believed only as far as the
proxies that are trusted have written it: from its right end to the left, as long as who is named
there is trusted itself. The first one who is not is the client.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Final, NamedTuple, TypeAlias

from hasten._asgi import Scope, header_values
from hasten.errors import InvalidOption
from hasten.ratelimit._http.addresses import MAX_CHARS as ADDRESS_CHARS
from hasten.ratelimit._http.addresses import Address, parse
from hasten.ratelimit._rates import to_limit

Network: TypeAlias = IPv4Network | IPv6Network

FORWARDED: Final = "forwarded"
LISTS: Final = ("x-forwarded-for", FORWARDED)
"""Headers that every proxy on the way adds to. Of others the last value alone counts."""

MAX_HOPS: Final = 32

_FORWARDING: Final = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"true-client-ip"})

_MAPPED: Final = IPv6Network("::ffff:0:0/96")

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME: Final = re.compile(_WORD.encode())

# RFC 7239, section 4; what many write unquoted in spite of it ("10.0.0.1:80") is understood.
_PAIR: Final = re.compile(rf'({_WORD})=("(?:[^"\\]|\\.)*"|[!#$%&\'*+.^_`|~0-9A-Za-z:\[\]-]*)')
_ELEMENT: Final = re.compile(rf"[ \t]*{_PAIR.pattern}(?:[ \t]*;(?:[ \t]*{_PAIR.pattern})?)*[ \t]*")
_ESCAPED: Final = re.compile(r"\\(.)")

MAX_CHARS: Final = 4_000
"""Of a header so much of its right end is read: more than any chain of proxies writes."""

MAX_COMMAS: Final = 16
"""So many may be within the quotes of one element."""


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
            raise InvalidOption("trusted_proxies", trusted, f"several: [{trusted!r}]")
        self._trusted = [_network(each) for each in trusted]
        self._hops = _hops(hops)
        if self._trusted and self._hops:
            raise InvalidOption("hops", hops, "no trusted_proxies beside it", code="conflict")
        self._name = header.lower().encode()
        if not _NAME.fullmatch(self._name):
            raise InvalidOption("proxy_header", header, "the name of a header")
        self._is_list = header.lower() in LISTS
        self._is_forwarded = header.lower() == FORWARDED
        self._known: dict[str, bool] = {}

    @property
    def are_there(self) -> bool:
        """Whether any is trusted."""
        return bool(self._trusted or self._hops)

    def client(self, scope: Scope) -> Found:
        """Who asked. An oddity is "FORWARDED_BROKEN" where what trusted proxies say cannot be
        read, and "OTHER_HEADER" where they seem to say it in another header."""
        peer: str | None = (scope.get("client") or (None,))[0] or None  # some servers say ""
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
        last = None
        for element in self._elements(scope):
            address = parse(element)
            if address is None:
                # Whatever stands left of it, nobody whom we trust has vouched for.
                return Found(last or peer, "FORWARDED_BROKEN")
            last = str(address)
            if not self._is_trusted(element):
                return Found(last)
        if last is None:
            return Found(peer, self._oddity_of_none(scope))
        return Found(last)

    def _by_hops(self, peer: str | None, scope: Scope) -> Found:
        number = 0
        for number, element in enumerate(self._elements(scope), 1):
            if number == self._hops:
                address = parse(element)
                if address is not None:
                    return Found(str(address))
                return Found(peer, "FORWARDED_BROKEN")
        # With fewer elements than proxies one of them was passed by: the client wrote them all.
        return Found(peer, None if number else self._oddity_of_none(scope))

    def _oddity_of_none(self, scope: Scope) -> str | None:
        return "OTHER_HEADER" if self.is_forwarded(scope) else None

    def _elements(self, scope: Scope) -> Iterator[str]:
        """Who is named, the nearest one first."""
        value = header_values(scope["headers"], self._name)
        if value is None:
            return
        text = value.decode("latin-1")
        if not self._is_list:
            yield text.rpartition(",")[2]
            return
        if len(text) > MAX_CHARS:
            text = text[-MAX_CHARS:].partition(",")[2]
        if self._is_forwarded:
            yield from map(_for, _elements_of(text))
        else:
            yield from reversed(text.split(","))

    def _is_trusted(self, text: str) -> bool:
        if len(text) > ADDRESS_CHARS:
            return False  # no address, and not to be remembered
        known = self._known.get(text)
        if known is None:
            # Somebody else's translator may stand behind what looks like the address of a proxy.
            address = parse(text, translated=False)
            known = address is not None and any(_holds(each, address) for each in self._trusted)
            if len(self._known) >= 10_000:
                self._known.clear()
            self._known[text] = known
        return known


def _network(text: object) -> Network:
    try:
        network = ip_network(str(text), strict=False)
    except ValueError:
        raise InvalidOption(
            "trusted_proxies", text, "addresses and ranges: ['10.0.0.0/8']"
        ) from None
    if network.prefixlen == 0 or network == _MAPPED:
        raise InvalidOption(
            "trusted_proxies",
            text,
            "the addresses of your own proxies: trusting all lets each client choose its address",
        )
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        # As it is compared with addresses: those that stand for IPv4 are it.
        first = IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        return IPv4Network((first, network.prefixlen - 96))
    return network


def _hops(hops: object) -> int:
    found = to_limit("hops", hops)
    if found > MAX_HOPS:
        raise InvalidOption("hops", hops, f"at most {MAX_HOPS}", code="out_of_range")
    return found


def _holds(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network


def _elements_of(text: str) -> Iterator[str]:
    """The elements of Forwarded from the right to the left; "" for what is none, which ends it.

    An element is the shortest end of the text that can be one. Whoever reads from the left can be
    led by a quote that the client has opened to take what proxies have added for its contents.
    """
    end = start = len(text)
    commas = 0
    while end > 0:
        start = text.rfind(",", 0, start)
        element = text[start + 1 : end]
        if _ELEMENT.fullmatch(element):
            yield element
        elif element.strip(" \t"):
            commas += 1  # this one may be within quotes
            if start >= 0 and commas <= MAX_COMMAS:
                continue
            yield ""
            return
        end = start
        commas = 0


def _for(element: str) -> str:
    """Whom an element of Forwarded names, "" for nobody. RFC 7239, section 4."""
    for name, value in _PAIR.findall(element):
        if name.lower() == "for":
            return _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
    return ""
