"""Functions that many tests of a shared queue use."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

from hasten.jobs._record import ClaimRequest, Completed
from tests.interop.shared_queue import SharedQueue

RUNNERS: Final = ("python", "node")

# Longer than anything takes under load, much shorter than the interval of a polling worker.
SOON_SECONDS: Final = 3.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def take(shared: SharedQueue, count: int = 1, *, lease_ms: int = 30_000) -> list[str]:
    """Claim jobs as a Python worker would, and return their ids."""
    claim = ClaimRequest(count, "a token", "by hand", lease_ms)
    batch = await shared.queue.engine.claim(shared.name, claim, now_ms=now_ms())
    return [lease.job.id for lease in batch.leases]


async def complete(shared: SharedQueue, id: str, *, token: str = "a token") -> list[str]:
    """Settle a job without claiming the next one. Returns the ids of lost leases."""
    end = Completed(id, token, '"by hand"')
    batch = await shared.queue.engine.settle(shared.name, [end], None, now_ms=now_ms())
    return batch.lost


async def start(shared: SharedQueue, language: str) -> None:
    """Start a worker that runs one job at a time."""
    if language == "python":
        await shared.python_worker(idle=False, concurrency=1)
    else:
        await shared.node_worker(idle=False)


async def fill(shared: SharedQueue) -> None:
    """Add jobs in all states, in both languages."""
    await shared.queue.add_many([
        ("report", {"progress": 1, "lines": ["a line"]}),
        ("fail", {"message": "no"}),
    ])  # fmt: skip
    await shared.python_worker(idle=False)
    await shared.until_counts(completed=1, failed=1)
    await shared.close_workers()
    await shared.queue.add_many([("echo", {}, {"delay": 60}), ("echo", {}, {"priority": 2})])
    await shared.node("add", "echo", {}, {"deduplication": {"id": "only one"}})
    await shared.node("upsertJobScheduler", "hourly", {"every": 3_600_000})
    flow = await shared.peer.make("FlowProducer", f"{shared.name} flow")
    children = [{"name": "echo", "queueName": shared.name}]
    await flow("add", {"name": "gather", "queueName": shared.name, "children": children})


def keys(shared: SharedQueue) -> list[str]:
    return sorted(shared.redis.scan_iter(shared.key("*"), count=1000))


def troubles(shared: SharedQueue) -> list[str]:
    """Find ids in no state or in several, ids without a hash, and locks of idle jobs."""
    places = ["wait", "active", "prioritized", "delayed", "waiting-children", "completed", "failed"]
    standing = Counter(id for place in places for id in shared.ids(place))
    names = [
        key.removeprefix(shared.key(""))
        for key in shared.redis.scan_iter(shared.key("*"), count=1000)
    ]
    hashes = {
        name
        for name in names
        if shared.redis.type(shared.key(name)) == "hash"
        and shared.redis.hexists(shared.key(name), "timestamp")
    }
    parts = [name.rpartition(":") for name in names]
    owners = {id for id, _, part in parts if part in {"lock", "logs", "dependencies", "processed"}}
    locked = {id for id, _, part in parts if part == "lock"}
    return [
        *(f"{id} is in {count} places" for id, count in standing.items() if count > 1),
        *(f"{id} has no hash" for id in set(standing) - hashes),
        *(f"{id} is in no place" for id in hashes - set(standing)),
        *(f"keys of {id} are left" for id in owners - hashes),
        *(f"{id} is locked and not active" for id in locked - set(shared.ids("active"))),
    ]
