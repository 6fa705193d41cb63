"""The data records that queues, workers and engines pass to each other.

They are msgspec structs instead of dataclasses, because some are created for every job, and a
frozen dataclass takes several times as long to create.
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
    """The task name and options that many new jobs share, encoded once for all of them."""

    name: str
    opts: str  # the options as the JSON that is stored
    options: Options  # with an absolute time of expiry: see `Options.with_expiry_time`

    @classmethod
    def of(cls, name: str, options: Options, *, now_ms: int) -> JobTemplate:
        """Return the template of jobs that are added at now_ms, from which their expiry counts."""
        resolved = options.with_expiry_time(now_ms)
        return cls(name, encode_options(resolved), resolved)

    @property
    def is_fifo(self) -> bool:
        """Whether the jobs are ready at once and run in the order in which they are added."""
        options = self.options
        return not (options.delay_ms or options.priority or options.lifo)


class NewJob(msgspec.Struct, frozen=True, gc=False):
    """A job to add to a queue. data is JSON.

    id is the job_id that the caller has chosen; if None, the queue assigns the next number.
    """

    queue: str
    template: JobTemplate
    data: str
    id: str | None = None


class AddResult(msgspec.Struct, frozen=True, gc=False):
    """What happened to a `NewJob`: the id of the job, and whether it was a duplicate.

    existing is the job in the queue that already had this id, None if the new job was added. cursor
    is a position in the queue's events before all later events of the job.
    """

    id: str
    existing: JobRecord | None = None
    cursor: str = ""


class JobRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stored job. Fields marked JSON are not decoded; times are in ms since the epoch."""

    queue: str
    id: str
    name: str
    data: str  # JSON
    opts: str  # JSON, see `hasten.jobs._options`
    state: State
    priority: int
    delay_ms: int  # the requested delay, or the latest backoff; 0 after a promotion
    created_ms: int
    attempts_made: int  # runs that counted as attempts: completed, failed or retried
    attempts_started: int  # all runs, including those that were handed back
    crashes: int  # runs whose worker died (BullMQ: stalled)
    # The next worker fails the job with this error, without running it.
    deferred_failure: str | None = None
    started_ms: int | None = None  # start of the latest run
    worker: str | None = None  # the name of the worker of the latest run
    progress: str | None = None  # JSON
    error: str | None = None  # of the latest failed run
    # The following fields are not set in the records that `Engine.claim` returns.
    due_ms: int | None = None  # set while the job is delayed
    finished_ms: int | None = None
    result: str | None = None  # JSON
    tracebacks: list[str] = []  # one text per failed run, oldest first
    cancel_requested: bool = False


def is_first_start(job: JobRecord, options: Options) -> bool:
    """Return whether a claimed job has not run before, so that it may expire.

    A worker whose release is too old for the job claims it and hands it back. That increases the
    stored number of starts, but is ignored here.
    """
    return job.attempts_started <= 1 or (options.since is not None and job.attempts_made == 0)


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right of a worker to run a job and to store its outcome, until the lease expires.

    The worker renews it while the job runs. token must be presented with the outcome.
    """

    job: JobRecord
    token: str


class ClaimRequest(msgspec.Struct, frozen=True, gc=False):
    """A request of a worker for up to count jobs.

    token is the fencing token of the jobs' runs. It is unique among all claims of all workers, so
    that an outcome of an older run of the same job is rejected. worker is the name of the worker.
    """

    count: int
    token: str
    worker: str
    lease_ms: int


class ClaimedJobs(msgspec.Struct, frozen=True):
    """The result of `Engine.claim` or `Engine.settle`: the leased jobs."""

    leases: list[Lease]
    # Due time of the earliest delayed job, if fewer leases than requested.
    next_due_ms: int | None = None
    lost: list[str] = []  # ids of jobs whose outcome was not stored, because their lease was lost
    dropped_slots: int = 0  # slots of schedules that get no run because of missed or overlap


class Completed(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a run whose handler returned. result is the return value as JSON."""

    id: str
    token: str
    result: str
    keep: Keep = DEFAULT_KEEP_COMPLETED


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a job that failed for good: it will not run again.

    traceback is None if the job failed without being run.
    """

    id: str
    token: str
    error: str
    traceback: str | None = None
    keep: Keep = DEFAULT_KEEP_FAILED
    counts: bool = True  # whether the run counts as an attempt
    exhausted: bool = False  # whether it failed because no attempt was left


class Retry(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a failed attempt, after which the job runs again in delay_ms.

    If delay_ms is 0, the job is placed behind the waiting jobs of its priority, or in front of them
    if it has the option lifo.
    """

    id: str
    token: str
    error: str
    traceback: str
    delay_ms: int


