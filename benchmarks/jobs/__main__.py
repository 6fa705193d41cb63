"""`python -m benchmarks.jobs`: measure job queues on SQLite side by side."""

from __future__ import annotations

from typing import Final

from benchmarks.queues import parts
from benchmarks.queues.comparison import Comparison, Row
from benchmarks.queues.main import main
from benchmarks.queues.parts import Part, Sizes
from benchmarks.queues.store import Folders

FULL: Final = Sizes()
QUICK: Final = Sizes(
    enqueue=10_000, bulk=20_000, drain=20_000, lone=500, pickup=50,
    measured=5_000, deep=50_000, delayed=20_000,
)  # fmt: skip


def all_parts(sizes: Sizes) -> dict[str, Part]:
    return {
        "enqueue": parts.enqueue,
        "bulk": parts.bulk,
        "lone": parts.lone,
        "drain": parts.drain,
        "pickup_here": parts.pickup_here,
        "pickup": parts.pickup,
        **parts.depths(sizes),
    }


COMPARISON: Final = Comparison(
    package="benchmarks.jobs.contestants",
    ours="hasten_sqlite",
    rival="huey_sqlite",  # the one with our durability
    yardstick="hasten_sqlite",
    full=FULL,
    quick=QUICK,
    parts=all_parts,
    rows=(
        Row("enqueue", "per_second", "enqueue, 100 at a time", "jobs/s", more_is_better=True),
        Row("enqueue", "cpu_us", "  processor", "µs/job"),
        Row("bulk", "per_second", "enqueue_many, 1,000 a call", "jobs/s", more_is_better=True),
        Row("bulk", "cpu_us", "  processor", "µs/job"),
        Row("drain", "per_second", "drain, one worker", "jobs/s", more_is_better=True),
        Row("drain", "cpu_us", "  processor", "µs/job"),
        Row("lone", "p50_ms", "lone enqueue, median", "ms"),
        Row("lone", "p95_ms", "  95 of 100", "ms"),
        Row("lone", "p99_ms", "  99 of 100", "ms"),
        Row("pickup_here", "p50_ms", "pick-up, same process, median", "ms"),
        Row("pickup_here", "p95_ms", "  95 of 100", "ms"),
        Row("pickup_here", "p99_ms", "  99 of 100", "ms"),
        Row("pickup", "p50_ms", "pick-up, other process, median", "ms"),
        Row("pickup", "p95_ms", "  95 of 100", "ms"),
        Row("pickup", "p99_ms", "  99 of 100", "ms"),
    ),
    ratios={("enqueue", "per_second"): 8.0, ("drain", "per_second"): 8.0},
    limits={("lone", "p50_ms"): 1.0, ("pickup_here", "p50_ms"): 3.0, ("pickup", "p50_ms"): 25.0},
    store=Folders,
)

if __name__ == "__main__":
    raise SystemExit(main(COMPARISON, __doc__))
