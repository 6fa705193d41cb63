"""The rules of the health endpoints."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest

from hasten.jobs._health import HealthResponse, judge_liveness, judge_readiness, predict_wait
from hasten.jobs._run_totals import Totals
from hasten.jobs._worker_state import ServedQueue, WorkerProcessReport, WorkerState

BLOCKED: Final = "worker w: the event loop has been blocked for {} s by code that does not await"


def queue(**facts: Any) -> ServedQueue:
    return ServedQueue(
        **{
            "queue": "mail",
            "fetch_age": 1.0,
            "running": 0,
            "running_seconds": 0.0,
            "average_run_seconds": None,
            "store_error": None,
            "failing_seconds": 0.0,
            **facts,
        }
    )


def worker(*queues: ServedQueue, **facts: Any) -> WorkerState:
    return WorkerState(
        **{
            "name": "w",
            "is_running": True,
            "is_stopping": False,
            "failure": None,
            "blocked_seconds": 0.0,
            "lag_seconds": 0.0,
            "slots": 2,
            "slots_used": 0,
            "memory": None,
            "queues": list(queues or [queue()]),
            **facts,
        }
    )


def report(
    *workers: WorkerState, number: int = 1, problem: str | None = None
) -> WorkerProcessReport:
    return WorkerProcessReport(number, list(workers), Totals(), problem)


def reasons(response: HealthResponse) -> list[str]:
    assert response.status == (503 if "reasons" in response.body else 200)
    found: list[str] = response.body.get("reasons", [])
    return found


class TestLiveness:
    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            (worker(), []),
            (worker(blocked_seconds=30.0), []),
            (
                worker(blocked_seconds=31.4),
                ["worker w: the event loop has been blocked for 31 s by code that does not await"],
            ),
            (worker(lag_seconds=99.0), []),  # it turns again
            (worker(is_stopping=True), []),
            (worker(is_running=False, blocked_seconds=99.0), []),
            (
                worker(is_running=False, failure="RuntimeError: no"),
                ["worker w: stopped by an internal error: RuntimeError: no"],
            ),
        ],
    )
    def test_depends_on_the_event_loop(self, state: WorkerState, expected: list[str]) -> None:
        assert reasons(judge_liveness([report(state)], max_blocked=30)) == expected

    def test_names_the_process_among_several(self) -> None:
        reports = [report(worker()), report(number=2, problem="does not answer within 1 s")]
        found = judge_liveness(reports, max_blocked=30)
        assert reasons(found) == ["process 2: does not answer within 1 s"]


class TestReadiness:
    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            (worker(queue(fetch_age=30.0)), []),
            (
                worker(queue(), queue(queue="post", fetch_age=31.0)),
                ["queue post: the last successful fetch was 31 s ago"],
            ),
            (worker(queue(fetch_age=None)), ["queue mail: no fetch has succeeded yet"]),
            (
                worker(queue(fetch_age=None, store_error="no route", failing_seconds=7.0)),
                ["queue mail: store unavailable for 7 s: no route"],
            ),
            (worker(queue(fetch_age=3.0, store_error="no route")), []),
            # A worker whose slots are all used fetches nothing.
            (worker(queue(fetch_age=99.0), slots_used=2), []),
            (
                worker(queue(fetch_age=99.0, store_error="no route"), slots_used=2),
                ["queue mail: store unavailable for 0 s: no route"],
            ),
            (worker(is_stopping=True), ["worker w: stopping"]),
            (worker(is_running=False), ["worker w: not running"]),
            (
                worker(blocked_seconds=40.0),
                ["worker w: the event loop has been blocked for 40 s by code that does not await"],
            ),
            (worker(failure="no"), ["worker w: stopped by an internal error: no"]),
        ],
    )
    def test_depends_on_the_last_fetch(self, state: WorkerState, expected: list[str]) -> None:
        assert reasons(judge_readiness([report(state)], [], max_fetch_age=30)) == expected

    def test_a_paused_queue_is_ready(self) -> None:
        response = judge_readiness([report(worker())], ["mail"], max_fetch_age=30)
        assert response == HealthResponse(200, {"status": "ready", "paused": ["mail"]})

    def test_a_process_without_workers_is_not_ready(self) -> None:
        found = judge_readiness([report()], [], max_fetch_age=30)
        assert reasons(found) == ["no worker has started"]


def predicted(*queues: ServedQueue, **facts: Any) -> float:
    numbers = {"backlog": 100, "running": 0, "slots": 10, "is_paused": False, **facts}
    response = predict_wait([report(worker(each)) for each in queues], "mail", **numbers)
    assert response.body["backlog"] == numbers["backlog"]
    seconds: float = response.body["wait_seconds"]
    return seconds


class TestPredictedWait:
    def test_is_the_backlog_divided_by_the_throughput(self) -> None:
        assert predicted(queue(average_run_seconds=2.0)) == 20
        assert predicted(queue(average_run_seconds=2.0), slots=20) == 10

    def test_uses_the_average_of_all_processes(self) -> None:
        assert predicted(queue(average_run_seconds=1.0), queue(average_run_seconds=3.0)) == 20

    def test_jobs_that_do_not_end_count(self) -> None:
        assert predicted(queue(average_run_seconds=0.1, running=2, running_seconds=120.0)) == 600

    def test_is_0_before_any_run_and_for_a_paused_queue(self) -> None:
        assert predicted(queue()) == 0
        assert predicted(queue(average_run_seconds=2.0), is_paused=True) == 0

    def test_without_slots_it_is_that_of_one(self) -> None:
        assert predicted(queue(average_run_seconds=2.0), slots=0) == 200

    @pytest.mark.parametrize(("replicas", "target"), [(1, 30.0), (4, 30.0), (10, 7.0)])
    def test_leads_keda_to_enough_replicas(self, replicas: int, target: float) -> None:
        """A HorizontalPodAutoscaler of the metric type Value wants replicas times value / target.

        With so many replicas, the wait is at most the target.
        """
        wait = predicted(queue(average_run_seconds=3.0), backlog=5_000, slots=replicas * 20)
        wanted = math.ceil(replicas * wait / target)
        later = predicted(queue(average_run_seconds=3.0), backlog=5_000, slots=wanted * 20)
        assert later <= target
        fewer = predicted(queue(average_run_seconds=3.0), backlog=5_000, slots=(wanted - 1) * 20)
        assert fewer > target
