"""Determine the client of a request: the address by which limits count it."""

from __future__ import annotations

from typing import Final

from hasten._asgi import Scope
from hasten.ratelimit._http.addresses import AddressKeys, is_private_address
from hasten.ratelimit._http.operator_warnings import OperatorWarnings
from hasten.ratelimit._http.proxies import Proxies

UNKNOWN: Final = "unknown"
"""The client of a request without an address, as behind a Unix socket or in a test."""

EXAMINED: Final = 1_000
"""How many requests are examined for signs of a proxy that is missing in trusted_proxies."""


class ClientResolver:
    """Determines the clients of requests, which may arrive through trusted proxies."""

    def __init__(
        self, proxies: Proxies, addresses: AddressKeys, warnings: OperatorWarnings
    ) -> None:
        self._proxies = proxies
        self._addresses = addresses
        self._warnings = warnings
        self._has_proxies = proxies.has_trusted_proxies
        self._to_examine = 0 if self._has_proxies else EXAMINED

    def resolve_client(self, scope: Scope) -> str:
        """Return the client of a request: its IPv4 address or IPv6 network, or `UNKNOWN`."""
        if not self._has_proxies and not self._to_examine:
            peer = scope.get("client")
            if peer and peer[0]:
                return self._addresses.keys.get(peer[0]) or self._addresses.get_key(peer[0])
        address, warning = self._proxies.find_client_address(scope)
        if warning is not None:
            self._warnings.warn_once(warning)
        if self._to_examine:
            self._warn_about_untrusted_proxy(scope, address)
        if address is None:
            self._warnings.warn_once("NO_CLIENT")
            return UNKNOWN
        return self._addresses.get_key(address)

    def _warn_about_untrusted_proxy(self, scope: Scope, address: str | None) -> None:
        """Log a warning if the request seems to come from a proxy that is not trusted."""
        self._to_examine -= 1
        if self._proxies.has_forwarding_header(scope) and is_private_address(address):
            self._to_examine = 0
            self._warnings.warn_once("FORWARDED_HEADER", f"its address is {address}")
