"""Public objects: their repr, equality and pickling."""

from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from typing import Any

import pytest

from hasten import Store
from hasten.errors import HastenError
from hasten.jobs import Context, Exponential, Fixed, Keep, Queue, RetryAfter, Unrecoverable, Worker


class TestReprs:
    async def test_say_what_the_object_is(self, queue: Queue) -> None:
        @queue.task
        async def send(to: str) -> None: ...

        job = await send.enqueue("ada")
        events = queue.events()
        worker = Worker(queue, Queue("other", queue.store), name="w1")
        url = queue.store.url
        context = Context(job.record, print, max_bytes=1, queue=queue)
        shown: dict[object, str] = {
            queue: f"<Queue mail in {url}>",
            queue.sync: f"<Queue mail in {url}>.sync",
            send: "<Task send of mail>",
            send.sync: "<Task send of mail>.sync",
            send.using(delay=5): "<Task send of mail using delay=5>",
            send.using(delay=5).sync: "<Task send of mail using delay=5>.sync",
            send.args("ada"): "Arguments(to='ada')",
            job: f"<Job {job.id} send of mail, waiting>",
            job.sync: f"<Job {job.id} send of mail, waiting>.sync",
            worker: "<Worker w1 of mail, other>",
            context: f"<Context of job {job.id} send, attempt 1>",
            events: "<QueueEvents of mail, not started>",
        }
        assert {repr(each) for each in shown} == set(shown.values())
        await events.aclose()
        assert repr(events) == "<QueueEvents of mail, closed>"

    def test_have_no_password(self) -> None:
        queue = Queue("mail", "redis://ada:secret@localhost")
        assert repr(queue) == "<Queue mail in redis://ada@localhost>"

    def test_have_no_control_characters(self, queue: Queue) -> None:
        """The name of the job may come from another program."""
        record: Any = type("Record", (), {"id": "1", "name": "a\x1b[2J", "attempts_made": 0})
        assert repr(Context(record, print, max_bytes=1, queue=queue)).isprintable()


class TestJobs:
    async def test_are_equal_by_queue_and_id(self, queue: Queue, elsewhere: Queue) -> None:
        job, other = await queue.add_many([("send", 1), ("send", 2)])
        again = await elsewhere.get(job.id)
        in_another_queue = await Queue("other", queue.store).add("send")
        assert job == again
        assert hash(job) == hash(again)
        assert job not in {other, in_another_queue}
        assert job != job.id
        assert {job, again, other} == {other, job}


class TestSteeringExceptions:
    @pytest.mark.parametrize(
        "error",
        [RetryAfter(5), RetryAfter("15m"), RetryAfter(timedelta(hours=1)), Unrecoverable("x")],
    )
    def test_survive_pickling_and_copying(self, error: Exception) -> None:
        for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert type(twin) is type(error)
            assert str(twin) == str(error)
            assert vars(twin) == vars(error)
            assert not isinstance(error, HastenError)  # they are the handler's own, not an error

    def test_say_what_they_do(self) -> None:
        assert str(RetryAfter("15m")) == "try again after 900 s"
        assert repr(RetryAfter(5)) == "RetryAfter(5)"


@pytest.mark.parametrize("duration", [60, 60.0, timedelta(minutes=1), "1m"])
async def test_every_duration_has_all_forms(duration: Any) -> None:
    """Numbers of seconds, timedeltas and texts."""
    store = Store("memory://", timeout=duration)
    queue = Queue("mail", store, timeout=duration, backoff=duration)
    task = queue.task(
        name="task", delay=duration, expires=duration, backoff=lambda attempt, error: duration
    )(print_nothing)
    task.using(delay=duration, timeout=duration, expires=duration, backoff=Fixed(duration))
    task.using(backoff=Exponential(duration, cap=duration), keep_failed=Keep(age=duration))
    assert RetryAfter(duration).delay_ms == 60_000
    Worker(queue, lease=duration, grace=duration)
    job = await task.using(delay=0).enqueue()
    await queue.clean("completed", older_than=duration)
    await job.update(progress=1)
    delayed = await task.enqueue()
    await delayed.update(delay=duration)
    async with Worker(queue) as worker:
        await job.result(duration)
        await worker.stop(duration)
    await store.aclose()


async def print_nothing() -> None:
    """A function that can be a task."""
