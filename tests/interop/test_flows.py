"""Flows of Node: how the end of a child in Python affects its parent."""

from __future__ import annotations

from typing import Any

import pytest

from hasten.jobs import State
from tests.interop.peer import NodeError
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import complete, take, troubles


@pytest.fixture
async def parents(shared: SharedQueue) -> SharedQueue:
    """The queue of the parents. The children are in `shared`."""
    parents = shared.beside()
    await parents.open()
    return parents


async def add_flow(
    shared: SharedQueue,
    parents: SharedQueue,
    *children: dict[str, Any],
    name: str = "gather",
    **options: Any,
) -> tuple[str, list[str]]:
    """Add a parent with these children. Returns its id and the ids of the children."""
    flow = await shared.peer.make("FlowProducer", f"{shared.name} flow")
    tree = await flow(
        "add",
        {
            "name": name,
            "queueName": parents.name,
            "opts": options,
            "children": [{"queueName": shared.name, **child} for child in children],
        },
    )
    ids = {child["job"]["data"].get("n"): child["job"]["id"] for child in tree["children"]}
    return tree["job"]["id"], [ids[n] for n in sorted(ids)]


def child(n: int = 0, *, task: str = "echo", **options: Any) -> dict[str, Any]:
    """A child that returns its number or fails."""
    data = {"n": n, "value": n, "message": "no"}
    fitting = {"echo": ["n", "value"], "give_up": ["n", "message"], "hold": ["n"]}[task]
    return {"name": task, "data": {name: data[name] for name in fitting}, "opts": options}


class TestReleasing:
    async def test_once_by_the_last_child(self, shared: SharedQueue, parents: SharedQueue) -> None:
        """Node's parent reads the results of Python's children."""
        parent, _ = await add_flow(shared, parents, child(1), child(2), child(3))
        await parents.node_worker()
        await shared.python_worker(idle=False)
        done = await parents.until_state(parent, State.COMPLETED)
        assert done.value == [1, 2, 3]
        assert parents.events_of(parent) == [
            "added", "waiting-children", "waiting", "active", "completed",
        ]  # fmt: skip

    async def test_parent_goes_in_front(self, shared: SharedQueue, parents: SharedQueue) -> None:
        parent, (only,) = await add_flow(shared, parents, child(1))
        await parents.queue.add("echo")
        await take(shared)
        await complete(shared, only)
        assert await take(parents) == [parent]

    @pytest.mark.parametrize(
        ("options", "place"), [({"delay": 60_000}, "delayed"), ({"priority": 5}, "prioritized")]
    )
    async def test_a_released_parent_has_its_delay_and_priority(
        self, shared: SharedQueue, parents: SharedQueue, options: dict[str, Any], place: str
    ) -> None:
        parent, (only,) = await add_flow(shared, parents, child(1), **options)
        await take(shared)
        await complete(shared, only)
        assert parents.ids(place) == [parent]
        assert parents.redis.exists(parents.key("marker"))

    async def test_levels_run_bottom_up(self, shared: SharedQueue, parents: SharedQueue) -> None:
        """The middle job is a child and a parent, and runs in Python."""
        leaf = {"queueName": shared.name, **child(1)}
        parent, (middle,) = await add_flow(shared, parents, {**child(2), "children": [leaf]})
        await parents.node_worker()
        await shared.python_worker(idle=False)
        done = await parents.until_state(parent, State.COMPLETED)
        assert done.value == [2]
        assert [run.id for run in shared.python_runs][-1] == middle

    async def test_python_runs_the_parent(self, shared: SharedQueue, parents: SharedQueue) -> None:
        parent, _ = await add_flow(shared, parents, child(1), name="echo")
        await parents.python_worker()
        await shared.node_worker(idle=False)
        await parents.until_state(parent, State.COMPLETED)

    async def test_waits_for_retried_child(self, shared: SharedQueue, parents: SharedQueue) -> None:
        parent, (first, _) = await add_flow(shared, parents, child(1), child(2))
        assert await take(shared) == [first]
        await complete(shared, first)
        assert len(dependencies(parents, parent)) == 1
        await shared.queue.retry(first)
        assert len(dependencies(parents, parent)) == 2
        assert not parents.redis.exists(parents.key(f"{parent}:processed"))

    async def test_counts_unkept_children(self, shared: SharedQueue, parents: SharedQueue) -> None:
        parent, (only,) = await add_flow(shared, parents, child(1, removeOnComplete=True))
        await shared.python_worker(idle=False)
        await parents.until_state(parent, State.WAITING)
        assert not shared.hash(only)
        values = await parents.node.job(parent, "getChildrenValues")
        assert list(values.values()) == [1]


