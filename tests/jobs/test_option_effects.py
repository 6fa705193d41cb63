"""The effect of each option on a job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from hasten.jobs import Exponential, Fixed, Job, Keep, Queue, State, Worker
from hasten.jobs._options import JobOptions
from hasten.testing import ManualClock
from tests.jobs import process_tasks
from tests.jobs.eventually import fails, result_of, until_longer, until_state


class TestDelay:
    @pytest.mark.parametrize("option", ["delay", "timedelta", "at"])
    async def test_runs_a_job_when_due(self, queue: Queue, clock: ManualClock, option: str) -> None:
        hour = timedelta(hours=1)
        choices: dict[str, JobOptions] = {
            "delay": {"delay": 3600},
            "timedelta": {"delay": hour},
            "at": {"at": clock.now() + hour},
        }
        ran: list[int] = []

        @queue.task
        async def note() -> None:
            ran.append(clock.now_ms())

        due_ms = clock.now_ms() + 3_600_000
        job = await note.using(**choices[option]).enqueue()
        assert (job.state, job.record.due_ms) == (State.DELAYED, due_ms)
        async with Worker(queue):
            clock.advance(3599.999)
            marker = await note.enqueue()
            await marker.result(timeout=30)
            assert (await job.refresh()).state is State.DELAYED
            clock.advance(0.001)
            await job.result(timeout=30)
        assert ran == [due_ms - 1, due_ms]

    async def test_a_time_that_has_passed_means_now(self, queue: Queue, clock: ManualClock) -> None:
        job = await queue.add("note", at=clock.now() - timedelta(hours=1))
        assert job.state is State.WAITING

    async def test_at_is_relative_to_each_call(self, queue: Queue, clock: ManualClock) -> None:
        """A task with using(at=…) can be kept and called later."""

        @queue.task
        async def note() -> None: ...

        due = clock.now() + timedelta(seconds=100)
        later = note.using(at=due)
        clock.advance(40)
        job = await later.enqueue()
        assert job.record.delay_ms == 60_000


async def order_of_runs(queue: Queue, *added: tuple[str, dict[str, Any]]) -> list[str]:
    """Add jobs by name and options, and run them one after another."""
    ran: list[str] = []

    @queue.task
    async def note(name: str) -> None:
        ran.append(name)

    jobs = [await note.using(**options).enqueue(name) for name, options in added]
    async with Worker(queue, concurrency=1):
        await asyncio.gather(*(job.result(timeout=30) for job in jobs))
    return ran


class TestOrder:
    async def test_priorities_run_lowest_first_after_those_without(self, queue: Queue) -> None:
        """As in BullMQ."""
        assert await order_of_runs(
            queue, ("c", {"priority": 9}), ("b", {"priority": 1}), ("a", {})
        ) == ["a", "b", "c"]

    async def test_lifo_jobs_run_first_the_latest_before_the_others(self, queue: Queue) -> None:
        assert await order_of_runs(
            queue, ("c", {}), ("b", {"lifo": True}), ("a", {"lifo": True})
        ) == ["a", "b", "c"]


class TestAttempts:
    async def test_a_failing_job_runs_as_often_as_it_has_attempts(self, queue: Queue) -> None:
        """The first run counts as an attempt."""
        runs: list[int] = []

        @queue.task(attempts=3)
        async def fail() -> None:
            runs.append(1)
            raise ValueError(f"run {len(runs)}")

        job = await fail.enqueue()
        await fails(result_of(queue, job), "ValueError: run 3")
        await job.refresh()
        assert (len(runs), job.attempts_made, job.error) == (3, 3, "ValueError: run 3")
        assert [f"run {n + 1}" in trace for n, trace in enumerate(job.tracebacks)] == [True] * 3
        assert "engine" not in job.tracebacks[0]
        assert "test_option_effects.py" in job.tracebacks[0]

    async def test_a_job_that_succeeds_at_last_is_completed(self, queue: Queue) -> None:
        runs: list[int] = []

        @queue.task(attempts=3)
        async def fail_once() -> str:
            runs.append(1)
            if len(runs) == 1:
                raise ConnectionError("away")
            return "done"

        job = await fail_once.enqueue()
        assert await result_of(queue, job) == "done"
        await job.refresh()
        assert (job.attempts_made, len(job.tracebacks)) == (2, 1)


class TestBackoff:
    @pytest.mark.parametrize(
        ("backoff", "waits"),
        [
            (10, [10, 10, 10]),
            (timedelta(minutes=1), [60, 60, 60]),
            (Fixed(5), [5, 5, 5]),
            ("1m", [60, 60, 60]),
            (Exponential(delay=2, jitter=0), [2, 4, 8]),
            (Exponential(delay=2, cap=5, jitter=0), [2, 4, 5]),
            (lambda attempt, error: attempt * 7.5, [7.5, 15, 22.5]),
        ],
        ids=["seconds", "timedelta", "Fixed", "text", "Exponential", "cap", "function"],
    )
    async def test_an_attempt_waits_as_long_as_it_says(
        self, queue: Queue, clock: ManualClock, backoff: Any, waits: list[float]
    ) -> None:
        times: list[int] = []

        @queue.task(attempts=4, backoff=backoff)
        async def fail() -> None:
            times.append(clock.now_ms())
            raise ValueError

        job = await fail.enqueue()
        async with Worker(queue):
            for wait in waits:
                await until_state(job, State.DELAYED)
                clock.advance(wait - 0.001)
                assert (await job.refresh()).state is State.DELAYED
                before = len(times)
                clock.advance(0.001)
                await until_longer(times, before)
            await fails(job.result(timeout=30))
        assert [(b - a) / 1000 for a, b in pairwise(times)] == waits

    async def test_jitter_shortens_a_wait_in_bounds(self, queue: Queue, clock: ManualClock) -> None:
        """So that jobs that failed together are not retried together."""

        @queue.task(attempts=2, backoff="exponential")
        async def fail() -> None:
            raise ValueError

        jobs = await fail.enqueue_many([fail.args()] * 50)
        async with Worker(queue):
            for job in jobs:
                await until_state(job, State.DELAYED)
        delays = [job.record.delay_ms for job in jobs]
        assert all(500 <= delay <= 1000 for delay in delays)
        assert len(set(delays)) > 10

    async def test_a_function_may_give_up(self, queue: Queue) -> None:
        """The function gets the number of the attempt and the error."""
        seen: list[tuple[int, str]] = []

        def decide(attempt: int, error: BaseException) -> float | None:
            seen.append((attempt, str(error)))
            return None if attempt == 2 else 0

        @queue.task(attempts=10, backoff=decide)
        async def fail() -> None:
            raise ValueError("no")

        await fails(result_of(queue, await fail.enqueue()))
        assert seen == [(1, "no"), (2, "no")]


class TestTimeout:
    @pytest.mark.parametrize("where", ["loop", "thread"])
    async def test_ends_a_handler(self, queue: Queue, where: str) -> None:
        """A coroutine is cancelled, a thread interrupted at its next step in Python.

        Both may clean up. It counts as a failed attempt.
        """
        ended: list[str] = []

        async def in_loop() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cleaned up")

        def in_thread() -> None:
            try:
                while True:
                    time.sleep(0.005)
            finally:
                ended.append("cleaned up")

        queue.task(name="hang", timeout=0.05)(in_loop if where == "loop" else in_thread)
        job = await queue.add("hang")
        await fails(result_of(queue, job), r"JobTimeout: timed out after 0\.05 s")
        assert ended == ["cleaned up"]
        assert (await job.refresh()).attempts_made == 1

    async def test_ends_a_process_whatever_it_does(self) -> None:
        """The process is killed, even in a long call in C. The next job runs in a new one."""
        queue = process_tasks.queue
        async with Worker(queue, handler_processes=1):
            job = await process_tasks.sleep.using(timeout=0.2).enqueue(600)
            await fails(job.result(timeout=20), r"JobTimeout: timed out after 0\.2 s")
            assert await (await process_tasks.double.enqueue(21)).result(timeout=20) == 42
        await queue.aclose()

    async def test_is_followed_by_the_next_attempt(self, queue: Queue) -> None:
        runs: list[int] = []

        @queue.task(timeout=0.05, attempts=2)
        async def hang_once() -> str:
            runs.append(1)
            if len(runs) == 1:
                await asyncio.Event().wait()
            return "done"

        assert await result_of(queue, await hang_once.enqueue()) == "done"

    async def test_a_handler_s_own_timeout_is_an_error_like_others(self, queue: Queue) -> None:
        """It is not reported as a time-out of the job."""

        @queue.task
        async def wait() -> None:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()

        await fails(result_of(queue, await wait.enqueue()), "failed: TimeoutError")


class TestExpires:
    async def test_a_late_job_fails_without_a_run(self, queue: Queue, clock: ManualClock) -> None:
        """For example, a login code is of no use after an hour."""
        ran: list[int] = []

        @queue.task(expires=60)
        async def note(number: int) -> None:
            ran.append(number)

        late = await note.enqueue(1)
        clock.advance(60)
        just = await note.using(expires=0.001).enqueue(2)
        clock.advance(0.001)
        async with Worker(queue):
            await fails(late.result(timeout=30), r"expired 0\.001 s before it could start")
            await just.result(timeout=30)
        assert ran == [2]
        assert (await late.refresh()).attempts_made == 0

    async def test_it_counts_from_the_due_time(self, queue: Queue, clock: ManualClock) -> None:
        @queue.task(expires=60, delay=3600)
        async def note() -> None: ...

        job = await note.enqueue()
        clock.advance(3660)
        await result_of(queue, job)

    async def test_it_does_not_limit_later_attempts(self, queue: Queue, clock: ManualClock) -> None:
        """Only the first attempt has to start in time."""
        runs: list[int] = []

        @queue.task(expires=60, attempts=2, backoff=3600)
        async def fail_once() -> None:
            runs.append(1)
            if len(runs) == 1:
                raise ValueError

        job = await fail_once.enqueue()
        async with Worker(queue):
            await until_state(job, State.DELAYED)
            clock.advance(3600)
            await job.result(timeout=30)


async def finish(queue: Queue, count: int, **options: Any) -> list[Job[Any]]:
    """Run jobs that complete or fail, one after another."""

    @queue.task(**options)
    async def end(fail: bool) -> None:
        if fail:
            raise ValueError

    jobs: list[Job[Any]] = []
    async with Worker(queue, concurrency=1):
        for _ in range(count):
            for fail in (False, True):
                jobs.append(await end.enqueue(fail))  # noqa: PERF401
        await until_empty(queue)
    assert len(jobs) == 2 * count
    return jobs


async def until_empty(queue: Queue) -> None:
    page = await queue.engine.events(queue.name, after=None)
    while True:
        counts = await queue.counts()
        if not (counts[State.WAITING] or counts[State.ACTIVE]):
            return
        page = await queue.engine.events(queue.name, after=page.cursor)


class TestKeep:
    @pytest.mark.parametrize(
        ("keep", "kept"),
        [(True, 5), (False, 0), (2, 2), (Keep(count=3), 3), (Keep(age=3600), 5), (Keep(), 5)],
        ids=repr,
    )
    async def test_finished_jobs_are_kept_as_told(self, queue: Queue, keep: Any, kept: int) -> None:
        """The newest jobs are kept. The others are deleted when the next job finishes."""
        await finish(queue, 5, keep_completed=keep, keep_failed=True)
        counts = await queue.counts()
        assert (counts[State.COMPLETED], counts[State.FAILED]) == (kept, 5)

    async def test_each_kind_has_its_own_rule(self, queue: Queue) -> None:
        await finish(queue, 5, keep_completed=1, keep_failed=2)
        counts = await queue.counts()
        assert (counts[State.COMPLETED], counts[State.FAILED]) == (1, 2)

    async def test_age_deletes_old_finished_jobs(self, queue: Queue, clock: ManualClock) -> None:
        """They are deleted when the next job finishes."""
        await finish(queue, 3, keep_completed=Keep(age=60), keep_failed=True)
        clock.advance(61)
        await finish(queue, 1, keep_completed=Keep(age=60), keep_failed=True)
        counts = await queue.counts()
        assert (counts[State.COMPLETED], counts[State.FAILED]) == (1, 4)

    async def test_a_worker_s_rule_is_for_jobs_without_one(self, queue: Queue) -> None:
        @queue.task
        async def end() -> None: ...

        async with Worker(queue, keep_completed=1, concurrency=1):
            for _ in range(4):
                job = await end.enqueue()
                await job.result(timeout=30)
        assert (await queue.counts())[State.COMPLETED] == 1

    async def test_the_result_of_an_unkept_job_still_reaches_a_waiter(self, queue: Queue) -> None:
        """The event has the result."""

        @queue.task(keep_completed=False)
        async def answer() -> int:
            return 42

        job = await answer.enqueue()
        waiting = asyncio.create_task(job.result(timeout=30))
        await asyncio.sleep(0.05)  # no event shows that the caller waits
        async with Worker(queue):
            assert await waiting == 42
        assert await queue.get(job.id) is None


@pytest.mark.parametrize("make", [Keep, Fixed, Exponential])
def test_options_are_values(make: Callable[..., object]) -> None:
    """Equal options are equal values with one hash, so they can be compared and cached."""
    assert make(1) == make(1)
    assert hash(make(1)) == hash(make(1))
    assert make(1) != make(2)
