"""The seam between jobs and what stores them.

A shell (`Queue`, `Worker`) speaks to storage only through `Engine`. Its methods are things that
happen to jobs; three rules hold for all of them:

- *One verb is one atomic step*: one transaction in SQLite, one script call in Redis. When it
  raises, nothing of it was written; it raises `hasten.errors.StoreError` and nothing foreign.
  `purge`, `obliterate`, `requeue`, `cancel`, `remove`, `reclaim` and `renew` of many jobs are
  several steps, because one long step would block all other users of the store: what they did
  before they raised is done, and they may be repeated. `add`, `settle` and `update` are always one
  step; their callers split large calls.
  `StoreRejected` means that something in the call cannot be stored: without that member, the rest
  of the batch can. Damage in what is stored of one job never fails a batch; if a queue's own keys
  are damaged on Redis, a verb may fail in the middle.
- *Every verb takes many.* A single job is a batch of one. `settle` finishes a batch and claims the
  next one in the same step.
- *The time comes in as an argument*, `now_ms`, milliseconds since the epoch. A store that is a
  server of its own, as Redis is, lets leases run out by its own clock, which all workers share.

Jobs move only along `hasten.jobs._states.TRANSITIONS`. The order in which they are claimed is
BullMQ's: those without a priority first, oldest first (a `lifo` job in front of them); then by
priority, the lower number first, oldest first within one.

The contract suite in `tests/contract` runs against every engine: what this docstring and those
below promise is tested there, once.
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
    Update,
)
from hasten.jobs._states import State

# How much the values in the events of one queue may take. Results of 1 MB in 10,000 events would
# fill a server with what nobody reads.
EVENT_BYTES: Final = 32 * 1024 * 1024

# How much one value may take in an event. A larger one stays with its job, and readers ask there.
VALUE_BYTES: Final = 64 * 1024

# A reader cannot ask for a job that is deleted at once, nor for one that is kept only until as many
# others have finished as have room in the events, or for less than a minute. The result of such a
# job is in its event, up to `EVENT_BYTES`.
FEW_KEPT: Final = EVENT_BYTES // VALUE_BYTES
BRIEFLY_MS: Final = 60_000


def most_in_event(keep: Keep) -> int:
    """How many bytes the result of a job may have to be in its event, by the rule for the job."""
    is_brief = (keep.count is not None and keep.count < FEW_KEPT) or (
        keep.age_ms is not None and keep.age_ms < BRIEFLY_MS
    )
    return EVENT_BYTES if is_brief else VALUE_BYTES


class Engine(Protocol):
    """Storage for jobs. One object may be used from several threads and event loops."""

    @property
    def url(self) -> str:
        """Where it stores, without secrets: for messages."""

    @property
    def max_in_flight(self) -> int:
        """How many calls of `settle` a worker should have in flight to keep the store busy."""

    @property
    def max_batch(self) -> int:
        """How many jobs a worker may settle or claim in one call: all others wait meanwhile."""

    def require_existing(self) -> None:
        """Raise `StoreUnavailable` if the store would have to be created. Changes nothing.

        For programs that only look at what others have stored. A server always exists.
        """

    # Producing ----------------------------------------------------------------------------------

    async def add(self, jobs: Sequence[NewJob], *, now_ms: int) -> list[Added]:
        """Add all the jobs, of any queues, or none. Returns as many answers, in order.

        On Redis that holds for each queue: those of a cluster may be on different servers.

        A job whose id exists in its queue is not added: its answer says so, and the existing
        job stays as it is. The same id twice in one call is the second case of this.
        """

    # Working ------------------------------------------------------------------------------------

    async def claim(self, queue: str, claim: Claim, *, now_ms: int) -> Batch:
        """Move up to count ready jobs to active and lease them to the caller.

        Where they are large it moves fewer, and `wait` tells that there are more. Delayed jobs that
        are due are made ready first. Never returns a job twice before its lease has run out and
        `reclaim` has taken it back. A paused queue gives nothing.
        """

    async def settle(
        self, queue: str, outcomes: Sequence[Outcome], claim: Claim | None, *, now_ms: int
    ) -> Batch:
        """Store how leased jobs ended, then claim the next ones, in one step.

        An outcome whose token is no longer that of the job's lease changes nothing, and its id
        is in `lost`. Released jobs, given in the order in which they were claimed, go to the
        front in that order. A retry or a postponement with a delay goes to delayed; without one
        behind all that wait with its priority, or in front if `lifo`.
        """

    def renew(
        self, queue: str, leases: Mapping[str, str], *, lease_ms: int, now_ms: int
    ) -> set[str]:
        """Let leases (job id → token) last until now_ms + lease_ms. Returns the ids that are lost.

        One that has run out is not lost before `reclaim` has taken the job back.

        Blocks, and is called from a thread: a lease has to outlive an event loop that hangs.
        """

    def find_cancelled(self, queue: str, ids: Collection[str]) -> set[str]:
        """Return the ids of the running jobs that somebody has cancelled. Blocks, like `renew`."""

    async def reclaim(self, queue: str, *, crash_limit: int, now_ms: int) -> list[str]:
        """Take back active jobs whose lease has run out; they are first in line. Returns their ids.

        A lease that ends further ahead than it lasts (the clock was set back) ends as if it had
        been renewed now.

        Each counts a crash. At crash_limit crashes the job gets a `deferred_failure`: the next
        worker to claim it fails it with that, without running it.
        """

    async def probe(self, queue: str) -> None:
        """Return once the store takes a write. Changes nothing.

        A worker asks before it takes back jobs: leases also run out when nobody can renew them.
        """

    async def update(
        self, queue: str, updates: Sequence[Update], *, now_ms: int
    ) -> list[State | None]:
        """Store progress and log lines, and change jobs, in order.

        Returns for each update the state in which the job was found, None if there is none. A
        `Change` that this state does not allow was not made: see `Change.states`.
        """

    async def register_worker(self, queue: str, worker: str, *, name: str) -> None:
        """Announce that a worker serves the queue.

        worker is its unique id, here and in `wait` and `unregister_worker`; names may repeat.
        """

    async def unregister_worker(self, queue: str, worker: str) -> None:
        """Release what the engine holds for a worker that has stopped. Safe to call twice."""

    async def wait(self, queue: str, *, next_due_ms: int | None, worker: str = "") -> None:
        """Return once a claim may bring something; at once if so. It may return in vain.

        That is when the queue has a ready job and is not paused, or when a delayed job is due
        sooner than next_due_ms, what the last claim told (None: there was none). The caller
        looks at the clock itself, and claims when next_due_ms has come.
        """

    # Reading ------------------------------------------------------------------------------------

    async def get(self, queue: str, ids: Sequence[str]) -> list[JobRecord | None]:
        """The jobs with these ids, in order; None where there is none."""

    async def ends(self, queue: str, ids: Sequence[str]) -> list[End | None]:
        """How the jobs with these ids have ended, in order; None where there is no job.

        For those who wait for results: it reads no more of a job than its end.
        """

    async def page(
        self, queue: str, state: State, *, offset: int, limit: int, newest_first: bool
    ) -> list[JobRecord]:
        """A page of the jobs in a state, in the order in which they would be taken.

        Delayed: by due time. Active: by start. Finished: by finish. Jobs that move while a long
        page is read may be missing.
        """

    async def count(self, queue: str) -> dict[State, int]:
        """How many jobs are in each state; every state has its number."""

    async def logs(self, queue: str, id: str) -> list[str]:
        """The log lines kept with a job, oldest first; none if there is no such job."""

    async def events(self, queue: str, *, after: str | None, wait: bool = True) -> EventPage:
        """The next events after a cursor, waiting for at least one unless wait is False.


        after is None: no events, and the cursor of now, at once. The newest 10,000 events at least
        are kept, unless their values take more than `EVENT_BYTES`; but always those that one call
        has stored. A reader that falls further behind gets an event "missed" first. An entry that
        cannot be read is skipped. Raises `InvalidOption` for what is no cursor.

        A result or progress of more than `VALUE_BYTES` is not in the event: see `most_in_event`.
        """

    def begin_events(self, queue: str) -> Future[str]:
        """The cursor of now, without waiting for it: for any thread.

        What this process asks the engine to do after this call comes after that cursor.
        """

    # Administration -----------------------------------------------------------------------------

    async def requeue(
        self, queue: str, ids: Sequence[str], source: State, *, now_ms: int
    ) -> list[State | None]:
        """Make these jobs ready now: source is delayed (promote), failed or completed (run again).

        The result, error and attempts of a finished job are cleared. Returns the state in which
        each was found, None if there is none: those that were found in source are moved.
        """

    async def cancel(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[State | None]:
        """Fail jobs that have not started, and ask the workers of running ones to stop them.

        Returns the state in which each was found, None if there is none. Finished ones stay.
        """

    async def remove(self, queue: str, ids: Sequence[str], *, now_ms: int) -> list[State | None]:
        """Delete jobs with all that belongs to them, running ones excepted.

        Returns the state in which each was found, None if there is none.
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
        """Delete the jobs in these states, in the order of `page`, limit at most.

        before_ms: only those that finished (or, unfinished, were added) at or before that time.
        Active jobs are deleted too, if asked for; their workers find their lease lost. Returns
        the ids of those that are gone.
        """

    async def obliterate(self, queue: str) -> None:
        """Delete the queue itself: its jobs in any state, its events, its being paused."""

    async def pause(self, queue: str, *, now_ms: int) -> None:
        """Let no job be claimed until `resume`. Running ones go on. Safe to call twice."""

    async def resume(self, queue: str, *, now_ms: int) -> None:
        """End a pause. Safe to call twice."""

    async def is_paused(self, queue: str) -> bool: ...

    async def queues(self) -> list[str]:
        """The names of the queues that have jobs or are paused, in alphabetical order."""

    async def aclose(self) -> None:
        """Release what is held. What was begun is finished first. Safe to call twice."""

    def close_now(self) -> None:
        """`aclose`, as the interpreter ends, when no event loop of the application runs."""


# The error of a job that failed without an exception of its handler. Workers in other languages
# and dashboards show these texts; `job.result()` recognizes a cancelled job by the first one.
CANCELLED_ERROR = "cancelled"


# It begins with BullMQ's own text, by which Node and its dashboards know such a job.
CRASH_ERROR = "job stalled more than allowable limit: its worker died {} times while running it"


def crash_error(crashes: int) -> str:
    return CRASH_ERROR.format(crashes)


def check_cursor(after: object) -> str:
    """Check a cursor that a caller gives. Raises `InvalidOption`."""
    if isinstance(after, str) and re.fullmatch(r"[0-9]{1,18}-[0-9]{1,18}", after):
        return after
    raise InvalidOption("after", after, "the cursor of an event, such as '1700000000000-0'")


def keep_or(own: Keep | None, default: Keep) -> Keep:
    """The rule for a finished job: its own, else the worker's."""
    return default if own is None else own
