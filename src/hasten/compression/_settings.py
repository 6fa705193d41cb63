"""What all the responses of one middleware share: its options, compressors, threads and counts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from functools import lru_cache
from typing import Final, get_args

from hasten._asgi import Headers, Scope, header_values
from hasten._checks import (
    check_choice,
    check_flag,
    check_function,
    check_instance,
    check_texts,
    check_whole_number,
)
from hasten._durations import to_seconds
from hasten._logs import get_logger
from hasten._sizes import Size, to_bytes
from hasten.compression import _codecs as codecs
from hasten.compression._cache import CompressionCache
from hasten.compression._codecs import Codec
from hasten.compression._dictionaries import Dictionaries
from hasten.compression._events import CompressionEvent, Skipped
from hasten.compression._head import ETagPolicy, SkipReason, forbids_transform
from hasten.compression._media_types import is_live, media_type
from hasten.compression._negotiation import MAX_HEADER_BYTES, Coding, Wishes, chooser
from hasten.compression._options import (
    BreachPolicy,
    CompressionLevel,
    FlushPolicy,
    ResponseFilter,
    to_breach,
    to_codings,
    to_levels,
)
from hasten.compression._place import Place, place_of
from hasten.compression._pool import Pool
from hasten.compression._stats import CompressionStats
from hasten.errors import InvalidOption

logger = get_logger("hasten.compression")

ACCEPT_ENCODING: Final = b"Accept-Encoding"

SLICED_ABOVE_BYTES: Final = 4 * 1024 * 1024
"""A larger body is sent slice by slice, and so without its length."""

IDLE_SECONDS: Final = 0.005
"""A stream whose producer pauses for longer than this is flushed."""


class Kind(Enum):
    """What coding does for a media type."""

    NOTHING = 0
    SHRINKS = 1
    SHRINKS_LIVE = 2
    """Its reader waits for each event or line."""


class Settings:
    """The options of a `CompressionMiddleware`, which documents them, checked and made ready."""

    def __init__(
        self,
        *,
        encodings: Collection[str],
        minimum_size: Size,
        level: CompressionLevel,
        media_types: Callable[[str], bool] | Collection[str],
        filter: ResponseFilter | None,  # noqa: A002 - the name that Express gave it
        flush: FlushPolicy,
        stream_encodings: Collection[str],
        stream_memory: Size,
        max_streams: int,
        threads: int | None,
        etag: str,
        breach: BreachPolicy,
        strict: bool,
        cache: CompressionCache | None,
        dictionaries: Dictionaries | None,
        server_timing: bool,
        stats: CompressionStats | None,
        on_event: Callable[[CompressionEvent], None] | None,
    ) -> None:
        codings = to_codings("encodings", encodings)
        self.codecs: dict[Coding, Codec] = codecs.available(codings, to_levels(level, codings))
        self.offered = tuple(self.codecs)
        order = [c for c in to_codings("stream_encodings", stream_encodings) if c in self.codecs]
        live = (*order, *(coding for coding in self.offered if coding not in order))
        self._choose = chooser(self.offered)
        self._choose_live = chooser(live)
        self.minimum_size = to_bytes("minimum_size", minimum_size)
        self.kind_of = _classifier(media_types)
        self.filter = check_function("filter", filter, "scope", "status", "headers")
        self.flushes_messages, self.idle_seconds = _to_flush(flush)
        self.flushes_live = flush != "never"
        self.pauses_are_short = self.idle_seconds is not None and self.idle_seconds <= IDLE_SECONDS
        self.stream_memory = to_bytes("stream_memory", stream_memory)
        self.max_streams = check_whole_number("max_streams", max_streams, 0)
        self.pool = Pool("compression", threads)
        self.etag: ETagPolicy = check_choice("etag", etag, get_args(ETagPolicy))
        self.guard, self.padding = to_breach(breach)
        self.strict = check_flag("strict", strict)
        self.rewrites_requests = etag == "suffix"
        self.cache = check_instance("cache", cache, CompressionCache)
        if cache is not None and cache.recompress and etag in {"keep", "suffix"}:
            expected = "'weaken' or 'drop' with CompressionCache(recompress=True)"
            raise InvalidOption("etag", etag, expected)
        self.dictionaries = check_instance("dictionaries", dictionaries, Dictionaries)
        self.server_timing = check_flag("server_timing", server_timing)
        self._stats = check_instance("stats", stats, CompressionStats)
        self._on_event = check_function("on_event", on_event, "event")
        self.is_observed = stats is not None or on_event is not None
        # Nothing but coding is asked for: the short way.
        extras = (cache, dictionaries, self.padding)
        self.is_plain = not (server_timing or self.is_observed) and not any(
            extra is not None for extra in extras
        )
        self.open_streams = 0
        self._limits: dict[tuple[Codec, int], int] = {}

    def wishes(self, lines: Headers, *, is_live: bool = False) -> Wishes | SkipReason:
        """What the client may get that sent these headers, or why it gets nothing coded."""
        headers: dict[bytes, bytes] = dict(lines)
        if len(headers) != len(lines):  # rarely: a name came twice
            headers = {name: header_values(lines, name) or b"" for name in headers}
        accepted = headers.get(b"accept-encoding")
        # A longer one would fill the memory of the choosers, at the sender's will.
        if accepted is None or len(accepted) > MAX_HEADER_BYTES:
            return "not_accepted"
        wishes = (self._choose_live if is_live else self._choose)(accepted)
        if not wishes.codings:
            return "not_accepted"
        if b"cache-control" in headers and forbids_transform(headers[b"cache-control"]):
            return "no_transform"
        if self.guard is not None and self.guard._is_foreign(headers):
            return "cross_site"
        return wishes

    def place(self, scope: Scope) -> Place | None:
        """What a request asks for, where that matters."""
        if self.cache is None and self.dictionaries is None:
            return None
        if self.cache is not None:
            self.cache._check_loop()
        return place_of(scope)

    def vary(self, place: Place | None) -> bytes:
        """What the coding of an answer to this request depends on."""
        if place and self.dictionaries is not None and self.dictionaries._path_of(place):
            return b"Accept-Encoding, Available-Dictionary"
        return ACCEPT_ENCODING

    def cannot_serve(self, scope: Scope) -> bool:
        """Is there nothing that the client accepts, with strict=True?"""
        accepted = header_values(scope["headers"], b"accept-encoding") or b""
        return len(accepted) <= MAX_HEADER_BYTES and self._choose(accepted).cannot_be_met

    def is_quick(self, codec: Codec, level: int, size: int) -> bool:
        """May a body of so many bytes be coded on the event loop?"""
        try:
            return size <= self._limits[codec, level]
        except KeyError:
            limit = codec.effort.most_bytes_within(level, self.pool.offload_after)
            self._limits[codec, level] = min(limit, SLICED_ABOVE_BYTES)
            return self.is_quick(codec, level, size)

    def emit_skipped(self, reason: SkipReason) -> None:
        self.emit(Skipped(reason))

    def emit(self, event: CompressionEvent) -> None:
        if self._stats is not None:
            self._stats._count(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                # A response is worth more than its metrics.
                logger.exception("on_event of CompressionMiddleware raised")


def _classifier(
    media_types: Callable[[str], bool] | Collection[str],
) -> Callable[[bytes], Kind]:
    if callable(media_types):
        is_worth_it = media_types
    else:
        expected = "a function of a media type, or a collection of them"
        names = check_texts("media_types", media_types, expected)
        is_worth_it = frozenset(map(media_type, names)).__contains__

    # Applications have few Content-Types, and one is looked up for each answer.
    @lru_cache(maxsize=256)
    def kind_of(content_type: bytes) -> Kind:
        name = media_type(content_type.decode("latin-1"))
        if not is_worth_it(name):
            return Kind.NOTHING
        return Kind.SHRINKS_LIVE if is_live(name) else Kind.SHRINKS

    return kind_of


def _to_flush(flush: object) -> tuple[bool, float | None]:
    """Whether each message is flushed, and after how many seconds of silence a stream is."""
    match flush:
        case "auto":
            return False, IDLE_SECONDS
        case "message":
            return True, None
        case "never":
            return False, None
    try:
        return False, to_seconds("flush", flush)
    except InvalidOption:
        expected = "'auto', 'message', 'never' or a duration such as 0.02 or '20ms'"
        raise InvalidOption("flush", flush, expected) from None
