"""Each language reads the events of the other, in order and complete."""

from __future__ import annotations

from typing import Any

from hasten.jobs import Event, Fixed, State
from tests.interop.shared_queue import SharedQueue
from tests.interop.steps import take


async def test_node_hears_all_that_python_does_in_order(shared: SharedQueue) -> None:
    """With Node's names and fields, because its listener stops at an event that it cannot parse."""
    events = await shared.node_events()
    await shared.queue.pause()
    await shared.queue.add("report", {"progress": {"done": 1}, "lines": []}, job_id="a")
    await shared.queue.add("echo", job_id="a")
    removed = await shared.queue.add("echo", delay=60, job_id="b")
    await removed.remove()
    await shared.queue.resume()
    await shared.python_worker()
    await shared.until_state("a", State.COMPLETED)
    failing = await shared.queue.add(
        "fail", {"message": "no"}, attempts=2, backoff=Fixed(60), job_id="c"
    )
    await shared.until_state("c", State.DELAYED)
    due_ms = (await failing.refresh()).record.due_ms
    await failing.promote()
    await shared.until_state("c", State.FAILED)
    await shared.queue.clean("failed", older_than=0)
    heard = await shared.until_heard(events, "cleaned")
    assert [each for each in heard if each["event"] != "drained"] == [
        {"event": "paused"},
        {"event": "added", "jobId": "a", "name": "report"},
        {"event": "waiting", "jobId": "a"},
        {"event": "duplicated", "jobId": "a"},
        {"event": "added", "jobId": "b", "name": "echo"},
        {"event": "delayed", "jobId": "b", "delay": removed.record.created_ms + 60_000},
        {"event": "removed", "jobId": "b", "prev": "delayed"},
        {"event": "resumed"},
        {"event": "active", "jobId": "a", "prev": "waiting"},
        {"event": "progress", "jobId": "a", "data": {"done": 1}},
        {"event": "completed", "jobId": "a", "returnvalue": "reported", "prev": "active"},
        {"event": "added", "jobId": "c", "name": "fail"},
        {"event": "waiting", "jobId": "c"},
        {"event": "active", "jobId": "c", "prev": "waiting"},
        {"event": "delayed", "jobId": "c", "delay": due_ms},
        {"event": "waiting", "jobId": "c", "prev": "delayed"},
        {"event": "active", "jobId": "c", "prev": "waiting"},
        {"event": "failed", "jobId": "c", "failedReason": "RuntimeError: no", "prev": "active"},
        {"event": "retries-exhausted", "jobId": "c", "attemptsMade": "2"},
        {"event": "cleaned", "count": "1"},
    ]
    assert await shared.peer.ask("errors") == []


async def test_python_hears_all_that_node_does_in_order(shared: SharedQueue) -> None:
    heard = await shared.python_events()
    await shared.node("pause")
    await shared.node("add", "report", {"progress": [1, "ü"], "lines": []}, {"jobId": "a"})
    await shared.node("add", "echo", {}, {"jobId": "a"})
    removed = await shared.node("add", "echo", {}, {"jobId": "b", "delay": 60_000})
    await shared.node.job("b", "remove")
    await shared.node("resume")
    await shared.node_worker(idle=False)
    await shared.until_state("a", State.COMPLETED)
    options = {"jobId": "c", "attempts": 2, "backoff": 60_000}
    await shared.node("add", "fail", {"message": "no"}, options)
    failing = await shared.until_state("c", State.DELAYED)
    await shared.node.job("c", "promote")
    await shared.until_state("c", State.FAILED)
    await shared.node("clean", 0, 10, "wait")
    await shared.until(lambda: heard and heard[-1].kind == "cleaned")
    assert [shown(event) for event in heard if event.kind != "drained"] == [
        ("paused", "", {}),
        ("added", "a", {"name": "report"}),
        ("waiting", "a", {}),
        ("duplicated", "a", {}),
        ("added", "b", {"name": "echo"}),
        ("delayed", "b", {"due_ms": removed["timestamp"] + 60_000}),
        ("removed", "b", {"previous": "delayed"}),
        ("resumed", "", {}),
        ("active", "a", {"previous": "waiting"}),
        ("progress", "a", {"value": '[1,"ü"]'}),
        ("completed", "a", {"value": '"reported"', "previous": "active"}),
        ("added", "c", {"name": "fail"}),
        ("waiting", "c", {}),
        ("active", "c", {"previous": "waiting"}),
        ("delayed", "c", {"due_ms": failing.record.due_ms}),
        ("waiting", "c", {"previous": "delayed"}),
        ("active", "c", {"previous": "waiting"}),
        ("failed", "c", {"error": "no", "previous": "active"}),
        ("retries-exhausted", "c", {"attemptsMade": "2"}),
        ("cleaned", "", {"count": 0}),
    ]


