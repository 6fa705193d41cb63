"""Requests under three policies each, which are counted on Redis, 100 at a time."""

from __future__ import annotations

import time
from typing import Any, Final

import redis

from benchmarks.ratelimit.contestant import PythonContestant, Rate
from benchmarks.ratelimit.workloads.client_requests import (
    CLIENTS,
    Request,
    by_application,
    by_library,
    repeat,
)

CONCURRENT: Final = 100
POLICIES: Final = [Rate(10_000, 60), Rate(50_000, 3_600), Rate(100_000, 86_400)]
DENYING: Final = [Rate(1, 3_600), Rate(2, 7_200), Rate(3, 86_400)]
COUNTED: Final = 1_000


async def measure(
    contestant: type[PythonContestant], *, url: str, seconds: float
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with redis.Redis.from_url(url) as server:
        if contestant.algorithms:
            algorithm = contestant.algorithms[0]
            server.flushall()
            passing = by_library(contestant, algorithm, POLICIES, url)
            denying = by_library(contestant, algorithm, DENYING, url)
            found["library"] = await _measure(passing, denying, server, seconds)
        if contestant.has_application:
            server.flushall()
            app = contestant.application({"/three": POLICIES, "/denied": DENYING}, url=url)
            passing, denying = by_application(app, "/three"), by_application(app, "/denied")
            found["application"] = await _measure(passing, denying, server, seconds)
    return found


async def _measure(
    passing: Request, denying: Request, server: redis.Redis, seconds: float
) -> dict[str, Any]:
    await repeat(
        passing, concurrent=CONCURRENT, count=CONCURRENT * 5
    )  # opens connections and loads scripts
    executed, busy = _executed(server), _server_seconds(server)
    cpu, start = time.process_time(), time.perf_counter()
    done = await repeat(passing, concurrent=CONCURRENT, seconds=seconds)
    taken, cpu = time.perf_counter() - start, time.process_time() - cpu
    executed, busy = _executed(server) - executed, _server_seconds(server) - busy
    if executed < done:
        raise AssertionError(f"did not use Redis: {executed} commands for {done} requests")
    sent = await _commands(passing, server)
    for _ in range(3):
        await denying(CLIENTS[0])

    async def denied(_: str) -> bool:
        return await denying(CLIENTS[0])

    await repeat(denied, concurrent=CONCURRENT, count=CONCURRENT * 5, denied=True)
    denied_sent = await _commands(denied, server, denied=True)
    return {
        "per_second": done / taken,
        "cpu_us": cpu / done * 1e6,
        "server_us": busy / done * 1e6,
        "sent": sent,
        "executed": executed / done,
        "denied_sent": denied_sent,
    }


async def _commands(request: Request, server: redis.Redis, *, denied: bool = False) -> float:
    """Return the number of commands that reach Redis for each request, without those of scripts."""
    monitoring: Any = server.monitor()  # type: ignore[no-untyped-call]
    with monitoring as monitor:
        await repeat(request, concurrent=CONCURRENT, count=COUNTED, denied=denied)
        server.echo("the end")
        sent = 0
        for command in monitor.listen():
            if command["command"].startswith("ECHO the end"):
                break
            sent += command["client_type"] != "lua"
    return sent / COUNTED


def _executed(server: redis.Redis) -> int:
    """Return the number of commands that Redis has executed, including those of scripts."""
    stats = server.info("commandstats")
    return sum(stat["calls"] for name, stat in stats.items() if name != "cmdstat_info")


def _server_seconds(server: redis.Redis) -> float:
    found = server.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])
