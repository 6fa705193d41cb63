"""`python -m benchmarks.jobs`: compare job queues on SQLite."""

from __future__ import annotations

from benchmarks.benchmark import run
from benchmarks.contestants import Contestants
from benchmarks.queues.benchmark import QueueBenchmark
from benchmarks.queues.comparison import Comparison, Row, rate_rows, time_rows
from benchmarks.queues.contestant import Contestant
from benchmarks.queues.measures import Sizes
from benchmarks.stores import Folders


class JobsOnSqlite(QueueBenchmark):
    contestants = Contestants[Contestant](
        "benchmarks.jobs.contestants", "hasten_sqlite", "huey_sqlite"
    )
    comparison = Comparison(
        ours="hasten_sqlite",
        rival="huey_sqlite",  # the setting of huey that is as durable as hasten
        baseline="hasten_sqlite",
        rows=[
            *rate_rows("enqueue", "enqueue, 100 at a time", has_server=False),
            *rate_rows("bulk", "enqueue_many, 1,000 a call", has_server=False),
            *rate_rows("drain", "drain, one worker", has_server=False),
            *time_rows("lone", "lone enqueue"),
            *time_rows("pickup_here", "pick-up, same process"),
            *time_rows("pickup", "pick-up, other process"),
            Row("metrics", "us", "metrics of a job", "µs"),
            Row("tracing", "us", "spans of a job, without the SDK", "µs"),
            Row("tracing", "sdk_us", "the SDK of OpenTelemetry", "µs"),
        ],
        ratios={("enqueue", "per_second"): 8.0, ("drain", "per_second"): 8.0},
        limits={
            ("lone", "p50_ms"): 1.0, ("pickup_here", "p50_ms"): 3.0, ("pickup", "p50_ms"): 25.0,
            ("metrics", "us"): 3.0, ("tracing", "us"): 15.0,
        },
    )  # fmt: skip
    part_names = (
        "enqueue", "bulk", "lone", "drain", "pickup_here", "pickup", "metrics", "tracing",
        "depth:shallow", "depth:deep", "depth:delayed",
    )  # fmt: skip
    full = Sizes()
    quick = Sizes(
        enqueue=10_000, bulk=20_000, drain=20_000, lone=500, pickup=50,
        measured=5_000, deep=50_000, delayed=20_000,
    )  # fmt: skip
    store = Folders


if __name__ == "__main__":
    raise SystemExit(run(JobsOnSqlite, __doc__))
