"""`Engine`: the interface between queues and workers and the database that stores the jobs.

There is one implementation for SQLite and one for Redis. The methods are called verbs: each is an
operation on jobs. Three rules apply to all of them:

- *A verb is atomic*: one transaction in SQLite, one script call in Redis. If it raises, nothing was
  written. It raises `hasten.errors.StoreError`, and no errors of the database driver.
  The exceptions are `purge`, `obliterate`, `requeue`, `cancel`, `remove`, `reclaim` and `renew`
  with many jobs. They use several transactions, because a long one would block all other users of
  the store. If one of them raises, earlier transactions are kept, and the call may be repeated.
  `add`, `settle` and `update` always use a single transaction; their callers split large calls.
  `StoreRejected` means that one item of the call cannot be stored; a call without it would succeed.
  If the stored data of one job is damaged, only that job is affected. If the data of a queue itself
  is damaged on Redis, a verb may fail after it has written a part.
- *Every verb takes many jobs.* A single job is a batch of one. `settle` stores the outcomes of one
  batch and claims the next batch in the same transaction.
- *The time is an argument*, `now_ms`, in milliseconds since the epoch. On a server, leases expire
  by the clock of the server, which all workers share: see `Engine.leases_use_server_clock`.

A job changes its state only as `hasten.jobs._states.TRANSITIONS` allows. Jobs are claimed in
BullMQ's order: first the jobs without a priority, the oldest first, but `lifo` jobs before them;
then the jobs with a priority, the lowest number first, and the oldest first within one priority.

The tests in `tests/contract` check the statements of this docstring and of the docstrings below for
every engine.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, Protocol

from hasten.errors import InvalidOption, WrongState
from hasten.jobs._options import Keep
from hasten.jobs._record import (
    AddResult,
    ChildCounts,
    ChildJob,
    ClaimedJobs,
    ClaimRequest,
    EventPage,
    JobEnd,
    JobRecord,
    NewJob,
    Outcome,
    Update,
    WhyFacts,
)
from hasten.jobs._schedule_record import NewSchedule, ScheduleRecord
from hasten.jobs._states import State, StatesBefore
from hasten.jobs._worker_info import WorkerInfo

# The largest total size of the large values (results, errors, progress) in the events of a queue.
# Without a limit, 10,000 events with results of 1 MB each would fill the memory of a server.
EVENT_BYTES: Final = 32 * 1024 * 1024

# The largest size of one value in an event. A larger value is stored with its job only, where
# readers of the event can get it.
VALUE_BYTES: Final = 64 * 1024

# The exception: a job may be deleted before a reader of its event can read it, if it is kept for
# less than a minute, or if fewer than `FEW_KEPT` finished jobs are kept. The event of such a job
# has the result, up to `EVENT_BYTES`.
FEW_KEPT: Final = EVENT_BYTES // VALUE_BYTES
BRIEFLY_MS: Final = 60_000


def max_event_result_bytes(keep: Keep) -> int:
    """Return how large a result may be to be stored in the job's "completed" event, in bytes.

    This is `VALUE_BYTES`, and `EVENT_BYTES` if the job may be deleted soon after it has completed:
    the event is then the only place of its result. keep is the retention rule of the job.
    """
    is_brief = (keep.count is not None and keep.count < FEW_KEPT) or (
        keep.age_ms is not None and keep.age_ms < BRIEFLY_MS
    )
    return EVENT_BYTES if is_brief else VALUE_BYTES


LostIds = set[str]
"""Ids of jobs whose lease is lost."""

ReclaimedIds = list[str]
"""Ids of active jobs that were taken back, because their lease had expired."""


class Engine(Protocol):
    """Storage for the jobs of queues. One object may be used from several threads and event loops.

    The module docstring has the rules that apply to all methods.
    """

    @property
    def url(self) -> str:
        """The URL of the store without its password, for log lines and errors."""

    @property
    def max_concurrent_settles(self) -> int:
        """How many calls of `settle` a worker should make at once to use the store fully."""

    @property
    def max_jobs_per_settle(self) -> int:
        """The maximum number of jobs to settle or claim in one call.

        It is limited because all other users of the store wait during the call.
        """

    @property
    def adds_atomically_across_queues(self) -> bool:
        """Whether one `add` of jobs of several queues is atomic.

        If not, it is atomic for the jobs of each queue.
        """

    @property
    def leases_use_server_clock(self) -> bool:
        """Whether leases expire by the clock of the database server instead of `now_ms`."""

    def require_existing_store(self) -> None:
        """Raise `StoreUnavailable` if the store (a SQLite file) does not exist. Changes nothing.

        For programs that only read, such as a dashboard: they must not create an empty store. A
        server always exists.
        """

    # Adding -------------------------------------------------------------------------------------

    async def add(self, jobs: Sequence[NewJob], *, now_ms: int) -> list[AddResult]:
        """Add all of the jobs, or none if the call raises. The jobs may be of several queues.

        If `adds_atomically_across_queues` is False, this holds for the jobs of each queue. Returns
        one `AddResult` per job, in order. A job whose id is in its queue already is not added, and
        its `AddResult` has the existing job, which is not changed. The same applies to the second
        of two jobs with the same id in one call.
        """

    def check_flow_queues(self, queues: Collection[str]) -> None:
        """Raise `InvalidOption` if jobs of these queues cannot be parents and children of others.

        That is so if a cluster stores the queues on different servers.
        """

    async def add_flow(self, jobs: Sequence[NewJob], *, now_ms: int) -> list[AddResult]:
        """Add jobs that are parents and children of each other, of any queues, in one step.

        All of the jobs have an id. A parent comes before its children, and the order of children
        is the order of adding. A parent is in waiting-children until none of its children is
        pending. Returns one `AddResult` per job, in order.

        A parent that is not among the jobs must exist already, and waits for its new children from
        now on, but is not moved. Raises `JobNotFound` if it does not exist, `WrongState` if it has
        finished, and adds nothing.

        Raises `InvalidOption`, and adds nothing, if a job with one of the ids exists in its queue,
        if a job has a deduplication key, or if `check_flow_queues` does. The caller limits the
        number of jobs.
        """

    # Claiming and settling ----------------------------------------------------------------------

    async def claim(self, queue: str, claim: ClaimRequest, *, now_ms: int) -> ClaimedJobs:
        """Move up to `claim.count` ready jobs to active, and lease them to the worker.

        Delayed jobs that are due become ready first. If the jobs are large, fewer are returned, and
        the next `wait_for_jobs` returns at once. A job is not returned again before its lease has
        expired and `reclaim` has taken it back. A paused queue returns no jobs.
        """

    async def settle(
        self,
        queue: str,
        outcomes: Sequence[Outcome],
        claim: ClaimRequest | None,
        *,
        now_ms: int,
        metrics_minutes: int | None = None,
    ) -> ClaimedJobs:
        """Store the outcomes of leased jobs, then claim the next jobs, in one transaction.

        If the token of an outcome is no longer that of the job's lease, the outcome is not stored,
        and `ClaimedJobs.lost` has the id of the job.

        Released jobs are put in front of the queue, and keep the order of outcomes. A `Retry` or
        `Postponed` with a delay moves the job to delayed. Without a delay, the job is placed behind
        all waiting jobs of its priority, or in front of them if it has `lifo`. A `Parked` job waits
        for its children, see there; it raises `StoreRejected` if a child cannot be added, because
        a job with its id exists and is not a child of the parked job, or because the child has a
        deduplication key.

        A parent fails instead of completing while one of its children is pending or failed, see
        `ChildOutcome`. It may complete with pending children if it ignores the failure of a child:
        with `on_failure="continue"` it runs before the others have finished.

        When a child has finished, its parent no longer waits for it, in the same transaction: see
        `OnFailure`. The same holds for the children that `cancel` fails, and for those that
        `remove`, `purge`, `obliterate` or a retention rule deletes. A parent that waits for no
        other child becomes ready, in front of the queue or by its priority, or delayed if it has a
        delay. A job with a failed child gets a `deferred_failure`.

        If one call has the outcomes of a parent and of its child, their order is undefined: the
        parent may be stored as if the child were still pending.

        With metrics_minutes, Redis also counts the finished jobs per minute, as BullMQ does, and
        keeps the counts of that many minutes. Other stores ignore it.
        """

    def renew(
        self, queue: str, tokens_by_id: Mapping[str, str], *, lease_ms: int, now_ms: int
    ) -> LostIds:
        """Extend the leases of running jobs to now_ms + lease_ms.

        tokens_by_id has the token of each lease, by the id of its job. Returns the ids of the jobs
        whose lease is lost: it no longer has this token. An expired lease can still be renewed
        until `reclaim` has taken the job back.

        This method blocks. It is called in a thread, because leases must also be renewed while a
        handler blocks the event loop.
        """

    def find_cancelled(self, queue: str, ids: Collection[str]) -> set[str]:
        """Return the ids of the running jobs that were cancelled. Blocks, like `renew`."""

    async def reclaim(self, queue: str, *, crash_limit: int, now_ms: int) -> ReclaimedIds:
        """Take back active jobs whose lease has expired, and put them in front of the queue.

        Returns the ids of these jobs. Each counts one more crash. A job that has reached
        crash_limit crashes gets a `deferred_failure`: the next worker that claims it stores this
        error as its failure, without running the job.

        If a lease ends later than any lease can, because the clock was set back, it is shortened so
        that it ends as if it had been renewed now.
        """

    async def wait_until_writable(self, queue: str) -> None:
        """Wait until the store accepts writes. Changes nothing.

        A worker calls this before `reclaim`: while the store accepts no writes, no worker can renew
        its leases, and expired leases do not mean that workers have died.
        """

    async def update(self, queue: str, updates: Sequence[Update], *, now_ms: int) -> StatesBefore:
        """Store progress and log lines, and change jobs, in the order of updates.

        Returns the state that each job was in before its update, in the same order; None for a job
        that does not exist. A `JobChange` is skipped if the job is in a state that does not allow
        it: see `JobChange.required_states`.
        """

    async def register_worker(self, queue: str, worker_id: str, *, name: str) -> None:
        """Prepare `wait_for_jobs` calls of a worker, and make the worker visible in the store.

        worker_id is unique among all workers. The caller passes the same id to `wait_for_jobs` and
        `unregister_worker`.
        name is the name of the worker, which need not be unique.
        """

    def report_worker(
        self, queue: str, worker: WorkerInfo, *, lifetime_ms: int, now_ms: int
    ) -> bool:
        """Store what a worker does. It counts as dead after lifetime_ms without another report.

        Returns whether the queue is paused. Blocks, like `renew`.
        """

    async def unregister_worker(self, queue: str, worker_id: str) -> None:
        """Close what `register_worker` has opened, and delete the report of the worker.

        Safe to call twice.
        """

    async def wait_for_jobs(
        self, queue: str, *, next_due_ms: int | None, worker_id: str = ""
    ) -> None:
        """Wait until the queue may have a job to claim. It may also return when there is none.

        It returns when the queue has a ready job and is not paused, or when a delayed job is due
        earlier than next_due_ms. next_due_ms is the `ClaimedJobs.next_due_ms` of the last claim:
        when the earliest delayed job is due, None if there is none. The engine does not wait
        until this time: the caller does that itself, and then claims. worker_id is the id that the
        caller has passed to `register_worker`; "" if it has registered no worker.
        """

    # Reading ------------------------------------------------------------------------------------

    async def get(self, queue: str, ids: Sequence[str]) -> list[JobRecord | None]:
        """Return the jobs with these ids, in the same order; None for a job that does not exist."""

    async def get_why_facts(self, queue: str, id: str, *, now_ms: int) -> WhyFacts | None:
        """Return a job with what decides whether it runs now; None for a missing job.

        All but the states of children is read in one step. Times in the result are by the caller's
        clock, from which now_ms comes, even if leases expire by the clock of the server.
        """

    async def children(self, queue: str, id: str, *, offset: int = 0, limit: int) -> list[ChildJob]:
        """Return a page of the children of a job, in the order of adding.

        A child whose parent no longer waits for it, because the child was deleted before it had
        finished, is no child any more. Empty for a missing job. A long page may be read in several
        calls of the database.
        """

    async def failed_children(self, queue: str, id: str, *, limit: int) -> list[ChildJob]:
        """Return up to limit children of a job that have failed for good.

        Those are the ones that `count_children` counts as ignored or failed. On Redis, they are in
        any order.
        """

    async def count_children(self, queue: str, id: str) -> ChildCounts:
        """Return how many children a job has, by what it knows about them."""

    async def count_workers_except(
        self, queue: str, known: Sequence[WorkerInfo], *, now_ms: int
    ) -> int:
        """Return how many workers serve the queue that are not among the known ones.

        On Redis, these are workers of other programs, and those that have not reported yet. In
        SQLite, these are workers of later versions of hasten, whose reports cannot be decoded.
        """

    async def get_ends(self, queue: str, ids: Sequence[str]) -> list[JobEnd | None]:
        """Return how each of these jobs has ended, in the same order; None for a missing one.

        Used by callers that wait for results. Cheaper than `get`, because it reads fewer fields.
        """

    async def get_page(
        self, queue: str, state: State, *, offset: int, limit: int, newest_first: bool
    ) -> list[JobRecord]:
        """Return a page of the jobs in a state, in the order in which they would be claimed.

        Delayed jobs are sorted by due time, active jobs by start time, and finished jobs by the
        time they finished. A long page may be read in several calls of the database: a job that
        changes its state between two of them may be missing.
        """

    async def count(self, queue: str) -> dict[State, int]:
        """Return the number of jobs in each state. All states are included."""

    async def workers(self, queue: str, *, now_ms: int) -> list[WorkerInfo]:
        """Return what the workers of a queue have reported, in any order, without dead workers.

        last_seen_at is when each of them has reported, by the clock by which leases expire.
        """

    async def logs(self, queue: str, id: str) -> list[str]:
        """Return the log lines of a job, oldest first; an empty list if the job does not exist."""

    async def events(self, queue: str, *, after: str | None, wait: bool = True) -> EventPage:
        """Return the events after a cursor. Waits for at least one event, unless wait is False.

        If after is None, it returns the current cursor and no events, without waiting. Raises
        `InvalidOption` for an invalid cursor. Entries that cannot be decoded are skipped.

        At least the newest 10,000 events are kept, fewer if their large values exceed `EVENT_BYTES`
        in total; the events of the latest call that has added events are always kept. If events
        after the cursor have been deleted, the first event is a "missed" event. A result or
        progress value of more than `VALUE_BYTES` is not in its event; `max_event_result_bytes` has
        the exception.
        """

    def start_reading_latest_cursor(self, queue: str) -> Future[str]:
        """Start to read the current events cursor, and return a future of it. For any thread.

        All events that this process causes after this call come after the cursor.
        """

    # Schedules ----------------------------------------------------------------------------------

    async def upsert_schedule(
        self, queue: str, schedule: NewSchedule, *, now_ms: int
    ) -> ScheduleRecord | None:
        """Store a schedule, or change the stored one with the same id. Returns it.

        If nothing differs from the stored schedule, nothing is written, except that a missing
        pending job is added again. If the times are unchanged, the pending job is replaced for the
        same slot. Otherwise the next slot is the first one after now and after the latest run. The
        count is kept, and a paused schedule stays paused. Returns None, and stores nothing, for a
        new schedule without a slot, because its end is over.
        """

    async def get_schedules(self, queue: str, ids: Sequence[str]) -> list[ScheduleRecord | None]:
        """Return the schedules with these ids, in the same order; None for a missing one."""

    async def list_schedules(self, queue: str, *, offset: int, limit: int) -> list[ScheduleRecord]:
        """Return a page of the schedules: those with the earliest slot first, paused ones last."""

    async def count_schedules(self, queue: str) -> int:
        """Return how many schedules the queue has, including paused and ended ones. Cheap."""

    async def late_schedules(
        self, queue: str, *, before_ms: int, limit: int
    ) -> list[ScheduleRecord]:
        """Return schedules that are late: see `ScheduleRecord.is_late`. The latest come first.

        At most limit schedules are returned. Cheap, whatever the number of schedules.
        """

    async def pause_schedule(self, queue: str, id: str, *, now_ms: int) -> bool:
        """Delete the pending job of a schedule, and add no other one until `resume_schedule`.

        Returns whether the schedule exists. Safe to call twice.
        """

    async def resume_schedule(self, queue: str, id: str, *, now_ms: int) -> bool:
        """Add a pending job for the first slot after now to a paused schedule.

        Returns whether the schedule exists. Safe to call twice.
        """

    async def run_schedule(self, queue: str, id: str, *, now_ms: int) -> str | None:
        """Add a job of a schedule that is ready now, besides the pending one.

        Returns the id of the job, None if the schedule does not exist.
        """

    async def remove_schedules(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[bool]:
        """Delete schedules with their pending jobs. Returns for each id whether it existed.

        A job that has started, or is ready to start, is kept and runs.
        """

    # Administration -----------------------------------------------------------------------------

    async def requeue(
        self, queue: str, ids: Sequence[str], from_states: Collection[State], *, now_ms: int
    ) -> StatesBefore:
        """Make jobs ready to run, if they are in one of these states.

        from_states are delayed (to promote jobs), or failed and completed (to run them again). The
        result, error and number of attempts of a finished job are cleared. Returns the state that
        each job was in before the call, in the order of ids; None for a job that does not exist.

        A finished child that runs again is pending again for its parent, if the parent exists and
        has recorded its end. A finished parent with a failed child gets a `deferred_failure` again:
        run the child first. One with pending children waits for them.
        """

    async def cancel(self, queue: str, ids: Sequence[str], *, now_ms: int) -> StatesBefore:
        """Fail jobs that have not started, and request that the workers of running jobs stop them.

        Finished jobs are not changed. Returns the state that each job was in before the call, in
        the order of ids; None for a job that does not exist. Raises `WrongState` if one is the
        pending job of a schedule, after the others are cancelled.
        """

    async def remove(self, queue: str, ids: Sequence[str], *, now_ms: int) -> StatesBefore:
        """Delete jobs with their logs, their children and all descendants, but not running ones.

        A job is not deleted while one of its descendants is running: its state in the answer is
        active then. A large tree is deleted in several transactions, each parent before its
        children.

        Returns the state that each job was in before the call, in the order of ids; None for a job
        that does not exist. Raises `WrongState` if one is the pending job of a schedule, after the
        others are deleted.
        """

    async def remove_deduplication_key(self, queue: str, id: str, *, now_ms: int) -> bool:
        """Make a deduplication key free, whether or not the job that owns it has ended.

        id is the key as stored: see `Deduplication`. Returns whether the key was taken. If a job is
        kept until the owner ends, it is added then nevertheless, unless another job takes the key
        before that.
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
        """Delete at most limit jobs in these states, in the order of `get_page`. Returns their ids.

        If before_ms is given, only jobs are deleted that finished at this time or earlier;
        unfinished jobs are deleted if they were added at this time or earlier. None for limit means
        no limit. Active jobs can be deleted, too; their workers lose the leases. The pending jobs
        of schedules are kept.
        """

    async def obliterate(self, queue: str) -> None:
        """Delete a queue: its jobs in all states, its schedules, its events and its settings.

        On Redis, this goes through all keys of the server, to find deduplication keys without jobs.
        A worker that still runs reports itself again.
        """

    async def pause(self, queue: str, *, now_ms: int) -> None:
        """Keep `claim` from returning jobs until `resume` is called. Running jobs continue.

        Safe to call twice.
        """

    async def resume(self, queue: str, *, now_ms: int) -> None:
        """Let `claim` return jobs again after `pause`. Safe to repeat."""

    async def is_paused(self, queue: str) -> bool:
        """Return whether the queue is paused."""

    async def queues(self) -> list[str]:
        """Return the names of the queues that have jobs or are paused, in sorted order."""

    async def aclose(self) -> None:
        """Wait for the calls in progress, and close the connections. Safe to call twice."""

    def close_without_event_loop(self) -> None:
        """Close the connections without an event loop, when the interpreter exits."""


