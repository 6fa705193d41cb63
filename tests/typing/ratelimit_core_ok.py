"""Calls that type-check."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hasten.ratelimit import Decision, Limiter, MemoryStore, Rate, open_store
from hasten.ratelimit.store import Check, Group, ImmediateStore, Outcome, Settlement, Store


async def limits() -> bool:
    limiter = Limiter("10/s burst 20, 1000/h", store="redis://localhost", block_for=60)
    objects = Limiter((Rate(1, 1), Rate(2, timedelta(hours=1))), store=MemoryStore())
    decision: Decision = await limiter.hit("ada", 2)
    remaining: int = (await objects.wait("ada", timeout=timedelta(seconds=1))).remaining
    await limiter.block("ada", timedelta(hours=1))
    await limiter.reset("ada")
    return decision.ok and remaining > 0 and bool(limiter.sync.peek("ada"))


class OwnStore:
    """A store of one's own is whatever has these."""

    async def hit(self, groups: Sequence[Group]) -> list[list[Outcome]]:
        return [[Outcome(True, 1, 1, 0) for _ in group] for group in groups]

    async def settle(self, settlements: Sequence[Settlement]) -> None: ...

    async def peek(self, checks: Sequence[Check]) -> list[Outcome]:
        return []

    async def reset(self, bucket: str, key: bytes) -> None: ...

    async def block(self, bucket: str, key: bytes, for_us: int) -> None: ...

    async def aclose(self) -> None: ...


own: Store = OwnStore()
memory: ImmediateStore = MemoryStore()
by_url: Store = open_store("sqlite:///limits.db", budget=0.05)
Limiter("1/s", store=own)
