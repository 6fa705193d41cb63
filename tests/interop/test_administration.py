"""Administration by one language while the other one works."""

from __future__ import annotations

import asyncio

import pytest

from hasten.jobs import State
from hasten.jobs._options import JobOptions
from tests.interop.peer import NodeError
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import RUNNERS, fill, keys, start, take


class TestPausing:
    async def test_python_pauses_node(self, shared: SharedQueue) -> None:
        worker = await shared.node_worker()
        await shared.queue.pause()
        assert await shared.node("isPaused")
        await shared.queue.add("echo")
        await shared.queue.resume()
        assert not await shared.node("isPaused")
        await shared.until_runs(worker, 1)
        events = [each["event"] for each in shared.stream()]
        assert events[:4] == ["paused", "added", "waiting", "resumed"]

    async def test_node_pauses_python(self, shared: SharedQueue) -> None:
        await shared.python_worker()
        await shared.node("pause")
        assert await shared.queue.is_paused()
        await shared.queue.add("echo")
        await shared.node("resume")
        assert not await shared.queue.is_paused()
        await shared.until_python_runs(1)

    @pytest.mark.parametrize("runner", RUNNERS)
    async def test_resumes_in_time_for_delayed_jobs(self, shared: SharedQueue, runner: str) -> None:
        """Pausing deletes all markers, so resuming adds that of the delayed job again."""
        await shared.queue.add("echo", delay=0.3)
        await shared.queue.pause()
        await start(shared, runner)
        await shared.until(lambda: shared.is_blocked(":w:"))
        await shared.queue.resume()
        await shared.until_counts(completed=1)

    async def test_python_resumes_jobs_that_version_5_has_paused(self, shared: SharedQueue) -> None:
        """Version 5 moved waiting jobs to another list. They come before newer ones."""
        await shared.queue.add_many([("echo", {"value": n}) for n in range(3)])
        shared.redis.rename(shared.key("wait"), shared.key("paused"))
        shared.redis.hset(shared.key("meta"), "paused", 1)
        await shared.queue.add("echo", {"value": 3})
        assert (await shared.queue.counts())[State.WAITING] == 4
        await shared.queue.resume()
        worker = await shared.node_worker(idle=False)
        runs = await shared.until_runs(worker, 4)
        assert [run["data"]["value"] for run in runs] == [0, 1, 2, 3]
        assert not shared.redis.exists(shared.key("paused"))


class TestPromoting:
    async def test_python_promotes_for_an_idle_node_worker(self, shared: SharedQueue) -> None:
        worker = await shared.node_worker()
        job = await shared.queue.add("echo", delay=3600)
        await shared.queue.promote(job.id)
        (run,) = await shared.until_runs(worker, 1)
        assert run["delay"] == 0

    async def test_node_promotes_for_an_idle_python_worker(self, shared: SharedQueue) -> None:
        await shared.python_worker()
        job = await shared.queue.add("echo", delay=3600, priority=4)
        await shared.node.job(job.id, "promote")
        (run,) = await shared.until_python_runs(1)
        assert (run.delay_ms, run.priority) == (0, 4)

    async def test_node_promotes_all_that_python_has_delayed(self, shared: SharedQueue) -> None:
        await shared.queue.add_many([("echo", {}, {"delay": 3600})] * 20)
        await shared.node("promoteJobs")
        await shared.python_worker(idle=False)
        await shared.until_counts(completed=20)


