"""The server of a URL: commands and scripts, from any event loop and any thread."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
import weakref
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hasten import _portal
from hasten._redis import errors
from hasten._redis.client import Client
from hasten._redis.connections import Part
from hasten._redis.listener import Listener, closed
from hasten._store_url import Address, ServerKind
from hasten.errors import StoreBusy, StoreInterrupted, StoreReadOnly, StoreUnavailable

# Pauses between attempts to reach a server: each twice as long as the one before.
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 1.0

SCANNED_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script. It is called by its hash once the server has it."""

    name: str
    text: str
    sha: str

    @classmethod
    def of(cls, name: str, text: str) -> Script:
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Server:
    """Connects on first use. Each event loop has its own connections.

    may_evict: stored data may be evicted when the server's memory is full. Otherwise hasten logs a
    warning for a server that evicts.
    """

    def __init__(self, address: Address, *, may_evict: bool = False) -> None:
        self.address = address
        self._may_evict = may_evict
        self._lock = threading.Lock()
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Client]
        self._clients = weakref.WeakKeyDictionary()
        self._owner = os.getpid()
        self._parents: object = None
        self._closed = False

    @property
    def is_cluster(self) -> bool:
        return self.address.kind is ServerKind.CLUSTER

    # Requests -----------------------------------------------------------------------------------

    async def run(
        self, script: Script, key: str, argument: bytes, *, repeatable: bool = False
    ) -> Any:
        """Run a script on the keys that begin with key. Returns its reply, with texts as bytes.

        repeatable: running the script twice has the effect of running it once, so it is retried
        after `StoreInterrupted`. Raises `StoreError`. Unless it is `StoreInterrupted`, nothing was
        applied.
        """
        client = self._client()

        async def attempt() -> Any:
            try:
                return await client.request(key, "EVALSHA", script.sha, 1, key, argument)
            except errors.FOREIGN as error:
                if not errors.is_unknown_script(error):
                    raise
            return await client.request(key, "EVAL", script.text, 1, key, argument)

        with client.in_progress():
            return await self._retry(attempt, repeatable)

    async def run_together(
        self, script: Script, calls: Sequence[tuple[Sequence[bytes], bytes]]
    ) -> list[Any]:
        """Run a script several times, each time with its own keys and argument.

        All calls are sent in one write. They run in their order, after earlier calls of this method
        in the same event loop, and at most once. The keys of one call must be on one server.
        Returns the replies; a failed call has its `StoreError` in its position.
        """
        client = self._client()

        def commands(verb: str, body: str, chosen: Sequence[int]) -> list[tuple[Part, list[Part]]]:
            return [
                (keys[0], [verb, body, len(keys), *keys, argument])
                for keys, argument in (calls[index] for index in chosen)
            ]

        with client.in_progress():
            everything = range(len(calls))
            answers = await client.request_together(commands("EVALSHA", script.sha, everything))
            unknown = [index for index in everything if errors.is_unknown_script(answers[index])]
            if unknown:  # the server was restarted, or its scripts were flushed
                again = await client.request_together(commands("EVAL", script.text, unknown))
                for index, answer in zip(unknown, again, strict=True):
                    answers[index] = answer
            return answers

    async def command(self, *parts: Part, key: str) -> Any:
        """Run an idempotent command on the server that has the key."""
        client = self._client()
        with client.in_progress():
            return await self._retry(lambda: client.request(key, *parts), repeatable=True)

    def run_blocking(self, script: Script, key: str, argument: bytes) -> Any:
        """Call `run` with repeatable=True from a thread without an event loop."""
        return _portal.run(self.run(script, key, argument, repeatable=True))

    async def scan(self, pattern: str) -> list[bytes]:
        """Return the matching keys of all servers. Takes time in proportion to all their keys."""
        client = self._client()
        found: list[bytes] = []
        for endpoint in await client.endpoints():
            cursor: Any = 0
            while True:
                cursor, keys = await client.request_at(
                    endpoint, "SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED_AT_ONCE
                )
                found += keys
                if int(cursor) == 0:
                    break
        return found

    def listener(self, *, key: str, name: str | None) -> Listener:
        """Return a connection for blocking commands, in the running event loop."""
        return Listener(self.address, self._client(), key, name)

    async def _retry(self, attempt: Any, repeatable: bool) -> Any:
        """Retry while that is safe, for as long as the URL's `wait` allows, and at least once.

        At least once, because a restart or a failover first shows as an error on a connection that
        was open a moment ago.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self.address.wait
        pause, attempts = FIRST_PAUSE, 0
        while True:
            try:
                return await attempt()
            except StoreInterrupted:
                if not repeatable or (attempts and loop.time() >= until):
                    raise
            except (StoreUnavailable, StoreReadOnly, StoreBusy):
                if loop.time() >= until:
                    raise
            if self._closed:
                raise closed(self.address)
            attempts += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # not a secret
            pause = min(2 * pause, LAST_PAUSE)

    # Life ---------------------------------------------------------------------------------------

    def _client(self) -> Client:
        if self._closed:
            raise closed(self.address)
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            with self._lock:
                if self._owner != os.getpid():
                    # After a fork the connections belong to the parent. The reference is kept,
                    # because closing them here would disturb the parent.
                    self._owner = os.getpid()
                    self._parents = self._clients
                    self._clients = weakref.WeakKeyDictionary()
                client = self._clients[loop] = Client(self.address, may_evict=self._may_evict)
        return client

    async def close(self) -> None:
        """Close all connections in all running event loops, after the requests in progress."""
        with self._lock:
            self._closed = True
            clients = list(self._clients.items())
            self._clients = weakref.WeakKeyDictionary()
        for loop, client in clients:
            if loop is asyncio.get_running_loop():
                await client.close()
            elif loop.is_running():
                await asyncio.wrap_future(_in(loop, client.close()))

    def close_now(self) -> None:
        """Close at interpreter exit, from a thread without an event loop."""
        if any(loop.is_running() for loop in list(self._clients)):
            _portal.run(self.close())


def _in(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, loop)
