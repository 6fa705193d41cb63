"""All that one event loop has of a server: where it is, and connections to it."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, Final, Protocol

from hasten._logs import get_logger
from hasten._redis import troubles
from hasten._redis.channel import Channel, NotSent
from hasten._redis.connections import Link, Part, Place, Pool
from hasten._redis.topology import topology
from hasten._redis_address import Address
from hasten._timeouts import LoopTimeout
from hasten.errors import StoreError, StoreInterrupted, StoreTimeout, StoreUnavailable

logger = get_logger("hasten.redis")

OLDEST_VERSION: Final = (6, 2)  # the first with "RPOP key count"

# How often in a row a cluster may say that a key has moved.
MOVES: Final = 5


class Closable(Protocol):
    async def close(self) -> None: ...


class Client:
    """Sends requests, each to the server that has its key, and waits for the answer."""

    def __init__(self, address: Address, *, may_evict: bool = False) -> None:
        self._address = address
        self._may_evict = may_evict
        self._topology = topology(address)
        self._pools: dict[Place, Pool] = {}
        self._channels: dict[Place, Channel] = {}
        self._inspected: set[Place] = set()
        self._requests = 0  # under way
        self._quiet = asyncio.Event()  # none of them is left, once it is closed
        self.is_closed = False
        self._end: AsyncGenerator[None, None] | None = None
        self.listeners: weakref.WeakSet[Closable] = weakref.WeakSet()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Inside, something has been begun: `close` waits for its end."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._quiet.set()

    async def request(self, key: str, *parts: Part) -> Any:
        """Send a command once, within the time limit. Raises `StoreError`.

        `StoreInterrupted` is the one that leaves open whether it was done. An answer that is an
        error is raised as the library has it where a caller may want to act on it:
        `troubles.is_unknown_script`.
        """
        if self._end is None:
            await self._end_with_loop()
        for _ in range(MOVES):
            place = await self.place_of(key)
            try:
                return await self._send(self._pool(place), parts)
            except troubles.FOREIGN as error:
                if not troubles.is_moved(error):
                    raise
                self._topology.doubt()
        raise self._in_circles()

    async def request_at(self, place: Place, *parts: Part) -> Any:
        """As `request`, to a server of one's choice."""
        return await self._send(self._pool(place), parts)

    async def request_together(self, calls: Sequence[tuple[Part, Sequence[Part]]]) -> list[Any]:
        """Send commands, each with the key that says where to, in one write to each server.

        They are carried out in their order, after all that was sent this way before. Returns the
        answers; in the place of one that failed is its error, as `request` raises it.
        """
        if self._end is None:
            await self._end_with_loop()
        answers: list[Any] = [None] * len(calls)
        unsent = list(range(len(calls)))
        for _ in range(MOVES):
            by_place: dict[Place, list[int]] = {}
            for index in unsent:
                try:
                    place = await self.place_of(calls[index][0])
                except StoreError as error:
                    answers[index] = error
                else:
                    by_place.setdefault(place, []).append(index)
            sending = [
                self._send_together(place, [calls[index][1] for index in indexes])
                for place, indexes in by_place.items()
            ]
            answered = [await sending[0]] if len(sending) == 1 else await asyncio.gather(*sending)
            for indexes, there in zip(by_place.values(), answered, strict=True):
                for index, answer in zip(indexes, there, strict=True):
                    answers[index] = answer
            unsent = [index for index in unsent if troubles.is_moved(answers[index])]
            if not unsent:
                break
            self._topology.doubt()
        for index in unsent:
            answers[index] = self._in_circles()
        return answers

    async def _send_together(self, place: Place, commands: Sequence[Sequence[Part]]) -> list[Any]:
        channel = self._channels.get(place)
        if channel is None:
            link = Link(self._address, place)
            channel = self._channels[place] = Channel(link, self.inspect)
        try:
            async with LoopTimeout(self._address.timeout):
                answers = await channel.request(commands)
        except StoreError as error:  # of a server that is not fit for us
            return [error] * len(commands)
        except NotSent as error:
            return [self._unreachable(error.__cause__ or error)] * len(commands)
        except troubles.FOREIGN as error:
            return [self._failed(error)] * len(commands)
        return [
            self._failed(answer)
            if isinstance(answer, troubles.FOREIGN)
            and not (troubles.is_moved(answer) or troubles.is_unknown_script(answer))
            else answer
            for answer in answers
        ]

    async def _end_with_loop(self) -> None:
        """Let the connections be closed when the event loop is, should nobody do it before.

        `asyncio.run` and its like end by closing the async generators that have begun.
        """

        async def end() -> AsyncGenerator[None, None]:
            try:
                yield
            finally:
                await self.close()

        self._end = end()
        await anext(self._end)

    async def place_of(self, key: Part) -> Place:
        try:
            async with LoopTimeout(self._address.timeout):
                return await self._topology.place_of(key)
        except troubles.FOREIGN as error:
            raise self._unreachable(error) from error

    async def places(self) -> list[Place]:
        try:
            async with LoopTimeout(self._address.timeout):
                return await self._topology.places()
        except troubles.FOREIGN as error:
            raise self._unreachable(error) from error

    def _pool(self, place: Place) -> Pool:
        pool = self._pools.get(place)
        if pool is None:
            pool = self._pools[place] = Pool(self._address, place)
        return pool

    async def _send(self, pool: Pool, parts: tuple[Part, ...]) -> Any:
        sent = False
        try:
            async with LoopTimeout(self._address.timeout), pool.borrow() as link:
                await link.open()
                if link.place not in self._inspected:
                    await self.inspect(link)
                sent = True
                return await link.request(*parts)
        except troubles.FOREIGN as error:
            if not sent:
                raise self._unreachable(error) from error
            if troubles.is_moved(error) or troubles.is_unknown_script(error):
                raise
            raise self._failed(error) from error

    def _in_circles(self) -> StoreError:
        return StoreUnavailable(self._address.shown, "its cluster sends us around in circles")

    def _failed(self, error: BaseException) -> StoreError:
        """What became of a request that has been sent."""
        shown = self._address.shown
        if not troubles.is_answer(error):
            self._topology.doubt()
            lost = troubles.unreachable(shown, error, self._address.timeout)
            kind = StoreTimeout if troubles.is_timeout(error) else StoreInterrupted
            return kind(shown, lost.reason)
        ours = troubles.answered(shown, error)
        if troubles.doubts_topology(ours):
            self._topology.doubt()
        return ours

    def _unreachable(self, error: BaseException) -> StoreError:
        self._topology.doubt()
        return troubles.unreachable(self._address.shown, error, self._address.timeout)

    # A server we have not talked to before -------------------------------------------------------

    async def inspect(self, link: Link) -> None:
        """Refuse a server that is too old, and say what an operator should know of it."""
        try:
            told = await link.request("INFO")
        except troubles.FOREIGN as error:
            if not troubles.is_answer(error):
                raise
            told = b""  # this user may not ask
        facts = dict(
            line.partition(":")[::2] for line in told.decode(errors="replace").split("\r\n")
        )
        version = facts.get("redis_version", "")
        numbers = tuple(int(number) for number in version.split(".")[:2] if number.isdecimal())
        if numbers and numbers < OLDEST_VERSION:
            oldest = ".".join(map(str, OLDEST_VERSION))
            await link.close()
            raise StoreUnavailable(
                self._address.shown, f"it is Redis {version}: hasten needs {oldest} or newer"
            )
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and not self._may_evict:
            logger.warning(
                "%s may throw away jobs when its memory is full: its maxmemory-policy is %s. "
                "Set it to noeviction",
                self._address.shown,
                policy,
            )
        self._inspected.add(link.place)

    def doubt(self) -> None:
        """Find out anew where the servers are."""
        self._topology.doubt()

    async def close(self) -> None:
        """Close all connections, once what was asked is answered. Safe to call twice."""
        self.is_closed = True
        for listener in list(self.listeners):
            await listener.close()
        while self._requests:
            self._quiet.clear()
            await self._quiet.wait()
        pools, self._pools = self._pools, {}
        channels, self._channels = self._channels, {}
        for pool in pools.values():
            await pool.close()
        for channel in channels.values():
            await channel.close()
        await self._topology.close()
        await asyncio.sleep(0)  # the transports go in the next turn of the loop: its last, maybe
