"""What stands between limits and a store, so that neither a dead nor a busy one harms requests.

- A denial that is certain is repeated from memory: the store hears nothing of who keeps asking.
- A store that fails or is late some times in a row is not asked for a while: the request goes on at
  once, by the rule of each check: "local" counts in this process, "allow" lets pass, "deny" denies.
  One slow answer is not an outage, and time for which this process's own event loop was late is not
  the store's.
- Now and then the store is asked again, by nobody's request; once it answers, it decides again,
  and what was counted meanwhile is dropped. Reservations that ended meanwhile are settled then.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Final, TypeAlias, TypeVar

from hasten._clock import Clock, now_ns_of
from hasten._durations import Duration, to_us
from hasten._logs import get_logger
from hasten._timeouts import LoopTimeout
from hasten.errors import InvalidOption, StoreError
from hasten.ratelimit._circuit_breaker import PAUSE_US, Breaker
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
from hasten.ratelimit._denial_cache import Denials
from hasten.ratelimit._leasing import Leases
from hasten.ratelimit._rates import to_limit
from hasten.ratelimit._rules import Rule
from hasten.ratelimit._stores.memory import MemoryStore
from hasten.ratelimit._stores.remote import AskingStore, late

T = TypeVar("T")

logger = get_logger("hasten.ratelimit")

STORE_TIMEOUT: Final = 0.05

# So many settlements are kept for a store that is away; what they would give back goes in time.
MAX_OWED: Final = 10_000

LOGGED_EVERY_S: Final = 60.0
"""An outage that begins sooner after the last one that was logged is not logged."""


Place: TypeAlias = tuple[str, bytes]
"""A bucket and a key."""

_guards: Final[weakref.WeakSet[Guard]] = weakref.WeakSet()
"""All of this process, which hear of what is reset in their stores."""


@dataclass(slots=True)
class GuardCounts:
    """What has happened, for metrics."""

    asked: int = 0
    """Hits that went to the store."""
    repeated: int = 0
    """Denials that needed no asking."""
    errors: int = 0
    """Times that the store failed or was late."""
    without_store: int = 0
    """Hits that were answered without it."""


class Guard:
    """A store that always answers, and soon. May be used from several event loops.

    processes is how many processes share the store: where each has to count for itself, it allows
    its share. store_timeout, in seconds, is how long a hit waits for the store. What administrates
    (`reset`, `block`, `peek`) waits as long as the store itself does.
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
        """The store as it was given, which waits as long as it likes."""
        self.clock = clock
        self.immediate = store if isinstance(store, ImmediateStore) else None
        """The store itself, if it answers at once: then it needs no guarding."""
        self.counts = GuardCounts()
        self._processes = to_limit("processes", processes, at_least=1)
        self._timeout_us = to_us("store_timeout", store_timeout, at_least_us=1)
        self._clock_ns = now_ns_of(clock)
        self._local = MemoryStore(clock=clock)
        self._shares: dict[Rule, Rule] = {}
        self._breaker = Breaker()
        self._denials = Denials()
        self._owed: deque[Settlement] = deque(maxlen=MAX_OWED)
        self._tasks: set[asyncio.Task[None]] = set()
        self._leases: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Leases] = (
            weakref.WeakKeyDictionary()
        )
        self.store: Final = store.within(store_timeout) if isinstance(store, TimedStore) else store
        """The store as requests ask it."""
        self._is_timed = isinstance(self.store, TimedStore)
        _guards.add(self)
        if isinstance(self.store, TimedStore):
            self.store.on_late = self._probe_late
        if isinstance(store, AskingStore):
            store.users.add(self)
        self._questions = 0
        self._doubted: Check | None = None
        """What the store was asked when it failed last: it is probed with that."""
        self._is_probing = False
        self._logged_at_s = float("-inf")
        self._is_logged = False
        """Whether the log says that the store is away."""

    @property
    def is_away(self) -> bool:
        """Whether the store is not asked at present."""
        return self._breaker.is_open

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        """As `CounterStore.hit`; never raises `StoreError`."""
        if self.immediate is not None:
            return self.immediate.hit_now(groups)
        known = self._denials.find(groups, self._now_us())
        if known is None:
            return await self._hit(groups)
        place, outcomes = known
        self.counts.repeated += 1
        answer = await self._hit(groups[:place])
        if not _ends(groups[:place], answer):
            answer.append(outcomes)
        return answer

    def hit_now(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]] | None:
        """The answer, if it can be given without waiting; None if `hit` is to be awaited."""
        if self.immediate is not None:
            return self.immediate.hit_now(groups)
        known = self._denials.find(groups, self._now_us())
        if known is not None and known[0] == 0:
            self.counts.repeated += 1
            return [known[1]]
        return None

    def settle_soon(self, settlements: Sequence[Settlement]) -> None:
        """As `CounterStore.settle`, without waiting. Every later `hit` finds it done."""
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
            self._owed.extend(remote)
        else:
            self._spawn(self._settled(remote, self.store.settle(remote)))

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        """As `CounterStore.peek`; never raises `StoreError`."""
        if self._breaker.is_open:
            return self._local.peek_now([self._share(check) for check in checks])
        question = self._next_question()
        try:
            outcomes = await self.root.peek(checks)
        except StoreError as error:
            self._failed(error, question)
            return self._local.peek_now([self._share(check) for check in checks])
        leases = self._leases.get(asyncio.get_running_loop()) if self._leases else None
        return outcomes if leases is None else leases.with_own(checks, outcomes)

    async def reset(self, places: Sequence[Place]) -> None:
        """As `CounterStore.reset`. Other processes ask the store again within a second."""
        await reset_keys(self.root, places)

    async def block(self, places: Sequence[Place], for_us: int) -> None:
        """As `CounterStore.block`; holds in this process even if the store is away."""
        for place in places:
            self._let_go(*place)
            self._local.block_now(*place, for_us)
        await _together(self.root, [self.root.block(*place, for_us) for place in places])

    def _let_go(self, bucket: str, key: bytes) -> None:
        self._denials.forget(bucket, key)
        if self._leases and (leases := self._leases.get(asyncio.get_running_loop())) is not None:
            leases.forget(bucket, key)

    def _forget(self, bucket: str, key: bytes) -> None:
        self._let_go(bucket, key)
        self._local.reset_now(bucket, key)

    async def _forget_all(self) -> None:
        self._denials.clear()
        self._local.clear()
        if (leases := self._leases.get(asyncio.get_running_loop())) is not None:
            await leases.give_back()

    async def finish(self) -> None:
        """Finish what has begun. The store stays open: others may use it."""
        if self.immediate is not None:
            return
        loop = asyncio.get_running_loop()
        if (leases := self._leases.get(loop)) is not None:
            await leases.give_back()
        # They keep to the time-out, and what they settle is somebody's.
        await asyncio.gather(*(task for task in self._tasks if task.get_loop() is loop))

    # With the store -----------------------------------------------------------------------------

    async def _hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        if not groups:
            return []
        asked_us = self._now_us()
        if self._breaker.is_open:
            if self._breaker.takes_probe(asked_us):
                self._spawn(self._probe(groups[0][0]))
            return self._without_store(groups)
        self.counts.asked += 1
        question = self._next_question()
        try:
            answer = await self._in_time(self._asked(groups).hit(groups))
        except StoreError as error:
            self._doubted = groups[0][0]
            self._failed(error, question)
            return self._without_store(groups)
        if self._breaker.succeeded():
            self._welcome()
        self._denials.learn(groups, answer, asked_us)
        return answer

    def _asked(self, groups: Sequence[CheckGroup]) -> CounterStore:
        """The store, with leases before it if something may be counted approximately."""
        for group in groups:
            if group and group[0].processes:
                loop = asyncio.get_running_loop()
                leases = self._leases.get(loop)
                if leases is None:
                    leases = self._leases[loop] = Leases(self.store, clock=self.clock)
                return leases
        return self.store

    async def _in_time(self, asking: Awaitable[T]) -> T:
        if self._is_timed:
            return await asking
        try:
            async with LoopTimeout(self._timeout_us / 1_000_000):
                return await asking
        except TimeoutError as exc:
            raise late(type(self.store).__name__, self._timeout_us) from exc

    def _next_question(self) -> int:
        self._questions += 1
        return self._questions

    def _failed(self, error: StoreError, question: int) -> None:
        self.counts.errors += 1
        if self._breaker.failed(self._now_us(), question=question, newest=self._questions):
            # A store that comes and goes must not fill the log.
            self._is_logged = time.monotonic() - self._logged_at_s >= LOGGED_EVERY_S
            if self._is_logged:
                self._logged_at_s = time.monotonic()
                logger.warning(
                    "limits are kept without their store until it answers again: %s", error
                )

    def _probe_late(self) -> None:
        """The store has answered, too late: it may be in time again."""
        if self._breaker.is_open and self._doubted is not None and not self._is_probing:
            self._spawn(self._probe(self._doubted))

    async def _probe(self, check: Check) -> None:
        self._is_probing = True
        question = self._next_question()
        try:
            await self._in_time(self.store.peek([check]))
        except StoreError as error:
            self._failed(error, question)
        else:
            if self._breaker.succeeded():
                self._welcome()
        finally:
            self._is_probing = False

    def _welcome(self) -> None:
        """The store is back. What was counted without it is its own no more."""
        if self._is_logged:
            logger.warning("the store of limits answers again")
        self._local.clear()
        if self._owed:
            owed = list(self._owed)
            self._owed.clear()
            self.settle_soon(owed)

    async def _settled(self, settlements: Sequence[Settlement], settling: Awaitable[None]) -> None:
        question = self._next_question()
        try:
            await self._in_time(settling)
        except StoreError as error:
            self._failed(error, question)
            self._owed.extend(settlements)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Without it ---------------------------------------------------------------------------------

    def _without_store(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        self.counts.without_store += 1
        answer: list[list[Outcome]] = []
        for group in groups:
            outcomes = self._group_without_store(group)
            answer.append(outcomes)
            if is_denied(group, outcomes):
                break
        return answer

    def _group_without_store(self, group: CheckGroup) -> list[Outcome]:
        known = self._denials.find((group,), self._now_us(), may_ask=False)
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
        """The check against this process's share of its limit."""
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


async def reset_keys(store: CounterStore, places: Sequence[Place]) -> None:
    """Forget all of some keys in a store, and in all that stands before it in this process.

    Raises `StoreError`.
    """
    guards = _guards_of(store)
    for guard in guards:
        for place in places:
            guard._forget(*place)
    await _together(store, [store.reset(*place) for place in places])
    for guard in guards:
        for place in places:
            guard._denials.forget(*place)  # it may have been denied once more meanwhile


async def _together(store: CounterStore, asking: Sequence[Coroutine[Any, Any, None]]) -> None:
    """At once, so that a store elsewhere is asked once, and does all of it or nothing."""
    if isinstance(store, AskingStore):
        await asyncio.gather(*asking)
        return
    for each in asking:
        await each


async def clear_store(store: CounterStore) -> None:
    """Forget all keys of a store, and of all that stands before it in this process.

    Raises `StoreError`, and `InvalidOption` for a store of the application's own without `clear`.
    """
    clear: Any = getattr(store, "clear", None)
    if clear is None:
        raise InvalidOption("store", store, "a store that has clear()")
    guards = _guards_of(store)
    for guard in guards:
        await guard._forget_all()
    cleared = clear()
    if isawaitable(cleared):
        await cleared
    for guard in guards:
        guard._denials.clear()


def _guards_of(store: CounterStore) -> list[Guard]:
    return [guard for guard in list(_guards) if guard.root is store]


def _ends(groups: Sequence[CheckGroup], answer: Sequence[Sequence[Outcome]]) -> bool:
    """Whether one of the groups was denied: none that came behind them is to be told of."""
    return bool(answer) and is_denied(groups[len(answer) - 1], answer[-1])


def _allowed(check: Check) -> Outcome:
    capacity = check.rule.capacity
    return Outcome(True, capacity, capacity, 0, unavailable=True)


def _refused(check: Check) -> Outcome:
    return Outcome(False, check.rule.capacity, 0, PAUSE_US, PAUSE_US, unavailable=True)
