"""Compress a response as the difference to an earlier one: RFC 9842, coding dcz. Experimental.

A client that polls gets mostly bytes that it already has. So it sends the hash of an earlier
response (the dictionary), and the server sends only the difference to that response.

The size of a difference can leak secrets: a tiny one confirms that an attacker has guessed the
whole earlier response. So only requests of the owner of an earlier response can use it. Owner means
the same credentials and the same query, over HTTPS and from the same origin (RFC 9842, section 9).
A response to a request without credentials is a dictionary only if it is public.
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

from hasten._asgi import Headers, Scope, join_header_values
from hasten._checks import check_texts
from hasten._quality import parse_weights_in_thousandths
from hasten._sizes import Size, to_byte_count
from hasten.compression import _codecs as codecs
from hasten.compression._head import ResponseHead, allows_shared_caching
from hasten.compression._request_target import RequestTarget
from hasten.errors import InvalidOption

DCZ: Final = "dcz"

DCZ_LEVEL: Final = 3

# A dcz body begins with these bytes and the hash of the dictionary. RFC 9842, section 5.
_MAGIC: Final = b"\x5e\x2a\x4d\x18\x20\x00\x00\x00"

MIN_BYTES: Final = 512
"""Smaller responses are not stored: they save little, and the entry uses as much memory itself."""

CREDENTIAL_HEADERS: Final = ("authorization", "cookie", "client-cert")
"""The standard request headers that identify a user. RFC 9110, RFC 6265 and RFC 9440."""

# Names in Vary that are only about the encoding.
_ABOUT_CODING: Final = frozenset({b"accept-encoding", b"available-dictionary"})

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)

# Values of Sec-Fetch-Site that get differences. A page of another site must not measure their
# size. RFC 9842, section 9.
_SAME_ORIGIN: Final = frozenset({b"same-origin", b"none"})


class Dictionaries:
    """Send responses as differences to earlier ones: ``CompressionMiddleware(dictionaries=…)``.

    - paths: the URL paths to use it for, with ``*`` for any text: ``["/api/feed*"]``. Browsers must
      be allowed to cache these responses, at least for a moment.
    - credential_headers: the request headers that identify a user. Set it if users authenticate
      with another header: ``["x-api-key"]``.
    - max_size: how many bytes of responses to store in this process. Only the process that has sent
      a response can send a difference to it.

    A response is used as a dictionary only for requests that have the same query, the same client
    certificate (from the TLS extension of ASGI), and the same values of these headers:
    credential_headers, Authorization, Cookie, Client-Cert, and the headers in the response's Vary.
    A request with none of credential_headers and no certificate gets a difference only if the
    response is public: with ``public`` or ``s-maxage`` in Cache-Control, and without Set-Cookie.

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
        self._max_bytes = to_byte_count("max_size", max_size)
        self._bytes = 0
        self._responses: OrderedDict[tuple[bytes, bytes], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        paths = ", ".join(self._paths)
        return f"<Dictionaries {paths}: {len(self._responses):,} responses, {self._bytes:,} bytes>"

    @property
    def size(self) -> int:
        """The total size of the stored responses, in bytes."""
        return self._bytes

    def _find_matching_pattern(self, target: RequestTarget) -> str | None:
        """Return the pattern in the option paths that matches a request, or None."""
        if target.scheme != "https" or target.method not in {"GET", "HEAD"}:
            return None
        return next((path for path in self._paths if fnmatchcase(target.path, path)), None)

    def _make_user_and_query_digest(
        self,
        target: RequestTarget | None,
        scope: Scope,
        request_headers: Headers,
        head: ResponseHead,
    ) -> bytes | None:
        """Return a digest that identifies the user and the query of a request.

        Only requests with equal digests may use each other's responses as dictionaries. The digest
        is None if the response must not become a dictionary.
        """
        found = head.found
        cache_control = found.get(b"cache-control", b"")
        path = target and self._find_matching_pattern(target)
        if target is None or path is None or head.status != 200:
            return None
        vary = {name.strip() for name in found.get(b"vary", b"").lower().split(b",")}
        if b"no-store" in cache_control.lower() or b"*" in vary:
            return None
        certificate = _get_client_certificate_name_and_chain(scope)
        has_credential = certificate or any(
            join_header_values(request_headers, name) for name in self._credential_headers
        )
        if not has_credential and (
            b"set-cookie" in found or not allows_shared_caching(cache_control)
        ):
            return None
        names = sorted((vary - _ABOUT_CODING) | self._owner_headers)
        values = [(name, join_header_values(request_headers, name)) for name in names]
        return sha256(repr((target._replace(path=path), certificate, values)).encode()).digest()

    def _make_use_as_dictionary_headers(
        self, target: RequestTarget | None, user_and_query_digest: bytes | None
    ) -> Headers:
        """Return the Use-As-Dictionary header, which asks a client to store the response.

        The list is empty if the response must not become a dictionary. For user_and_query_digest,
        see `_make_user_and_query_digest`.
        """
        path = target and self._find_matching_pattern(target)
        if path is None or user_and_query_digest is None:
            return []
        return [(b"use-as-dictionary", f'match="{path}"'.encode())]

    async def _compress_as_delta(
        self,
        user_and_query_digest: bytes,
        request_headers: Headers,
        body: bytes,
        run_in_thread: Callable[[Callable[[], bytes | None]], Awaitable[bytes | None]],
    ) -> bytes | None:
        """Compress the body as a difference to a response that the client has.

        The result is None if the client names no response, or one that is not stored. The body is
        stored in any case, as a dictionary for later responses. run_in_thread calls a function in a
        thread, and returns its result.
        """
        named = _get_offered_dictionary_hash(request_headers)
        dictionary = self._responses.get((user_and_query_digest, named)) if named else None
        body = bytes(body)

        def compress_and_store() -> bytes | None:
            digest = sha256(body).digest()
            codec = (
                codecs.make_zstd_codec_with_dictionary(dictionary)
                if dictionary is not None
                else None
            )
            self._store((user_and_query_digest, digest), body)
            if codec is None or named is None:
                return None
            return _MAGIC + named + codec.compress(body, DCZ_LEVEL)

        return await run_in_thread(compress_and_store)

    def _store(self, user_and_body_digests: tuple[bytes, bytes], body: bytes) -> None:
        """Store a body, and drop the least recently used ones if there is no room.

        user_and_body_digests are the digest of `_make_user_and_query_digest` and the SHA-256 of the
        body.
        """
        with self._lock:
            if user_and_body_digests in self._responses:
                self._responses.move_to_end(user_and_body_digests)
            elif MIN_BYTES <= len(body) <= self._max_bytes:
                self._responses[user_and_body_digests] = body
                self._bytes += len(body)
                while self._bytes > self._max_bytes:
                    _, oldest = self._responses.popitem(last=False)
                    self._bytes -= len(oldest)


def _get_client_certificate_name_and_chain(scope: Scope) -> tuple[object, ...]:
    """Return the name and chain of the client certificate, () if there is none.

    ASGI servers pass both in the TLS extension of the scope.
    """
    tls = (scope.get("extensions") or {}).get("tls") or {}
    shown = (tls.get("client_cert_name"), *(tls.get("client_cert_chain") or ()))
    return shown if any(shown) else ()


def _get_offered_dictionary_hash(headers: Headers) -> bytes | None:
    """Return the hash of the earlier response that a client offers as a dictionary, or None.

    The hash is in the header Available-Dictionary. The result is None if the client does not accept
    dcz, or if a page of another site made the request.
    """
    accepted = join_header_values(headers, b"accept-encoding") or b""
    named = (join_header_values(headers, b"available-dictionary") or b"").strip()
    site = join_header_values(headers, b"sec-fetch-site")
    if len(accepted) > 1024 or not parse_weights_in_thousandths(accepted.decode("latin-1")).get(
        DCZ
    ):
        return None
    if site is not None and site not in _SAME_ORIGIN:
        return None
    # The hash is Base64 between colons: a byte sequence of RFC 9651, section 3.3.5.
    if len(named) != 46 or named[:1] != b":" or named[-1:] != b":":
        return None
    try:
        return base64.b64decode(named[1:-1], validate=True)
    except binascii.Error:
        return None
