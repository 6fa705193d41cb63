"""The seam between jobs and the stores.

Queues and workers use storage only through `Engine`. Its methods are called verbs: each is an
operation on jobs. Three rules apply to all of them:

- *One verb is one atomic step*: one transaction in SQLite, one script call in Redis. If it raises,
  nothing of it was written. It raises `hasten.errors.StoreError`, and no error of a driver.
  `purge`, `obliterate`, `requeue`, `cancel`, `remove`, `reclaim` and `renew` of many jobs are
  several steps, because one long step would block all other users of the store: what they did
  before they raised is done, and they may be repeated. `add`, `settle` and `update` are always one
  step; their callers split large calls.
  `StoreRejected` means that one item of the call cannot be stored; without it, the rest can. If the
  stored data of one job is damaged, a batch does not fail; if the keys of a queue itself are
  damaged on Redis, a verb may fail in the middle.
- *Every verb takes many jobs.* A single job is a batch of one. `settle` stores the outcomes of a
  batch and claims the next one in the same step.
- *The time is an argument*, `now_ms`, milliseconds since the epoch. On a server, leases expire by
  the clock of the server, which all workers share: see `Engine.uses_server_clock`.

Jobs move only along `hasten.jobs._states.TRANSITIONS`. They are claimed in BullMQ's order: first
jobs without a priority, oldest first, with `lifo` jobs in front; then by priority, the lowest
number first, and oldest first within one priority.

The contract suite in `tests/contract` tests what this docstring and those below promise, for every
engine.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, Protocol

from hasten.errors import InvalidOption
from hasten.jobs._options import Keep
from hasten.jobs._record import (
    Added,
    Batch,
    Claim,
    End,
    EventPage,
    JobRecord,
    NewJob,
    Outcome,
    Situation,
    Update,
)
from hasten.jobs._states import State
from hasten.jobs._worker_info import WorkerInfo

# Limit for the values in all events of one queue: results of 1 MB in 10,000 events would fill a
# server with data that nobody reads.
EVENT_BYTES: Final = 32 * 1024 * 1024

# Limit for one value in an event. A larger value is stored with its job only, and readers read it
# there.
VALUE_BYTES: Final = 64 * 1024

# A job may be deleted before a reader reads its result there: if it is not kept, if it is kept for
# less than a minute, or if fewer jobs are kept than there are events. The result of such a job is
# in its event, up to `EVENT_BYTES`.
FEW_KEPT: Final = EVENT_BYTES // VALUE_BYTES
BRIEFLY_MS: Final = 60_000


def most_in_event(keep: Keep) -> int:
    """Return the largest size of a result that is stored in the event, by the job's keep rule."""
    is_brief = (keep.count is not None and keep.count < FEW_KEPT) or (
        keep.age_ms is not None and keep.age_ms < BRIEFLY_MS
    )
    return EVENT_BYTES if is_brief else VALUE_BYTES


