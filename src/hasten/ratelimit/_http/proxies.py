"""Find the address of a client behind proxies.

Each proxy appends the address of its peer to a header such as X-Forwarded-For. Clients can send
such headers, too. So only the part that trusted proxies have written is trusted: the header is read
from right to left, and addresses of trusted proxies are skipped. The first other address is that of
the client.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Final, NamedTuple, TypeAlias

from hasten._asgi import Scope, join_header_values
from hasten._checks import check_whole_number
from hasten.errors import InvalidOption
from hasten.ratelimit._http.addresses import MAX_CHARS as ADDRESS_CHARS
from hasten.ratelimit._http.addresses import Address, parse_address

Network: TypeAlias = IPv4Network | IPv6Network

FORWARDED: Final = "forwarded"
LISTS: Final = ("x-forwarded-for", FORWARDED)
"""The headers to which each proxy appends an address.

In other headers, only the last value counts.
"""

MAX_HOPS: Final = 32

_FORWARDING: Final = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"true-client-ip"})

_MAPPED: Final = IPv6Network("::ffff:0:0/96")

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME: Final = re.compile(_WORD.encode())

# RFC 7239, section 4. Addresses with a port are accepted without quotes, too: many send them.
_PAIR: Final = re.compile(rf'({_WORD})=("(?:[^"\\]|\\.)*"|[!#$%&\'*+.^_`|~0-9A-Za-z:\[\]-]*)')
_ELEMENT: Final = re.compile(rf"[ \t]*{_PAIR.pattern}(?:[ \t]*;(?:[ \t]*{_PAIR.pattern})?)*[ \t]*")
_ESCAPED: Final = re.compile(r"\\(.)")

MAX_CHARS: Final = 4_000
"""How many characters of the right end of a header are read: more than real proxies write."""

MAX_COMMAS: Final = 16
"""The most commas that one element of Forwarded may have within quotes."""


class ClientAddress(NamedTuple):
    """The address of the client of a request, and a warning for the operator."""

    address: str | None
    """The address as the server or a proxy wrote it; None if the connection has none."""
    warning: str | None = None
    """The code of a warning in `OperatorWarnings`, None if there is nothing to warn about."""


class Proxies:
    """The proxies in front of an application.

    - trusted: the addresses and ranges of trusted proxies.
    - hops: the number of proxies, as an alternative to trusted: for applications that clients can
      reach only through the proxies.
    - header: the header in which the proxies send the client's address.
    """

    def __init__(
        self, trusted: Collection[str] = (), *, hops: int = 0, header: str = "x-forwarded-for"
    ) -> None:
        if isinstance(trusted, str):
            raise InvalidOption(
                "trusted_proxies", trusted, f"a list of addresses and ranges, such as [{trusted!r}]"
            )
        self._trusted = [_parse_network(each) for each in trusted]
        self._hops = check_whole_number("hops", hops, 0, MAX_HOPS)
        if self._trusted and self._hops:
            raise InvalidOption.conflict("hops", hops, "trusted_proxies")
        self._name = header.lower().encode()
        if not _NAME.fullmatch(self._name):
            raise InvalidOption("proxy_header", header, "the name of an HTTP header")
        self._is_list = header.lower() in LISTS
        self._is_forwarded = header.lower() == FORWARDED
        self._known: dict[str, bool] = {}

    @property
    def has_trusted_proxies(self) -> bool:
        """Whether the header of any proxy is trusted."""
        return bool(self._trusted or self._hops)

    def find_client_address(self, scope: Scope) -> ClientAddress:
        """Return the address of the client of a request.

        It has the warning "FORWARDED_BROKEN" if the header of a trusted proxy cannot be parsed, and
        "OTHER_HEADER" if the proxy seems to use another header than the configured one.
        """
        peer: str | None = (scope.get("client") or (None,))[0] or None  # some servers set ""
        if peer is None and not self._hops:
            return ClientAddress(None)
        if not self.has_trusted_proxies:
            return ClientAddress(peer)
        if self._hops:
            return self._find_client_by_hops(peer, scope)
        if not self._is_trusted(peer or ""):
            return ClientAddress(peer)
        return self._find_client_by_trusted_addresses(peer, scope)

    @staticmethod
    def has_forwarding_header(scope: Scope) -> bool:
        """Return whether the request has any header in which proxies send the client's address."""
        return any(name.lower() in _FORWARDING for name, _ in scope["headers"])

    def _find_client_by_trusted_addresses(self, peer: str | None, scope: Scope) -> ClientAddress:
        last = None
        for element in self._iter_addresses_from_nearest_proxy(scope):
            address = parse_address(element)
            if address is None:
                # The elements to the left of it were not written by a trusted proxy.
                return ClientAddress(last or peer, "FORWARDED_BROKEN")
            last = str(address)
            if not self._is_trusted(element):
                return ClientAddress(last)
        if last is None:
            return ClientAddress(peer, self._choose_warning_for_missing_header(scope))
        return ClientAddress(last)

    def _find_client_by_hops(self, peer: str | None, scope: Scope) -> ClientAddress:
        number = 0
        for number, element in enumerate(self._iter_addresses_from_nearest_proxy(scope), 1):
            if number == self._hops:
                address = parse_address(element)
                if address is not None:
                    return ClientAddress(str(address))
                return ClientAddress(peer, "FORWARDED_BROKEN")
        # If there are fewer elements than proxies, the request has bypassed a proxy. The client may
        # have written the elements, so they are ignored.
        return ClientAddress(
            peer, None if number else self._choose_warning_for_missing_header(scope)
        )

    def _choose_warning_for_missing_header(self, scope: Scope) -> str | None:
        return "OTHER_HEADER" if self.has_forwarding_header(scope) else None

    def _iter_addresses_from_nearest_proxy(self, scope: Scope) -> Iterator[str]:
        """Yield the elements of the header as text, beginning with the one of the nearest proxy."""
        value = join_header_values(scope["headers"], self._name)
        if value is None:
            return
        text = value.decode("latin-1")
        if not self._is_list:
            yield text.rpartition(",")[2]
            return
        if len(text) > MAX_CHARS:
            text = text[-MAX_CHARS:].partition(",")[2]
        if self._is_forwarded:
            yield from map(_parse_for_parameter, _split_forwarded(text))
        else:
            yield from reversed(text.split(","))

    def _is_trusted(self, text: str) -> bool:
        if len(text) > ADDRESS_CHARS:
            return False  # not an address, and too long for the cache
        known = self._known.get(text)
        if known is None:
            # Not translated: anyone could embed the address of a trusted proxy in an IPv6 address.
            address = parse_address(text, unwrap_nat64_and_6to4=False)
            known = address is not None and any(
                _is_in_network(each, address) for each in self._trusted
            )
            if len(self._known) >= 10_000:
                self._known.clear()
            self._known[text] = known
        return known


