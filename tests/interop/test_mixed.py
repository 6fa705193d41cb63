"""Workers of both languages on one queue: under load, killed, and with random operations."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from hasten.errors import HastenError
from tests.interop.peer import NodeError, Peer
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import troubles
from tests.servers.redis import RedisServer

ROOT: Final = Path(__file__).parent.parent.parent
FUZZ_SECONDS: Final = 5.0


async def test_each_job_is_run_once(shared: SharedQueue) -> None:
    """Two workers and a producer of each language run at once."""
    for name in "ada", "grace":
        await shared.python_worker(name=name, concurrency=10)
    nodes = [await shared.node_worker(concurrency=10) for _ in range(2)]
    for _ in range(10):
        bulk = [{"name": "echo", "data": {"value": n}} for n in range(100)]
        await asyncio.gather(
            shared.queue.add_many([("echo", {"value": n}) for n in range(100)]),
            shared.node("addBulk", bulk),
        )
    await shared.until_counts(completed=2000)
    node_runs = [run["id"] for node in nodes for run in await node.runs()]
    python_runs = [run.id for run in shared.python_runs]
    assert node_runs
    assert python_runs
    runs = Counter(node_runs + python_runs)
    assert len(runs) == 2000
    assert set(runs.values()) == {1}
    assert troubles(shared) == []


async def test_failing_jobs_are_tried_by_both(shared: SharedQueue) -> None:
    """Each attempt counts once, in whatever language."""
    await shared.python_worker(concurrency=5)
    await shared.node_worker(concurrency=5)
    options = {"attempts": 6, "backoff": 1}
    bulk = [{"name": "fail", "data": {"message": "no", "times": 5}, "opts": options}] * 100
    await shared.node("addBulk", bulk)
    await shared.until_counts(completed=100)
    made = {job.attempts_made for job in await shared.queue.jobs("completed")}
    assert made == {6}
    assert len(shared.python_runs) < 600
    assert troubles(shared) == []


class TestKilled:
    async def test_python_replaces_node(self, shared: SharedQueue, mortal_peer: Peer) -> None:
        """After kill -9 its locks expire, and no other worker of its language runs."""
        jobs = await shared.queue.add_many([("hold", {})] * 5)
        worker = await shared.node_worker(
            of=mortal_peer, idle=False, concurrency=5, lockDuration=500
        )
        await shared.until_runs(worker, 5)
        mortal_peer.kill()
        await shared.python_worker(lease=1, idle=False)
        for job in jobs:
            shared.release(job.id)
        await shared.until_counts(completed=5)
        for job in await shared.queue.jobs("completed"):
            assert (job.record.crashes, job.record.attempts_started) == (1, 2)
        assert troubles(shared) == []

    async def test_node_replaces_python(self, shared: SharedQueue, server: RedisServer) -> None:
        jobs = await shared.queue.add_many([("echo", {})] * 5)
        doomed = subprocess.Popen(
            [sys.executable, "-m", "tests.interop.doomed_worker", shared.name],
            cwd=ROOT,
            env={**os.environ, "HASTEN_URL": server.url},
        )
        try:
            await shared.until_counts(active=5)
        finally:
            doomed.send_signal(signal.SIGKILL)
            doomed.wait()
        worker = await shared.node_worker(idle=False, stalledInterval=200, concurrency=5)
        await shared.until_counts(completed=5)
        runs = await worker.runs()
        assert {run["id"] for run in runs} == {job.id for job in jobs}
        assert {run["stalledCounter"] for run in runs} == {1}
        assert troubles(shared) == []


class TestChance:
    async def test_nothing_is_lost_whatever_both_sides_do(self, shared: SharedQueue) -> None:
        """Random operations for some seconds. Then every job is in one state, with all its data."""
        seed = random.SystemRandom().randrange(10**6)
        print(f"seed {seed}")
        fuzz = Fuzz(shared, random.Random(seed))
        await shared.python_worker(idle=False, concurrency=5, lease=1)
        await shared.node_worker(idle=False, concurrency=5, stalledInterval=500)
        await asyncio.gather(*(fuzz.run(FUZZ_SECONDS) for _ in range(4)))
        await shared.queue.resume()
        await shared.until_counts(waiting=0, active=0, prioritized=0, delayed=0)
        assert troubles(shared) == []
        counts = await shared.queue.counts()
        assert sum(counts.values()) == len(fuzz.added) - len(fuzz.removed)
        assert await shared.peer.ask("errors") == []


class Fuzz:
    """Random operations of both languages."""

    def __init__(self, shared: SharedQueue, chance: random.Random) -> None:
        self._shared = shared
        self._chance = chance
        self.added: set[str] = set()
        self.removed: set[str] = set()

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        steps = [self.add, self.add, self.add, self.node_add, self.node_add, self.node_add]
        steps += [self.remove, self.node_remove, self.promote, self.retry, self.node_retry]
        steps += [self.pause, self.node_pause, self.duplicate, self.node_change]
        steps += [self.clean, self.node_clean]
        while loop.time() < end:
            # Operations that come too late, because the job has moved or is gone, are refused.
            try:
                await self._chance.choice(steps)()
            except (HastenError, NodeError):
                continue

    def some_job(self) -> str:
        return self._chance.choice(sorted(self.added) or ["none"])

    def some_options(self) -> dict[str, Any]:
        """Return random options with Node's names."""
        chance = self._chance
        return {
            "priority": chance.choice([0, 0, 1, 7]),
            "delay": chance.choice([0, 0, 20, 100]),
            "lifo": chance.choice([False, True]),
            "attempts": chance.choice([1, 3]),
            "backoff": chance.choice([0, 5]),
        }

    def some_task(self) -> tuple[str, dict[str, Any]]:
        tasks: list[tuple[str, dict[str, Any]]] = [
            ("echo", {"value": 1}),
            ("fail", {"message": "no", "times": 1}),
            ("give_up", {"message": "never"}),
            ("report", {"progress": 1, "lines": ["a line"]}),
        ]
        return self._chance.choice(tasks)

    async def add(self) -> None:
        options = self.some_options()
        options["delay"] /= 1000
        options["backoff"] /= 1000
        job = await self._shared.queue.add(*self.some_task(), **options)
        self.added.add(job.id)

    async def node_add(self) -> None:
        job = await self._shared.node("add", *self.some_task(), self.some_options())
        self.added.add(job["id"])

    async def duplicate(self) -> None:
        """Add a job with a chosen id, which may exist or have existed."""
        id = f"own-{self._chance.randrange(1000)}"
        if id not in self.added:
            self.added.add(id)
            await self._shared.node("add", "echo", {}, {"jobId": id})
        await self._shared.queue.get(id)

    async def remove(self) -> None:
        id = self.some_job()
        if await self._shared.queue.remove(id):
            self.removed.add(id)

    async def node_remove(self) -> None:
        id = self.some_job()
        await self._shared.node.job(id, "remove")
        self.removed.add(id)

    async def promote(self) -> None:
        await self._shared.queue.promote(self.some_job())

    async def retry(self) -> None:
        await self._shared.queue.retry(self.some_job())

    async def node_retry(self) -> None:
        await self._shared.node.job(self.some_job(), "retry")

    async def node_change(self) -> None:
        id = self.some_job()
        await self._shared.node.job(id, "changePriority", {"priority": self._chance.randrange(3)})
        await self._shared.node.job(id, "changeDelay", 30)

    async def clean(self) -> None:
        state = self._chance.choice(["completed", "failed", "waiting", "delayed", "prioritized"])
        self.removed.update(await self._shared.queue.clean(state, older_than=0, limit=3))

    async def node_clean(self) -> None:
        state = self._chance.choice(["completed", "failed", "wait", "delayed", "prioritized"])
        self.removed.update(await self._shared.node("clean", 0, 3, state))

    async def pause(self) -> None:
        await self._shared.queue.pause()
        await self._shared.node("resume")

    async def node_pause(self) -> None:
        await self._shared.node("pause")
        await self._shared.queue.resume()
