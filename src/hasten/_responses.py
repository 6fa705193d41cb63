"""Complete HTTP responses for any framework, with support for conditional requests (304)."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from hasten._asgi import Headers, Receive, Scope, Send, join_header_values
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
    """A complete response: body, status and headers.

    It is an ASGI application, and also a tuple that views of Quart and Flask can return. In Django,
    return ``HttpResponse(response.body, status=response.status, headers=response.headers)``.

    As an ASGI application, it answers a conditional request whose If-None-Match matches the ETag
    with 304, and a HEAD request without a body. In other frameworks, return `response.to(request)`
    instead of `response`, which does the same.
    """

    body: bytes
    status: int
    headers: dict[str, str]

    @classmethod
    def for_error(cls, error: RequestRefused) -> EncodedResponse:
        """Return the response for an error: ``application/problem+json``, RFC 9457."""
        # json.dumps escapes everything outside of ASCII: the message may quote a text of the client
        # with surrogates, which UTF-8 cannot encode.
        body = json.dumps(error.problem()).encode("ascii")
        headers = {"content-type": "application/problem+json", **error.headers}
        return cls(body, error.status, headers)

    def __repr__(self) -> str:
        return f"EncodedResponse({self.status}, {len(self.body):,} bytes, {self.headers!r})"

    def to(self, request: RequestLike) -> EncodedResponse:
        """Return the response to send for this request.

        This is a 304 without a body if If-None-Match of the request matches the ETag of this
        response, this response without its body for a HEAD request, and this response otherwise.
        """
        tag = self.headers.get("etag")
        if _is_not_modified(request.method, self.status, tag, request.headers.get("if-none-match")):
            kept = {key: value for key, value in self.headers.items() if key not in _BODY_HEADERS}
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
    """Send a response, or a 304 if the client has it already: RFC 9110, section 13.1.2.

    The response to a HEAD request is sent without its body: RFC 9110, section 9.3.2.
    """
    tag = join_header_values(headers, b"etag")
    if tag is not None:
        given = join_header_values(list(scope["headers"]), b"if-none-match")
        if _is_not_modified(scope["method"], status, tag.decode("latin-1"), _decode_header(given)):
            status, body = 304, b""
            headers = [each for each in headers if each[0].decode("latin-1") not in _BODY_HEADERS]
    if status != 304 and join_header_values(headers, b"content-length") is None:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.body", "body": body})


def make_etag(parts: Sequence[bytes] | bytes, *, weak: bool = False) -> str:
    """Return an ETag, with its quotes: a hash of the body or of other parts of the content.

    The parts are hashed as if they were concatenated. A weak ETag promises that the content is
    equivalent, but not that each byte is the same.
    """
    digest = blake2b(digest_size=15)
    for part in [parts] if isinstance(parts, bytes) else parts:
        digest.update(part)
    tag = urlsafe_b64encode(digest.digest()).decode()
    return f'W/"{tag}"' if weak else f'"{tag}"'


def matches_if_none_match(if_none_match: str | None, tag: str) -> bool:
    """Return whether an If-None-Match header contains an ETag or is "*". RFC 9110, section 13.1.2.

    The comparison is weak: the prefix W/ does not count.
    """
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    wanted = tag.removeprefix("W/")
    return any(found[1] == wanted for found in _TAG.finditer(if_none_match))


_TAG: Final = re.compile(r'(?:W/)?("[^"]*")')

_BODY_HEADERS: Final = frozenset({"content-type", "content-length", "content-encoding"})


def _is_not_modified(
    method: str | None, status: int, tag: str | None, if_none_match: str | None
) -> bool:
    return (
        status == 200
        and tag is not None
        and method in ("GET", "HEAD")
        and matches_if_none_match(if_none_match, tag)
    )


def _decode_header(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
