"""What a running handler can know and say about its own job."""

from __future__ import annotations

from collections.abc import Callable

from hasten.jobs.encoding import encode_json
from hasten.jobs.options import read_keep_logs
from hasten.jobs.record import JobRecord, LogLine, Note, Progress


class Context:
    """Given to the parameter of a task that is annotated with it.

    Its methods may be called from any thread, and do not wait: what they say is stored with the
    next transaction, before the job's end.
    """

    __slots__ = ("_job", "_note", "_stopping", "attempt")

    def __init__(self, job: JobRecord, note: Callable[[Note], None]) -> None:
        self._job = job
        self._note = note
        self._stopping = False
        self.attempt = job.attempts_made + 1
        """The number of this attempt, from 1. Runs that were handed back do not count."""

    @property
    def job(self) -> JobRecord:
        """The job as it was claimed."""
        return self._job

    @property
    def stopping(self) -> bool:
        """Whether this run is to end: cancelled, timed out, or its worker stops.

        A coroutine is cancelled then. A long plain function may ask, and return or raise.
        """
        return self._stopping

    def stop(self) -> None:
        """Set `stopping`. The worker does that."""
        self._stopping = True

    def progress(self, value: object) -> None:
        """Store how far the job is: any JSON value. Raises `TypeError` or `ValueError` if not."""
        self._note(Progress(self._job.id, encode_json(value).decode()))

    def log(self, line: str) -> None:
        """Keep a line with the job, as long as the job is kept.

        The newest 1,000 lines are kept, or as many as the job's option keep_logs says.
        """
        self._note(log_line(self._job, line))


def log_line(job: JobRecord, line: str) -> LogLine:
    """A line for a job's log. It keeps as many as its options say."""
    line = str(line).encode("utf-8", "replace").decode()
    return LogLine(job.id, line, read_keep_logs(job.opts))
