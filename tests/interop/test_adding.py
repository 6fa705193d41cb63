"""Jobs that one language adds and the other runs."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from hasten.errors import InvalidOption
from hasten.jobs import Exponential, Keep, Queue, State
from tests.interop.peer import Peer
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import SOON_SECONDS
from tests.servers.redis import RedisServer

ODD_DATA: Any = {
    "text": 'Grüße, 世界 🎉 "quoted" back\\slash / \u0000 \u2028',
    "deep": {"list": [1, 2.5, [], {}, None, True], "empty": ""},
    "number": -(2**53) + 1,
    "null": None,
}


class TestPythonAdds:
    async def test_an_idle_node_worker_starts_it_at_once(self, shared: SharedQueue) -> None:
        """The marker wakes it. Without it, the worker would wait for a minute."""
        worker = await shared.node_worker()
        await shared.queue.add("echo", {"value": 1}, attempts=3)
        (run,) = await shared.until_runs(worker, 1)
        assert (run["name"], run["data"]) == ("echo", {"value": 1})
        assert run["opts"]["attempts"] == 3

    @pytest.mark.parametrize("data", [None, ODD_DATA, [1, "two"]])
    async def test_node_reads_the_same_data(self, shared: SharedQueue, data: Any) -> None:
        """Both languages write JSON, and no data is {} in both."""
        job = await shared.queue.add("in Node", data)
        read = await shared.node("getJob", job.id)
        assert read["data"] == ({} if data is None else data)

    async def test_node_runs_lifo_jobs_first_and_others_in_order(self, shared: SharedQueue) -> None:
        for number, lifo in enumerate([False, True, False, True, False]):
            await shared.queue.add("echo", {"value": number}, lifo=lifo)
        assert await values_of_node(shared, 5) == [3, 1, 0, 2, 4]

    async def test_node_runs_by_priority_and_no_priority_first(self, shared: SharedQueue) -> None:
        for value, priority in enumerate([5, 1, 5, 2_097_151, 0]):
            await shared.queue.add("echo", {"value": value}, priority=priority)
        assert await values_of_node(shared, 5) == [4, 1, 0, 2, 3]

    async def test_node_runs_a_delayed_job_when_it_is_due(self, shared: SharedQueue) -> None:
        """The marker of the delayed job wakes an idle worker in time."""
        worker = await shared.node_worker()
        job = await shared.queue.add("echo", {"value": 1}, delay=0.3)
        assert await shared.node("getJobState", job.id) == "delayed"
        (run,) = await shared.until_runs(worker, 1)
        late_ms = run["processedOn"] - job.record.created_ms - 300
        assert 0 <= late_ms < SOON_SECONDS * 1000

    async def test_a_delayed_job_with_priority_gets_prioritized(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("echo", {"value": "first"}, priority=3, delay=0.05)
        await shared.queue.add("hold")
        worker = await shared.node_worker(idle=False)
        await shared.until_runs(worker, 1)
        await shared.until_after(job.record.created_ms + 60)
        (hold,) = await shared.node("getActive")
        await shared.queue.add("echo", {"value": "before it"})
        await shared.peer.ask("release", job=hold["id"])
        runs = await shared.until_runs(worker, 3)
        assert [run["data"].get("value") for run in runs] == [None, "before it", "first"]
        assert shared.events_of(job.id) == ["added", "delayed", "waiting", "active", "completed"]

    async def test_an_existing_id_emits_duplicated(self, shared: SharedQueue) -> None:
        """The existing job is not changed."""
        events = await shared.node_events()
        await shared.queue.add("echo", {"value": 1}, job_id="order-1")
        await shared.queue.add("echo", {"value": 2}, job_id="order-1")
        heard = await shared.until_heard(events, "duplicated")
        assert [event["event"] for event in heard] == ["added", "waiting", "duplicated"]
        (job,) = await shared.node("getWaiting")
        assert (job["id"], job["data"]) == ("order-1", {"value": 1})

    async def test_two_node_workers_share_a_thousand(self, shared: SharedQueue) -> None:
        """Their ids are consecutive, and each has one event."""
        jobs = await shared.queue.add_many([("echo", {"value": n}) for n in range(1000)])
        first = int(jobs[0].id)
        assert [int(job.id) for job in jobs] == list(range(first, first + 1000))
        workers = [await shared.node_worker(idle=False, concurrency=20) for _ in range(2)]
        await shared.until_counts(completed=1000)
        runs = [run for worker in workers for run in await worker.runs()]
        assert sorted(run["data"]["value"] for run in runs) == list(range(1000))
        told = [entry["event"] for entry in shared.stream()]
        assert (told.count("added"), told.count("waiting")) == (1000, 1000)

    async def test_while_paused_it_waits_for_resume(self, shared: SharedQueue) -> None:
        worker = await shared.node_worker()
        await shared.node("pause")
        await shared.queue.add("echo", {"value": 1})
        assert await shared.node("getJobCounts", "waiting") == {"waiting": 1}
        await shared.node("resume")
        await shared.until_runs(worker, 1)

    @pytest.mark.parametrize("id", ["7", "0", "0:1", "a:b", "active", "meta", "de"])
    async def test_ids_that_break_the_queue_are_refused(self, shared: SharedQueue, id: str) -> None:
        """Numbers, which Node assigns, colons, which separate keys, and names of its keys."""
        with pytest.raises(InvalidOption):
            await shared.queue.add("echo", job_id=id)
        assert not shared.redis.exists(shared.key("id"), shared.key("wait"))

    async def test_the_counter_of_ids_advances_for_each_call(self, shared: SharedQueue) -> None:
        """Also for chosen ids and duplicates. Both languages use one key."""
        await shared.queue.add("echo")
        await shared.queue.add("echo", job_id="own")
        await shared.queue.add("echo", job_id="own")
        job = await shared.node("add", "echo", {})
        assert job["id"] == "4"
        assert (await shared.queue.add("echo")).id == "5"

    async def test_node_reads_the_options(self, shared: SharedQueue) -> None:
        """With the units and names of BullMQ."""
        job = await shared.queue.add(
            "echo",
            attempts=5,
            backoff=Exponential(2, jitter=0.25),
            keep_completed=Keep(count=10, age=60),
            keep_failed=False,
            priority=7,
            timeout=30,
        )
        opts = (await shared.node("getJob", job.id))["opts"]
        ours = opts.pop("hasten")
        assert opts == {
            "attempts": 5,
            "backoff": {"type": "exponential", "delay": 2000, "jitter": 0.25},
            "removeOnComplete": {"count": 10, "age": 60},
            "removeOnFail": True,
            "priority": 7,
        }
        assert ours["timeout"] == 30_000

    async def test_awaits_what_node_returns(self, shared: SharedQueue) -> None:
        await shared.node_worker()
        job = await shared.queue.add("echo", {"value": ODD_DATA})
        assert await job.result(timeout=30) == ODD_DATA


class TestNodeAdds:
    async def test_an_idle_python_worker_starts_it_at_once(self, shared: SharedQueue) -> None:
        """The marker wakes it, long before its own next check."""
        await shared.python_worker()
        started = time.monotonic()
        await shared.node("add", "echo", {"value": 1}, {"attempts": 3})
        (run,) = await shared.until_python_runs(1)
        assert time.monotonic() - started < SOON_SECONDS
        assert (run.name, run.data) == ("echo", '{"value":1}')

    async def test_python_reads_the_same_data(self, shared: SharedQueue) -> None:
        """Node escapes slashes, and Redis writes empty lists of options as objects."""
        await shared.python_worker()
        events = await shared.node_events()
        job = await shared.node("add", "echo", {"value": ODD_DATA})
        returned = await shared.node.job(job["id"], "waitUntilFinished", events.handle, 10_000)
        assert returned == ODD_DATA

    async def test_a_job_without_data_runs_with_defaults(self, shared: SharedQueue) -> None:
        await shared.python_worker()
        job = await shared.node("add", "echo")
        done = await shared.until_state(job["id"], State.COMPLETED)
        assert done.value is None

    async def test_python_runs_lifo_first_and_others_in_order(self, shared: SharedQueue) -> None:
        for number, lifo in enumerate([False, True, False, True, False]):
            await shared.node("add", "echo", {"value": number}, {"lifo": lifo})
        assert await values_of_python(shared, 5) == [3, 1, 0, 2, 4]

    async def test_python_runs_by_priority_and_no_priority_first(self, shared: SharedQueue) -> None:
        for value, priority in enumerate([5, 1, 5, 2_097_151, 0]):
            await shared.node("add", "echo", {"value": value}, {"priority": priority})
        assert await values_of_python(shared, 5) == [4, 1, 0, 2, 3]

    async def test_python_runs_a_delayed_job_when_it_is_due(self, shared: SharedQueue) -> None:
        await shared.python_worker()
        job = await shared.node("add", "echo", {}, {"delay": 300})
        read = await shared.until_state(job["id"], State.DELAYED)
        assert read.record.due_ms == job["timestamp"] + 300
        (run,) = await shared.until_python_runs(1)
        late_ms = (run.started_ms or 0) - job["timestamp"] - 300
        assert 0 <= late_ms < SOON_SECONDS * 1000

    async def test_a_delayed_job_with_priority_gets_prioritized(self, shared: SharedQueue) -> None:
        """A claim moves it when it is due. A worker that runs one job at a time shows that."""
        hold = await shared.node("add", "hold")
        await shared.python_worker(concurrency=1, idle=False)
        await shared.until_python_runs(1)
        job = await shared.node("add", "echo", {"value": "last"}, {"priority": 3, "delay": 10})
        await shared.node("add", "echo", {"value": "before it"})
        await shared.until_after(job["timestamp"] + 20)
        shared.release(hold["id"])
        await shared.until_state(job["id"], State.COMPLETED)
        assert [run.data for run in shared.python_runs[1:]] == [
            '{"value":"before it"}', '{"value":"last"}',
        ]  # fmt: skip

    async def test_a_bulk_is_run_once_each(self, shared: SharedQueue) -> None:
        bulk = [{"name": "echo", "data": {"value": n}} for n in range(300)]
        await shared.node("addBulk", bulk)
        await shared.python_worker()
        await shared.until_counts(completed=300)
        assert sorted(int(run.id) for run in shared.python_runs) == list(range(1, 301))

    async def test_an_id_of_its_own_is_known_to_python(self, shared: SharedQueue) -> None:
        """Python returns the existing job as a duplicate."""
        await shared.node("add", "echo", {"value": 1}, {"jobId": "order-1"})
        again = await shared.queue.add("echo", {"value": 2}, job_id="order-1")
        assert (await again.refresh()).data == {"value": 1}
        assert shared.events_of("order-1") == ["added", "waiting", "duplicated"]

    async def test_while_paused_it_waits_for_resume(self, shared: SharedQueue) -> None:
        await shared.python_worker()
        await shared.queue.pause()
        await shared.node("add", "echo", {"value": 1})
        assert (await shared.queue.counts())[State.WAITING] == 1
        assert not shared.python_runs
        await shared.queue.resume()
        await shared.until_python_runs(1)

    async def test_python_reads_the_options(self, shared: SharedQueue) -> None:
        """Redis has rounded Node's number for "forever". A bare backoff is a fixed one."""
        job = await shared.node(
            "add", "fail", {"message": "no", "times": 1},
            {"attempts": 2**53 - 1, "backoff": 20, "removeOnComplete": {"age": 3600, "count": 5}},
        )  # fmt: skip
        await shared.python_worker()
        done = await shared.until_state(job["id"], State.COMPLETED)
        assert (done.value, done.attempts_made) == ("at last", 2)
        assert done.record.tracebacks[0].rstrip().endswith("RuntimeError: no")


async def test_a_prefix_is_shared(server: RedisServer, peer: Peer) -> None:
    """With braces, all keys are in one slot of a cluster."""
    queue = Queue("mail", f"{server.url}?prefix={{shop}}")
    node = await peer.make("Queue", "prefixed queue", "mail", prefix="{shop}")
    one = await node("add", "echo", {"value": 1})
    other = await queue.add("echo", {"value": 2})
    assert [job.id for job in await queue.jobs("waiting")] == [one["id"], other.id]
    assert await node("getWaitingCount") == 2
    await queue.obliterate()
    await queue.aclose()


async def values_of_node(shared: SharedQueue, count: int) -> list[Any]:
    """Return the values in the order in which a Node worker runs them, one at a time."""
    worker = await shared.node_worker(idle=False)
    return [run["data"]["value"] for run in await shared.until_runs(worker, count)]


async def values_of_python(shared: SharedQueue, count: int) -> list[Any]:
    await shared.python_worker(concurrency=1, idle=False)
    runs = await shared.until_python_runs(count)
    return [json.loads(run.data)["value"] for run in runs]