class TestFailing:
    """A failed child has the same effect as with a Node worker."""

    @pytest.mark.parametrize(
        "policy",
        [
            "failParentOnFailure", "continueParentOnFailure", "ignoreDependencyOnFailure",
            "removeDependencyOnFailure", "none",
        ],
    )  # fmt: skip
    async def test_each_policy_leaves_the_same_keys(
        self, shared: SharedQueue, parents: SharedQueue, policy: str
    ) -> None:
        options = {} if policy == "none" else {policy: True}
        pictures = []
        for language in "python", "node":
            parent, (failing, other) = await add_flow(
                shared, parents, child(1, task="give_up", priority=1, **options),
                child(2, delay=60_000),
            )  # fmt: skip
            if language == "python":
                await shared.python_worker(idle=False)
            else:
                await shared.node_worker(idle=False)
            await shared.until_state(failing, State.FAILED)
            await shared.close_workers()
            pictures.append(picture(shared, parents, parent, [failing, other]))
        assert pictures[0] == pictures[1]

    @pytest.mark.parametrize(
        "policy", ["failParentOnFailure", "ignoreDependencyOnFailure", "removeDependencyOnFailure"]
    )
    async def test_a_child_that_is_retried_is_pending_again(
        self, shared: SharedQueue, parents: SharedQueue, policy: str
    ) -> None:
        pictures = []
        for language in "python", "node":
            failing = child(1, task="give_up", priority=1, **{policy: True})
            parent, ids = await add_flow(shared, parents, failing, child(2, delay=60_000))
            await shared.python_worker(idle=False)
            await shared.until_state(ids[0], State.FAILED)
            await shared.close_workers()
            if language == "python":
                await shared.queue.retry(ids[0])
            else:
                await shared.node.job(ids[0], "retry")
            pictures.append(picture(shared, parents, parent, ids))
            await shared.queue.drain()
        assert pictures[0] == pictures[1]

    async def test_goes_up_two_levels(self, shared: SharedQueue, parents: SharedQueue) -> None:
        """The error of each parent names its own child."""
        leaf = {"queueName": shared.name, **child(1, task="give_up", failParentOnFailure=True)}
        root, (middle,) = await add_flow(
            shared, parents, {**child(2, failParentOnFailure=True), "children": [leaf]}
        )
        await shared.python_worker(idle=False)
        await parents.python_worker(idle=False)
        failed = await parents.until_state(root, State.FAILED)
        assert failed.error == f"child {shared.key(middle)} failed"
        assert not parents.python_runs

    async def test_a_failed_child_that_is_not_kept_releases_its_parent(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        """Because it can no longer be retried."""
        parent, _ = await add_flow(shared, parents, child(1, task="give_up", removeOnFail=True))
        await shared.python_worker(idle=False)
        await parents.until_state(parent, State.WAITING)

    async def test_fails_a_running_parent(self, shared: SharedQueue, parents: SharedQueue) -> None:
        """The child was added while the parent ran, and failed before the parent completed."""
        parent = await parents.queue.add("echo")
        await take(parents)
        belongs = {"parent": {"id": parent.id, "queue": f"bull:{parents.name}"}}
        options = {**belongs, "failParentOnFailure": True}
        await shared.node("add", "give_up", {"message": "no"}, options)
        await shared.python_worker(idle=False)
        await shared.until_counts(failed=1)
        await complete(parents, parent.id)
        failed = await parents.until_state(parent.id, State.FAILED)
        assert failed.error == "one of its children failed"
        assert "defa" not in parents.hash(parent.id)

    async def test_a_parent_does_not_complete_before_its_children(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        """Another child was retried while the parent was ready."""
        parent, (first,) = await add_flow(shared, parents, child(1), name="echo")
        await take(shared)
        await complete(shared, first)
        await shared.queue.retry(first)
        await parents.python_worker(idle=False)
        failed = await parents.until_state(parent, State.FAILED)
        assert failed.error == "its children have not all finished"


class TestRemoving:
    async def test_the_last_child_that_python_removes_releases_its_parent(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        parent, (only,) = await add_flow(shared, parents, child(1))
        await parents.node_worker()
        await shared.queue.remove(only)
        await parents.until_state(parent, State.COMPLETED)

    async def test_the_last_child_that_node_removes_releases_its_parent(
        self, shared: SharedQueue, parents: SharedQueue
    ) -> None:
        parent, (only,) = await add_flow(shared, parents, child(1))
        await parents.queue.pause()
        await shared.node.job(only, "remove")
        await parents.until_state(parent, State.WAITING)

    async def test_removes_children_too(self, shared: SharedQueue, parents: SharedQueue) -> None:
        """Pending, completed and failed children."""
        parent, _ = await add_flow(
            shared, parents, child(1), child(2, task="give_up"), child(3, delay=60_000)
        )
        await shared.python_worker(idle=False)
        await shared.until_counts(completed=1, failed=1, delayed=1)
        assert await parents.queue.remove(parent)
        assert set((await shared.queue.counts()).values()) == {0}
        assert troubles(shared) == troubles(parents) == []

    async def test_spares_busy_parents(self, shared: SharedQueue, parents: SharedQueue) -> None:
        """Node checks the locks of the children."""
        parent, _ = await add_flow(shared, parents, child(1))
        await take(shared)
        with pytest.raises(NodeError, match="could not be removed"):
            await parents.node.job(parent, "remove")
        assert parents.hash(parent)


def dependencies(parents: SharedQueue, parent: str) -> set[str]:
    return set(parents.redis.smembers(parents.key(f"{parent}:dependencies")))


def picture(
    shared: SharedQueue, parents: SharedQueue, parent: str, children: list[str]
) -> dict[str, Any]:
    """Return all data of a parent without times, with its children by number."""
    names = {shared.key(id): f"child {n}" for n, id in enumerate(children, 1)}

    def named(text: str) -> str:
        for key, name in names.items():
            text = text.replace(key, name)
        return text

    redis, key = parents.redis, parents.key(parent)
    fields = parents.hash(parent)
    return {
        "place": [state for state in PLACES if parent in parents.ids(state)],
        "defa": named(fields.get("defa", "")),
        "delay": fields["delay"],
        "dependencies": {named(each) for each in redis.smembers(f"{key}:dependencies")},
        "processed": {named(each) for each in redis.hkeys(f"{key}:processed")},
        "ignored": {
            named(each): reason.removeprefix("Unrecoverable: ")
            for each, reason in redis.hgetall(f"{key}:failed").items()
        },
        "failed": {named(each) for each in redis.zrange(f"{key}:unsuccessful", 0, -1)},
        "events": parents.events_of(parent),
    }


PLACES = ("wait", "delayed", "prioritized", "waiting-children", "active", "completed", "failed")