def _parse_network(text: object) -> Network:
    try:
        network = ip_network(str(text), strict=False)
    except ValueError:
        raise InvalidOption(
            "trusted_proxies", text, "an IP address or a range, such as '10.0.0.0/8'"
        ) from None
    if network.prefixlen == 0 or network == _MAPPED:
        raise InvalidOption(
            "trusted_proxies",
            text,
            "the address of your own proxy: if all are trusted, clients can choose their address",
        )
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        # Converted to IPv4, as `parse` converts the addresses that are compared with it.
        first = IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        return IPv4Network((first, network.prefixlen - 96))
    return network


def _is_in_network(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network


def _split_forwarded(text: str) -> Iterator[str]:
    """Yield the elements of a Forwarded header from right to left.

    Yields "" for a malformed element, and stops there. An element is the shortest well-formed end
    of the text. Reading from the left would be unsafe: a client could open a quoted string, and
    what the proxies append would become part of it.
    """
    end = start = len(text)
    commas = 0
    while end > 0:
        start = text.rfind(",", 0, start)
        element = text[start + 1 : end]
        if _ELEMENT.fullmatch(element):
            yield element
        elif element.strip(" \t"):
            commas += 1  # the comma before this element may be within quotes, so it is extended
            if start >= 0 and commas <= MAX_COMMAS:
                continue
            yield ""
            return
        end = start
        commas = 0


def _parse_for_parameter(element: str) -> str:
    """Return the parameter "for" of an element of a Forwarded header, "" if it has none.

    It is the address of the client of a proxy. RFC 7239, section 4.
    """
    for name, value in _PAIR.findall(element):
        if name.lower() == "for":
            return _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
    return ""
