"""One request, as the functions of a limit see it."""

from __future__ import annotations

from typing import Final

from hasten._asgi import Scope

_NO_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = ()


class RequestInfo:
    """What `key=`, `cost=`, `skip=`, a rate of yours and the others are given.

    scope is the ASGI scope, where a framework's middleware may have left a user. client is the
    address of the client, behind trusted proxies; of IPv6 its network: "2001:db8::/56". status is
    that of the response, None before there is one.
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
        """Decoded, with the root path."""
        path: str = self.scope.get("path", "")
        return path

    @property
    def method(self) -> str:
        """In capitals. "GET" for the handshake of a WebSocket."""
        method: str = self.scope.get("method", "GET")
        return method.upper()

    @property
    def query(self) -> str:
        """As it was sent, without "?"."""
        query: bytes = self.scope.get("query_string", b"")
        return query.decode("latin-1")

    def header(self, name: str) -> str | None:
        """The value of a header; several lines are joined. None if there is none."""
        wanted = name.lower().encode("latin-1")
        headers = self.scope.get("headers", _NO_HEADERS)
        values = [value for key, value in headers if key.lower() == wanted]
        return b", ".join(values).decode("latin-1") if values else None
