"""Waiting for jobs: a worker blocks on the marker of its queue, as BullMQ's workers do.

The marker is a sorted set. A script that makes a job ready, or delays one, adds a member. One
blocked worker pops it (BZPOPMIN) and wakes up. A popped member must not be lost, because no other
worker would wake up for the job.

A caller may be cancelled at any time, for example because its worker stops. The blocked call to
Redis is not cancelled then, because Redis may already have popped a member. It continues in the
background. If it pops a member while no caller waits, it puts the member back.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from hasten._logs import get_logger
from hasten._redis.listener import BlockingConnection, store_closed_error
from hasten._redis.server import Server
from hasten.errors import StoreError

logger = get_logger("hasten.redis")

# How long one call blocks on the server.
BLOCK_SECONDS: Final = 10.0

# How long `close` waits for a blocked call. A server that hangs must not delay the shutdown.
END_SECONDS: Final = 1.0


class MarkerWaiter:
    """Waits for jobs in one queue, for one worker, by blocking on the queue's marker in Redis.

    The module's docstring explains the marker. Belongs to one event loop. queue_prefix is the
    beginning of all keys of the queue.
    """

    def __init__(self, server: Server, queue_prefix: str, connection_name: str | None) -> None:
        self._server = server
        self._marker = queue_prefix + "marker"
        self._listener: BlockingConnection = server.make_blocking_connection(
            key=self._marker, name=connection_name
        )
        self._call: asyncio.Task[float | None] | None = None
        self._callers = 0
        self._closed = False

    async def open(self) -> None:
        """Connect now, so that BullMQ can list the worker by the name of its connection."""
        if self._call is not None and not self._call.done():
            return  # an earlier call is still blocked, so it is connected
        await self._listener.run_command("PING", block_seconds=BLOCK_SECONDS)

    async def wait_for_marker(self) -> float | None:
        """Wait until the marker wakes this worker.

        Returns 0 if a job is ready, the due time in ms if the marker announces a delayed job, and
        None after `BLOCK_SECONDS` without a marker. Concurrent callers get the same result.
        """
        if self._call is None:
            self._call = asyncio.create_task(self._pop_marker())
        call = self._call
        self._callers += 1
        try:
            await asyncio.wait([call])
        finally:
            self._callers -= 1
            if call.done() and self._call is call:
                self._call = None
        if self._closed:
            raise store_closed_error(self._server.address)
        return call.result()

    async def _pop_marker(self) -> float | None:
        """Wait up to `BLOCK_SECONDS` for the marker, pop it, and return its score: see above.

        If no caller waits any more, the marker is put back.
        """
        try:
            popped = await self._listener.run_command(
                "BZPOPMIN", self._marker, int(BLOCK_SECONDS), block_seconds=BLOCK_SECONDS
            )
        except StoreError:
            if self._callers:
                raise
            self._call = None
            return None
        if not self._callers:
            self._call = None
            if popped is not None:
                await self._restore_marker()
        return None if popped is None else float(popped[2])

    async def _restore_marker(self) -> None:
        """Put the popped member back, which wakes another worker."""
        try:
            await self._server.run_command("ZADD", self._marker, 0, "0", key=self._marker)
        except StoreError as error:
            # All workers, including BullMQ's, check for jobs every few seconds anyway.
            logger.debug(
                "cannot put back the member of %s that wakes a worker: %s", self._marker, error
            )

    async def close(self) -> None:
        """End the blocked call, and close the connection. Waiting callers raise `StoreError`."""
        self._closed = True
        call, self._call = self._call, None
        if call is not None:
            await self._end_blocked_call(call)
        await self._listener.close()

    async def _end_blocked_call(self, call: asyncio.Task[float | None]) -> None:
        """Make the blocked call return. If it has just popped the marker, put the marker back."""
        deadline = asyncio.get_running_loop().time() + END_SECONDS
        while not call.done() and asyncio.get_running_loop().time() < deadline:
            await self._listener.unblock()  # repeated: the call may not have reached the server yet
            await asyncio.wait([call], timeout=0.01)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, StoreError):
            if await call is not None:
                await self._restore_marker()
