"""The time of a hit in memory without an application, with one rate.

The time is processor time, to which other processes do not add.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import time
from typing import Any, Final

from benchmarks.ratelimit.contestant import Hit, PythonContestant, Rate

KEYS: Final = 1_000
MANY_KEYS: Final = 10_000
RATE: Final = Rate(1_000_000, 3_600)

# Some libraries remove old keys in the event loop, by a loop over all keys. To measure this, the
# event loop runs after each hit, as it does between requests.
TURNS: Final = 200
TURNS_SECONDS: Final = 1.0


async def measure(contestant: type[PythonContestant], *, repeats: int) -> dict[str, Any]:
    """Return for each algorithm the minimum time of a hit in ns, and its time with many keys."""
    gc.disable()
    found: dict[str, Any] = {}
    for algorithm in contestant.algorithms:
        hit = contestant.limiter([RATE], algorithm=algorithm)
        keys = [f"client-{number}" for number in range(KEYS)]
        assert contestant.is_allowed(await _hit_once(hit, keys[0]))
        ns = min([await _ns(hit, keys) for _ in range(repeats)])
        found[algorithm] = {"ns": ns, "turning_us": await _turning_us(hit)}
        gc.collect()
    return found


async def _hit_once(hit: Hit, key: str) -> object:
    result = hit(key)
    return await result if inspect.isawaitable(result) else result


async def _ns(hit: Any, keys: list[str]) -> float:
    if inspect.iscoroutinefunction(hit):
        start = time.process_time_ns()
        for key in keys:
            await hit(key)
    else:
        start = time.process_time_ns()
        for key in keys:
            hit(key)
    return (time.process_time_ns() - start) / len(keys)


async def _turning_us(hit: Hit) -> float:
    """Return the time of a hit, if there are many keys, with its work in the event loop."""
    for number in range(MANY_KEYS):
        await _hit_once(hit, f"other-{number}")
    await asyncio.sleep(0)
    taken: list[float] = []
    end = time.perf_counter() + TURNS_SECONDS
    while len(taken) < TURNS and time.perf_counter() < end:
        start = time.perf_counter()
        await _hit_once(hit, f"other-{len(taken)}")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        taken.append((time.perf_counter() - start) * 1e6)
    return sorted(taken)[len(taken) // 2]
