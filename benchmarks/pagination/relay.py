"""A Unix socket that forwards to another one, and counts the bytes of the responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

CHUNK_BYTES: Final = 65_536


class Relay:
    def __init__(self, target: Path) -> None:
        self.received = 0
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Path, path: Path) -> AsyncIterator[Self]:
        """Listen at path. Its folder is created."""
        path.parent.mkdir(exist_ok=True)
        relay = cls(target)
        server = await asyncio.start_unix_server(relay._serve, path)
        try:
            yield relay
        finally:
            server.close()
            await asyncio.gather(*relay._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_target, to_target = await asyncio.open_unix_connection(self._target)
        for source, sink, counts in ((reader, to_target, False), (from_target, writer, True)):
            task = asyncio.create_task(self._forward(source, sink, counts=counts))
            self._tasks.add(task)

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counts: bool
    ) -> None:
        while data := await source.read(CHUNK_BYTES):
            self.received += len(data) if counts else 0
            sink.write(data)
            await sink.drain()
        sink.close()
