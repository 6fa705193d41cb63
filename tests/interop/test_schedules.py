"""Schedules that Python stores: Node shows, runs, changes and removes them."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hasten.errors import WrongState
from hasten.jobs import Schedule, State
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import take, troubles
from tests.interop.test_schedulers import pending, slots

HOUR = 3_600_000


async def upsert(shared: SharedQueue, **options: Any) -> Schedule:
    options = {"arguments": {"value": 7}, **options}
    return await shared.queue.schedules.upsert("tick", "echo", **options)


async def ours(shared: SharedQueue) -> Schedule:
    found = await shared.queue.schedules.get("tick")
    assert found is not None
    return found


def ms(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)


class TestNodeSeesOurs:
    @pytest.mark.parametrize(
        "rule",
        [
            {"every": 3600, "limit": 5},
            {"every": 3600, "offset": 60},
            {"every": 3600, "start": datetime(2090, 1, 1, tzinfo=UTC)},
            {"cron": "30 2 * * 1-5", "tz": "Europe/Madrid"},
            {"cron": "0 0 1 1 *", "limit": 2},
        ],
    )
    async def test_all_fields(self, shared: SharedQueue, rule: dict[str, Any]) -> None:
        end = datetime(2100, 1, 1, tzinfo=UTC)
        options: Any = {"attempts": 3, "priority": 2}
        made = await upsert(shared, **rule, end=end, options=options)
        found = await shared.node("getJobScheduler", "tick")
        assert (found["key"], found["name"], found["iterationCount"]) == ("tick", "echo", 1)
        assert found["next"] == ms(made.next)
        assert found["endDate"] == ms(end)
        assert found.get("startDate") == ms(rule.get("start"))
        assert found.get("limit") == rule.get("limit")
        assert found.get("pattern") == rule.get("cron")
        assert found.get("every") == (HOUR if "every" in rule else None)
        assert found.get("tz") == (rule.get("tz", "UTC") if "cron" in rule else None)
        assert found["template"]["data"] == {"value": 7}
        assert found["template"]["opts"]["attempts"] == 3
        assert await shared.node("getJobSchedulers") == [found]
        assert await shared.node("getJobSchedulersCount") == 1
        (id,) = pending(shared)
        job = await shared.node("getJob", id)
        assert (job["name"], job["data"], job["priority"]) == ("echo", {"value": 7}, 2)
        assert job["repeatJobKey"] == "tick"
        assert job["opts"]["repeat"]["count"] == 1
        assert job["timestamp"] + job["delay"] == ms(made.next)

    async def test_no_listing_loses_one(self, shared: SharedQueue) -> None:
        """Node's listing deletes an entry without its record."""
        for number in range(5):
            await shared.queue.schedules.upsert(f"s{number}", "echo", every=3600)
            assert await shared.node("getJobSchedulersCount") == number + 1
            assert len(await shared.node("getJobSchedulers")) == number + 1

    async def test_bull_board_lists_and_runs_and_removes_ours(self, shared: SharedQueue) -> None:
        await upsert(shared, cron="0 0 1 1 *")
        await upsert(shared, cron="0 0 1 1 *", arguments={"value": 8})
        port = await shared.peer.ask("board", handles=[shared.node.handle])
        base = f"http://127.0.0.1:{port}/api"

        def ask(method: str, path: str) -> Any:
            request = urllib.request.Request(base + path, method=method)
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read() or "null")

        found = (await asyncio.to_thread(ask, "GET", "/job-schedulers"))["schedulers"]
        assert [each["queueName"] for each in found] == [shared.name]
        assert found[0]["pattern"] == "0 0 1 1 *"
        schedule = f"/queues/{shared.name}/job-schedulers/tick"
        await asyncio.to_thread(ask, "PUT", f"{schedule}/run")
        await shared.python_worker(idle=False)
        await shared.until_counts(completed=1)
        await asyncio.to_thread(ask, "PUT", f"{schedule}/remove")
        assert await shared.queue.schedules.list() == []

    async def test_a_paused_one_is_not_listed_and_comes_back(self, shared: SharedQueue) -> None:
        await upsert(shared, every=3600)
        before = await shared.node("getJobScheduler", "tick")
        await shared.queue.schedules.pause("tick")
        assert await shared.node("getJobSchedulers") == []
        assert await shared.node("removeOrphanedJobs") == 0
        await shared.queue.schedules.resume("tick")
        after = await shared.node("getJobScheduler", "tick")
        assert after["template"] == before["template"]
        assert (after["every"], after["offset"]) == (before["every"], before["offset"])
        assert after["next"] > time.time_ns() // 1_000_000

    async def test_node_does_not_remove_the_pending_job(self, shared: SharedQueue) -> None:
        await upsert(shared, cron="0 0 1 1 *")
        (id,) = pending(shared)
        with pytest.raises(Exception, match="scheduler"):
            await shared.node("remove", id)
        await shared.node("drain", True)
        await shared.node("clean", 0, 100, "delayed")
        await shared.node("removeOrphanedJobs")
        assert pending(shared) == [id]
        with pytest.raises(WrongState):
            await shared.queue.remove(id)


