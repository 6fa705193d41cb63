"""The context of a running job: what its handler can read and report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hasten._escapes import printable
from hasten._logs import get_logger
from hasten.errors import InvalidOption
from hasten.jobs._encoding import encode_json
from hasten.jobs._options import read_keep_logs
from hasten.jobs._record import JobRecord, LogLine, Progress, RunUpdate

logger = get_logger("hasten.worker")

MAX_LINE_BYTES: Final = 64 * 1024


class Context:
    """The running job, for a task with a parameter that is annotated with this class.

    Its methods may be called from any thread and do not wait: progress and log lines are stored
    with the next transaction, before the outcome of the job. After the handler has returned or
    raised, they do nothing: reports of threads and tasks that still run are dropped, and the first
    one logs a warning.
    """

    __slots__ = (
        "_closed",
        "_dropped",
        "_job",
        "_max_bytes",
        "_report_update",
        "_stopping",
        "attempt",
    )

    def __init__(
        self, job: JobRecord, report: Callable[[RunUpdate], None], *, max_bytes: int
    ) -> None:
        self._job = job
        self._report_update = report
        self._max_bytes = max_bytes
        self._stopping = False
        self._closed = False
        self._dropped = False
        self.attempt = job.attempts_made + 1
        """The number of this attempt, from 1. Runs that were handed back are not counted."""

    def __repr__(self) -> str:
        return printable(
            f"<Context of job {self._job.id} {self._job.name}, attempt {self.attempt}>"
        )

    @property
    def job(self) -> JobRecord:
        """The job as it was claimed."""
        return self._job

    @property
    def stopping(self) -> bool:
        """Whether this run should stop: it is cancelled or timed out, or its worker stops.

        A coroutine is cancelled then. A long plain function can check this, and return or raise.
        """
        return self._stopping

    def stop(self) -> None:
        """Set `stopping`. The worker calls this."""
        self._stopping = True

    def close(self) -> None:
        """Drop later reports. The worker calls this when the handler has ended."""
        self._closed = True

    def progress(self, value: object) -> None:
        """Store the progress of the job: any JSON value.

        Raises `InvalidOption` for a value that is not JSON or has more bytes than the queue's
        max_size. A value of more than 64 KiB is stored with the job, but is not in the event.
        """
        self._report(Progress(self._job.id, encode_progress(value, self._max_bytes)))

    def log(self, line: str) -> None:
        """Add a line to the log of the job, which is kept as long as the job.

        The newest 1,000 lines are kept, or as many as the option keep_logs of the job says. A line
        of more than 64 KiB is cut, and ends with the number of bytes that it had.
        """
        self._report(log_line(self._job, line))

    def _report(self, update: RunUpdate) -> None:
        if not self._closed:
            self._report_update(update)
        elif not self._dropped:
            self._dropped = True
            logger.warning(
                "job %s (%s): log lines and progress dropped, because the handler has ended; a "
                "thread or a task that it left running still reports them",
                self._job.id, self._job.name,
            )  # fmt: skip


def encode_progress(value: object, max_bytes: int) -> str:
    """Return the JSON of a progress value. Raises `InvalidOption`, also if it is too large."""
    try:
        encoded = encode_json(value)
    except Exception as exc:
        expected = f"a JSON value: {exc}"
        raise InvalidOption("progress", value, expected, is_private=True) from exc
    if len(encoded) > max_bytes:
        raise InvalidOption(
            "progress",
            value,
            f"at most {max_bytes:,} bytes of JSON (it has {len(encoded):,}). Store the data "
            "elsewhere and report a reference, or raise Queue(max_size=…)",
            is_private=True,
        )
    return encoded.decode()


def log_line(job: JobRecord, line: str) -> LogLine:
    """Return a line for the log of a job, and how many lines its options keep."""
    encoded = str(line).encode("utf-8", "replace")
    text = encoded[:MAX_LINE_BYTES].decode(errors="ignore")
    if len(encoded) > MAX_LINE_BYTES:
        text += f"… (cut: it had {len(encoded):,} bytes)"
    return LogLine(job.id, text, read_keep_logs(job.opts))
