"""A worker's side of one queue: what runs, what has ended and is to be stored, how its store is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, TypeVar

from hasten.jobs._engine import Engine
from hasten.jobs._leases import LeaseKeeper
from hasten.jobs._options import Keep
from hasten.jobs._outages import Outage
from hasten.jobs._processes import Processes
from hasten.jobs._queue import Queue
from hasten.jobs._record import Completed, LogLine, Outcome, Released, RunUpdate
from hasten.jobs._room import Room, Share
from hasten.jobs._run import Run
from hasten.jobs._runner import Runner
from hasten.jobs._threads import Threads

Item = TypeVar("Item")

# Pauses between attempts to reach a store that fails: each twice as long as the one before.
FIRST_PAUSE_SECONDS: Final = 0.1
LAST_PAUSE_SECONDS: Final = 2.0

# One call keeps all other users of the store waiting. It carries no more jobs or notes than the
# engine's `max_batch`; a large one counts as one more for each so many bytes.
BYTES_LIKE_A_JOB: Final = 10_000


class Lane:
    """What a worker has to store for one queue, and what it knows of its store."""

    def __init__(
        self,
        queue: Queue,
        *,
        room: Room,
        outage: Outage,
        keeper: LeaseKeeper,
        threads: Threads,
        processes: Processes,
        keep_completed: Keep,
        keep_failed: Keep,
    ) -> None:
        self.name = queue.name
        self._engine = queue.store_use.engine
        self.outage = outage
        self.runs = keeper.serve(queue.name, self._engine, outage)
        self.runner = Runner(
            queue,
            threads=threads,
            processes=processes,
            keep_completed=keep_completed,
            keep_failed=keep_failed,
            clock=queue.clock,
            note=self.note,
        )
        self._loop = asyncio.get_running_loop()
        self._notes: list[RunUpdate] = []
        self._outcomes: list[Outcome] = []
        self._released: list[Released] | None = None  # kept together while the worker stops
        self._heavy: dict[str, int] = {}  # what ends of jobs weigh that hold much, by job
        self.signal = asyncio.Event()  # something to settle, or room and something to claim
        self.idle = asyncio.Event()  # nothing to claim at the last look
        self.turned = asyncio.Event()  # a fetcher has come back from the store
        self.next_due_ms: int | None = None
        self._room = room
        self.share = Share(self.wake)
        room.want(self.share)
        self.flights = 0  # fetchers that are at the store
        self.claims = 0  # claims that are under way
        self._alone = 0  # notes and outcomes that are to be stored one at a time
        self.replaced: set[tuple[str, str]] = set()  # runs whose outcome the store has rejected
        self.unsure: set[str] = set()  # jobs whose end may have been stored, or not
        self.noting = asyncio.Lock()  # held while notes are on their way
        self.in_order = asyncio.Lock()  # held while something is stored alone
        self._pause = FIRST_PAUSE_SECONDS

    @property
    def engine(self) -> Engine:
        """The engine of the queue's store: another one if somebody has closed the store."""
        return self._engine()

    def wake(self) -> None:
        self.signal.set()

    def feed(self) -> None:
        self._room.want(self.share)
        self.idle.clear()
        self.wake()

    def sated(self, next_due_ms: int | None) -> None:
        self._room.rest(self.share)
        self.next_due_ms = next_due_ms
        self.idle.set()

    def note(self, note: RunUpdate) -> None:
        """Take progress or a log line, from any thread."""
        self._notes.append(note)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.wake)

    def enter(self, run: Run, outcome: Outcome | None) -> None:
        """Take what came of a run, to be settled."""
        run.ended()
        if outcome is None:
            self.forget(run.lease.job.id, run.lease.token)
        elif self._released is not None and isinstance(outcome, Released):
            self._released.append(outcome)
        else:
            size = len(run.lease.job.data)
            if type(outcome) is Completed:
                size += len(outcome.result)
            if size > BYTES_LIKE_A_JOB:
                self._heavy[outcome.id] = 1 + size // BYTES_LIKE_A_JOB
            self._outcomes.append(outcome)
        self.wake()

    def keep_released(self) -> None:
        """Keep the jobs that are released from now on together, until `hand_back`."""
        self._released = []

    def hand_back(self) -> None:
        """Let the released jobs go back to the front of their queue, in one call of the store.

        In the order in which they were claimed: of two calls, the second would put its jobs in
        front of those of the first.
        """
        released, self._released = self._released or [], None
        place = {id: number for number, id in enumerate(self.runs)}
        self._outcomes += sorted(released, key=lambda outcome: place.get(outcome.id, 0))
        self.wake()

    def forget(self, id: str, token: str) -> None:
        """Let go of a run, but not of a later one of the same job."""
        run = self.runs.get(id)
        if run is not None and run.lease.token == token:
            del self.runs[id]
            if self._heavy:
                self._heavy.pop(id, None)

    async def until_claimed(self) -> None:
        """Wait until no claim is under way."""
        while self.claims:
            self.turned.clear()
            await self.turned.wait()

    async def until_settled(self) -> None:
        """Wait until all that has come of runs is stored."""
        while self._notes or self._outcomes or self.flights:
            self.turned.clear()
            self.wake()
            await self.turned.wait()

    def take(self) -> tuple[list[RunUpdate], list[Outcome], bool]:
        """What is to be stored next, and whether it has to be stored alone.

        What one call should not store is left to the next one.
        """
        if self._alone:
            self._alone -= 1
            if self._notes:
                return [self._notes.pop(0)], [], True
            if self._outcomes:
                return [], [self._outcomes.pop(0)], True
        notes, self._notes = self._notes, []
        if left := _cut(notes, _weight_of_note, self.engine.max_batch):
            self._notes[:0] = left
            return notes, [], False  # they come before the ends of the jobs that they are about
        outcomes, self._outcomes = self._outcomes, []
        if self._heavy or len(outcomes) > self.engine.max_batch:
            self._outcomes = _cut(outcomes, self._weight, self.engine.max_batch)
        return notes, outcomes, False

    @property
    def is_behind(self) -> bool:
        """Whether outcomes are left to a later call: more jobs would fill the memory with them."""
        return bool(self._outcomes)

    def _weight(self, outcome: Outcome) -> int:
        if isinstance(outcome, Released):
            return 0  # they stay together, see `hand_back`
        return self._heavy.get(outcome.id, 1)

    def put_back(
        self, notes: list[RunUpdate], outcomes: list[Outcome], *, alone: bool = False
    ) -> None:
        """Keep what could not be stored for the next call; alone: for as many calls."""
        if alone:
            self._alone += len(notes) + len(outcomes)
            # Each goes in front of the one before: the first in line comes last.
            released = [outcome for outcome in outcomes if isinstance(outcome, Released)]
            others = [outcome for outcome in outcomes if not isinstance(outcome, Released)]
            outcomes = others + released[::-1]
        self._notes[:0] = notes
        self._outcomes[:0] = outcomes
        self.wake()

    async def pause(self) -> None:
        """Wait a little before the next attempt to reach a store that has failed."""
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, LAST_PAUSE_SECONDS)

    def recovered(self) -> None:
        self._pause = FIRST_PAUSE_SECONDS


def _cut(items: list[Item], weigh: Callable[[Item], int], most: int) -> list[Item]:
    """Take from items what one call should not store. Returns it."""
    weight = 0
    for end, item in enumerate(items):
        weight += weigh(item)
        if weight > most and end:
            left = items[end:]
            del items[end : end + len(left)]  # what a thread adds at this moment stays
            return left
    return []


def _weight_of_note(note: RunUpdate) -> int:
    return 1 + len(note.line if isinstance(note, LogLine) else note.value) // BYTES_LIKE_A_JOB
