"""The middleware itself: it gives each response its `Response` and looks after its end."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hasten._asgi import ASGIApp, Headers, Receive, Scope, Send
from hasten._sizes import Size
from hasten.compression._cache import CompressionCache
from hasten.compression._dictionaries import Dictionaries
from hasten.compression._events import CompressionEvent
from hasten.compression._head import ETagPolicy, without_suffixes
from hasten.compression._media_types import DEFAULT_MEDIA_TYPES
from hasten.compression._options import (
    BreachPolicy,
    CompressionLevel,
    FlushPolicy,
    ResponseFilter,
)
from hasten.compression._response import Response
from hasten.compression._settings import Settings
from hasten.compression._stats import CompressionStats

_CONDITIONS = frozenset({b"if-none-match", b"if-match"})


class CompressionMiddleware:
    """Compress responses of any ASGI application: ``app.add_middleware(CompressionMiddleware)``.

    Most applications need no option. Place it outside of middlewares that cache bodies, and inside
    of those that sign or digest them.

    - encodings: what is offered; the order decides between equal weights. "deflate" is known, too.
      Encodings that are not installed are left out: the extra ``compression`` installs all.
    - minimum_size: smaller bodies are left alone.
    - level: "auto" chooses by size and load. ``6`` fixes it for all encodings,
      ``{"zstd": 3, "br": 5}`` for some.
    - media_types: which media types are compressed:
      ``DEFAULT_MEDIA_TYPES | {"application/x-tiles"}``, a collection of all of them, or a function
      of a media type.
    - filter: called with scope, status and headers of each response. False leaves it alone, True
      compresses it whatever its media type, None decides neither.
    - flush: "auto" sends each event of a live stream (SSE, NDJSON and the like) at once, and other
      streams when their producer pauses for 5 ms; a duration is the length of that pause;
      "message" sends every message at once; "never" leaves it to the compressor. On trio, where
      there is no timer, "auto" and durations send every message at once, too. An empty body message
      with more_body flushes, too, if anything came before it.
    - stream_encodings, stream_memory: for live streams, the order of preference, and about how much
      memory the compressor of each may take.
    - max_streams: how many streams may be compressed at once; further ones are sent as they are.
    - threads: how many threads compress large bodies; by default as many as processors, at most
      four.
    - etag: a strong validator of a compressed response is weakened ("weaken"), gets the encoding as
      a "suffix", is removed ("drop") or left ("keep").
    - breach: "guard", a `Guard` that knows your other sites, `Padding`, both in a tuple, or "off".
    - strict: honour ``identity;q=0``. Bodies of any size are compressed then, and a client that
      refuses all encodings gets 406 (RFC 9110, section 15.5.7), before the application is called.
    - cache, dictionaries: see `CompressionCache` and `Dictionaries`.
    - server_timing: add Server-Timing to compressed responses.
    - stats: a `CompressionStats` that counts what happens.
    - on_event: called with a `Compressed` or a `Skipped` for each response. It must not wait; if it
      raises, that is logged.

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
        self.app = app
        self._settings = Settings(
            encodings=encodings,
            minimum_size=minimum_size,
            level=level,
            media_types=media_types,
            filter=filter,
            flush=flush,
            stream_encodings=stream_encodings,
            stream_memory=stream_memory,
            max_streams=max_streams,
            threads=threads,
            etag=etag,
            breach=breach,
            strict=strict,
            cache=cache,
            dictionaries=dictionaries,
            server_timing=server_timing,
            stats=stats,
            on_event=on_event,
        )

    def __repr__(self) -> str:
        return f"<CompressionMiddleware {', '.join(self._settings.offered)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        settings = self._settings
        if settings.strict and settings.cannot_serve(scope):
            await _refuse(settings, send)
            return
        headers = scope["headers"]
        place = None if settings.is_plain else settings.place(scope)
        if settings.rewrites_requests:
            scope = {**scope, "headers": _without_suffixes(headers)}
        response = Response(settings, scope, headers, place, send)
        try:
            await self.app(scope, receive, response.send)
        except BaseException:
            await response.abandon()
            raise
        if response.is_open:
            await response.close()


def _without_suffixes(headers: Headers) -> Headers:
    """The headers that the application sees, with the validators that it knows."""
    return [
        (name, without_suffixes(value) if name in _CONDITIONS else value) for name, value in headers
    ]


async def _refuse(settings: Settings, send: Send) -> None:
    offered = ", ".join(settings.offered)
    body = f"Not acceptable: available encodings are {offered} and identity.\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"vary", b"Accept-Encoding"),
    ]
    await send({"type": "http.response.start", "status": 406, "headers": headers})
    await send({"type": "http.response.body", "body": body})
