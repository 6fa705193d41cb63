"""What all the responses of one middleware share: its options, compressors, threads and counts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from functools import lru_cache
from typing import Final, cast

from hasten._asgi import Headers, Scope, header_values
from hasten.compression import codecs
from hasten.compression.codecs import Codec
from hasten.compression.dictionaries import Dictionaries
from hasten.compression.events import Event
from hasten.compression.head import ETagPolicy, Reason, forbids_transform
from hasten.compression.media_types import is_live, media_type
from hasten.compression.negotiation import MAX_HEADER_BYTES, Coding, Wishes, chooser
from hasten.compression.options import (
    Breach,
    Flush,
    Level,
    Seconds,
    Size,
    to_breach,
    to_bytes,
    to_choice,
    to_codings,
    to_count,
    to_levels,
    to_seconds,
)
from hasten.compression.pool import Pool
from hasten.compression.variants import Variants
from hasten.errors import InvalidOption

Filter = Callable[[Scope, int, Headers], bool | None]
OnEvent = Callable[[Event], None]

ACCEPT_ENCODING: Final = b"Accept-Encoding"

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
        threshold: Size,
        level: Level,
        types: Callable[[str], bool] | Collection[str],
        filter: Filter | None,  # noqa: A002 - the name that Express gave it
        flush: Flush,
        stream_encodings: Collection[str],
        stream_memory: Size,
        max_streams: int,
        offload_after: Seconds,
        workers: int | None,
        max_queue: int | None,
        etag: str,
        breach: Breach,
        default_encoding: str | None,
        strict: bool,
        strip_accept_encoding: bool,
        cache: Variants | None,
        dictionaries: Dictionaries | None,
        server_timing: bool,
        on_event: OnEvent | None,
    ) -> None:
        levels = to_levels(level)
        self.codecs: dict[Coding, Codec] = codecs.available(
            to_codings("encodings", encodings), levels
        )
        self.offered = tuple(self.codecs)
        order = [c for c in to_codings("stream_encodings", stream_encodings) if c in self.codecs]
        live = (*order, *(coding for coding in self.offered if coding not in order))
        self._choose = chooser(self.offered)
        self._choose_live = chooser(live)
        self.threshold = to_bytes("threshold", threshold)
        self.kind_of = _classifier(types)
        self.filter = filter
        self.flushes_messages, self.idle_seconds = _to_flush(flush)
        self.flushes_live = flush != "never"
        self.stream_memory = to_bytes("stream_memory", stream_memory)
        self.max_streams = to_count("max_streams", max_streams, at_least=0)
        self.offload_after = to_seconds("offload_after", offload_after)
        self.pool = Pool(
            "compression",
            None if workers is None else to_count("workers", workers, at_least=1),
            None if max_queue is None else to_count("max_queue", max_queue, at_least=0),
        )
        policies = ("weaken", "suffix", "drop", "keep")
        self.etag = cast("ETagPolicy", to_choice("etag", etag, policies))
        self.guard, self.padding = to_breach(breach)
        self.default: bytes | None = None
        if default_encoding is not None:
            self.default = to_codings("default_encoding", [default_encoding])[0].encode()
        self.strict = strict
        self.strips_accept_encoding = strip_accept_encoding
        self.rewrites_requests = strip_accept_encoding or etag == "suffix"
        self.cache = cache
        self.dictionaries = dictionaries
        # Nothing but coding is asked for: the short way.
        extras = (cache, dictionaries, self.padding, on_event)
        self.is_plain = not server_timing and all(extra is None for extra in extras)
        self.server_timing = server_timing
        self.on_event = on_event
        self.open_streams = 0
        self._limits = {
            (codec.coding, level): codec.effort.most_bytes_within(level, self.offload_after)
            for codec in self.codecs.values()
            for level in codec.effort.levels
        }

    def wishes(self, lines: Headers, *, is_live: bool = False) -> Wishes | Reason:
        """What the client may get that sent these headers, or why it gets nothing coded."""
        headers: dict[bytes, bytes] = dict(lines)
        accepted = headers.get(b"accept-encoding", self.default)
        if len(headers) != len(lines):
            accepted = header_values(lines, b"accept-encoding") or accepted
        # A longer one would fill the memory of the choosers, at the sender's will.
        if accepted is None or len(accepted) > MAX_HEADER_BYTES:
            return "not-accepted"
        wishes = (self._choose_live if is_live else self._choose)(accepted)
        if not wishes.codings:
            return "not-accepted"
        if b"cache-control" in headers and forbids_transform(headers[b"cache-control"]):
            return "no-transform"
        if b"cookie" in headers and self.guard is not None and self.guard.is_foreign(headers):
            return "cross-site"
        return wishes

    def vary(self, scope: Scope) -> bytes:
        """What the coding of an answer to this request depends on."""
        if self.dictionaries is not None and self.dictionaries.cover(scope):
            return b"Accept-Encoding, Available-Dictionary"
        return ACCEPT_ENCODING

    def cannot_serve(self, scope: Scope) -> bool:
        """Is there nothing that the client accepts, with strict=True?"""
        accepted = header_values(scope["headers"], b"accept-encoding") or b""
        return len(accepted) <= MAX_HEADER_BYTES and self._choose(accepted).cannot_be_met

    def is_quick(self, codec: Codec, level: int, size: int) -> bool:
        """May a body of so many bytes be coded on the event loop?"""
        return size <= self._limits[codec.coding, level]


def _classifier(
    types: Callable[[str], bool] | Collection[str],
) -> Callable[[bytes], Kind]:
    if callable(types):
        is_worth_it = types
    elif isinstance(types, str):
        raise InvalidOption("types", types, "a function of a media type, or a collection of them")
    else:
        is_worth_it = frozenset(media_type(name) for name in types).__contains__

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
        case str():
            raise InvalidOption("flush", flush, "'auto', 'message', 'never' or seconds")
    return False, to_seconds("flush", flush)
