"""The method and URL of a request, as the client sent them."""

from __future__ import annotations

from typing import NamedTuple

from hasten._asgi import Headers, Scope, join_header_values


class RequestTarget(NamedTuple):
    """The method and the parts of the URL of a request.

    They are copied from the ASGI scope before a router changes it. mount is the root_path.
    """

    method: str
    scheme: str
    host: bytes
    mount: str
    path: str
    query: bytes

    @property
    def memory_bytes(self) -> int:
        """The approximate memory of this object, in bytes."""
        return len(self.host) + 4 * len(self.path) + len(self.query)


def make_request_target(scope: Scope) -> RequestTarget:
    """Return the method and URL of the request that an ASGI scope describes."""
    headers: Headers = scope["headers"]
    return RequestTarget(
        scope["method"],
        scope.get("scheme", "http"),
        join_header_values(headers, b"host") or b"",
        scope.get("root_path", ""),
        scope["path"],
        scope.get("query_string", b""),
    )
