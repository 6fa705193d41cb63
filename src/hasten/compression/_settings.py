"""The validated options of a `CompressionMiddleware`, and functions that apply them to requests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from hasten._asgi import Headers, Scope, join_header_values
from hasten._checks import check_texts
from hasten._durations import to_seconds
from hasten.compression._breach import BreachGuard
from hasten.compression._cache import CompressionCache
from hasten.compression._codecs import Codec
from hasten.compression._dictionaries import Dictionaries
from hasten.compression._head import ETagPolicy, SkipReason, forbids_transform
from hasten.compression._media_types import is_live_media_type, parse_media_type
from hasten.compression._negotiation import MAX_HEADER_BYTES, Coding, CodingPreferences
from hasten.compression._options import ResponseFilter
from hasten.compression._request_target import RequestTarget, make_request_target
from hasten.errors import InvalidOption

ACCEPT_ENCODING: Final = b"Accept-Encoding"

IDLE_SECONDS: Final = 0.005
"""The default pause: a stream is flushed when the application sends nothing for this long."""


class MediaTypeKind(Enum):
    """Whether a media type is worth compressing, and whether clients read it piece by piece."""

    INCOMPRESSIBLE = 0
    COMPRESSIBLE = 1
    LIVE = 2
    """Compressible, and clients process each event or line when it arrives."""


@dataclass(frozen=True, slots=True)
class FlushRules:
    """The moments at which a compressed stream is flushed, so that the client can decode it.

    There are three: after each body message of any stream, after each body message of a live
    stream, and when the application pauses.
    """

    after_messages: bool
    after_live_messages: bool
    idle_seconds: float | None
    """How long the application must send nothing before a flush; None: a pause does not flush."""

    @property
    def flushes_on_short_pause(self) -> bool:
        """Whether a pause of at most `IDLE_SECONDS` (5 ms) is enough for a flush."""
        return self.idle_seconds is not None and self.idle_seconds <= IDLE_SECONDS


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a `CompressionMiddleware`, validated and converted to their internal types.

    The docstring of `CompressionMiddleware` explains the options.
    """

    codecs: Mapping[Coding, Codec]
    choose: Callable[[bytes], CodingPreferences]
    """Maps an Accept-Encoding header to the preferences of the client."""
    choose_live: Callable[[bytes], CodingPreferences]
    """Like `choose`, with the codings in the order of the option stream_encodings."""
    minimum_size: int
    classify_media_type: Callable[[bytes], MediaTypeKind]
    """Maps a Content-Type header to its `MediaTypeKind`."""
    filter: ResponseFilter | None
    flush: FlushRules
    stream_memory: int
    etag: ETagPolicy
    guard: BreachGuard | None
    strict: bool
    cache: CompressionCache | None
    dictionaries: Dictionaries | None
    server_timing: bool
    has_extras: bool
    """Whether cache, dictionaries or server_timing is used. The fast path is for all others."""

    def negotiate(
        self, request_headers: Headers, *, is_live: bool = False
    ) -> CodingPreferences | SkipReason:
        """Return the encodings that a client accepts, or the reason not to compress for it.

        For a live stream (is_live), the encodings of the option stream_encodings are preferred. The
        reason can be the Accept-Encoding or the Cache-Control of the request, or the BREACH guard.
        """
        headers: dict[bytes, bytes] = dict(request_headers)
        if len(headers) != len(request_headers):  # rare: a header occurs twice
            headers = {name: join_header_values(request_headers, name) or b"" for name in headers}
        accepted = headers.get(b"accept-encoding")
        # choose() caches its results by header: long headers would let clients fill the memory.
        if accepted is None or len(accepted) > MAX_HEADER_BYTES:
            return "not_accepted"
        preferences = (self.choose_live if is_live else self.choose)(accepted)
        if not preferences.codings:
            return "not_accepted"
        if b"cache-control" in headers and forbids_transform(headers[b"cache-control"]):
            return "no_transform"
        if self.guard is not None and self.guard._forbids_compression(headers):
            return "cross_site"
        return preferences

    def client_refuses_codings_and_identity(self, scope: Scope) -> bool:
        """Return whether Accept-Encoding refuses every offered encoding and identity, too.

        With strict, the response is then 406.
        """
        accepted = join_header_values(scope["headers"], b"accept-encoding") or b""
        return (
            len(accepted) <= MAX_HEADER_BYTES and self.choose(accepted).refuses_codings_and_identity
        )

    def make_request_target_if_needed(self, scope: Scope) -> RequestTarget | None:
        """Return the method and URL of a request, or None without a cache and dictionaries.

        Only these two options need the target. Raises `AsyncioRequired` if the cache cannot work
        on this event loop.
        """
        if self.cache is None and self.dictionaries is None:
            return None
        if self.cache is not None:
            self.cache._require_asyncio_for_recompress()
        return make_request_target(scope)

    def make_vary_value(self, target: RequestTarget | None) -> bytes:
        """Return the value of Vary: the request headers that decide how a response is encoded."""
        if (
            target
            and self.dictionaries is not None
            and self.dictionaries._find_matching_pattern(target)
        ):
            return b"Accept-Encoding, Available-Dictionary"
        return ACCEPT_ENCODING


def to_media_type_classifier(
    media_types: Callable[[str], bool] | Collection[str],
) -> Callable[[bytes], MediaTypeKind]:
    """Return a function that maps a Content-Type header to its `MediaTypeKind`.

    media_types is the option of the middleware: a predicate, or a collection of media types.
    """
    if callable(media_types):
        is_compressible = media_types
    else:
        expected = "a function of a media type, or a collection of media types"
        names = check_texts("media_types", media_types, expected)
        is_compressible = frozenset(map(parse_media_type, names)).__contains__

    # Cached, because every response needs it, and an application has few Content-Types.
    @lru_cache(maxsize=256)
    def classify_media_type(content_type: bytes) -> MediaTypeKind:
        name = parse_media_type(content_type.decode("latin-1"))
        if not is_compressible(name):
            return MediaTypeKind.INCOMPRESSIBLE
        return MediaTypeKind.LIVE if is_live_media_type(name) else MediaTypeKind.COMPRESSIBLE

    return classify_media_type


def to_flush_rules(flush: object) -> FlushRules:
    """Convert the option flush, such as "auto" or "20ms", to `FlushRules`."""
    match flush:
        case "auto":
            return FlushRules(False, True, IDLE_SECONDS)
        case "message":
            return FlushRules(True, True, None)
        case "never":
            return FlushRules(False, False, None)
    try:
        return FlushRules(False, True, to_seconds("flush", flush))
    except InvalidOption:
        expected = "'auto', 'message', 'never' or a duration such as 0.02 or '20ms'"
        raise InvalidOption("flush", flush, expected) from None
