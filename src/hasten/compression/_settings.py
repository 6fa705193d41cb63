"""The checked options of a `CompressionMiddleware`, and what depends on them alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from hasten._asgi import Headers, Scope, header_values
from hasten._checks import check_texts
from hasten._durations import to_seconds
from hasten.compression._breach import Guard
from hasten.compression._cache import CompressionCache
from hasten.compression._codecs import Codec
from hasten.compression._dictionaries import Dictionaries
from hasten.compression._head import ETagPolicy, SkipReason, forbids_transform
from hasten.compression._media_types import is_live_media_type, parse_media_type
from hasten.compression._negotiation import MAX_HEADER_BYTES, Coding, Preferences
from hasten.compression._options import ResponseFilter
from hasten.compression._request_target import RequestTarget, make_request_target
from hasten.errors import InvalidOption

ACCEPT_ENCODING: Final = b"Accept-Encoding"

IDLE_SECONDS: Final = 0.005
"""A stream is flushed when its producer sends nothing for longer than this."""


class MediaKind(Enum):
    """What compression does for a media type."""

    INCOMPRESSIBLE = 0
    COMPRESSIBLE = 1
    LIVE = 2
    """The reader waits for each event or line."""


@dataclass(frozen=True, slots=True)
class FlushRules:
    """When a stream is flushed: after each message, each live event, or a pause."""

    after_messages: bool
    after_live_messages: bool
    idle_seconds: float | None
    """How long a pause is, None if pauses do not matter."""

    @property
    def flushes_on_short_pause(self) -> bool:
        return self.idle_seconds is not None and self.idle_seconds <= IDLE_SECONDS


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a `CompressionMiddleware`, which documents them."""

    codecs: Mapping[Coding, Codec]
    choose: Callable[[bytes], Preferences]
    """Maps an Accept-Encoding header to the preferences of the client."""
    choose_live: Callable[[bytes], Preferences]
    minimum_size: int
    classify_media_type: Callable[[bytes], MediaKind]
    """Maps a Content-Type header to what compression does for it."""
    filter: ResponseFilter | None
    flush: FlushRules
    stream_memory: int
    etag: ETagPolicy
    guard: Guard | None
    strict: bool
    cache: CompressionCache | None
    dictionaries: Dictionaries | None
    server_timing: bool
    has_extras: bool
    """Whether there is a cache, a dictionary or Server-Timing; the fast path is without."""

    def negotiate(self, lines: Headers, *, is_live: bool = False) -> Preferences | SkipReason:
        """Return what a client accepts, or why its response is not compressed."""
        headers: dict[bytes, bytes] = dict(lines)
        if len(headers) != len(lines):  # rarely: a name came twice
            headers = {name: header_values(lines, name) or b"" for name in headers}
        accepted = headers.get(b"accept-encoding")
        # Longer ones would let clients fill the caches of the choosers.
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

    def client_accepts_nothing(self, scope: Scope) -> bool:
        """Return whether the client refuses all encodings and identity."""
        accepted = header_values(scope["headers"], b"accept-encoding") or b""
        return len(accepted) <= MAX_HEADER_BYTES and self.choose(accepted).accepts_nothing

    def request_target_if_needed(self, scope: Scope) -> RequestTarget | None:
        """Return the target of a request, if the cache or the dictionaries need it."""
        if self.cache is None and self.dictionaries is None:
            return None
        if self.cache is not None:
            self.cache._check_event_loop()
        return make_request_target(scope)

    def vary_value(self, target: RequestTarget | None) -> bytes:
        """Return the request headers that the encoding of a response depends on."""
        if target and self.dictionaries is not None and self.dictionaries._matching_path(target):
            return b"Accept-Encoding, Available-Dictionary"
        return ACCEPT_ENCODING


def to_media_type_classifier(
    media_types: Callable[[str], bool] | Collection[str],
) -> Callable[[bytes], MediaKind]:
    """Return the function that maps a Content-Type header to its `MediaKind`."""
    if callable(media_types):
        is_compressible = media_types
    else:
        expected = "a function of a media type, or a collection of them"
        names = check_texts("media_types", media_types, expected)
        is_compressible = frozenset(map(parse_media_type, names)).__contains__

    # An application has few Content-Types, and each response looks one up.
    @lru_cache(maxsize=256)
    def classify_media_type(content_type: bytes) -> MediaKind:
        name = parse_media_type(content_type.decode("latin-1"))
        if not is_compressible(name):
            return MediaKind.INCOMPRESSIBLE
        return MediaKind.LIVE if is_live_media_type(name) else MediaKind.COMPRESSIBLE

    return classify_media_type


def to_flush_rules(flush: object) -> FlushRules:
    """Return when streams are flushed."""
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
