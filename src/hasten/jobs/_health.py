"""Pure functions: the reports of worker processes -> the responses of the health endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from hasten.jobs._worker_state import ServedQueue, WorkerProcessReport, WorkerState

OK: Final = 200
NOT_FOUND: Final = 404
UNAVAILABLE: Final = 503


class HealthResponse(NamedTuple):
    """The status and the JSON object of a response."""

    status: int
    body: dict[str, Any]


def judge_liveness(reports: Sequence[WorkerProcessReport], *, max_blocked: float) -> HealthResponse:
    """Return whether the event loops of all workers turn.

    A loop may be blocked for max_blocked seconds. A worker that has not been started, or that was
    stopped without an error, is alive.
    """
    reasons = [
        reason
        for report in reports
        for reason in _prefix_with_process(report, reports, _why_not_alive(report, max_blocked))
    ]
    return _make_response("alive", "not alive", reasons)


def _why_not_alive(report: WorkerProcessReport, max_blocked: float) -> list[str]:
    if report.problem is not None:
        return [report.problem]
    reasons = []
    for worker in report.workers:
        if worker.failure is not None:
            reasons.append(f"worker {worker.name}: stopped by an internal error: {worker.failure}")
        elif worker.is_running and worker.blocked_seconds > max_blocked:
            reasons.append(_describe_blocked_loop(worker))
    return reasons


def judge_readiness(
    reports: Sequence[WorkerProcessReport],
    paused: Sequence[str],
    *,
    max_fetch_age: float,
    late_schedules: Sequence[str] = (),
) -> HealthResponse:
    """Return whether all workers get jobs from all of their queues.

    A worker is ready for a queue if it has claimed jobs, or found none, within the last
    max_fetch_age seconds. While all of its slots are used it claims none; then its store must not
    be failing. paused are the names of paused queues: they are reported, but a worker is ready for
    them. late_schedules are sentences about schedules that are too late: the workers are not ready
    if there are any.
    """
    reasons = [
        reason
        for report in reports
        for reason in _prefix_with_process(report, reports, _why_not_ready(report, max_fetch_age))
    ]
    response = _make_response("ready", "not ready", [*reasons, *late_schedules])
    if paused:
        response.body["paused"] = list(paused)
    return response


def _why_not_ready(report: WorkerProcessReport, max_fetch_age: float) -> list[str]:
    if report.problem is not None:
        return [report.problem]
    if not report.workers:
        return ["no worker has started"]
    return [
        reason
        for worker in report.workers
        for reason in _why_worker_not_ready(worker, max_fetch_age)
    ]


def _why_worker_not_ready(worker: WorkerState, max_fetch_age: float) -> list[str]:
    if worker.failure is not None:
        return [f"worker {worker.name}: stopped by an internal error: {worker.failure}"]
    if not worker.is_running:
        return [f"worker {worker.name}: not running"]
    if worker.is_stopping:
        return [f"worker {worker.name}: stopping"]
    if worker.blocked_seconds > max_fetch_age:
        return [_describe_blocked_loop(worker)]
    is_worker_full = worker.slots_used >= worker.slots
    reasons = []
    for queue in worker.queues:
        reason = _why_queue_not_ready(queue, is_worker_full, max_fetch_age)
        if reason is not None:
            reasons.append(f"queue {queue.queue}: {reason}")
    return reasons


def _why_queue_not_ready(
    queue: ServedQueue, is_worker_full: bool, max_fetch_age: float
) -> str | None:
    if queue.fetch_age is not None and queue.fetch_age <= max_fetch_age:
        return None
    if queue.store_error is not None:
        return f"store unavailable for {queue.failing_seconds:.0f} s: {queue.store_error}"
    if queue.fetch_age is None:
        return "no fetch has succeeded yet"
    if is_worker_full:
        return None
    return f"the last successful fetch was {queue.fetch_age:.0f} s ago"


def _describe_blocked_loop(worker: WorkerState) -> str:
    return (
        f"worker {worker.name}: the event loop has been blocked for {worker.blocked_seconds:.0f} s "
        "by code that does not await"
    )


def _prefix_with_process(
    report: WorkerProcessReport, reports: Sequence[WorkerProcessReport], reasons: Sequence[str]
) -> list[str]:
    """Return reasons with the number of the process, if there are several processes."""
    return [f"process {report.number}: {each}" if len(reports) > 1 else each for each in reasons]


def _make_response(good: str, bad: str, reasons: list[str]) -> HealthResponse:
    if reasons:
        return HealthResponse(UNAVAILABLE, {"status": bad, "reasons": reasons})
    return HealthResponse(OK, {"status": good})


def predict_wait(
    reports: Sequence[WorkerProcessReport],
    queue: str,
    *,
    backlog: int,
    running: int,
    slots: int,
    is_paused: bool,
) -> HealthResponse:
    """Return how long a new job will wait: the backlog of a queue divided by its throughput.

    backlog is the number of jobs that are ready, running the number of those that run. The
    throughput is that with all slots in use: the number of slots divided by the run time of a job.
    Its average is that of the last runs, or the average age of the running jobs if that is longer:
    jobs that do not end count, too. If no job has run yet, 0 seconds are predicted. slots are those
    of all workers of the queue, and at least 1. More workers do not help a paused queue, so its
    wait is 0.
    """
    seconds = 0.0 if is_paused else backlog * _average_run_seconds(reports, queue) / max(slots, 1)
    body = {
        "queue": queue,
        "wait_seconds": round(seconds, 3),
        "backlog": backlog,
        "slots": slots,
        "running": running,
        "paused": is_paused,
    }
    return HealthResponse(OK, body)


def _average_run_seconds(reports: Sequence[WorkerProcessReport], queue: str) -> float:
    served = [
        each
        for report in reports
        for worker in report.workers
        for each in worker.queues
        if each.queue == queue
    ]
    averages = [each.average_run_seconds for each in served if each.average_run_seconds is not None]
    running = sum(each.running for each in served)
    return max(
        sum(averages) / len(averages) if averages else 0.0,
        sum(each.running_seconds for each in served) / running if running else 0.0,
    )


def make_no_such_queue_response(queue: str | None, known: Sequence[str]) -> HealthResponse:
    """Return the response to a request for the wait of an unknown queue.

    queue is None if the request names no queue.
    """
    names = ", ".join(known)
    detail = (
        f"add the name of a queue: /scale?queue=NAME, one of {names}"
        if queue is None
        else f"queue={queue!r}: must be one of {names}"
    )
    return HealthResponse(NOT_FOUND, {"status": "no such queue", "detail": detail})


def make_store_unavailable_response(error: str) -> HealthResponse:
    """Return the response if the wait is unknown, because the store cannot be read."""
    return HealthResponse(UNAVAILABLE, {"status": "store unavailable", "detail": error})
