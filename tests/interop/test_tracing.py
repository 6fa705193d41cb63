"""Traces that pass from Python to Node's bullmq-otel and back."""

from __future__ import annotations

from typing import Any

from hasten.jobs._tracing import make_spans
from tests.interop.shared_queue import SharedQueue
from tests.jobs.eventually import until, until_true
from tests.jobs.spans import recorded_spans


def ids(span: Any) -> tuple[str, str]:
    """Return the ids of the trace and the span, in hexadecimal."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


async def node_spans(shared: SharedQueue, *words: str) -> list[Any]:
    """Return the spans of Node whose names contain these words, once there is one."""
    found: list[Any] = []

    async def is_there() -> bool:
        spans = await shared.peer.ask("spans")
        found[:] = [span for span in spans if all(word in span["name"] for word in words)]
        return bool(found)

    await until_true(is_there)
    return found


async def test_a_worker_of_node_continues_the_trace_of_python(shared: SharedQueue) -> None:
    make_spans.cache_clear()
    await shared.node_worker(traced=True)
    with recorded_spans() as spans:
        await shared.queue.add("echo", {"value": 1})
        await shared.until_counts(completed=1)
        (call,) = spans.named(f"send {shared.name}")
    [run] = await node_spans(shared, "process", shared.name)
    assert (run["trace"], run["parent"]) == ids(call)


async def test_a_worker_of_python_continues_the_trace_of_node(shared: SharedQueue) -> None:
    make_spans.cache_clear()
    producer = await shared.peer.make("Queue", f"{shared.name} traced", shared.name, traced=True)
    with recorded_spans() as spans:
        await shared.python_worker()
        await producer("add", "echo", {"value": 1})
        await until(lambda: spans.named(f"process {shared.name}"))
        (run,) = spans.named(f"process {shared.name}")
    [call] = await node_spans(shared, "add", shared.name)
    assert run.parent is not None
    assert (call["trace"], call["span"]) == (ids(run)[0], f"{run.parent.span_id:016x}")
    assert run.links == ()


async def test_a_retry_in_python_is_linked_to_the_span_of_node(shared: SharedQueue) -> None:
    make_spans.cache_clear()
    producer = await shared.peer.make("Queue", f"{shared.name} traced", shared.name, traced=True)
    with recorded_spans() as spans:
        await shared.python_worker()
        await producer("add", "fail", {"message": "no", "times": 1}, {"attempts": 2})
        await until(lambda: len(spans.named(f"process {shared.name}")) == 2)
        _, second = spans.named(f"process {shared.name}")
    [call] = await node_spans(shared, "add", shared.name)
    assert second.parent is None
    assert [f"{link.context.span_id:016x}" for link in second.links] == [call["span"]]


async def test_the_context_of_python_survives_a_run_in_node(shared: SharedQueue) -> None:
    """Node fails the first attempt; Python makes the second."""
    make_spans.cache_clear()
    worker = await shared.node_worker(traced=True)
    with recorded_spans() as spans:
        job = await shared.queue.add("fail", {"message": "no", "times": 1}, attempts=2, backoff=60)
        await shared.until_counts(delayed=1)
        await worker("close")
        await shared.python_worker()
        await shared.queue.promote(job.id)
        await until(lambda: spans.named(f"process {shared.name}"))
        (call,) = spans.named(f"send {shared.name}")
        (run,) = spans.named(f"process {shared.name}")
    assert [f"{link.context.span_id:016x}" for link in run.links] == [ids(call)[1]]
