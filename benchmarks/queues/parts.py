"""What is measured. Each part takes an empty stage and returns a sample: numbers by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from benchmarks.queues.load import Cost
from benchmarks.queues.stage import Stage

Sample: TypeAlias = dict[str, float]

# How long a worker has nothing to do before the first job to pick up: it has to be idle.
IDLE_SECONDS: Final = 1.0

PAUSE_SECONDS: Final = (0.005, 0.030)

# The share of the jobs with which settings are tried.
TRIAL_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many jobs a part takes."""

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
class Order:
    """How to measure one contestant.

    share: of the jobs where a rate is measured. settings: with which it is fastest, by part.
    """

    sizes: Sizes
    share: float
    settings: Mapping[str, str]
    seed: int

    def shared(self, count: int) -> int:
        return int(count * self.share)

    def trial(self) -> Order:
        """A small one, to choose a setting by."""
        return replace(self, share=self.share * TRIAL_SHARE)


Part: TypeAlias = Callable[[Stage, Order], Sample]


def enqueue(stage: Stage, order: Order) -> Sample:
    count = order.shared(order.sizes.enqueue)
    return _rate(stage, "enqueue", count=count, setting=order.settings["enqueue"])


def bulk(stage: Stage, order: Order) -> Sample:
    return _rate(stage, "bulk", count=order.shared(order.sizes.bulk))


def lone(stage: Stage, order: Order) -> Sample:
    return _percentiles(stage.run("lone", count=order.shared(order.sizes.lone)))


def drain(stage: Stage, order: Order) -> Sample:
    count = order.shared(order.sizes.drain)
    stage.run("fill", count=count)
    return _rate(stage, "drain", count=count, setting=order.settings["drain"])


def memory(stage: Stage, order: Order) -> Sample:
    """Of the server, for a job that waits."""
    count = order.sizes.memory
    stage.run("fill", count=1)  # what a queue takes, however short it is
    before = stage.store.memory_bytes()
    stage.run("fill", count=count)
    return {"bytes": (stage.store.memory_bytes() - before) / count}


def pickup(stage: Stage, order: Order) -> Sample:
    """From the call in one process to the start of the task in another."""
    worker = stage.start("receive", count=order.sizes.pickup)
    worker.wait_until_ready()
    stage.run("send", pauses=_pauses(order))
    return _percentiles(worker.result())


def pickup_here(stage: Stage, order: Order) -> Sample:
    """From the call to the start of the task in the same process, on the same event loop."""
    return _percentiles(stage.run("pick_up", pauses=_pauses(order)))


def depth(stage: Stage, order: Order, *, waiting: int, delayed: int) -> Sample:
    """Take jobs out of a queue that so many are left in, then add some."""
    count = order.sizes.measured
    if delayed:
        stage.run("fill_delayed", count=delayed)
    stage.run("fill", count=waiting + count)
    drained: Cost = stage.run("drain", count=count, setting=order.settings["drain"])
    added: Cost = stage.run("enqueue", count=count, setting=order.settings["enqueue"])
    return {
        "drain_us": drained["seconds"] / count * 1e6,
        "enqueue_us": added["seconds"] / count * 1e6,
    }


def depths(sizes: Sizes) -> dict[str, Part]:
    shallow = sizes.shallow
    return {
        "depth:shallow": partial(depth, waiting=shallow, delayed=0),
        "depth:deep": partial(depth, waiting=sizes.deep, delayed=0),
        "depth:delayed": partial(depth, waiting=shallow, delayed=sizes.delayed),
    }


def _rate(stage: Stage, verb: str, **arguments: object) -> Sample:
    """A server's time is that of the whole process of the verb: it connects, too."""
    before = stage.store.cpu_seconds()
    cost: Cost = stage.run(verb, **arguments)
    server = stage.store.cpu_seconds() - before
    return {
        "per_second": cost["jobs"] / cost["seconds"],
        "cpu_us": cost["cpu_seconds"] / cost["jobs"] * 1e6,
        "server_us": server / cost["jobs"] * 1e6,
    }


def _percentiles(ms: Sequence[float]) -> Sample:
    ordered = sorted(ms)
    return {
        name: ordered[min(int(len(ordered) * share), len(ordered) - 1)]
        for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99))
    }


def _pauses(order: Order) -> list[float]:
    """The same for all contestants of a round. The first is for the job that warms up."""
    chance = random.Random(order.seed)
    return [IDLE_SECONDS, *(chance.uniform(*PAUSE_SECONDS) for _ in range(order.sizes.pickup))]
