"""How jobs end and are retried, and what is kept: the same in both languages."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hasten.errors import JobFailed
from hasten.jobs import Exponential, Fixed, Job, Keep, State
from hasten.jobs._record import ClaimRequest, Completed
from tests.interop.peer import NodeError
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import RUNNERS, complete, now_ms, start, take


class TestPythonCompletes:
    async def test_node_awaits_the_result(self, shared: SharedQueue) -> None:
        """waitUntilFinished reads the event and its value."""
        events = await shared.node_events()
        job = await shared.node("add", "hold")
        await shared.python_worker(idle=False)
        await shared.until_python_runs(1)
        shared.release(job["id"])
        result = await shared.node.job(job["id"], "waitUntilFinished", events.handle, 10_000)
        assert result == job["id"]

    async def test_node_lists_the_latest_first(self, shared: SharedQueue) -> None:
        for number in range(3):
            job = await shared.queue.add("echo", {"value": number})
            await take(shared)
            await complete(shared, job.id)
            await shared.until_after(int(shared.hash(job.id)["finishedOn"]))
        done = await shared.node("getCompleted")
        assert [each["data"]["value"] for each in done] == [2, 1, 0]
        assert done[0]["returnvalue"] == "by hand"
        assert done[0]["finishedOn"] >= done[0]["processedOn"] >= done[0]["timestamp"]
        assert done[0]["attemptsMade"] == 1

    async def test_a_missing_result_is_null(self, shared: SharedQueue) -> None:
        """In the hash and in the event, because Node's listeners stop at invalid JSON."""
        events = await shared.node_events()
        job = await shared.queue.add("echo")
        await start(shared, "python")
        heard = await shared.until_heard(events, "completed")
        assert heard[-1]["event"] in {"completed", "drained"}
        assert [each["returnvalue"] for each in heard if each["event"] == "completed"] == [None]
        assert shared.hash(job.id)["returnvalue"] == "null"

    async def test_a_batch_has_an_event_for_each(self, shared: SharedQueue) -> None:
        await shared.queue.add_many([("echo", {})] * 100)
        events = await shared.node_events()
        ids = await take(shared, 100)
        ends = [Completed(id, "a token", "1") for id in ids]
        claim = ClaimRequest(1, "another token", "by hand", 1000)
        await shared.queue.engine.settle(shared.name, ends, claim, now_ms=now_ms())
        heard = await shared.until_heard(events, "drained")
        assert [each["jobId"] for each in heard if each["event"] == "completed"] == ids
        counts = await shared.node("getJobCounts")
        assert (counts["completed"], counts["active"]) == (100, 0)

    async def test_the_last_one_drains_the_queue(self, shared: SharedQueue) -> None:
        """It is emitted once, and not while there is a delayed job."""
        await shared.queue.add("echo", delay=0.3)
        await shared.queue.add("echo")
        await start(shared, "python")
        await shared.until_counts(completed=2)
        events = [each["event"] for each in shared.stream()]
        assert events.count("drained") == 1
        assert events[-1] == "drained"