class Engine(Protocol):
    """Storage for jobs. One object may be used from several threads and event loops."""

    @property
    def url(self) -> str:
        """The URL of the store without its password, for messages."""

    @property
    def max_in_flight(self) -> int:
        """How many calls of `settle` a worker should have in flight to keep the store busy."""

    @property
    def max_batch(self) -> int:
        """How many jobs a worker may settle or claim in one call: all others wait meanwhile."""

    @property
    def adds_across_queues(self) -> bool:
        """Whether `add` is one step for jobs of several queues. If not, it is one per queue."""

    @property
    def uses_server_clock(self) -> bool:
        """Whether leases expire by the clock of the store and not by `now_ms`."""

    def require_existing(self) -> None:
        """Raise `StoreUnavailable` if the store would have to be created. Changes nothing.

        For programs that only read what others have stored. A server always exists.
        """

    # Adding -------------------------------------------------------------------------------------

    async def add(self, jobs: Sequence[NewJob], *, now_ms: int) -> list[Added]:
        """Add all jobs, of any queues, or none; see `adds_across_queues`. Returns answers in order.

        A job whose id exists in its queue is not added: its answer has the existing job, which is
        not changed. The same holds for the second of two jobs with the same id in one call.
        """

    # Claiming and settling ----------------------------------------------------------------------

    async def claim(self, queue: str, claim: Claim, *, now_ms: int) -> Batch:
        """Move up to count ready jobs to active and lease them to the caller.

        If the jobs are large it moves fewer, and the next `wait` returns at once. Delayed jobs that
        are due become ready first. Never returns a job twice before its lease has expired and
        `reclaim` has taken it back. Returns no jobs of a paused queue.
        """

    async def settle(
        self,
        queue: str,
        outcomes: Sequence[Outcome],
        claim: Claim | None,
        *,
        now_ms: int,
        metrics_minutes: int | None = None,
    ) -> Batch:
        """Store the outcomes of leased jobs, then claim the next ones, in one step.

        An outcome whose token is no longer that of the job's lease changes nothing, and its id
        is in `lost`. Released jobs, in the order in which they were claimed, go to the front in
        that order. A retry or a postponement with a delay goes to delayed; without one it goes
        behind all waiting jobs with its priority, or in front if `lifo`. A parent whose children
        have not all completed fails instead of completing.

        With metrics_minutes, Redis also counts the finished jobs per minute, as BullMQ does, and
        keeps the counts of that many minutes. Other stores ignore it.
        """

    def renew(
        self, queue: str, leases: Mapping[str, str], *, lease_ms: int, now_ms: int
    ) -> set[str]:
        """Extend leases (job id → token) to now_ms + lease_ms. Returns the ids of lost leases.

        An expired lease is not lost until `reclaim` has taken the job back.

        Blocks, and is called from a thread: leases must be renewed while the event loop hangs.
        """

    def find_cancelled(self, queue: str, ids: Collection[str]) -> set[str]:
        """Return the ids of the running jobs that somebody has cancelled. Blocks, like `renew`."""

    async def reclaim(self, queue: str, *, crash_limit: int, now_ms: int) -> list[str]:
        """Take back active jobs with an expired lease; they are first in line. Returns their ids.

        A lease that ends later than its length allows (the clock was set back) ends as if it had
        been renewed now.

        A crash of each job is counted. At crash_limit crashes the job gets a `deferred_failure`:
        the next worker that claims it fails it with this error, without running it.
        """

    async def probe(self, queue: str) -> None:
        """Wait until the store accepts a write. Changes nothing.

        A worker calls this before `reclaim`: leases also expire when no worker can renew them.
        """

    async def update(
        self, queue: str, updates: Sequence[Update], *, now_ms: int
    ) -> list[State | None]:
        """Store progress and log lines, and change jobs, in order.

        Returns for each update the state in which the job was found, None if it does not exist. A
        `Change` that this state does not allow is not made: see `Change.states`.
        """

    async def register_worker(self, queue: str, worker: str, *, name: str) -> None:
        """Announce that a worker serves the queue.

        worker is its unique id, here and in `wait` and `unregister_worker`; names may repeat.
        """

    def report_worker(
        self, queue: str, worker: WorkerInfo, *, lifetime_ms: int, now_ms: int
    ) -> None:
        """Store what a worker does. It counts as dead after lifetime_ms without another report.

        Blocks, like `renew`.
        """

    async def unregister_worker(self, queue: str, worker: str) -> None:
        """Release what the engine holds for a worker that has stopped, and delete its report.

        Safe to call twice.
        """

    async def wait(self, queue: str, *, next_due_ms: int | None, worker: str = "") -> None:
        """Wait until the queue may have a job to claim. It may return without one.

        It returns when the queue has a ready job and is not paused, or when a delayed job is due
        before next_due_ms. next_due_ms is the time that the last claim returned, None if it found
        no delayed job. The engine does not wait for this time: the caller does, and then claims.
        """

    # Reading ------------------------------------------------------------------------------------

    async def get(self, queue: str, ids: Sequence[str]) -> list[JobRecord | None]:
        """Return the jobs with these ids, in order; None for missing jobs."""

    async def situation(self, queue: str, id: str, *, now_ms: int) -> Situation | None:
        """Return a job with what decides whether it runs now; None for a missing job.

        All but the states of children is read in one step. Times are by the clock of now_ms.
        """

    async def count_other_workers(self, queue: str, known: Sequence[WorkerInfo]) -> int:
        """Return how many workers serve the queue that are not among the known ones.

        On Redis, these are workers of other programs, and those that have not reported yet.
        """

    async def ends(self, queue: str, ids: Sequence[str]) -> list[End | None]:
        """Return how the jobs with these ids have ended, in order; None for missing jobs.

        For callers that wait for results: it reads only the end of each job.
        """

    async def page(
        self, queue: str, state: State, *, offset: int, limit: int, newest_first: bool
    ) -> list[JobRecord]:
        """Return a page of the jobs in a state, in the order in which they would be claimed.

        Delayed: by due time. Active: by start. Finished: by finish. Jobs that move while a long
        page is read may be missing.
        """

    async def count(self, queue: str) -> dict[State, int]:
        """Return how many jobs are in each state, for all states."""

    async def workers(self, queue: str, *, now_ms: int) -> list[WorkerInfo]:
        """Return what the workers of a queue have reported, in any order, without dead workers.

        last_seen_at is when each of them has reported, by the clock by which leases expire.
        """

    async def logs(self, queue: str, id: str) -> list[str]:
        """Return the log lines of a job, oldest first; none for a missing job."""

    async def events(self, queue: str, *, after: str | None, wait: bool = True) -> EventPage:
        """Return the next events after a cursor. Waits for at least one unless wait is False.

        If after is None, it returns no events and the current cursor at once. At least the newest
        10,000 events are kept, unless their values exceed `EVENT_BYTES`; the events of the last
        call are always kept. A reader that is further behind gets the event "missed" first.
        Unreadable entries are skipped. Raises `InvalidOption` for an invalid cursor.

        A result or progress of more than `VALUE_BYTES` is not in the event: see `most_in_event`.
        """

    def begin_events(self, queue: str) -> Future[str]:
        """Start to read the current cursor, from any thread.

        The events of later calls of this process come after this cursor.
        """

    # Administration -----------------------------------------------------------------------------

    async def requeue(
        self, queue: str, ids: Sequence[str], sources: Collection[State], *, now_ms: int
    ) -> list[State | None]:
        """Make the jobs ready that are in one of the source states.

        sources are delayed (promote), failed and completed (run again). The result, error and
        attempts of a finished job are cleared. Returns the state in which each job was found, None
        for a missing job: those that were found in one of the sources have moved.
        """

    async def cancel(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[State | None]:
        """Fail jobs that have not started, and request that running ones stop.

        Finished jobs are not changed. Returns the state in which each job was found, None for a
        missing job.
        """

    async def remove(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[State | None]:
        """Delete jobs with their logs and children, except running ones.

        Returns the state in which each job was found, None for a missing job.
        """

    async def purge(
        self,
        queue: str,
        states: Collection[State],
        *,
        before_ms: int | None,
        limit: int | None,
        now_ms: int,
    ) -> list[str]:
        """Delete at most limit jobs in these states, in the order of `page`. Returns their ids.

        With before_ms, only jobs that finished (or, unfinished ones, were added) until then. Active
        jobs can be deleted, too; their workers lose the leases.
        """

    async def obliterate(self, queue: str) -> None:
        """Delete a queue: its jobs in all states, its events and its settings.

        A worker that still runs reports itself again.
        """

    async def pause(self, queue: str, *, now_ms: int) -> None:
        """Return no jobs from `claim` until `resume`. Running jobs continue. Safe to call twice."""

    async def resume(self, queue: str, *, now_ms: int) -> None:
        """End a pause. Safe to call twice."""

    async def is_paused(self, queue: str) -> bool:
        """Return whether the queue is paused."""

    async def queues(self) -> list[str]:
        """Return the names of the queues that have jobs or are paused, sorted."""

    async def aclose(self) -> None:
        """Finish the calls in progress, and close the connections. Safe to call twice."""

    def close_now(self) -> None:
        """Close without an event loop, when the interpreter ends."""


# The error of a job that failed without an exception of its handler. Workers in other languages
# and dashboards show these texts; `job.result()` recognizes a cancelled job by the first one.
CANCELLED_ERROR = "cancelled"


# It begins with BullMQ's text, by which Node and dashboards recognize such a job.
CRASH_ERROR = "job stalled more than allowable limit: its worker died {} times while running it"


def crash_error(crashes: int) -> str:
    """Return the error of a job that crashed its worker this many times."""
    return CRASH_ERROR.format(crashes)


def check_cursor(after: object) -> str:
    """Check the cursor of a caller. Raises `InvalidOption`."""
    if isinstance(after, str) and re.fullmatch(r"[0-9]{1,18}-[0-9]{1,18}", after):
        return after
    raise InvalidOption("after", after, "the cursor of an event, such as '1700000000000-0'")


def keep_or(own: Keep | None, default: Keep) -> Keep:
    """Return the keep rule of a finished job: its own, or the default."""
    return default if own is None else own
