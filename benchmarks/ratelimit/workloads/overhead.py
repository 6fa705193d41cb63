"""The time that limits in memory add to a call of an application.

The time is processor time, to which other processes do not add.
"""

from __future__ import annotations

import gc
import time
from typing import Any, Final

from benchmarks.asgi import Application, discard, receive
from benchmarks.ratelimit.application import call, clients, scope_of
from benchmarks.ratelimit.contestant import LimitPaths, PythonContestant, Rate

CALLS: Final = 200
WARM_UP_CALLS: Final = 1_000

# Some libraries keep a list of hits for each client. With this many clients, it stays short.
CLIENTS: Final = clients(1_000)

PATHS: Final[LimitPaths] = {
    "/free": [],
    "/one": [Rate(10_000, 3_600)],
    "/three": [Rate(10_000, 60), Rate(50_000, 3_600), Rate(100_000, 86_400)],
    "/denied": [Rate(1, 3_600)],
}


async def measure(contestant: type[PythonContestant], *, repeats: int) -> dict[str, Any]:
    """Return for each path the minimum time of a call with and without limits, in µs."""
    limited, unlimited = contestant.application(PATHS), contestant.unlimited(PATHS)
    found: dict[str, Any] = {}
    for path in PATHS:
        for number in range(WARM_UP_CALLS):
            client = CLIENTS[number % len(CLIENTS)]
            await call(unlimited, path, client)
            await call(limited, path, client)
        answer = await call(limited, path, CLIENTS[0])
        expected = 429 if path == "/denied" else 200
        if answer.status != expected:
            raise AssertionError(f"{path}: status {answer.status}, expected {expected}")
        found[path] = {"us": float("inf"), "bare_us": float("inf"), "headers": answer.headers}
    gc.disable()
    for path, seen in found.items():
        for _ in range(repeats):
            seen["bare_us"] = min(seen["bare_us"], await _us(unlimited, path))
            seen["us"] = min(seen["us"], await _us(limited, path))
            gc.collect()
    return found


async def _us(app: Application, path: str) -> float:
    scopes = [scope_of(path, client) for client in CLIENTS[:CALLS]]
    start = time.process_time()
    for scope in scopes:
        await app(scope, receive, discard)
    return (time.process_time() - start) / CALLS * 1e6
