"""Counts on a Redis server, shared by all who use it.

All that one tick of the event loop asks leaves as one call of one script (`limit.lua`), which reads
the keys it is about at once and writes each of them once. On a cluster it is one call for each
client, in one write for each node. What is asked later is done later: there is one connection to a
server for each event loop, and answers need not have come for the next call to leave.

A key is `prefix:bucket:{client}`: its part in braces decides about its place in a cluster. It holds
what `algorithms.py` says is known of a client, packed, and lives until that tells nothing more.
Times are the server's.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib import resources
from itertools import chain, groupby
from typing import Final

from hasten._coalescing import Coalescer
from hasten._durations import Seconds, to_us
from hasten._redis.address import parse_url
from hasten._redis.server import Script, Server
from hasten.errors import StoreError
from hasten.ratelimit.store import Check, Group, Outcome, OverBudget, Settlement, is_denied
from hasten.ratelimit.stores.redis.batch import (
    Batch,
    Block,
    Hit,
    Peek,
    Request,
    Reset,
    Settle,
    unpack,
)

DEFAULT_PREFIX: Final = "hasten:limit"

# A request waits for its limit: what takes longer than this is taken for lost.
TIMEOUT_SECONDS: Final = 1.0

SCRIPT: Final = Script.of(
    "limit", (resources.files(__package__) / "limit.lua").read_text(encoding="utf-8")
)

# If it was this event loop that was late, the answer is here, and only has to be read.
GRACE_TURNS: Final = 4

# Where a test brings its own time, keys must not go by the server's.
LINGER_MS: Final = 600_000

Answer = list[list[Outcome]] | StoreError


class RedisStore:
    """`redis://host:6379/0`, and the other forms of `hasten._redis.parse_url`.

    Options in the URL beside the driver's: `?prefix=hasten:limit` (what all keys begin with).
    budget is how long requests wait for an answer; without one it is the URL's `timeout` (1 s).
    clock_us is for tests: the time to go by, in microseconds since the epoch.
    """

    def __init__(
        self,
        url: str,
        *,
        budget: Seconds | None = None,
        clock_us: Callable[[], int] | None = None,
    ) -> None:
        address = parse_url(url, known={"prefix"}, timeout=TIMEOUT_SECONDS)
        self.url = address.shown
        self._prefix = address.options.get("prefix", DEFAULT_PREFIX)
        self._server = Server(address, may_evict=True)
        self._budget_us = None if budget is None else to_us("budget", budget, at_least_us=1)
        self._late: set[asyncio.Future[list[Answer]]] = set()
        self.on_late: Callable[[], None] | None = None
        self._clock_us = clock_us
        self._names: dict[str, bytes] = {}
        self._coalescers: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, Coalescer[Request, Answer]
        ] = weakref.WeakKeyDictionary()

    async def hit(self, groups: Sequence[Group]) -> list[list[Outcome]]:
        groups = [group for group in groups if group]
        if not groups:
            return []
        if not self._server.is_cluster:
            return await self._ask(Hit(groups))
        answer: list[list[Outcome]] = []
        for _, run in groupby(groups, key=lambda group: group[0].key):
            part = list(run)
            outcomes = await self._ask(Hit(part))
            answer += outcomes
            if len(outcomes) < len(part) or is_denied(part[-1], outcomes[-1]):
                break
        return answer

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        # Put in now, not once somebody waits: what is asked later comes behind it.
        return _all_done([self._put(Settle(settlement)) for settlement in settlements])

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        if not checks:
            return []
        if not self._server.is_cluster:
            [outcomes] = await self._ask(Peek(checks))
            return outcomes
        answers = [self._put(Peek([check])) for check in checks]
        return [_value(await answer)[0][0] for answer in answers]

    async def reset(self, bucket: str, key: bytes) -> None:
        await self._ask(Reset(bucket, key))

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        await self._ask(Block(bucket, key, for_us))

    async def aclose(self) -> None:
        await self._server.close()

    # Sending ------------------------------------------------------------------------------------

    async def _ask(self, request: Request) -> list[list[Outcome]]:
        return _value(await self._put(request))

    def _put(self, request: Request) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        coalescer = self._coalescers.get(loop)
        if coalescer is None:
            coalescer = self._coalescers[loop] = Coalescer(self._send)
        return coalescer.put(request)

    async def _send(self, requests: Sequence[Request]) -> list[Answer]:
        if self._budget_us is None:
            return await self._exchange(requests)
        exchange = asyncio.ensure_future(self._exchange(requests))
        if await _is_done_within(exchange, self._budget_us):
            return exchange.result()
        # Not cancelled, which would break the connection for the sake of a moment.
        self._late.add(exchange)
        exchange.add_done_callback(self._came_late)
        return [OverBudget(self.url, self._budget_us)] * len(requests)

    def _came_late(self, exchange: asyncio.Future[list[Answer]]) -> None:
        """Nobody has heard of what it brings: give back what it reserved."""
        self._late.discard(exchange)
        if exchange.cancelled() or exchange.exception() is not None:
            return
        answers = [answer for answer in exchange.result() if not isinstance(answer, StoreError)]
        if not answers:
            return
        if self.on_late is not None:
            self.on_late()
        for answer in answers:
            for outcome in chain(*answer):
                if outcome.token is not None:
                    self._put(Settle(Settlement(outcome.token)))

    async def _exchange(self, requests: Sequence[Request]) -> list[Answer]:
        now_us = None if self._clock_us is None else self._clock_us()
        linger_ms = 0 if now_us is None else LINGER_MS
        calls, members = [], []
        for places in self._batches(requests):
            batch = Batch(self._name)
            for place in places:
                requests[place].add_to(batch)
            calls.append((batch.names(), batch.packed(now_us, linger_ms)))
            members.append(places)
        answers: list[Answer] = [[]] * len(requests)
        for places, told in zip(
            members, await self._server.run_together(SCRIPT, calls), strict=True
        ):
            if isinstance(told, StoreError):
                for place in places:
                    answers[place] = told
                continue
            for place, numbers in zip(places, unpack(told), strict=True):
                answers[place] = requests[place].read(numbers)
        return answers

    def _batches(self, requests: Sequence[Request]) -> Iterator[Sequence[int]]:
        """Which requests go in one call, by their places."""
        if not self._server.is_cluster:
            yield range(len(requests))
            return
        by_key: dict[bytes, list[int]] = {}
        for place, request in enumerate(requests):
            by_key.setdefault(request.key, []).append(place)
        yield from by_key.values()

    def _name(self, bucket: str, key: bytes) -> bytes:
        start = self._names.get(bucket)
        if start is None:
            # Braces in a name would be taken for those around the client.
            plain = bucket.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
            start = f"{self._prefix}:{plain}:{{".encode("utf-8", "surrogatepass")
            if len(self._names) >= 10_000:  # rates may be made up for each client
                self._names.clear()
            self._names[bucket] = start
        return start + key.hex().encode() + b"}"


async def _is_done_within(future: asyncio.Future[list[Answer]], budget_us: int) -> bool:
    await asyncio.wait({future}, timeout=budget_us / 1_000_000)
    for _ in range(GRACE_TURNS):
        if future.done():
            break
        await asyncio.sleep(0)
    return future.done()


async def _all_done(answers: Sequence[asyncio.Future[Answer]]) -> None:
    for answer in await asyncio.gather(*answers):
        _value(answer)


def _value(answer: Answer) -> list[list[Outcome]]:
    if isinstance(answer, StoreError):
        raise answer
    return answer
