"""What a running handler can know and say about its own job."""

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
    """Given to the parameter of a task that is annotated with it.

    Its methods may be called from any thread, and do not wait: what they say is stored with the
    next transaction, before the job's end. Once the handler has returned or raised, they do
    nothing: what a thread or a task that it left behind reports is dropped, and the first time a
    warning is logged.
    """

    __slots__ = ("_closed", "_dropped", "_job", "_max_bytes", "_note", "_stopping", "attempt")

    def __init__(
        self, job: JobRecord, note: Callable[[RunUpdate], None], *, max_bytes: int
    ) -> None:
        self._job = job
        self._note = note
        self._max_bytes = max_bytes
        self._stopping = False
        self._closed = False
        self._dropped = False
        self.attempt = job.attempts_made + 1
        """The number of this attempt, from 1. Runs that were handed back do not count."""

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
        """Whether this run is to end: cancelled, timed out, or its worker stops.

        A coroutine is cancelled then. A long plain function may ask, and return or raise.
        """
        return self._stopping

    def stop(self) -> None:
        """Set `stopping`. The worker does that."""
        self._stopping = True

    def close(self) -> None:
        """Drop what is reported from now on. The worker does that when the handler has ended."""
        self._closed = True

    def progress(self, value: object) -> None:
        """Store how far the job is: any JSON value.

        Raises `InvalidOption` for one that JSON does not have, or of more bytes than the queue's
        max_size. More than 64 KiB are stored with the job, but not in the event that tells of it.
        """
        self._report(Progress(self._job.id, encode_progress(value, self._max_bytes)))

    def log(self, line: str) -> None:
        """Keep a line with the job, as long as the job is kept.

        The newest 1,000 lines are kept, or as many as the job's option keep_logs says. A line of
        more than 64 KiB is cut, and ends with the number of bytes that it had.
        """
        self._report(log_line(self._job, line))

    def _report(self, note: RunUpdate) -> None:
        if not self._closed:
            self._note(note)
        elif not self._dropped:
            self._dropped = True
            logger.warning(
                "job %s (%s): its handler has ended; the log lines and the progress that it "
                "still reports, from a thread or a task that it left running, are dropped",
                self._job.id, self._job.name,
            )  # fmt: skip


def encode_progress(value: object, max_bytes: int) -> str:
    """The JSON of a progress value. Raises `InvalidOption` if it has none, or a very long one."""
    try:
        encoded = encode_json(value)
    except Exception as exc:
        expected = f"a value that JSON has: {exc}"
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
    """A line for a job's log. It keeps as many as its options say."""
    encoded = str(line).encode("utf-8", "replace")
    text = encoded[:MAX_LINE_BYTES].decode(errors="ignore")
    if len(encoded) > MAX_LINE_BYTES:
        text += f"… (cut: it had {len(encoded):,} bytes)"
    return LogLine(job.id, text, read_keep_logs(job.opts))