class TestPythonFails:
    async def test_node_reads_why(self, shared: SharedQueue) -> None:
        job = await shared.node("add", "fail", {"message": "näh"})
        await start(shared, "python")
        await shared.until_state(job["id"], State.FAILED)
        (failed,) = await shared.node("getFailed")
        assert failed["failedReason"] == "RuntimeError: näh"
        (trace,) = failed["stacktrace"]
        assert "raise RuntimeError(message)" in trace
        assert shared.stream()[-3:] == [
            {"event": "failed", "jobId": job["id"], "failedReason": "RuntimeError: näh",
             "prev": "active"},
            {"event": "retries-exhausted", "jobId": job["id"], "attemptsMade": "1"},
            {"event": "drained"},
        ]  # fmt: skip

    async def test_node_that_awaits_it_gets_the_error(self, shared: SharedQueue) -> None:
        events = await shared.node_events()
        job = await shared.node("add", "fail", {"message": "no"})
        await start(shared, "python")
        with pytest.raises(NodeError, match="RuntimeError: no"):
            await shared.node.job(job["id"], "waitUntilFinished", events.handle, 10_000)

    @pytest.mark.parametrize(("limit", "kept"), [(2, 2), (0, 0), (None, 3)])
    async def test_as_many_traces_stay_as_node_s_option_says(
        self, shared: SharedQueue, limit: int | None, kept: int
    ) -> None:
        options = {} if limit is None else {"stackTraceLimit": limit}
        job = await shared.node("add", "fail", {"message": "no"}, {"attempts": 3, **options})
        await start(shared, "python")
        await shared.until_state(job["id"], State.FAILED)
        (failed,) = await shared.node("getFailed")
        assert len(failed["stacktrace"] or []) == kept

    async def test_node_retries_it_here(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("fail", {"message": "no", "times": 1})
        await start(shared, "python")
        await shared.until_state(job.id, State.FAILED)
        await shared.node.job(job.id, "retry")
        done = await shared.until_state(job.id, State.COMPLETED)
        assert done.value == "at last"


@pytest.mark.parametrize("runner", RUNNERS)
class TestTryingAgain:
    async def test_a_fixed_backoff_delays_attempts(self, shared: SharedQueue, runner: str) -> None:
        """Each retry emits `delayed` with its due time. Only the last failure emits `failed`."""
        job = await shared.queue.add("fail", {"message": "no"}, attempts=3, backoff=Fixed(0.1))
        await start(shared, runner)
        await shared.until_state(job.id, State.FAILED)
        assert shared.events_of(job.id) == [
            "added", "waiting",
            "active", "delayed", "waiting",
            "active", "delayed", "waiting",
            "active", "failed", "retries-exhausted",
        ]  # fmt: skip
        assert (shared.hash(job.id)["atm"], shared.hash(job.id)["ats"]) == ("3", "3")

    async def test_an_exponential_backoff_doubles(self, shared: SharedQueue, runner: str) -> None:
        options = {"attempts": 4, "backoff": {"type": "exponential", "delay": 60_000}}
        job = await shared.node("add", "fail", {"message": "no"}, options)
        await start(shared, runner)
        delays_ms = [await skip_backoff(shared, job["id"]) for _ in range(3)]
        assert delays_ms == [60_000, 120_000, 240_000]

    async def test_jitter_stays_within_its_share(self, shared: SharedQueue, runner: str) -> None:
        backoff = Exponential(60, jitter=0.5)
        job = await shared.queue.add("fail", {"message": "no"}, attempts=3, backoff=backoff)
        await start(shared, runner)
        assert 30_000 <= await skip_backoff(shared, job.id) <= 60_000
        assert 60_000 <= await skip_backoff(shared, job.id) <= 120_000

    async def test_at_once_goes_to_the_back(self, shared: SharedQueue, runner: str) -> None:
        job = await shared.queue.add("fail", {"message": "no", "times": 1}, attempts=2)
        other = await shared.queue.add("echo")
        await start(shared, runner)
        await shared.until_state(job.id, State.COMPLETED)
        assert started(shared) == [job.id, other.id, job.id]

    async def test_at_once_goes_in_front_if_lifo(self, shared: SharedQueue, runner: str) -> None:
        other = await shared.queue.add("echo")
        job = await shared.queue.add("fail", {"message": "no", "times": 1}, attempts=2, lifo=True)
        await start(shared, runner)
        await shared.until_state(other.id, State.COMPLETED)
        assert started(shared) == [job.id, job.id, other.id]

    async def test_giving_up_leaves_attempts_unused(self, shared: SharedQueue, runner: str) -> None:
        """So no attempt emits `retries-exhausted`."""
        job = await shared.node("add", "give_up", {"message": "never"}, {"attempts": 3})
        await start(shared, runner)
        failed = await shared.until_state(job["id"], State.FAILED)
        assert failed.attempts_made == 1
        assert shared.events_of(job["id"])[-2:] == ["active", "failed"]

    async def test_attempts_count_across_languages(self, shared: SharedQueue, runner: str) -> None:
        """The first attempt fails in one language, and the second succeeds in the other."""
        job = await shared.queue.add(
            "fail", {"message": "no", "times": 1}, attempts=2, backoff=Fixed(60)
        )
        await start(shared, runner)
        await shared.until_state(job.id, State.DELAYED)
        await shared.close_workers()
        await start(shared, "python" if runner == "node" else "node")
        await shared.queue.promote(job.id)
        done = await shared.until_state(job.id, State.COMPLETED)
        assert (done.value, done.attempts_made) == ("at last", 2)


@pytest.mark.parametrize("runner", RUNNERS)
class TestKeeping:
    @pytest.mark.parametrize(
        ("rule", "kept"),
        [(True, []), (2, ["d", "e"]), ({"count": 3}, ["c", "d", "e"]), (False, list("abcde"))],
    )
    async def test_node_s_rule_for_completed_jobs(
        self, shared: SharedQueue, runner: str, rule: Any, kept: list[str]
    ) -> None:
        """Both apply the rule of the worker, in the order of the ends."""
        for id in "abcde":
            await shared.node("add", "echo", {}, {"jobId": id, "removeOnComplete": rule})
        await start(shared, runner)
        await shared.until(lambda: shared.stream()[-1]["event"] == "drained")
        assert sorted(shared.ids("completed")) == kept
        assert [id for id in "abcde" if shared.hash(id)] == kept

    async def test_a_job_s_rule_beats_the_worker_s(self, shared: SharedQueue, runner: str) -> None:
        """The rule of the worker applies to all other finished jobs."""
        for id in "abc":
            await shared.node("add", "echo", {}, {"jobId": id, "removeOnComplete": False})
        if runner == "python":
            await shared.python_worker(keep_completed=2, idle=False, concurrency=1)
        else:
            await shared.node_worker(removeOnComplete={"count": 2}, idle=False)
        await shared.until_counts(completed=3)
        await shared.node("add", "echo", {}, {"jobId": "d"})
        await shared.until_counts(completed=2)
        assert sorted(shared.ids("completed")) == ["c", "d"]

    async def test_node_s_age_for_failed_jobs(self, shared: SharedQueue, runner: str) -> None:
        rule = {"removeOnFail": {"age": 3600}}
        old = await shared.node("add", "fail", {"message": "no"}, rule)
        await start(shared, runner)
        await shared.until_state(old["id"], State.FAILED)
        shared.redis.zadd(shared.key("failed"), {old["id"]: now_ms() - 3_700_000})
        new = await shared.node("add", "fail", {"message": "no"}, rule)
        await shared.until_state(new["id"], State.FAILED)
        assert shared.ids("failed") == [new["id"]]
        assert not shared.hash(old["id"])

    async def test_python_s_rule_for_failed_jobs(self, shared: SharedQueue, runner: str) -> None:
        jobs = [
            await shared.queue.add("fail", {"message": "no"}, keep_failed=Keep(count=2))
            for _ in range(4)
        ]
        await start(shared, runner)
        await shared.until(lambda: shared.stream()[-1]["event"] == "drained")
        assert sorted(shared.ids("failed")) == [job.id for job in jobs[2:]]


@pytest.mark.parametrize("runner", RUNNERS)
async def test_progress_and_logs_are_read_by_both(shared: SharedQueue, runner: str) -> None:
    """Both languages write and read both."""
    data = {"progress": {"done": [1, 2], "of": "ü"}, "lines": ["first", "second ü"]}
    job = await shared.queue.add("report", data)
    await start(shared, runner)
    read = await shared.until_state(job.id, State.COMPLETED)
    assert read.progress == data["progress"]
    assert await read.logs() == data["lines"]
    assert (await shared.node("getJob", job.id))["progress"] == data["progress"]
    assert await shared.node("getJobLogs", job.id) == {"logs": data["lines"], "count": 2}


async def test_python_awaits_a_job_that_node_fails(shared: SharedQueue) -> None:
    job = await shared.queue.add("fail", {"message": "not today"})
    await start(shared, "node")
    with pytest.raises(JobFailed, match="not today"):
        await job.result(timeout=30)
    read: Job[Any] = await job.refresh()
    assert "Error: not today" in read.tracebacks[0]


def started(shared: SharedQueue) -> list[str]:
    """Return the ids in the order of the runs."""
    return [each["jobId"] for each in shared.stream() if each["event"] == "active"]


async def skip_backoff(shared: SharedQueue, id: str) -> int:
    """Return the delay of a failed job in ms, and make it run now."""
    await shared.until_state(id, State.DELAYED)
    delay_ms = int(shared.hash(id)["delay"])
    await shared.queue.promote(id)
    return delay_ms


async def test_metrics_of_workers_of_both_languages_are_one(shared: SharedQueue) -> None:
    """All finished jobs are counted, and each closed minute is one point."""
    started = time.time() // 60
    finished = 0
    for minute in range(3):
        for runner in RUNNERS:
            await shared.queue.add_many([("echo", {"value": 1})] * (minute + 1))
            await shared.queue.add("fail", {"message": "no"})
            if runner == "python":
                await shared.python_worker(idle=False, bullmq_metrics_minutes=10)
            else:
                await shared.node_worker(idle=False, metrics={"maxDataPoints": 10})
            finished += minute + 1
            failed = 2 * minute + 1 + RUNNERS.index(runner)
            await shared.until_counts(completed=finished, failed=failed)
            await shared.close_workers()
        for state in ("completed", "failed"):  # a minute passes
            shared.redis.hincrby(f"bull:{shared.name}:metrics:{state}", "prevTS", -60_000)
    completed = await shared.node("getMetrics", "completed")
    failed = await shared.node("getMetrics", "failed")
    assert (completed["meta"]["count"], failed["meta"]["count"]) == (12, 6)
    if time.time() // 60 == started:  # no other minute has passed meanwhile
        assert [int(point) for point in completed["data"]] == [4, 2]
        assert [int(point) for point in failed["data"]] == [2, 2]
