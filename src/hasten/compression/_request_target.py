"""The target of a request."""

from __future__ import annotations

from typing import NamedTuple

from hasten._asgi import Headers, Scope, header_values


class RequestTarget(NamedTuple):
    """The target of a request as the client sent it: routers change the scope later."""

    method: str
    scheme: str
    host: bytes
    mount: str
    path: str
    query: bytes

    @property
    def memory_bytes(self) -> int:
        """The approximate memory of the target."""
        return len(self.host) + 4 * len(self.path) + len(self.query)


def make_request_target(scope: Scope) -> RequestTarget:
    headers: Headers = scope["headers"]
    return RequestTarget(
        scope["method"],
        scope.get("scheme", "http"),
        header_values(headers, b"host") or b"",
        scope.get("root_path", ""),
        scope["path"],
        scope.get("query_string", b""),
    )
