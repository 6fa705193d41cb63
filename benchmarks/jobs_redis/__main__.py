"""`python -m benchmarks.jobs_redis`: compare job queues on Redis."""

from __future__ import annotations

from benchmarks.benchmark import run
from benchmarks.contestants import Contestants
from benchmarks.queues.benchmark import QueueBenchmark
from benchmarks.queues.comparison import Comparison, Row, rate_rows, time_rows
from benchmarks.queues.contestant import Contestant
from benchmarks.queues.measures import Sizes
from benchmarks.stores import RedisServer


class JobsOnRedis(QueueBenchmark):
    contestants = Contestants[Contestant](
        "benchmarks.jobs_redis.contestants", "hasten_redis", "bullmq_node"
    )
    comparison = Comparison(
        ours="hasten_redis",
        rival="bullmq_node",
        baseline="bullmq_node",
        rows=[
            *rate_rows("enqueue", "enqueue, 100 at a time", has_server=True),
            *rate_rows("bulk", "enqueue, 1,000 a call", has_server=True),
            *rate_rows("drain", "drain, one worker", has_server=True),
            *time_rows("pickup", "pick-up"),
            Row("memory", "bytes", "memory, waiting job", "bytes"),
        ],
        ratios={
            ("drain", "per_second"): 1.5,
            ("drain", "server_us"): 1.0,
            ("enqueue", "per_second"): 1.0,
            ("enqueue", "server_us"): 1.0,
            ("bulk", "per_second"): 2.0,
            ("pickup", "p50_ms"): 1.0,
            ("pickup", "p99_ms"): 1.0,
            # MEMORY USAGE is exactly the same for a job of hasten and of BullMQ. But used_memory
            # also includes some KB of the server, which differ from run to run.
            ("memory", "bytes"): 0.99,
        },
        limits={},
    )
    part_names = (
        "enqueue", "bulk", "drain", "pickup", "memory",
        "depth:shallow", "depth:deep", "depth:delayed",
    )  # fmt: skip
    # Node compiles a function after about 10,000 calls: short runs would be unfair to Node.
    full = Sizes(enqueue=100_000, bulk=200_000, drain=200_000, measured=50_000)
    quick = Sizes(
        enqueue=30_000, bulk=30_000, drain=50_000, pickup=50, memory=10_000,
        measured=20_000, deep=50_000, delayed=20_000,
    )  # fmt: skip
    store = RedisServer


if __name__ == "__main__":
    raise SystemExit(run(JobsOnRedis, __doc__))