class TestChangingFromNode:
    async def test_a_new_delay_is_what_python_goes_by(self, shared: SharedQueue) -> None:
        await shared.python_worker()
        job = await shared.queue.add("echo", delay=3600)
        await shared.node.job(job.id, "changeDelay", 50)
        await shared.until_python_runs(1)

    async def test_a_new_priority_is_what_python_goes_by(self, shared: SharedQueue) -> None:
        first = await shared.queue.add("echo", priority=1)
        second = await shared.queue.add("echo", priority=2)
        await shared.node.job(first.id, "changePriority", {"priority": 3})
        assert await take(shared, 2) == [second.id, first.id]

    async def test_new_data_is_what_python_runs_with(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("echo", {"value": "old"})
        await shared.node.job(job.id, "updateData", {"value": "new"})
        await shared.python_worker(idle=False)
        assert await job.result(timeout=30) == "new"

    async def test_new_progress_is_read(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("echo")
        heard = await shared.python_events()
        await shared.node.job(job.id, "updateProgress", {"of": 2})
        assert (await job.refresh()).progress == {"of": 2}
        await shared.until(lambda: "progress" in [event.kind for event in heard])

    async def test_logs_of_node_are_read(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("echo")
        for line in "one", "two", "three":
            await shared.node("addJobLog", job.id, line, 2)
        assert await job.logs() == ["two", "three"]


class TestChangingFromPython:
    async def test_a_new_delay_is_what_node_goes_by(self, shared: SharedQueue) -> None:
        """The marker wakes an idle worker, and the event has the due time."""
        worker = await shared.node_worker()
        events = await shared.node_events()
        job = await shared.queue.add("echo", delay=3600)
        await job.update(delay=0.05)
        (run,) = await shared.until_runs(worker, 1)
        assert run["id"] == job.id
        heard = await shared.until_heard(events, "delayed", 2)
        dues = [event["delay"] for event in heard if event["event"] == "delayed"]
        assert dues[0] - dues[1] > 3_000_000

    async def test_a_new_priority_is_what_node_goes_by(self, shared: SharedQueue) -> None:
        jobs = await shared.queue.add_many([("echo", {"n": n}, {"priority": 5}) for n in range(3)])
        last = await shared.queue.add("echo", {"n": 3})
        await last.update(priority=5)
        await jobs[0].update(priority=7)
        await jobs[2].update(priority=1)
        found = await shared.node("getJob", jobs[2].id)
        assert found["priority"] == 1
        worker = await shared.node_worker(idle=False)
        runs = await shared.until_runs(worker, 4)
        assert [run["id"] for run in runs] == [jobs[2].id, jobs[1].id, last.id, jobs[0].id]

    async def test_a_job_without_a_priority_wakes_an_idle_worker(self, shared: SharedQueue) -> None:
        job = await shared.node("add", "echo", {"value": 1}, {"priority": 3})
        shared.redis.delete(shared.key("marker"))
        worker = await shared.node_worker(idle=False)
        await shared.until_runs(worker, 1)
        await shared.queue.pause()
        waits = await shared.node("add", "echo", {"value": 2}, {"priority": 3})
        await shared.queue.update(waits["id"], priority=0)
        assert await shared.node("getJobState", waits["id"]) == "waiting"
        await shared.queue.resume()
        runs = await shared.until_runs(worker, 2)
        assert [run["id"] for run in runs] == [job["id"], waits["id"]]

    async def test_new_data_is_what_node_runs_with(self, shared: SharedQueue) -> None:
        job = await shared.node("add", "echo", {"value": "old"})
        await shared.queue.update(job["id"], data={"value": "new"})
        worker = await shared.node_worker(idle=False)
        (run,) = await shared.until_runs(worker, 1)
        assert run["data"] == {"value": "new"}

    async def test_new_progress_is_what_node_hears(self, shared: SharedQueue) -> None:
        events = await shared.node_events()
        job = await shared.node("add", "echo")
        await shared.queue.update(job["id"], progress={"of": 2})
        heard = await shared.until_heard(events, "progress")
        assert {"event": "progress", "jobId": job["id"], "data": {"of": 2}} in heard
        assert (await shared.node("getJob", job["id"]))["progress"] == {"of": 2}

    async def test_lines_are_read(self, shared: SharedQueue) -> None:
        job = await shared.node("add", "echo", {}, {"keepLogs": 2})
        for line in "one", "two", "three":
            await shared.queue.log(job["id"], line)
        logs = await shared.node("getJobLogs", job["id"])
        assert logs == {"logs": ["two", "three"], "count": 2}


class TestKeepingLogs:
    LINES = ("one", "two", "three", "four")

    async def test_python_stores_the_progress_and_logs_of_node(self, shared: SharedQueue) -> None:
        data = {"progress": 1, "lines": self.LINES}
        job = await shared.node("add", "report", data, {"keepLogs": 3})
        await shared.python_worker(idle=False)
        await shared.until_state(job["id"], State.COMPLETED)
        logs = await shared.node("getJobLogs", job["id"])
        assert logs == {"logs": ["two", "three", "four"], "count": 3}

    async def test_node_stores_the_progress_and_logs_of_python(self, shared: SharedQueue) -> None:
        job = await shared.queue.add(
            "report", {"progress": 1, "lines": list(self.LINES)}, keep_logs=3
        )
        assert (await shared.node("getJob", job.id))["opts"]["keepLogs"] == 3
        await shared.node_worker(idle=False)
        await shared.until_state(job.id, State.COMPLETED)
        assert await job.logs() == ["two", "three", "four"]


class TestRetrying:
    @pytest.mark.parametrize("runner", RUNNERS)
    async def test_python_retries_what_has_failed(self, shared: SharedQueue, runner: str) -> None:
        """The job has all its attempts again, and the marker wakes a worker."""
        job = await shared.queue.add("fail", {"message": "no"}, attempts=2)
        await start(shared, runner)
        await shared.until_state(job.id, State.FAILED)
        await shared.until(lambda: shared.is_blocked(":w:"))
        await job.retry()
        await shared.until(lambda: shared.events_of(job.id).count("failed") == 2)
        assert shared.hash(job.id)["atm"] == "2"
        assert {"event": "waiting", "jobId": job.id, "prev": "failed"} in shared.stream()

    async def test_node_retries_all_that_failed_in_python(self, shared: SharedQueue) -> None:
        await shared.queue.add_many([("fail", {"message": "no", "times": 1})] * 20)
        await shared.python_worker(idle=False)
        await shared.until_counts(failed=20)
        await shared.node("retryJobs")
        await shared.until_counts(completed=20)

    async def test_python_runs_a_completed_job_again(self, shared: SharedQueue) -> None:
        """Node finds nothing of the first result."""
        job = await shared.queue.add("echo", {"value": 1})
        worker = await shared.node_worker()
        await shared.until_state(job.id, State.COMPLETED)
        await shared.node("pause")
        await job.retry()
        waiting = await shared.node("getJob", job.id)
        assert waiting["returnvalue"] is None
        assert "finishedOn" not in waiting
        await shared.node("resume")
        await shared.until_runs(worker, 2)


class TestRemoving:
    async def test_python_does_not_remove_what_node_runs(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("hold")
        worker = await shared.node_worker(idle=False)
        await shared.until_runs(worker, 1)
        before = shared.hash(job.id)
        assert await job.remove() is False
        assert shared.hash(job.id) == before
        assert shared.ids("active") == [job.id]

    async def test_node_does_not_remove_what_python_runs(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("hold")
        await shared.python_worker(idle=False)
        await shared.until_python_runs(1)
        with pytest.raises(NodeError, match="locked"):
            await shared.node.job(job.id, "remove")
        shared.release(job.id)
        await shared.until_state(job.id, State.COMPLETED)

    @pytest.mark.parametrize(
        ("options", "key"),
        [({}, "wait"), ({"delay": 60}, "delayed"), ({"priority": 2}, "prioritized")],
    )
    async def test_leaves_no_key(self, shared: SharedQueue, options: JobOptions, key: str) -> None:
        """The event has the name of its last key, as in Node."""
        one, other = await shared.queue.add_many([("echo", {}, options)] * 2)
        await shared.node("addJobLog", one.id, "a line")
        await one.remove()
        await shared.node.job(other.id, "remove")
        assert [each for each in shared.stream() if each["event"] == "removed"] == [
            {"event": "removed", "jobId": job.id, "prev": key} for job in (one, other)
        ]
        kept = {"id", "meta", "events", "marker", "pc"}
        assert {name.rpartition(":")[2] for name in keys(shared)} <= kept

    @pytest.mark.parametrize("state", ["completed", "failed", "wait", "delayed", "prioritized"])
    async def test_node_cleans_what_python_has_added(self, shared: SharedQueue, state: str) -> None:
        """Node compares times as text, so Python writes them in the same form."""
        await shared.queue.add_many([("echo", {}), ("fail", {"message": "no"})])
        await shared.python_worker(idle=False)
        await shared.until_counts(completed=1, failed=1)
        await shared.close_workers()
        await shared.queue.add_many(
            [("echo", {}), ("echo", {}, {"delay": 9}), ("echo", {}, {"priority": 9})]
        )
        held = shared.ids(state)
        assert await shared.node("clean", 3_600_000, 10, state) == []
        await shared.until_true(lambda: _cleaned(shared, state, held))

    async def test_python_cleans_what_node_has_finished(self, shared: SharedQueue) -> None:
        await shared.node("addBulk", [{"name": "echo", "data": {}}] * 5)
        await shared.node_worker(idle=False)
        await shared.until_counts(completed=5)
        assert await shared.queue.clean("completed", older_than=3600) == []
        assert len(await shared.queue.clean("completed", older_than=0, limit=3)) == 3
        await shared.until_counts(completed=2)
        assert shared.stream()[-1] == {"event": "cleaned", "count": "3"}

    async def test_python_drains_what_node_has_added(self, shared: SharedQueue) -> None:
        await shared.node("addBulk", [
            {"name": "echo", "data": {}},
            {"name": "echo", "data": {}, "opts": {"priority": 1}},
            {"name": "echo", "data": {}, "opts": {"delay": 60_000}},
        ])  # fmt: skip
        assert await shared.queue.drain() == 2
        await shared.until_counts(waiting=0, prioritized=0, delayed=1)
        assert await shared.queue.drain(delayed=True) == 1
        await shared.until_counts(delayed=0)

    async def test_node_drains_what_python_has_added(self, shared: SharedQueue) -> None:
        await shared.queue.add_many([("echo", {}), ("echo", {}, {"priority": 2})])
        await shared.node("drain")
        assert set((await shared.queue.counts()).values()) == {0}

    async def test_python_obliterates_and_leaves_no_key(self, shared: SharedQueue) -> None:
        """Also keys of logs, locks, schedulers, deduplication and flows."""
        await fill(shared)
        await shared.queue.obliterate()
        assert keys(shared) == []

    async def test_node_obliterates_and_leaves_nothing_of_ours(self, shared: SharedQueue) -> None:
        await fill(shared)
        job = await shared.queue.add("hold")
        worker = await shared.python_worker(idle=False)
        await shared.until(lambda: shared.ids("active") == [job.id])
        await job.cancel()
        await shared.until_state(job.id, State.FAILED)
        await worker.stop()
        await shared.node("obliterate")
        assert keys(shared) == []

    async def test_the_reports_of_workers_are_no_orphaned_jobs(self, shared: SharedQueue) -> None:
        """Node deletes keys that it takes for those of missing jobs."""
        await shared.python_worker()

        async def is_listed() -> bool:
            return len(await shared.queue.workers()) == 1

        await shared.until_true(is_listed)
        before = sorted(key for key in keys(shared) if ":hasten:worker" in key)
        assert len(before) == 2
        await shared.node("removeOrphanedJobs")
        assert sorted(key for key in keys(shared) if ":hasten:worker" in key) == before
        assert await is_listed()

    async def test_node_empties_a_queue_under_a_python_worker(self, shared: SharedQueue) -> None:
        """The worker loses the lease of its job, and continues with the next one."""
        job = await shared.queue.add("hold")
        await shared.python_worker(idle=False)
        await shared.until_python_runs(1)
        await shared.node("obliterate", {"force": True})
        shared.release(job.id)
        await shared.node("resume")
        again = await shared.queue.add("echo", {"value": 2})
        assert await again.result(timeout=30) == 2
        assert await shared.queue.get(job.id) is None or job.id == again.id


class TestCancelling:
    async def test_a_waiting_job_fails_for_node_too(self, shared: SharedQueue) -> None:
        events = await shared.node_events()
        job = await shared.node("add", "echo")
        waits = asyncio.create_task(
            shared.node.job(job["id"], "waitUntilFinished", events.handle, 10_000)
        )
        assert await shared.queue.cancel(job["id"])
        with pytest.raises(NodeError, match="cancelled"):
            await waits
        assert await shared.node("getJobState", job["id"]) == "failed"

    async def test_a_job_in_node_may_complete_and_run_again(self, shared: SharedQueue) -> None:
        """Node ignores the request to cancel, which must be deleted."""
        job = await shared.queue.add("hold")
        worker = await shared.node_worker(idle=False)
        await shared.until_runs(worker, 1)
        assert await job.cancel()
        await shared.peer.ask("release", job=job.id)
        await shared.until_state(job.id, State.COMPLETED)
        await shared.close_workers()
        await job.retry()
        assert "defa" not in shared.hash(job.id)
        assert not shared.redis.exists(shared.key("hasten:cancelled"))

    async def test_cancelling_a_job_that_node_removed_is_dropped(self, shared: SharedQueue) -> None:
        """Otherwise it would cancel a later job with that id."""
        job = await shared.queue.add("hold", job_id="order-1")
        await take(shared)
        await job.cancel()
        await shared.node("obliterate", {"force": True})
        assert shared.queue.engine.find_cancelled(shared.name, [job.id]) == set()
        assert keys(shared) == []


async def _cleaned(shared: SharedQueue, state: str, ids: list[str]) -> bool:
    """Clean without a grace period, after the current millisecond."""
    await shared.node("clean", 0, 10, state)
    return not shared.ids(state) and not any(shared.hash(id) for id in ids)
