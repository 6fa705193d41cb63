"""Batches and children of running jobs whose members Node runs."""

from __future__ import annotations

from typing import Any

import pytest

from hasten.jobs import Context, Queue, State, Worker
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import troubles


class Mixed:
    """A queue of Python, with tasks that Node runs in the shared queue."""

    def __init__(self, shared: SharedQueue) -> None:
        self.own = Queue(f"{shared.name}-own", shared.queue.store)
        node = Queue(shared.name, shared.queue.store)
        self.happened: list[str] = []

        @node.task
        async def echo(value: int) -> int:
            return value

        @node.task
        async def give_up(message: str) -> None: ...

        @self.own.task
        async def note(text: str) -> None:
            self.happened.append(text)

        @self.own.task
        async def gather(ctx: Context) -> list[Any]:
            ctx.children.add([echo.args(1), give_up.args("no"), echo.args(2)], on_failure="ignore")
            await ctx.children.wait()
            failed = [child.error for child in await ctx.children.failures()]
            return [await ctx.children.results(), failed]

        self.echo, self.give_up, self.note, self.gather = echo, give_up, note, gather


@pytest.fixture
def mixed(shared: SharedQueue) -> Mixed:
    return Mixed(shared)


async def test_moments_of_a_batch_that_node_runs(shared: SharedQueue, mixed: Mixed) -> None:
    batch = await mixed.own.batch(
        on_first_failure=mixed.note.args("first failure"),
        on_ended=mixed.note.args("ended"),
        on_succeeded=mixed.note.args("succeeded"),
    )
    await batch.add([mixed.echo.args(1), mixed.give_up.args("no")])
    await shared.node_worker()
    async with Worker(mixed.own):
        child = await batch.first_failure(timeout=30)
        assert child is not None
        await shared.until(lambda: mixed.happened == ["first failure"])
        await batch.add(mixed.echo.args(2))
        await batch.close()
        progress = await batch.ended(timeout=30)
        await shared.until(lambda: len(mixed.happened) == 2)
    assert (progress.completed, progress.failed) == (2, 1)
    assert mixed.happened == ["first failure", "ended"]


async def test_a_python_handler_waits_for_node(shared: SharedQueue, mixed: Mixed) -> None:
    job = await mixed.gather.enqueue()
    await shared.node_worker()
    async with Worker(mixed.own):
        results, failed = await job.result(timeout=30)
    assert (results, failed) == ([1, 2], ["no"])


async def test_node_reads_a_flow_with_its_watcher(shared: SharedQueue, mixed: Mixed) -> None:
    flow = mixed.echo.args(0).after(mixed.echo.args(1)).on_ended(mixed.note.args("ended"))
    job = await flow.enqueue()
    assert job.parent is not None
    producer = await shared.peer.make("FlowProducer", f"{shared.name} flow")
    tree = await producer("getFlow", {"queueName": mixed.own.name, "id": job.parent.id})
    assert tree["job"]["name"] == "hasten:flow"
    (root,) = tree["children"]
    assert root["job"]["id"] == job.id
    assert [child["job"]["name"] for child in root["children"]] == ["echo"]
    await shared.node_worker()
    async with Worker(mixed.own):
        await shared.until(lambda: mixed.happened == ["ended"])
    assert (await job.refresh()).state is State.COMPLETED
    assert troubles(shared) == []
