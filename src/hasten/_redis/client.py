"""The client of one event loop: it routes requests to servers and translates their errors."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, Final, Protocol

from hasten._logs import get_logger
from hasten._redis import errors
from hasten._redis.channel import NotSent, PipelinedConnection
from hasten._redis.connections import Endpoint, Link, Part, Pool
from hasten._redis.topology import make_topology
from hasten._store_url import RedisAddress
from hasten._timeouts import TimeoutExcludingBlockedTime
from hasten.errors import StoreError, StoreInterrupted, StoreTimeout, StoreUnavailable

logger = get_logger("hasten.redis")

OLDEST_VERSION: Final = (6, 2)  # the first with "RPOP key count"

# How many times a cluster may redirect one request before it fails.
MAX_REDIRECTS: Final = 5


class Closable(Protocol):
    async def close(self) -> None: ...


class Client:
    """The connections of one event loop. Sends each request to the server that has its key.

    may_evict: the stored data may be lost when the server's memory is full, so a server that evicts
    keys causes no warning.
    """

    def __init__(self, address: RedisAddress, *, may_evict: bool = False) -> None:
        self._address = address
        self._may_evict = may_evict
        self._topology = make_topology(address)
        self._pools: dict[Endpoint, Pool] = {}
        self._channels: dict[Endpoint, PipelinedConnection] = {}
        self._checked: set[Endpoint] = set()
        self._requests = 0  # how many are in progress
        self._idle = asyncio.Event()  # set when no request is in progress; `close` waits for it
        self.is_closed = False
        self._end: AsyncGenerator[None, None] | None = None
        self.listeners: weakref.WeakSet[Closable] = weakref.WeakSet()

    @contextlib.contextmanager
    def count_as_request_in_progress(self) -> Iterator[None]:
        """Count the block of `with` as a request in progress. `close` waits for such requests."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def request(self, routing_key: str, *parts: Part) -> Any:
        """Send a command, made of parts, to the server that has routing_key. Return the reply.

        Raises `StoreError`, also when the URL's time-out is exceeded. After `StoreInterrupted` the
        command may or may not have been applied. If the server does not have the script of an
        EVALSHA, the `NoScriptError` of `redis` is raised: the caller sends the text of the script.
        """
        if self._end is None:
            await self._close_on_loop_end()
        for _ in range(MAX_REDIRECTS):
            endpoint = await self.endpoint_of(routing_key)
            try:
                return await self._send(self._get_pool(endpoint), parts)
            except errors.FOREIGN as error:
                if not errors.is_moved(error):
                    raise
                self._topology.forget_endpoints()
        raise self._too_many_redirects_error()

    async def request_at(self, endpoint: Endpoint, *parts: Part) -> Any:
        """Send a command to the server at this endpoint, and return the reply; see `request`."""
        return await self._send(self._get_pool(endpoint), parts)

    async def request_pipelined(self, calls: Sequence[tuple[Part, Sequence[Part]]]) -> list[Any]:
        """Send many commands with one write per server, and return the replies in their order.

        Each call is a key, which selects the server, and a command. Each server runs its commands
        in the order of the calls, after the commands of earlier calls of this method. The reply to
        a failed command is the exception that `request` would raise.
        """
        if self._end is None:
            await self._close_on_loop_end()
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
                self._send_pipelined(endpoint, [calls[index][1] for index in indexes])
                for endpoint, indexes in by_endpoint.items()
            ]
            answered = [await sending[0]] if len(sending) == 1 else await asyncio.gather(*sending)
            for indexes, there in zip(by_endpoint.values(), answered, strict=True):
                for index, answer in zip(indexes, there, strict=True):
                    answers[index] = answer
            unsent = [index for index in unsent if errors.is_moved(answers[index])]
            if not unsent:
                break
            self._topology.forget_endpoints()
        for index in unsent:
            answers[index] = self._too_many_redirects_error()
        return answers

    async def _send_pipelined(
        self, endpoint: Endpoint, commands: Sequence[Sequence[Part]]
    ) -> list[Any]:
        """Send commands to one server, on its pipelined connection; see `request_pipelined`."""
        channel = self._channels.get(endpoint)
        if channel is None:
            link = Link(self._address, endpoint)
            channel = self._channels[endpoint] = PipelinedConnection(
                link, self.check_version_and_eviction_policy
            )
        try:
            async with TimeoutExcludingBlockedTime(self._address.timeout):
                answers = await channel.request(commands)
        except StoreError as error:  # `check_version_and_eviction_policy` has rejected the server
            return [error] * len(commands)
        except NotSent as error:
            return [self._connection_error(error.__cause__ or error)] * len(commands)
        except errors.FOREIGN as error:
            return [self._error_after_send(error)] * len(commands)
        return [
            self._error_after_send(answer)
            if isinstance(answer, errors.FOREIGN)
            and not (errors.is_moved(answer) or errors.is_unknown_script(answer))
            else answer
            for answer in answers
        ]

    async def _close_on_loop_end(self) -> None:
        """Make sure that the connections are closed when the event loop ends.

        `asyncio.run` and similar runners close all async generators that have started, so a started
        generator closes the connections.
        """

        async def end() -> AsyncGenerator[None, None]:
            try:
                yield
            finally:
                await self.close()

        self._end = end()
        await anext(self._end)

    async def endpoint_of(self, key: Part) -> Endpoint:
        """Return the endpoint of the server that has the key. Raises `StoreError`."""
        try:
            async with TimeoutExcludingBlockedTime(self._address.timeout):
                return await self._topology.endpoint_of(key)
        except errors.FOREIGN as error:
            raise self._connection_error(error) from error

    async def writable_endpoints(self) -> list[Endpoint]:
        """Return the endpoints of all servers that accept writes. Raises `StoreError`."""
        try:
            async with TimeoutExcludingBlockedTime(self._address.timeout):
                return await self._topology.writable_endpoints()
        except errors.FOREIGN as error:
            raise self._connection_error(error) from error

    def _get_pool(self, endpoint: Endpoint) -> Pool:
        """Return the pool of connections to a server, made on first use."""
        pool = self._pools.get(endpoint)
        if pool is None:
            pool = self._pools[endpoint] = Pool(self._address, endpoint)
        return pool

    async def _send(self, pool: Pool, parts: tuple[Part, ...]) -> Any:
        """Send a command on a connection of the pool, and return the reply."""
        sent = False
        try:
            async with TimeoutExcludingBlockedTime(self._address.timeout), pool.borrow() as link:
                await link.open()
                if link.endpoint not in self._checked:
                    await self.check_version_and_eviction_policy(link)
                sent = True
                return await link.request(*parts)
        except errors.FOREIGN as error:
            if not sent:
                raise self._connection_error(error) from error
            if errors.is_moved(error) or errors.is_unknown_script(error):
                raise
            raise self._error_after_send(error) from error

    def _too_many_redirects_error(self) -> StoreError:
        return StoreUnavailable(
            self._address.shown, f"too many cluster redirects ({MAX_REDIRECTS})"
        )

    def _error_after_send(self, error: BaseException) -> StoreError:
        """Return the `StoreError` for a request that failed after it was sent.

        An error reply means that nothing was applied. After any other error, such as a lost
        connection, the command may or may not have been applied.
        """
        shown = self._address.shown
        if not errors.is_error_reply(error):
            self._topology.forget_endpoints()
            lost = errors.connection_error(shown, error, self._address.timeout, "connection lost")
            kind = StoreTimeout if errors.is_timeout(error) else StoreInterrupted
            return kind(shown, lost.reason)
        ours = errors.error_from_reply(shown, error)
        if errors.suggests_failover(ours):
            self._topology.forget_endpoints()
        return ours

    def _connection_error(self, error: BaseException) -> StoreError:
        """Return the `StoreError` for a request that was not sent, as it could not connect."""
        self._topology.forget_endpoints()
        return errors.connection_error(self._address.shown, error, self._address.timeout)

    # The first connection to a server ------------------------------------------------------------

    async def check_version_and_eviction_policy(self, link: Link) -> None:
        """Check a server on its first connection.

        Raises `StoreUnavailable` if its version is too old. Logs a warning if it is configured to
        evict keys when its memory is full, unless may_evict is set.
        """
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
                "%s: maxmemory-policy is %s, so jobs may be evicted when the memory is full; "
                "set it to noeviction",
                self._address.shown,
                policy,
            )
        self._checked.add(link.endpoint)

    def forget_endpoints(self) -> None:
        """Discard the cached addresses of servers. The next request looks them up again."""
        self._topology.forget_endpoints()

    async def close(self) -> None:
        """Wait for the requests in progress, then close all connections. Safe to call twice."""
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
        await asyncio.sleep(0)  # asyncio closes the transports in the next tick of the loop
