"""Why a job does not run, where Node has written what stops it."""

from __future__ import annotations

from hasten.jobs import Reason, State
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import take
from tests.jobs.eventually import until_true


async def test_a_parent_waits_for_its_children(shared: SharedQueue) -> None:
    flow = await shared.peer.make("FlowProducer", f"{shared.name} flow")
    child = {"name": "fail", "queueName": shared.name, "data": {"message": "no paper"}}
    node = {"name": "echo", "queueName": shared.name, "data": {"value": 1}}
    made = await flow("add", {**node, "children": [child, {**child, "opts": {"delay": 10**6}}]})
    parent = made["job"]["id"]
    why = await shared.queue.why(parent)
    assert (why.code, why.child_queue) == (Reason.WAITING_CHILDREN, shared.name)
    assert " waits for 2 children: job " in why.text
    assert why.child in {each["job"]["id"] for each in made["children"]}
    (first,) = await take(shared)
    assert (await shared.queue.why(first)).code is Reason.RUNNING


async def test_a_parent_waits_for_a_child_that_has_failed(shared: SharedQueue) -> None:
    flow = await shared.peer.make("FlowProducer", f"{shared.name} flow")
    child = {"name": "fail", "queueName": shared.name, "data": {"message": "no paper"}}
    node = {"name": "echo", "queueName": shared.name, "data": {"value": 1}}
    made = await flow("add", {**node, "children": [child]})
    await shared.node_worker(idle=False)
    failed = made["children"][0]["job"]["id"]
    await shared.until_state(failed, State.FAILED)
    why = await shared.queue.why(made["job"]["id"])
    assert (why.code, why.child, why.error) == (Reason.WAITING_CHILDREN, failed, "no paper")
    assert why.text.endswith(
        f" waits for 1 child: job {failed} of queue {shared.name} has failed: no paper; "
        "the job waits until it is retried or removed."
    )


async def test_limits_of_the_queue(shared: SharedQueue) -> None:
    await shared.python_worker()
    await shared.node("setGlobalConcurrency", 1)
    running = await shared.queue.add("hold")
    await shared.until_state(running.id, State.ACTIVE)
    job = await shared.queue.add("hold")
    assert (await job.why()).code is Reason.CONCURRENCY
    await shared.node("setGlobalRateLimit", 1, 10**6)
    shared.redis.set(f"bull:{shared.name}:limiter", 1, px=10**6)
    why = await job.why()
    assert (why.code, why.ahead) == (Reason.RATE_LIMIT, 0)
    assert why.until is not None


async def test_a_worker_of_node_is_a_worker(shared: SharedQueue) -> None:
    """It may have any task. Only hasten's workers are known by their facts."""
    job = await shared.queue.add("echo", {"value": 1})
    assert (await job.why()).code is Reason.NO_WORKER
    await shared.queue.pause()
    await shared.node_worker(idle=False)
    assert await shared.queue.engine.count_workers_except(shared.name, [], now_ms=0) == 1
    assert await shared.queue.workers() == []
    assert (await job.why()).code is Reason.PAUSED
    await shared.queue.resume()
    await shared.until_state(job.id, State.COMPLETED)


async def test_a_job_that_runs_in_node(shared: SharedQueue) -> None:
    await shared.node_worker(name="node-1")
    job = await shared.queue.add("hold")
    await shared.until_state(job.id, State.ACTIVE)
    why = await job.why()
    assert (why.code, why.worker) == (Reason.RUNNING, "node-1")


async def test_our_own_workers_are_not_counted_as_others(shared: SharedQueue) -> None:
    for _ in range(2):
        await shared.python_worker(name="a b ü", idle=False)

    async def are_both_known() -> bool:
        known = await shared.queue.workers()
        others = await shared.queue.engine.count_workers_except(shared.name, known, now_ms=0)
        return len(known) == 2 and others == 0

    await until_true(are_both_known)
