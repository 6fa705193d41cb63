"""Calls that must not type-check. Read by mypy, never run; see jobs_wrong.py."""

from __future__ import annotations

from fastapi import FastAPI

from hasten import compression

app = FastAPI()
compression.CompressionMiddleware()  # type: ignore[call-arg]
compression.CompressionMiddleware(app, threshold=500)  # type: ignore[call-arg]
compression.CompressionMiddleware(app, minimum_size=1.5)  # type: ignore[arg-type]
compression.CompressionMiddleware(app, level=6.5)  # type: ignore[arg-type]
compression.CompressionMiddleware(app, stats=compression.CompressionStats)  # type: ignore[arg-type]
compression.CompressionMiddleware(app, level="fast")  # type: ignore[arg-type]
compression.CompressionMiddleware(app, flush=["always"])  # type: ignore[arg-type]
compression.CompressionMiddleware(app, etag="strip")  # type: ignore[arg-type]
compression.CompressionMiddleware(app, breach="on")  # type: ignore[arg-type]
compression.CompressionMiddleware(app, cache="64mb")  # type: ignore[arg-type]
compression.CompressionMiddleware(app, filter=lambda scope: True)  # type: ignore[arg-type, misc]
compression.CompressionMiddleware(app, on_event=lambda: None)  # type: ignore[arg-type, misc]
app.add_middleware(compression.CompressionMiddleware, minimumsize=500)  # type: ignore[call-arg]
compression.DecompressionMiddleware(app, max_ratio=0.5)  # type: ignore[arg-type]
compression.BreachGuard(trusted_origins=None)  # type: ignore[arg-type]
compression.Precompressed(app)  # type: ignore[call-arg]
compression.Skipped("because")  # type: ignore[arg-type]
compression.CompressionCache(None)  # type: ignore[arg-type]
compression.DEFAULT_MEDIA_TYPES | 1  # type: ignore[operator]
compression.CompressionStats().compressed.responses  # type: ignore[attr-defined]  # noqa: B018


@compression.no_compression
async def token(length: int) -> str:
    return "x" * length


async def keeps_the_signature() -> None:
    await token("3")  # type: ignore[arg-type]
