"""Calls that must type-check. Read by mypy, never run."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from hasten import compression

app = FastAPI()
app.add_middleware(compression.CompressionMiddleware)
app.add_middleware(
    compression.CompressionMiddleware,
    encodings=["br", "gzip"],
    minimum_size="2kb",
    level={"br": 5},
    media_types=(compression.DEFAULT_MEDIA_TYPES | {"application/x-tiles"}) - {"text/csv"},
    filter=lambda scope, status, headers: None if status == 200 else False,
    flush=timedelta(milliseconds=20),
    breach=compression.BreachGuard(trusted_origins=["https://app.example.org"]),
    cache=compression.CompressionCache("64mb", recompress=True),
    dictionaries=compression.Dictionaries(["/api/feed*"]),
    stats=compression.CompressionStats(),
)
app.add_middleware(
    compression.CompressionMiddleware,
    media_types={"application/json"},
    flush="message",
    level="auto",
)
app.add_middleware(
    compression.CompressionMiddleware,
    media_types=lambda name: name == "text/html",
    minimum_size=500,
)
app.add_middleware(
    compression.DecompressionMiddleware, max_size="10mb", max_time=timedelta(seconds=5)
)
app.mount("/static", compression.Precompressed(StaticFiles(directory="static"), "static"))

any_application = compression.CompressionMiddleware(compression.DecompressionMiddleware(app))


@app.get("/token")
@compression.no_compression
async def token(length: int) -> str:
    return "x" * length


async def keeps_the_signature() -> None:
    assert_type(await token(3), str)


def on_event(event: compression.Compressed | compression.Skipped) -> None:
    match event:
        case compression.Compressed():
            assert_type(event.bytes_after, int)
        case compression.Skipped("too_small" | "media_type"):
            pass
        case compression.Skipped():
            pass


compression.CompressionMiddleware(app, on_event=on_event)


def configured(
    level: compression.CompressionLevel,
    flush: compression.FlushPolicy,
    etag: compression.ETagPolicy,
    breach: compression.BreachPolicy,
    filter_: compression.ResponseFilter,
) -> compression.CompressionMiddleware:
    """The types of all options can be imported."""
    return compression.CompressionMiddleware(
        app, level=level, flush=flush, etag=etag, breach=breach, filter=filter_
    )


compression.CompressionMiddleware(app, level=6, flush="20ms", threads=2)


def numbers(stats: compression.CompressionStats) -> None:
    assert_type(stats.compressed, dict[str, compression.EncodingStats])
    assert_type(stats.skipped, dict[compression.SkipReason, int])
    assert_type(stats.compressed["gzip"].ratio, float)


def any_event(event: compression.CompressionEvent) -> None:
    assert_type(event, compression.Compressed | compression.Skipped)