async def test_python_hears_of_stalled_deduplicated_and_parent_jobs(shared: SharedQueue) -> None:
    """Only Node emits these events."""
    heard = await shared.python_events()
    await shared.node("add", "hold", {}, {"jobId": "a", "deduplication": {"id": "one"}})
    await shared.node("add", "hold", {}, {"jobId": "b", "deduplication": {"id": "one"}})
    await take(shared, lease_ms=1)
    await shared.node_worker(idle=False, stalledInterval=50)
    await shared.until(lambda: "stalled" in [event.kind for event in heard])
    flow = await shared.peer.make("FlowProducer", f"{shared.name} flow")
    child = {"name": "echo", "queueName": shared.name}
    parent = {"name": "gather", "queueName": shared.name, "opts": {"jobId": "p"}}
    await flow("add", {**parent, "children": [child]})
    await shared.until(lambda: "waiting-children" in [event.kind for event in heard])
    by_kind = {event.kind: shown(event) for event in heard}
    assert by_kind["stalled"] == ("stalled", "a", {})
    assert by_kind["deduplicated"] == (
        "deduplicated", "a", {"deduplicationId": "one", "deduplicatedJobId": "b"},
    )  # fmt: skip
    assert by_kind["waiting-children"] == ("waiting-children", "p", {})


async def test_python_reads_events_of_other_programs(shared: SharedQueue) -> None:
    """With all fields, even those with the name of an attribute."""
    heard = await shared.python_events()
    producer = await shared.peer.make("QueueEventsProducer", f"{shared.name} own", shared.name)
    fields = {"data": "raw", "name": "n", "delay": "late", "count": "many", "custom": "1"}
    await producer("publishEvent", {"eventName": "shipped", "jobId": "7", **fields})
    await shared.until(lambda: heard)
    assert shown(heard[0]) == ("shipped", "7", fields)


async def test_node_keeps_reading_thousands_of_events_of_python(shared: SharedQueue) -> None:
    events = await shared.node_events()
    data = {"progress": "half / ü", "lines": []}
    await shared.queue.add_many([("report", data)] * 2000)
    await shared.python_worker(idle=False)
    heard = await shared.until_heard(events, "completed", 2000)
    assert [each["event"] for each in heard].count("progress") == 2000
    assert await shared.peer.ask("errors") == []


async def test_node_keeps_reading_when_a_large_value_is_left_out(shared: SharedQueue) -> None:
    """The event has null and the size. The job has the value, or the event if it is not kept."""
    events = await shared.node_events()
    text = "x" * 100_000
    await shared.queue.add("echo", {"value": text}, job_id="kept")
    await shared.queue.add("echo", {"value": text}, job_id="gone", keep_completed=0)
    await shared.queue.add("report", {"progress": text, "lines": []}, job_id="said")
    await shared.python_worker(idle=False)
    heard = await shared.until_heard(events, "completed", 3)
    told = {(each["event"], each["jobId"]): each for each in heard if "jobId" in each}
    assert told["completed", "kept"] == {
        "event": "completed", "jobId": "kept", "returnvalue": None, "hasten:omitted": "100002",
        "prev": "active",
    }  # fmt: skip
    assert told["completed", "gone"]["returnvalue"] == text
    assert told["progress", "said"]["data"] is None
    assert told["progress", "said"]["hasten:omitted"] == "100002"
    assert told["completed", "said"]["returnvalue"] == "reported"
    job = await shared.node("getJob", "kept")
    assert job["returnvalue"] == text
    assert await shared.peer.ask("errors") == []


async def test_the_stream_is_cut_at_the_length_that_node_has_set(shared: SharedQueue) -> None:
    """Approximately, because Redis deletes whole nodes of about a hundred entries."""
    await shared.peer.make(
        "Queue", f"{shared.name} short", shared.name, streams={"events": {"maxLen": 50}}
    )
    await shared.queue.add_many([("echo", {})] * 500)
    assert len(shared.stream()) < 300


def shown(event: Event) -> tuple[str, str, dict[str, Any]]:
    """Return the kind, the job and the other fields of an event."""
    said = {
        name: getattr(event, name) for name in ("value", "error", "previous", "due_ms", "count")
    }
    facts = {name: value for name, value in said.items() if value is not None}
    return event.kind, event.job_id, facts | event.details
