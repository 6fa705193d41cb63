"""Complete HTTP responses that any framework can send, with 304 for conditional requests."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from hasten._asgi import Headers, Receive, Scope, Send, header_values
from hasten.errors import RequestRefused


class RequestLike(Protocol):
    """A request of Starlette, Litestar, Quart, Flask or Django."""

    @property
    def method(self) -> str | None:
        """The HTTP method."""

    @property
    def headers(self) -> HeadersLike:
        """The headers of the request."""


class HeadersLike(Protocol):
    """The headers of a request."""

    def get(self, name: str, /) -> str | None:
        """Return the value of a header, None if it is missing."""


class EncodedResponse(NamedTuple):
    """A complete response: an ASGI application, and the tuple that Quart and Flask accept.

    In Django: ``HttpResponse(found.body, status=found.status, headers=found.headers)``.
    As an application it sends 304 if the request's If-None-Match names its ETag, and no body for
    HEAD. In other frameworks, call `to` for that.
    """

    body: bytes
    status: int
    headers: dict[str, str]

    @classmethod
    def for_error(cls, error: RequestRefused) -> EncodedResponse:
        """Return the response to a refused request: ``application/problem+json``, RFC 9457."""
        # ASCII, because a text that a client sent may hold what no encoding can.
        body = json.dumps(error.problem()).encode("ascii")
        headers = {"content-type": "application/problem+json", **error.headers}
        return cls(body, error.status, headers)

    def __repr__(self) -> str:
        return f"EncodedResponse({self.status}, {len(self.body):,} bytes, {self.headers!r})"

    def to(self, request: RequestLike) -> EncodedResponse:
        """Return this response for a request: 304 if it names this ETag, no body for HEAD."""
        tag = self.headers.get("etag")
        if _is_current(request.method, self.status, tag, request.headers.get("if-none-match")):
            kept = {key: value for key, value in self.headers.items() if key not in _OF_CONTENT}
            return EncodedResponse(b"", 304, kept)
        if request.method == "HEAD":
            headers = self.headers | {"content-length": str(len(self.body))}
            return EncodedResponse(b"", self.status, headers)
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(key.encode(), value.encode("latin-1")) for key, value in self.headers.items()]
        await send_response(scope, send, self.status, headers, self.body)


async def send_response(
    scope: Scope, send: Send, status: int, headers: Headers, body: bytes
) -> None:
    """Send a response, or 304 if the client has it. RFC 9110, sections 9.3.2 and 13.1.2."""
    tag = header_values(headers, b"etag")
    if tag is not None:
        given = header_values(list(scope["headers"]), b"if-none-match")
        if _is_current(scope["method"], status, tag.decode("latin-1"), _text(given)):
            status, body = 304, b""
            headers = [each for each in headers if each[0].decode("latin-1") not in _OF_CONTENT]
    if status != 304 and header_values(headers, b"content-length") is None:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.body", "body": body})


def etag_of(parts: Sequence[bytes] | bytes, *, weak: bool = False) -> str:
    """Return the entity tag of a body. weak: the parts identify the content, not its bytes."""
    digest = blake2b(digest_size=15)
    for part in [parts] if isinstance(parts, bytes) else parts:
        digest.update(part)
    tag = urlsafe_b64encode(digest.digest()).decode()
    return f'W/"{tag}"' if weak else f'"{tag}"'


def names_tag(if_none_match: str | None, tag: str) -> bool:
    """Return whether If-None-Match names a tag, by weak comparison. RFC 9110, section 13.1.2."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    wanted = tag.removeprefix("W/")
    return any(found[1] == wanted for found in _TAG.finditer(if_none_match))


_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')

_OF_CONTENT: Final = frozenset({"content-type", "content-length", "content-encoding"})


def _is_current(method: str | None, status: int, tag: str | None, given: str | None) -> bool:
    return status == 200 and tag is not None and method in ("GET", "HEAD") and names_tag(given, tag)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
