"""Addresses of clients, as the keys that limits count by.

What is one client is decided by bits, never by how an address is written: an IPv4 address is the
same whether it comes as itself, mapped into IPv6, or by a translator (NAT64, 6to4). An IPv6 client
has a whole network to choose addresses from, so its network is the key.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

from hasten.errors import InvalidOption

Address: TypeAlias = IPv4Address | IPv6Address

DEFAULT_PREFIX: Final = 56
"""What providers give to one customer, mostly. RFC 6177."""

MAX_KNOWN: Final = 10_000

MAX_CHARS: Final = 100
"""What is longer is no address: an IPv6 address with brackets, a zone and a port is shorter."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
_WITH_PORT: Final = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d{0,5})?|(?P<v4>[0-9.]+):\d{0,5}")


class Addresses:
    """Keys by address. What was asked for once is found in a dict."""

    def __init__(self, prefix: int = DEFAULT_PREFIX) -> None:
        """prefix is how many bits of an IPv6 address tell clients apart, 32 to 128."""
        self._prefix = _prefix(prefix)
        self._known: dict[str, str] = {}

    def key(self, text: str) -> str:
        """The key for an address; what is none stands for itself (a socket, a test's client)."""
        if len(text) > MAX_CHARS:
            return text  # no address, and not to be remembered
        key = self._known.get(text)
        if key is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            key = self._known[text] = self._find(text)
        return key

    def _find(self, text: str) -> str:
        address = parse(text)
        if address is None:
            return text
        if isinstance(address, IPv4Address) or self._prefix == 128:
            return str(address)
        network = IPv6Network((int(address), self._prefix), strict=False)
        return str(network)


def parse(text: str, *, translated: bool = True) -> Address | None:
    """The address in a text, without port, brackets and zone; None if there is none.

    What stands for an IPv4 address is one: mapped, as a socket for both versions writes it, and if
    translated is true also by 6to4 and NAT64.
    """
    if len(text) > MAX_CHARS:
        return None
    text = text.strip(" \t")
    found = _WITH_PORT.fullmatch(text)
    if found is not None:
        text = found["v4"] or found["v6"]
    try:
        address = ip_address(text.partition("%")[0])
    except (ValueError, AddressValueError):
        return None
    return address if isinstance(address, IPv4Address) else _embedded(address, translated)


def is_private(text: str | None) -> bool:
    """Whether an address is of a machine of one's own, as proxies mostly are."""
    address = None if text is None else parse(text)
    return address is not None and (address.is_private or address.is_loopback)


def _prefix(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 32 <= value <= 128:
        return value
    raise InvalidOption("ipv6_prefix", value, "a whole number from 32 to 128", code="out_of_range")


def _embedded(address: IPv6Address, translated: bool) -> Address:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if translated:
        inner = address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        # For private ones neither exists (RFC 3056, section 2; RFC 6052, section 3.1): whoever
        # writes one wants to be taken for a machine within.
        if inner is not None and inner.is_global:
            return inner
    # The zone says which interface of ours, not which client.
    return IPv6Address(int(address))