class Postponed(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a run that is repeated after delay_ms. It does not count as an attempt.

    The handler has raised `RetryAfter`, or the worker cannot run the job now.
    """

    id: str
    token: str
    delay_ms: int


class Released(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a run that the worker has stopped before its end: the job is handed back.

    The job is put in front of its queue, and the run does not count as an attempt.
    """

    id: str
    token: str


Outcome = Completed | Failed | Retry | Postponed | Released


class JobEnd(msgspec.Struct, frozen=True, gc=False):
    """The part of a job that callers waiting for its result need.

    state may be any state, also of a job that has not ended. value is the result as JSON or the
    error, None if the job has not ended.
    """

    state: State
    value: str | None = None


class ChildJob(msgspec.Struct, frozen=True, gc=False):
    """A child job that is not finished, or has failed. state is None if it no longer exists."""

    queue: str
    id: str
    state: State | None = None
    error: str | None = None  # of a failed one


class WhyFacts(msgspec.Struct, frozen=True):
    """A job, and the facts in the store that explain why it does not run now."""

    job: JobRecord
    is_paused: bool
    lease_until_ms: int | None = None  # of an active job; None if it has expired on the server
    ahead: int | None = None  # ready jobs that are claimed before it, at most `COUNTED_AHEAD`
    limited_until_ms: int | None = None  # while the rate limit of the queue blocks claims
    full: int | None = None  # the global concurrency of the queue, if as many jobs run
    pending: int = 0  # children that the job waits for
    children: list[ChildJob] = []  # some of them, failed ones first
    is_held: bool = False  # it waits until an earlier run of its schedule ends


COUNTED_AHEAD: Final = 10_000
"""Jobs in front of a job are counted up to this number."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something that happened to a job or a queue. kind is BullMQ's name for it.

    Kinds of job events: added, waiting, delayed, active, progress, completed, failed,
    retries-exhausted, stalled, removed, duplicated. Kinds of queue events, with job_id "": paused,
    resumed, drained, cleaned. On Redis other programs may emit events of any other kind; details
    has the fields that are not attributes here.

    The kind missed, with job_id "", exists in hasten only. A reader that is too slow gets it in
    place of the events that were deleted before the reader has read them.

    A result or progress of more than 64 KiB is stored with its job only: then value is None and
    omitted_bytes is its size. Read the job to get it. (If a handler returned None, value is
    "null".) For jobs that are not kept, or only briefly, results of up to 32 MiB are in the event.
    """

    cursor: str  # the position of this event, "n-n": pass it as after to read on from here
    kind: str
    job_id: str
    value: str | None = None  # JSON: the result (of completed) or the progress (of progress)
    error: str | None = None  # set in failed
    previous: str | None = None  # the previous state of the job
    due_ms: int | None = None  # set in delayed: when the job is due
    count: int | None = None  # set in cleaned: the number of deleted jobs
    omitted_bytes: int | None = None  # the size of a value that is too large for an event
    details: dict[str, str] = {}


MISSED: Final = "missed"


class EventPage(msgspec.Struct, frozen=True):
    """Consecutive events of a queue, and the cursor with which to read the next ones."""

    events: list[Event]
    cursor: str


class Progress(msgspec.Struct, frozen=True, gc=False):
    """A progress value that a handler has reported. value is JSON."""

    id: str
    value: str


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """A line that is added to the log of a job."""

    id: str
    line: str
    keep: int  # how many of the newest lines of this job to keep


RunUpdate = Progress | LogLine
"""Data that a handler reports while it runs, and that is stored before its outcome."""


class JobChange(msgspec.Struct, frozen=True, gc=False):
    """A change to a stored job by other code than its handler, such as `Queue.update`.

    None leaves a field as it is. data and progress are JSON. If the state of the job does not allow
    one of the changes, none is made. A job that gets a new priority is placed behind the jobs that
    have this priority already. delay_ms counts from now.
    """

    id: str
    data: str | None = None
    priority: int | None = None
    delay_ms: int | None = None
    progress: str | None = None

    @property
    def required_states(self) -> list[State]:
        """The states in which a job allows this change.

        The delay can be changed only while the job is delayed, the priority only until it has
        finished.
        """
        if self.delay_ms is not None:
            return [State.DELAYED]
        if self.priority is not None:
            return [state for state in State if state not in FINISHED]
        return list(State)


Update = RunUpdate | JobChange
