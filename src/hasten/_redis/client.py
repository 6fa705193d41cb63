"""The connections of one event loop to a server, a master found by Sentinel, or a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, Final, Protocol

from hasten._logs import get_logger
from hasten._redis import errors
from hasten._redis.channel import Channel, NotSent
from hasten._redis.connections import Endpoint, Link, Part, Pool
from hasten._redis.topology import topology
from hasten._store_url import Address
from hasten._timeouts import LoopTimeout
from hasten.errors import StoreError, StoreInterrupted, StoreTimeout, StoreUnavailable

logger = get_logger("hasten.redis")

OLDEST_VERSION: Final = (6, 2)  # the first with "RPOP key count"

# How often a cluster may redirect one request.
MAX_REDIRECTS: Final = 5


class Closable(Protocol):
    async def close(self) -> None: ...


class Client:
    """Sends each request to the server that has its key, and returns the reply."""

    def __init__(self, address: Address, *, may_evict: bool = False) -> None:
        self._address = address
        self._may_evict = may_evict
        self._topology = topology(address)
        self._pools: dict[Endpoint, Pool] = {}
        self._channels: dict[Endpoint, Channel] = {}
        self._inspected: set[Endpoint] = set()
        self._requests = 0  # in progress
        self._idle = asyncio.Event()  # set when none is in progress; `close` waits for it
        self.is_closed = False
        self._end: AsyncGenerator[None, None] | None = None
        self.listeners: weakref.WeakSet[Closable] = weakref.WeakSet()

    @contextlib.contextmanager
    def in_progress(self) -> Iterator[None]:
        """Count a request as in progress: `close` waits until none is."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def request(self, key: str, *parts: Part) -> Any:
        """Send a command once, within the time limit. Raises `StoreError`.

        After `StoreInterrupted` the command may or may not have been applied. An unknown script
        raises the library's own error, because the caller handles it: `errors.is_unknown_script`.
        """
        if self._end is None:
            await self._end_with_loop()
        for _ in range(MAX_REDIRECTS):
            endpoint = await self.endpoint_of(key)
            try:
                return await self._send(self._pool(endpoint), parts)
            except errors.FOREIGN as error:
                if not errors.is_moved(error):
                    raise
                self._topology.invalidate()
        raise self._too_many_redirects()

    async def request_at(self, endpoint: Endpoint, *parts: Part) -> Any:
        """Do the same as `request`, on a given server."""
        return await self._send(self._pool(endpoint), parts)

    async def request_together(self, calls: Sequence[tuple[Part, Sequence[Part]]]) -> list[Any]:
        """Send commands, each with the key that selects its server, in one write to each server.

        The commands of one server run in their order, after those of earlier calls. Returns the
        replies; a failed command has its error, as `request` raises it, in its position.
        """
        if self._end is None:
            await self._end_with_loop()
        answers: list[Any] = [None] * len(calls)
        unsent = list(range(len(calls)))
        for _ in range(MAX_REDIRECTS):
            by_endpoint: dict[Endpoint, list[int]] = {}
            for index in unsent:
                try:
                    endpoint = await self.endpoint_of(calls[index][0])
                except StoreError as error:
                    answers[index] = error
                else:
                    by_endpoint.setdefault(endpoint, []).append(index)
            sending = [
                self._send_together(endpoint, [calls[index][1] for index in indexes])
                for endpoint, indexes in by_endpoint.items()
            ]
            answered = [await sending[0]] if len(sending) == 1 else await asyncio.gather(*sending)
            for indexes, there in zip(by_endpoint.values(), answered, strict=True):
                for index, answer in zip(indexes, there, strict=True):
                    answers[index] = answer
            unsent = [index for index in unsent if errors.is_moved(answers[index])]
            if not unsent:
                break
            self._topology.invalidate()
        for index in unsent:
            answers[index] = self._too_many_redirects()
        return answers

    async def _send_together(
        self, endpoint: Endpoint, commands: Sequence[Sequence[Part]]
    ) -> list[Any]:
        channel = self._channels.get(endpoint)
        if channel is None:
            link = Link(self._address, endpoint)
            channel = self._channels[endpoint] = Channel(link, self.inspect)
        try:
            async with LoopTimeout(self._address.timeout):
                answers = await channel.request(commands)
        except StoreError as error:  # the server is too old
            return [error] * len(commands)
        except NotSent as error:
            return [self._unreachable(error.__cause__ or error)] * len(commands)
        except errors.FOREIGN as error:
            return [self._failed(error)] * len(commands)
        return [
            self._failed(answer)
            if isinstance(answer, errors.FOREIGN)
            and not (errors.is_moved(answer) or errors.is_unknown_script(answer))
            else answer
            for answer in answers
        ]

    async def _end_with_loop(self) -> None:
        """Close the connections with the event loop, unless they were closed before.

        `asyncio.run` and similar runners close the async generators that have started.
        """

        async def end() -> AsyncGenerator[None, None]:
            try:
                yield
            finally:
                await self.close()

        self._end = end()
        await anext(self._end)

    async def endpoint_of(self, key: Part) -> Endpoint:
        try:
            async with LoopTimeout(self._address.timeout):
                return await self._topology.endpoint_of(key)
        except errors.FOREIGN as error:
            raise self._unreachable(error) from error

    async def endpoints(self) -> list[Endpoint]:
        try:
            async with LoopTimeout(self._address.timeout):
                return await self._topology.endpoints()
        except errors.FOREIGN as error:
            raise self._unreachable(error) from error

    def _pool(self, endpoint: Endpoint) -> Pool:
        pool = self._pools.get(endpoint)
        if pool is None:
            pool = self._pools[endpoint] = Pool(self._address, endpoint)
        return pool

    async def _send(self, pool: Pool, parts: tuple[Part, ...]) -> Any:
        sent = False
        try:
            async with LoopTimeout(self._address.timeout), pool.borrow() as link:
                await link.open()
                if link.endpoint not in self._inspected:
                    await self.inspect(link)
                sent = True
                return await link.request(*parts)
        except errors.FOREIGN as error:
            if not sent:
                raise self._unreachable(error) from error
            if errors.is_moved(error) or errors.is_unknown_script(error):
                raise
            raise self._failed(error) from error

    def _too_many_redirects(self) -> StoreError:
        return StoreUnavailable(
            self._address.shown, f"too many cluster redirects ({MAX_REDIRECTS})"
        )

    def _failed(self, error: BaseException) -> StoreError:
        """Return the error of a request that was sent."""
        shown = self._address.shown
        if not errors.is_error_reply(error):
            self._topology.invalidate()
            lost = errors.unreachable(shown, error, self._address.timeout)
            kind = StoreTimeout if errors.is_timeout(error) else StoreInterrupted
            return kind(shown, lost.reason)
        ours = errors.error_of_reply(shown, error)
        if errors.suggests_failover(ours):
            self._topology.invalidate()
        return ours

    def _unreachable(self, error: BaseException) -> StoreError:
        self._topology.invalidate()
        return errors.unreachable(self._address.shown, error, self._address.timeout)

    # The first connection to a server ------------------------------------------------------------

    async def inspect(self, link: Link) -> None:
        """Refuse a server that is too old, and warn of settings that lose data."""
        try:
            info = await link.request("INFO")
        except errors.FOREIGN as error:
            if not errors.is_error_reply(error):
                raise
            info = b""  # this user may not run INFO
        facts = dict(
            line.partition(":")[::2] for line in info.decode(errors="replace").split("\r\n")
        )
        version = facts.get("redis_version", "")
        numbers = tuple(int(number) for number in version.split(".")[:2] if number.isdecimal())
        if numbers and numbers < OLDEST_VERSION:
            oldest = ".".join(map(str, OLDEST_VERSION))
            await link.close()
            raise StoreUnavailable(
                self._address.shown, f"Redis {version} is too old: hasten needs {oldest} or newer"
            )
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and not self._may_evict:
            logger.warning(
                "%s: maxmemory-policy is %s, so jobs may be evicted when memory is full; "
                "set it to noeviction",
                self._address.shown,
                policy,
            )
        self._inspected.add(link.endpoint)

    def invalidate(self) -> None:
        """Look up the servers again before the next request."""
        self._topology.invalidate()

    async def close(self) -> None:
        """Close all connections after the requests in progress. Safe to call twice."""
        self.is_closed = True
        for listener in list(self.listeners):
            await listener.close()
        while self._requests:
            self._idle.clear()
            await self._idle.wait()
        pools, self._pools = self._pools, {}
        channels, self._channels = self._channels, {}
        for pool in pools.values():
            await pool.close()
        for channel in channels.values():
            await channel.close()
        await self._topology.close()
        await asyncio.sleep(0)  # transports close in the next turn
