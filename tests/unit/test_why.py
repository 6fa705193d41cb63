"""What `explain` makes of situations that take long to bring about, or should not come about."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hasten.jobs import Reason, State, Why, WorkerInfo
from hasten.jobs._epoch import to_datetime
from hasten.jobs._record import COUNTED_AHEAD, ChildJob, JobRecord, WhyFacts
from hasten.jobs._why import explain

NOW = 1_764_590_400_000  # 2025-12-01 12:00:00

JOB = JobRecord(
    queue="mail",
    id="7",
    name="send",
    data="{}",
    opts="{}",
    state=State.WAITING,
    priority=0,
    delay_ms=0,
    created_ms=NOW,
    attempts_made=0,
    attempts_started=0,
    crashes=0,
)

WORKER = WorkerInfo(
    queue="mail",
    name="w",
    id="1",
    host="server",
    pid=7,
    version="0.1.0",
    release=None,
    started_at=to_datetime(NOW),
    tasks=["send"],
    slots=10,
    slots_used=0,
    running=0,
    lease=10.0,
    stopping=False,
    loop_lag=0.0,
    memory=None,
    last_fetch_at=None,
    last_seen_at=to_datetime(NOW),
)


def job(**fields: Any) -> JobRecord:
    return msgspec.structs.replace(JOB, **fields)


def worker(**facts: Any) -> WorkerInfo:
    return msgspec.structs.replace(WORKER, **facts)


def why(record: JobRecord, *workers: WorkerInfo, others: int = 0, **situation: Any) -> Why:
    situation = {"is_paused": False, **situation}
    return explain(WhyFacts(record, **situation), workers, others, now_ms=NOW)


class TestSentences:
    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [
            (0.05, "0.05 s"),
            (5, "5 s"),
            (119.96, "120 s"),
            (600, "10 min"),
            (7200, "2 h"),
            (10**6, "12 days"),
        ],
    )
    def test_say_when_and_in_how_long(self, seconds: float, shown: str) -> None:
        found = why(job(state=State.DELAYED, due_ms=NOW + int(seconds * 1000)))
        assert found.text.startswith("Job 7 (send) is due at 2025-12-")
        assert found.text.endswith(f" (in {shown}).")

    def test_a_run_that_waits_for_an_earlier_one(self) -> None:
        record = job(state=State.DELAYED, due_ms=NOW + 5_000)
        found = explain(WhyFacts(record, is_paused=False, is_held=True), [WORKER], 0, now_ms=NOW)
        assert (found.code, found.until) == (Reason.OVERLAP, None)
        assert found.text == "Job 7 (send) waits until an earlier run of its schedule ends."

    def test_have_the_first_line_of_an_error(self) -> None:
        error = "ValueError: " + "x" * 500 + "\nsecond line"
        found = why(job(state=State.FAILED, error=error, finished_ms=NOW, attempts_made=1_000))
        assert found.text == (
            "Job 7 (send) has failed at 2025-12-01 12:00:00 UTC, after 1,000 attempts: "
            f"ValueError: {'x' * 188}…."
        )
        assert found.error == error

    def test_count_many_jobs_up_to_a_limit(self) -> None:
        found = why(JOB, WORKER, ahead=COUNTED_AHEAD)
        assert found.text == ("Job 7 (send) is ready; 10,000 jobs or more are in front of it.")

    def test_of_any_time_that_another_program_has_stored(self) -> None:
        assert why(job(state=State.DELAYED, due_ms=2**60)).text.startswith(
            "Job 7 (send) is due at 9999-12-31 23:59:59 UTC (in "
        )


class TestExpiredLeases:
    LOST = job(state=State.ACTIVE, worker="dead")

    def test_are_found_by_the_worker_that_looks_most_often(self) -> None:
        found = why(self.LOST, WORKER, worker(lease=4), lease_until_ms=NOW)
        assert found.code is Reason.LEASE_EXPIRED
        assert found.text == (
            "Job 7 (send) was running on worker dead, whose lease has expired: another worker "
            "takes the job back within about 1 s."
        )

    def test_are_found_by_workers_of_other_programs(self) -> None:
        assert why(self.LOST, others=1).text.endswith(
            "another worker takes the job back when it next looks for such jobs."
        )

    def test_of_a_worker_without_a_name(self) -> None:
        assert why(job(state=State.ACTIVE)).text.startswith("Job 7 (send) has an expired lease: ")


class TestChildren:
    PARENT = job(state=State.WAITING_CHILDREN)

    def test_a_failed_one_is_named_first(self) -> None:
        children = [ChildJob("images", "3", State.FAILED, "no\ntrace"), ChildJob("images", "4")]
        found = why(self.PARENT, pending=12, children=children)
        assert (found.code, found.child, found.child_queue, found.error) == (
            Reason.WAITING_CHILDREN, "3", "images", "no\ntrace",
        )  # fmt: skip
        assert found.text == (
            "Job 7 (send) waits for 12 children: job 3 of queue images has failed: no; the job "
            "waits until it is retried or removed."
        )

    @pytest.mark.parametrize(
        ("state", "shown"),
        [(None, "no longer exists"), (State.ACTIVE, "is running"), (State.DELAYED, "is delayed")],
    )
    def test_the_state_of_one_is_shown(self, state: State | None, shown: str) -> None:
        found = why(self.PARENT, pending=1, children=[ChildJob("images", "3", state)])
        assert found.text == f"Job 7 (send) waits for 1 child: job 3 of queue images {shown}."

    def test_none_can_be_read(self) -> None:
        assert why(self.PARENT, pending=2).text == "Job 7 (send) waits for 2 children."
        assert why(self.PARENT).code is Reason.WAITING_CHILDREN


class TestLimits:
    def test_the_rate_limit_says_when_it_ends(self) -> None:
        found = why(JOB, WORKER, limited_until_ms=NOW + 2_000, ahead=3)
        assert (found.code, found.until) == (Reason.RATE_LIMIT, to_datetime(NOW + 2_000))
        assert found.text == (
            "Job 7 (send) waits for the rate limit of queue mail until 2025-12-01 12:00:02 UTC "
            "(in 2 s); 3 jobs are in front of it."
        )

    def test_the_global_concurrency(self) -> None:
        found = why(JOB, WORKER, full=5)
        assert found.code is Reason.CONCURRENCY
        assert found.text == (
            "Job 7 (send) waits because 5 jobs of queue mail run, as many as its global "
            "concurrency allows."
        )


class TestWorkers:
    def test_a_free_slot_in_one_of_them_is_enough(self) -> None:
        busy = worker(slots_used=10)
        assert why(JOB, busy, busy).code is Reason.BUSY
        assert why(JOB, busy, WORKER).code is Reason.READY

    def test_those_that_are_too_old_have_no_slots_for_it(self) -> None:
        record = job(opts='{"hasten":{"since":"2"}}')
        old, new = worker(release="1"), worker(release="2.0", slots_used=10)
        assert why(record, old).code is Reason.NO_RELEASE
        assert why(record, old, new).code is Reason.BUSY
        assert why(record, old, others=1).code is Reason.READY

    def test_one_event_loop_that_turns_is_enough(self) -> None:
        blocked = worker(loop_lag=60.0)
        assert why(JOB, blocked).code is Reason.BLOCKED
        assert why(JOB, blocked, WORKER).code is Reason.READY

    def test_those_of_other_programs_may_have_any_task(self) -> None:
        assert why(job(name="other"), WORKER).code is Reason.NO_TASK
        assert why(job(name="other"), WORKER, others=1).code is Reason.READY
        assert why(JOB, others=1).code is Reason.READY

    @pytest.mark.parametrize("release", ["", "x", "1..2", "9" * 50])
    def test_malformed_releases_are_none(self, release: str) -> None:
        assert why(job(opts=f'{{"hasten":{{"since":"{release}"}}}}'), WORKER).code is Reason.READY
        record = job(opts='{"hasten":{"since":"2"}}')
        assert why(record, worker(release=release)).code is Reason.NO_RELEASE


@pytest.mark.parametrize("opts", ["", "no json", "[]", '{"attempts":"x"}', '{"hasten":7}'])
def test_damaged_options_are_no_obstacle(opts: str) -> None:
    assert why(job(opts=opts), WORKER).code is Reason.READY


def test_what_cannot_be_changed_comes_first() -> None:
    """A job that will be failed is not helped by a worker, or by resuming the queue."""
    expired = job(opts=f'{{"hasten":{{"expiresAt":{NOW - 1}}}}}')
    for record in (job(deferred_failure="cancelled"), expired):
        assert why(record, is_paused=True).code in (Reason.WILL_FAIL, Reason.EXPIRED)
    assert why(JOB, is_paused=True).code is Reason.PAUSED
