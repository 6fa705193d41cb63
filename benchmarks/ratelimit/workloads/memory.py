"""The memory that a key takes, in this process and on Redis."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.ratelimit.application import clients
from benchmarks.ratelimit.contestant import PythonContestant, Rate
from benchmarks.ratelimit.workloads.client_requests import by_default

RATE: Final = Rate(100, 900)
FIRST: Final = 1_000  # the number of keys that are added before the measurement


async def measure(
    contestant: type[PythonContestant], *, url: str, keys: int, redis_keys: int
) -> dict[str, Any]:
    """Return the bytes of a key: the growth of resident memory, and of `used_memory` of Redis."""
    request = by_default(contestant, RATE)
    names = iter(clients(FIRST + keys))
    for _ in range(FIRST):
        await request(next(names))
    gc.collect()
    before = _resident_bytes()
    for name in names:
        await request(name)
    gc.collect()
    grown = _resident_bytes() - before
    found: dict[str, Any] = {"bytes": grown / keys, "total": grown}
    if redis_keys:
        found["redis_bytes"] = await _on_redis(contestant, url, redis_keys)
    return found


async def _on_redis(contestant: type[PythonContestant], url: str, keys: int) -> float:
    with redis.Redis.from_url(url) as server:
        server.flushall()
        request = by_default(contestant, RATE, url)
        await request("203.0.113.1")  # opens connections and loads scripts
        before = server.info("memory")["used_memory"]
        for name in clients(keys):
            await request(name)
        return float((server.info("memory")["used_memory"] - before) / keys)


def _resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next(line.split() for line in lines if line.startswith("VmRSS:"))
    return int(found[1]) * 1024
