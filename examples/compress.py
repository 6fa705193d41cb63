"""Compress the responses of an application: `python examples/compress.py`.

    curl -s -o /dev/null -w '%{size_download} bytes\\n' http://127.0.0.1:8000/numbers
    curl -s -o /dev/null -w '%{size_download} bytes\\n' --compressed http://127.0.0.1:8000/numbers

The file is not called compression.py, because that would hide a package of Python 3.14.
"""

import asyncio
import os
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from hasten.compression import CompressionMiddleware, DecompressionMiddleware, no_compression

app = FastAPI()
app.add_middleware(CompressionMiddleware)  # responses
app.add_middleware(DecompressionMiddleware, max_size="10mb")  # request bodies


@app.get("/numbers")
async def numbers() -> list[int]:
    return list(range(10_000))


@app.get("/token")
@no_compression
async def token() -> dict[str, str]:
    return {"token": "secret" * 1_000}


@app.get("/events")
async def events() -> StreamingResponse:
    async def each_second() -> AsyncIterator[str]:
        for number in range(10):
            yield f"data: {number}\n\n"
            await asyncio.sleep(1)

    return StreamingResponse(each_second(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
