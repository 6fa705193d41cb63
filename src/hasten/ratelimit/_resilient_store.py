"""A store for requests: it keeps them flowing when the counter store is down or slow.

- A certain denial is repeated from memory: the counter store is not called for clients that keep
  sending requests.
- A store that fails or times out several times in a row is not called for a while. Requests
  continue immediately, by the rule of each check: "local" counts in this process, "allow" accepts,
  "deny" refuses. One slow response is not an outage, and time for which the event loop of this
  process was late does not count against the store.
- From time to time the store is probed, outside of requests. When it responds, it decides again,
  and what was counted meanwhile is dropped. Reservations that ended meanwhile are settled then.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Coroutine, Sequence
from inspect import isawaitable
from typing import Any, Final, TypeAlias, TypeVar

from hasten._checks import check_whole_number
from hasten._clock import Clock, make_now_ns
from hasten._durations import Duration, to_us
from hasten._logs import get_logger
from hasten._timeouts import LoopTimeout
from hasten.errors import InvalidOption, StoreError
from hasten.ratelimit._circuit_breaker import PAUSE_US, CircuitBreaker
from hasten.ratelimit._counter_store import (
    Check,
    CheckGroup,
    CounterStore,
    ImmediateStore,
    Outcome,
    Settlement,
    TimedStore,
    is_denied,
)
from hasten.ratelimit._denial_cache import DenialCache
from hasten.ratelimit._rules import Rule
from hasten.ratelimit._stores.memory import MemoryStore
from hasten.ratelimit._stores.remote import RemoteStore, timed_out

T = TypeVar("T")

logger = get_logger("hasten.ratelimit")

STORE_TIMEOUT: Final = 0.05

# How many settlements are kept during an outage. What the others would refund expires with time.
MAX_UNSETTLED: Final = 10_000

LOGGED_EVERY_S: Final = 60.0
"""An outage that begins sooner after the last logged one is not logged."""

BucketKey: TypeAlias = tuple[str, bytes]

_instances: Final[weakref.WeakSet[ResilientStore]] = weakref.WeakSet()
"""All of this process: a reset has to reach what they remember."""


class ResilientStore:
    """A store that always responds, and soon. It may be used from several event loops.

    processes is how many processes share the store: where each has to count for itself, it allows
    its share. store_timeout is how long a hit waits for the store. Administrative calls (`reset`,
    `block`, `peek`) wait as long as the store itself does.
    """

    def __init__(
        self,
        store: CounterStore,
        *,
        processes: int = 1,
        store_timeout: Duration = STORE_TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        self.root: Final = store
        """The store with its own time-out."""
        self.immediate: Final = store if isinstance(store, ImmediateStore) else None
        """The store itself if it responds without waiting: then nothing can fail."""
        self._processes = check_whole_number("processes", processes, 1)
        self._timeout_us = to_us("store_timeout", store_timeout, at_least_us=1)
        self._clock_ns = make_now_ns(clock)
        self._local = MemoryStore(clock=clock)
        self._shares: dict[Rule, Rule] = {}
        self._breaker = CircuitBreaker()
        self._denials = DenialCache()
        self._unsettled: deque[Settlement] = deque(maxlen=MAX_UNSETTLED)
        self._tasks: set[asyncio.Task[None]] = set()
        self.store: Final = store.within(store_timeout) if isinstance(store, TimedStore) else store
        """The store with the time-out of requests."""
        self._is_timed = isinstance(self.store, TimedStore)
        _instances.add(self)
        if isinstance(self.store, TimedStore):
            self.store.on_late = self._probe_after_late_response
        if isinstance(store, RemoteStore):
            store.users.add(self)
        self._calls = 0
        self._failed_check: Check | None = None
        """The check of the last call that failed: a probe repeats it."""
        self._is_probing = False
        self._logged_at_s = float("-inf")
        self._is_outage_logged = False

    @property
    def is_unavailable(self) -> bool:
        """Whether the store is not called at present."""
        return self._breaker.is_open

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Implement `CounterStore.hit`. It never raises `StoreError`."""
        if self.immediate is not None:
            return self.immediate.hit_now(groups)
        known = self._denials.find(groups, self._now_us())
        if known is None:
            return await self._hit(groups)
        i, outcomes = known
        answer = await self._hit(groups[:i])
        if not _is_cut_short(groups[:i], answer):
            answer.append(outcomes)
        return answer

    def hit_now(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]] | None:
        """Return the result if it is known without waiting; None if `hit` has to be awaited."""
        if self.immediate is not None:
            return self.immediate.hit_now(groups)
        known = self._denials.find(groups, self._now_us())
        return [known[1]] if known is not None and known[0] == 0 else None

    def settle_soon(self, settlements: Sequence[Settlement]) -> None:
        """Run `CounterStore.settle` without waiting for it. Every later hit sees the result."""
        if self.immediate is not None:
            self.immediate.settle_now(settlements)
            return
        local = [settlement for settlement in settlements if settlement.token.is_local]
        if local:
            self._local.settle_now(local)
        remote = [settlement for settlement in settlements if not settlement.token.is_local]
        if not remote:
            return
        if self._breaker.is_open:
            self._unsettled.extend(remote)
        else:
            self._spawn(self._settle(remote, self.store.settle(remote)))

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Implement `CounterStore.peek`. It never raises `StoreError`."""
        if not self._breaker.is_open:
            call = self._next_call()
            try:
                return await self.root.peek(checks)
            except StoreError as error:
                self._failed(error, call)
        return self._local.peek_now([self._share(check) for check in checks])

    async def reset(self, keys: Sequence[BucketKey]) -> None:
        """Implement `CounterStore.reset`. Other processes notice it within a second."""
        await reset_keys(self.root, keys)

    async def block(self, keys: Sequence[BucketKey], for_us: int) -> None:
        """Implement `CounterStore.block`. In this process it holds even during an outage."""
        for key in keys:
            self._denials.delete(*key)
            self._local.block_now(*key, for_us)
        await _together(self.root, [self.root.block(*key, for_us) for key in keys])

    async def finish(self) -> None:
        """Finish the calls that have begun. The store stays open for others."""
        if self.immediate is not None:
            return
        loop = asyncio.get_running_loop()
        # They have a time-out, and clients depend on what they settle.
        await asyncio.gather(*(task for task in self._tasks if task.get_loop() is loop))

    # With the store -----------------------------------------------------------------------------

    async def _hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        if not groups:
            return []
        called_us = self._now_us()
        if self._breaker.is_open:
            if self._breaker.takes_probe(called_us):
                self._spawn(self._probe(groups[0][0]))
            return self._without_store(groups)
        call = self._next_call()
        try:
            answer = await self._in_time(self.store.hit(groups))
        except StoreError as error:
            self._failed_check = groups[0][0]
            self._failed(error, call)
            return self._without_store(groups)
        if self._breaker.succeeded():
            self._recovered()
        self._denials.add(groups, answer, called_us)
        return answer

    async def _in_time(self, call: Awaitable[T]) -> T:
        if self._is_timed:
            return await call
        try:
            async with LoopTimeout(self._timeout_us / 1_000_000):
                return await call
        except TimeoutError as exc:
            raise timed_out(type(self.store).__name__, self._timeout_us) from exc

    def _next_call(self) -> int:
        self._calls += 1
        return self._calls

    def _failed(self, error: StoreError, call: int) -> None:
        if self._breaker.failed(self._now_us(), call=call, newest=self._calls):
            # A store that fails again and again must not fill the log.
            self._is_outage_logged = time.monotonic() - self._logged_at_s >= LOGGED_EVERY_S
            if self._is_outage_logged:
                self._logged_at_s = time.monotonic()
                logger.warning(
                    "store of limits unavailable, continuing without it until it responds: %s",
                    error,
                )

    def _probe_after_late_response(self) -> None:
        if self._breaker.is_open and self._failed_check is not None and not self._is_probing:
            self._spawn(self._probe(self._failed_check))

    async def _probe(self, check: Check) -> None:
        self._is_probing = True
        call = self._next_call()
        try:
            await self._in_time(self.store.peek([check]))
        except StoreError as error:
            self._failed(error, call)
        else:
            if self._breaker.succeeded():
                self._recovered()
        finally:
            self._is_probing = False

    def _recovered(self) -> None:
        """Drop what was counted without the store, and settle what ended meanwhile."""
        if self._is_outage_logged:
            logger.warning("store of limits available again")
        self._local.clear()
        if self._unsettled:
            unsettled = list(self._unsettled)
            self._unsettled.clear()
            self.settle_soon(unsettled)

    async def _settle(self, settlements: Sequence[Settlement], settling: Awaitable[None]) -> None:
        call = self._next_call()
        try:
            await self._in_time(settling)
        except StoreError as error:
            self._failed(error, call)
            self._unsettled.extend(settlements)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Without the store --------------------------------------------------------------------------

    def _without_store(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        answer: list[list[Outcome]] = []
        for group in groups:
            outcomes = self._group_without_store(group)
            answer.append(outcomes)
            if is_denied(group, outcomes):
                break
        return answer

    def _group_without_store(self, group: CheckGroup) -> list[Outcome]:
        known = self._denials.find((group,), self._now_us(), is_available=False)
        if known is not None:
            return known[1]
        match group[0].on_error:
            case "allow":
                return [_allowed(check) for check in group]
            case "deny":
                return [_refused(check) for check in group]
            case "local":
                [outcomes] = self._local.hit_now([[self._share(check) for check in group]])
                return [
                    outcome
                    if outcome.token is None
                    else outcome._replace(token=outcome.token._replace(is_local=True))
                    for outcome in outcomes
                ]

    def _share(self, check: Check) -> Check:
        """Return the check against this process's share of its limit."""
        if self._processes == 1:
            return check
        rule = self._shares.get(check.rule)
        if rule is None:
            whole = check.rule
            limit = -(-whole.limit // self._processes)
            rule = Rule(whole.kind, limit, whole.window_us, -(-whole.burst // self._processes))
            self._shares[whole] = rule
        return check._replace(rule=rule)

    def _now_us(self) -> int:
        return self._clock_ns() // 1000

    # Forgetting ---------------------------------------------------------------------------------

    def _forget(self, key: BucketKey) -> None:
        self._denials.delete(*key)
        self._local.reset_now(*key)

    def _forget_all(self) -> None:
        self._denials.clear()
        self._local.clear()


async def reset_keys(store: CounterStore, keys: Sequence[BucketKey]) -> None:
    """Delete the counts of keys in a store, and what this process remembers of them.

    Raises `StoreError`.
    """
    resilient = _resilient_stores_of(store)
    for each in resilient:
        for key in keys:
            each._forget(key)
    await _together(store, [store.reset(*key) for key in keys])
    for each in resilient:
        for key in keys:
            each._denials.delete(*key)  # it may have been denied once more meanwhile


async def _together(store: CounterStore, calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Await the calls concurrently if the store is remote: then they are one atomic exchange."""
    if isinstance(store, RemoteStore):
        await asyncio.gather(*calls)
        return
    for call in calls:
        await call


async def clear_store(store: CounterStore) -> None:
    """Delete all keys of a store, and what this process remembers of them.

    Raises `StoreError`, and `InvalidOption` for a store of the application's own without `clear`.
    """
    clear: Any = getattr(store, "clear", None)
    if clear is None:
        raise InvalidOption("store", store, "a store that has clear()")
    resilient = _resilient_stores_of(store)
    for each in resilient:
        each._forget_all()
    cleared = clear()
    if isawaitable(cleared):
        await cleared
    for each in resilient:
        each._denials.clear()


def _resilient_stores_of(store: CounterStore) -> list[ResilientStore]:
    return [each for each in list(_instances) if each.root is store]


def _is_cut_short(groups: Sequence[CheckGroup], answer: Sequence[Sequence[Outcome]]) -> bool:
    """Return whether one of the groups was denied, so that later groups have no outcomes."""
    return bool(answer) and is_denied(groups[len(answer) - 1], answer[-1])


def _allowed(check: Check) -> Outcome:
    capacity = check.rule.capacity
    return Outcome(True, capacity, capacity, 0, unavailable=True)


def _refused(check: Check) -> Outcome:
    return Outcome(False, check.rule.capacity, 0, PAUSE_US, PAUSE_US, unavailable=True)
