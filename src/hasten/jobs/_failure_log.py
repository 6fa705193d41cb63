"""Log runs: their start and end at DEBUG, and above all those that failed.

A failed attempt that will be retried is a WARNING. A job that failed for good is an ERROR, with the
traceback in `exc_info`, where error trackers look for it. Log records have these attributes:
`queue`, `task`, `job_id`, `attempt`, `attempts`, `error` and, if the job runs again, `retry_in`
(seconds). They are not escaped; the message and the traceback are (`hasten._logs`).
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any, Final

from hasten._escapes import escape_unprintable
from hasten._logs import format_traceback, get_logger
from hasten.jobs._engine import CANCELLED_ERROR
from hasten.jobs._failures import Failure, skip_library_frames
from hasten.jobs._record import Failed, JobRecord, Outcome, Postponed, Retry

logger = get_logger("hasten.worker")

MAX_SHOWN: Final = 500  # the longest error in a log message, in characters


def log_failed_run(
    job: JobRecord, outcome: Outcome, failure: Failure, attempts: int, error: BaseException
) -> None:
    """Log a run that failed: as ERROR for good, as WARNING if retried, as INFO if postponed.

    attempts is the maximum number of attempts of the job.
    """
    number = job.attempts_made + 1
    attributes = {**_make_log_attributes(job, failure.error), "attempts": attempts}
    job_name = _to_one_line(job.name)
    shown = _to_one_line(failure.error)
    match outcome:
        case Failed():
            _log_without_raising(
                logging.ERROR, "queue %s: job %s (%s) failed for good, attempt %d of %d: %s",
                job.queue, job.id, job_name, number, attempts, shown,
                attributes=attributes,
                exc_info=(type(error), error, skip_library_frames(error.__traceback__)),
            )  # fmt: skip
        case Retry(delay_ms=delay_ms):
            _log_without_raising(
                logging.WARNING,
                "queue %s: job %s (%s) failed, attempt %d of %d, runs again in %g s: %s",
                job.queue, job.id, job_name, number, attempts, delay_ms / 1000, shown,
                attributes={**attributes, "retry_in": delay_ms / 1000},
            )  # fmt: skip
        case Postponed(delay_ms=delay_ms):
            _log_without_raising(
                logging.INFO, "queue %s: job %s (%s) postponed by its handler, runs again in %g s",
                job.queue, job.id, job_name, delay_ms / 1000,
                attributes={**attributes, "retry_in": delay_ms / 1000},
            )  # fmt: skip


def log_started_run(job: JobRecord) -> None:
    """Log the start of a run, as DEBUG."""
    _log_without_raising(
        logging.DEBUG, "queue %s: job %s (%s) started, attempt %d",
        job.queue, job.id, _to_one_line(job.name), job.attempts_made + 1,
        attributes=_make_log_attributes(job),
    )  # fmt: skip


def log_ended_run(job: JobRecord, outcome: Outcome | None, seconds: float) -> None:
    """Log the end of a run and its outcome, as DEBUG. outcome is None if the lease was lost."""
    name = "lease lost" if outcome is None else type(outcome).__name__.lower()
    _log_without_raising(
        logging.DEBUG, "queue %s: job %s (%s) ended after %.3f s: %s",
        job.queue, job.id, _to_one_line(job.name), seconds, name,
        attributes={**_make_log_attributes(job), "seconds": seconds, "outcome": name},
    )  # fmt: skip


def log_failed_without_run(job: JobRecord, error: str) -> None:
    """Log a job that failed for good without being run.

    For instance because the worker has no such task, or because the job has expired.
    """
    _log_without_raising(
        logging.ERROR, "queue %s: job %s (%s) failed without a run: %s",
        job.queue, job.id, _to_one_line(job.name), _to_one_line(error),
        attributes=_make_log_attributes(job, error),
    )  # fmt: skip


def log_cancelled(job: JobRecord) -> None:
    """Log a job that failed because it was cancelled."""
    _log_without_raising(
        logging.INFO, "queue %s: job %s (%s) was cancelled",
        job.queue, job.id, _to_one_line(job.name),
        attributes=_make_log_attributes(job, CANCELLED_ERROR),
    )  # fmt: skip


def log_outcome_not_stored(queue: str, job_id: str, error: str) -> None:
    """Log that the store has rejected the outcome of a job. error is the reason."""
    attributes: dict[str, object] = {"queue": queue, "job_id": job_id, "error": error}
    _log_without_raising(
        logging.ERROR,
        "queue %s: job %s: %s",
        queue,
        job_id,
        _to_one_line(error),
        attributes=attributes,
    )


def _log_without_raising(
    level: int, message: str, *args: object, attributes: dict[str, object], exc_info: Any = None
) -> None:
    """Log without raising exceptions, also if the program's own logging code does.

    Otherwise the outcome of the job would not be stored.
    """
    try:
        try:
            logger.log(level, message, *args, extra=attributes, exc_info=exc_info)
        except KeyError:  # the application's log record factory uses one of these names
            logger.log(level, message, *args, exc_info=exc_info)
    except Exception as error:  # noqa: BLE001  # raised by a filter or handler of the application
        with contextlib.suppress(Exception):
            print(escape_unprintable(message % args), file=sys.stderr)  # noqa: T201
            print(format_traceback(error), file=sys.stderr)  # noqa: T201


class RemoteTraceback(Exception):
    """The traceback of an exception in a child process, as text.

    It is the cause of the `JobFailed` that the log shows in place of that exception.
    """

    def __init__(self, trace: str) -> None:
        super().__init__(trace)
        self.trace = trace

    def __str__(self) -> str:
        return f"\n{self.trace}"


def _make_log_attributes(job: JobRecord, error: str | None = None) -> dict[str, object]:
    """Return the attributes of log records about a job."""
    attributes: dict[str, object] = {
        "queue": job.queue,
        "task": job.name,
        "job_id": job.id,
        "attempt": job.attempts_made + 1,
    }
    return attributes if error is None else {**attributes, "error": error}


def _to_one_line(text: str) -> str:
    """Return a text on one line, shortened, with control characters escaped."""
    line = escape_unprintable(" ".join(text[:MAX_SHOWN].split()))
    return line if len(text) <= MAX_SHOWN else line + "…"
