"""Flows of Python: Node sees them as its own, runs their jobs and changes them."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final

import pytest

from hasten.jobs import State
from hasten.jobs._options import DEFAULT_OPTIONS, merge_job_options
from hasten.jobs._record import (
    ChildCounts,
    JobTemplate,
    NewJob,
    OnFailure,
    ParentLink,
    Parked,
)
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import complete, now_ms, start, take, troubles
from tests.interop.test_flows import dependencies, picture
from tests.interop.test_reading import Board

_numbers: Final = itertools.count(1)


@pytest.fixture
async def parents(shared: SharedQueue) -> SharedQueue:
    """The queue of the parents. The children are in `shared`."""
    parents = shared.beside()
    await parents.open()
    return parents


def new(
    shared: SharedQueue,
    id: str,
    task: str = "echo",
    data: dict[str, Any] | None = None,
    *,
    parent: ParentLink | None = None,
    **options: Any,
) -> NewJob:
    checked = merge_job_options(options, DEFAULT_OPTIONS, now_ms=now_ms())
    template = JobTemplate.of(task, checked, now_ms=now_ms())
    return NewJob(shared.name, template, json.dumps(data or {}), id, parent)


async def add(*jobs: NewJob, to: SharedQueue) -> None:
    await to.queue.engine.add_flow(jobs, now_ms=now_ms())


async def add_pair(
    shared: SharedQueue,
    parents: SharedQueue,
    *on_failure: OnFailure,
    task: str = "gather",
    **options: Any,
) -> tuple[str, list[str]]:
    """Add a parent with a child for each policy. The first child fails, the others are delayed."""
    tree = f"tree{next(_numbers)}"
    root, ids = f"{tree}-0", [f"{tree}-{n}" for n, _ in enumerate(on_failure, 1)]
    jobs = [new(parents, root, task, **options)]
    for n, (id, policy) in enumerate(zip(ids, on_failure, strict=True), 1):
        link = ParentLink(parents.name, root, policy)
        first = n == 1
        name, data = ("give_up", {"n": n, "message": "no"}) if first else ("echo", {"value": n})
        given = {"priority": 1} if first else {"delay": 60}
        jobs.append(new(shared, id, name, data, parent=link, **given))
    await add(*jobs, to=parents)
    return root, ids


class TestReading:
    async def test_node_reads_the_tree(self, shared: SharedQueue, parents: SharedQueue) -> None:
        """Three levels in three queues."""
        leaves = shared.beside()
        await leaves.open()
        await add(
            new(parents, "t-0", "gather"),
            new(shared, "t-1", "gather", parent=ParentLink(parents.name, "t-0")),
            new(leaves, "t-2", parent=ParentLink(shared.name, "t-1", "ignore")),
            new(leaves, "t-3", parent=ParentLink(shared.name, "t-1", "wait")),
            to=parents,
        )  # fmt: skip
        flow = await shared.peer.make("FlowProducer", f"{shared.name} flow")
        tree = await flow("getFlow", {"queueName": parents.name, "id": "t-0"})
        (middle,) = tree["children"]
        assert (tree["job"]["id"], middle["job"]["id"]) == ("t-0", "t-1")
        assert sorted(leaf["job"]["id"] for leaf in middle["children"]) == ["t-2", "t-3"]
        assert await parents.node.job("t-0", "getState") == "waiting-children"
        assert await parents.node.job("t-0", "getDependenciesCount") == {
            "processed": 0, "unprocessed": 1, "ignored": 0, "failed": 0,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("on_failure", "option"),
        [
            ("fail", "failParentOnFailure"), ("continue", "continueParentOnFailure"),
            ("ignore", "ignoreDependencyOnFailure"), ("remove", "removeDependencyOnFailure"),
            ("wait", None),
        ],
    )  # fmt: skip
    async def test_the_hash_of_a_child_is_that_of_node(
        self,
        shared: SharedQueue,
        parents: SharedQueue,
        on_failure: OnFailure,
        option: str | None,
    ) -> None:
        link = ParentLink(parents.name, "ours-0", on_failure)
        await add(
            new(parents, "ours-0"), new(shared, "ours-1", data={"n": 1}, parent=link), to=parents
        )
        flow = await shared.peer.make("FlowProducer", f"{shared.name} flow")
        opts = {"jobId": "theirs-1"} | ({option: True} if option else {})
        one = {"name": "echo", "data": {"n": 1}, "queueName": shared.name, "opts": opts}
        root = {"name": "echo", "queueName": parents.name, "opts": {"jobId": "theirs-0"}}
        await flow("add", {**root, "children": [one]})
        ours, theirs = _facts(shared.hash("ours-1")), _facts(shared.hash("theirs-1"))
        assert ours["parent"] == {**theirs["parent"], "id": "ours-0"}
        assert ours["parentKey"] == parents.key("ours-0")
        assert ours["opts"]["parent"] == {**theirs["opts"]["parent"], "id": "ours-0"}
        flags = {"fpof", "cpof", "idof", "rdof"}
        assert ours["opts"].keys() & flags == theirs["opts"].keys() & flags
        assert ours.keys() == theirs.keys()

    async def test_python_reads_the_children_of_a_flow_of_node(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        flow = await shared.peer.make("FlowProducer", f"{shared.name} flow")
        one = {"queueName": shared.name}
        children = [
            {**one, "name": "echo", "data": {"value": {"a": 1}}, "opts": {"jobId": "a"}},
            {
                **one, "name": "give_up", "data": {"message": "no"},
                "opts": {"jobId": "b", "ignoreDependencyOnFailure": True},
            },
            {
                **one, "name": "give_up", "data": {"message": "never"},
                "opts": {"jobId": "c", "failParentOnFailure": True},
            },
            {**one, "name": "echo", "opts": {"jobId": "d", "delay": 60_000}},
        ]  # fmt: skip
        root = {"name": "gather", "queueName": parents.name, "opts": {"jobId": "root"}}
        await flow("add", {**root, "children": children})
        await shared.node_worker(idle=False)
        await shared.until_counts(completed=1, failed=2, delayed=1)
        engine = parents.queue.engine
        found = {one.id: one for one in await engine.children(parents.name, "root", limit=10)}
        told = {id: (one.outcome, one.value, one.error) for id, one in found.items()}
        assert told == {
            "a": ("completed", '{"a":1}', None), "b": ("ignored", None, "no"),
            "c": ("failed", None, "never"), "d": ("pending", None, None),
        }  # fmt: skip
        assert {id: one.on_failure for id, one in found.items()} == {
            "a": "wait", "b": "ignore", "c": "fail", "d": "wait",
        }  # fmt: skip
        assert {one.queue for one in found.values()} == {shared.name}
        counted = await engine.count_children(parents.name, "root")
        assert counted == ChildCounts(pending=1, completed=1, ignored=1, failed=1)
        (record,) = await engine.get(shared.name, ["c"])
        assert record is not None
        assert record.parent == ParentLink(parents.name, "root", "fail")

    async def test_bull_board_shows_the_tree(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        links = [ParentLink(shared.name, "t-0", policy) for policy in ("ignore", "fail")]
        await add(
            new(shared, "t-0", "gather"), new(shared, "t-1", delay=60, parent=links[0]),
            new(shared, "t-2", priority=3, parent=links[1]), to=shared,
        )  # fmt: skip
        board = await Board.of(shared)
        tree = await board.get(f"/{shared.name}/t-1/flow")
        text = json.dumps(tree)
        assert all(f'"{id}"' in text for id in ("t-0", "t-1", "t-2"))
        assert '"waiting-children"' in text


class TestRunning:
    async def test_node_runs_all_levels(self, shared: SharedQueue, parents: SharedQueue) -> None:
        await add(
            new(parents, "t-0", "gather"),
            new(shared, "t-1", "gather", parent=ParentLink(parents.name, "t-0")),
            new(shared, "t-2", data={"value": 2}, parent=ParentLink(shared.name, "t-1")),
            new(shared, "t-3", data={"value": 3}, parent=ParentLink(shared.name, "t-1")),
            to=parents,
        )  # fmt: skip
        await parents.node_worker()
        await shared.node_worker(idle=False)
        done = await parents.until_state("t-0", State.COMPLETED)
        assert done.value == [[2, 3]]
        assert parents.events_of("t-0") == [
            "added", "waiting-children", "waiting", "active", "completed",
        ]  # fmt: skip
        assert troubles(shared) == troubles(parents) == []

    async def test_node_starts_children_at_once(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        """Idle workers wait for a marker: without it they would check after a minute."""
        worker = await shared.node_worker()
        await add_pair(shared, parents, "fail")
        await shared.until_runs(worker, 1)

    @pytest.mark.parametrize("language", ["python", "node"])
    @pytest.mark.parametrize(
        ("options", "place"), [({"delay": 60}, "delayed"), ({"priority": 5}, "prioritized")]
    )
    async def test_a_released_parent_has_its_delay_and_priority(
        self,
        shared: SharedQueue,
        parents: SharedQueue,
        language: str,
        options: dict[str, Any],
        place: str,
    ) -> None:
        parent, (only,) = await add_pair(shared, parents, "ignore", **options)
        assert await parents.node.job(parent, "getState") == "waiting-children"
        await start(shared, language)
        await shared.until_state(only, State.FAILED)
        assert parents.ids(place) == [parent]

    @pytest.mark.parametrize("on_failure", ["fail", "continue", "ignore", "remove", "wait"])
    async def test_each_policy_leaves_the_same_keys(
        self, shared: SharedQueue, parents: SharedQueue, on_failure: OnFailure
    ) -> None:
        """Whichever language runs the child of a flow of Python."""
        pictures = []
        for language in "python", "node":
            parent, ids = await add_pair(shared, parents, on_failure, "fail")
            await start(shared, language)
            await shared.until_state(ids[0], State.FAILED)
            await shared.close_workers()
            pictures.append(picture(shared, parents, parent, ids))
        assert pictures[0] == pictures[1]

    async def test_node_fails_the_tree_up_to_the_root(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        await add(
            new(parents, "t-0", "gather"),
            new(shared, "t-1", "gather", parent=ParentLink(parents.name, "t-0")),
            new(shared, "t-2", "give_up", {"message": "no"}, parent=ParentLink(shared.name, "t-1")),
            to=parents,
        )  # fmt: skip
        worker = await parents.node_worker(idle=False)
        await shared.node_worker(idle=False)
        failed = await parents.until_state("t-0", State.FAILED)
        assert failed.error == f"child {shared.key('t-1')} failed"
        assert await worker.runs() == []

    async def test_a_parent_in_node_reads_results_and_ignored_errors(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        links = [ParentLink(parents.name, "t-0", "ignore")] * 2
        await add(
            new(parents, "t-0", "gather"), new(shared, "t-1", data={"value": 7}, parent=links[0]),
            new(shared, "t-2", "give_up", {"message": "out of ink"}, parent=links[1]), to=parents,
        )  # fmt: skip
        await shared.python_worker(idle=False)
        await parents.until_state("t-0", State.WAITING)
        values = await parents.node.job("t-0", "getChildrenValues")
        assert values == {shared.key("t-1"): 7}
        ignored = await parents.node.job("t-0", "getIgnoredChildrenFailures")
        assert list(ignored) == [shared.key("t-2")]
        assert "out of ink" in ignored[shared.key("t-2")]


class TestChanging:
    async def test_the_last_child_that_node_removes_releases_its_parent(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        parent, (only,) = await add_pair(shared, parents, "fail")
        await shared.node.job(only, "remove")
        await parents.until_state(parent, State.WAITING)

    async def test_a_child_that_node_retries_is_pending_again(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        parent, (failing, _) = await add_pair(shared, parents, "ignore", "fail")
        await shared.python_worker(idle=False)
        await shared.until_state(failing, State.FAILED)
        await shared.close_workers()
        assert dependencies(parents, parent) == {shared.key(f"{parent[:-1]}2")}
        await shared.node.job(failing, "retry", "failed")
        assert len(dependencies(parents, parent)) == 2

    async def test_node_removes_a_tree(self, shared: SharedQueue, parents: SharedQueue) -> None:
        """Nothing is left of it, also not of the order of children that only hasten stores."""
        ids = ["z", "y", "x"]
        link = ParentLink(parents.name, "root")
        children = [new(shared, id, parent=link, delay=60) for id in ids]
        await add(new(parents, "root", "gather"), *children, to=parents)
        found = await parents.queue.engine.children(parents.name, "root", limit=10)
        assert [one.id for one in found] == ids
        await parents.node.job("root", "remove")
        assert troubles(shared) == troubles(parents) == []
        assert set((await shared.queue.counts()).values()) == {0}

    async def test_node_sweeps_no_job_of_a_flow(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        parent, ids = await add_pair(shared, parents, "fail", "ignore")
        assert await parents.node("removeOrphanedJobs") == 0
        assert await shared.node("removeOrphanedJobs") == 0
        assert parents.hash(parent)
        assert all(shared.hash(id) for id in ids)

    async def test_node_obliterates_the_queues(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        await add_pair(shared, parents, "fail", "ignore")
        await shared.node("obliterate", {"force": True})
        await parents.node("obliterate", {"force": True})
        assert troubles(shared) == troubles(parents) == []


class TestBullBoard:
    """The tree of a flow of ours, and the buttons of a failed child."""

    async def fail_a_child(self, shared: SharedQueue, on_failure: OnFailure) -> Board:
        """Add a parent with a child that fails at first, and a delayed one."""
        link = ParentLink(shared.name, "t-0", on_failure)
        await add(
            new(shared, "t-0", data={"value": "end"}),
            new(shared, "t-1", "fail", {"message": "no", "times": 1}, parent=link),
            new(shared, "t-2", data={"value": 2}, parent=link, delay=60),
            to=shared,
        )
        await shared.python_worker(idle=False)
        await shared.until_state("t-1", State.FAILED)
        return await Board.of(shared)

    async def test_it_shows_the_states(self, shared: SharedQueue) -> None:
        board = await self.fail_a_child(shared, "ignore")
        for id in "t-0", "t-1", "t-2":
            tree = await board.get(f"/{shared.name}/{id}/flow")
            assert states_in(tree["flowRoot"]) == {
                "t-0": "waiting-children", "t-1": "failed", "t-2": "delayed"
            }  # fmt: skip

    @pytest.mark.parametrize(
        ("on_failure", "before", "after", "children"),
        [
            ("fail", State.FAILED, State.FAILED, 2),
            ("continue", State.COMPLETED, State.COMPLETED, 2),
            ("ignore", State.WAITING_CHILDREN, State.COMPLETED, 2),
            ("remove", State.WAITING_CHILDREN, State.COMPLETED, 1),
            ("wait", State.WAITING_CHILDREN, State.COMPLETED, 2),
        ],
    )
    async def test_its_retry_button(
        self,
        shared: SharedQueue,
        on_failure: OnFailure,
        before: State,
        after: State,
        children: int,
    ) -> None:
        """The states of the parent are those before the last child ends, and after that."""
        board = await self.fail_a_child(shared, on_failure)
        await shared.until_state("t-0", before)
        await board.put(f"/{shared.name}/t-1/retry")
        await shared.until_state("t-1", State.COMPLETED)
        await shared.until_state("t-0", before)
        await board.put(f"/{shared.name}/t-2/promote")
        await shared.until_state("t-2", State.COMPLETED)
        await shared.until_state("t-0", after)
        counted = await shared.queue.engine.count_children(shared.name, "t-0")
        assert counted == ChildCounts(completed=children)
        assert troubles(shared) == []

    @pytest.mark.parametrize(
        ("on_failure", "before", "after"),
        [
            ("fail", State.FAILED, State.FAILED),
            ("continue", State.COMPLETED, State.COMPLETED),
            ("ignore", State.COMPLETED, State.COMPLETED),
            ("remove", State.COMPLETED, State.COMPLETED),
            ("wait", State.WAITING_CHILDREN, State.COMPLETED),
        ],
    )
    async def test_its_remove_button(
        self, shared: SharedQueue, on_failure: OnFailure, before: State, after: State
    ) -> None:
        """The states of the parent are those before and after the failed child is removed."""
        board = await self.fail_a_child(shared, on_failure)
        await board.put(f"/{shared.name}/t-2/promote")
        await shared.until_state("t-2", State.COMPLETED)
        await shared.until_state("t-0", before)
        await board.put(f"/{shared.name}/t-1/clean")
        assert await shared.queue.get("t-1") is None
        await shared.until_state("t-0", after)
        assert troubles(shared) == []


class TestParking:
    async def test_node_runs_the_children_of_a_parked_job(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        """A job with steps: it waits in the middle of its work, and costs one attempt."""
        job = await parents.queue.add("echo", {"value": "end"})
        assert await take(parents) == [job.id]
        link = ParentLink(parents.name, job.id)
        children = [new(shared, f"{job.id}-1-{n}", data={"value": n}, parent=link) for n in (1, 2)]
        parked = Parked(job.id, "a token", children, 1)
        await parents.queue.engine.settle(parents.name, [parked], None, now_ms=now_ms())
        assert await parents.node.job(job.id, "getState") == "waiting-children"
        assert not parents.redis.exists(parents.key(f"{job.id}:lock"))
        await shared.node_worker(idle=False)
        await parents.until_state(job.id, State.WAITING)
        values = await parents.node.job(job.id, "getChildrenValues")
        assert sorted(values.values()) == [1, 2]
        assert await take(parents) == [job.id]
        await complete(parents, job.id)
        fields = parents.hash(job.id)
        assert (fields["ats"], fields["atm"]) == ("2", "1")
        assert troubles(shared) == troubles(parents) == []

    async def test_python_runs_the_children_of_a_parked_job_of_node(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        await parents.node_worker(idle=False)
        added = await parents.node("add", "step", {"queue": shared.name, "value": 5}, {})
        await shared.python_worker(idle=False)
        done = await parents.until_state(added["id"], State.COMPLETED)
        assert done.value == [5]
        fields = parents.hash(added["id"])
        assert (fields["ats"], fields["atm"]) == ("2", "1")

    async def test_a_parent_that_ignores_a_failure_completes_before_the_others(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        parent, _ = await add_pair(shared, parents, "continue", "fail", task="echo")
        await shared.node_worker(idle=False)
        await parents.python_worker(idle=False)
        await parents.until_state(parent, State.COMPLETED)
        assert troubles(shared) == troubles(parents) == []


def states_in(node: Any) -> dict[str, str]:
    """Return the states of all jobs of a tree of Bull Board, by id."""
    states = {node["id"]: node["state"]}
    for child in node["children"]:
        states |= states_in(child)
    return states


def _facts(fields: dict[str, str]) -> dict[str, Any]:
    """Return the fields of a job's hash, with decoded JSON."""
    decoded: dict[str, Any] = dict(fields)
    for name in ("parent", "opts"):
        decoded[name] = json.loads(fields[name])
    return decoded
