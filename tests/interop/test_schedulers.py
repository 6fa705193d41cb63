"""Schedulers of Node: whoever claims one of their jobs adds the next one."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from hasten.errors import WrongState
from hasten.jobs import State
from hasten.jobs._cron import next_match_ms
from hasten.jobs._schedule_options import make_rule
from tests.interop.peer import Peer
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import take, troubles


async def schedule(shared: SharedQueue, rule: object, **template: object) -> None:
    await shared.node("upsertJobScheduler", "tick", rule, {"name": "echo", **template})


def pending(shared: SharedQueue) -> list[str]:
    """Return the ids of the jobs of the scheduler that have not started."""
    places = shared.ids("wait") + shared.ids("delayed") + shared.ids("prioritized")
    return [id for id in places if id.startswith("repeat:tick:")]


def slots(shared: SharedQueue) -> list[int]:
    """Return the due times of the jobs that have started, in order."""
    return [
        int(each["jobId"].rpartition(":")[2])
        for each in shared.stream()
        if each["event"] == "active" and each["jobId"].startswith("repeat:tick:")
    ]


def shown(time_ms: int, tz: str) -> str:
    return datetime.fromtimestamp(time_ms / 1000, ZoneInfo(tz)).isoformat()


class TestEvery:
    async def test_python_adds_the_next_one_when_it_claims_one(self, shared: SharedQueue) -> None:
        """With the due time and data of the schedule. Node knows it."""
        await schedule(shared, {"every": 3_600_000}, data={"value": 7}, opts={"priority": 3})
        (first,) = pending(shared)
        await take(shared)
        (second,) = pending(shared)
        due_ms = int(second.rpartition(":")[2])
        assert due_ms == int(first.rpartition(":")[2]) + 3_600_000
        job = await shared.node("getJob", second)
        assert (job["name"], job["data"], job["priority"]) == ("echo", {"value": 7}, 3)
        assert (job["repeatJobKey"], job["opts"]["repeat"]["count"]) == ("tick", 2)
        assert job["timestamp"] + job["delay"] == due_ms
        scheduler = await shared.node("getJobScheduler", "tick")
        assert (scheduler["next"], scheduler["iterationCount"]) == (due_ms, 2)

    async def test_one_is_pending_at_any_time(self, shared: SharedQueue) -> None:
        """Ten rounds without a gap or a duplicate."""
        await schedule(shared, {"every": 50})
        await shared.python_worker(idle=False)
        await shared.until(lambda: len(slots(shared)) >= 10)
        await shared.queue.pause()
        await shared.until(lambda: not shared.ids("active"))
        assert len(pending(shared)) == 1
        found = slots(shared)
        assert len(set(found)) == len(found)
        assert {later % 50 for later in found} == {found[0] % 50}

    async def test_both_languages_keep_it_going(self, shared: SharedQueue) -> None:
        await schedule(shared, {"every": 50})
        await shared.python_worker(idle=False)
        await shared.node_worker(idle=False)
        await shared.until(lambda: len(slots(shared)) >= 20)
        await shared.node("removeJobScheduler", "tick")
        await shared.until_counts(waiting=0, active=0, delayed=0)
        found = slots(shared)
        assert len(set(found)) == len(found)
        assert troubles(shared) == []

    async def test_the_limit_is_kept(self, shared: SharedQueue) -> None:
        await schedule(shared, {"every": 20, "limit": 3})
        await shared.python_worker(idle=False)
        await shared.until_counts(completed=3)
        assert pending(shared) == []

    async def test_the_end_is_kept(self, shared: SharedQueue) -> None:
        now_ms = time.time_ns() // 1_000_000
        await schedule(shared, {"every": 50, "endDate": now_ms + 1000})
        await shared.python_worker(idle=False)
        await shared.until_after(now_ms + 1100)
        await shared.until_counts(waiting=0, active=0, delayed=0)
        assert len(slots(shared)) >= 2
        assert all(slot <= now_ms + 1000 + 50 for slot in slots(shared))

    async def test_a_new_template_is_used(self, shared: SharedQueue) -> None:
        """The next job has the data of the schedule, not of the job before it."""
        await schedule(shared, {"every": 3_600_000}, data={"value": "old"})
        (first,) = pending(shared)
        record = {"data": '{"value":"new"}', "name": "report"}
        shared.redis.hset(shared.key("repeat:tick"), mapping=record)
        await take(shared)
        (second,) = [id for id in pending(shared) if id != first]
        job = await shared.node("getJob", second)
        assert (job["name"], job["data"]) == ("report", {"value": "new"})

    async def test_another_attempt_schedules_no_more(self, shared: SharedQueue) -> None:
        await shared.node(
            "upsertJobScheduler", "tick", {"every": 3_600_000},
            {"name": "fail", "data": {"message": "no", "times": 1}, "opts": {"attempts": 2}},
        )  # fmt: skip
        await shared.python_worker(idle=False)
        await shared.until_counts(completed=1)
        assert len(slots(shared)) == 2
        assert len(pending(shared)) == 1
        assert (await shared.node("getJobScheduler", "tick"))["iterationCount"] == 2

    async def test_a_removed_schedule_adds_no_job(self, shared: SharedQueue) -> None:
        """Its waiting job still runs."""
        await schedule(shared, {"every": 3_600_000})
        assert len(shared.ids("wait")) == 1
        await shared.node("removeJobScheduler", "tick")
        await shared.python_worker(idle=False)
        await shared.until_counts(completed=1)
        assert pending(shared) == []


# Except several times in a skipped hour: of "*/20 2 * * *" Node runs the first one only.
PATTERNS: Final = [
    "30 2 * * *", "0 * * * *", "*/20 3 * * *", "*/7 * * * *", "0 */3 * * *", "15,45 1-3 * * *",
    "0 9 * * MON-FRI", "0 0 L * *", "0 12 * * 5L", "0 12 * * 1#2", "0 0 13 * 5", "0 0 1 JAN ?",
    "*/15 * * * * *", "59 59 23 31 12 *", "0 0 * * 7", "@daily", "@hourly",
]  # fmt: skip

# Patterns that Node rejects or understands differently.
REWRITTEN: Final = [
    "0 0 * * mon-sun", "0 0 * * fri-mon", "0 22-2 * * *", "@DAILY", "@midnight", "0 0 * * l5",
    "0 0 * * FRIL", "1,1-5 * * * *", "0 0 * nov-feb *", "0 0 28-3/2 * *", "0 7-7 * * *",
    "0 0 1 * sun-sat", "0 0 * * 3/2", "0 0 l * *", "*/20 50-10/5 * * * *",
]  # fmt: skip
NOW_MS: Final = 1_796_136_925_000

# None with a change of half an hour: there Node's parser finds times before the one it is given.
ZONES: Final = ["UTC", "Europe/Madrid", "America/New_York", "Asia/Kolkata"]

# Shortly before clocks change in one of these zones, and on an ordinary day.
EVENINGS: Final = ["2026-03-07", "2026-03-28", "2026-10-24", "2026-10-31", "2027-02-27"]


class TestCron:
    @pytest.mark.parametrize("tz", ZONES)
    @pytest.mark.parametrize("pattern", PATTERNS)
    async def test_a_pattern_means_the_same(self, peer: Peer, pattern: str, tz: str) -> None:
        """Also when clocks change, because both languages may continue one schedule."""
        for day in EVENINGS:
            evening = datetime.fromisoformat(f"{day}T23:30").replace(tzinfo=ZoneInfo(tz))
            after_ms = int(evening.timestamp() * 1000)
            theirs = await peer.ask("cron", pattern=pattern, tz=tz, after=after_ms, count=40)
            ours = [after_ms := next_match_ms(pattern, after_ms, tz) for _ in theirs]
            assert [shown(our, tz) for our in ours] == [shown(their, tz) for their in theirs]

    @pytest.mark.parametrize("pattern", REWRITTEN)
    async def test_a_stored_pattern_is_one_that_node_accepts(
        self, peer: Peer, pattern: str
    ) -> None:
        """Patterns that Node rejects are stored in another form, with the same slots."""
        rule = make_rule(NOW_MS, cron=pattern)
        assert rule.cron is not None
        theirs = await peer.ask("cron", pattern=rule.cron, tz="UTC", after=NOW_MS, count=40)
        for cron in (pattern, rule.cron):
            after_ms = NOW_MS
            ours = [after_ms := next_match_ms(cron, after_ms, "UTC") for _ in theirs]
            assert ours == theirs

    @pytest.mark.parametrize("pattern", ["* * * * mon-sun", "0 22-2 * * *", "@DAILY", "0 0 * * l5"])
    async def test_a_node_worker_continues_a_rewritten_pattern(
        self, shared: SharedQueue, pattern: str
    ) -> None:
        await shared.queue.schedules.upsert("tick", "echo", cron=pattern)
        (id,) = pending(shared)
        await shared.node.job(id, "promote")
        await shared.node_worker(idle=False)
        await shared.until(lambda: pending(shared) not in ([], [id]))

    @pytest.mark.parametrize(
        "rule",
        [
            {"every": 3_600_000, "offset": 60_000},
            {"every": 3_600_000, "startDate": 1_900_000_000_000},
            {"pattern": "*/5 * * * *"},
            {"pattern": "30 2 * * 1-5", "tz": "Europe/Madrid"},
            {"pattern": "0 0 12 L * *", "tz": "America/New_York"},
            {"pattern": "15 3 1,15 * *", "tz": "UTC"},
        ],
    )
    async def test_next_time_is_as_in_node(self, shared: SharedQueue, rule: dict[str, Any]) -> None:
        """There are two schedulers with the same rule. Each language continues one."""
        for task in "echo", "report":
            data = {"progress": 1, "lines": []}
            template = {"name": task, "data": data if task == "report" else {}}
            await shared.node("upsertJobScheduler", f"by {task}", rule, template)
        for id in shared.ids("delayed"):
            await shared.queue.promote(id)
        await take(shared)  # one by Python …
        await shared.node_worker(idle=False)  # … and one by Node
        await shared.until_counts(completed=1, delayed=2, waiting=0)
        first, second = await shared.queue.jobs("delayed")
        assert first.record.due_ms == second.record.due_ms
        for job in first, second:
            opts = (await shared.node("getJob", job.id))["opts"]
            assert "every" in rule or opts["prevMillis"] == job.record.due_ms
            assert opts["repeat"]["count"] == 2

    async def test_it_runs_on_the_second(self, shared: SharedQueue) -> None:
        await schedule(shared, {"pattern": "* * * * * *"})
        await shared.python_worker(idle=False)
        await shared.until_counts(completed=2)
        await shared.close_workers()
        first, second = slots(shared)[:2]
        assert first < second
        assert first % 1000 == second % 1000 == 0

    async def test_node_continues_what_python_without_croniter_leaves(
        self, shared: SharedQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shared.queue.engine, "_can_parse_cron", False)
        await schedule(shared, {"pattern": "0 0 1 1 *"})
        (first,) = pending(shared)
        await shared.queue.promote(first)
        assert await take(shared) == []
        assert shared.ids("delayed") == [first]
        await shared.queue.promote(first)
        await shared.node_worker(idle=False)
        await shared.until_counts(completed=1, delayed=1)
        assert pending(shared) != [first]
        await shared.close_workers()
        await shared.queue.retry(first)
        assert await take(shared) == [first]


async def test_a_run_that_a_worker_has_left_is_late(shared: SharedQueue) -> None:
    """As when Node's worker has claimed it and cannot compute the next slot."""
    await shared.queue.schedules.upsert("tick", "echo", every=3600)
    (id,) = pending(shared)
    shared.redis.lrem(shared.key("wait"), 1, id)
    shared.redis.lpush(shared.key("active"), id)
    shared.redis.set(shared.key(f"{id}:lock"), "another")
    assert await shared.queue.schedules.late(0) == []
    shared.redis.delete(shared.key(f"{id}:lock"))
    (late,) = await shared.queue.schedules.late(0)
    assert late.due is not None


