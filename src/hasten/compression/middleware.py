"""The middleware itself: it gives each response its `Response` and looks after its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal

from hasten._asgi import ASGIApp, Headers, Receive, Scope, Send
from hasten.compression.dictionaries import Dictionaries
from hasten.compression.head import ETagPolicy, without_suffixes
from hasten.compression.media_types import default_types
from hasten.compression.options import Breach, Seconds, Size
from hasten.compression.response import Response
from hasten.compression.settings import Filter, OnEvent, Settings
from hasten.compression.variants import Variants

_CONDITIONS = frozenset({b"if-none-match", b"if-match"})


class CompressionMiddleware:
    """Compress what any ASGI application answers, where that pays: ``app.add_middleware(...)``.

    The defaults are meant to be left alone. It runs on asyncio; place it outside of what signs,
    digests or caches bodies.

    - encodings: what is offered, the first one preferred where a client has no preference
    ("deflate" is there,
      too). What is not installed is left out: ``pip install 'hasten[compression]'`` brings all.
    - threshold: smaller bodies are left alone, in bytes or as "1kb".
    - level: "auto" chooses by size and load. ``{"zstd": 3, "br": 5, "gzip": 6}`` fixes some.
    - types: which media types are worth it, ``default_types | {"application/x-tiles"}``, or any
    function.
    - filter: called with scope, status and headers of each response; False leaves it alone, True
    codes it
      whatever its type, None is no opinion.
    - flush: "auto" sends each event of a live stream (SSE, NDJSON and the like) at once and other
      streams when their producer pauses for 5 ms; a number is that pause in seconds; "message"
      sends every message at once; "never" leaves it to the compressor. An empty body message
      flushes, too.
    - stream_encodings, stream_memory, max_streams: the order for live streams, about how much
    memory the
      compressor of each may take, and how many streams may be coded at once; the next ones are not.
    - offload_after, workers, max_queue: work that takes longer (seconds, estimated) is done by this
      many threads, by default as many as processors, and four at most. When as many bodies as
      max_queue wait for them (8 times workers), the next ones are sent uncoded; before that, the
      level falls.
    - etag: a strong validator of a coded answer is weakened ("weaken"), gets the coding as a
    "suffix", is removed
      ("drop") or left ("keep").
    - breach: "guard", a `Guard` with your other sites, `Padding`, both in a tuple, or "off".
    - default_encoding: for clients that send no Accept-Encoding.
    - strict: answer 406 to who refuses all that there is (RFC 9110, 15.5.7), instead of sending it
    uncoded.
    - strip_accept_encoding: hide the header from the application, so that it does not compress.
    - cache, dictionaries: see `Variants` and `Dictionaries`.
    - server_timing: add Server-Timing to coded answers. on_event is told what became of each, see
    `Counters`.

    Raises `InvalidOption`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        encodings: Collection[str] = ("zstd", "br", "gzip"),
        threshold: Size = "1kb",
        level: Literal["auto"] | Mapping[str, int] = "auto",
        types: Callable[[str], bool] | Collection[str] = default_types,
        filter: Filter | None = None,  # noqa: A002 - the name that Express gave it
        flush: Literal["auto", "message", "never"] | Seconds = "auto",
        stream_encodings: Collection[str] = ("gzip", "zstd", "br"),
        stream_memory: Size = "32kb",
        max_streams: int = 1024,
        offload_after: Seconds = 250e-6,
        workers: int | None = None,
        max_queue: int | None = None,
        etag: ETagPolicy = "weaken",
        breach: Breach = "guard",
        default_encoding: str | None = None,
        strict: bool = False,
        strip_accept_encoding: bool = False,
        cache: Variants | None = None,
        dictionaries: Dictionaries | None = None,
        server_timing: bool = False,
        on_event: OnEvent | None = None,
    ) -> None:
        self.app = app
        self._settings = Settings(
            encodings=encodings,
            threshold=threshold,
            level=level,
            types=types,
            filter=filter,
            flush=flush,
            stream_encodings=stream_encodings,
            stream_memory=stream_memory,
            max_streams=max_streams,
            offload_after=offload_after,
            workers=workers,
            max_queue=max_queue,
            etag=etag,
            breach=breach,
            default_encoding=default_encoding,
            strict=strict,
            strip_accept_encoding=strip_accept_encoding,
            cache=cache,
            dictionaries=dictionaries,
            server_timing=server_timing,
            on_event=on_event,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        settings = self._settings
        if settings.strict and settings.cannot_serve(scope):
            await _refuse(settings, send)
            return
        headers = scope["headers"]
        if settings.rewrites_requests:
            scope = {**scope, "headers": _inward(settings, headers)}
        response = Response(settings, scope, headers, send)
        try:
            await self.app(scope, receive, response.send)
        except BaseException:
            await response.abandon()
            raise
        if response.is_open:
            await response.close()


def _inward(settings: Settings, headers: Headers) -> Headers:
    """The headers that the application sees."""
    if settings.strips_accept_encoding:
        headers = [line for line in headers if line[0] != b"accept-encoding"]
    if settings.etag == "suffix":
        headers = [
            (name, without_suffixes(value) if name in _CONDITIONS else value)
            for name, value in headers
        ]
    return headers


async def _refuse(settings: Settings, send: Send) -> None:
    offered = ", ".join(settings.offered)
    body = f"Not acceptable: this is to be had in {offered} or identity.\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"vary", b"Accept-Encoding"),
    ]
    await send({"type": "http.response.start", "status": 406, "headers": headers})
    await send({"type": "http.response.body", "body": body})
