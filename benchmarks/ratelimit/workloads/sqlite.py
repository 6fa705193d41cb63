"""Hits of 1,000 clients under one rate, which are counted in a SQLite file."""

from __future__ import annotations

import time
from typing import Any, Final

from benchmarks.ratelimit.contestant import PythonContestant, Rate
from benchmarks.ratelimit.workloads.client_requests import by_library, repeat

RATE: Final = Rate(1_000_000, 3_600)


async def measure(
    contestant: type[PythonContestant], *, url: str, concurrent: int, seconds: float
) -> dict[str, Any]:
    request = by_library(contestant, contestant.algorithms[0], [RATE], url)
    await repeat(request, concurrent=concurrent, count=concurrent)  # opens the file
    cpu, start = time.process_time(), time.perf_counter()
    done = await repeat(request, concurrent=concurrent, seconds=seconds)
    return {
        "per_second": done / (time.perf_counter() - start),
        "cpu_us": (time.process_time() - cpu) / done * 1e6,
    }
