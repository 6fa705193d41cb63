"""The measurements. Each function gets an empty workspace and returns numbers by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from benchmarks.queues.load import Cost
from benchmarks.queues.workspace import Workspace
from benchmarks.verdicts import percentile

Sample: TypeAlias = dict[str, float]

# How long the worker waits for its first job, to be sure that it is idle.
IDLE_SECONDS: Final = 1.0

PAUSE_SECONDS: Final = (0.005, 0.030)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many jobs are measured in a part."""

    enqueue: int = 30_000
    bulk: int = 100_000
    drain: int = 100_000
    lone: int = 2_000
    pickup: int = 200
    memory: int = 20_000
    counted: int = 200_000
    measured: int = 10_000  # how many jobs are measured at each length of the queue
    shallow: int = 1_000
    deep: int = 200_000
    delayed: int = 100_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure one contestant.

    share is the fraction of the jobs to use where a rate is measured. settings are the fastest ones
    of the contestant, by part.
    """

    sizes: Sizes
    share: float
    settings: Mapping[str, str]
    seed: int

    def scaled(self, count: int) -> int:
        return int(count * self.share)


Measure: TypeAlias = Callable[[Workspace, Plan], Sample]


def enqueue(workspace: Workspace, plan: Plan) -> Sample:
    count = plan.scaled(plan.sizes.enqueue)
    return _rate(workspace, "enqueue", count=count, setting=plan.settings["enqueue"])


def bulk(workspace: Workspace, plan: Plan) -> Sample:
    return _rate(workspace, "bulk", count=plan.scaled(plan.sizes.bulk))


def lone(workspace: Workspace, plan: Plan) -> Sample:
    return _percentiles(workspace.run("lone", count=plan.scaled(plan.sizes.lone)))


def drain(workspace: Workspace, plan: Plan) -> Sample:
    count = plan.scaled(plan.sizes.drain)
    workspace.run("fill", count=count)
    return _rate(workspace, "drain", count=count, setting=plan.settings["drain"])


def memory(workspace: Workspace, plan: Plan) -> Sample:
    """Measure how much memory of the server a waiting job takes."""
    count = plan.sizes.memory
    workspace.run("fill", count=1)  # creates the keys that every queue has
    before = workspace.store.memory_bytes()
    workspace.run("fill", count=count)
    return {"bytes": (workspace.store.memory_bytes() - before) / count}


def pickup(workspace: Workspace, plan: Plan) -> Sample:
    """Measure the time from the call in one process to the start of the task in another one."""
    worker = workspace.start("receive", count=plan.sizes.pickup)
    worker.wait_until_ready()
    workspace.run("send", pauses=_pauses(plan))
    return _percentiles(worker.result())


def pickup_here(workspace: Workspace, plan: Plan) -> Sample:
    """Measure the time from the call to the start of the task, both on one event loop."""
    return _percentiles(workspace.run("pick_up", pauses=_pauses(plan)))


def metrics(workspace: Workspace, plan: Plan) -> Sample:
    """Measure what a worker spends on a job to count it and its times, for hasten.prometheus."""
    cost: Cost = workspace.run("count_runs", count=plan.sizes.counted)
    return {"us": cost["cpu_seconds"] / cost["jobs"] * 1e6}


def tracing(workspace: Workspace, plan: Plan) -> Sample:
    """Measure what the spans of a job cost, beyond what OpenTelemetry's SDK takes for them."""
    ours, sdk = workspace.run("trace_runs", count=plan.sizes.counted // 10)
    all_us, sdk_us = (cost["cpu_seconds"] / cost["jobs"] * 1e6 for cost in (ours, sdk))
    return {"us": all_us - sdk_us, "sdk_us": sdk_us}


def depth(workspace: Workspace, plan: Plan, *, waiting: int, delayed: int = 0) -> Sample:
    """Run some jobs while many other ones wait or are delayed, then add some."""
    count = plan.sizes.measured
    if delayed:
        workspace.run("fill_delayed", count=delayed)
    workspace.run("fill", count=waiting + count)
    drained: Cost = workspace.run("drain", count=count, setting=plan.settings["drain"])
    added: Cost = workspace.run("enqueue", count=count, setting=plan.settings["enqueue"])
    return {
        "drain_us": drained["seconds"] / count * 1e6,
        "enqueue_us": added["seconds"] / count * 1e6,
    }


def shallow(workspace: Workspace, plan: Plan) -> Sample:
    return depth(workspace, plan, waiting=plan.sizes.shallow)


def deep(workspace: Workspace, plan: Plan) -> Sample:
    return depth(workspace, plan, waiting=plan.sizes.deep)


def with_delayed(workspace: Workspace, plan: Plan) -> Sample:
    return depth(workspace, plan, waiting=plan.sizes.shallow, delayed=plan.sizes.delayed)


MEASURES: Final[dict[str, Measure]] = {
    "enqueue": enqueue,
    "bulk": bulk,
    "lone": lone,
    "drain": drain,
    "pickup_here": pickup_here,
    "pickup": pickup,
    "memory": memory,
    "metrics": metrics,
    "tracing": tracing,
    "depth:shallow": shallow,
    "depth:deep": deep,
    "depth:delayed": with_delayed,
}
"""The measurements by the name of their part."""


def _rate(workspace: Workspace, verb: str, **arguments: object) -> Sample:
    """Return the jobs per second of a verb, and the processor time of a job.

    The time of the server includes the connecting of the process.
    """
    before = workspace.store.cpu_seconds()
    cost: Cost = workspace.run(verb, **arguments)
    server = workspace.store.cpu_seconds() - before
    return {
        "per_second": cost["jobs"] / cost["seconds"],
        "cpu_us": cost["cpu_seconds"] / cost["jobs"] * 1e6,
        "server_us": server / cost["jobs"] * 1e6,
    }


def _percentiles(ms: Sequence[float]) -> Sample:
    ordered = sorted(ms)
    return {
        name: percentile(ordered, share)
        for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99))
    }


def _pauses(plan: Plan) -> list[float]:
    """Return pauses in seconds, the same for all contestants of a round."""
    chance = random.Random(plan.seed)
    return [IDLE_SECONDS, *(chance.uniform(*PAUSE_SECONDS) for _ in range(plan.sizes.pickup))]
