"""Waiting for what came of a job, and following what happens to a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from hasten.errors import JobCancelled, JobFailed, JobNotFound, ResultTimeout
from hasten.jobs import Context, Event, Job, Queue, State, Worker
from hasten.testing import ManualClock
from tests.jobs.eventually import until_state


async def settle_waiting() -> None:
    """Let those who just began to wait get there: no event tells when they have."""
    await asyncio.sleep(0.05)


class TestResult:
    async def test_of_a_job_that_completes_while_one_waits(self, queue: Queue) -> None:
        @queue.task
        async def answer() -> int:
            return 42

        job = await answer.enqueue()
        waiting = asyncio.create_task(job.result())
        await settle_waiting()
        async with Worker(queue):
            assert await waiting == 42

    async def test_of_a_job_that_has_completed_before(self, queue: Queue) -> None:
        """Its event has passed; the store knows."""

        @queue.task
        async def answer() -> int:
            return 42

        job = await answer.enqueue()
        async with Worker(queue):
            assert await job.result(timeout=5) == 42
        assert await job.result(timeout=5) == 42

    async def test_none_is_a_result_too(self, queue: Queue) -> None:
        @queue.task
        async def answer() -> None: ...

        job = await answer.enqueue()
        async with Worker(queue):
            await job.result(timeout=5)
        assert (await job.refresh()).record.result == "null"

    async def test_of_a_failed_job_is_its_reason(self, queue: Queue) -> None:
        """While one waits, and afterwards."""

        @queue.task
        async def fail() -> None:
            raise ValueError("bad luck")

        job = await fail.enqueue()
        async with Worker(queue):
            for _ in range(2):
                with pytest.raises(JobFailed, match="failed: ValueError: bad luck") as caught:
                    await job.result(timeout=5)
                assert (caught.value.job_id, caught.value.reason) == (
                    job.id,
                    "ValueError: bad luck",
                )

    async def test_of_a_cancelled_job_says_so(self, queue: Queue) -> None:
        job = await queue.add("send")
        waiting = asyncio.create_task(job.result())
        await settle_waiting()
        await job.cancel()
        for wait in (waiting, asyncio.create_task(job.result())):
            with pytest.raises(JobCancelled, match="cancelled"):
                await wait

    @pytest.mark.parametrize("how", ["remove", "drain", "obliterate"])
    async def test_of_a_removed_job_is_not_waited_for_for_ever(
        self, queue: Queue, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At once where an event names the job, else at the next look."""
        monkeypatch.setattr("hasten.jobs.results.LOOK_AGAIN_SECONDS", 0.1)
        job = await queue.add("send")
        waiting = asyncio.create_task(job.result(timeout=5))
        await settle_waiting()
        match how:
            case "remove":
                await job.remove()
            case "drain":
                await queue.drain()
            case _:
                await queue.obliterate()
        with pytest.raises(JobNotFound):
            await waiting
        with pytest.raises(JobNotFound):
            await job.result(timeout=5)

    @pytest.mark.parametrize("timeout", [0, 0.05])
    async def test_is_not_waited_for_past_the_time_out_and_the_job_goes_on(
        self, queue: Queue, timeout: float
    ) -> None:
        @queue.task
        async def answer() -> int:
            return 42

        job = await answer.enqueue()
        message = f"has not finished within {timeout:g} s"
        with pytest.raises(ResultTimeout, match=message) as caught:
            await job.result(timeout=timeout)
        assert isinstance(caught.value, TimeoutError)
        assert (await job.refresh()).state is State.WAITING
        async with Worker(queue):
            assert await job.result(timeout=5) == 42

    async def test_is_told_to_many_who_wait(self, queue: Queue) -> None:
        """For one job and for many, with one reader for all; one who leaves takes none along."""

        @queue.task
        async def double(number: int) -> int:
            return 2 * number

        jobs = await double.enqueue_many({"number": n} for n in range(50))
        waits = [asyncio.create_task(job.result(timeout=10)) for job in jobs for _ in range(4)]
        await settle_waiting()
        waits[0].cancel()
        async with Worker(queue):
            results = await asyncio.gather(*waits, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [2 * n for n in range(50) for _ in range(4)][1:]

    async def test_can_be_waited_for_again_after_nobody_did(self, queue: Queue) -> None:
        """The reader ends with the last who waits, and begins anew."""

        @queue.task
        async def double(number: int) -> int:
            return 2 * number

        async with Worker(queue):
            for number in range(5):
                job = await double.enqueue(number)
                assert await job.result(timeout=5) == 2 * number

    async def test_follows_a_job_through_its_attempts(
        self, queue: Queue, clock: ManualClock
    ) -> None:
        """A failed attempt is not the end."""
        runs: list[int] = []

        @queue.task(attempts=2, backoff=60)
        async def fail_once() -> str:
            runs.append(1)
            if len(runs) == 1:
                raise ValueError
            return "done"

        job = await fail_once.enqueue()
        waiting = asyncio.create_task(job.result(timeout=10))
        async with Worker(queue):
            await until_state(job, State.DELAYED)
            assert not waiting.done()
            clock.advance(60)
            assert await waiting == "done"


async def collect(queue: Queue, count: int, *, after: str | None = None) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(10):
        async for event in queue.events(after=after):
            found.append(event)
            if len(found) == count:
                break
    return found


def kinds(events: Iterable[Event], job: Job[object]) -> list[str]:
    return [event.kind for event in events if event.job_id == job.id]


class TestEvents:
    async def test_tell_a_job_s_way_in_order(self, queue: Queue) -> None:
        """By BullMQ's names, with the values that belong to them."""

        @queue.task
        async def answer(ctx: Context) -> int:
            ctx.progress(0.5)
            return 42

        page = await queue.engine.events(queue.name, after=None)
        job = await answer.enqueue()
        async with Worker(queue):
            await job.result(timeout=5)
        events = await collect(queue, 5, after=page.cursor)
        assert kinds(events, job) == ["added", "waiting", "active", "progress", "completed"]
        assert (events[3].value, events[4].value) == ("0.5", "42")

    async def test_begin_with_the_next_one(self, queue: Queue) -> None:
        """Not with the past."""
        await queue.add("before")
        reader = asyncio.create_task(collect(queue, 1))
        await settle_waiting()
        job = await queue.add("after")
        (event,) = await reader
        assert (event.kind, event.job_id) == ("added", job.id)

    async def test_go_on_after_a_cursor(self, queue: Queue) -> None:
        """A reader that was away misses nothing."""
        page = await queue.engine.events(queue.name, after=None)
        jobs = [await queue.add("send") for _ in range(3)]
        first = await collect(queue, 2, after=page.cursor)
        rest = await collect(queue, 4, after=first[-1].cursor)
        assert [event.job_id for event in [*first, *rest]] == [j.id for j in jobs for _ in range(2)]

    async def test_come_from_other_users_of_the_file(self, tmp_path: Path) -> None:
        """From another engine, as from another process."""
        path = tmp_path / "jobs.db"
        here = Queue("mail", f"sqlite:///{path}")
        there = Queue("mail", f"sqlite:///{path}?synchronous=normal")
        assert here.engine is not there.engine
        reader = asyncio.create_task(collect(here, 1))
        await settle_waiting()
        job = await there.add("send")
        (event,) = await reader
        assert event.job_id == job.id
        await here.close()
        await there.close()
