"""The records that queues, workers and engines exchange.

They are structs, because some are made for every job, and a frozen dataclass takes several times as
long to make.
"""

from __future__ import annotations

from typing import Final

import msgspec

from hasten.jobs._options import (
    DEFAULT_KEEP_COMPLETED,
    DEFAULT_KEEP_FAILED,
    Keep,
    Options,
    encode_options,
)
from hasten.jobs._states import FINISHED, State


class JobTemplate(msgspec.Struct, frozen=True, gc=False):
    """What the jobs of one task with the same options have in common."""

    name: str
    opts: str  # the options as JSON: what is stored
    options: Options  # resolved

    @classmethod
    def of(cls, name: str, options: Options, *, now_ms: int) -> JobTemplate:
        """Make the template of jobs that are added now."""
        resolved = options.resolved(now_ms)
        return cls(name, encode_options(resolved), resolved)

    @property
    def is_plain(self) -> bool:
        """Whether the jobs are ready at once, behind all other jobs without a priority."""
        options = self.options
        return not (options.delay_ms or options.priority or options.lifo)


class NewJob(msgspec.Struct, frozen=True, gc=False):
    """A job to add. data is JSON; id is None for the next number of the queue."""

    queue: str
    template: JobTemplate
    data: str
    id: str | None = None


class Added(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `NewJob`.

    existing is the job that already had this id, and was not changed. cursor is a place in the
    queue's events: later events of the job come after it.
    """

    id: str
    existing: JobRecord | None = None
    cursor: str = ""


class JobRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stored job. Texts marked JSON are not decoded, times are in ms since 1970."""

    queue: str
    id: str
    name: str
    data: str  # JSON
    opts: str  # JSON, see `hasten.jobs._options`
    state: State
    priority: int
    delay_ms: int  # the requested delay, or the last back-off; 0 once promoted
    created_ms: int
    attempts_made: int  # runs that counted: completed, failed or retried
    attempts_started: int  # all runs, including released ones
    crashes: int  # runs whose worker died (BullMQ: stalled)
    deferred_failure: str | None = None  # the next worker fails it with this error, without a run
    started_ms: int | None = None  # start of the latest run
    worker: str | None = None  # of the latest run
    progress: str | None = None  # JSON
    error: str | None = None  # of the latest failed run
    # From here on: not set in a job that has just been claimed.
    due_ms: int | None = None  # while delayed
    finished_ms: int | None = None
    result: str | None = None  # JSON
    tracebacks: list[str] = []  # one text per failed run, oldest first
    cancel_requested: bool = False


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right to run a job and to settle it, until it runs out or is renewed."""

    job: JobRecord
    token: str


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A request for up to count jobs.

    token is the fencing token of the runs of this claim, unique among all claims of all workers.
    """

    count: int
    token: str
    worker: str
    lease_ms: int


class Batch(msgspec.Struct, frozen=True):
    """The answer to a claim."""

    leases: list[Lease]
    next_due_ms: int | None = None  # of the earliest delayed job, if fewer jobs came than requested
    lost: list[str] = []  # ids of settled jobs whose lease was lost: nothing was stored


class Completed(msgspec.Struct, frozen=True, gc=False):
    """The handler returned: result is JSON."""

    id: str
    token: str
    result: str
    keep: Keep = DEFAULT_KEEP_COMPLETED


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The job has failed for good. traceback is None if it did not run."""

    id: str
    token: str
    error: str
    traceback: str | None = None
    keep: Keep = DEFAULT_KEEP_FAILED
    counts: bool = True  # as an attempt
    exhausted: bool = False  # there was no attempt left


class Retry(msgspec.Struct, frozen=True, gc=False):
    """The attempt failed, and the job runs again after delay_ms; with 0 behind all others."""

    id: str
    token: str
    error: str
    traceback: str
    delay_ms: int


class Postponed(msgspec.Struct, frozen=True, gc=False):
    """The handler requested another run after delay_ms. No attempt is counted."""

    id: str
    token: str
    delay_ms: int


class Released(msgspec.Struct, frozen=True, gc=False):
    """The worker returns the unfinished job: it is first in line, and no attempt is counted."""

    id: str
    token: str


Outcome = Completed | Failed | Retry | Postponed | Released


class End(msgspec.Struct, frozen=True, gc=False):
    """Whether a job has ended, and how: its state, and its result (JSON) or its error."""

    state: State
    value: str | None = None


class Child(msgspec.Struct, frozen=True, gc=False):
    """An unfinished child of a job, or one that failed. state is None if the job is gone."""

    queue: str
    id: str
    state: State | None = None
    error: str | None = None  # of a failed one


class Situation(msgspec.Struct, frozen=True):
    """A job, and what decides whether it runs now."""

    job: JobRecord
    is_paused: bool
    lease_until_ms: int | None = None  # of an active job; None if it has expired on the server
    ahead: int | None = None  # ready jobs that are claimed before it, at most `COUNTED_AHEAD`
    limited_until_ms: int | None = None  # while the rate limit of the queue blocks claims
    full: int | None = None  # the global concurrency of the queue, if as many jobs run
    pending: int = 0  # children that the job waits for
    children: list[Child] = []  # some of them, failed ones first


COUNTED_AHEAD: Final = 10_000
"""Jobs in front of a job are counted up to this number."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event of a job or a queue. kind is BullMQ's name of it.

    Events of a job: added, waiting, delayed, active, progress, completed, failed,
    retries-exhausted, stalled, removed, duplicated. Events of the queue, with job_id "": paused,
    resumed, drained, cleaned. On Redis other programs may emit events with any other name; details
    has the fields that are not attributes here.

    The event missed, with job_id "", exists in hasten only: events that the reader has not read
    yet were deleted, because the reader is too far behind. It comes in place of those events.

    A result or progress of more than 64 KiB is stored with its job only: value is None then, and
    omitted_bytes is its size. Read the job to get it. (If a handler returned None, value is
    "null".) The result of a job that is not kept, or only briefly, is in the event up to 32 MiB.
    """

    cursor: str  # its place among the events: "n-n"; later events come after it
    kind: str
    job_id: str
    value: str | None = None  # JSON: the result of completed, the value of progress
    error: str | None = None  # of failed
    previous: str | None = None  # the state it came from
    due_ms: int | None = None  # of delayed
    count: int | None = None  # of cleaned
    omitted_bytes: int | None = None  # the size of a value that is too large for an event
    details: dict[str, str] = {}


MISSED: Final = "missed"


class EventPage(msgspec.Struct, frozen=True):
    """Events in order, and the cursor after the last one."""

    events: list[Event]
    cursor: str


class Progress(msgspec.Struct, frozen=True, gc=False):
    """The progress of a running job; value is JSON."""

    id: str
    value: str


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """A line for the log of a job."""

    id: str
    line: str
    keep: int  # the newest lines to keep


RunUpdate = Progress | LogLine
"""What a handler reports while it runs."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """A change to a job by somebody else than its handler. None leaves a field as it is.

    data and progress are JSON. Either all fields are changed, or, if the state of the job does not
    allow one of the changes, none. A job with a new priority is placed behind those that have that
    priority already. The delay counts from now.
    """

    id: str
    data: str | None = None
    priority: int | None = None
    delay_ms: int | None = None
    progress: str | None = None

    @property
    def states(self) -> list[State]:
        """The states that allow it: only delayed jobs have a delay, finished ones no priority."""
        if self.delay_ms is not None:
            return [State.DELAYED]
        if self.priority is not None:
            return [state for state in State if state not in FINISHED]
        return list(State)


Update = RunUpdate | Change
