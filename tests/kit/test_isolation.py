"""A `JobsTester` replaces the stores of all queues and limits, and brings them back."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasten import Store
from hasten.compression import CompressionCache
from hasten.errors import UsageError
from hasten.jobs import Queue, State, Worker
from hasten.ratelimit import Limiter, MemoryStore
from hasten.testing import JobsTester, ManualClock
from tests.kit import application as app


async def test_queues_made_at_import_use_memory_whatever_store_they_were_given() -> None:
    with JobsTester() as jobs:
        await app.send.enqueue("ada")
        await app.orders.add("order", {"number": 1})
        await app.in_file.add("anything")
        assert (await app.in_file.counts())[State.WAITING] == 1
        await jobs.run_until_idle()
    assert app.sent == ["ada", "customer 1"]
    assert not app.FILE.exists()
    assert not Path("hasten.db").exists()


async def test_each_tester_begins_with_empty_queues() -> None:
    for _ in range(2):
        with JobsTester() as jobs:
            assert jobs.enqueued() == []
            job = await app.send.enqueue("ada")
            assert job.id == "1"
            assert (await app.mail.counts())[State.WAITING] == 1


async def test_stores_are_restored_also_after_an_error() -> None:
    own = app.mail.shared_store
    with pytest.raises(ZeroDivisionError), JobsTester():
        raise ZeroDivisionError
    assert app.mail.shared_store is own
    assert app.orders.store.url == "redis://localhost:1/0"
    with JobsTester():  # and another one can begin
        pass


async def test_a_queue_that_was_open_keeps_its_jobs_and_its_store() -> None:
    async with Queue("outside", "memory://") as queue:
        await queue.add("kept")
        with JobsTester():
            assert (await queue.counts())[State.WAITING] == 0
            await queue.add("dropped")
            await queue.aclose()
            await queue.add("dropped")
        (job,) = await queue.jobs("waiting")
        assert job.name == "kept"


async def test_queues_that_are_made_in_the_test_are_isolated_too(jobs: JobsTester) -> None:
    queue = Queue("late", app.NO_SERVER)
    await queue.add("task")
    assert [job.queue for job in jobs.enqueued("task")] == ["late"]


async def test_queues_share_a_store_inside_if_they_share_one_outside(jobs: JobsTester) -> None:
    producer = Queue("orders", f"{app.NO_SERVER}?timeout=2")
    await producer.add("order", {"number": 1})
    assert (await app.orders.counts())[State.WAITING] == 1
    store = Store("memory://")
    one, same, other = Queue("a", store), Queue("a", store), Queue("a", "memory://")
    await one.add("task")
    assert (await same.counts())[State.WAITING] == 1
    assert (await other.counts())[State.WAITING] == 0
    same = Queue("kit-mail", app.mail.store)  # the store in memory
    await same.add("send", {"to": "ada"})
    assert await app.mail.drain() == 1
    default = Queue("kit-mail", "sqlite:///hasten.db")  # the default store is this file
    await default.add("send", {"to": "ada"})
    assert (await app.mail.counts())[State.WAITING] == 1


async def test_a_queue_with_a_wrong_url_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HASTEN_URL", "nonsense")
    with JobsTester() as jobs:
        await app.send.enqueue("ada")
        await jobs.run_until_idle()
    assert app.sent == ["ada"]


def test_there_is_one_at_a_time(jobs: JobsTester) -> None:
    with pytest.raises(UsageError, match="another JobsTester is active"), JobsTester():
        pass


async def test_it_works_in_its_block_only() -> None:
    tester = JobsTester()
    with pytest.raises(UsageError, match="run_until_idle is for the block"):
        await tester.run_until_idle()


class TestWorkers:
    async def test_do_not_run_jobs(self, jobs: JobsTester) -> None:
        """So an application can be started with its workers in many tests."""
        for _ in range(2):
            async with app.mail, app.worker:
                await app.send.enqueue("ada")
                assert app.worker.info() == []
        assert [run.job_id for run in await jobs.run_until_idle()] == ["1", "2"]

    async def test_that_have_run_outside_may_be_started_again(self) -> None:
        queue = Queue("served", "memory://")
        worker = Worker(queue)
        async with queue, worker:
            pass
        with JobsTester():
            async with queue, worker:
                pass

    async def test_run_jobs_if_the_test_wants_that(self) -> None:
        with JobsTester(workers=True) as jobs:
            delayed = await app.send.using(delay=60).enqueue("bob")
            async with Worker(app.mail):
                job = await app.send.enqueue("ada")
                assert await job.result(timeout=10) == "sent to ada"
                jobs.clock.advance(60)
                assert await delayed.result(timeout=10) == "sent to bob"


class TestLimits:
    @pytest.mark.parametrize(
        "limiter", [app.logins, app.shared_logins, app.file_logins], ids=["memory", "redis", "file"]
    )
    async def test_are_reset_and_use_the_clock(self, limiter: Limiter) -> None:
        for _ in range(2):
            with JobsTester() as jobs:
                assert [bool(await limiter.hit("ada")) for _ in range(2)] == [True, False]
                await jobs.advance(minutes=59)
                assert not await limiter.hit("ada")
                await jobs.advance(minutes=1)
                assert await limiter.hit("ada")
                await limiter.reset("ada")
                assert await limiter.hit("ada")
        assert not app.FILE.exists()

    async def test_at_the_same_place_are_shared(self, jobs: JobsTester) -> None:
        assert await app.shared_logins.hit("ada")
        assert not await Limiter("1/h", name="logins", store=app.NO_SERVER).hit("ada")
        assert await app.logins.hit("ada")

    async def test_that_are_made_in_the_test_use_the_clock(self) -> None:
        with JobsTester() as jobs:
            limiter = Limiter("1/h", name="late")
            assert [bool(await limiter.hit("ada")) for _ in range(2)] == [True, False]
            await jobs.advance(hours=1)
            assert await limiter.hit("ada")
            wait = await limiter.hit("ada")
        assert wait.retry_after == 3600
        assert [bool(await limiter.hit("ada")) for _ in range(2)] == [True, False]

    async def test_keep_a_clock_of_their_own(self) -> None:
        clock = ManualClock()
        limiter = Limiter("1/h", name="own", store=Store("memory://", clock=clock))
        with JobsTester() as jobs:
            assert await limiter.hit("ada")
            await jobs.advance(hours=2)
            assert not await limiter.hit("ada")
            clock.advance(3600)
            assert await limiter.hit("ada")

    async def test_in_custom_memory_stores_are_reset(self) -> None:
        store = MemoryStore()
        limiter = Limiter("1/h", name="own", store=store)
        assert await limiter.hit("ada")
        with JobsTester():
            assert await limiter.hit("ada")
        assert len(store) == 0


def test_compression_caches_are_emptied() -> None:
    cache = CompressionCache()
    cache._entries[None] = None  # type: ignore[index,assignment]
    cache._bytes = 100
    with JobsTester():
        assert (len(cache), cache.size) == (0, 0)


async def test_queues_of_earlier_tests_take_no_jobs() -> None:
    """Also if they have the same name, and only garbage refers to them."""

    async def run(number: int) -> None:
        with JobsTester() as jobs:
            queue = Queue("again")

            @queue.task
            async def task() -> int:
                return number

            await task.enqueue()
            (run,) = await jobs.run_until_idle()
            assert run.result == number
            assert [each.name for each in jobs._stores.queues()].count("again") == 1

    for number in range(3):
        await run(number)
