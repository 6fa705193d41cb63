"""`enqueued` and `assert_enqueued` find jobs by their task and arguments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

import pytest
from pydantic import BaseModel

from hasten.errors import InvalidOption
from hasten.jobs import CallNext, EnqueueCall, Queue, RunCall
from hasten.testing import EnqueuedJob, JobsTester
from tests.kit import application as app


class Address(BaseModel):
    street: str
    city: str = "Paris"


async def test_jobs_are_listed_in_order_also_after_they_have_run(jobs: JobsTester) -> None:
    await app.order.enqueue(7)
    await app.send.enqueue("ada")
    await jobs.run_until_idle()
    assert [(job.task, job.queue) for job in jobs.enqueued()] == [
        ("order", "orders"),
        ("send", "kit-mail"),
        ("send", "kit-mail"),
    ]
    assert [job.arguments["to"] for job in jobs.enqueued(app.send)] == ["ada", "customer 7"]
    assert jobs.enqueued("order") == jobs.enqueued(app.order)


async def test_a_job_has_its_options(jobs: JobsTester) -> None:
    await app.send_flaky.using(delay=60, priority=2).enqueue("ada")
    now = jobs.clock.now()
    assert jobs.assert_enqueued(app.send_flaky) == EnqueuedJob(
        task="send_flaky",
        queue="kit-mail",
        job_id="1",
        arguments={"to": "ada"},
        at=now,
        due_at=now + timedelta(minutes=1),
        priority=2,
        attempts=3,
    )


async def test_a_job_has_what_middlewares_stored(jobs: JobsTester) -> None:
    queue = Queue("observed")

    @queue.use
    async def store(call: EnqueueCall | RunCall, call_next: CallNext) -> object:
        if isinstance(call, EnqueueCall):
            call.metadata["request"] = "r-17"
        return await call_next(call)

    await queue.add_many([("task", {"n": 1}), ("task", {"n": 2})])
    assert [job.metadata for job in jobs.enqueued("task")] == [{"request": "r-17"}] * 2


async def test_duplicates_are_not_listed(jobs: JobsTester) -> None:
    for _ in range(2):
        await app.send.using(job_id="once").enqueue("ada")
    assert len(jobs.enqueued()) == 1


async def test_a_job_that_is_added_again_after_it_was_deleted_is_listed(jobs: JobsTester) -> None:
    for _ in range(2):
        await app.send.using(job_id="daily", keep_completed=False).enqueue("ada")
        await jobs.run_until_idle()
    assert len(jobs.enqueued()) == 2


class TestMatching:
    async def test_some_of_the_arguments(self, jobs: JobsTester) -> None:
        await app.send.enqueue("ada", locale="fr")
        await app.send.enqueue("bob")
        assert jobs.assert_enqueued(app.send, to="bob").job_id == "2"
        assert jobs.assert_enqueued("send", locale="fr").job_id == "1"
        assert jobs.assert_enqueued(app.send).job_id == "1"
        assert jobs.assert_enqueued(app.send, to=ANY).job_id == "1"

    async def test_defaults_of_the_task(self, jobs: JobsTester) -> None:
        await app.send.enqueue("ada")
        jobs.assert_enqueued(app.send, locale="en")
        jobs.assert_not_enqueued(app.send, locale="fr")
        jobs.assert_not_enqueued("send", locale="en")  # by its name only what was stored is known

    async def test_values_as_the_handler_gets_them(self, jobs: JobsTester) -> None:
        queue = Queue("typed")

        @queue.task
        async def visit(address: Address, at: datetime) -> None: ...

        at = datetime(2030, 5, 1, tzinfo=UTC)
        await visit.enqueue(Address(street="Rue"), at)
        jobs.assert_enqueued(visit, address=Address(street="Rue"), at=at)
        jobs.assert_enqueued(visit, address={"street": "Rue", "city": "Paris"})
        jobs.assert_enqueued("visit", at=at)
        jobs.assert_not_enqueued(visit, address=Address(street="Other"))
        jobs.assert_not_enqueued(visit, at=object())

    async def test_tasks_of_the_same_name_in_another_queue(self, jobs: JobsTester) -> None:
        await Queue("other").add("send", {"to": "ada"})
        jobs.assert_not_enqueued(app.send)
        jobs.assert_enqueued("send")

    async def test_a_task_with_options(self, jobs: JobsTester) -> None:
        urgent = app.send.using(priority=1)
        await urgent.enqueue("ada")
        jobs.assert_enqueued(urgent, to="ada")

    async def test_data_that_is_no_dict(self, jobs: JobsTester) -> None:
        await app.foreign.add("sum", [1, 2])
        assert jobs.assert_enqueued("sum").arguments == [1, 2]
        with pytest.raises(AssertionError, match=r"sum, data \[1, 2\] in queue foreign"):
            jobs.assert_enqueued("sum", n=1)


class TestMessages:
    async def test_what_was_enqueued_instead(self, jobs: JobsTester) -> None:
        await app.report.enqueue()
        await app.send.using(delay=60, priority=3).enqueue("ada")
        with pytest.raises(AssertionError) as caught:
            jobs.assert_enqueued(app.send, to="bob")
        assert str(caught.value) == (
            "send(to='bob') was not enqueued. Enqueued instead:\n"
            "  send(to='ada') in queue kit-mail, due in 60 s, priority 3\n"
            "  report() in queue kit-mail"
        )

    async def test_nothing(self, jobs: JobsTester) -> None:
        with pytest.raises(AssertionError, match=r"was not enqueued\. No job was enqueued\.$"):
            jobs.assert_enqueued(app.send)

    async def test_many(self, jobs: JobsTester) -> None:
        await app.send.enqueue_many([app.send.args(f"{n}") for n in range(30)])
        with pytest.raises(AssertionError, match="… and 10 more"):
            jobs.assert_enqueued(app.report)

    async def test_a_job_that_should_not_be_there(self, jobs: JobsTester) -> None:
        await app.send.enqueue("ada")
        jobs.assert_not_enqueued(app.send, to="bob")
        with pytest.raises(AssertionError, match=r"should not be:\n  send\(to='ada'\)"):
            jobs.assert_not_enqueued(app.send)

    def test_a_misspelled_argument(self, jobs: JobsTester) -> None:
        with pytest.raises(InvalidOption, match="which has: to, locale"):
            jobs.assert_not_enqueued(app.send, too="ada")

    def test_no_task(self, jobs: JobsTester) -> None:
        with pytest.raises(InvalidOption, match="a task, such as one made by"):
            jobs.assert_enqueued(test_duplicates_are_not_listed)  # type: ignore[arg-type]
