"""Deduplication ids of jobs of Node: Python frees them, and adds the jobs that follow."""

from __future__ import annotations

import pytest

from hasten.jobs import State
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import complete, take

ONCE = {"deduplication": {"id": "once"}}
LATEST = {"deduplication": {"id": "latest", "keepLastIfActive": True}}


async def add(shared: SharedQueue, task: str, value: object, options: object) -> str:
    data = {"echo": {"value": value}, "hold": {}}.get(task, {"message": value})
    job = await shared.node("add", task, data, options)
    return str(job["id"])


class TestFreeing:
    @pytest.mark.parametrize("task", ["echo", "give_up"])
    async def test_an_id_is_free_once_its_job_ended(self, shared: SharedQueue, task: str) -> None:
        """Until its job completes or fails, another job with the id is a duplicate."""
        first = await add(shared, task, 1, ONCE)
        assert await add(shared, task, 2, ONCE) == first
        await shared.python_worker(idle=False)
        await shared.until(lambda: shared.hash(first).get("finishedOn"))
        assert not shared.redis.exists(shared.key("de:once"))
        assert await add(shared, task, 3, ONCE) != first

    async def test_an_id_stays_taken_while_its_job_is_retried(self, shared: SharedQueue) -> None:
        options = {**ONCE, "attempts": 2, "backoff": 60_000}
        first = await add(shared, "fail", "no", options)
        await shared.python_worker(idle=False)
        await shared.until_state(first, State.DELAYED)
        assert await add(shared, "fail", "no", options) == first

    async def test_an_id_with_a_time_stays_taken_until_then(self, shared: SharedQueue) -> None:
        """The end of the job does not shorten the time."""
        options = {"deduplication": {"id": "once", "ttl": 60_000}}
        first = await add(shared, "echo", 1, options)
        await shared.python_worker(idle=False)
        await shared.until_state(first, State.COMPLETED)
        assert shared.redis.get(shared.key("de:once")) == first
        assert 0 < shared.redis.pttl(shared.key("de:once")) <= 60_000

    async def test_an_id_of_another_job_is_left_alone(self, shared: SharedQueue) -> None:
        """Another program has freed the id and added another job."""
        first = await add(shared, "echo", 1, ONCE)
        await take(shared)
        await shared.node("removeDeduplicationKey", "once")
        second = await add(shared, "echo", 2, ONCE)
        await complete(shared, first)
        assert shared.redis.get(shared.key("de:once")) == second

    @pytest.mark.parametrize("how", ["remove", "cancel", "drain", "clean"])
    async def test_an_id_is_free_when_its_job_is_gone(self, shared: SharedQueue, how: str) -> None:
        first = await add(shared, "echo", 1, ONCE)
        await shared.until_after(int(shared.hash(first)["timestamp"]))
        match how:
            case "remove":
                await shared.queue.remove(first)
            case "cancel":
                await shared.queue.cancel(first)
            case "drain":
                await shared.queue.drain()
            case "clean":
                await shared.queue.clean("waiting", older_than=0)
        assert not shared.redis.exists(shared.key("de:once"))
        assert await add(shared, "echo", 2, ONCE) != first

    async def test_an_owner_that_was_not_kept_is_no_obstacle(self, shared: SharedQueue) -> None:
        """Deleting the job leaves its key until it expires. Node replaces a key without a job."""
        first = await add(shared, "echo", 1, {**ONCE, "removeOnComplete": True})
        await shared.python_worker(idle=False)
        await shared.until(lambda: not shared.hash(first))
        assert await add(shared, "echo", 2, ONCE) != first


class TestFollowing:
    async def test_the_last_one_follows_when_the_active_one_ends(self, shared: SharedQueue) -> None:
        """Three jobs are added while one runs. One follows, with the data of the last."""
        held = await add(shared, "echo", 1, LATEST)
        await take(shared)
        for value in 2, 3, 4:
            assert await add(shared, "echo", value, LATEST) == held
        await complete(shared, held)
        (follower,) = await shared.node("getWaiting")
        assert (follower["data"], follower["deduplicationId"]) == ({"value": 4}, "latest")
        assert shared.redis.get(shared.key("de:latest")) == follower["id"]
        assert not shared.redis.exists(shared.key("dn:latest"))
        told = [each["event"] for each in shared.stream()]
        assert told[-3:] == ["added", "waiting", "completed"]

    async def test_the_follower_frees_the_id_in_its_turn(self, shared: SharedQueue) -> None:
        held = await add(shared, "echo", 1, LATEST)
        await take(shared)
        await add(shared, "echo", 2, LATEST)
        await complete(shared, held)
        await shared.python_worker(idle=False)
        await shared.until_counts(completed=2)
        assert not shared.redis.exists(shared.key("de:latest"))
        assert shared.python_runs[-1].data == '{"value":2}'

    async def test_the_follower_has_its_own_delay_and_priority(self, shared: SharedQueue) -> None:
        held = await add(shared, "echo", 1, LATEST)
        await take(shared)
        await add(shared, "echo", 2, {**LATEST, "delay": 60_000, "priority": 3})
        await complete(shared, held)
        (follower,) = await shared.queue.jobs("delayed")
        assert (follower.priority, follower.record.delay_ms) == (3, 60_000)
        assert follower.record.due_ms == follower.record.created_ms + 60_000

    async def test_a_failed_one_is_followed_too(self, shared: SharedQueue) -> None:
        first = await add(shared, "hold", 1, LATEST)
        await shared.python_worker(idle=False, concurrency=1)
        await shared.until_python_runs(1)
        await add(shared, "echo", 2, LATEST)
        assert await shared.queue.cancel(first)
        await shared.until_state(first, State.FAILED)
        await shared.until_counts(completed=1)
        assert shared.python_runs[-1].data == '{"value":2}'
