"""A server by its URL: commands and scripts, from any event loop and any thread."""

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
from hasten._redis import troubles
from hasten._redis.client import Client
from hasten._redis.connections import Part
from hasten._redis.listener import Listener, closed
from hasten._redis_address import Address, Kind
from hasten.errors import StoreBusy, StoreInterrupted, StoreReadOnly, StoreUnavailable

# Pauses between attempts to reach a server: each twice as long as the one before.
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 1.0

SCANNED_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Script:
    """Lua for the server, by its hash once it knows it."""

    name: str
    text: str
    sha: str

    @classmethod
    def of(cls, name: str, text: str) -> Script:
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Server:
    """Opens nothing before it is first used. Each event loop has connections of its own.

    may_evict: what is stored may be thrown away when the server's memory is full; else the log
    warns of a server that does.
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
        return self.address.kind is Kind.CLUSTER

    # Requests -----------------------------------------------------------------------------------

    async def run(
        self, script: Script, key: str, argument: bytes, *, repeatable: bool = False
    ) -> Any:
        """Run a script on the keys that begin with key. Returns its answer, texts as bytes.

        repeatable: to do it twice is to do it once. Then it is tried again where it is not known
        whether it was done. Raises `StoreError`; unless it is `StoreInterrupted`, nothing was done.
        """
        client = self._client()

        async def attempt() -> Any:
            try:
                return await client.request(key, "EVALSHA", script.sha, 1, key, argument)
            except troubles.FOREIGN as error:
                if not troubles.is_unknown_script(error):
                    raise
            return await client.request(key, "EVAL", script.text, 1, key, argument)

        with client.busy():
            return await self._insist(attempt, repeatable)

    async def run_together(
        self, script: Script, calls: Sequence[tuple[Sequence[bytes], bytes]]
    ) -> list[Any]:
        """Run a script several times, each time on its keys and with its argument.

        The calls leave in one write, and are made in their order, after those of earlier calls of
        this method in the same event loop. Each is made once at most. The keys of one call have to
        be on one server. Returns the answers; in the place of one that failed is its `StoreError`.
        """
        client = self._client()

        def commands(verb: str, body: str, chosen: Sequence[int]) -> list[tuple[Part, list[Part]]]:
            return [
                (keys[0], [verb, body, len(keys), *keys, argument])
                for keys, argument in (calls[index] for index in chosen)
            ]

        with client.busy():
            everything = range(len(calls))
            answers = await client.request_together(commands("EVALSHA", script.sha, everything))
            unknown = [index for index in everything if troubles.is_unknown_script(answers[index])]
            if unknown:  # the server was restarted, or told to forget them
                again = await client.request_together(commands("EVAL", script.text, unknown))
                for index, answer in zip(unknown, again, strict=True):
                    answers[index] = answer
            return answers

    async def command(self, *parts: Part, key: str) -> Any:
        """Run a command that may be repeated, at the server that has the key."""
        client = self._client()
        with client.busy():
            return await self._insist(lambda: client.request(key, *parts), repeatable=True)

    def run_blocking(self, script: Script, key: str, argument: bytes) -> Any:
        """`run`, repeatable, in a thread that has no event loop; connections are shared."""
        return _portal.run(self.run(script, key, argument, repeatable=True))

    async def scan(self, pattern: str) -> list[bytes]:
        """The keys that match, on all servers. It takes as long as there are keys."""
        client = self._client()
        found: list[bytes] = []
        for place in await client.places():
            cursor: Any = 0
            while True:
                cursor, keys = await client.request_at(
                    place, "SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED_AT_ONCE
                )
                found += keys
                if int(cursor) == 0:
                    break
        return found

    def listener(self, *, key: str, name: str | None) -> Listener:
        """A connection for commands that block, in the running event loop."""
        return Listener(self.address, self._client(), key, name)

    async def _insist(self, attempt: Any, repeatable: bool) -> Any:
        """Try again while that is safe, and as long as the URL's `wait` says; once more at least.

        Once more, since the first thing one hears of a server that was restarted, or of a master
        that is none any longer, is an error on a connection that was good a moment ago.
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
                    # After a fork those connections are the parent's, and so is what watches them:
                    # even to let them go would disturb it.
                    self._owner = os.getpid()
                    self._parents = self._clients
                    self._clients = weakref.WeakKeyDictionary()
                client = self._clients[loop] = Client(self.address, may_evict=self._may_evict)
        return client

    async def close(self) -> None:
        """Close all connections, of all event loops that still run. What was begun is finished."""
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
        """`close`, as the interpreter ends: from a thread without an event loop."""
        if any(loop.is_running() for loop in list(self._clients)):
            _portal.run(self.close())


def _in(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, loop)
