"""Calls that must type-check. Read by mypy, never run."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from hasten.compression import (
    Coded,
    CompressionMiddleware,
    Counters,
    DecompressionMiddleware,
    Dictionaries,
    Guard,
    Padding,
    Precompressed,
    Skipped,
    Variants,
    default_types,
    no_compression,
)

app = FastAPI()
app.add_middleware(CompressionMiddleware)
app.add_middleware(
    CompressionMiddleware,
    encodings=["br", "gzip"],
    threshold="2kb",
    level={"br": 5},
    types=default_types | {"application/x-tiles"} - {"text/csv"},
    filter=lambda scope, status, headers: None if status == 200 else False,
    flush=timedelta(milliseconds=20),
    breach=(Guard(trusted_origins=["https://app.example.org"]), Padding(32)),
    cache=Variants("64mb", upgrade=True),
    dictionaries=Dictionaries(["/api/feed*"]),
    on_event=Counters(),
)
app.add_middleware(CompressionMiddleware, types={"application/json"}, flush="message", level="auto")
app.add_middleware(CompressionMiddleware, types=lambda name: name == "text/html", threshold=500)
app.add_middleware(DecompressionMiddleware, max_size="10mb", max_seconds=timedelta(seconds=5))
app.mount("/static", Precompressed(StaticFiles(directory="static"), "static"))

any_application = CompressionMiddleware(DecompressionMiddleware(app))


@app.get("/token")
@no_compression
async def token(length: int) -> str:
    return "x" * length


async def keeps_the_signature() -> None:
    assert_type(await token(3), str)


def on_event(event: Coded | Skipped) -> None:
    match event:
        case Coded():
            assert_type(event.bytes_after, int)
        case Skipped("small" | "type"):
            pass
        case Skipped():
            pass


CompressionMiddleware(app, on_event=on_event)
