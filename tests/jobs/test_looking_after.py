"""Finding jobs and changing them: retry, promote, cancel, remove, pause, drain, clean."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from hasten.errors import InvalidOption, JobCancelled, JobNotFound, WrongState
from hasten.jobs import Job, Queue, State, Worker
from hasten.jobs._states import FINISHED
from hasten.testing import ManualClock
from tests.jobs.eventually import fails, until, until_state


async def fill(queue: Queue) -> dict[State, Job[Any]]:
    """Add one job for each state except active and waiting-children."""

    @queue.task
    async def end(fail: bool) -> None:
        if fail:
            raise ValueError("no")

    completed, failed = await end.enqueue(False), await end.enqueue(True)
    async with Worker(queue):
        await completed.result(timeout=30)
        await fails(failed.result(timeout=30))
    return {
        State.COMPLETED: completed,
        State.FAILED: failed,
        State.WAITING: await queue.add("send"),
        State.PRIORITIZED: await queue.add("send", priority=1),
        State.DELAYED: await queue.add("send", delay=3600),
    }


class TestFinding:
    async def test_get_finds_a_job_in_any_state(self, queue: Queue) -> None:
        for state, job in (await fill(queue)).items():
            found = await queue.get(job.id)
            assert found is not None
            assert (found.id, found.state) == (job.id, state)

    @pytest.mark.parametrize("id", ["999", "no such job", "", "0", "-1", "1.5", "９"])
    async def test_get_of_an_unknown_id_is_none(self, queue: Queue, id: str) -> None:
        await queue.add("send")
        assert await queue.get(id) is None

    async def test_a_queue_does_not_find_the_jobs_of_another(self, queue: Queue) -> None:
        other = Queue("other", queue.store)
        job = await other.add("send")
        assert await queue.get(job.id) is None
        assert not await queue.cancel(job.id)
        assert not await queue.remove(job.id)
        assert (await job.refresh()).state is State.WAITING

    async def test_jobs_come_in_pages(self, queue: Queue) -> None:
        """Oldest first or newest first."""
        jobs = await queue.add_many([("send", {"n": n}) for n in range(10)])
        ids = [job.id for job in jobs]

        async def page(**options: Any) -> list[str]:
            return [job.id for job in await queue.jobs("waiting", **options)]

        assert await page() == ids
        assert await page(offset=2, limit=3) == ids[2:5]
        assert await page(offset=8, limit=5) == ids[8:]
        assert await page(limit=3, newest_first=True) == ids[:-4:-1]
        assert await page(limit=0) == []

    async def test_counts_has_a_number_for_every_state(self, queue: Queue) -> None:
        assert await queue.counts() == dict.fromkeys(State, 0)
        filled = await fill(queue)
        assert await queue.counts() == {state: int(state in filled) for state in State}

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ({"state": "wating"}, "state='wating': must be one of waiting, prioritized"),
            ({"state": "waiting", "offset": -1}, "offset=-1: must be a whole number"),
            ({"state": "waiting", "limit": 1.5}, "limit=1.5: must be a whole number"),
            ({"state": "waiting", "offset": 2**53}, "must be a whole number from 0 to 9,007,"),
            ({"state": "waiting", "limit": 10**400}, "must be a whole number from 0 to 9,007,"),
        ],
    )
    async def test_wrong_arguments_are_refused(
        self, queue: Queue, arguments: dict[str, Any], complaint: str
    ) -> None:
        with pytest.raises(InvalidOption, match=complaint):
            await queue.jobs(**arguments)


class TestIds:
    @pytest.mark.parametrize("id", [7, None, b"7", ("7",)])
    async def test_that_are_no_text_are_refused(self, queue: Queue, id: Any) -> None:
        """Applications often keep ids as numbers in their own databases."""
        calls = [
            queue.get(id), queue.cancel(id), queue.remove(id), queue.retry("1", id),
            queue.promote("1", id), asyncio.to_thread(queue.sync.get, id),
            asyncio.to_thread(queue.sync.retry, id), queue.update(id, priority=1),
            queue.log(id, "line"),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(InvalidOption, match=r"^id=.*: must be a job id as a string"):
                await call


class TestCancel:
    @pytest.mark.parametrize("state", [State.WAITING, State.PRIORITIZED, State.DELAYED])
    async def test_fails_an_unstarted_job_at_once(self, queue: Queue, state: State) -> None:
        job = (await fill(queue))[state]
        assert await job.cancel()
        await job.refresh()
        assert (job.state, job.error) == (State.FAILED, "cancelled")
        assert (job.attempts_made, job.started_at) == (0, None)
        with pytest.raises(JobCancelled):
            await job.result(timeout=30)

    @pytest.mark.parametrize("where", ["loop", "thread"])
    async def test_stops_a_running_job(self, queue: Queue, where: str) -> None:
        """The handler can clean up, and the job is not retried."""
        ended = threading.Event()

        async def in_loop() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        def in_thread() -> None:
            try:
                while True:
                    time.sleep(0.001)
            finally:
                ended.set()

        queue.task(name="hang", attempts=5)(in_loop if where == "loop" else in_thread)
        job = await queue.add("hang")
        async with Worker(queue):
            await until_state(job, State.ACTIVE)
            assert await job.cancel()
            with pytest.raises(JobCancelled):
                await job.result(timeout=30)
        assert ended.is_set()
        assert (await job.refresh()).state is State.FAILED

    @pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED])
    async def test_of_a_finished_job_changes_nothing(self, queue: Queue, state: State) -> None:
        job = (await fill(queue))[state]
        before = (await job.refresh()).record
        assert not await job.cancel()
        assert (await job.refresh()).record == before

    async def test_of_an_unknown_job_says_so(self, queue: Queue) -> None:
        assert not await queue.cancel("999")


class TestPause:
    async def test_holds_jobs_until_resume_and_lets_running_ones_go_on(self, queue: Queue) -> None:
        started, may_end = asyncio.Event(), asyncio.Event()
        ran: list[int] = []

        @queue.task
        async def run(number: int) -> None:
            started.set()
            await may_end.wait()
            ran.append(number)

        async with Worker(queue):
            first = await run.enqueue(1)
            await started.wait()
            await queue.pause()
            await queue.pause()
            assert await queue.is_paused()
            second = await run.enqueue(2)
            may_end.set()
            await first.result(timeout=30)
            assert (await second.refresh()).state is State.WAITING
            await queue.resume()
            await queue.resume()
            await second.result(timeout=30)
        assert ran == [1, 2]
        assert not await queue.is_paused()


class TestRetryAndPromote:
    @pytest.mark.parametrize("state", [State.FAILED, State.COMPLETED])
    async def test_retry_reruns_a_job_with_all_attempts(self, queue: Queue, state: State) -> None:
        job = (await fill(queue))[state]
        assert await job.retry()
        await job.refresh()
        assert (job.state, job.attempts_made, job.value) == (State.WAITING, 0, None)
        assert (job.finished_at, job.error) == (None, None)
        async with Worker(queue):
            await until_state(job, state)
        assert job.attempts_made == 1

    async def test_promote_runs_a_delayed_job_now(self, queue: Queue) -> None:
        job = (await fill(queue))[State.DELAYED]
        assert await job.promote()
        assert (await job.refresh()).state is State.WAITING

    async def test_they_take_only_jobs_in_the_right_state(self, queue: Queue) -> None:
        jobs = await fill(queue)
        for state in (State.WAITING, State.DELAYED):
            assert await jobs[state].retry() is False
        for state in (State.WAITING, State.FAILED, State.COMPLETED):
            assert await jobs[state].promote() is False
        for act in (queue.retry, queue.promote):
            assert await act("999") == []
        assert {(await job.refresh()).state for job in jobs.values()} == set(jobs)

    async def test_they_return_the_moved_ids_in_the_order_of_the_call(self, queue: Queue) -> None:
        """Jobs that another caller has moved or removed meanwhile are left out."""
        ids = {state: job.id for state, job in (await fill(queue)).items()}
        asked = ["999", ids[State.FAILED], ids[State.WAITING], ids[State.COMPLETED]]
        assert await queue.retry(*asked) == [ids[State.FAILED], ids[State.COMPLETED]]
        assert await queue.promote(ids[State.DELAYED], *asked) == [ids[State.DELAYED]]
        assert await queue.retry(*asked) == []

    async def test_cancel_and_remove_return_the_ids_that_moved(self, queue: Queue) -> None:
        ids = {state: job.id for state, job in (await fill(queue)).items()}
        asked = [*ids.values(), "999"]
        unfinished = [id for state, id in ids.items() if state not in FINISHED]
        assert await queue.cancel(*asked) == unfinished
        assert await queue.cancel(*asked) == []
        assert await queue.remove(*asked) == list(ids.values())
        assert await queue.remove(*asked) == []

    async def test_take_a_job_that_is_named_twice_once(self, queue: Queue) -> None:
        jobs = await fill(queue)
        failed, completed = jobs[State.FAILED].id, jobs[State.COMPLETED].id
        delayed = jobs[State.DELAYED].id
        assert await queue.retry(failed, completed, failed) == [failed, completed]
        assert await queue.promote(delayed, delayed) == [delayed]
        waiting = [job.id for job in await queue.jobs(State.WAITING)]
        assert sorted(waiting[-3:], key=int) == sorted([failed, completed, delayed], key=int)

    async def test_of_nothing_is_nothing(self, queue: Queue) -> None:
        for act in (queue.retry, queue.promote, queue.cancel, queue.remove):
            assert await act() == []


class TestRemove:
    async def test_deletes_a_job_in_any_state_but_active(self, queue: Queue) -> None:
        for job in (await fill(queue)).values():
            assert await job.remove()
            assert not await job.remove()
            with pytest.raises(JobNotFound):
                await job.refresh()
        assert await queue.counts() == dict.fromkeys(State, 0)

    async def test_leaves_a_running_job(self, queue: Queue) -> None:
        """A running job has to be cancelled before it can be removed."""
        may_end = asyncio.Event()

        @queue.task
        async def run() -> None:
            await may_end.wait()

        job = await run.enqueue()
        async with Worker(queue):
            await until_state(job, State.ACTIVE)
            assert await job.remove() is False
            may_end.set()
            await job.result(timeout=30)


class TestDeletingMany:
    async def test_drain_deletes_what_waits(self, queue: Queue) -> None:
        jobs = await fill(queue)
        assert await queue.drain() == 2
        assert await queue.drain(delayed=True) == 1
        left = await queue.counts()
        assert {state for state in State if left[state]} == {State.COMPLETED, State.FAILED}
        assert await queue.get(jobs[State.COMPLETED].id)

    async def test_clean_deletes_old_finished_jobs(self, queue: Queue, clock: ManualClock) -> None:
        old = await fill(queue)
        clock.advance(60)
        new = await fill(queue)
        assert await queue.clean("completed", older_than=60) == [old[State.COMPLETED].id]
        assert await queue.clean("failed", older_than=60) == [old[State.FAILED].id]
        assert await queue.get(new[State.COMPLETED].id)
        both = [old[State.DELAYED].id, new[State.DELAYED].id]
        assert await queue.clean("delayed", older_than=0) == both

    async def test_clean_keeps_to_its_limit_the_oldest_first(self, queue: Queue) -> None:
        ids = [job.id for job in await queue.add_many([("send", {})] * 5)]
        assert await queue.clean("waiting", older_than=0, limit=2) == ids[:2]
        assert await queue.clean("waiting", older_than=0, limit=0) == []

    async def test_clean_does_not_take_running_jobs(self, queue: Queue) -> None:
        with pytest.raises(InvalidOption, match="must be any state except active"):
            await queue.clean("active", older_than=0)

    async def test_obliterate_leaves_nothing(self, queue: Queue) -> None:
        """Other queues in the same store keep their jobs."""
        other = Queue("other", queue.store)
        await other.add("send")
        await fill(queue)
        await queue.pause()
        await queue.obliterate()
        assert await queue.counts() == dict.fromkeys(State, 0)
        assert not await queue.is_paused()
        assert await queue.engine.queues() == ["other"]

    async def test_obliterate_spares_running_jobs_unless_forced(self, queue: Queue) -> None:
        """With force, the worker notices that its jobs are gone, and continues."""
        ended: list[str] = []
        started = asyncio.Event()

        @queue.task
        async def run() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("stopped")

        @queue.task
        async def fine() -> str:
            return "fine"

        await run.enqueue()
        async with Worker(queue, lease=1):
            await started.wait()
            with pytest.raises(WrongState, match="is active: must be"):
                await queue.obliterate()
            await queue.obliterate(force=True)
            await until(lambda: ended)
            assert await (await fine.enqueue()).result(timeout=30) == "fine"
