"""What an engine does with flows, in plain Python: the oracle of the test of flows.

Jobs have neither delays nor priorities. A finished job is kept, or deleted at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hasten.jobs._record import ChildOutcome, NewJob, OnFailure
from hasten.jobs._states import FINISHED, TRANSITIONS, State

Key = tuple[str, str]
"""The queue and the id of a job."""


@dataclass
class Child:
    """What a parent knows about a child."""

    on_failure: OnFailure
    outcome: ChildOutcome = "pending"


@dataclass
class FlowJob:
    key: Key
    parent: Key | None
    state: State = State.WAITING
    has_deferred_failure: bool = False
    children: dict[Key, Child] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        return sum(child.outcome == "pending" for child in self.children.values())

    def has_child(self, outcome: ChildOutcome) -> bool:
        return any(child.outcome == outcome for child in self.children.values())

    def move(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state} to {state}"
        self.state = state


class FlowModel:
    def __init__(self) -> None:
        self.jobs: dict[Key, FlowJob] = {}

    def in_states(self, *states: State) -> list[FlowJob]:
        return [job for job in self.jobs.values() if job.state in states]

    # The verbs ----------------------------------------------------------------------------------

    def add(self, new: Sequence[NewJob]) -> None:
        """Add a flow, or children of jobs that exist."""
        added = []
        for each in new:
            key, link = (each.queue, str(each.id)), each.parent
            parent = None if link is None else (link.queue, link.id)
            self.jobs[key] = FlowJob(key, parent)
            added.append(self.jobs[key])
            if link is not None and parent is not None:
                self.jobs[parent].children[key] = Child(link.on_failure)
        for job in added:
            if job.children:
                job.state = State.WAITING_CHILDREN

    def claim(self, key: Key) -> None:
        self.jobs[key].move(State.ACTIVE)

    def complete(self, key: Key, *, is_kept: bool) -> None:
        job = self.jobs[key]
        if job.has_child("failed") or (job.pending and not job.has_child("ignored")):
            self.fail(key, is_kept=True)
        else:
            self._finish(job, State.COMPLETED, is_kept=is_kept)

    def fail(self, key: Key, *, is_kept: bool) -> None:
        self._finish(self.jobs[key], State.FAILED, is_kept=is_kept)

    def put_back(self, key: Key) -> None:
        self.jobs[key].move(State.WAITING)

    def park(self, key: Key, children: Sequence[NewJob]) -> None:
        job = self.jobs[key]
        if job.has_child("failed"):
            self.fail(key, is_kept=True)
        elif job.has_deferred_failure:
            job.move(State.WAITING)
        else:
            self.add(children)
            job.move(State.WAITING_CHILDREN if job.pending else State.WAITING)

    def cancel(self, key: Key) -> None:
        job = self.jobs[key]
        if job.state is State.ACTIVE:
            job.has_deferred_failure = True
        elif job.state not in FINISHED:
            self._finish(job, State.FAILED, is_kept=True)

    def requeue(self, key: Key) -> None:
        """Run a finished job again."""
        job = self.jobs[key]
        parent = self.jobs.get(job.parent) if job.parent else None
        if parent is not None and key in parent.children:
            parent.children[key].outcome = "pending"
        job.has_deferred_failure = job.has_child("failed")
        waits = job.pending and not job.has_deferred_failure
        job.move(State.WAITING_CHILDREN if waits else State.WAITING)

    def remove(self, key: Key) -> State:
        """Delete a job and its descendants. Returns its state, or active if one of them runs."""
        family = list(self._family(self.jobs[key]))
        if any(job.state is State.ACTIVE for job in family):
            return State.ACTIVE
        found = self.jobs[key].state
        self.delete([job.key for job in family])
        return found

    def delete(self, keys: Iterable[Key]) -> None:
        """Delete jobs at once, without their descendants."""
        for job in [self.jobs.pop(key) for key in keys]:
            self._end(job, None)

    # Their steps --------------------------------------------------------------------------------

    def _family(self, job: FlowJob) -> Iterator[FlowJob]:
        yield job
        for key in job.children:
            if key in self.jobs:
                yield from self._family(self.jobs[key])

    def _finish(self, job: FlowJob, state: State, *, is_kept: bool) -> None:
        job.move(state)
        job.has_deferred_failure = False
        if not is_kept:
            del self.jobs[job.key]
        self._end(job, state, is_kept=is_kept)

    def _end(self, job: FlowJob, end: State | None, *, is_kept: bool = False) -> None:
        """Record the end of a job in its parent. end is None if it was deleted before."""
        parent = self.jobs.get(job.parent) if job.parent else None
        child = parent.children.get(job.key) if parent else None
        if parent is None or child is None or child.outcome != "pending":
            return
        if end is State.COMPLETED:
            child.outcome = "completed"
        elif end is State.FAILED and child.on_failure == "fail":
            child.outcome = "failed"
        elif end is State.FAILED and child.on_failure in {"continue", "ignore"}:
            child.outcome = "ignored"
        elif end is State.FAILED and child.on_failure == "wait" and is_kept:
            return
        else:
            del parent.children[job.key]
        if child.outcome == "failed" and parent.state not in FINISHED:
            parent.has_deferred_failure = True
        at_once = child.outcome == "failed" or (
            child.outcome == "ignored" and child.on_failure == "continue"
        )
        if parent.state is State.WAITING_CHILDREN and (at_once or not parent.pending):
            parent.move(State.WAITING)
