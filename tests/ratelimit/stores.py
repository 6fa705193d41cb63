"""The stores of the contract tests, and the pure algorithms as one more."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

from hasten import Store
from hasten.errors import StoreError
from hasten.ratelimit import _algorithms as algorithms
from hasten.ratelimit._algorithms import CounterState
from hasten.ratelimit._counter_store import (
    Check,
    CheckGroup,
    CounterStore,
    Outcome,
    Settlement,
    is_group_denied,
)
from hasten.ratelimit._resilient_store import ResilientStore
from hasten.ratelimit._stores import MemoryStore, StoreRateLimitPart
from hasten.ratelimit._stores.remote import RemoteStore
from tests.servers.redis import shared_redis
from tests.servers.topologies import shared_cluster

KINDS: Final = ("memory", "sqlite", "redis", "redis-cluster")

SECOND: Final = 1_000_000

PATIENT: Final = "timeout=30"
"""An option of a store's URL: on a busy machine a server may take seconds to respond."""


class Clock:
    """A clock that tests advance, in microseconds. It begins at the present."""

    def __init__(self, now_us: int = 1_900_000_000 * SECOND) -> None:
        self.now_us = now_us

    def advance(self, seconds: float) -> None:
        self.now_us += round(seconds * SECOND)

    def now_ns(self) -> int:
        return self.now_us * 1_000

    def now_ms(self) -> int:
        return self.now_us // 1_000

    async def sleep_until(self, due_ms: int) -> None:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@contextlib.asynccontextmanager
async def open_for_test(
    kind: str, place: Path, clock: Clock | None = None
) -> AsyncIterator[CounterStore]:
    """Open a store of this kind, on this clock or on its own.

    Those of the same place share their counts, as far as the kind shares any; place is a folder.
    """
    store = _open(kind, place, clock)
    try:
        yield store
    finally:
        await store.aclose()


def _open(kind: str, place: Path, clock: Clock | None) -> CounterStore:
    return counter_store("memory://" if kind == "memory" else url_of(kind, place), clock=clock)


def counter_store(url: str, *, clock: Clock | None = None) -> MemoryStore | RemoteStore:
    """Return the counter store of a URL."""
    return StoreRateLimitPart(Store(url, clock=clock)).counter_store


def url_of(kind: str, place: Path) -> str:
    """Return the URL of a store of this kind at this place."""
    match kind:
        case "sqlite":
            return f"sqlite:///{place / 'limits.db'}"
        case "redis":
            return f"{shared_redis().url}?prefix={prefix_of(place)}&{PATIENT}"
        case "redis-cluster":
            return f"{shared_cluster().url}?prefix={prefix_of(place)}&{PATIENT}"
    raise LookupError(kind)


def client_of(kind: str) -> Any:
    """Return a connection of the test to a shared server."""
    return (shared_cluster() if kind == "redis-cluster" else shared_redis()).client()


def prefix_of(place: Path) -> str:
    """Return a prefix for keys that no other test uses, the same for the same place."""
    return "test-" + hashlib.sha1(str(place).encode(), usedforsecurity=False).hexdigest()[:12]


class WatchedStore(ResilientStore):
    """A resilient store that counts what it does."""

    errors = 0
    """Calls of the store that failed."""
    hits_without_store = 0

    def _record_failure(self, error: StoreError, call_number: int) -> None:
        self.errors += 1
        super()._record_failure(error, call_number)

    def _decide_without_store(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        self.hits_without_store += 1
        return super()._decide_without_store(groups)


class Oracle:
    """A store that is nothing but the pure algorithms and a dictionary."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._states: dict[tuple[str, bytes], CounterState] = {}

    async def hit(self, groups: Sequence[CheckGroup]) -> list[list[Outcome]]:
        answer = []
        for group in groups:
            places = [(check.bucket, check.key) for check in group]
            states = [self._states.get(place, ()) for place in places]
            states, outcomes = algorithms.hit_group(group, states, self._clock.now_us)
            self._states.update(zip(places, states, strict=True))
            answer.append(outcomes)
            if is_group_denied(group, outcomes):
                break
        return answer

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        for reservation, keep in settlements:
            place = reservation.bucket, reservation.key
            state = self._states.get(place, ())
            self._states[place] = algorithms.settle_reservation(
                reservation, keep, state, self._clock.now_us
            )

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        return [
            algorithms.peek(
                check, self._states.get((check.bucket, check.key), ()), self._clock.now_us
            )
            for check in checks
        ]

    async def reset(self, bucket: str, key: bytes) -> None:
        self._states.pop((bucket, key), None)

    async def block(self, bucket: str, key: bytes, for_us: int) -> None:
        state = self._states.get((bucket, key), ())
        if state or for_us:
            until_us = self._clock.now_us + for_us if for_us else 0
            self._states[bucket, key] = algorithms.replace_block(state, until_us)

    async def aclose(self) -> None: ...
