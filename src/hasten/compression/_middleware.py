"""The middleware: it wraps `send` in a `Response` for each request, and closes it at the end."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hasten._asgi import ASGIApp, Headers, Receive, Scope, Send
from hasten._checks import check_flag, check_function, check_instance
from hasten._sizes import Size, to_bytes
from hasten.compression._cache import CompressionCache
from hasten.compression._codecs import available
from hasten.compression._dictionaries import Dictionaries
from hasten.compression._events import CompressionEvent
from hasten.compression._head import ETagPolicy, strip_etag_suffixes
from hasten.compression._media_types import DEFAULT_MEDIA_TYPES
from hasten.compression._negotiation import make_chooser
from hasten.compression._options import (
    BreachPolicy,
    CompressionLevel,
    FlushPolicy,
    ResponseFilter,
    to_codings,
    to_etag_policy,
    to_guard,
    to_levels,
    to_live_codings,
)
from hasten.compression._response import Response
from hasten.compression._settings import Settings, to_flush_rules, to_media_type_classifier
from hasten.compression._shared_resources import SharedResources
from hasten.compression._stats import CompressionStats

_ETAG_CONDITIONS = frozenset({b"if-none-match", b"if-match"})


class CompressionMiddleware:
    """Compress responses of any ASGI application: ``app.add_middleware(CompressionMiddleware)``.

    Most applications need no options. Add it outside of middlewares that cache bodies, and inside
    of those that sign or digest them.

    - encodings: the encodings to offer; the order decides between equal weights. "deflate" is
      supported, too. Encodings that are not installed are left out: the extra ``compression``
      installs all.
    - minimum_size: smaller bodies are not compressed.
    - level: "auto" chooses by size and load. ``6`` fixes it for all encodings,
      ``{"zstd": 3, "br": 5}`` for some.
    - media_types: which media types are compressed:
      ``DEFAULT_MEDIA_TYPES | {"application/x-tiles"}``, a collection of all of them, or a function
      of a media type.
    - filter: called with scope, status and headers of each response. Return True to compress it
      whatever its media type, False not to compress it, None to apply the other options.
    - flush: "auto" sends each event of a live stream (SSE, NDJSON and the like) at once, and other
      streams when their producer pauses for 5 ms; a duration is the length of that pause;
      "message" sends every message at once; "never" leaves it to the compressor. On trio, "auto"
      and durations send every message at once, too, because there is no timer. An empty body
      message with more_body flushes what came before it.
    - stream_encodings, stream_memory: for live streams, the order of preference, and about how much
      memory each compressor may use.
    - max_streams: how many streams are compressed at the same time; others are not compressed.
    - threads: how many threads compress large bodies; by default as many as processors, at most
      four.
    - etag: a strong entity tag of a compressed response is weakened ("weaken"), gets the encoding
      as a "suffix", is removed ("drop") or left ("keep").
    - breach: "guard" (the default), a `Guard` that knows your other sites, or "off".
    - strict: honour ``identity;q=0``. Bodies of any size are then compressed, and a client that
      refuses all encodings gets 406 (RFC 9110, section 15.5.7), before the application is called.
    - cache, dictionaries: see `CompressionCache` and `Dictionaries`.
    - server_timing: add Server-Timing to compressed responses.
    - stats: a `CompressionStats` that counts responses and bytes.
    - on_event: called with a `Compressed` or a `Skipped` for each response. It must not block. An
      exception that it raises is logged.

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
        filter: ResponseFilter | None = None,  # noqa: A002 - the name that Express gave it
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
        codecs = available(codings, to_levels(level, codings))
        cache = check_instance("cache", cache, CompressionCache)
        self.app = app
        self._settings = Settings(
            codecs=codecs,
            choose=make_chooser(tuple(codecs)),
            choose_live=make_chooser(to_live_codings(stream_encodings, codecs)),
            minimum_size=to_bytes("minimum_size", minimum_size),
            classify_media_type=to_media_type_classifier(media_types),
            filter=check_function("filter", filter, "scope", "status", "headers"),
            flush=to_flush_rules(flush),
            stream_memory=to_bytes("stream_memory", stream_memory),
            etag=to_etag_policy(etag, recompresses=cache is not None and cache.recompress),
            guard=to_guard(breach),
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
        if settings.strict and settings.client_accepts_nothing(scope):
            await self._send_not_acceptable(send)
            return
        headers = scope["headers"]
        target = settings.request_target_if_needed(scope) if settings.has_extras else None
        if settings.etag == "suffix":
            scope = {**scope, "headers": _strip_etag_suffixes(headers)}
        response = Response(settings, self._shared, scope, headers, target, send)
        try:
            await self.app(scope, receive, response.send)
        except BaseException:
            await response.abandon()
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
    """Return the request headers with the ETags that the application made, without suffixes."""
    return [
        (name, strip_etag_suffixes(value) if name in _ETAG_CONDITIONS else value)
        for name, value in headers
    ]
