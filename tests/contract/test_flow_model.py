"""Random flows on every engine, side by side with a model.

After each step, a parent waits for exactly its unfinished children, every failed child has done to
its parent what its `on_failure` says, and no parent waits without a child that can still end.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from hasten.jobs._options import KEEP_ALL, KEEP_NONE
from hasten.jobs._record import (
    ON_FAILURE,
    ClaimRequest,
    Completed,
    Failed,
    NewJob,
    Outcome,
    ParentLink,
    Parked,
    Retry,
)
from hasten.jobs._states import FINISHED, READY, State
from tests.contract.engines import KINDS, open_for_test, orphans
from tests.contract.flow_model import FlowModel, Key
from tests.contract.steps import NOW, new_job
from tests.effort import effort

T = TypeVar("T")

QUEUES: Final = ("one", "two")
EXAMPLES: Final = {"sqlite-memory": 20, "sqlite-file": 8, "redis": 10, "redis-cluster": 3}


class FlowMachine(RuleBasedStateMachine):
    kind: str
    places: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self.place = next(self.places)
        self.place.mkdir()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        opening = open_for_test(self.kind, self.place, one_slot=True)
        self.engine = self.run(self.stack.enter_async_context(opening))
        self.model = FlowModel()
        self.now_ms = NOW
        self.numbers = itertools.count(1)
        self.tokens: dict[Key, str] = {}

    def run(self, call: Awaitable[T]) -> T:
        return self.loop.run_until_complete(call)

    def teardown(self) -> None:
        try:
            self.run_all_jobs()
            assert orphans(self.engine, self.place) == []
        finally:
            self.run(self.stack.aclose())
            self.loop.close()

    # What to do, drawn from what there is -------------------------------------------------------

    def new_job(self, data: st.DataObject, parent: Key | None = None) -> NewJob:
        queue = data.draw(st.sampled_from(QUEUES), label="queue")
        number = next(self.numbers)
        # Ids in the order of adding, and others.
        id = data.draw(st.sampled_from([f"n-{number}", f"x{9999 - number}"]), label="id")
        made = new_job(id, queue=queue)
        link = None
        if parent is not None:
            on_failure = data.draw(st.sampled_from(ON_FAILURE), label="on_failure")
            link = ParentLink(*parent, on_failure)
        return NewJob(queue, made.template, made.data, id, link)

    def new_tree(self, data: st.DataObject, root: NewJob, size: int) -> list[NewJob]:
        jobs = [root]
        for _ in range(size):
            above = data.draw(st.sampled_from(jobs), label="parent")
            jobs.append(self.new_job(data, (above.queue, str(above.id))))
        return jobs

    def a_job(self, data: st.DataObject, *states: State) -> Key:
        keys = [job.key for job in self.model.in_states(*states)]
        return data.draw(st.sampled_from(keys), label="job")

    # The verbs ----------------------------------------------------------------------------------

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.add(data)

    @rule(data=st.data())
    def a_verb(self, data: st.DataObject) -> None:
        self.now_ms += 1
        verbs = ["add"]
        if self.model.in_states(*READY):
            verbs += ["claim"] * 4
        if self.model.in_states(State.ACTIVE):
            verbs += ["finish"] * 6
        if self.model.in_states(*FINISHED):
            verbs += ["requeue"] * 2
        if self.model.jobs:
            verbs += ["cancel", "remove"]
        if self.unfinished():
            verbs += ["add_below"]
        verbs += ["purge"]
        getattr(self, data.draw(st.sampled_from(verbs), label="verb"))(data)

    def add(self, data: st.DataObject) -> None:
        size = data.draw(st.integers(1, 5), label="size")
        jobs = self.new_tree(data, self.new_job(data), size)
        added = self.run(self.engine.add_flow(jobs, now_ms=self.now_ms))
        assert [each.id for each in added] == [each.id for each in jobs]
        self.model.add(jobs)

    def unfinished(self) -> list[Key]:
        return [job.key for job in self.model.jobs.values() if job.state not in FINISHED]

    def add_below(self, data: st.DataObject) -> None:
        """Add children to a job that exists."""
        parent = data.draw(st.sampled_from(self.unfinished()), label="parent")
        jobs = self.new_tree(data, self.new_job(data, parent), data.draw(st.integers(0, 2)))
        self.run(self.engine.add_flow(jobs, now_ms=self.now_ms))
        self.model.add(jobs)

    def claim(self, data: st.DataObject) -> None:
        """Claim a job, and fail it if it has to be failed without a run."""
        queue, _ = self.a_job(data, *READY)
        self.claim_one(queue)

    def claim_one(self, queue: str) -> bool:
        claim = ClaimRequest(1, f"t{next(self.numbers)}", "worker", lease_ms=10**9)
        batch = self.run(self.engine.claim(queue, claim, now_ms=self.now_ms))
        for lease in batch.leases:
            key = queue, lease.job.id
            self.model.claim(key)
            self.tokens[key] = claim.token
            deferred = lease.job.deferred_failure
            assert (deferred is not None) == self.model.jobs[key].has_deferred_failure
            if deferred is not None:
                self.settle(key, Failed(lease.job.id, claim.token, deferred, None, KEEP_ALL))
                self.model.fail(key, is_kept=True)
        return bool(batch.leases)

    def settle(self, key: Key, outcome: Outcome) -> None:
        batch = self.run(self.engine.settle(key[0], [outcome], None, now_ms=self.now_ms))
        assert batch.lost == []

    def finish(self, data: st.DataObject) -> None:
        key = self.a_job(data, State.ACTIVE)
        id, token = key[1], self.tokens[key]
        is_kept = data.draw(st.booleans(), label="is_kept")
        keep = KEEP_ALL if is_kept else KEEP_NONE
        match data.draw(st.sampled_from(["complete", "fail", "retry", "park"]), label="outcome"):
            case "complete":
                self.settle(key, Completed(id, token, "1", keep))
                self.model.complete(key, is_kept=is_kept)
            case "fail":
                self.settle(key, Failed(id, token, "no", "trace", keep))
                self.model.fail(key, is_kept=is_kept)
            case "retry":
                self.settle(key, Retry(id, token, "no", "trace", 0))
                self.model.put_back(key)
            case "park":
                self.park(data, key)

    def park(self, data: st.DataObject, key: Key) -> None:
        parent = NewJob(key[0], new_job().template, "{}", key[1])
        size = data.draw(st.integers(0, 3), label="size")
        children = self.new_tree(data, parent, size)[1:]
        self.settle(key, Parked(key[1], self.tokens[key], children))
        self.model.park(key, children)

    def requeue(self, data: st.DataObject) -> None:
        queue, id = self.a_job(data, *FINISHED)
        found = self.run(self.engine.requeue(queue, [id], FINISHED, now_ms=self.now_ms))
        assert found == [self.model.jobs[queue, id].state]
        self.model.requeue((queue, id))

    def cancel(self, data: st.DataObject) -> None:
        queue, id = self.a_job(data, *State)
        found = self.run(self.engine.cancel(queue, [id], now_ms=self.now_ms))
        assert found == [self.model.jobs[queue, id].state]
        self.model.cancel((queue, id))

    def remove(self, data: st.DataObject) -> None:
        queue, id = self.a_job(data, *State)
        found = self.run(self.engine.remove(queue, [id], now_ms=self.now_ms))
        assert found == [self.model.remove((queue, id))]

    def purge(self, data: st.DataObject) -> None:
        queue = data.draw(st.sampled_from(QUEUES), label="queue")
        state = data.draw(st.sampled_from([*READY, State.WAITING_CHILDREN, *FINISHED]))
        expected = {job.key[1] for job in self.model.in_states(state) if job.key[0] == queue}
        call = self.engine.purge(queue, [state], before_ms=None, limit=None, now_ms=self.now_ms)
        purged = self.run(call)
        assert expected <= set(purged)
        self.model.delete([(queue, id) for id in expected])
        for id in purged:
            if id not in expected:  # a parent that became ready meanwhile
                assert self.model.jobs[queue, id].state is state
                self.model.delete([(queue, id)])

    # What holds after each of them --------------------------------------------------------------

    @invariant()
    def engine_and_model_agree(self) -> None:
        for queue in QUEUES:
            expected = [job for job in self.model.jobs.values() if job.key[0] == queue]
            ids = [job.key[1] for job in expected]
            counts = self.run(self.engine.count(queue))
            assert sum(counts.values()) == len(ids)
            found = self.run(self.engine.get(queue, ids))
            for job, record in zip(expected, found, strict=True):
                assert record is not None
                assert record.state is job.state, job.key
                self.check_children(job.key)

    def check_children(self, key: Key) -> None:
        job = self.model.jobs[key]
        children = self.run(self.engine.children(*key, limit=100))
        told = {(child.queue, child.id): child.outcome for child in children}
        assert told == {each: child.outcome for each, child in job.children.items()}
        assert list(told) == list(job.children)  # in the order of adding
        counted = self.run(self.engine.count_children(*key))
        assert (counted.pending, counted.total) == (job.pending, len(job.children))

    @invariant()
    def no_parent_waits_for_ever(self) -> None:
        for job in self.model.in_states(State.WAITING_CHILDREN):
            pending = [key for key, one in job.children.items() if one.outcome == "pending"]
            assert pending
            for key in pending:
                child = self.model.jobs[key]
                fails_quietly = job.children[key].on_failure == "wait"
                assert child.state not in FINISHED or fails_quietly

    def run_all_jobs(self) -> None:
        """Complete all jobs: then only parents of failed children wait that asked for it."""
        for job in self.model.in_states(State.ACTIVE):
            self.settle(job.key, Completed(job.key[1], self.tokens[job.key], "1", KEEP_ALL))
            self.model.complete(job.key, is_kept=True)
        while self.claim_one("one") or self.claim_one("two"):
            for job in self.model.in_states(State.ACTIVE):
                self.settle(job.key, Completed(job.key[1], self.tokens[job.key], "1", KEEP_ALL))
                self.model.complete(job.key, is_kept=True)
        self.engine_and_model_agree()
        for job in self.model.in_states(State.WAITING_CHILDREN):
            below = [key for key, one in job.children.items() if one.outcome == "pending"]
            assert all(
                self.model.jobs[key].state in {State.FAILED, State.WAITING_CHILDREN}
                for key in below
            )


@pytest.mark.parametrize("kind", KINDS)
def test_flows(kind: str, tmp_path: Path) -> None:
    places = (tmp_path / str(number) for number in itertools.count())

    class Machine(FlowMachine):
        pass

    Machine.kind, Machine.places = kind, places
    walk = settings(effort(EXAMPLES[kind], steps=30), report_multiple_bugs=False)
    run_state_machine_as_test(Machine, settings=walk)
