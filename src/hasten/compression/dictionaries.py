"""An earlier answer as the dictionary of the next one: RFC 9842, content coding dcz. Experimental.

Clients that poll get most of what they have already. They say which answer that is, by its hash,
and get the difference to it. That an answer is known tells whoever can guess it, so a dictionary is
used for those only who sent the same cookies and Authorization, over HTTPS and from the same origin
(RFC 9842, section 9).
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final

from hasten._asgi import Headers, header_values
from hasten.compression import codecs
from hasten.compression.head import Head
from hasten.compression.negotiation import parse_weights
from hasten.compression.options import Size, to_bytes, to_names
from hasten.compression.place import Place
from hasten.errors import InvalidOption

DCZ: Final = "dcz"

DCZ_LEVEL: Final = 3

# A skippable frame with the hash of the dictionary comes first. RFC 9842, section 5.
_MAGIC: Final = b"\x5e\x2a\x4d\x18\x20\x00\x00\x00"

# A page of another site may not measure the differences. RFC 9842, section 9.
_FRIENDLY: Final = frozenset({b"same-origin", b"none"})


class Dictionaries:
    """For CompressionMiddleware(dictionaries=…): answers below some paths are sent as differences.

    delta names the paths, with ``*`` for anything: ``["/api/feed*"]``. Their answers must be
    cacheable by the browser, at least for a moment. Up to max_size bytes of answers are remembered
    in this process; where several share the load, only the one that gave an answer can send the
    difference to it.
    """

    def __init__(self, delta: Collection[str], *, max_size: Size = "16mb") -> None:
        expected = "a list of paths such as '/api/feed*'"
        self.paths = tuple(to_names("delta", delta, expected))
        if not all(path.startswith("/") for path in self.paths):
            raise InvalidOption("delta", delta, expected)
        self.max_bytes = to_bytes("max_size", max_size)
        self.bytes = 0
        self._answers: OrderedDict[tuple[Place, bytes], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def path_of(self, place: Place) -> str | None:
        """The path among those of delta that this request is for."""
        if place.scheme != "https" or place.method not in {"GET", "HEAD"}:
            return None
        return next((path for path in self.paths if fnmatchcase(place.path, path)), None)

    def announcement(self, place: Place | None) -> Headers:
        """The header that makes a client keep an answer as a dictionary."""
        path = place and self.path_of(place)
        return [] if path is None else [(b"use-as-dictionary", f'match="{path}"'.encode())]

    async def difference(
        self,
        place: Place | None,
        asked: Headers,
        head: Head,
        body: bytes,
        run: Callable[[Callable[[], bytes | None]], Awaitable[bytes | None]],
    ) -> bytes | None:
        """The body as a difference to what the client has, None if it has nothing of use.

        The body is remembered as the dictionary of later ones. run is given what takes long.
        """
        cache_control = head.found.get(b"cache-control", b"").lower()
        path = place and self.path_of(place)
        if place is None or path is None:
            return None
        if head.status != 200 or b"no-store" in cache_control:
            return None
        owner = place._replace(path=path, query=_credentials(asked))
        named = _named_dictionary(asked)
        dictionary = self._answers.get((owner, named)) if named else None
        body = bytes(body)

        def work() -> bytes | None:
            digest = sha256(body).digest()
            codec = codecs.zstd_with(dictionary) if dictionary is not None else None
            self._remember((owner, digest), body)
            if codec is None or named is None:
                return None
            return _MAGIC + named + codec.compress(body, DCZ_LEVEL)

        return await run(work)

    def _remember(self, key: tuple[Place, bytes], body: bytes) -> None:
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            elif len(body) <= self.max_bytes:
                self._answers[key] = body
                self.bytes += len(body)
                while self.bytes > self.max_bytes:
                    _, oldest = self._answers.popitem(last=False)
                    self.bytes -= len(oldest)


def _credentials(headers: Headers) -> bytes:
    """What tells one user from another, as a hash."""
    cookie = header_values(headers, b"cookie") or b""
    authorization = header_values(headers, b"authorization") or b""
    return sha256(b"%d,%s%s" % (len(cookie), cookie, authorization)).digest()


def _named_dictionary(headers: Headers) -> bytes | None:
    """The hash that Available-Dictionary names, if the client takes dcz and asks for itself."""
    accepted = header_values(headers, b"accept-encoding") or b""
    named = (header_values(headers, b"available-dictionary") or b"").strip()
    site = header_values(headers, b"sec-fetch-site")
    if len(accepted) > 1024 or not parse_weights(accepted.decode("latin-1")).get(DCZ):
        return None
    if site is not None and site not in _FRIENDLY:
        return None
    # A byte sequence of structured fields. RFC 9651, section 3.3.5.
    if len(named) != 46 or named[:1] != b":" or named[-1:] != b":":
        return None
    try:
        return base64.b64decode(named[1:-1], validate=True)
    except binascii.Error:
        return None
