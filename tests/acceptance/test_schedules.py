"""Schedules that are run by the command `hasten worker`, in real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from hasten import Store
from hasten.jobs import Queue, Schedule
from hasten.testing import ManualClock
from tests.acceptance.places import MonitoredPlace
from tests.patience import DEADLINE_SECONDS

APP: Final = """
import asyncio, os
from pathlib import Path
from datetime import UTC, datetime
from hasten.jobs import Context, Queue

mail = Queue("mail")

def record(what):
    with open("ledger", "a") as ledger:
        ledger.write(what + chr(10))

@mail.every("1s", id="tick", missed="all")
@mail.task
async def tick(ctx: Context) -> None:
    slot_ms = int(ctx.job.id.rpartition(":")[2])
    record(datetime.fromtimestamp(slot_ms / 1000, UTC).isoformat())

@mail.task
async def hold() -> None:
    Path(f"held by {os.getpid()}").touch()
    while not Path("gate").exists():
        await asyncio.sleep(0.02)
"""


class ScheduledPlace(MonitoredPlace):
    """A folder whose worker has a schedule with a run each second."""

    def slots(self) -> list[datetime]:
        """Return the slots whose runs have started, in this order."""
        ledger = self.folder / "ledger"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        return [datetime.fromisoformat(line) for line in lines]

    async def until_run(self, count: int) -> list[datetime]:
        await self.commands[-1].until(lambda: len(self.slots()) >= count)
        return self.slots()


@pytest.fixture(params=["sqlite", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ScheduledPlace]:
    place = ScheduledPlace(tmp_path, APP, f"sqlite:///{tmp_path}/hasten.db")
    place.use_kind(request.param)
    yield place
    await place.close()


def gaps(slots: list[datetime]) -> set[float]:
    """Return how far the slots are apart, in seconds."""
    return {(after - before).total_seconds() for before, after in pairwise(slots)}


async def test_a_worker_runs_what_its_code_declares(place: ScheduledPlace) -> None:
    await place.worker(processes=2)
    slots = await place.until_run(4)
    assert gaps(slots) == {1.0}
    stored = await place.mail.schedules.get("tick")
    assert stored is not None
    assert stored.is_declared


async def test_each_slot_gets_a_run_although_workers_are_killed(place: ScheduledPlace) -> None:
    """The slots that pass while no worker runs are made up for, because missed="all"."""
    for _ in range(3):
        worker = await place.worker()
        done = len(place.slots())
        await place.until_run(done + 2)
        os.kill(worker.process.pid, signal.SIGKILL)
        await worker.ended()
    last = await place.worker()
    newest = max(await place.until_run(len(place.slots()) + 3))

    def has_all() -> bool:
        """Whether all slots until then have run, also those that a killed worker had claimed."""
        return gaps(sorted({slot for slot in place.slots() if slot <= newest})) == {1.0}

    await last.until(has_all)


async def make_late_schedule(place: ScheduledPlace) -> Schedule:
    """Store a schedule whose next run has been due for an hour."""
    clock = ManualClock(datetime.now(UTC).replace(microsecond=0))
    clock._now_ms -= 3_600_000
    async with Store(place.url, clock=clock) as store:
        return await Queue("mail", store).schedules.upsert("nightly", "hold", every="30d")


async def test_a_late_schedule_is_visible_everywhere(place: ScheduledPlace) -> None:
    """All slots of the worker are in use, so the schedule is late until the gate is opened."""
    await place.mail.add("hold", priority=0)
    worker = await place.worker("--concurrency", "1", "--max-schedule-lateness", "5m")
    await worker.until(place.held_by)
    await make_late_schedule(place)
    await worker.until_logged(
        r"WARNING +hasten\.schedules: queue mail: schedule nightly is late: its run for \S+ has "
        r"been due for 36\d\d s\. For the reason, use: hasten jobs why MODULE:QUEUE repeat:nightly:"
    )
    unready = await place.until("/readyz", lambda answer: answer.status == 503)
    assert re.fullmatch(
        r"queue mail: schedule nightly is late by 36\d\d s, more than 300 s",
        unready.body["reasons"][0],
    )
    assert (await place.get("/livez")).status == 200
    page = await place.get("/metrics")
    assert page.metric("hasten_schedules", queue="mail") == 2
    late = page.metric("hasten_late_schedules", queue="mail")
    assert late is not None
    assert late >= 1
    lateness = page.metric("hasten_schedule_lateness_seconds", queue="mail")
    assert lateness is not None
    assert lateness > 3600
    place.open_gate()
    await place.until("/readyz", lambda answer: answer.status == 200)
    await worker.until_logged(r"INFO +hasten\.schedules: queue mail: schedule nightly is no longer")
    page = await place.until(
        "/metrics", lambda page: page.metric("hasten_late_schedules", queue="mail") == 0
    )


async def test_late_schedules_are_ready_unless_that_is_asked_for(place: ScheduledPlace) -> None:
    await place.mail.add("hold")
    worker = await place.worker("--concurrency", "1")
    await worker.until(place.held_by)
    await make_late_schedule(place)
    await worker.until_logged("schedule nightly is late")
    ready = await place.until("/readyz", lambda answer: answer.status == 200)
    assert ready.body == {"status": "ready"}
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert [each.id for each in await place.mail.schedules.late()] == ["nightly"]