# The errors of jobs that failed without an exception of their handlers. They are stored with the
# jobs, and shown by dashboards and by workers in other languages.

# `job.result()` recognizes a cancelled job by this text.
CANCELLED_ERROR = "cancelled"

# It begins with BullMQ's text, by which BullMQ and dashboards recognize such a job.
CRASH_ERROR = "job stalled more than allowable limit: its worker died {} times while running it"


def crash_error(crashes: int) -> str:
    """Return the error text of a job that failed because its worker died this many times."""
    return CRASH_ERROR.format(crashes)


def check_cursor(after: object) -> str:
    """Return the cursor if it has the form of an events cursor. Raises `InvalidOption`."""
    if isinstance(after, str) and re.fullmatch(r"[0-9]{1,18}-[0-9]{1,18}", after):
        return after
    raise InvalidOption("after", after, "the cursor of an event, such as '1700000000000-0'")


def check_flow_jobs(jobs: Iterable[NewJob]) -> None:
    """Raise `InvalidOption` if a job has a deduplication key: one that is dropped is no child."""
    for job in jobs:
        rule = job.template.deduplication
        if rule is not None:
            raise InvalidOption(rule.mode, rule.id, "no deduplication key for a job of a flow")


def resolve_keep(own: Keep | None, default: Keep) -> Keep:
    """Return the retention rule that applies to a finished job: its own, or else the default."""
    return default if own is None else own


def raise_if_scheduled(queue: str, ids: Collection[str], what: str) -> None:
    """Raise `WrongState` if there are ids. They are those of pending jobs of schedules.

    Without such a job, the schedule would add no more jobs. what is "cancelled" or "removed".
    """
    for id in ids:
        raise WrongState(
            queue, id, "the next run of a schedule", [f"{what} together with its schedule"]
        )
