"""Calls that must type-check. Read by mypy, never run."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from hasten.compression import (
    DEFAULT_MEDIA_TYPES,
    BreachGuard,
    BreachPolicy,
    Compressed,
    CompressionCache,
    CompressionEvent,
    CompressionLevel,
    CompressionMiddleware,
    CompressionStats,
    DecompressionMiddleware,
    Dictionaries,
    EncodingStats,
    ETagPolicy,
    FlushPolicy,
    Precompressed,
    ResponseFilter,
    Skipped,
    SkipReason,
    no_compression,
)

app = FastAPI()
app.add_middleware(CompressionMiddleware)
app.add_middleware(
    CompressionMiddleware,
    encodings=["br", "gzip"],
    minimum_size="2kb",
    level={"br": 5},
    media_types=DEFAULT_MEDIA_TYPES | {"application/x-tiles"} - {"text/csv"},
    filter=lambda scope, status, headers: None if status == 200 else False,
    flush=timedelta(milliseconds=20),
    breach=BreachGuard(trusted_origins=["https://app.example.org"]),
    cache=CompressionCache("64mb", recompress=True),
    dictionaries=Dictionaries(["/api/feed*"]),
    stats=CompressionStats(),
)
app.add_middleware(
    CompressionMiddleware, media_types={"application/json"}, flush="message", level="auto"
)
app.add_middleware(
    CompressionMiddleware, media_types=lambda name: name == "text/html", minimum_size=500
)
app.add_middleware(DecompressionMiddleware, max_size="10mb", max_time=timedelta(seconds=5))
app.mount("/static", Precompressed(StaticFiles(directory="static"), "static"))

any_application = CompressionMiddleware(DecompressionMiddleware(app))


@app.get("/token")
@no_compression
async def token(length: int) -> str:
    return "x" * length


async def keeps_the_signature() -> None:
    assert_type(await token(3), str)


def on_event(event: Compressed | Skipped) -> None:
    match event:
        case Compressed():
            assert_type(event.bytes_after, int)
        case Skipped("too_small" | "media_type"):
            pass
        case Skipped():
            pass


CompressionMiddleware(app, on_event=on_event)


def configured(
    level: CompressionLevel,
    flush: FlushPolicy,
    etag: ETagPolicy,
    breach: BreachPolicy,
    filter_: ResponseFilter,
) -> CompressionMiddleware:
    """What a function that hands options on has to name can be imported."""
    return CompressionMiddleware(
        app, level=level, flush=flush, etag=etag, breach=breach, filter=filter_
    )


CompressionMiddleware(app, level=6, flush="20ms", threads=2)


def numbers(stats: CompressionStats) -> None:
    assert_type(stats.compressed, dict[str, EncodingStats])
    assert_type(stats.skipped, dict[SkipReason, int])
    assert_type(stats.compressed["gzip"].ratio, float)


def any_event(event: CompressionEvent) -> None:
    assert_type(event, Compressed | Skipped)
