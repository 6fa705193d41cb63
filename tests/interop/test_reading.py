"""What each language reads from a queue, and what Bull Board shows."""

from __future__ import annotations

import asyncio
import json
import random
import urllib.error
import urllib.request
from typing import Any, Final

import pytest

from hasten.jobs import Keep, State
from hasten.jobs._options import JobOptions
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import fill, take

NODE_STATES: Final = {
    State.WAITING: "waiting",
    State.ACTIVE: "active",
    State.PRIORITIZED: "prioritized",
    State.DELAYED: "delayed",
    State.WAITING_CHILDREN: "waiting-children",
    State.COMPLETED: "completed",
    State.FAILED: "failed",
}


async def some_of_everything(shared: SharedQueue, count: int = 100) -> None:
    """Add jobs of both languages in all states, in random order."""
    chance = random.Random(7)
    options: list[JobOptions] = [
        {},
        {"priority": 3},
        {"priority": 1},
        {"delay": 60},
        {"lifo": True},
    ]
    finished = [("echo", {"value": n}) for n in range(count // 4)]
    failing = [("fail", {"message": "no"})] * (count // 4)
    await shared.queue.add_many([*finished, *failing])
    await shared.python_worker(idle=False, keep_failed=Keep())
    await shared.until_counts(completed=len(finished), failed=len(failing))
    await shared.close_workers()
    await shared.queue.add_many([
        ("echo", {"value": n}, chance.choice(options)) for n in range(count // 2)
    ])  # fmt: skip
    await take(shared, count // 8)
    flow = await shared.peer.make("FlowProducer", f"{shared.name} flow")
    child = {"name": "echo", "queueName": shared.name}
    for _ in range(3):
        await flow("add", {"name": "gather", "queueName": shared.name, "children": [child]})


class TestGetters:
    async def test_counts_and_states_are_the_same(self, shared: SharedQueue) -> None:
        await some_of_everything(shared)
        counts = await shared.queue.counts()
        assert counts[State.WAITING_CHILDREN] == 3
        by_node = await shared.node("getJobCounts")
        assert {NODE_STATES[state]: count for state, count in counts.items()} == {
            state: by_node[state] for state in NODE_STATES.values()
        }
        for state in State:
            for job in await shared.queue.jobs(state, limit=5):
                assert await shared.node("getJobState", job.id) == NODE_STATES[state]

    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize("state", State)
    async def test_pages_agree(self, shared: SharedQueue, state: State, newest_first: bool) -> None:
        await some_of_everything(shared, 40)
        for start, count in (0, 100), (0, 3), (2, 4):
            ours = await shared.queue.jobs(
                state, offset=start, limit=count, newest_first=newest_first
            )
            last = start + count - 1
            theirs = await shared.node(
                "getJobs", [NODE_STATES[state]], start, last, not newest_first
            )
            assert [job.id for job in ours] == [job["id"] for job in theirs]
            assert len(ours) > 1 or start > 0

    async def test_a_job_has_the_same_facts(self, shared: SharedQueue) -> None:
        await some_of_everything(shared, 40)
        for state in State:
            for ours in await shared.queue.jobs(state, limit=3):
                theirs = await shared.node("getJob", ours.id)
                record = ours.record
                assert theirs["name"] == record.name
                assert theirs["data"] == ours.data
                assert theirs["timestamp"] == record.created_ms
                assert theirs.get("processedOn") == record.started_ms
                assert theirs.get("finishedOn") == record.finished_ms
                assert theirs.get("processedBy") == record.worker
                assert theirs["priority"] == record.priority
                assert theirs["delay"] == record.delay_ms
                assert theirs["attemptsMade"] == record.attempts_made
                assert theirs["attemptsStarted"] == record.attempts_started
                assert theirs.get("failedReason") == record.error
                assert theirs.get("returnvalue") == ours.value
                assert (theirs.get("stacktrace") or []) == record.tracebacks

    async def test_node_reads_logs_that_python_wrote(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("report", {"progress": 1, "lines": ["a", "b", "c"]})
        await shared.python_worker(idle=False)
        await shared.until_state(job.id, State.COMPLETED)
        assert await shared.node("getJobLogs", job.id, 0, 1) == {"logs": ["a", "b"], "count": 3}

    async def test_node_knows_that_python_has_paused(self, shared: SharedQueue) -> None:
        assert not await shared.node("isPaused")
        await shared.queue.pause()
        assert await shared.node("isPaused")

    async def test_node_counts_each_python_worker_once(self, shared: SharedQueue) -> None:
        """By the name of its blocking connection, while that is open."""
        first = await shared.python_worker(name="ada")
        await shared.python_worker(name="grace hopper")
        await shared.node_worker(name="nodette")
        workers = await shared.node("getWorkers")
        names = sorted(worker["rawname"].rpartition(":w:")[2] for worker in workers)
        assert names == ["ada", "grace-hopper", "nodette"]
        assert await shared.node("getWorkersCount") == 3
        await first.stop()

        async def one_less() -> bool:  # once the server has seen the connection's end
            return bool(await shared.node("getWorkersCount") == 2)

        await shared.until_true(one_less)

    async def test_a_new_node_queue_changes_only_its_settings(self, shared: SharedQueue) -> None:
        await some_of_everything(shared, 40)
        before = await shared.queue.counts()
        await shared.node("setGlobalConcurrency", 5)
        await shared.queue.pause()
        await shared.peer.make("Queue", f"{shared.name} second", shared.name)
        assert await shared.queue.counts() == before
        assert await shared.queue.is_paused()
        assert shared.redis.hget(shared.key("meta"), "concurrency") == "5"

    async def test_python_finds_the_queues_of_node(self, shared: SharedQueue) -> None:
        await shared.node("add", "echo")
        assert shared.name in await shared.queue.engine.queues()


class TestBullBoard:
    async def test_it_lists_the_jobs_of_each_state(self, shared: SharedQueue) -> None:
        await some_of_everything(shared, 40)
        board = await Board.of(shared)
        for state, shown_as in NODE_STATES.items():
            (queue,) = (await board.get(status=shown_as))["queues"]
            ours = {job.id for job in await shared.queue.jobs(state)}
            assert ours
            assert queue["counts"][shown_as] == len(ours)
            assert {job["id"] for job in queue["jobs"]} <= ours
            assert queue["jobs"]

    async def test_it_shows_a_job_of_ours(self, shared: SharedQueue) -> None:
        job = await shared.queue.add(
            "report", {"progress": 30, "lines": ["a line"]}, timeout=60, expires=600
        )
        await shared.python_worker(idle=False)
        await shared.until_state(job.id, State.COMPLETED)
        board = await Board.of(shared)
        page = await board.get(f"/{shared.name}/{job.id}")
        assert page["status"] == "completed"
        assert page["job"]["data"] == {"progress": 30, "lines": ["a line"]}
        assert page["job"]["returnValue"] == "reported"
        assert page["job"]["progress"] == 30
        assert await board.get(f"/{shared.name}/{job.id}/logs") == ["a line"]

    async def test_it_shows_why_a_job_has_failed(self, shared: SharedQueue) -> None:
        job = await shared.queue.add("fail", {"message": "näh"})
        await shared.python_worker(idle=False)
        await shared.until_state(job.id, State.FAILED)
        page = await (await Board.of(shared)).get(f"/{shared.name}/{job.id}")
        assert page["status"] == "failed"
        assert page["job"]["failedReason"] == "RuntimeError: näh"
        assert any("raise RuntimeError" in trace for trace in page["job"]["stacktrace"])

    async def test_no_key_of_ours_confuses_it(self, shared: SharedQueue) -> None:
        """With jobs in each state, and a request to cancel."""
        await fill(shared)
        running = await shared.queue.add("hold")
        await shared.python_worker(idle=False)
        await shared.until(lambda: running.id in shared.ids("active"))
        # A waiting job: a running one would be cancelled before the board reads it.
        shared.redis.sadd(shared.key("hasten:cancelled"), "another")
        board = await Board.of(shared)
        for path in (
            "", f"/{shared.name}/workers", f"/{shared.name}/metrics", f"/{shared.name}/rate-limit",
            f"/{shared.name}/{running.id}", f"/{shared.name}/{running.id}/logs",
            f"/{shared.name}/{running.id}/flow",
        ):  # fmt: skip
            await board.get(path)
        (queue,) = (await board.get(status="latest"))["queues"]
        assert {"active", "completed", "failed", "delayed"} <= {
            state for state, count in queue["counts"].items() if count
        }

    async def test_it_lists_our_workers(self, shared: SharedQueue) -> None:
        await shared.python_worker(name="ada")
        listed = await (await Board.of(shared)).get(f"/{shared.name}/workers")
        assert "ada" in json.dumps(listed)

    async def test_its_buttons_work_on_our_jobs(self, shared: SharedQueue) -> None:
        """Retry, promote, clean, pause and resume."""
        await shared.queue.add_many([("fail", {"message": "no", "times": 1})] * 2)
        late = await shared.queue.add("echo", delay=60)
        await shared.python_worker(idle=False)
        await shared.until_counts(failed=2)
        board = await Board.of(shared)
        await board.put(f"/{shared.name}/retry/failed")
        await board.put(f"/{shared.name}/{late.id}/promote")
        await shared.until_counts(failed=0, completed=3)
        await board.put(f"/{shared.name}/pause")
        assert await shared.queue.is_paused()
        await board.put(f"/{shared.name}/resume")
        assert not await shared.queue.is_paused()
        await board.put(f"/{shared.name}/{late.id}/clean")
        assert await shared.queue.get(late.id) is None

    async def test_its_button_that_deletes_a_job_frees_its_key(self, shared: SharedQueue) -> None:
        """The deduplication key, which is free for the next job."""
        job = await shared.queue.add("echo", {"value": 1}, unique="ada")
        assert shared.redis.get(shared.key("de:echo:ada")) == job.id
        await (await Board.of(shared)).put(f"/{shared.name}/{job.id}/clean")
        assert await shared.queue.get(job.id) is None
        assert not shared.redis.exists(shared.key("de:echo:ada"))


class Board:
    """The HTTP interface of Bull Board."""

    def __init__(self, port: int, queue: str) -> None:
        self._queue = queue
        self._url = f"http://127.0.0.1:{port}/api/queues"

    @classmethod
    async def of(cls, shared: SharedQueue) -> Board:
        """Start a board that shows one queue."""
        return cls(await shared.peer.ask("board", handles=[shared.node.handle]), shared.name)

    async def get(self, path: str = "", *, status: str | None = None) -> Any:
        """Return the data of a page: of a queue, or of its jobs in one state."""
        query = ""
        if status is not None:
            query = f"?activeQueue={self._queue}&status={status}&page=1&jobsPerPage=20"
        return await asyncio.to_thread(self._ask, "GET", path + query)

    async def put(self, path: str) -> None:
        """Press a button."""
        await asyncio.to_thread(self._ask, "PUT", path)

    def _ask(self, method: str, path: str) -> Any:
        request = urllib.request.Request(self._url + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}") from None
