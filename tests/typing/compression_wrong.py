"""Calls that must not type-check. Read by mypy, never run; see jobs_wrong.py."""

from __future__ import annotations

from fastapi import FastAPI

from hasten.compression import (
    DEFAULT_MEDIA_TYPES,
    BreachGuard,
    CompressionCache,
    CompressionMiddleware,
    CompressionStats,
    DecompressionMiddleware,
    Precompressed,
    Skipped,
    no_compression,
)

app = FastAPI()
CompressionMiddleware()  # type: ignore[call-arg]
CompressionMiddleware(app, threshold=500)  # type: ignore[call-arg]
CompressionMiddleware(app, minimum_size=1.5)  # type: ignore[arg-type]
CompressionMiddleware(app, level=6.5)  # type: ignore[arg-type]
CompressionMiddleware(app, stats=CompressionStats)  # type: ignore[arg-type]
CompressionMiddleware(app, level="fast")  # type: ignore[arg-type]
CompressionMiddleware(app, flush=["always"])  # type: ignore[arg-type]
CompressionMiddleware(app, etag="strip")  # type: ignore[arg-type]
CompressionMiddleware(app, breach="on")  # type: ignore[arg-type]
CompressionMiddleware(app, cache="64mb")  # type: ignore[arg-type]
CompressionMiddleware(app, filter=lambda scope: True)  # type: ignore[arg-type, misc]
CompressionMiddleware(app, on_event=lambda: None)  # type: ignore[arg-type, misc]
app.add_middleware(CompressionMiddleware, minimumsize=500)  # type: ignore[call-arg]
DecompressionMiddleware(app, max_ratio=0.5)  # type: ignore[arg-type]
BreachGuard(trusted_origins=None)  # type: ignore[arg-type]
Precompressed(app)  # type: ignore[call-arg]
Skipped("because")  # type: ignore[arg-type]
CompressionCache(None)  # type: ignore[arg-type]
DEFAULT_MEDIA_TYPES | 1  # type: ignore[operator]
CompressionStats().compressed.responses  # type: ignore[attr-defined]  # noqa: B018


@no_compression
async def token(length: int) -> str:
    return "x" * length


async def keeps_the_signature() -> None:
    await token("3")  # type: ignore[arg-type]
