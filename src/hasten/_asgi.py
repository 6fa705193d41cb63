"""The types of an ASGI application (ASGI 3, HTTP connection scope 2.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

Headers = list[tuple[bytes, bytes]]
"""In the order in which they are sent. Names should be in lower case, but are not always."""


def header_values(headers: Headers, name: bytes) -> bytes | None:
    """Return the values of all lines of a header, joined, or None. RFC 9110, section 5.3.

    name is in lower case.
    """
    values = [value for key, value in headers if key.lower() == name]
    return b", ".join(values) if values else None
