"""Waiting for results, and following the events of a queue."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hasten import Store
from hasten.errors import (
    InvalidOption,
    JobCancelled,
    JobFailed,
    JobNotFound,
    ResultTimeout,
    StoreUnavailable,
    UsageError,
)
from hasten.jobs import Context, Event, Job, Queue, QueueEvents, State, Worker
from hasten.jobs._engine import EVENT_BYTES
from hasten.jobs._engines import open_engine
from hasten.jobs._options import Options
from hasten.jobs._record import EventPage, JobEnd, JobTemplate, NewJob
from hasten.testing import ManualClock
from tests.jobs.eventually import fails, result_of, until_state, until_true
from tests.patience import DEADLINE_SECONDS


async def settle_waiting() -> None:
    """Give waiting tasks time to begin. No event shows that they have."""
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
        """The event is in the past, so the job is read."""

        @queue.task
        async def answer() -> int:
            return 42

        job = await answer.enqueue()
        assert await result_of(queue, job) == 42
        assert await job.result(timeout=30) == 42

    async def test_none_is_a_result_too(self, queue: Queue) -> None:
        @queue.task
        async def answer() -> None: ...

        job = await answer.enqueue()
        await result_of(queue, job)
        assert (await job.refresh()).record.result == "null"

    async def test_of_a_failed_job_is_its_reason(self, queue: Queue) -> None:
        @queue.task
        async def fail() -> None:
            raise ValueError("bad luck")

        job = await fail.enqueue()
        async with Worker(queue):
            for _ in range(2):
                with pytest.raises(JobFailed, match="failed: ValueError: bad luck") as caught:
                    await job.result(timeout=30)
                assert (caught.value.job_id, caught.value.error) == (job.id, "ValueError: bad luck")

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
        """At once if an event names the job, otherwise at the next check."""
        monkeypatch.setattr("hasten.jobs._results.CHECK_SECONDS", 0.1)
        job = await queue.add("send")
        waiting = asyncio.create_task(job.result(timeout=30))
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
            await job.result(timeout=30)

    async def test_of_thousands_is_looked_for_a_few_at_a_time(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each check reads a few jobs, in turn, even while events arrive all the time."""
        monkeypatch.setattr("hasten.jobs._results.CHECK_SECONDS", 0.01)
        monkeypatch.setattr("hasten.jobs._results.CHECKED_AT_ONCE", 10)
        looks: list[list[str]] = []
        ends = queue.engine.get_ends

        async def noted(name: str, ids: Sequence[str]) -> list[JobEnd | None]:
            looks.append(list(ids))
            return await ends(name, ids)

        monkeypatch.setattr(queue.engine, "get_ends", noted)
        jobs = await queue.add_many([("send", n) for n in range(35)])
        waiting = [asyncio.create_task(job.result()) for job in jobs]
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(looks) < 6:
                await queue.add("send")  # an event
        for wait in waiting:
            wait.cancel()
        first, *later = looks
        assert sorted(first) == sorted(job.id for job in jobs)
        assert {len(look) for look in later} == {10}
        assert set().union(*later[:4]) == set(first)

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
        assert await result_of(queue, job) == 42

    @pytest.mark.parametrize("timeout", [0, 0.05, timedelta(milliseconds=50)])
    async def test_time_out_is_any_duration(self, queue: Queue, timeout: float | timedelta) -> None:
        job = await queue.add("send")
        with pytest.raises(ResultTimeout):
            await job.result(timeout=timeout)
        with pytest.raises(ResultTimeout):
            await asyncio.to_thread(job.sync.result, timeout)

    @pytest.mark.parametrize(
        "timeout", [-1, math.nan, math.inf, True, "5", timedelta(seconds=-1)], ids=repr
    )
    async def test_is_not_waited_for_with_a_bad_time_out(self, queue: Queue, timeout: Any) -> None:
        job = await queue.add("send")
        with pytest.raises(InvalidOption, match=r"^timeout=.*: must be"):
            await job.result(timeout=timeout)
        with pytest.raises(InvalidOption, match=r"^timeout="):
            await asyncio.to_thread(job.sync.result, timeout)

    async def test_is_told_to_many_who_wait(self, queue: Queue) -> None:
        """One reader serves them all, and goes on when one of them is cancelled."""

        @queue.task
        async def double(number: int) -> int:
            return 2 * number

        jobs = await double.enqueue_many(double.args(number=n) for n in range(50))
        waits = [asyncio.create_task(job.result(timeout=30)) for job in jobs for _ in range(4)]
        await settle_waiting()
        waits[0].cancel()
        async with Worker(queue):
            results = await asyncio.gather(*waits, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [2 * n for n in range(50) for _ in range(4)][1:]

    async def test_can_be_waited_for_again_after_nobody_did(self, queue: Queue) -> None:
        """The reader ends with the last waiter, and starts again."""

        @queue.task
        async def double(number: int) -> int:
            return 2 * number

        async with Worker(queue):
            for number in range(5):
                job = await double.enqueue(number)
                assert await job.result(timeout=30) == 2 * number

    async def test_follows_a_job_through_attempts(self, queue: Queue, clock: ManualClock) -> None:
        runs: list[int] = []

        @queue.task(attempts=2, backoff=60)
        async def fail_once() -> str:
            runs.append(1)
            if len(runs) == 1:
                raise ValueError
            return "done"

        job = await fail_once.enqueue()
        waiting = asyncio.create_task(job.result(timeout=30))
        async with Worker(queue):
            await until_state(job, State.DELAYED)
            assert not waiting.done()
            clock.advance(60)
            assert await waiting == "done"


class TestResultOfAJobThatIsNotKept:
    """The result is in the events, where the caller that added the job finds it."""

    async def test_is_found_after_the_job_is_gone(self, queue: Queue) -> None:
        """For all methods that add jobs."""

        @queue.task(keep_completed=0, keep_failed=0)
        async def halve(number: int) -> int:
            if number % 2:
                raise ValueError("odd")
            return number // 2

        async with Worker(queue):
            jobs = [
                await halve.enqueue(0),
                *await halve.enqueue_many([halve.args(number=2), halve.args(number=4)]),
                await halve.using(job_id="a").enqueue(6),
                await queue.add("halve", {"number": 8}),
                *await queue.add_many([("halve", {"number": 10})]),
                await asyncio.to_thread(halve.sync.enqueue, 12),
            ]
            odd = await halve.enqueue(1)
            for job in (*jobs, odd):
                await until_gone(job)
            assert [await job.result(timeout=30) for job in jobs] == list(range(7))
            assert await asyncio.to_thread(jobs[1].sync.result, 5) == 1
            for _ in range(2):
                await fails(odd.result(timeout=30), "ValueError: odd")

    async def test_is_found_by_one_who_added_it_a_second_time(self, queue: Queue) -> None:
        @queue.task(keep_completed=0)
        async def answer() -> int:
            return 42

        first = await answer.using(job_id="a").enqueue()
        again = await answer.using(job_id="a").enqueue()
        async with Worker(queue):
            await until_gone(first)
        assert again.is_duplicate
        assert await again.result(timeout=30) == 42

    async def test_is_heard_by_all_who_wait_while_jobs_come_and_go(self, queue: Queue) -> None:
        """A job may end between two checks."""

        @queue.task(keep_completed=0)
        async def double(number: int) -> int:
            return 2 * number

        async def ask(number: int) -> int:
            return await (await double.enqueue(number)).result(timeout=30)

        async with Worker(queue):
            for _ in range(5):
                assert await asyncio.gather(*map(ask, range(40))) == [2 * n for n in range(40)]
                assert await ask(1) == 2

    async def test_is_that_of_its_last_run(self, queue: Queue) -> None:
        """The job failed, and was retried by hand."""
        numbers = iter(range(2))

        @queue.task(keep_completed=0)
        async def succeed_at_last() -> int:
            number = next(numbers)
            if not number:
                raise ValueError
            return number

        job = await succeed_at_last.enqueue()
        async with Worker(queue):
            await until_state(job, State.FAILED)
            await job.retry()
            await until_gone(job)
        assert await job.result(timeout=30) == 1

    async def test_is_lost_with_the_events(self, queue: Queue) -> None:
        @queue.task(keep_completed=0)
        async def answer() -> int:
            return 42

        job = await answer.enqueue()
        async with Worker(queue):
            await until_gone(job)
        await queue.obliterate()
        with pytest.raises(JobNotFound, match=r"no job .* deleted by keep_completed or "):
            await job.result(timeout=30)

    async def test_is_not_known_where_the_job_was_removed(self, queue: Queue) -> None:
        job = await queue.add("send")
        await job.remove()
        with pytest.raises(JobNotFound, match="it was removed"):
            await job.result(timeout=30)

    async def test_of_a_reader_that_missed_events_is_looked_for_at_once(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hasten.jobs._results.CHECK_SECONDS", 3600)
        job = await queue.add("send")
        read = queue.engine.events
        waiting = asyncio.Event()
        heard = asyncio.Event()

        async def miss(name: str, *, after: str | None, wait: bool = True) -> EventPage:
            if after is None or not wait or heard.is_set():
                return await read(name, after=after, wait=wait)
            waiting.set()
            await heard.wait()
            now = (await read(name, after=None)).cursor
            return EventPage([Event(now, "missed", "")], now)

        monkeypatch.setattr(queue.engine, "events", miss)
        result = asyncio.create_task(job.result(timeout=30))
        await waiting.wait()
        await job.cancel()
        heard.set()
        with pytest.raises(JobCancelled):
            await result


class TestLargeResult:
    """Results that are too large for an event: the job has them, or the event if it is not kept."""

    @pytest.mark.parametrize("keep", [None, True, 0, 1], ids=str)
    async def test_is_found_at_once_and_later(self, queue: Queue, keep: bool | int | None) -> None:
        @queue.task(keep_completed=keep)
        async def repeat(number: int) -> str:
            return str(number) * 300_000

        jobs = await repeat.enqueue_many(repeat.args(number=n) for n in range(6))
        waits = [asyncio.create_task(job.result(timeout=30)) for job in jobs]
        await settle_waiting()
        async with Worker(queue, concurrency=3):
            results = await asyncio.gather(*waits)
            assert results == [str(n) * 300_000 for n in range(6)]
        assert await jobs[0].result(timeout=30) == "0" * 300_000
        assert await asyncio.to_thread(jobs[5].sync.result, 10) == "5" * 300_000

    async def test_is_lost_with_the_job_that_has_it(self, queue: Queue) -> None:
        """The error says so, with the size and what to do."""

        @queue.task
        async def repeat() -> str:
            return "x" * 99_998

        job = await repeat.enqueue()
        await result_of(queue, job)
        await queue.clean("completed", older_than=0)
        with pytest.raises(JobNotFound, match=r"100,000 bytes was too large .* keep_completed"):
            await job.result(timeout=30)

    async def test_is_lost_where_nothing_can_hold_it(self, url: str, clock: ManualClock) -> None:
        """A result over 32 MiB of a job that is not kept. The error comes at once."""
        queue = Queue("mail", Store(url, clock=clock), max_size=64 * 1024 * 1024)

        @queue.task(keep_completed=0)
        async def repeat() -> str:
            return "x" * (EVENT_BYTES - 1)

        job = await repeat.enqueue()
        waiting = asyncio.create_task(job.result(timeout=20))
        await settle_waiting()
        async with Worker(queue):
            for wait in (waiting, asyncio.create_task(job.result(timeout=20))):
                with pytest.raises(JobNotFound, match=r"33,554,433 bytes was too large .* return"):
                    await wait
        await queue.store.aclose()


async def until_gone(job: Job[Any]) -> None:
    async def is_gone() -> bool:
        try:
            await job.refresh()
        except JobNotFound:
            return True
        return False

    await until_true(is_gone)


async def collect(queue: Queue, count: int, *, after: str | None = None) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for event in queue.events(after=after):
            found.append(event)
            if len(found) == count:
                break
    return found


async def next_of(events: QueueEvents) -> Event:
    return await asyncio.wait_for(anext(events), 10)


def kinds(events: Iterable[Event], job: Job[object]) -> list[str]:
    return [event.kind for event in events if event.job_id == job.id]


class TestEvents:
    async def test_tell_a_job_s_way_in_order(self, queue: Queue) -> None:
        @queue.task
        async def answer(ctx: Context) -> int:
            ctx.progress(0.5)
            return 42

        page = await queue.engine.events(queue.name, after=None)
        job = await answer.enqueue()
        await result_of(queue, job)
        events = await collect(queue, 5, after=page.cursor)
        assert kinds(events, job) == ["added", "waiting", "active", "progress", "completed"]
        assert (events[3].value, events[4].value) == ("0.5", "42")

    async def test_begin_with_the_next_one(self, queue: Queue) -> None:
        """Earlier events are left out."""
        await queue.add("before")
        reader = asyncio.create_task(collect(queue, 1))
        await settle_waiting()
        job = await queue.add("after")
        (event,) = await reader
        assert (event.kind, event.job_id) == ("added", job.id)

    async def test_begin_at_the_call(self, queue: Queue) -> None:
        """Not when the first event is read."""
        await queue.add("before")
        events = queue.events()
        job = await queue.add("after")
        await queue.add("later")
        assert (await next_of(events)).job_id == job.id

    async def test_begin_at_the_call_for_other_threads_too(self, queue: Queue) -> None:
        """Even if the event loop has not run since the call."""
        events = queue.events()
        thread = threading.Thread(target=queue.sync.add, args=("send",))
        thread.start()
        thread.join()
        assert (await next_of(events)).kind == "added"

    async def test_of_a_block_begin_before_it_for_everybody(self, queue: Queue, url: str) -> None:
        """Events that other processes cause within the block are included."""
        # A store in memory has no other processes.
        elsewhere = queue.engine if url == "memory://" else open_engine(Store(url))
        async with queue.events() as events:
            await elsewhere.add(
                [NewJob("mail", JobTemplate("send", "{}", Options()), "{}")], now_ms=0
            )
            assert (await next_of(events)).kind == "added"
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        await elsewhere.aclose()

    async def test_that_nobody_reads_leave_nothing_behind(self, queue: Queue) -> None:
        for _ in range(3):
            queue.events()
        async with contextlib.aclosing(queue.events()):
            pass
        await queue.add("send")
        gc.collect()

    async def test_end_when_they_are_closed_also_for_one_who_waits(self, queue: Queue) -> None:
        events = queue.events()
        heard: list[Event] = []

        async def read() -> str:
            heard.extend([event async for event in events])
            return "ended"

        reader = asyncio.create_task(read())
        await settle_waiting()
        with pytest.raises(UsageError, match=r"call queue\.events\(\) once for each"):
            await anext(events)
        await events.aclose()
        assert await asyncio.wait_for(reader, 10) == "ended"
        await events.aclose()

    async def test_go_on_after_a_reader_was_cancelled(self, queue: Queue) -> None:
        events = queue.events()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(events)
        job = await queue.add("send")
        assert (await next_of(events)).job_id == job.id

    async def test_survive_an_outage(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        """The reader gets the error, can continue, and misses nothing."""
        away = StoreUnavailable("store", "away")

        async def fail(*_: object, **__: object) -> EventPage:
            raise away

        events = queue.events()
        first = await queue.add("send")
        assert (await next_of(events)).job_id == first.id
        with monkeypatch.context() as patched:
            patched.setattr(queue.engine, "events", fail)
            await next_of(events)  # it was read together with the first one
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await next_of(events)
            second = await queue.add("send")
        assert (await next_of(events)).job_id == second.id

    async def test_begin_after_outages(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        beginning: Future[str] = Future()
        beginning.set_exception(StoreUnavailable("store", "away"))
        with monkeypatch.context() as patched:
            patched.setattr(queue.engine, "start_reading_latest_cursor", lambda _: beginning)
            events = queue.events()
        with pytest.raises(StoreUnavailable):
            await next_of(events)
        async with events:
            job = await queue.add("send")
            assert (await next_of(events)).job_id == job.id

    @pytest.mark.parametrize("after", ["", "abc", "12", "1-2-3", 7, "$"])
    async def test_after_what_is_no_cursor_are_refused(self, queue: Queue, after: Any) -> None:
        with pytest.raises(InvalidOption, match=r"^after=.*: must be the cursor of an event"):
            queue.events(after=after)

    async def test_go_on_after_a_cursor(self, queue: Queue) -> None:
        """A reader that was away continues with its cursor."""
        page = await queue.engine.events(queue.name, after=None)
        jobs = [await queue.add("send") for _ in range(3)]
        first = await collect(queue, 2, after=page.cursor)
        rest = await collect(queue, 4, after=first[-1].cursor)
        assert [event.job_id for event in [*first, *rest]] == [j.id for j in jobs for _ in range(2)]

    async def test_come_from_other_users_of_the_file(self, tmp_path: Path) -> None:
        """From another engine, as another process would have."""
        path = tmp_path / "jobs.db"
        here = Queue("mail", f"sqlite:///{path}")
        there = Queue("mail", f"sqlite:///{path}?synchronous=normal")
        assert here.engine is not there.engine
        reader = asyncio.create_task(collect(here, 1))
        await settle_waiting()
        job = await there.add("send")
        (event,) = await reader
        assert event.job_id == job.id
        await here.aclose()
        await there.aclose()
