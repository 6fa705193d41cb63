"""A worker's side of one queue: what runs, what has ended and is to be stored, how its store is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from hasten.jobs.engine import Engine
from hasten.jobs.leases import LeaseKeeper
from hasten.jobs.options import Keep
from hasten.jobs.outages import Outage
from hasten.jobs.processes import Processes
from hasten.jobs.queue import Queue
from hasten.jobs.record import Completed, LogLine, Note, Outcome, Released
from hasten.jobs.room import Room, Share
from hasten.jobs.run import Run
from hasten.jobs.runner import Runner
from hasten.jobs.threads import Threads

# Pauses between attempts to reach a store that fails: each twice as long as the one before.
FIRST_PAUSE_SECONDS: Final = 0.1
LAST_PAUSE_SECONDS: Final = 2.0

# A call of the store holds up all others. Results and notes of more characters go in several.
CHARACTERS_AT_ONCE: Final = 4 * 1024 * 1024


class Lane:
    """What a worker has to store for one queue, and what it knows of its store."""

    def __init__(
        self,
        queue: Queue,
        engine: Engine,
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
        self.engine = engine
        self.outage = outage
        self.runs = keeper.serve(queue.name, engine, outage)
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
        self._notes: list[Note] = []
        self._outcomes: list[Outcome] = []
        self._released: list[Released] | None = None  # kept together while the worker stops
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

    def note(self, note: Note) -> None:
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

    def take(self) -> tuple[list[Note], list[Outcome], bool]:
        """What is to be stored next, and whether it has to be stored alone."""
        if self._alone:
            self._alone -= 1
            if self._notes:
                return [self._notes.pop(0)], [], True
            if self._outcomes:
                return [], [self._outcomes.pop(0)], True
        notes, self._notes = self._notes, []
        notes, later = _portion_of_notes(notes)
        if later:  # no job may end before what it has said is stored
            self._notes[:0] = later
            return notes, [], False
        outcomes, self._outcomes = _portion(self._outcomes)
        return notes, outcomes, False

    def put_back(self, notes: list[Note], outcomes: list[Outcome], *, alone: bool = False) -> None:
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


def _portion(outcomes: list[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Divide outcomes into those to be stored next and results that are left to a later call."""
    size = sum([len(outcome.result) for outcome in outcomes if type(outcome) is Completed])
    if size <= CHARACTERS_AT_ONCE:
        return outcomes, []
    now: list[Outcome] = []
    later: list[Outcome] = []
    size = 0
    for outcome in outcomes:
        if type(outcome) is not Completed:
            now.append(outcome)  # small, and released jobs stay together
        elif size < CHARACTERS_AT_ONCE:
            now.append(outcome)
            size += len(outcome.result)
        else:
            later.append(outcome)
    return now, later


def _portion_of_notes(notes: list[Note]) -> tuple[list[Note], list[Note]]:
    """Divide notes, in their order, into those to be stored next and the rest."""
    size = 0
    for index, note in enumerate(notes, 1):
        size += len(note.line) if isinstance(note, LogLine) else len(note.value)
        if size >= CHARACTERS_AT_ONCE:
            return notes[:index], notes[index:]
    return notes, []
