"""Deduplication ids in both directions: taking and freeing them, and the jobs that follow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hasten.jobs import Queue, State
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import complete, keys, take

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


ID = "echo:ada"


async def node_add(shared: SharedQueue, value: object, **deduplication: object) -> str:
    """Add an `echo` job in Node, with the id that Python gives the key "ada"."""
    options = {"deduplication": {"id": ID, **deduplication}}
    return await add(shared, "echo", value, options)


class TestPythonAdds:
    """Keys that Python takes, as Node sees them."""

    async def test_node_sees_the_key_of_a_job(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("echo", {"value": 1}, unique="ada")
        read = await shared.node("getJob", job.id)
        assert (read["deduplicationId"], read["opts"]["deduplication"]) == (ID, {"id": ID})
        assert await shared.node("getDeduplicationJobId", ID) == job.id

    @pytest.mark.parametrize("task", ["echo", "give_up"])
    async def test_a_key_is_free_once_node_has_ended_its_job(
        self, shared: SharedQueue, task: str
    ) -> None:
        data = {"value": 1} if task == "echo" else {"message": "no"}
        first = await shared.queue.add(task, data, unique="ada")
        assert (await shared.queue.add(task, data, unique="ada")).id == first.id
        await shared.node_worker(idle=False)
        await shared.until(lambda: shared.hash(first.id).get("finishedOn"))
        assert not shared.redis.exists(shared.key(f"de:{task}:ada"))
        assert not (await shared.queue.add(task, data, unique="ada")).is_duplicate

    async def test_node_hears_of_duplicates(self, shared: SharedQueue) -> None:
        events = await shared.node_events()
        first = await shared.queue.add("echo", {"value": 1}, unique="ada")
        await shared.queue.add("echo", {"value": 2}, unique="ada")
        heard = await shared.until_heard(events, "deduplicated")
        (told,) = [event for event in heard if event["event"] == "deduplicated"]
        assert told == {
            "event": "deduplicated",
            "jobId": first.id,
            "deduplicationId": ID,
            "deduplicatedJobId": str(int(first.id) + 1),
        }

    async def test_duplicates_advance_the_counter_of_ids(self, shared: SharedQueue) -> None:
        """As in Node, where each attempted add uses up a number."""
        for _ in range(3):
            await shared.queue.add("echo", {"value": 1}, unique="ada")
        assert shared.redis.get(shared.key("id")) == "3"

    @pytest.mark.parametrize(
        ("python", "node", "delay"),
        [
            ({"unique": "ada"}, {}, 0),
            ({"throttle": ("ada", 60)}, {"ttl": 60_000}, 0),
            ({"latest": "ada"}, {"keepLastIfActive": True}, 0),
            ({"debounce": ("ada", 60, 600)}, {"replace": True}, 60_000),
        ],
        ids=["unique", "throttle", "latest", "debounce"],
    )
    async def test_the_keys_are_those_that_node_leaves(
        self, shared: SharedQueue, python: Any, node: Any, delay: int
    ) -> None:
        """The same queue, filled by Python and by Node, has the same keys and fields."""
        other = shared.beside()
        await other.open()
        await shared.queue.add("echo", {"value": 1}, **python)
        options = {"deduplication": {"id": ID, **node}, "delay": delay}
        await other.node("add", "echo", {"value": 1}, options)
        ours, theirs = [_left(queue) for queue in (shared, other)]
        assert ours == theirs

    async def test_node_drops_duplicates_of_python(self, shared: SharedQueue) -> None:
        first = await shared.queue.add("echo", {"value": 1}, unique="ada")
        assert await node_add(shared, 2) == first.id

    async def test_node_replaces_a_debounced_job(self, shared: SharedQueue) -> None:
        """BullMQ's replace deletes the delayed job and adds its own."""
        first = await shared.queue.add("echo", {"value": 1}, debounce=("ada", 60, 600))
        options = {"deduplication": {"id": ID, "replace": True}, "delay": 60_000}
        second = await add(shared, "echo", 2, options)
        assert second != first.id
        assert await shared.queue.get(first.id) is None
        third = await shared.queue.add("echo", {"value": 3}, debounce=("ada", 60, 600))
        assert (third.id, third.data) == (second, {"value": 3})

    async def test_node_runs_the_newest_data_of_a_debounced_job(self, shared: SharedQueue) -> None:
        worker = await shared.node_worker()
        for value in 1, 2, 3:
            await shared.queue.add("echo", {"value": value}, debounce=("ada", 0.2, 5))
        (run,) = await shared.until_runs(worker, 1)
        assert run["data"] == {"value": 3}
        await shared.until_counts(completed=1, delayed=0, waiting=0)

    async def test_node_runs_the_kept_job(self, shared: SharedQueue) -> None:
        """Node holds the active job, Python adds three more, and Node adds the follower."""
        worker = await shared.node_worker(idle=False, concurrency=1)
        without_tasks = Queue(shared.name, shared.queue.store)
        held = await without_tasks.add("hold", latest="ada")
        await shared.until_runs(worker, 1)
        for n in 2, 3, 4:
            kept = await without_tasks.add("hold", {"n": n}, latest="ada")
            assert kept.id == held.id
        await shared.peer.ask("release", job=held.id)
        runs = await shared.until_runs(worker, 2)
        assert runs[1]["data"] == {"n": 4}
        assert runs[1]["deduplicationId"] == "hold:ada"
        assert shared.redis.get(shared.key("de:hold:ada")) == runs[1]["id"]
        assert not shared.redis.exists(shared.key("dn:hold:ada"))
        await shared.peer.ask("release", job=runs[1]["id"])
        await shared.until_counts(completed=2, waiting=0, active=0)
        assert not shared.redis.exists(shared.key("de:hold:ada"))

    async def test_python_runs_the_kept_job_of_node(self, shared: SharedQueue) -> None:
        first = await shared.queue.add("echo", {"value": 1}, latest="ada")
        await take(shared)
        assert await node_add(shared, 2, keepLastIfActive=True) == first.id
        kept = await shared.queue.add("echo", {"value": 3}, latest="ada")
        assert kept.id == first.id
        await complete(shared, first.id)
        (follower,) = await shared.node("getWaiting")
        assert (follower["data"], follower["deduplicationId"]) == ({"value": 3}, ID)

    async def test_a_key_without_its_job_is_taken_over(self, shared: SharedQueue) -> None:
        """Another program has deleted the job, or the server has evicted it."""
        first = await shared.queue.add("echo", {"value": 1}, unique="ada")
        shared.redis.delete(shared.key(first.id))
        shared.redis.lrem(shared.key("wait"), 0, first.id)
        second = await shared.queue.add("echo", {"value": 2}, unique="ada")
        assert not second.is_duplicate
        assert shared.redis.get(shared.key(f"de:{ID}")) == second.id

    @pytest.mark.parametrize("how", ["remove", "drain", "clean", "obliterate"])
    async def test_node_frees_the_key(self, shared: SharedQueue, how: str) -> None:
        first = await shared.queue.add("echo", {"value": 1}, unique="ada")
        await shared.until_after(int(shared.hash(first.id)["timestamp"]))
        match how:
            case "remove":
                await shared.node("remove", first.id)
            case "drain":
                await shared.node("drain")
            case "clean":
                await shared.node("clean", 0, 0, "wait")
            case "obliterate":
                await shared.node("obliterate")
        assert not shared.redis.exists(shared.key(f"de:{ID}"))

    async def test_node_removes_the_key(self, shared: SharedQueue) -> None:
        first = await shared.queue.add("echo", {"value": 1}, unique="ada")
        assert await shared.node("removeDeduplicationKey", ID) == 1
        second = await shared.queue.add("echo", {"value": 1}, unique="ada")
        assert second.id != first.id
        assert await shared.queue.remove_deduplication_key("echo", "ada")
        assert await shared.node("getDeduplicationJobId", ID) is None

    async def test_the_orphan_sweep_of_node_leaves_keys_alone(self, shared: SharedQueue) -> None:
        held = await shared.queue.add("echo", {"value": 1}, latest="ada")
        await take(shared)
        await shared.queue.add("echo", {"value": 2}, latest="ada")
        await shared.node("removeOrphanedJobs")
        assert shared.redis.get(shared.key(f"de:{ID}")) == held.id
        assert shared.redis.hget(shared.key(f"dn:{ID}"), "data") == '{"value":2}'


