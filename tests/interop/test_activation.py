"""Claiming jobs, locking them, and waking other workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from hasten.jobs import State
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import SOON_SECONDS, complete, now_ms, take


class TestTaking:
    async def test_node_sees_which_worker_runs_a_job(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("hold")
        await shared.python_worker(name="ada", idle=False)
        await shared.until_python_runs(1)
        assert await shared.node("getJobState", job.id) == "active"
        (active,) = await shared.node("getActive")
        assert (active["id"], active["processedBy"]) == (job.id, "ada")
        assert (active["attemptsStarted"], active["attemptsMade"]) == (1, 0)
        shared.release(job.id)

    async def test_python_sees_which_worker_runs_a_job(self, shared: SharedQueue) -> None:
        job = await shared.node("add", "hold")
        worker = await shared.node_worker(name="nodette", idle=False)
        await shared.until_runs(worker, 1)
        (active,) = await shared.queue.jobs(State.ACTIVE)
        assert (active.id, active.record.worker) == (job["id"], "nodette")
        assert active.record.attempts_started == 1

    async def test_a_batch_has_a_lock_and_an_event_for_each(self, shared: SharedQueue) -> None:
        """A marker shows that there are more jobs."""
        await shared.queue.add_many([("echo", {})] * 5)
        ids = await take(shared, 4)
        assert all(shared.redis.get(shared.key(f"{id}:lock")) == "a token" for id in ids)
        active = [entry for entry in shared.stream() if entry["event"] == "active"]
        assert active == [{"event": "active", "jobId": id, "prev": "waiting"} for id in ids]
        assert shared.redis.zscore(shared.key("marker"), "0") == 0
        assert {job["id"] for job in await shared.node("getActive")} == set(ids)

    async def test_a_marker_that_python_used_up_is_passed_on(self, shared: SharedQueue) -> None:
        """An idle Node worker starts the next job while the Python worker is busy."""
        await shared.python_worker(concurrency=1)
        node = await shared.node_worker()
        first, second = await shared.queue.add_many([("hold", {}), ("hold", {})])
        await shared.until_python_runs(1)
        await shared.until_runs(node, 1)
        assert {first.id, second.id} == {job["id"] for job in await shared.node("getActive")}

    async def test_node_runs_delayed_jobs_without_their_marker(self, shared: SharedQueue) -> None:
        """A worker that takes the marker sets one for the next due job."""
        await shared.node_worker()
        python = await shared.python_worker(concurrency=1)
        await shared.queue.add("echo", {"value": 1}, delay=0.3)
        await shared.until(lambda: not shared.redis.exists(shared.key("marker")))
        await python.stop()
        started = time.monotonic()
        await shared.until_counts(completed=1)
        assert time.monotonic() - started < SOON_SECONDS

    @pytest.mark.parametrize("options", [{}, {"delay": 50}, {"priority": 5}, {"lifo": True}])
    async def test_node_wakes_python(self, shared: SharedQueue, options: dict[str, Any]) -> None:
        await shared.python_worker()
        started = time.monotonic()
        await shared.node("add", "echo", {}, options)
        await shared.until_python_runs(1)
        assert time.monotonic() - started < SOON_SECONDS

    async def test_no_more_run_than_the_global_concurrency(self, shared: SharedQueue) -> None:
        """Each language counts the jobs of the other one."""
        await shared.node("setGlobalConcurrency", 2)
        await shared.queue.add_many([("hold", {})] * 6)
        node = await shared.node_worker(concurrency=4, idle=False)
        await shared.until_runs(node, 2)
        await shared.python_worker()
        assert not shared.python_runs
        (first, second) = await node.runs()
        await shared.peer.ask("release", job=first["id"])
        await shared.until_counts(completed=1, active=2, waiting=3)
        assert second["id"] in shared.ids("active")

        async def third_has_begun() -> bool:
            return len(await node.runs()) + len(shared.python_runs) == 3

        await shared.until_true(third_has_begun)

    async def test_a_slot_that_python_frees_wakes_node(self, shared: SharedQueue) -> None:
        """No other worker would wake the one that found the queue full."""
        await shared.node("setGlobalConcurrency", 1)
        held, _ = await shared.queue.add_many([("echo", {}), ("echo", {"value": "next"})])
        assert await take(shared) == [held.id]
        node = await shared.node_worker()
        assert await complete(shared, held.id) == []
        (run,) = await shared.until_runs(node, 1)
        assert run["data"] == {"value": "next"}

    async def test_python_obeys_the_queue_s_rate_limit(self, shared: SharedQueue) -> None:
        """Two jobs per window in all languages. Python does not poll meanwhile."""
        await shared.node("setGlobalRateLimit", 2, 700)
        await shared.queue.add_many([("echo", {})] * 4)
        await shared.python_worker(idle=False)
        await shared.until_python_runs(2)
        calls = shared.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
        runs = await shared.until_python_runs(4)
        spent = shared.redis.info("commandstats")["cmdstat_evalsha"]["calls"] - calls
        started_ms = [run.started_ms or 0 for run in runs]
        assert started_ms[2] - started_ms[0] >= 600
        assert spent < 30


class TestLocks:
    async def test_node_leaves_a_job_alone_that_python_renews(self, shared: SharedQueue) -> None:
        """Node checks several times while the lease of one second is renewed."""
        job = await shared.queue.add("hold")
        await shared.python_worker(lease=1, idle=False)
        await shared.until_python_runs(1)
        await shared.node_worker(stalledInterval=100)
        checks = Changes(lambda: shared.redis.get(shared.key("stalled-check")))
        lock = shared.key(f"{job.id}:lock")
        renewals = Rises(lambda: shared.redis.pttl(lock))
        await shared.until(lambda: checks.seen() > 3 and renewals.seen() > 2)
        assert shared.events_of(job.id) == ["added", "waiting", "active"]
        shared.release(job.id)

    async def test_another_token_settles_nothing(self, shared: SharedQueue) -> None:
        """The job was reclaimed, and Node runs it now."""
        job = await shared.queue.add("hold")
        worker = await shared.node_worker(idle=False)
        await shared.until_runs(worker, 1)
        before = shared.hash(job.id)
        assert await complete(shared, job.id, token="of an earlier run") == [job.id]
        assert shared.hash(job.id) == before
        assert await shared.node("getJobState", job.id) == "active"

    async def test_an_expired_lock_settles_an_unreclaimed_job(self, shared: SharedQueue) -> None:
        """After an outage all locks have expired, although the workers are alive."""
        job = await shared.queue.add("hold")
        await take(shared)
        shared.redis.delete(shared.key(f"{job.id}:lock"))
        assert await complete(shared, job.id) == []
        assert shared.ids("active") == []
        assert await shared.node("getJobState", job.id) == "completed"

    async def test_python_leaves_a_job_alone_that_node_renews(self, shared: SharedQueue) -> None:
        """Python only checks whether the lock exists."""
        job = await shared.node("add", "hold")
        worker = await shared.node_worker(idle=False, lockDuration=1000)
        await shared.until_runs(worker, 1)
        lock = shared.key(f"{job['id']}:lock")
        renewals = Rises(lambda: shared.redis.pttl(lock))
        await shared.until(lambda: renewals.seen() > 2)
        engine = shared.queue.engine
        assert await engine.reclaim(shared.name, crash_limit=3, now_ms=now_ms()) == []


class TestTakingBack:
    async def test_node_recovers_jobs_of_a_dead_python_worker(self, shared: SharedQueue) -> None:
        """The first check marks the job, and the second one moves it."""
        job = await shared.queue.add("echo")
        await take(shared, lease_ms=50)
        worker = await shared.node_worker(stalledInterval=100, idle=False)
        (run,) = await shared.until_runs(worker, 1)
        assert (run["id"], run["stalledCounter"], run["attemptsStarted"]) == (job.id, 1, 2)
        await shared.until_counts(completed=1)
        assert shared.events_of(job.id) == [
            "added", "waiting", "active", "waiting", "stalled", "active", "completed",
        ]  # fmt: skip

    async def test_node_fails_a_job_whose_workers_died_twice(self, shared: SharedQueue) -> None:
        """Node's limit also counts crashes of Python workers."""
        job = await shared.queue.add("echo")
        await take(shared, lease_ms=1)
        engine = shared.queue.engine
        await shared.until_true(lambda: _taken_back(shared))
        await take(shared, lease_ms=1)
        events = await shared.node_events()
        await shared.node_worker(stalledInterval=100, idle=False)
        await shared.until_heard(events, "retries-exhausted")
        assert shared.events_of(job.id)[-3:] == [
            "active", "failed", "retries-exhausted",
        ]  # fmt: skip
        assert shared.hash(job.id)["stc"] == "2"
        record = (await engine.get(shared.name, [job.id]))[0]
        assert record is not None
        assert record.error == "job stalled more than allowable limit"
        assert record.deferred_failure is None

    async def test_python_fails_a_job_whose_workers_keep_dying(self, shared: SharedQueue) -> None:
        """Node recognizes such a job by the beginning of its error."""
        job = await shared.queue.add("echo")
        await take(shared, lease_ms=1)
        await shared.until_true(lambda: _taken_back(shared, crash_limit=1))
        await shared.python_worker(idle=False)
        await shared.until_state(job.id, State.FAILED)
        (failed,) = await shared.node("getFailed")
        assert failed["failedReason"].startswith("job stalled more than allowable limit")
        assert failed["failedReason"].endswith("died 1 times while running it")
        assert not shared.python_runs

    async def test_python_recovers_jobs_of_a_dead_node_worker(self, shared: SharedQueue) -> None:
        job = await shared.node("add", "hold")
        worker = await shared.node_worker(idle=False, lockDuration=600_000)
        await shared.until_runs(worker, 1)
        shared.redis.delete(shared.key(f"{job['id']}:lock"))
        await shared.python_worker(lease=1, idle=False)
        await shared.until_python_runs(1)
        shared.release(job["id"])
        done = await shared.until_state(job["id"], State.COMPLETED)
        assert (done.record.crashes, done.record.attempts_started) == (1, 2)
        assert shared.events_of(job["id"]) == [
            "added", "waiting", "active", "waiting", "stalled", "active", "completed",
        ]  # fmt: skip

    async def test_python_fails_a_job_that_node_marked_failed(self, shared: SharedQueue) -> None:
        """Node's check stores the reason, and the next worker fails the job without a run."""
        job = await shared.node("add", "echo", {}, {"attempts": 3})
        shared.redis.hset(shared.key(job["id"]), "defa", "job stalled more than allowable limit")
        await shared.python_worker(idle=False)
        failed = await shared.until_state(job["id"], State.FAILED)
        assert failed.error == "job stalled more than allowable limit"
        assert not shared.python_runs
        assert "defa" not in shared.hash(job["id"])


async def _taken_back(shared: SharedQueue, crash_limit: int = 3) -> bool:
    engine = shared.queue.engine
    return bool(await engine.reclaim(shared.name, crash_limit=crash_limit, now_ms=now_ms()))


class Changes:
    """Counts how often a value has changed between two checks."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read
        self._before = read()
        self._count = 0

    def seen(self) -> int:
        before, self._before = self._before, self._read()
        self._count += self._is_change(before, self._before)
        return self._count

    def _is_change(self, before: Any, now: Any) -> bool:
        return bool(before != now)


class Rises(Changes):
    """Counts only the changes to a greater value."""

    def _is_change(self, before: Any, now: Any) -> bool:
        return bool(now > before)
