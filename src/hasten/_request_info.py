"""A request, for the functions of a limit and of load shedding."""

from __future__ import annotations

from typing import Final

from hasten._asgi import Scope

_NO_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = ()


class RequestInfo:
    """The argument of the functions `key`, `cost`, `skip`, `rate` and others.

    scope is the ASGI scope, in which a middleware of the framework may have set a user. client is
    the address of the client behind trusted proxies, for IPv6 its network: "2001:db8::/56". status
    is the status of the response, None before there is one.
    """

    __slots__ = ("client", "scope", "status")

    def __init__(self, scope: Scope, client: str, status: int | None = None) -> None:
        self.scope = scope
        self.client = client
        self.status = status

    def __repr__(self) -> str:
        return f"<RequestInfo {self.method} {self.path!r} of {self.client}>"

    @property
    def path(self) -> str:
        """The decoded path, with the root path."""
        path: str = self.scope.get("path", "")
        return path

    @property
    def method(self) -> str:
        """The method in upper case; "GET" for the handshake of a WebSocket."""
        method: str = self.scope.get("method", "GET")
        return method.upper()

    @property
    def query(self) -> str:
        """The query string as it was sent, without "?"."""
        query: bytes = self.scope.get("query_string", b"")
        return query.decode("latin-1")

    def header(self, name: str) -> str | None:
        """Return the value of a header, None if there is none. Several lines are joined."""
        wanted = name.lower().encode("latin-1")
        headers = self.scope.get("headers", _NO_HEADERS)
        values = [value for key, value in headers if key.lower() == wanted]
        return b", ".join(values).decode("latin-1") if values else None
