"""Send requests to an ASGI application in this process, without a network or an HTTP server."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.asgi import Answer, Application, discard, receive, scope_of
from benchmarks.contestants import Failed

TURNS: Final = 5
TIMEOUT_SECONDS: Final = 600
HEADERS: Final = [
    (b"host", b"127.0.0.1"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"),
    (b"accept", b"application/json"),
    (b"accept-language", b"en-GB,en;q=0.9,de;q=0.8"),
    (b"cookie", b"session=3f9c2f0e8a7b4d5c9e1f6a2b3c4d5e6f; theme=dark"),
]


@dataclass(frozen=True, slots=True)
class Speed:
    requests: int
    per_second: float
    cpu_us: float
    """The processor time of this process for each request, without that of the database server."""


async def get(app: Application, path: str) -> bytes:
    """Return the body of the response. Raises `Failed` if its status is not 200."""
    answer = Answer()
    await app(scope_of(path, HEADERS), receive, answer.send)
    if answer.status != 200:
        raise Failed(f"{path}: status {answer.status}: {answer.body[:200]!r}")
    return answer.body


async def measure(
    apps: Mapping[str, Application], paths: Mapping[str, str], *, seconds: float, callers: int
) -> dict[str, Speed]:
    """Measure each application in `TURNS` turns, and return the fastest turn of each by name.

    The fastest turn is the least disturbed by other work on the machine. Slow applications get
    fewer turns.
    """
    found: dict[str, Speed] = {}
    left = dict.fromkeys(paths, seconds)
    for name, path in paths.items():
        await _call_and_discard(apps[name], path)
    gc.collect()
    for _ in range(TURNS):
        for name, path in paths.items():
            if left[name] > 0:
                speed = await _measure_turn(
                    apps[name], path, seconds=seconds / TURNS, callers=callers
                )
                left[name] -= speed.requests / speed.per_second
                found[name] = _best_of(speed, found.get(name, speed))
    return found


def _best_of(one: Speed, other: Speed) -> Speed:
    return Speed(
        one.requests + (other.requests if other is not one else 0),
        max(one.per_second, other.per_second),
        min(one.cpu_us, other.cpu_us),
    )


async def _measure_turn(app: Application, path: str, *, seconds: float, callers: int) -> Speed:
    """Send requests from several callers for some seconds. Each waits for its responses."""
    done = 0

    async def ask_until(end: float) -> None:
        nonlocal done
        while True:
            await _call_and_discard(app, path)
            done += 1
            if time.perf_counter() >= end:
                return

    start, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await asyncio.gather(*(ask_until(start + seconds) for _ in range(callers)))
    taken, cpu_taken = time.perf_counter() - start, time.process_time() - cpu
    return Speed(done, done / taken, cpu_taken / done * 1e6)


async def _call_and_discard(app: Application, path: str) -> None:
    await app(scope_of(path, HEADERS), receive, discard)
