"""Convert the addresses of clients to keys, by which limits count them.

All spellings of an address have the same key: an IPv4 address may also arrive embedded in an IPv6
address (mapped, or by NAT64 or 6to4). An IPv6 client can use all addresses of its network, so the
network is the key.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

from hasten._checks import check_whole_number

Address: TypeAlias = IPv4Address | IPv6Address

DEFAULT_PREFIX: Final = 56
"""The bits of the IPv6 network that most providers assign to one customer. RFC 6177."""

MAX_CACHED: Final = 10_000

MAX_CHARS: Final = 100
"""A longer text cannot be an address, even with brackets, zone and port."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
_WITH_PORT: Final = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d{0,5})?|(?P<v4>[0-9.]+):\d{0,5}")


class AddressKeys:
    """Converts addresses to keys of limits, and caches the keys."""

    def __init__(self, prefix: int = DEFAULT_PREFIX) -> None:
        """Raise `InvalidOption` for an invalid prefix.

        prefix is how many bits of an IPv6 address identify a client, from 32 to 128.
        """
        self._prefix = check_whole_number("ipv6_prefix", prefix, 32, 128)
        self.keys: Final[dict[str, str]] = {}
        """A cache of the results of `get_key`, by address."""

    def get_key(self, address: str) -> str:
        """Return the key for an IP address. Any other text is returned unchanged."""
        if len(address) > MAX_CHARS:
            return address  # not an address, and too long for the cache
        key = self.keys.get(address)
        if key is None:
            if len(self.keys) >= MAX_CACHED:
                self.keys.clear()
            key = self.keys[address] = self._make_key(address)
        return key

    def _make_key(self, address: str) -> str:
        parsed = parse_address(address)
        if parsed is None:
            return address
        if isinstance(parsed, IPv4Address) or self._prefix == 128:
            return str(parsed)
        network = IPv6Network((int(parsed), self._prefix), strict=False)
        return str(network)


def parse_address(text: str, *, unwrap_nat64_and_6to4: bool = True) -> Address | None:
    """Parse an IP address with or without port, brackets and zone; None if it is not an address.

    An IPv6 address with an embedded IPv4 address is converted to the IPv4 address: a mapped one, as
    dual-stack sockets have, and with unwrap_nat64_and_6to4 also an address of 6to4 or NAT64.
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
    return (
        address
        if isinstance(address, IPv4Address)
        else _unwrap_ipv4(address, unwrap_nat64_and_6to4)
    )


def is_private_address(text: str | None) -> bool:
    """Return whether an address is private or loopback, as the addresses of most proxies are."""
    address = None if text is None else parse_address(text)
    return address is not None and (address.is_private or address.is_loopback)


def _unwrap_ipv4(address: IPv6Address, unwrap_nat64_and_6to4: bool) -> Address:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if unwrap_nat64_and_6to4:
        inner = address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        # 6to4 and NAT64 must not embed private addresses (RFC 3056, section 2; RFC 6052, section
        # 3.1): a client that does so pretends to be in the private network.
        if inner is not None and inner.is_global:
            return inner
    # Without the zone, which identifies a network interface of the server, not the client.
    return IPv6Address(int(address))
