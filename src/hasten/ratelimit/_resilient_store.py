"""A store that keeps requests flowing when the counter store behind it is down or slow.

- A certain denial (`Outcome.certain`) is repeated from memory, so the counter store is not called
  for clients that keep sending requests.
- After several consecutive failures or time-outs, the counter store is not called for a while.
  Meanwhile `Check.on_error` decides immediately: "local" counts in this process, "allow" accepts,
  "deny" denies. One slow response is not an outage, and the time for which the event loop of this
  process was late does not count against the counter store.
- From time to time a background task probes the counter store. When it responds, it is used again:
  local counts are dropped, and reservations that ended during the outage are settled.
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
from hasten._durations import Duration, to_nearest_us
from hasten._logs import get_logger
from hasten._timeouts import TimeoutExcludingBlockedTime
from hasten.errors import InvalidOption, StoreError
from hasten.ratelimit import _test_isolation as test_isolation
from hasten.ratelimit._circuit_breaker import PAUSE_US, CircuitBreaker
from hasten.ratelimit._counter_store import (
    Check,
    CheckGroup,
    CounterStore,
    ImmediateStore,
    Outcome,
    Settlement,
    TimedStore,
    is_group_denied,
)
from hasten.ratelimit._denial_cache import DenialCache
from hasten.ratelimit._rules import Rule
from hasten.ratelimit._stores.memory import MemoryStore
from hasten.ratelimit._stores.remote import RemoteStore, make_timeout_error

T = TypeVar("T")

logger = get_logger("hasten.ratelimit")

STORE_TIMEOUT: Final = 0.05

# How many settlements are kept during an outage. Older ones are dropped, and the costs that they
# would refund expire with their windows.
MAX_UNSETTLED: Final = 10_000

LOGGED_EVERY_S: Final = 60.0
"""The minimum time between two logged outages, in seconds. Outages in between are not logged."""

BucketKey: TypeAlias = tuple[str, bytes]

_instances: Final[weakref.WeakSet[ResilientStore]] = weakref.WeakSet()
"""All resilient stores of this process: a reset must also delete what they have in memory."""


class ResilientStore:
    """A wrapper of a counter store that keeps requests flowing while that store does not respond.

    - store_timeout: how many seconds a hit waits for the counter store. Administrative calls
      (`reset`, `block`, `peek`) wait as long as the counter store's own time-out.
    - processes: how many processes share the counter store. While it is unavailable, each process
      allows the limits divided by this number.

    It may be used from several event loops.
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
        """The counter store with its own time-out, for administrative calls."""
        self.immediate: Final = store if isinstance(store, ImmediateStore) else None
        """The counter store if it never waits, so that no call can fail; else None."""
        self._processes = check_whole_number("processes", processes, 1)
        self._timeout_us = to_nearest_us("store_timeout", store_timeout, at_least_us=1)
        self._clock = clock
        self.use_default_clock(test_isolation.clock)
        self._local = MemoryStore(clock=clock)
        self._shares: dict[Rule, Rule] = {}
        self._breaker = CircuitBreaker()
        self._denials = DenialCache()
        self._unsettled: deque[Settlement] = deque(maxlen=MAX_UNSETTLED)
        self._tasks: set[asyncio.Task[None]] = set()
        self.store: Final = (
            store.with_timeout(store_timeout) if isinstance(store, TimedStore) else store
        )
        """The counter store with store_timeout, for hits and settlements."""
        self._is_timed = isinstance(self.store, TimedStore)
        _instances.add(self)
        test_isolation.resilient_stores.add(self)
        if isinstance(self.store, TimedStore):
            self.store.on_late = self._probe_after_late_response
        if isinstance(store, RemoteStore):
            store.users.add(self)
        self._calls = 0
        self._failed_check: Check | None = None
        """A check of the last call that failed, for the probe after a late response."""
        self._is_probing = False
        self._logged_at_s = float("-inf")
        self._is_outage_logged = False

    @property
    def is_unavailable(self) -> bool:
        """Whether the counter store is not called at present, because of failures."""
        return self._breaker.is_open

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """Take the costs of groups like `CounterStore.hit`, but never raise `StoreError`."""
        if self.immediate is not None:
            return self.immediate.hit_now(groups)
        known = self._denials.find_denied_group(groups, self._now_us())
        if known is None:
            return await self._hit_store(groups)
        i, outcomes = known
        answer = await self._hit_store(groups[:i])
        if not _has_denied_group(groups[:i], answer):
            answer.append(outcomes)
        return answer

    def hit_now_if_possible(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]] | None:
        """Return the result of `hit` if there is no need to wait for it; else None."""
        if self.immediate is not None:
            return self.immediate.hit_now(groups)
        known = self._denials.find_denied_group(groups, self._now_us())
        return [known[1]] if known is not None and known[0] == 0 else None

    def settle_in_background(self, settlements: Sequence[Settlement]) -> None:
        """Start to settle reservations without waiting for the store.

        Every later hit sees the result.
        """
        if self.immediate is not None:
            self.immediate.settle_now(settlements)
            return
        local = [settlement for settlement in settlements if settlement.reservation.is_local]
        if local:
            self._local.settle_now(local)
        remote = [settlement for settlement in settlements if not settlement.reservation.is_local]
        if not remote:
            return
        if self._breaker.is_open:
            self._unsettled.extend(remote)
        else:
            self._run_in_background(self._await_settling(remote, self.store.settle(remote)))

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """Return the outcome that each check would have now. Never raises `StoreError`.

        If the store does not respond, the outcomes are based on the counts of this process.
        """
        if not self._breaker.is_open:
            call_number = self._next_call_number()
            try:
                return await self.root.peek(checks)
            except StoreError as error:
                self._record_failure(error, call_number)
        return self._local.peek_now([self._divide_limit_by_processes(check) for check in checks])

    async def reset(self, keys: Sequence[BucketKey]) -> None:
        """Delete the counts and the blocks of keys. Other processes notice it within a second.

        Raises `StoreError`.
        """
        await reset_keys(self.root, keys)

    async def block(self, keys: Sequence[BucketKey], for_us: int) -> None:
        """Deny every check of these keys for this many microseconds; 0 ends a block.

        For checks with on_error="local", the block also holds in this process while the store is
        unavailable. Raises `StoreError`.
        """
        for key in keys:
            self._denials.delete(*key)
            self._local.block_now(*key, for_us)
        await _await_store_calls(self.root, [self.root.block(*key, for_us) for key in keys])

    async def wait_for_unfinished_calls(self) -> None:
        """Wait for unfinished settlements and probes.

        The store stays open, as others may use it.
        """
        if self.immediate is not None:
            return
        loop = asyncio.get_running_loop()
        # The wait is short, because they have a time-out. Without it, refunds would be lost.
        await asyncio.gather(*(task for task in self._tasks if task.get_loop() is loop))

    # While the store is available ---------------------------------------------------------------

    async def _hit_store(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        if not groups:
            return []
        called_us = self._now_us()
        if self._breaker.is_open:
            if self._breaker.start_probe_if_due(called_us):
                self._run_in_background(self._probe_with_peek(groups[0][0]))
            return self._decide_without_store(groups)
        call_number = self._next_call_number()
        try:
            answer = await self._await_with_timeout(self.store.hit(groups))
        except StoreError as error:
            self._failed_check = groups[0][0]
            self._record_failure(error, call_number)
            return self._decide_without_store(groups)
        if self._breaker.record_success():
            self._resume_using_store()
        self._denials.update_from_outcomes(groups, answer, called_us)
        return answer

    async def _await_with_timeout(self, call: Awaitable[T]) -> T:
        if self._is_timed:
            return await call
        try:
            async with TimeoutExcludingBlockedTime(self._timeout_us / 1_000_000):
                return await call
        except TimeoutError as exc:
            raise make_timeout_error(type(self.store).__name__, self._timeout_us) from exc

    def _next_call_number(self) -> int:
        self._calls += 1
        return self._calls

    def _record_failure(self, error: StoreError, call_number: int) -> None:
        if self._breaker.record_failure(
            self._now_us(), failed_call_number=call_number, last_started_call_number=self._calls
        ):
            # Repeated outages must not fill the log.
            self._is_outage_logged = time.monotonic() - self._logged_at_s >= LOGGED_EVERY_S
            if self._is_outage_logged:
                self._logged_at_s = time.monotonic()
                logger.warning(
                    "rate limit store unavailable, using on_store_error until it responds: %s",
                    error,
                )

    def _probe_after_late_response(self) -> None:
        if self._breaker.is_open and self._failed_check is not None and not self._is_probing:
            self._run_in_background(self._probe_with_peek(self._failed_check))

    async def _probe_with_peek(self, check: Check) -> None:
        """Call the store without counting anything, to find out whether it responds."""
        self._is_probing = True
        call_number = self._next_call_number()
        try:
            await self._await_with_timeout(self.store.peek([check]))
        except StoreError as error:
            self._record_failure(error, call_number)
        else:
            if self._breaker.record_success():
                self._resume_using_store()
        finally:
            self._is_probing = False

    def _resume_using_store(self) -> None:
        """Drop local counts, and settle the reservations that ended during the outage."""
        if self._is_outage_logged:
            logger.warning("rate limit store available again")
        self._local.clear()
        if self._unsettled:
            unsettled = list(self._unsettled)
            self._unsettled.clear()
            self.settle_in_background(unsettled)

    async def _await_settling(
        self, settlements: Sequence[Settlement], settling: Awaitable[None]
    ) -> None:
        """Await the call of the store that settles; if it fails, settle after the outage."""
        call_number = self._next_call_number()
        try:
            await self._await_with_timeout(settling)
        except StoreError as error:
            self._record_failure(error, call_number)
            self._unsettled.extend(settlements)

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # While the store is unavailable -------------------------------------------------------------

    def _decide_without_store(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        answer: list[list[Outcome]] = []
        for group in groups:
            outcomes = self._decide_group_without_store(group)
            answer.append(outcomes)
            if is_group_denied(group, outcomes):
                break
        return answer

    def _decide_group_without_store(self, group: CheckGroup) -> list[Outcome]:
        known = self._denials.find_denied_group((group,), self._now_us(), is_store_available=False)
        if known is not None:
            return known[1]
        match group[0].on_error:
            case "allow":
                return [_make_allowed_outcome(check) for check in group]
            case "deny":
                return [_make_denied_outcome(check) for check in group]
            case "local":
                [outcomes] = self._local.hit_now(
                    [[self._divide_limit_by_processes(check) for check in group]]
                )
                return [
                    outcome
                    if outcome.reservation is None
                    else outcome._replace(reservation=outcome.reservation._replace(is_local=True))
                    for outcome in outcomes
                ]

    def _divide_limit_by_processes(self, check: Check) -> Check:
        """Return the check with its limit divided by the number of processes, rounded up.

        It is for local counts, which no other process shares.
        """
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

    # Dropping what this process has in memory ---------------------------------------------------

    def _drop_local_state(self, key: BucketKey) -> None:
        self._denials.delete(*key)
        self._local.reset_now(*key)

    def use_default_clock(self, clock: Clock | None) -> None:
        """Use this clock if the store was created without one. None is the system's clock."""
        self._clock_ns = make_now_ns(self._clock or clock)

    def forget_everything(self) -> None:
        """Delete what this process holds of the counter store, also about its outages."""
        self._drop_all_local_state()
        self._unsettled.clear()
        self._breaker = CircuitBreaker()

    def _drop_all_local_state(self) -> None:
        self._denials.clear()
        self._local.clear()


async def reset_keys(store: CounterStore, keys: Sequence[BucketKey]) -> None:
    """Delete the counts and blocks of keys in a store, and what this process holds of them.

    Raises `StoreError`.
    """
    resilient = _find_resilient_stores(store)
    for each in resilient:
        for key in keys:
            each._drop_local_state(key)
    await _await_store_calls(store, [store.reset(*key) for key in keys])
    for each in resilient:
        for key in keys:
            each._denials.delete(*key)  # a hit during the reset may have cached one


async def _await_store_calls(
    store: CounterStore, calls: Sequence[Coroutine[Any, Any, None]]
) -> None:
    """Await calls of a store: concurrently for a remote store, which sends them in one batch."""
    if isinstance(store, RemoteStore):
        await asyncio.gather(*calls)
        return
    for call in calls:
        await call


async def delete_all_counts(store: CounterStore) -> None:
    """Delete all counts and blocks in a store, and what this process holds of them.

    Raises `StoreError`, and `InvalidOption` for a custom store without `clear`.
    """
    clear: Any = getattr(store, "clear", None)
    if clear is None:
        raise InvalidOption("store", store, "a store with a method clear()")
    resilient = _find_resilient_stores(store)
    for each in resilient:
        each._drop_all_local_state()
    cleared = clear()
    if isawaitable(cleared):
        await cleared
    for each in resilient:
        each._denials.clear()


def _find_resilient_stores(store: CounterStore) -> list[ResilientStore]:
    return [each for each in list(_instances) if each.root is store]


def _has_denied_group(
    groups: Sequence[CheckGroup], outcomes_by_group: Sequence[Sequence[Outcome]]
) -> bool:
    """Return whether one of the groups was denied, so that later groups were not taken."""
    return bool(outcomes_by_group) and is_group_denied(
        groups[len(outcomes_by_group) - 1], outcomes_by_group[-1]
    )


def _make_allowed_outcome(check: Check) -> Outcome:
    capacity = check.rule.capacity
    return Outcome(True, capacity, capacity, 0, unavailable=True)


def _make_denied_outcome(check: Check) -> Outcome:
    return Outcome(False, check.rule.capacity, 0, PAUSE_US, PAUSE_US, unavailable=True)
