"""Calls that type-check."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hasten import Store
from hasten.ratelimit import (
    Check,
    CounterStore,
    Decision,
    Limit,
    Limiter,
    Limits,
    MemoryStore,
    Outcome,
    Rate,
    Settlement,
)
from hasten.ratelimit._counter_store import ImmediateStore


async def limits() -> bool:
    limiter = Limiter(
        "10/s burst 20, 1000/h", name="calls", store="redis://localhost", block_for="1m"
    )
    objects = Limiter((Rate(1, "1s"), Rate(2, timedelta(hours=1))), name="x", store=MemoryStore())
    decision: Decision = await limiter.hit("ada", 2)
    remaining: int = (await objects.wait("ada", timeout=timedelta(seconds=1))).remaining
    await limiter.check("ada")
    await limiter.block("ada", timedelta(hours=1))
    await limiter.reset("ada")
    return decision.ok and remaining > 0 and bool(limiter.sync.peek("ada"))


async def closes() -> None:
    store = Store("sqlite:///limits.db")
    async with (
        store,
        Limiter("1/s", name="a", store=store) as limiter,
        Limits([Limit("1/s")], store=store) as limits,
    ):
        await limiter.hit("ada")
        await limits.reset("1-in-1sec", "203.0.113.7")


class OwnStore:
    """A custom store needs these methods only."""

    async def hit(self, groups: Sequence[Sequence[Check]]) -> list[list[Outcome]]:
        return [[Outcome(True, 1, 1, 0) for _ in group] for group in groups]

    async def settle(self, settlements: Sequence[Settlement]) -> None: ...

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        return []

    async def reset(self, bucket: str, key: bytes) -> None: ...

    async def block(self, bucket: str, key: bytes, for_us: int) -> None: ...

    async def aclose(self) -> None: ...


own: CounterStore = OwnStore()
memory: ImmediateStore = MemoryStore()
Limiter("1/s", name="own", store=own)