class TestNodeRunsOurs:
    async def test_an_interval(self, shared: SharedQueue) -> None:
        await upsert(shared, every=1)
        worker = await shared.node_worker(idle=False)
        await shared.until_runs(worker, 3)
        await shared.queue.schedules.pause("tick")
        await shared.until(lambda: not shared.ids("active"))
        found = slots(shared)
        assert [later - first for first, later in itertools.pairwise(found)] == (
            [1000] * (len(found) - 1)
        )
        assert (await ours(shared)).count >= 3

    async def test_both_languages(self, shared: SharedQueue) -> None:
        """No slot twice, and none left out."""
        await upsert(shared, every=1)
        await upsert(shared, every=1)
        await shared.queue.schedules.upsert("cron", "echo", cron="* * * * * *")
        await shared.python_worker(idle=False)
        await shared.node_worker(idle=False)
        await shared.until(lambda: len(slots(shared)) >= 8)
        await shared.queue.schedules.remove("tick", "cron")
        await shared.until_counts(active=0, waiting=0, delayed=0)
        found = slots(shared)
        assert len(set(found)) == len(found)
        assert {later % 1000 for later in found} == {found[0] % 1000}
        assert max(found) - min(found) == (len(found) - 1) * 1000
        assert troubles(shared) == []

    async def test_the_limit_holds_for_node(self, shared: SharedQueue) -> None:
        """Over the whole life of the schedule, also after it is stored again."""
        await upsert(shared, every=1, limit=3)
        await take(shared)
        await upsert(shared, every=1, limit=3, arguments={"value": 8})
        worker = await shared.node_worker(idle=False)
        await shared.until_runs(worker, 2)
        assert pending(shared) == []
        assert (await ours(shared)).has_ended

    async def test_node_continues_a_pattern(self, shared: SharedQueue) -> None:
        await upsert(shared, cron="30 2 * * 1-5", tz="Europe/Madrid")
        expected = await shared.queue.schedules.preview("tick", 2)
        (first,) = pending(shared)
        await shared.queue.promote(first)
        await shared.node_worker(idle=False)
        await shared.until_counts(completed=1, delayed=1)
        (second,) = pending(shared)
        assert second == f"repeat:tick:{ms(expected[1])}"

    async def test_node_retries_a_run_without_another(self, shared: SharedQueue) -> None:
        await shared.queue.schedules.upsert(
            "tick", "fail", every=3600, arguments={"message": "no", "times": 1},
            options={"attempts": 2},
        )  # fmt: skip
        await shared.node_worker(idle=False)
        await shared.until_counts(completed=1)
        assert len(slots(shared)) == 2
        assert len(pending(shared)) == 1

    async def test_node_runs_an_extra_run(self, shared: SharedQueue) -> None:
        await upsert(shared, every=3600)
        await take(shared)
        before = await shared.node("getJobScheduler", "tick")
        job = await shared.queue.schedules.run_now("tick")
        worker = await shared.node_worker(idle=False)
        (run,) = await shared.until_runs(worker, 1)
        await shared.until_state(job.id, State.COMPLETED)
        assert run["id"] == job.id
        assert await shared.node("getJobScheduler", "tick") == before
        assert troubles(shared) == []

    async def test_overlap_sees_a_run_of_node(self, shared: SharedQueue) -> None:
        schedules = shared.queue.schedules
        await schedules.upsert("tick", "hold", every=1, overlap="skip")
        await shared.node_worker(idle=False)
        await shared.until(lambda: shared.ids("active"))
        (id,) = shared.ids("active")
        await shared.python_worker(idle=False)

        async def has_dropped() -> bool:
            return (await ours(shared)).dropped >= 2

        await shared.until_true(has_dropped)
        assert shared.ids("active") == [id]
        await shared.peer.ask("release", job=id)


