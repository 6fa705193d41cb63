"""The request as it is passed to functions of the application, such as the key of a limit."""

from __future__ import annotations

from typing import Final

from hasten._asgi import Scope

_NO_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = ()


class RequestInfo:
    """A request: the argument of functions such as `key`, `cost`, `skip` and `rate` of a limit.

    - scope: the ASGI scope. It has the user if an authentication middleware has set one.
    - client: the IP address of the client. Behind trusted proxies it is taken from their headers.
      IPv6 clients are identified by their network: "2001:db8::/56".
    - status: the status of the response, None before the response has started.
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
        """The decoded path of the URL, including the root path of the application."""
        path: str = self.scope.get("path", "")
        return path

    @property
    def method(self) -> str:
        """The method in upper case; "GET" for the handshake of a WebSocket."""
        method: str = self.scope.get("method", "GET")
        return method.upper()

    @property
    def query(self) -> str:
        """The query string without "?", not decoded."""
        query: bytes = self.scope.get("query_string", b"")
        return query.decode("latin-1")

    def header(self, name: str) -> str | None:
        """Return the value of a header, or None if it is missing.

        The values of several lines with this name are joined with commas.
        """
        wanted = name.lower().encode("latin-1")
        headers = self.scope.get("headers", _NO_HEADERS)
        values = [value for key, value in headers if key.lower() == wanted]
        return b", ".join(values).decode("latin-1") if values else None
