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
"""The lines of a header as (name, value), in the order in which they are sent.

ASGI requires lower-case names, but not all applications follow it.
"""


def join_header_values(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of a header, or None if it is missing. RFC 9110, section 5.3.

    The values of several lines with this name are joined with commas. name is in lower case.
    """
    values = [value for key, value in headers if key.lower() == name]
    return b", ".join(values) if values else None
