"""`Context`: lets a task's function read its job, report progress and add log lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hasten._escapes import escape_unprintable
from hasten._logs import get_logger
from hasten.errors import InvalidOption
from hasten.jobs._children import Children
from hasten.jobs._encoding import encode_json
from hasten.jobs._job import JobQueue
from hasten.jobs._options import decode_keep_logs
from hasten.jobs._record import JobRecord, LogLine, Progress, RunUpdate

logger = get_logger("hasten.worker")

MAX_LINE_BYTES: Final = 64 * 1024


class Context:
    """The running job. A task gets it through a parameter with this annotation.

    The methods may be called in any thread, and return without waiting: progress and log lines are
    stored with the next transaction, and before the outcome of the job. After the handler has
    ended, reports of threads and tasks that it has left running are dropped. The first one logs a
    warning.
    """

    __slots__ = (
        "_children",
        "_closed",
        "_dropped",
        "_job",
        "_max_bytes",
        "_queue",
        "_report_update",
        "_stopping",
        "attempt",
    )

    def __init__(
        self,
        job: JobRecord,
        report: Callable[[RunUpdate], None],
        *,
        max_bytes: int,
        queue: JobQueue,
    ) -> None:
        self._job = job
        self._queue = queue
        self._children: Children | None = None
        self._report_update = report
        self._max_bytes = max_bytes
        self._stopping = False
        self._closed = False
        self._dropped = False
        self.attempt = job.attempts_made + 1
        """The number of this attempt, from 1. Postponed runs and runs handed back do not count."""

    def __repr__(self) -> str:
        return escape_unprintable(
            f"<Context of job {self._job.id} {self._job.name}, attempt {self.attempt}>"
        )

    @property
    def job(self) -> JobRecord:
        """The stored fields of the job when it was claimed."""
        return self._job

    @property
    def children(self) -> Children:
        """The child jobs of this job, and methods to add more and to wait for them."""
        if self._children is None:
            self._children = Children(self._queue, self._job)
        return self._children

    @property
    def used_children(self) -> Children | None:
        """The object that `children` has returned, None if it was not used. For the worker."""
        return self._children

    @property
    def stopping(self) -> bool:
        """Whether this run should stop: it is cancelled or timed out, or the worker is stopping.

        A coroutine is cancelled then, so only plain functions that run long need to check this.
        They should return or raise an exception.
        """
        return self._stopping

    def stop(self) -> None:
        """Set `stopping` to True. Called by the worker."""
        self._stopping = True

    def close(self) -> None:
        """Drop all later reports. Called by the worker when the handler has ended."""
        self._closed = True

    def progress(self, value: object) -> None:
        """Store the progress of the job, any JSON value, in place of the previous one.

        Raises `InvalidOption` for a value that cannot be stored as JSON or has more bytes than the
        queue's max_size. A value of more than 64 KiB is stored with the job, but left out of its
        "progress" event.
        """
        self._pass_to_worker(Progress(self._job.id, encode_progress(value, self._max_bytes)))

    def log(self, line: str) -> None:
        """Add a line to the log that is stored with the job.

        The newest 1,000 lines are kept, or as many as the job's option keep_logs. A line of more
        than 64 KiB is cut, and its original size is appended.
        """
        self._pass_to_worker(make_log_line(self._job, line))

    def _pass_to_worker(self, update: RunUpdate) -> None:
        """Pass progress or a log line to the worker, or drop it if the handler has ended."""
        if not self._closed:
            self._report_update(update)
        elif not self._dropped:
            self._dropped = True
            logger.warning(
                "job %s (%s): log line or progress dropped, because the handler has ended; a "
                "thread or task that it has left running reported it",
                self._job.id, self._job.name,
            )  # fmt: skip


def encode_progress(value: object, max_bytes: int) -> str:
    """Encode a progress value as JSON. Raises `InvalidOption`, also if it is too large."""
    try:
        encoded = encode_json(value)
    except Exception as exc:
        expected = f"a value that can be stored as JSON: {exc}"
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


def make_log_line(job: JobRecord, line: str) -> LogLine:
    """Return the record of a line for the log of a job, cut to `MAX_LINE_BYTES`."""
    encoded = str(line).encode("utf-8", "replace")
    text = encoded[:MAX_LINE_BYTES].decode(errors="ignore")
    if len(encoded) > MAX_LINE_BYTES:
        text += f"… (cut: it had {len(encoded):,} bytes)"
    return LogLine(job.id, text, decode_keep_logs(job.opts))
