"""An earlier answer as the dictionary of the next one: RFC 9842, content coding dcz. Experimental.

Clients that poll get most of what they have already. They say which answer that is, by its hash,
and get the difference to it. Nothing is said about one user's answer to another: a dictionary is
used only for a client that names the hash of its content, over HTTPS, and from the same origin.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final

from hasten._asgi import Headers, Scope, header_values
from hasten.compression import codecs
from hasten.compression.codecs import Codec
from hasten.compression.negotiation import parse_weights
from hasten.compression.options import Size, to_bytes
from hasten.errors import InvalidOption

DCZ: Final = "dcz"

LEVEL: Final = 3

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
        if isinstance(delta, str) or not all(path.startswith("/") for path in delta):
            raise InvalidOption("delta", delta, "a list of paths such as '/api/feed*'")
        self.paths = tuple(delta)
        self.max_bytes = to_bytes("max_size", max_size)
        self.bytes = 0
        self._answers: OrderedDict[bytes, bytes] = OrderedDict()

    def path_of(self, scope: Scope) -> str | None:
        """The path among those of delta that this request is for."""
        if scope.get("scheme") != "https" or scope["method"] != "GET":
            return None
        return next((path for path in self.paths if fnmatchcase(scope["path"], path)), None)

    def cover(self, scope: Scope) -> bool:
        return self.path_of(scope) is not None

    def announcement(self, scope: Scope) -> Headers:
        """The header that makes a client keep an answer as a dictionary."""
        path = self.path_of(scope)
        return [] if path is None else [(b"use-as-dictionary", f'match="{path}"'.encode())]

    async def code(
        self,
        scope: Scope,
        headers: Headers,
        body: bytes,
        compress: Callable[[Codec, int, bytes], Awaitable[bytes]],
    ) -> bytes | None:
        """The body as a difference to what the client has, None if it has nothing of use.

        The body is remembered as the dictionary of later ones.
        """
        if not self.cover(scope):
            return None
        named = _named_dictionary(headers)
        dictionary = self._answers.get(named) if named else None
        self._remember(body)
        if named is None or dictionary is None:
            return None
        codec = codecs.zstd_with(dictionary)
        if codec is None:
            return None
        return _MAGIC + named + await compress(codec, LEVEL, body)

    def _remember(self, body: bytes) -> None:
        digest = sha256(body).digest()
        if digest in self._answers:
            self._answers.move_to_end(digest)
        elif len(body) <= self.max_bytes:
            self._answers[digest] = body
            self.bytes += len(body)
            while self.bytes > self.max_bytes:
                _, oldest = self._answers.popitem(last=False)
                self.bytes -= len(oldest)


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
