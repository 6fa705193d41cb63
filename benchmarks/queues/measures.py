"""What is measured: each function uses an empty workspace, and returns numbers by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from benchmarks.queues.load import Cost
from benchmarks.queues.workspace import Workspace
from benchmarks.verdicts import percentile

Sample: TypeAlias = dict[str, float]

# How long a worker has nothing to do before the first job to pick up, so that it is idle.
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
    measured: int = 10_000  # at each depth
    shallow: int = 1_000
    deep: int = 200_000
    delayed: int = 100_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure one contestant.

    share is how many of the jobs are used where a rate is measured. settings are those with which
    the contestant is fastest, by part.
    """

    sizes: Sizes
    share: float
    settings: Mapping[str, str]
    seed: int

    def shared(self, count: int) -> int:
        return int(count * self.share)


Measure: TypeAlias = Callable[[Workspace, Plan], Sample]


def enqueue(workspace: Workspace, plan: Plan) -> Sample:
    count = plan.shared(plan.sizes.enqueue)
    return _rate(workspace, "enqueue", count=count, setting=plan.settings["enqueue"])


def bulk(workspace: Workspace, plan: Plan) -> Sample:
    return _rate(workspace, "bulk", count=plan.shared(plan.sizes.bulk))


def lone(workspace: Workspace, plan: Plan) -> Sample:
    return _percentiles(workspace.run("lone", count=plan.shared(plan.sizes.lone)))


def drain(workspace: Workspace, plan: Plan) -> Sample:
    count = plan.shared(plan.sizes.drain)
    workspace.run("fill", count=count)
    return _rate(workspace, "drain", count=count, setting=plan.settings["drain"])


def memory(workspace: Workspace, plan: Plan) -> Sample:
    """Measure what a waiting job takes of the server's memory."""
    count = plan.sizes.memory
    workspace.run("fill", count=1)  # what a queue takes, however short it is
    before = workspace.store.memory_bytes()
    workspace.run("fill", count=count)
    return {"bytes": (workspace.store.memory_bytes() - before) / count}


def pickup(workspace: Workspace, plan: Plan) -> Sample:
    """Measure from the call in one process to the start of the task in another."""
    worker = workspace.start("receive", count=plan.sizes.pickup)
    worker.wait_until_ready()
    workspace.run("send", pauses=_pauses(plan))
    return _percentiles(worker.result())


def pickup_here(workspace: Workspace, plan: Plan) -> Sample:
    """Measure from the call to the start of the task, in one process and on one event loop."""
    return _percentiles(workspace.run("pick_up", pauses=_pauses(plan)))


def depth(workspace: Workspace, plan: Plan, *, waiting: int, delayed: int = 0) -> Sample:
    """Drain some jobs while so many others wait, then add some."""
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
    "depth:shallow": shallow,
    "depth:deep": deep,
    "depth:delayed": with_delayed,
}
"""By the name of the part."""


def _rate(workspace: Workspace, verb: str, **arguments: object) -> Sample:
    """Return jobs a second. The server's time is that of the whole process, connecting included."""
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
    """Return the same for all contestants of a round. The first job only warms up."""
    chance = random.Random(plan.seed)
    return [IDLE_SECONDS, *(chance.uniform(*PAUSE_SECONDS) for _ in range(plan.sizes.pickup))]