class TestNodeAdds:
    """Keys that Node takes, as Python sees them."""

    async def test_python_drops_duplicates_of_node(self, shared: SharedQueue) -> None:
        first = await node_add(shared, 1)
        job = await shared.queue.add("echo", {"value": 2}, unique="ada")
        assert (job.id, job.is_duplicate, job.data) == (first, True, {"value": 1})
        assert job.deduplication_key == "ada"

    async def test_a_time_of_node_counts(self, shared: SharedQueue) -> None:
        first = await node_add(shared, 1, ttl=60_000)
        await shared.python_worker(idle=False)
        await shared.until_state(first, State.COMPLETED)
        assert (await shared.queue.add("echo", {"value": 2}, unique="ada")).id == first
        assert (await shared.queue.add("echo", {"value": 2}, throttle=("ada", 1))).id == first
        assert not (await shared.queue.add("echo", {"value": 2}, latest="ada")).is_duplicate

    async def test_python_replaces_the_data_of_a_delayed_job(self, shared: SharedQueue) -> None:
        """Also with a time to live: it would end before the job starts."""
        options = {"deduplication": {"id": ID, "ttl": 60_000, "replace": True}, "delay": 30_000}
        first = await add(shared, "echo", 1, options)
        job = await shared.queue.add("echo", {"value": 2}, debounce=("ada", 60, 600))
        assert job.id == first
        read = await shared.node("getJob", first)
        assert (read["data"], read["delay"]) == ({"value": 2}, 60_000)
        assert shared.redis.pttl(shared.key(f"de:{ID}")) == -1

    async def test_python_keeps_a_job_for_an_active_one_of_node(self, shared: SharedQueue) -> None:
        first = await node_add(shared, 1, keepLastIfActive=True)
        await take(shared)
        kept = await shared.queue.add("echo", {"value": 2}, latest="ada")
        assert kept.id == first
        await complete(shared, first)
        (follower,) = await shared.node("getWaiting")
        assert follower["data"] == {"value": 2}

    async def test_an_old_job_with_the_key_does_not_start_the_kept_one(
        self, shared: SharedQueue
    ) -> None:
        """Only the end of the owner does. In BullMQ, any job with the id starts it."""
        old = await node_add(shared, 0)
        assert await take(shared) == [old]
        await shared.node("removeDeduplicationKey", ID)
        owner = await node_add(shared, 1, keepLastIfActive=True)
        assert await take(shared) == [owner]
        await node_add(shared, 2, keepLastIfActive=True)
        await complete(shared, old)
        assert await shared.node("getWaitingCount") == 0
        await complete(shared, owner)
        (follower,) = await shared.node("getWaiting")
        assert follower["data"] == {"value": 2}

    async def test_a_kept_job_does_not_overwrite_another(self, shared: SharedQueue) -> None:
        """Node gives the kept job the id that its caller chose, and that exists meanwhile."""
        options = {"deduplication": {"id": ID, "keepLastIfActive": True}}
        owner = await add(shared, "echo", 1, options)
        await take(shared)
        await add(shared, "echo", 2, {**options, "jobId": "chosen"})
        await shared.queue.add("echo", {"value": 3}, job_id="chosen")
        await complete(shared, owner)
        waiting = await shared.node("getWaiting")
        assert {job["id"]: job["data"]["value"] for job in waiting}["chosen"] == 3
        assert sorted(job["data"]["value"] for job in waiting) == [2, 3]


def _left(shared: SharedQueue) -> dict[str, object]:
    """Return what a queue with one job has, without times and what the languages write apart."""
    left: dict[str, object] = {}
    for key in keys(shared):
        name = key.removeprefix(shared.key(""))
        kind = shared.redis.type(key)
        if name in {"meta", "marker"}:
            continue
        if kind == "hash":
            fields = shared.hash(name)
            opts = json.loads(fields.pop("opts"))
            left[name] = {**fields, "timestamp": "", "de": opts["de"]}
        elif kind == "string":
            left[name] = shared.redis.get(key), shared.redis.pttl(key) > 0
        elif kind == "stream":
            entries = [dict(fields) for _, fields in shared.redis.xrange(key)]
            left[name] = [{**fields, "delay": ""} for fields in entries]
        else:
            left[name] = shared.ids(name)
    return left
