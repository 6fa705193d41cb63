"""`Server`: runs commands and scripts on the server of a URL, from any event loop or thread."""

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
from hasten._redis.listener import BlockingConnection, store_closed_error
from hasten._store_url import RedisAddress, ServerKind
from hasten.errors import StoreBusy, StoreInterrupted, StoreReadOnly, StoreUnavailable

# The pauses between attempts to reach a server, in seconds. Each is twice as long as the previous.
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 1.0

SCANNED_AT_ONCE: Final = 1_000  # keys that one SCAN command examines


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script. sha is its SHA-1 hash, by which a server that has cached the script runs it."""

    name: str
    text: str
    sha: str

    @classmethod
    def of(cls, name: str, text: str) -> Script:
        """Make a script from its text, and compute the hash."""
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Server:
    """Runs scripts and commands on the server, Sentinel master or cluster that a URL names.

    It connects on first use. Each event loop has its own connections. may_evict: the stored data
    may be lost when the server's memory is full. If it is False, hasten logs a warning for a server
    that is configured to evict keys.
    """

    def __init__(self, address: RedisAddress, *, may_evict: bool = False) -> None:
        self.address = address
        self._may_evict = may_evict
        self._lock = threading.Lock()
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Client]
        self._clients = weakref.WeakKeyDictionary()
        self._owner = os.getpid()
        self._parent_clients: object = None
        self._closed = False

    @property
    def is_cluster(self) -> bool:
        """Whether the URL names a cluster."""
        return self.address.kind is ServerKind.CLUSTER

    # Requests -----------------------------------------------------------------------------------

    async def run_script(
        self, script: Script, key: str, argument: bytes, *, repeatable: bool = False
    ) -> Any:
        """Run a script and return its reply. Strings in the reply are bytes.

        key is KEYS[1] of the script and selects the server of a cluster; argument is ARGV[1].
        repeatable: running the script twice has the same effect as running it once, so it may be
        retried after `StoreInterrupted`. Raises `StoreError`; nothing was applied then, unless it
        is `StoreInterrupted`.
        """
        client = self._get_client()

        async def attempt() -> Any:
            try:
                return await client.request(key, "EVALSHA", script.sha, 1, key, argument)
            except errors.FOREIGN as error:
                if not errors.is_unknown_script(error):
                    raise
            return await client.request(key, "EVAL", script.text, 1, key, argument)

        with client.count_as_request_in_progress():
            return await self._retry(attempt, repeatable)

    async def run_script_pipelined(
        self, script: Script, calls: Sequence[tuple[Sequence[bytes], bytes]]
    ) -> list[Any]:
        """Run a script several times, once for each pair of keys and argument.

        All runs are sent in one write per server, without retries. A server executes them in their
        order, after those of earlier calls of this method in the same event loop. The keys of one
        run must be on the same server. Returns the replies in order; the reply of a failed run is
        its `StoreError`.
        """
        client = self._get_client()

        def make_commands(
            command: str, sha_or_text: str, call_indexes: Sequence[int]
        ) -> list[tuple[Part, list[Part]]]:
            return [
                (keys[0], [command, sha_or_text, len(keys), *keys, argument])
                for keys, argument in (calls[index] for index in call_indexes)
            ]

        with client.count_as_request_in_progress():
            everything = range(len(calls))
            answers = await client.request_pipelined(
                make_commands("EVALSHA", script.sha, everything)
            )
            unknown = [index for index in everything if errors.is_unknown_script(answers[index])]
            if unknown:  # first use, a restart of the server, or SCRIPT FLUSH
                again = await client.request_pipelined(make_commands("EVAL", script.text, unknown))
                for index, answer in zip(unknown, again, strict=True):
                    answers[index] = answer
            return answers

    async def run_command(self, *parts: Part, key: str) -> Any:
        """Run an idempotent command on the server that has the key, with retries."""
        client = self._get_client()
        with client.count_as_request_in_progress():
            return await self._retry(lambda: client.request(key, *parts), repeatable=True)

    def run_script_from_thread(self, script: Script, key: str, argument: bytes) -> Any:
        """Run a repeatable script from a thread without an event loop; see `run_script`."""
        return _portal.run_without_loop_check(
            self.run_script(script, key, argument, repeatable=True)
        )

    async def scan(self, pattern: str) -> list[bytes]:
        """Return the keys that match a glob pattern, from all servers of the cluster.

        Slow on large servers: it goes through all of their keys.
        """
        client = self._get_client()
        found: list[bytes] = []
        for endpoint in await client.writable_endpoints():
            cursor: Any = 0
            while True:
                cursor, keys = await client.request_at(
                    endpoint, "SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED_AT_ONCE
                )
                found += keys
                if int(cursor) == 0:
                    break
        return found

    def make_blocking_connection(self, *, key: str, name: str | None) -> BlockingConnection:
        """Make a connection for blocking commands. It belongs to the running event loop."""
        return BlockingConnection(self.address, self._get_client(), key, name)

    async def _retry(self, attempt: Any, repeatable: bool) -> Any:
        """Call attempt until it succeeds, and retry for as long as the URL's `wait` allows.

        Errors after which nothing was applied are retried. After `StoreInterrupted` only a
        repeatable attempt is retried, and at least once, even if `wait` is 0: a restart or a
        failover of the server first appears as an error on a connection that was open.
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
                raise store_closed_error(self.address)
            attempts += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # not a secret
            pause = min(2 * pause, LAST_PAUSE)

    # Life ---------------------------------------------------------------------------------------

    def _get_client(self) -> Client:
        """Return the client of the running event loop, made on first use."""
        if self._closed:
            raise store_closed_error(self.address)
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            with self._lock:
                if self._owner != os.getpid():
                    # This process was forked, and the connections belong to its parent. The clients
                    # stay referenced: garbage collection would close the parent's connections.
                    self._owner = os.getpid()
                    self._parent_clients = self._clients
                    self._clients = weakref.WeakKeyDictionary()
                client = self._clients[loop] = Client(self.address, may_evict=self._may_evict)
        return client

    async def close(self) -> None:
        """Close the connections of all running event loops, after the requests in progress."""
        with self._lock:
            self._closed = True
            clients = list(self._clients.items())
            self._clients = weakref.WeakKeyDictionary()
        for loop, client in clients:
            if loop is asyncio.get_running_loop():
                await client.close()
            elif loop.is_running():
                await asyncio.wrap_future(_submit_to_loop(loop, client.close()))

    def close_without_event_loop(self) -> None:
        """Close the connections when the interpreter exits, from a thread without an event loop."""
        if any(loop.is_running() for loop in list(self._clients)):
            _portal.run_without_loop_check(self.close())


def _submit_to_loop(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> Any:
    """Run a coroutine in another thread's event loop, and return its concurrent future."""
    return asyncio.run_coroutine_threadsafe(work, loop)
