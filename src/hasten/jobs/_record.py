"""What the shells and the engines say to each other about jobs: records, no behaviour.

Structs rather than dataclasses: a worker makes and reads some of them for every job, and a frozen
dataclass costs several times as much to make.
"""

from __future__ import annotations

from typing import Final

import msgspec

from hasten.jobs._options import DEFAULT_KEEP_COMPLETED, DEFAULT_KEEP_FAILED, Keep
from hasten.jobs._states import FINISHED, State


class NewJob(msgspec.Struct, frozen=True, gc=False):
    """A job to add. data and opts are JSON texts; id is None to have one given."""

    queue: str
    name: str
    data: str
    opts: str
    id: str | None = None
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False


class Added(msgspec.Struct, frozen=True, gc=False):
    """The answer to a `NewJob`.

    existing is the job with this id that was there, and was left as it is. cursor is a place in the
    queue's events: what happens to the job after this call comes behind it.
    """

    id: str
    existing: JobRecord | None = None
    cursor: str = ""


class JobRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One job as the store has it. Texts marked JSON are undecoded, times in ms since 1970."""

    queue: str
    id: str
    name: str
    data: str  # JSON
    opts: str  # JSON, see options.py
    state: State
    priority: int
    delay_ms: int  # as last asked for, or the last back-off; 0 once promoted
    created_ms: int
    attempts_made: int  # runs that counted: completed, failed or retried
    attempts_started: int  # all runs, handed-back ones too
    crashes: int  # runs whose worker died (BullMQ: stalled)
    deferred_failure: str | None = None  # the next worker fails it with this, without a run
    started_ms: int | None = None  # start of the latest run
    worker: str | None = None  # of the latest run
    progress: str | None = None  # JSON
    error: str | None = None  # of the latest failed run
    # From here on: not told of a job that has just been claimed.
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
    """A wish for up to count jobs.

    token fences the runs of this claim: unique to it, never given twice by any worker.
    """

    count: int
    token: str
    worker: str
    lease_ms: int


class Batch(msgspec.Struct, frozen=True):
    """The answer to a claim."""

    leases: list[Lease]
    next_due_ms: int | None = None  # the earliest delayed job, when fewer came than were asked for
    lost: list[str] = []  # ids of settled jobs whose lease was no longer ours: nothing was stored


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
    """The attempt failed, another one follows after delay_ms; at once if 0, behind all others."""

    id: str
    token: str
    error: str
    traceback: str
    delay_ms: int


class Postponed(msgspec.Struct, frozen=True, gc=False):
    """The job asked to be run again after delay_ms. No attempt is counted."""

    id: str
    token: str
    delay_ms: int


class Released(msgspec.Struct, frozen=True, gc=False):
    """The worker hands the job back, unfinished: first in line, no attempt counted."""

    id: str
    token: str


Outcome = Completed | Failed | Retry | Postponed | Released


class End(msgspec.Struct, frozen=True, gc=False):
    """Whether a job has ended, and how: its state, and its result (JSON) or its error."""

    state: State
    value: str | None = None


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something that happened to a job or to its queue, by BullMQ's name for it.

    added, waiting, delayed, active, progress, completed, failed, retries-exhausted, stalled,
    removed, duplicated · about the queue, with job_id "": paused, resumed, drained, cleaned. On
    Redis, where others tell things, too, any other name; details has the fields not named here.

    missed, with job_id "", is of hasten alone: events that the reader has not read yet are no
    longer kept, for it fell behind. They would have come in place of this one.

    A result or progress of more than 64 KiB is stored with its job only: value is None then, and
    omitted_bytes is its size. Read the job to get it. (A handler that returned None has the value
    "null".) The result of a job that is not kept, or only briefly, is in the event up to 32 MiB.
    """

    cursor: str  # its place in the stream: "n-n", in order; later ones are read "after" it
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
    """Events in order, and the cursor to go on from."""

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
