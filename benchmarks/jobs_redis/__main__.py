"""`python -m benchmarks.jobs_redis`: measure job queues on Redis side by side."""

from __future__ import annotations

from typing import Final

from benchmarks.queues import parts
from benchmarks.queues.comparison import Comparison, Row
from benchmarks.queues.main import main
from benchmarks.queues.parts import Part, Sizes
from benchmarks.queues.store import RedisServer

# Node needs some 10,000 calls until its compiler is done with them: short runs would wrong it.
FULL: Final = Sizes(enqueue=100_000, bulk=200_000, drain=200_000, measured=50_000)
QUICK: Final = Sizes(
    enqueue=30_000, bulk=30_000, drain=50_000, pickup=50, memory=10_000,
    measured=20_000, deep=50_000, delayed=20_000,
)  # fmt: skip


def all_parts(sizes: Sizes) -> dict[str, Part]:
    return {
        "enqueue": parts.enqueue,
        "bulk": parts.bulk,
        "drain": parts.drain,
        "pickup": parts.pickup,
        "memory": parts.memory,
        **parts.depths(sizes),
    }


COMPARISON: Final = Comparison(
    package="benchmarks.jobs_redis.contestants",
    ours="hasten_redis",
    rival="bullmq_node",
    yardstick="bullmq_node",
    full=FULL,
    quick=QUICK,
    parts=all_parts,
    rows=(
        Row("enqueue", "per_second", "enqueue, 100 at a time", "jobs/s", more_is_better=True),
        Row("enqueue", "cpu_us", "  processor", "µs/job"),
        Row("enqueue", "server_us", "  server", "µs/job"),
        Row("bulk", "per_second", "enqueue, 1,000 a call", "jobs/s", more_is_better=True),
        Row("bulk", "cpu_us", "  processor", "µs/job"),
        Row("bulk", "server_us", "  server", "µs/job"),
        Row("drain", "per_second", "drain, one worker", "jobs/s", more_is_better=True),
        Row("drain", "cpu_us", "  processor", "µs/job"),
        Row("drain", "server_us", "  server", "µs/job"),
        Row("pickup", "p50_ms", "pick-up, median", "ms"),
        Row("pickup", "p95_ms", "  95 of 100", "ms"),
        Row("pickup", "p99_ms", "  99 of 100", "ms"),
        Row("memory", "bytes", "memory, waiting job", "bytes"),
    ),
    ratios={
        ("drain", "per_second"): 1.5,
        ("drain", "server_us"): 1.0,
        ("enqueue", "per_second"): 1.0,
        ("enqueue", "server_us"): 1.0,
        ("bulk", "per_second"): 2.0,
        ("pickup", "p50_ms"): 1.0,
        ("pickup", "p99_ms"): 1.0,
        # By MEMORY USAGE, our job and list are as large as Node's to the byte. used_memory has some
        # KB of the server's own in it, too, which differ from run to run.
        ("memory", "bytes"): 0.99,
    },
    limits={},
    store=RedisServer,
)

if __name__ == "__main__":
    raise SystemExit(main(COMPARISON, __doc__))
