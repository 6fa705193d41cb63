"""The middleware that compresses responses: it passes each one through a `ResponseCompressor`."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hasten._asgi import ASGIApp, Headers, Receive, Scope, Send
from hasten._checks import check_flag, check_function, check_instance
from hasten._sizes import Size, to_byte_count
from hasten.compression._cache import CompressionCache
from hasten.compression._codecs import make_codecs
from hasten.compression._dictionaries import Dictionaries
from hasten.compression._events import CompressionEvent
from hasten.compression._head import ETagPolicy, strip_etag_suffixes
from hasten.compression._media_types import DEFAULT_MEDIA_TYPES
from hasten.compression._negotiation import make_cached_chooser
from hasten.compression._options import (
    BreachPolicy,
    CompressionLevel,
    FlushPolicy,
    ResponseFilter,
    to_breach_guard,
    to_codings,
    to_etag_policy,
    to_levels,
    to_live_stream_codings,
)
from hasten.compression._response import ResponseCompressor
from hasten.compression._settings import Settings, to_flush_rules, to_media_type_classifier
from hasten.compression._shared_resources import SharedResources
from hasten.compression._stats import CompressionStats

_ETAG_CONDITIONS = frozenset({b"if-none-match", b"if-match"})


class CompressionMiddleware:
    """Compress responses of any ASGI application: ``app.add_middleware(CompressionMiddleware)``.

    Most applications need no options. Add it outside of middlewares that cache response bodies, and
    inside of middlewares that sign or digest them.

    - encodings: the encodings to offer. If a client gives several the same weight, the first one
      here is used. "deflate" is supported, too. Encodings whose library is not installed are left
      out: the extra ``compression`` installs all libraries.
    - minimum_size: smaller bodies are not compressed.
    - level: "auto" chooses the level by body size and load. ``6`` sets it for all encodings,
      ``{"zstd": 3, "br": 5}`` for some.
    - media_types: the media types to compress: a set derived from the default, such as
      ``DEFAULT_MEDIA_TYPES | {"application/x-tiles"}``, a collection of media types, or a function
      that takes a media type and returns a bool.
    - filter: a function that is called with the scope, status and headers of each response. It
      returns True to compress the response whatever its media type, False not to compress it, or
      None to let the other options decide.
    - flush: when a stream is sent to the client. "auto" sends each event of a live stream (SSE,
      NDJSON and the like) at once, and other streams when the application pauses for 5 ms; a
      duration sets the length of that pause. "message" sends every message at once. "never" sends
      only the output that the compressor returns by itself. On trio, where hasten has no timer,
      "auto" and durations send every message at once. An empty body message with more_body always
      sends the data before it.
    - stream_encodings, stream_memory: for live streams, the encodings in order of preference, and
      the approximate memory of each compressor.
    - max_streams: how many streams may be compressed at the same time; further ones are sent
      uncompressed.
    - threads: how many threads compress large bodies; by default one for each processor, at most
      four.
    - etag: what happens to the strong entity tag of a compressed response. "weaken" makes it weak,
      "suffix" appends the encoding to it, "drop" removes it, "keep" leaves it as it is.
    - breach: the defence against the BREACH attack: "guard" (the default), a `BreachGuard` with
      your own options, or "off".
    - strict: obey ``identity;q=0``, with which a client refuses uncompressed responses. Bodies of
      any size are then compressed for this client. If it refuses all encodings, too, the response
      is 406 (RFC 9110, section 15.5.7), and the application is not called.
    - cache, dictionaries: see `CompressionCache` and `Dictionaries`.
    - server_timing: add a Server-Timing header with the compression time to compressed responses.
    - stats: a `CompressionStats` that counts responses and bytes.
    - on_event: a function that is called with a `Compressed` or `Skipped` event for each response.
      It must not block. An exception that it raises is logged.

    Raises `InvalidOption`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        encodings: Collection[str] = ("zstd", "br", "gzip"),
        minimum_size: Size = "1kb",
        level: CompressionLevel = "auto",
        media_types: Callable[[str], bool] | Collection[str] = DEFAULT_MEDIA_TYPES,
        filter: ResponseFilter | None = None,  # noqa: A002 - the name of the option in Express
        flush: FlushPolicy = "auto",
        stream_encodings: Collection[str] = ("gzip", "zstd", "br"),
        stream_memory: Size = "32kb",
        max_streams: int = 1024,
        threads: int | None = None,
        etag: ETagPolicy = "weaken",
        breach: BreachPolicy = "guard",
        strict: bool = False,
        cache: CompressionCache | None = None,
        dictionaries: Dictionaries | None = None,
        server_timing: bool = False,
        stats: CompressionStats | None = None,
        on_event: Callable[[CompressionEvent], None] | None = None,
    ) -> None:
        codings = to_codings("encodings", encodings)
        codecs = make_codecs(codings, to_levels(level, codings))
        cache = check_instance("cache", cache, CompressionCache)
        self.app = app
        self._settings = Settings(
            codecs=codecs,
            choose=make_cached_chooser(tuple(codecs)),
            choose_live=make_cached_chooser(to_live_stream_codings(stream_encodings, codecs)),
            minimum_size=to_byte_count("minimum_size", minimum_size),
            classify_media_type=to_media_type_classifier(media_types),
            filter=check_function("filter", filter, "scope", "status", "headers"),
            flush=to_flush_rules(flush),
            stream_memory=to_byte_count("stream_memory", stream_memory),
            etag=to_etag_policy(etag, cache_recompresses=cache is not None and cache.recompress),
            guard=to_breach_guard(breach),
            strict=check_flag("strict", strict),
            cache=cache,
            dictionaries=check_instance("dictionaries", dictionaries, Dictionaries),
            server_timing=check_flag("server_timing", server_timing),
            has_extras=server_timing or cache is not None or dictionaries is not None,
        )
        self._shared = SharedResources(threads, max_streams, stats, on_event)

    def __repr__(self) -> str:
        return f"<CompressionMiddleware {', '.join(self._settings.codecs)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        settings = self._settings
        if settings.strict and settings.client_refuses_codings_and_identity(scope):
            await self._send_not_acceptable(send)
            return
        headers = scope["headers"]
        target = settings.make_request_target_if_needed(scope) if settings.has_extras else None
        if settings.etag == "suffix":
            scope = {**scope, "headers": _strip_etag_suffixes(headers)}
        response = ResponseCompressor(settings, self._shared, scope, headers, target, send)
        try:
            await self.app(scope, receive, response.send)
        except BaseException:
            await response.release_without_sending()
            raise
        if response.is_open:
            await response.close()

    async def _send_not_acceptable(self, send: Send) -> None:
        offered = ", ".join(self._settings.codecs)
        body = f"Not acceptable: available encodings are {offered} and identity.\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"vary", b"Accept-Encoding"),
        ]
        await send({"type": "http.response.start", "status": 406, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _strip_etag_suffixes(headers: Headers) -> Headers:
    """Return the request headers without the encoding suffixes in If-None-Match and If-Match.

    With etag="suffix", clients send back ``"abc--gzip"``, but the application knows ``"abc"``.
    """
    return [
        (name, strip_etag_suffixes(value) if name in _ETAG_CONDITIONS else value)
        for name, value in headers
    ]