class TestGuarding:
    async def test_the_pending_job_is_not_removed(self, shared: SharedQueue) -> None:
        """Otherwise the schedule would end."""
        await schedule(shared, {"pattern": "0 0 1 1 *"})
        (job,) = pending(shared)
        with pytest.raises(WrongState, match="the next run of a schedule"):
            await shared.queue.remove(job)
        assert await shared.queue.drain(delayed=True) == 0
        assert await shared.queue.clean("delayed", older_than=0) == []
        assert pending(shared) == [job]

    async def test_the_pending_job_is_not_cancelled(self, shared: SharedQueue) -> None:
        """Otherwise the schedule would end: no worker would claim the job that continues it."""
        await schedule(shared, {"pattern": "0 0 1 1 *"})
        (job,) = pending(shared)
        with pytest.raises(WrongState, match="the next run of a schedule"):
            await shared.queue.cancel(job)
        assert pending(shared) == [job]

    async def test_a_job_that_has_run_is_removed(self, shared: SharedQueue) -> None:
        await schedule(shared, {"every": 3_600_000})
        (job,) = pending(shared)
        await shared.python_worker(idle=False)
        await shared.until_state(job, State.COMPLETED)
        assert await shared.queue.remove(job)
        assert len(pending(shared)) == 1


async def test_python_claims_a_job_without_a_rule(shared: SharedQueue) -> None:
    """Written by hand or by a later version. It runs, and belongs to no schedule."""
    job = await shared.node("add", "echo", {"value": 1})
    shared.redis.hset(shared.key(job["id"]), "rjk", "nobody's")
    await shared.python_worker(idle=False)
    done: Any = await shared.until_state(job["id"], State.COMPLETED)
    assert done.value == 1
