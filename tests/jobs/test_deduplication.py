"""Jobs with deduplication keys, as applications add them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from hasten.errors import InvalidOption
from hasten.jobs import CallNext, EnqueueCall, Job, Queue, State, Worker
from hasten.testing import ManualClock
from tests.jobs.eventually import until

ON_SQLITE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
ON_REDIS = pytest.mark.parametrize("url", ["redis"], indirect=True)


async def add_all(calls: Iterable[Any]) -> list[Job[Any]]:
    return [await call for call in calls]


class TestUnique:
    async def test_runs_one_job_at_a_time_for_each_key(self, queue: Queue) -> None:
        ran: list[str] = []

        @queue.task(unique="account")
        async def sync(account: str) -> None:
            ran.append(account)

        jobs = await asyncio.gather(*(sync.enqueue(name) for name in ["ada", "eve", "ada", "ada"]))
        assert [job.is_duplicate for job in jobs] == [False, False, True, True]
        assert jobs[2] == jobs[3] == jobs[0]
        assert {job.deduplication_key for job in jobs} == {"ada", "eve"}
        async with Worker(queue):
            await asyncio.gather(*(job.result(timeout=30) for job in jobs))
            again = await sync.enqueue("ada")
            assert not again.is_duplicate
            await again.result(timeout=30)
        assert sorted(ran) == ["ada", "ada", "eve"]

    async def test_returns_the_result_of_the_first_call_to_all(self, queue: Queue) -> None:
        @queue.task(unique="key")
        async def make(key: str, value: int) -> int:
            return value

        first = await make.enqueue("k", 1)
        second = await make.enqueue("k", 2)
        async with Worker(queue):
            assert [await first.result(timeout=30), await second.result(timeout=30)] == [1, 1]

    async def test_is_for_one_call(self, queue: Queue, elsewhere: Queue) -> None:
        @queue.task
        async def sync(account: str) -> None: ...

        first = await sync.using(unique="account").enqueue("ada")
        assert first.deduplication_key == "account"
        second = await sync.using(unique=lambda account: account).enqueue("ada")
        assert second.deduplication_key == "ada"
        third = await elsewhere.add("sync", {"account": "ada"}, unique=lambda account: account)
        assert (third, third.is_duplicate) == (second, True)
        assert not (await sync.enqueue("ada")).is_duplicate
        many = await queue.add_many([("sync", {"account": "x"}, {"unique": "ada"})] * 2)
        assert [job.is_duplicate for job in many] == [True, True]

    async def test_is_turned_off_for_one_call(self, queue: Queue) -> None:
        @queue.task(unique="account")
        async def sync(account: str) -> None: ...

        await sync.enqueue("ada")
        other = await sync.using(unique=None, job_id="other").enqueue("ada")
        assert (other.id, other.is_duplicate, other.deduplication_key) == ("other", False, None)

    async def test_of_many_calls(self, queue: Queue) -> None:
        @queue.task(unique="account", priority=3)
        async def sync(account: str) -> None: ...

        jobs = await sync.enqueue_many(sync.args(name) for name in ["ada", "eve", "ada"])
        assert [job.is_duplicate for job in jobs] == [False, False, True]
        assert {job.priority for job in jobs} == {3}

    async def test_an_invalid_key_adds_nothing(self, queue: Queue) -> None:
        @queue.task(unique="account")
        async def sync(account: str) -> None: ...

        with pytest.raises(InvalidOption, match="the argument of this job is empty"):
            await sync.enqueue_many(sync.args(name) for name in ["ada", ""])
        with pytest.raises(InvalidOption, match="the argument of this job is empty"):
            await queue.add("sync", {"account": ""})
        assert sum((await queue.counts()).values()) == 0

    async def test_goes_through_middlewares(self, queue: Queue) -> None:
        """A middleware may set the option, or see the duplicate."""
        seen: list[bool] = []

        @queue.use
        async def watch(call: EnqueueCall, call_next: CallNext) -> Any:
            if call.task == "other":
                call.options["unique"] = lambda number: f"{number}"
            job = await call_next(call)
            seen.append(job.is_duplicate)
            return job

        @queue.task(unique="account")
        async def sync(account: str, times: int = 1) -> None: ...

        @queue.task
        async def other(number: int = 7) -> None: ...

        await sync.enqueue("ada")
        jobs = await sync.enqueue_many([sync.args("ada"), sync.args("eve"), sync.args("eve")])
        assert [job.is_duplicate for job in jobs] == [True, False, True]
        first, second = await other.enqueue(), await queue.add("other")
        assert second == first
        assert first.deduplication_key == "7"
        assert sorted(seen) == [False, False, False, True, True, True]

    async def test_a_job_says_so_later_too(self, queue: Queue) -> None:
        added = await queue.add("sync", unique="ada:1")
        found = await queue.get(added.id)
        assert found is not None
        assert found.deduplication_key == "ada:1"
        plain = await queue.add("sync")
        assert plain.deduplication_key is None

    async def test_the_sync_twins(self, queue: Queue) -> None:
        def use() -> list[bool]:
            sync = queue.sync
            first = sync.add("sync", unique="ada")
            second = sync.add("sync", unique="ada")
            removed = sync.remove_deduplication_key("sync", "ada")
            third = sync.add("sync", unique="ada")
            return [first.is_duplicate, second.is_duplicate, removed, third.is_duplicate]

        assert await asyncio.to_thread(use) == [False, True, True, False]


class TestRemovingAKey:
    async def test_lets_in_the_next_job(self, queue: Queue) -> None:
        await queue.add("sync", unique="ada")
        assert await queue.remove_deduplication_key("sync", "ada")
        assert not await queue.remove_deduplication_key("sync", "ada")
        assert not (await queue.add("sync", unique="ada")).is_duplicate

    @pytest.mark.parametrize(("task", "key"), [("", "ada"), ("sync", ""), ("sync", 5)])
    async def test_of_no_valid_name_is_refused(self, queue: Queue, task: Any, key: Any) -> None:
        with pytest.raises(InvalidOption):
            await queue.remove_deduplication_key(task, key)


class TestDebounce:
    async def test_runs_once_with_the_newest_arguments(
        self, queue: Queue, clock: ManualClock
    ) -> None:
        ran: list[list[str]] = []

        @queue.task(debounce=("account", 5, "1m"))
        async def index(account: str, words: list[str]) -> list[str]:
            ran.append(words)
            return words

        first = await index.enqueue("ada", ["one"])
        assert first.state is State.DELAYED
        clock.advance(4)
        second = await index.enqueue("ada", ["one", "two"])
        assert (second, second.is_duplicate) == (first, True)
        assert second.data == {"account": "ada", "words": ["one", "two"]}
        async with Worker(queue):
            clock.advance(4)
            marker = await index.using(debounce=None).enqueue("eve", ["marker"])
            await marker.result(timeout=30)
            assert ran == [["marker"]]
            clock.advance(1)
            assert await first.result(timeout=30) == ["one", "two"]


class TestLatest:
    async def test_runs_once_more_with_the_newest_arguments(self, queue: Queue) -> None:
        ran: list[int] = []
        may_end = asyncio.Event()

        @queue.task(latest="account")
        async def render(account: str, version: int) -> int:
            ran.append(version)
            await may_end.wait()
            return version

        async with Worker(queue):
            first = await render.enqueue("ada", 1)
            await until(lambda: ran == [1])
            for version in (2, 3, 4):
                kept = await render.enqueue("ada", version)
                assert (kept, kept.is_duplicate) == (first, True)
            may_end.set()
            assert await first.result(timeout=30) == 1
            await until(lambda: ran == [1, 4])
        assert ran == [1, 4]

    async def test_runs_after_a_failed_job_too(self, queue: Queue) -> None:
        ran: list[int] = []
        has_kept = asyncio.Event()

        @queue.task(latest="account")
        async def render(account: str, version: int) -> None:
            ran.append(version)
            await has_kept.wait()
            if version == 1:
                raise ValueError

        async with Worker(queue):
            await render.enqueue("ada", 1)
            await until(lambda: ran == [1])
            await render.enqueue("ada", 2)
            has_kept.set()
            await until(lambda: ran == [1, 2])


class TestThrottle:
    @ON_SQLITE  # on Redis the server's time counts
    async def test_drops_jobs_within_the_time(self, queue: Queue, clock: ManualClock) -> None:
        @queue.task(throttle=("account", 10))
        async def remind(account: str) -> str:
            return account

        async with Worker(queue, keep_completed=0):
            first = await remind.enqueue("ada")
            assert await first.result(timeout=30) == "ada"
            clock.advance(9.999)
            second = await remind.enqueue("ada")
            assert (second, second.is_duplicate) == (first, True)
            clock.advance(0.001)
            third = await remind.enqueue("ada")
            assert not third.is_duplicate
            await third.result(timeout=30)

    @ON_REDIS
    async def test_ends_by_the_time_of_the_server(self, queue: Queue) -> None:
        first = await queue.add("remind", throttle=("ada", 0.05))
        again: list[Job[Any]] = []

        async def is_free() -> bool:
            again.append(await queue.add("remind", throttle=("ada", 0.05)))
            return again[-1] != first

        while not await is_free():
            await asyncio.sleep(0)
        assert not again[-1].is_duplicate


async def test_a_queue_may_set_it_for_all_tasks(store: Any) -> None:
    queue = Queue("mail", store, unique="account")

    @queue.task
    async def sync(account: str) -> None: ...

    @queue.task
    async def rebuild(force: bool = False) -> None: ...

    jobs = await add_all([sync.enqueue("ada"), sync.enqueue("eve"), rebuild.enqueue()])
    assert [job.deduplication_key for job in jobs] == ["ada", "eve", "account"]
