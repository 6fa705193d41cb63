"""The middleware itself: it gives each response its `Response` and looks after its end."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hasten._asgi import ASGIApp, Headers, Receive, Scope, Send
from hasten._durations import Duration
from hasten._sizes import Size
from hasten.compression.dictionaries import Dictionaries
from hasten.compression.head import ETagPolicy, without_suffixes
from hasten.compression.media_types import default_types
from hasten.compression.options import (
    Breach,
    Flush,
    Level,
)
from hasten.compression.response import Response
from hasten.compression.settings import Filter, OnEvent, Settings
from hasten.compression.variants import Variants

_CONDITIONS = frozenset({b"if-none-match", b"if-match"})


class CompressionMiddleware:
    """Compress what any ASGI application answers, where that pays: ``app.add_middleware(...)``.

    The defaults are meant to be left alone. Place it outside of what caches bodies, and inside of
    what signs or digests them.

    - encodings: what is offered; the order decides between equal wishes. "deflate" is there, too.
      What is not installed is left out: the extra ``compression`` brings all.
    - threshold: smaller bodies are left alone; bytes, or a text such as "1kb".
    - level: "auto" chooses by size and load. ``{"zstd": 3, "br": 5, "gzip": 6}`` fixes some.
    - types: which media types are worth it: ``default_types | {"application/x-tiles"}``, a
      collection of all of them, or any function of a type.
    - filter: called with scope, status and headers of each response. False leaves it alone, True
      codes it whatever its type, None is no opinion.
    - flush: "auto" sends each event of a live stream (SSE, NDJSON and the like) at once, and other
      streams when their producer pauses for 5 ms; a number is that pause in seconds; "message"
      sends every message at once; "never" leaves it to the compressor. On trio, where there is no
      timer, "auto" and numbers send every message at once, too. An empty body message with
      more_body flushes, too, if anything came before it.
    - stream_encodings, stream_memory: for live streams, the order of preference, and about how much
      memory the compressor of each may take.
    - max_streams: how many streams may be coded at once; the next ones are sent as they are.
    - offload_after: work that takes longer (seconds, estimated) is done in threads.
    - workers: how many; by default as many as processors, and four at most.
    - max_queue: when so many bodies wait for a thread, the next ones are sent uncoded; before
      that, the level falls. By default 8 times workers.
    - etag: a strong validator of a coded answer is weakened ("weaken"), gets the coding as a
      "suffix", is removed ("drop") or left ("keep").
    - breach: "guard", a `Guard` that knows your other sites, `Padding`, both in a tuple, or "off".
    - default_encoding: for clients that send no Accept-Encoding.
    - strict: honour ``identity;q=0``. What can be coded is, however small; who refuses all that
      there is gets 406 (RFC 9110, section 15.5.7), before the application is called.
    - strip_accept_encoding: hide the header from the application, so that it does not compress.
    - cache, dictionaries: see `Variants` and `Dictionaries`.
    - server_timing: add Server-Timing to coded answers.
    - on_event: told what became of each answer, as `Coded` or `Skipped`; see `Counters`.

    Raises `InvalidOption`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        encodings: Collection[str] = ("zstd", "br", "gzip"),
        threshold: Size = "1kb",
        level: Level = "auto",
        types: Callable[[str], bool] | Collection[str] = default_types,
        filter: Filter | None = None,  # noqa: A002 - the name that Express gave it
        flush: Flush = "auto",
        stream_encodings: Collection[str] = ("gzip", "zstd", "br"),
        stream_memory: Size = "32kb",
        max_streams: int = 1024,
        offload_after: Duration = 250e-6,
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
        place = None if settings.is_plain else settings.place(scope)
        if settings.rewrites_requests:
            scope = {**scope, "headers": _inward(settings, headers)}
        response = Response(settings, scope, headers, place, send)
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
