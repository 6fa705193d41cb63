"""Log runs: their start and end at DEBUG, and above all those that failed.

A failed attempt that will be retried is a WARNING. A job that failed for good is an ERROR, with the
traceback in `exc_info`, where error trackers look for it. Records have these attributes:
`queue`, `task`, `job_id`, `attempt`, `attempts`, `error` and, of a retry, `retry_in` (seconds).
These are as they are stored; the message and the traceback are escaped (`hasten._logs`).
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any, Final

from hasten._escapes import printable
from hasten._logs import format_traceback, get_logger
from hasten.jobs._engine import CANCELLED_ERROR
from hasten.jobs._failures import Failure, handler_traceback
from hasten.jobs._record import Failed, JobRecord, Outcome, Postponed, Retry

logger = get_logger("hasten.worker")

MAX_SHOWN: Final = 500  # characters of an error in a line of the log


def attempt(
    job: JobRecord, outcome: Outcome, failure: Failure, attempts: int, error: BaseException
) -> None:
    """Log a run that failed. attempts is the largest number of attempts of the job."""
    number = job.attempts_made + 1
    facts = {**_facts(job, failure.error), "attempts": attempts}
    job_name = _one_line(job.name)
    shown = _one_line(failure.error)
    match outcome:
        case Failed():
            _log(
                logging.ERROR, "queue %s: job %s (%s) failed for good, attempt %d of %d: %s",
                job.queue, job.id, job_name, number, attempts, shown,
                facts=facts,
                exc_info=(type(error), error, handler_traceback(error.__traceback__)),
            )  # fmt: skip
        case Retry(delay_ms=delay_ms):
            _log(
                logging.WARNING,
                "queue %s: job %s (%s) failed, attempt %d of %d, runs again in %g s: %s",
                job.queue, job.id, job_name, number, attempts, delay_ms / 1000, shown,
                facts={**facts, "retry_in": delay_ms / 1000},
            )  # fmt: skip
        case Postponed(delay_ms=delay_ms):
            _log(
                logging.INFO, "queue %s: job %s (%s) asked to run again in %g s",
                job.queue, job.id, job_name, delay_ms / 1000,
                facts={**facts, "retry_in": delay_ms / 1000},
            )  # fmt: skip


def started(job: JobRecord) -> None:
    """Log the start of a run."""
    _log(
        logging.DEBUG, "queue %s: job %s (%s) started, attempt %d",
        job.queue, job.id, _one_line(job.name), job.attempts_made + 1,
        facts=_facts(job),
    )  # fmt: skip


def ended(job: JobRecord, outcome: Outcome | None, seconds: float) -> None:
    """Log the end of a run, and what becomes of its job."""
    what = "lease lost" if outcome is None else type(outcome).__name__.lower()
    _log(
        logging.DEBUG, "queue %s: job %s (%s) ended after %.3f s: %s",
        job.queue, job.id, _one_line(job.name), seconds, what,
        facts={**_facts(job), "seconds": seconds, "outcome": what},
    )  # fmt: skip


def not_run(job: JobRecord, error: str) -> None:
    """Log a job that failed for good without a run: its task is unknown, it has expired, …"""
    _log(
        logging.ERROR, "queue %s: job %s (%s) failed without a run: %s",
        job.queue, job.id, _one_line(job.name), _one_line(error),
        facts=_facts(job, error),
    )  # fmt: skip


def cancelled(job: JobRecord) -> None:
    """Log a job that failed because it was cancelled."""
    _log(
        logging.INFO, "queue %s: job %s (%s) was cancelled",
        job.queue, job.id, _one_line(job.name),
        facts=_facts(job, CANCELLED_ERROR),
    )  # fmt: skip


def not_stored(queue: str, job_id: str, error: str) -> None:
    """Log a job whose outcome the store rejects."""
    facts: dict[str, object] = {"queue": queue, "job_id": job_id, "error": error}
    _log(logging.ERROR, "queue %s: job %s: %s", queue, job_id, _one_line(error), facts=facts)


def _log(
    level: int, message: str, *args: object, facts: dict[str, object], exc_info: Any = None
) -> None:
    """Log without raising: a job's outcome must be stored even if the program's logging fails."""
    try:
        try:
            logger.log(level, message, *args, extra=facts, exc_info=exc_info)
        except KeyError:  # a record factory of the application has one of these attributes
            logger.log(level, message, *args, exc_info=exc_info)
    except Exception as error:  # noqa: BLE001  # a filter or a handler of the application
        with contextlib.suppress(Exception):
            print(printable(message % args), file=sys.stderr)  # noqa: T201
            print(format_traceback(error), file=sys.stderr)  # noqa: T201


class RemoteTraceback(Exception):
    """The traceback of an exception in another process: the cause of `JobFailed` in the log."""

    def __init__(self, trace: str) -> None:
        super().__init__(trace)
        self.trace = trace

    def __str__(self) -> str:
        return f"\n{self.trace}"


def _facts(job: JobRecord, error: str | None = None) -> dict[str, object]:
    facts: dict[str, object] = {"queue": job.queue, "task": job.name, "job_id": job.id}
    facts["attempt"] = job.attempts_made + 1
    return facts if error is None else {**facts, "error": error}


def _one_line(text: str) -> str:
    """Return a text on one line, shortened, with its control characters escaped."""
    line = printable(" ".join(text[:MAX_SHOWN].split()))
    return line if len(text) <= MAX_SHOWN else line + "…"
