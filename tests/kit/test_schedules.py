"""Schedules that the application declares run when a test advances the time."""

from __future__ import annotations

from hasten.jobs import Queue, Slot
from hasten.testing import JobsTester


async def test_declared_schedules_run_when_time_advances(jobs: JobsTester) -> None:
    queue = Queue("kit-schedules")
    slots: list[float] = []

    @queue.every("10m")
    @queue.task
    async def tick(slot: Slot) -> None:
        slots.append(slot.planned.timestamp())

    @queue.task
    async def other() -> None: ...

    await other.enqueue()
    (run,) = await jobs.run_until_idle()
    assert run.task == "other"
    begin = jobs.clock.now().timestamp()
    runs = await jobs.advance(hours=1)
    assert [run.task for run in runs] == ["tick"] * 7
    assert slots == [begin + 600 * number for number in range(7)]
    assert await jobs.run_until_idle() == []
    assert len(await jobs.advance(minutes=10)) == 1