class TestNodeChangesOurs:
    async def test_an_upsert_of_node_is_read(self, shared: SharedQueue) -> None:
        await upsert(shared, every=3600, missed="skip")
        rule, template = {"every": 2 * HOUR}, {"name": "report", "data": {"a": 1}}
        await shared.node("upsertJobScheduler", "tick", rule, template)
        found = await ours(shared)
        assert (found.every, found.task, found.arguments) == (
            timedelta(hours=2),
            "report",
            {"a": 1},
        )
        assert (found.missed, found.overlap) == ("last", "allow")
        assert found.next is not None
        await upsert(shared, every=3600, missed="skip")
        assert (await shared.node("getJobScheduler", "tick"))["every"] == HOUR
        assert len(pending(shared)) == 1

    async def test_a_removal_of_node_is_read(self, shared: SharedQueue) -> None:
        await upsert(shared, every=3600)
        await shared.node("removeJobScheduler", "tick")
        assert await shared.queue.schedules.list() == []

    @pytest.mark.parametrize("how", ["list", "count", "get", "claim"])
    async def test_an_upsert_of_node_ends_a_pause(self, shared: SharedQueue, how: str) -> None:
        """It is listed once, and does not come back when Node removes it."""
        schedules = shared.queue.schedules
        await upsert(shared, every=3600)
        await schedules.pause("tick")
        await shared.node("upsertJobScheduler", "tick", {"every": 5_000}, {"name": "echo"})
        match how:
            case "list":
                assert [each.is_paused for each in await schedules.list()] == [False]
            case "count":
                assert await shared.queue.engine.count_schedules(shared.name) == 1
            case "get":
                assert not (await ours(shared)).is_paused
            case _:
                await shared.python_worker(idle=False)
                await shared.until_counts(completed=1)
        await shared.node("removeJobScheduler", "tick")
        assert await schedules.list() == []

    async def test_node_continues_one_that_has_ended(self, shared: SharedQueue) -> None:
        await upsert(shared, every=3600, limit=1)
        await take(shared)
        assert (await ours(shared)).has_ended
        await shared.node("upsertJobScheduler", "tick", {"every": HOUR}, {"name": "echo"})
        assert not (await ours(shared)).has_ended
        await take(shared)
        assert not (await ours(shared)).has_ended
        assert len(pending(shared)) == 1

    async def test_the_schedules_of_node_are_listed(self, shared: SharedQueue) -> None:
        await shared.node(
            "upsertJobScheduler", "tick", {"pattern": "0 7 * * *", "limit": 3},
            {"name": "echo", "data": {"value": 1}},
        )  # fmt: skip
        (found,) = await shared.queue.schedules.list()
        assert (found.id, found.cron, found.tz, found.limit) == ("tick", "0 7 * * *", None, 3)
        assert (found.arguments, found.count) == ({"value": 1}, 1)
        assert not found.is_declared
        assert len(await shared.queue.schedules.preview("tick")) == 3
        await shared.queue.schedules.pause("tick")
        await shared.queue.schedules.resume("tick")
        assert (await shared.node("getJobScheduler", "tick"))["pattern"] == "0 7 * * *"

    async def test_python_goes_on_after_node_has_run_one(self, shared: SharedQueue) -> None:
        """Node copies the options of its run to the next one, with what it does not know."""
        made = await upsert(shared, every=3600, overlap="skip", missed="skip")
        assert made.next is not None
        await shared.node_worker(idle=False)
        await shared.until_counts(completed=1, delayed=1)
        await shared.close_workers()
        (second,) = pending(shared)
        await shared.queue.promote(second)
        assert await take(shared) == [second]
        found = await ours(shared)
        assert found.previous == made.next + timedelta(hours=1)
        assert (found.missed, found.overlap) == ("skip", "skip")


async def test_node_obliterates_a_queue_with_schedules(shared: SharedQueue) -> None:
    await upsert(shared, every=3600)
    await shared.queue.schedules.upsert("cron", "echo", cron="0 0 1 1 *")
    await take(shared)
    await shared.node("obliterate", {"force": True})
    assert await shared.queue.schedules.list() == []
    await upsert(shared, every=3600)
    made = await ours(shared)
    assert (made.count, made.previous) == (1, None)
