"""What a worker does about schedules: it stores the declared ones, and says which are late."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx
import pytest
from prometheus_client import CollectorRegistry

from hasten.errors import InvalidOption, StoreUnavailable
from hasten.jobs import Health, Job, Queue, State, Worker
from hasten.jobs._engines.sqlite.sqlite_engine import SqliteEngine
from hasten.jobs._late_schedules import LateSchedule, describe_late_schedules
from hasten.prometheus import Metrics
from hasten.testing import ManualClock
from tests.jobs.eventually import until_state, until_true
from tests.patience import DEADLINE_SECONDS

HOUR: Final = 3_600


@pytest.fixture(autouse=True)
def _logs_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hasten.schedules")


def logged(caplog: pytest.LogCaptureFixture, part: str) -> list[logging.LogRecord]:
    records = [each for each in caplog.records if each.name == "hasten.schedules"]
    return [each for each in records if part in each.getMessage()]


async def advance_until(clock: ManualClock, condition: Callable[[], object]) -> None:
    """Move the clock by the time between two checks of a worker, until a condition holds."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            clock.advance(10)
            await asyncio.sleep(0.01)


class Checks:
    """Counts how often the workers of a queue have looked for late schedules."""

    def __init__(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done = 0
        late = queue.engine.late_schedules

        async def counted(*arguments: Any, **named: Any) -> Any:
            found = await late(*arguments, **named)
            self.done += 1
            return found

        monkeypatch.setattr(queue.engine, "late_schedules", counted)

    async def more(self, clock: ManualClock, count: int = 3) -> None:
        before = self.done
        await advance_until(clock, lambda: self.done >= before + count)


class Site:
    """A queue with a schedule, and a task that uses the only slot of a worker."""

    def __init__(self, queue: Queue) -> None:
        self.gate = asyncio.Event()

        @queue.every("1h", id="tick")
        @queue.task
        async def tick() -> None: ...

        @queue.task
        async def hold() -> None:
            await self.gate.wait()

        self._hold = hold

    async def hold(self) -> Job[None]:
        return await self._hold.enqueue()


@pytest.fixture
def site(queue: Queue) -> Site:
    return Site(queue)


def worker_of(queue: Queue) -> Worker:
    return Worker(queue, name="w", concurrency=1, lease=100 * HOUR)


async def is_stored(queue: Queue, id: str = "tick") -> bool:
    return await queue.schedules.get(id) is not None


class TestDeclared:
    async def test_a_worker_stores_them_and_runs_them(self, queue: Queue, site: Site) -> None:
        async with worker_of(queue):
            await until_true(lambda: is_stored(queue))
            await until_true(lambda: _has_run(queue, "tick"))
        schedule = await queue.schedules.get("tick")
        assert schedule is not None
        assert (schedule.is_declared, schedule.no_longer_declared) == (True, False)

    async def test_a_store_that_fails_gets_them_later(
        self, queue: Queue, site: Site, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upsert = queue.engine.upsert_schedule
        failed = asyncio.Event()

        async def fail(*arguments: Any, **named: Any) -> Any:
            failed.set()
            raise StoreUnavailable(queue.engine.url, "refused")

        monkeypatch.setattr(queue.engine, "upsert_schedule", fail)
        async with worker_of(queue):
            await asyncio.wait_for(failed.wait(), DEADLINE_SECONDS)
            assert not await is_stored(queue)
            monkeypatch.setattr(queue.engine, "upsert_schedule", upsert)

            async def advance_and_look() -> bool:
                clock.advance(1)
                return await is_stored(queue)

            await until_true(advance_and_look)

    async def test_a_worker_leaves_a_queue_closed_that_nobody_has_used(self) -> None:
        """Otherwise the store would stay open after the worker has stopped."""
        queue = Queue("mail", "memory://")
        Site(queue)
        async with worker_of(queue):
            await asyncio.sleep(0)
        assert not queue._is_open

    async def test_one_whose_end_is_over_is_left_out_and_logged(
        self, queue: Queue, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        @queue.every("1h", id="ended", start=clock.now(), end=clock.now())
        @queue.every("1h", id="tick")
        @queue.task
        async def tick() -> None: ...

        clock.advance(HOUR)
        async with worker_of(queue):
            await until_true(lambda: is_stored(queue, "tick"))
            await until_true(lambda: _true_if(logged(caplog, "ended not stored")))
        assert await queue.schedules.get("ended") is None

    async def test_a_run_in_the_future_is_logged(
        self, queue: Queue, site: Site, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A worker whose clock was fast has started it: the schedule has no runs until then."""
        async with worker_of(queue):
            await until_true(lambda: _has_run(queue, "tick"))
        clock._now_ms -= 24 * HOUR * 1000
        async with worker_of(queue):
            await until_true(lambda: _true_if(logged(caplog, "tick was for")))
        (record,) = logged(caplog, "which is in the future")
        assert record.levelno == logging.WARNING

    async def test_many_are_stored(self, queue: Queue) -> None:
        @queue.task
        async def task() -> None: ...

        for number in range(120):
            queue.every("1h", id=f"s{number}")(task)
        async with worker_of(queue):
            await until_true(lambda: is_stored(queue, "s119"))
        assert len(await queue.schedules.list(limit=999)) == 120


async def _true_if(value: object) -> bool:
    return bool(value)


async def _has_run(queue: Queue, id: str) -> bool:
    schedule = await queue.schedules.get(id)
    return schedule is not None and schedule.previous is not None


class TestLog:
    async def test_a_late_schedule_is_logged_once_and_when_it_is_on_time_again(
        self, queue: Queue, site: Site, clock: ManualClock,
        caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        checks = Checks(queue, monkeypatch)
        await until_state_active(await site.hold(), worker := worker_of(queue))
        try:
            await until_true(lambda: is_stored(queue))
            await advance_until(clock, lambda: logged(caplog, "is late"))
            await checks.more(clock)
            (record,) = logged(caplog, "is late")
            assert record.levelno == logging.WARNING
            slot_ms = round(ManualClock().now().timestamp() * 1000)
            assert f"is late: its run for {ManualClock().now().isoformat()} has been due for " in (
                record.getMessage()
            )
            assert f"hasten jobs why MODULE:QUEUE repeat:tick:{slot_ms}" in record.getMessage()
            assert record.__dict__["schedule"] == "tick"
            assert 60 < record.__dict__["late_seconds"] <= 80
            site.gate.set()
            await advance_until(clock, lambda: logged(caplog, "no longer late"))
            (end,) = logged(caplog, "schedule tick is no longer late; it was late by ")
            assert end.levelno == logging.INFO
            assert end.__dict__["late_seconds"] > record.__dict__["late_seconds"]
        finally:
            site.gate.set()
            await worker.stop()

    async def test_the_schedules_of_a_paused_queue_are_not_late(
        self, queue: Queue, site: Site, clock: ManualClock,
        caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        checks = Checks(queue, monkeypatch)
        await queue.pause()
        async with worker_of(queue):
            await until_true(lambda: is_stored(queue))
            clock.advance(HOUR)
            await checks.more(clock)
            assert await queue.schedules.late()
        assert not logged(caplog, "late")

    async def test_a_declared_schedule_whose_job_was_deleted_is_repaired(
        self, queue: Queue, site: Site, clock: ManualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with worker_of(queue):
            await until_true(lambda: _has_run(queue, "tick"))
            await queue.schedules.upsert("other", "tick", every="1h")
            await until_true(lambda: _has_run(queue, "other"))
            for id in ("tick", "other"):
                await lose_next_job(queue, id)
            clock.advance(HOUR)
            await advance_until(clock, lambda: logged(caplog, "schedule tick stored again"))
            await advance_until(clock, lambda: logged(caplog, "schedule other has no run since"))
            await until_true(lambda: _is_repaired(queue))
        schedule = await queue.schedules.get("other")
        assert schedule is not None
        assert schedule.is_broken

    async def test_many_late_schedules_are_counted(
        self, queue: Queue, site: Site, clock: ManualClock,
        caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        checks = Checks(queue, monkeypatch)
        await until_state_active(await site.hold(), worker := worker_of(queue))
        for number in range(24):
            await queue.schedules.upsert(f"s{number:02}", "tick", every="1h")
        try:
            await until_true(lambda: is_stored(queue))
            await advance_until(clock, lambda: logged(caplog, "further late schedules: "))
            await checks.more(clock)
            assert len(logged(caplog, " is late: ")) == 10
            (more,) = logged(caplog, "further late schedules: ")
            assert "further late schedules: 15. " in more.getMessage()
            await queue.schedules.remove("tick", *(f"s{number:02}" for number in range(24)))
            await advance_until(clock, lambda: logged(caplog, "that are no longer late: 15"))
            assert len(logged(caplog, " is no longer late; ")) == 10
        finally:
            site.gate.set()
            await worker.stop()


async def until_state_active(job: Job[None], worker: Worker) -> None:
    """Start a worker, whose only slot the job uses from then on."""
    await worker.start()
    await until_state(job, State.ACTIVE)


async def lose_next_job(queue: Queue, id: str) -> None:
    """Delete the job of the next slot, as another program can do."""
    schedule = await queue.schedules.get(id)
    assert schedule is not None
    assert schedule.next is not None
    job_id = f"repeat:{id}:{round(schedule.next.timestamp() * 1000)}"
    engine: Any = queue.engine
    if isinstance(engine, SqliteEngine):
        await engine._database.run(
            lambda connection: connection.execute(
                "DELETE FROM hasten_jobs WHERE custom_id = ?", [job_id]
            )
        )
        return
    prefix = engine._keys.queue_prefix(queue.name)
    for command in (("DEL", prefix + job_id), ("ZREM", prefix + "delayed", job_id)):
        assert await engine._server.run_command(*command, key=command[1]) == 1


async def _is_repaired(queue: Queue) -> bool:
    schedule = await queue.schedules.get("tick")
    return schedule is not None and not schedule.is_broken


Ask = Callable[[str], Awaitable[httpx.Response]]


def client_of(health: Health) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(health), base_url="http://test")


class TestReadiness:
    async def test_late_schedules_count_only_if_that_is_wanted(
        self, queue: Queue, clock: ManualClock
    ) -> None:
        await queue.schedules.upsert("tick", "tick", every="1h")
        worker = Worker(Queue("other", queue.shared_store.existing_store), queue, name="w")
        plain, strict = Health(worker), Health(worker, max_schedule_lateness="5m")
        clock.advance(301)  # no worker runs, so it is late; the worker itself is another reason
        async with client_of(plain) as client:
            assert (await client.get("/readyz")).json()["reasons"] == ["worker w: not running"]
        late = "queue mail: schedule tick is late by 301 s, more than 300 s"
        async with client_of(strict) as client:
            response = await client.get("/readyz")
            assert response.status_code == 503
            assert response.json()["reasons"] == ["worker w: not running", late]
            await queue.pause()
            assert late not in (await client.get("/readyz")).json()["reasons"]

    async def test_at_most_ten_schedules_are_named(self) -> None:
        late = [LateSchedule(f"s{number}", 0, 70.4) for number in range(12)]
        sentences = describe_late_schedules("mail", late, 60)
        assert len(sentences) == 11
        assert sentences[0] == "queue mail: schedule s0 is late by 70 s, more than 60 s"
        assert sentences[-1] == "queue mail: 12 in total schedules are late"

    def test_a_wrong_lateness_is_refused(self, memory: Queue) -> None:
        with pytest.raises(InvalidOption, match="max_schedule_lateness"):
            Health(Worker(memory), max_schedule_lateness=0.5)


def sample(metrics: Metrics, name: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry.get_sample_value(name, {"queue": "mail"})


class TestMetrics:
    async def test_show_how_many_are_late_and_by_how_much(
        self, queue: Queue, clock: ManualClock
    ) -> None:
        metrics = Metrics(queue, registry=None)

        async def read(name: str) -> float | None:
            return await asyncio.to_thread(sample, metrics, name)

        assert await read("hasten_schedules") == 0
        for id in ("a", "b", "paused"):
            await queue.schedules.upsert(id, "tick", every="1h")
        await queue.schedules.pause("paused")
        assert await read("hasten_schedules") == 3
        clock.advance(30)
        assert await read("hasten_late_schedules") == 0
        assert await read("hasten_schedule_lateness_seconds") == 30
        clock.advance(40)
        assert await read("hasten_late_schedules") == 2
        assert await read("hasten_schedule_lateness_seconds") == 70

    async def test_count_the_slots_without_a_run(self, queue: Queue, clock: ManualClock) -> None:
        @queue.task
        async def tick() -> None: ...

        await queue.schedules.upsert("tick", tick, every="1h")
        clock.advance(3 * HOUR + 1)
        worker = Worker(queue)
        metrics = Metrics(worker, registry=None)
        async with worker:
            await until_true(lambda: _has_run(queue, "tick"))
            read = asyncio.to_thread
            async with asyncio.timeout(DEADLINE_SECONDS):
                while await read(sample, metrics, "hasten_schedule_slots_dropped_total") != 3:
                    await asyncio.sleep(0.01)
        schedule = await queue.schedules.get("tick")
        assert schedule is not None
        assert schedule.dropped == 3
