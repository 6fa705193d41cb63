"""Use an earlier response as the dictionary of the next one: RFC 9842, coding dcz. Experimental.

A client that polls mostly gets bytes that it already has. It names an earlier response by its hash
and gets the difference to it. A small difference would confirm a guess of the whole earlier
response. So a response is a dictionary only for its owner: for requests with the same credentials
and the same query, over HTTPS and from the same origin (RFC 9842, section 9). A response to a
request without credentials is a dictionary only if it is public.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final

from hasten._asgi import Headers, Scope, header_values
from hasten._checks import check_texts
from hasten._quality import parse_weights
from hasten._sizes import Size, to_bytes
from hasten.compression import _codecs as codecs
from hasten.compression._head import Head, allows_shared_caching
from hasten.compression._request_target import RequestTarget
from hasten.errors import InvalidOption

DCZ: Final = "dcz"

DCZ_LEVEL: Final = 3

# A skippable frame with the hash of the dictionary comes first. RFC 9842, section 5.
_MAGIC: Final = b"\x5e\x2a\x4d\x18\x20\x00\x00\x00"

MIN_BYTES: Final = 512
"""A smaller response is not stored: it saves little, and its entry uses as much memory."""

CREDENTIAL_HEADERS: Final = ("authorization", "cookie", "client-cert")
"""The headers that identify the user by RFC 9110, RFC 6265 and RFC 9440."""

# Names in Vary that do not identify the user.
_ABOUT_CODING: Final = frozenset({b"accept-encoding", b"available-dictionary"})

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)

# A page of another site must not measure the differences. RFC 9842, section 9.
_SAME_ORIGIN: Final = frozenset({b"same-origin", b"none"})


class Dictionaries:
    """Send responses as differences to earlier ones: ``CompressionMiddleware(dictionaries=…)``.

    - paths: of which URLs, with ``*`` for anything: ``["/api/feed*"]``. Their responses must be
      cacheable by the browser, at least for a moment.
    - credential_headers: the request headers that identify a user. Name yours if users
      authenticate by another one: ``["x-api-key"]``.
    - max_size: how many bytes of responses to store, in this process. Only the process that sent a
      response can send a difference to it.

    A response is a dictionary for requests with the same query, the same client certificate (TLS
    extension of ASGI) and the same values of credential_headers, of Authorization, Cookie and
    Client-Cert, and of the headers that the response's Vary names. A request with none of
    credential_headers and no certificate gets a difference only if the response is public: with
    ``public`` or ``s-maxage`` in Cache-Control, and without Set-Cookie.

    Raises `InvalidOption`.
    """

    def __init__(
        self,
        paths: Collection[str],
        *,
        credential_headers: Collection[str] = CREDENTIAL_HEADERS,
        max_size: Size = "16mb",
    ) -> None:
        expected = "a list of paths such as '/api/feed*'"
        self._paths = tuple(check_texts("paths", paths, expected))
        if not all(path.startswith("/") for path in self._paths):
            raise InvalidOption("paths", paths, expected)
        expected = "a list of request headers such as 'x-api-key'"
        names = check_texts("credential_headers", credential_headers, expected)
        if not all(map(_TOKEN.fullmatch, names)):
            raise InvalidOption("credential_headers", credential_headers, expected)
        self._credential_headers = frozenset(name.lower().encode() for name in names)
        self._owner_headers = self._credential_headers | {h.encode() for h in CREDENTIAL_HEADERS}
        self._max_bytes = to_bytes("max_size", max_size)
        self._bytes = 0
        self._responses: OrderedDict[tuple[bytes, bytes], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        paths = ", ".join(self._paths)
        return f"<Dictionaries {paths}: {len(self._responses):,} responses, {self._bytes:,} bytes>"

    @property
    def size(self) -> int:
        """How many bytes of responses are stored."""
        return self._bytes

    def _matching_path(self, target: RequestTarget) -> str | None:
        """Return the entry of paths that matches this request, or None."""
        if target.scheme != "https" or target.method not in {"GET", "HEAD"}:
            return None
        return next((path for path in self._paths if fnmatchcase(target.path, path)), None)

    def _owner_digest(
        self, target: RequestTarget | None, scope: Scope, request_headers: Headers, head: Head
    ) -> bytes | None:
        """Return a digest of what requests must have in common to share dictionaries.

        None if the response must not be a dictionary, or its owner is unknown.
        """
        found = head.found
        cache_control = found.get(b"cache-control", b"")
        path = target and self._matching_path(target)
        if target is None or path is None or head.status != 200:
            return None
        vary = {name.strip() for name in found.get(b"vary", b"").lower().split(b",")}
        if b"no-store" in cache_control.lower() or b"*" in vary:
            return None
        certificate = _client_certificate(scope)
        has_credential = certificate or any(
            header_values(request_headers, name) for name in self._credential_headers
        )
        if not has_credential and (
            b"set-cookie" in found or not allows_shared_caching(cache_control)
        ):
            return None
        names = sorted((vary - _ABOUT_CODING) | self._owner_headers)
        values = [(name, header_values(request_headers, name)) for name in names]
        return sha256(repr((target._replace(path=path), certificate, values)).encode()).digest()

    def _announcement_headers(self, target: RequestTarget | None, owner: bytes | None) -> Headers:
        """Return the header that tells a client to store the response as a dictionary."""
        path = target and self._matching_path(target)
        if path is None or owner is None:
            return []
        return [(b"use-as-dictionary", f'match="{path}"'.encode())]

    async def _compress_as_delta(
        self,
        owner: bytes,
        request_headers: Headers,
        body: bytes,
        run: Callable[[Callable[[], bytes | None]], Awaitable[bytes | None]],
    ) -> bytes | None:
        """Return the body as a difference to a response that the client has, or None.

        The body is stored as the dictionary of later ones. run executes slow work.
        """
        named = _requested_dictionary(request_headers)
        dictionary = self._responses.get((owner, named)) if named else None
        body = bytes(body)

        def compress_and_store() -> bytes | None:
            digest = sha256(body).digest()
            codec = codecs.zstd_with_dictionary(dictionary) if dictionary is not None else None
            self._store((owner, digest), body)
            if codec is None or named is None:
                return None
            return _MAGIC + named + codec.compress(body, DCZ_LEVEL)

        return await run(compress_and_store)

    def _store(self, key: tuple[bytes, bytes], body: bytes) -> None:
        with self._lock:
            if key in self._responses:
                self._responses.move_to_end(key)
            elif MIN_BYTES <= len(body) <= self._max_bytes:
                self._responses[key] = body
                self._bytes += len(body)
                while self._bytes > self._max_bytes:
                    _, oldest = self._responses.popitem(last=False)
                    self._bytes -= len(oldest)


def _client_certificate(scope: Scope) -> tuple[object, ...]:
    """Return the client certificate from the TLS extension of ASGI, () if there is none."""
    tls = (scope.get("extensions") or {}).get("tls") or {}
    shown = (tls.get("client_cert_name"), *(tls.get("client_cert_chain") or ()))
    return shown if any(shown) else ()


def _requested_dictionary(headers: Headers) -> bytes | None:
    """Return the hash of Available-Dictionary, if the client accepts dcz from its origin."""
    accepted = header_values(headers, b"accept-encoding") or b""
    named = (header_values(headers, b"available-dictionary") or b"").strip()
    site = header_values(headers, b"sec-fetch-site")
    if len(accepted) > 1024 or not parse_weights(accepted.decode("latin-1")).get(DCZ):
        return None
    if site is not None and site not in _SAME_ORIGIN:
        return None
    # A byte sequence of structured fields. RFC 9651, section 3.3.5.
    if len(named) != 46 or named[:1] != b":" or named[-1:] != b":":
        return None
    try:
        return base64.b64decode(named[1:-1], validate=True)
    except binascii.Error:
        return None
