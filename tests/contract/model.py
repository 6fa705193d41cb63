"""What an engine does, in plain Python: the oracle of the state-machine test.

One queue. A job is in one state and has a place there; a list is the jobs of a state by their
places. The verbs are those of `hasten.jobs._engine.Engine`, with the same answers, where the
contract says what they are. It leaves two things open, and the test keeps clear of them: in which
order jobs that are due in the same millisecond become ready, and which of several jobs that finish
in the same millisecond counts as the newer one.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hasten.jobs import _record as records
from hasten.jobs._deduplication import Deduplication
from hasten.jobs._deduplication import DeduplicationMode as Mode
from hasten.jobs._engine import CANCELLED_ERROR, crash_error
from hasten.jobs._options import DEFAULT_KEEP_FAILED, Keep
from hasten.jobs._states import FINISHED, INITIAL, READY, TRANSITIONS, State

Place = tuple[int, ...]


@dataclass
class Key:
    """A deduplication key that is taken, or was removed while a next job is kept."""

    owner: str
    ends_ms: int | None = None  # of throttle
    next_job: records.NewJob | None = None
    is_removed: bool = False


@dataclass
class Job:
    id: str
    number: int  # in the order of adding
    priority: int
    lifo: bool
    created_ms: int
    state: State
    data: str = "{}"
    place: Place = ()
    attempts_made: int = 0
    attempts_started: int = 0
    crashes: int = 0
    due_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    progress: str | None = None
    result: str | None = None
    error: str | None = None
    deferred_failure: str | None = None
    cancel_requested: bool = False
    key: str = ""
    token: str = ""
    claimed: int = 0  # in the order of claims
    lease_until_ms: int = 0
    logs: list[str] = field(default_factory=list)

    @property
    def to_front(self) -> bool:
        return self.lifo and not self.priority


class Model:
    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.keys: dict[str, Key] = {}
        self.follower_ids: list[str] = []  # that the engine has assigned to next jobs
        self.paused = False
        self._numbers = itertools.count(1)

    def listed(self, state: State) -> list[Job]:
        """Return the jobs of a state, in the order in which they would be claimed."""
        found = [job for job in self.jobs.values() if job.state is state]
        return sorted(found, key=lambda job: (job.place, job.number))

    # The verbs ----------------------------------------------------------------------------------

    def add(self, new: records.NewJob, id: str, now_ms: int) -> bool:
        """Add a job and return whether it is new.

        id is the one that the engine assigned, if any.
        """
        key = new.template.deduplication
        if key is not None and (owner := self._keep_out(new, key, now_ms)) is not None:
            assert id == owner
            return False
        if id in self.jobs:
            return False
        self._add(new, id, now_ms)
        if key is not None:
            ends_ms = now_ms + key.window_ms if key.mode is Mode.THROTTLE else None
            self.keys[key.id] = Key(id, ends_ms)
            self.jobs[id].key = key.id
        return True

    def _add(self, new: records.NewJob, id: str, now_ms: int) -> None:
        number = next(self._numbers)
        options = new.template.options
        job = Job(id, number, options.priority, options.lifo, now_ms, State.WAITING, new.data)
        self.jobs[id] = job
        if options.delay_ms:
            self._delay(job, now_ms + options.delay_ms)
        else:
            self._make_ready(job, front=job.to_front)
        assert job.state in INITIAL

    def taken_keys(self, now_ms: int) -> set[str]:
        """Return the deduplication ids that are taken now."""
        return {
            id
            for id, key in self.keys.items()
            if not key.is_removed and (key.ends_ms is None or now_ms < key.ends_ms)
        }

    def _keep_out(self, new: records.NewJob, key: Deduplication, now_ms: int) -> str | None:
        """Return the job of which the new one is a duplicate, None if it is to be added."""
        if key.id not in self.taken_keys(now_ms):
            return None
        taken = self.keys[key.id]
        owner = self.jobs.get(taken.owner)
        has_ended = owner is None or owner.state in FINISHED
        if key.mode in {Mode.UNIQUE, Mode.THROTTLE}:
            return None if has_ended and taken.ends_ms is None else taken.owner
        if owner is None or has_ended or (owner.attempts_started and key.mode is Mode.DEBOUNCE):
            return None
        taken.ends_ms = None
        if owner.attempts_started:
            taken.next_job = new
            return taken.owner
        owner.data = new.data
        if key.mode is Mode.DEBOUNCE and owner.state is State.DELAYED:
            self._delay(owner, self.debounced_ms(owner, key, now_ms))
        return taken.owner

    def debounced_ms(self, owner: Job, key: Deduplication, now_ms: int) -> int:
        """Return when a debounced job is due after another call."""
        assert owner.due_ms is not None
        longest_ms = owner.created_ms + key.max_wait_ms
        if longest_ms <= now_ms:  # it has waited long enough
            return min(owner.due_ms, now_ms)
        return min(now_ms + key.window_ms, longest_ms)

    def remove_key(self, id: str, now_ms: int) -> bool:
        if id not in self.taken_keys(now_ms):
            return False
        self.keys[id].is_removed = True
        if self.keys[id].next_job is None:
            del self.keys[id]
        return True

    def _end_key(self, job: Job, now_ms: int, *, is_cancelled: bool = False) -> None:
        """Free the key of a job that has ended, or give it to the next job."""
        key = self.keys.get(job.key)
        if key is None or key.owner != job.id:
            return
        if key.next_job is not None:
            follower = self.follower_ids.pop(0)
            self._add(key.next_job, follower, now_ms)
            self.jobs[follower].key = job.key
            self.keys[job.key] = Key(follower)
        elif key.ends_ms is None or is_cancelled:
            del self.keys[job.key]

    def _delete(self, id: str) -> None:
        """Delete a job as a user does, with the key that it owns."""
        job = self.jobs.pop(id)
        if job.key in self.keys and self.keys[job.key].owner == id:
            del self.keys[job.key]

    def claim(self, claim: records.ClaimRequest, now_ms: int) -> tuple[list[str], int | None]:
        """Return the ids of the claimed jobs, and the next due time if there are too few."""
        for job in self.listed(State.DELAYED):
            if job.due_ms is not None and job.due_ms <= now_ms:
                self._make_ready(job)
        ready = [] if self.paused else self.listed(State.WAITING) + self.listed(State.PRIORITIZED)
        for job in ready[: claim.count]:
            self._move(job, State.ACTIVE, (now_ms,))
            job.attempts_started += 1
            job.started_ms = now_ms
            job.token, job.lease_until_ms = claim.token, now_ms + claim.lease_ms
            job.claimed = next(self._numbers)
        due = [job.due_ms for job in self.listed(State.DELAYED) if job.due_ms is not None]
        few = len(ready) < claim.count
        return [job.id for job in ready[: claim.count]], min(due, default=None) if few else None

    def settle(self, outcomes: Sequence[records.Outcome], now_ms: int) -> list[str]:
        """Return the ids with lost leases. Released jobs keep the order of their claims."""
        lost = [outcome.id for outcome in outcomes if not self.holds(outcome.id, outcome.token)]
        ours = [outcome for outcome in outcomes if outcome.id not in lost]
        for outcome in ours:
            if not isinstance(outcome, records.Released):
                self._settle(self.jobs[outcome.id], outcome, now_ms)
        for outcome in reversed(ours):
            if isinstance(outcome, records.Released):
                self._make_ready(self.jobs[outcome.id], front=True)
        return lost

    def renew(self, leases: Mapping[str, str], until_ms: int) -> set[str]:
        lost = {id for id, token in leases.items() if not self.holds(id, token)}
        for id in leases.keys() - lost:
            self.jobs[id].lease_until_ms = until_ms
        return lost

    def reclaim(self, order: Sequence[str], crash_limit: int, now_ms: int) -> set[str]:
        """Return the ids of the reclaimed jobs.

        order is the order in which the engine returned them.
        """
        active = self.listed(State.ACTIVE)
        expired = {job.id for job in active if job.lease_until_ms <= now_ms}
        for id in reversed([id for id in order if id in expired]):
            job = self.jobs[id]
            self._make_ready(job, front=True)
            job.crashes += 1
            if job.crashes >= crash_limit and job.deferred_failure is None:
                job.deferred_failure = crash_error(job.crashes)
        return expired

    def update(self, updates: Iterable[records.Update], now_ms: int) -> list[State | None]:
        """Return the states of the jobs."""
        found: list[State | None] = []
        for update in updates:
            job = self.jobs.get(update.id)
            found.append(None if job is None else job.state)
            if job is not None:
                self._update(job, update, now_ms)
        return found

    def _update(self, job: Job, update: records.Update, now_ms: int) -> None:
        match update:
            case records.Progress(_, value):
                job.progress = value
            case records.LogLine(_, line, keep):
                job.logs = [*job.logs, line][-keep:]
            case records.JobChange() if job.state in update.required_states:
                job.data = job.data if update.data is None else update.data
                job.progress = job.progress if update.progress is None else update.progress
                if update.priority is not None:
                    job.priority = update.priority
                    if job.state in READY:
                        self._make_ready(job)
                if update.delay_ms is not None:
                    self._delay(job, now_ms + update.delay_ms)

    def requeue(self, id: str, sources: Collection[State]) -> State | None:
        job = self.jobs.get(id)
        if job is None:
            return None
        source = job.state
        if source not in sources:
            return source
        self._make_ready(job, front=job.to_front and source in FINISHED)
        if source in FINISHED:
            job.attempts_made = job.crashes = 0
            job.started_ms = job.finished_ms = None
            job.result = job.error = None
        return source

    def cancel(self, id: str, now_ms: int) -> State | None:
        job = self.jobs.get(id)
        if job is None:
            return None
        found = job.state
        if found is State.ACTIVE:
            job.cancel_requested = True
        elif found not in FINISHED:
            job.error = CANCELLED_ERROR
            self._end_key(job, now_ms, is_cancelled=True)
            self._finish(job, State.FAILED, DEFAULT_KEEP_FAILED, now_ms)
        return found

    def remove(self, id: str) -> State | None:
        job = self.jobs.get(id)
        if job is None:
            return None
        if job.state is not State.ACTIVE:
            self._delete(id)
        return job.state

    def purge(self, ids: list[str], state: State, before_ms: int | None, limit: int | None) -> None:
        """Check what was purged, and forget it: all that may be, or the first of that in line.

        Which of two jobs at one place is the first is not told by every store.
        """
        found = [
            job for job in self.listed(state) if before_ms is None or _age_ms(job) <= before_ms
        ]
        purged = [self.jobs[id] for id in ids]
        assert all(job in found for job in purged)
        assert [job.place for job in purged] == [job.place for job in found[:limit]]
        for id in ids:
            self._delete(id)

    # Their steps --------------------------------------------------------------------------------

    def holds(self, id: str, token: str) -> bool:
        job = self.jobs.get(id)
        return job is not None and job.state is State.ACTIVE and job.token == token

    def _settle(self, job: Job, outcome: records.Outcome, now_ms: int) -> None:
        match outcome:
            case records.Completed(result=result, keep=keep):
                job.attempts_made += 1
                job.result = result
                self._end_key(job, now_ms)
                self._finish(job, State.COMPLETED, keep, now_ms)
            case records.Failed(error=error, keep=keep, counts=counts):
                job.attempts_made += counts
                job.error = error
                self._end_key(job, now_ms)
                self._finish(job, State.FAILED, keep, now_ms)
            case records.Retry(error=error, delay_ms=delay_ms):
                job.attempts_made += 1
                job.error = error
                self._again(job, delay_ms, now_ms)
            case records.Postponed(delay_ms=delay_ms):
                self._again(job, delay_ms, now_ms)
            case records.Released():
                raise AssertionError("these come later")

    def _again(self, job: Job, delay_ms: int, now_ms: int) -> None:
        if delay_ms:
            self._delay(job, now_ms + delay_ms)
        else:
            self._make_ready(job, front=job.to_front)

    def _finish(self, job: Job, state: State, keep: Keep, now_ms: int) -> None:
        self._move(job, state, (next(self._numbers),))
        job.finished_ms = now_ms
        job.deferred_failure, job.cancel_requested = None, False
        if keep.count == 0:
            del self.jobs[job.id]
            return
        kept = self.listed(state)
        if keep.age_ms is not None:
            kept = [one for one in kept if (one.finished_ms or 0) > now_ms - keep.age_ms]
        if keep.count is not None:
            kept = kept[-keep.count :]
        for one in self.listed(state):
            if one not in kept:
                del self.jobs[one.id]

    def _make_ready(self, job: Job, *, front: bool = False) -> None:
        """Put a job behind those of its priority, or in front, where older jobs come first."""
        number = next(self._numbers)
        if job.priority:
            self._move(job, State.PRIORITIZED, (job.priority, 0 if front else number))
        else:
            self._move(job, State.WAITING, (-number if front else number,))

    def _delay(self, job: Job, due_ms: int) -> None:
        self._move(job, State.DELAYED, (due_ms,))
        job.due_ms = due_ms

    def _move(self, job: Job, state: State, place: Place) -> None:
        moves = {*TRANSITIONS[job.state], job.state}  # the job moves behind the others of its state
        assert not job.place or state in moves, f"{job.state} to {state}"
        job.state, job.place = state, place
        job.due_ms = None


def _age_ms(job: Job) -> int:
    return job.created_ms if job.finished_ms is None else job.finished_ms
