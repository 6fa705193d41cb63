"""What a request asks for."""

from __future__ import annotations

from typing import NamedTuple

from hasten._asgi import Headers, Scope, header_values


class Place(NamedTuple):
    """The address of a request as it came in: routers change the scope on its way."""

    method: str
    scheme: str
    host: bytes
    mount: str
    path: str
    query: bytes

    @property
    def bytes(self) -> int:
        """About the memory that it takes."""
        return len(self.host) + 4 * len(self.path) + len(self.query)


def place_of(scope: Scope) -> Place:
    headers: Headers = scope["headers"]
    return Place(
        scope["method"],
        scope.get("scheme", "http"),
        header_values(headers, b"host") or b"",
        scope.get("root_path", ""),
        scope["path"],
        scope.get("query_string", b""),
    )
