"""The data records that queues, workers and engines pass to each other.

They are msgspec structs instead of dataclasses, because some are created for every job, and a
frozen dataclass takes several times as long to create.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from hasten.jobs._deduplication import Deduplication, DeduplicationMode
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
    deduplication: Deduplication | None = None

    @classmethod
    def of(
        cls, name: str, options: Options, *, now_ms: int, deduplication: Deduplication | None = None
    ) -> JobTemplate:
        """Return the template of jobs that are added at now_ms, from which their expiry counts.

        deduplication is that of these jobs, if they have a key.
        """
        if deduplication is None:
            resolved = options.with_expiry_time(now_ms)
        else:
            if deduplication.mode is DeduplicationMode.DEBOUNCE:
                options = replace(options, delay_ms=deduplication.window_ms)
            resolved = options.with_expiry_time(now_ms, longest_wait_ms=deduplication.max_wait_ms)
        return cls(name, encode_options(resolved, deduplication), resolved, deduplication)

    @property
    def is_fifo(self) -> bool:
        """Whether the jobs are ready at once and run in the order in which they are added."""
        options = self.options
        return not (options.delay_ms or options.priority or options.lifo)


OnFailure: TypeAlias = Literal["fail", "continue", "ignore", "remove", "wait"]
"""What happens to a parent when one of its children fails for good.

- fail: the parent fails, too, without being run.
- continue: the parent runs at once, although other children may not have finished.
- ignore: the parent runs after its other children, and can read the error of the failed one.
- remove: the parent runs after its other children, and the failed one is no longer its child.
- wait: the parent waits until the failed child is retried and completes, or is deleted.
"""

ON_FAILURE: Final[tuple[OnFailure, ...]] = get_args(OnFailure)

ChildOutcome: TypeAlias = Literal["pending", "completed", "ignored", "failed"]
"""What a parent knows about one of its children.

- pending: the parent waits for it: it has not finished, or has failed with `on_failure="wait"`.
- completed: it has completed, and the parent has its result.
- ignored: it has failed with `on_failure="continue"` or "ignore".
- failed: it has failed with `on_failure="fail"`, so the parent fails.
"""


class ParentLink(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The parent of a job: its queue and its id, and what the failure of the job does to it."""

    queue: str
    id: str
    on_failure: OnFailure = "fail"


class NewJob(msgspec.Struct, frozen=True, gc=False):
    """A job to add to a queue. data is JSON.

    id is the job_id that the caller has chosen; if None, the queue assigns the next number.

    parent is set for `Engine.add_flow` and `Parked` only. A job that is the parent of others in the
    same call waits for them: its delay begins, and its priority counts, when they have finished.
    """

    queue: str
    template: JobTemplate
    data: str
    id: str | None = None
    parent: ParentLink | None = None


class AddResult(msgspec.Struct, frozen=True, gc=False):
    """What happened to a `NewJob`: the id of the job, and whether it was a duplicate.

    existing is the job in the queue that already had this id or owns the deduplication key, None if
    the new job was added. cursor is a position in the queue's events before all later events of the
    job.
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
    parent: ParentLink | None = None  # on Redis, also a parent that was deleted


def record_of_deleted_owner(job: NewJob, id: str) -> JobRecord:
    """Return a record for the deleted job with this id that owns the deduplication key of a job.

    Its state is completed, and its other fields are those of the new job.
    """
    template = job.template
    return JobRecord(
        queue=job.queue,
        id=id,
        name=template.name,
        data=job.data,
        opts=template.opts,
        state=State.COMPLETED,
        priority=template.options.priority,
        delay_ms=0,
        created_ms=0,
        attempts_made=0,
        attempts_started=0,
        crashes=0,
    )


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


class Parked(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a run that has stopped to wait for children. It does not count as an attempt.

    children are added together with this outcome. They may be parents themselves: the parent of
    each of them is this job, or a job before it in the list. A child of this job that is in its
    queue already is not added again, and neither are its descendants. A job without a parent in
    the list is added, too, as a job of its own, unless its id exists in its queue.

    add_calls is how many calls of `ctx.children.add` this job has made in this run, all of whose
    children are stored now. `ChildCounts.add_calls` returns it: a later run of the same handler
    makes the same calls, and must not wait for children that have been added by an earlier run.

    The job then waits until no child is pending, and runs again in front of the queue. If none is
    pending now, it is put in front of the queue at once. If a child has failed with
    `on_failure="fail"`, the job fails instead.
    """

    id: str
    token: str
    children: list[NewJob] = []
    add_calls: int = 0


Outcome = Completed | Failed | Retry | Postponed | Released | Parked


class JobEnd(msgspec.Struct, frozen=True, gc=False):
    """The part of a job that callers waiting for its result need.

    state may be any state, also of a job that has not ended. value is the result as JSON or the
    error, None if the job has not ended.
    """

    state: State
    value: str | None = None


class ChildJob(msgspec.Struct, frozen=True, gc=False):
    """A child of a job. state is None if the child was deleted: its parent still has its result.

    outcome is what its parent knows about it. on_failure is None if it is not known any more.
    """

    queue: str
    id: str
    state: State | None = None
    error: str | None = None  # of a failed one, if it is still stored
    value: str | None = None  # the result of a completed one, as JSON
    outcome: ChildOutcome = "pending"
    on_failure: OnFailure | None = None


class ChildCounts(msgspec.Struct, frozen=True, gc=False):
    """How many children of a job have each `ChildOutcome`. add_calls is that of `Parked`."""

    pending: int = 0
    completed: int = 0
    ignored: int = 0
    failed: int = 0
    add_calls: int = 0

    @property
    def total(self) -> int:
        """The number of all children."""
        return self.pending + self.completed + self.ignored + self.failed


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

CHILDREN_READ: Final = 100
"""`WhyFacts` has at most so many of the children that a job waits for."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something that happened to a job or a queue. kind is BullMQ's name for it.

    Kinds of job events: added, waiting, delayed, waiting-children, active, progress, completed,
    failed, retries-exhausted, stalled, removed, duplicated, deduplicated, debounced. Kinds of queue
    events, with job_id "": paused, resumed, drained, cleaned. On Redis other programs may emit
    events of any other kind; details has the fields that are not attributes here.

    For a call that adds no job because of its deduplication key, debounced is emitted with
    debounce, deduplicated otherwise. job_id is the job that remains; details has deduplicationId
    (the task, a colon and the key) and deduplicatedJobId (the id that a new job would have had).

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
