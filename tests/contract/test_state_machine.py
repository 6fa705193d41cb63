"""Random verbs on every engine, side by side with the model.

After each verb the answers are the same, and so is all that can be read: which job is in which
state, in which order, with which numbers. `make soak` looks for much longer.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from hasten.jobs._deduplication import Deduplication, DeduplicationMode
from hasten.jobs._options import KEEP_ALL, KEEP_NONE, Keep, Options
from hasten.jobs._record import (
    ClaimRequest,
    Completed,
    Failed,
    JobChange,
    JobRecord,
    JobTemplate,
    LogLine,
    NewJob,
    Outcome,
    Postponed,
    Progress,
    Released,
    Retry,
    RunUpdate,
)
from hasten.jobs._states import FINISHED, State
from tests.contract.engines import KINDS, open_for_test, orphans, taken_keys
from tests.contract.model import Job, Model
from tests.contract.steps import NOW, QUEUE, new_job
from tests.effort import effort

T = TypeVar("T")

EXAMPLES: Final = {"sqlite-memory": 12, "sqlite-file": 12, "redis": 12, "redis-cluster": 4}
"""A step on a cluster costs several times as much, and runs the scripts that one on Redis runs."""

# The fields of a job that are compared after each verb.
FACTS: Final = (
    "id", "data", "priority", "created_ms", "attempts_made", "attempts_started", "crashes",
    "due_ms", "started_ms", "finished_ms", "result", "error",
)  # fmt: skip

delays = st.sampled_from([0, 0, 5, 20, 100])
keeps = st.sampled_from([KEEP_ALL, Keep(count=2), KEEP_NONE, Keep(age=0.05)])
counts = st.sampled_from([2, 3, 1, 4, 0])


class JobsMachine(RuleBasedStateMachine):
    kind: str
    places: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self.place = next(self.places)
        self.place.mkdir()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        opening = open_for_test(self.kind, self.place)
        self.engine = self.run(self.stack.enter_async_context(opening))
        self.model = Model()
        self.now_ms = NOW
        self.numbers = itertools.count(5)  # `begin` uses the lower numbers
        self.runs: list[tuple[str, str]] = []  # all runs that were started: (id, token)

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()

    def run(self, call: Awaitable[T]) -> T:
        return self.loop.run_until_complete(call)

    # What to do, drawn from what there is -------------------------------------------------------

    def some_jobs(self, data: st.DataObject, *states: State) -> list[str]:
        """Some jobs in these states. Without states: any jobs, and some that do not exist."""
        ids = [id for id, job in self.model.jobs.items() if not states or job.state in states]
        ids += [] if states else ["no-such-job", "999999"]
        return data.draw(_some_of(ids), label="jobs")

    def some_runs(self, data: st.DataObject) -> list[tuple[str, str]]:
        """Some runs as (id, token), including ended and replaced ones."""
        live = self.live_runs()
        ended = [run for run in self.runs if run not in live]
        replaced = [run for run in ended if run[0] in dict(live)]
        return data.draw(_some_of(live + ended[-1:] + replaced[-2:]), label="runs")

    def live_runs(self) -> list[tuple[str, str]]:
        return [run for run in self.runs if self.model.holds(*run)]

    def by_age(self, runs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Oldest first, and only those that are also in the order of their ids and claims:
        where they end in the same millisecond, engines may go by any of these."""
        jobs = self.model.jobs
        chosen: list[tuple[str, str]] = []
        claimed = 0
        for run in sorted(runs, key=lambda run: jobs[run[0]].number if run[0] in jobs else 0):
            its_claim = jobs[run[0]].claimed if run[0] in jobs else claimed
            if its_claim >= claimed and (not chosen or run[0] > chosen[-1][0]):
                chosen.append(run)
                claimed = its_claim
        return chosen

    def new_job(self, data: st.DataObject, dues: set[int]) -> NewJob:
        priority = data.draw(st.sampled_from([0, 0, 1, 2]), label="priority")
        old = sorted(id for id in self.model.jobs if not id.isdecimal())
        fresh = f"j{next(self.numbers):04}"
        own = st.sampled_from([fresh, *old[:2]])
        id = data.draw(own if priority else st.none() | own, label="id")
        if not priority and data.draw(st.integers(0, 3), label="key") == 0:
            return self.keyed_job(data, dues)
        return new_job(
            id,
            delay_ms=self.delay_ms(data, dues),
            priority=priority,
            lifo=data.draw(st.booleans(), label="lifo"),
        )

    def keyed_job(self, data: st.DataObject, dues: set[int]) -> NewJob:
        """A job with one of two deduplication keys."""
        mode = data.draw(st.sampled_from([DeduplicationMode.LATEST, *DeduplicationMode]))
        id = data.draw(st.sampled_from(["send:a", "send:b"]), label="key")
        options = Options()
        window_ms = max_wait_ms = 0
        if mode is DeduplicationMode.THROTTLE:
            window_ms = data.draw(st.sampled_from([30, 3, 300]), label="window")
        elif mode is DeduplicationMode.DEBOUNCE:
            window_ms = self.free_delay_ms(data.draw(st.sampled_from([10, 60])), dues)
            max_wait_ms = self.free_wait_ms(id, window_ms, dues)
        else:
            options = Options(delay_ms=self.delay_ms(data, dues))
        key = Deduplication(mode, id, window_ms, max_wait_ms)
        template = JobTemplate.of("send", options, now_ms=self.now_ms, deduplication=key)
        return NewJob(QUEUE, template, f'{{"n":{next(self.numbers)}}}')

    def free_wait_ms(self, id: str, window_ms: int, dues: set[int]) -> int:
        """A longest wait for a debounced job, at whose end no other job is due."""
        taken = self.model.keys.get(id)
        owner = None if taken is None else self.model.jobs.get(taken.owner)
        first_ms = self.now_ms if owner is None else owner.created_ms
        wait_ms = max(100, window_ms)
        while first_ms + wait_ms in dues:
            wait_ms += 1
        dues.add(first_ms + wait_ms)
        return wait_ms

    def delay_ms(self, data: st.DataObject, dues: set[int]) -> int:
        """A delay after which no other job is due, see `model`."""
        delay_ms = data.draw(delays, label="delay")
        return self.free_delay_ms(delay_ms, dues) if delay_ms else 0

    def free_delay_ms(self, delay_ms: int, dues: set[int]) -> int:
        while self.now_ms + delay_ms in dues:
            delay_ms += 1
        dues.add(self.now_ms + delay_ms)
        return delay_ms

    def dues(self) -> set[int]:
        return {job.due_ms for job in self.model.jobs.values() if job.due_ms is not None}

    def outcome(self, data: st.DataObject, id: str, token: str, keep: Keep, dues: set[int]) -> Any:
        kind = data.draw(st.sampled_from([Completed, Failed, Retry, Postponed]), label="outcome")
        if kind is Completed:
            return Completed(id, token, f'"{token}"', keep)
        if kind is Failed:
            return Failed(id, token, f"no {token}", "trace", keep, data.draw(st.booleans()))
        if kind is Retry:
            return Retry(id, token, f"oops {token}", "trace", self.delay_ms(data, dues))
        return Postponed(id, token, self.delay_ms(data, dues))

    def new_claim(self, data: st.DataObject) -> ClaimRequest:
        lease_ms = data.draw(st.sampled_from([10, 50, 1000]), label="lease")
        return ClaimRequest(
            data.draw(counts, label="count"), f"t{next(self.numbers)}", "worker", lease_ms
        )

    # The verbs ----------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        """Begin with some jobs, so that not most of the steps fill the queue."""
        jobs = [
            *(new_job() for _ in range(4)),
            new_job("j0000", lifo=True),
            new_job("j0001", priority=1),
            new_job("j0002", priority=2),
            new_job("j0003", delay_ms=20),
            new_job("j0004", delay_ms=10, priority=1),
        ]
        self.add_all(jobs)
        self.claim_with(ClaimRequest(4, "t0", "worker", lease_ms=50))

    @rule(data=st.data())
    def a_verb(self, data: st.DataObject) -> None:
        """One rule for all verbs: as separate rules, most would run on an empty queue."""
        getattr(self, data.draw(st.sampled_from(self.verbs()), label="verb"))(data)

    def verbs(self) -> list[str]:
        verbs = ["add"] * 3 + ["claim"] * 3 + ["time_passes"] * 2
        if self.model.jobs:
            verbs += ["requeue", "requeue", "change", "cancel", "remove", "purge", "pause"]
        if self.model.keys:
            verbs += ["add_keyed"] * 2 + ["remove_key"]
        if self.live_runs():
            verbs += ["finish"] * 5 + ["reclaim"] * 2 + ["hand_back", "renew", "tell"]
        return verbs

    def add(self, data: st.DataObject) -> None:
        dues = self.dues()
        count = data.draw(st.integers(1, 3), label="count")
        self.add_all([self.new_job(data, dues) for _ in range(count)])

    def add_keyed(self, data: st.DataObject) -> None:
        self.add_all([self.keyed_job(data, self.dues())])

    def remove_key(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.model.keys)), label="key")
        call = self.engine.remove_deduplication_key(QUEUE, id, now_ms=self.now_ms)
        assert self.run(call) == self.model.remove_key(id, self.now_ms)

    def add_all(self, jobs: list[NewJob]) -> None:
        answers = self.run(self.engine.add(jobs, now_ms=self.now_ms))
        for new, answer in zip(jobs, answers, strict=True):
            assert new.id in {None, answer.id}
            assert self.model.add(new, answer.id, self.now_ms) == (answer.existing is None)

    def claim(self, data: st.DataObject) -> None:
        self.claim_with(self.new_claim(data))

    def claim_with(self, claim: ClaimRequest) -> None:
        batch = self.run(self.engine.claim(QUEUE, claim, now_ms=self.now_ms))
        self.check_claim(claim, batch)

    def check_claim(self, claim: ClaimRequest, batch: Any) -> None:
        ids = [lease.job.id for lease in batch.leases]
        assert (ids, batch.next_due_ms) == self.model.claim(claim, self.now_ms)
        for lease in batch.leases:
            assert lease.token == claim.token
            told, leased = lease.job, self.model.jobs[lease.job.id]
            assert told.state is State.ACTIVE
            for fact in ("attempts_made", "attempts_started", "crashes", "started_ms"):
                assert getattr(told, fact) == getattr(leased, fact)
            self.runs.append((told.id, claim.token))

    def finish(self, data: st.DataObject) -> None:
        """Settle runs, including replaced ones."""
        keep_completed = data.draw(keeps, label="keep completed")
        keep_failed = data.draw(keeps, label="keep failed")
        claims = data.draw(st.booleans(), label="claims")
        dues = self.dues()
        outcomes: list[Outcome] = []
        for id, token in self.by_age(self.some_runs(data)):
            outcome = self.outcome(data, id, token, keep_completed, dues)
            if isinstance(outcome, Failed):
                outcome = self._with_keep(outcome, keep_failed)
            outcomes.append(outcome)
        claim = self.new_claim(data) if claims else None
        # The contract does not say where a job that follows stands among others that become ready.
        outcomes = [each for each in outcomes if self.has_next(each.id)][:1] or outcomes
        batch = self.run(self.engine.settle(QUEUE, outcomes, claim, now_ms=self.now_ms))
        self.find_followers()
        assert sorted(batch.lost) == sorted(self.model.settle(outcomes, self.now_ms))
        if claim is not None:
            self.check_claim(claim, batch)

    def has_next(self, id: str) -> bool:
        """Whether a job has a deduplication key under which a next job is kept."""
        job = self.model.jobs.get(id)
        key = self.model.keys.get(job.key) if job else None
        return key is not None and key.owner == id and key.next_job is not None

    def find_followers(self) -> None:
        """Tell the model which ids the engine has assigned to next jobs."""
        if any(key.next_job for key in self.model.keys.values()):
            found, *_ = self.run(self.read())
            ids = {record.id for records in found.values() for record in records}
            self.model.follower_ids = sorted(ids - self.model.jobs.keys(), key=int)

    def hand_back(self, data: st.DataObject) -> None:
        """Release jobs in the order of their claims, as a worker that stops does."""
        runs = data.draw(_some_of(self.live_runs()), label="runs")
        runs.sort(key=lambda run: self.model.jobs[run[0]].claimed)
        outcomes = [Released(id, token) for id, token in runs]
        batch = self.run(self.engine.settle(QUEUE, outcomes, None, now_ms=self.now_ms))
        assert batch.lost == self.model.settle(outcomes, self.now_ms) == []

    def renew(self, data: st.DataObject) -> None:
        lease_ms = data.draw(st.sampled_from([10, 50]), label="lease")
        leases = dict(self.some_runs(data))
        lost = self.engine.renew(QUEUE, leases, lease_ms=lease_ms, now_ms=self.now_ms)
        assert lost == self.model.renew(leases, self.now_ms + lease_ms)

    def reclaim(self, data: st.DataObject) -> None:
        crash_limit = data.draw(st.integers(1, 3), label="crash limit")
        call = self.engine.reclaim(QUEUE, crash_limit=crash_limit, now_ms=self.now_ms)
        ids = self.run(call)
        started = [self.model.jobs[id].started_ms or 0 for id in ids]
        assert started == sorted(started)
        assert len(ids) == len(set(ids))
        assert set(ids) == self.model.reclaim(ids, crash_limit, self.now_ms)

    def tell(self, data: st.DataObject) -> None:
        """Add progress and log lines."""
        keep = data.draw(st.integers(1, 3), label="keep")
        ids = self.some_jobs(data)
        notes: list[RunUpdate] = [Progress(id, str(self.now_ms)) for id in ids]
        notes += [LogLine(id, f"{n} at {self.now_ms}", keep) for id in ids for n in range(2)]
        found = self.run(self.engine.update(QUEUE, notes, now_ms=self.now_ms))
        assert found == self.model.update(notes, self.now_ms)
        for id, record in zip(ids, self.run(self.engine.get(QUEUE, ids)), strict=True):
            told = self.model.jobs.get(id)
            assert (record and record.progress) == (told and told.progress)

    def change(self, data: st.DataObject) -> None:
        dues = self.dues()
        changes = [self.new_change(data, id, dues) for id in self.some_jobs(data)]
        found = self.run(self.engine.update(QUEUE, changes, now_ms=self.now_ms))
        assert found == self.model.update(changes, self.now_ms)

    def new_change(self, data: st.DataObject, id: str, dues: set[int]) -> JobChange:
        what = data.draw(st.sampled_from(["data", "priority", "delay", "all"]), label="what")
        # Jobs in front of their priority are ordered by ids, which have to be in the order of age.
        priority = 0 if id.isdecimal() else data.draw(st.integers(0, 2), label="priority")
        delay_ms = self.free_delay_ms(data.draw(delays, label="delay"), dues)
        return JobChange(
            id,
            data=f'{{"at":{self.now_ms}}}' if what in {"data", "all"} else None,
            priority=priority if what in {"priority", "all"} else None,
            delay_ms=delay_ms if what in {"delay", "all"} else None,
        )

    def requeue(self, data: st.DataObject) -> None:
        sources = data.draw(
            st.sets(st.sampled_from([State.DELAYED, State.COMPLETED, State.FAILED]))
        )
        ids = self.some_jobs(data, *State)
        answers = self.run(self.engine.requeue(QUEUE, ids, sources, now_ms=self.now_ms))
        assert answers == [self.model.requeue(id, sources) for id in ids]

    def cancel(self, data: st.DataObject) -> None:
        ids = sorted(self.some_jobs(data))  # as in `by_age`
        answers = self.run(self.engine.cancel(QUEUE, ids, now_ms=self.now_ms))
        self.find_followers()
        assert answers == [self.model.cancel(id, self.now_ms) for id in ids]

    def remove(self, data: st.DataObject) -> None:
        ids = self.some_jobs(data)
        answers = self.run(self.engine.remove(QUEUE, ids, now_ms=self.now_ms))
        assert answers == [self.model.remove(id) for id in ids]

    def purge(self, data: st.DataObject) -> None:
        state = data.draw(st.sampled_from(State), label="state")
        ago_ms = data.draw(st.none() | st.integers(0, 50), label="ago")
        limit = data.draw(st.none() | counts, label="limit")
        before_ms = None if ago_ms is None else self.now_ms - ago_ms
        call = self.engine.purge(
            QUEUE, [state], before_ms=before_ms, limit=limit, now_ms=self.now_ms
        )
        purged = self.run(call)
        self.model.purge(purged, state, before_ms, limit)

    def pause(self, _: st.DataObject) -> None:
        """Pause or resume."""
        change = self.engine.resume if self.model.paused else self.engine.pause
        self.run(change(QUEUE, now_ms=self.now_ms))
        self.model.paused = not self.model.paused

    def time_passes(self, data: st.DataObject) -> None:
        self.now_ms += data.draw(st.sampled_from([20, 5, 100]), label="ms")

    # What holds after each of them --------------------------------------------------------------

    @invariant()
    def engine_and_model_agree(self) -> None:
        self.now_ms += 1  # two verbs never share a millisecond, see `model`
        found, counted, paused, logs = self.run(self.read())
        assert [record.id for records in found.values() for record in records] == [
            job.id for state in State for job in self.in_state(state, found[state])
        ]
        for state, records in found.items():
            assert {record.state for record in records} <= {state}
            for record in records:
                self.compare(record, self.model.jobs[record.id])
        assert counted == {state: len(records) for state, records in found.items()}
        assert paused == self.model.paused
        assert logs == {id: job.logs for id, job in self.model.jobs.items()}
        assert orphans(self.engine, self.place) == []
        taken = self.run(taken_keys(self.engine, QUEUE, now_ms=self.now_ms))
        next_jobs = {id for id, key in self.model.keys.items() if key.next_job}
        assert taken == (self.model.taken_keys(self.now_ms), next_jobs)

    async def read(self) -> tuple[dict[State, list[JobRecord]], Any, bool, dict[str, list[str]]]:
        """Read everything in one step."""
        engine, ids = self.engine, list(self.model.jobs)
        pages = asyncio.gather(
            *(engine.get_page(QUEUE, s, offset=0, limit=1000, newest_first=False) for s in State)
        )
        logs = asyncio.gather(*(engine.logs(QUEUE, id) for id in ids))
        found = await asyncio.gather(pages, engine.count(QUEUE), engine.is_paused(QUEUE), logs)
        return (
            dict(zip(State, found[0], strict=True)),
            found[1],
            found[2],
            dict(zip(ids, found[3], strict=True)),
        )

    def in_state(self, state: State, records: list[JobRecord]) -> list[Job]:
        jobs = self.model.listed(state)
        if state is not State.ACTIVE:
            return jobs
        # Jobs of one claim start in the same millisecond, so their order is not compared.
        order = {record.id: n for n, record in enumerate(records)}
        return sorted(jobs, key=lambda job: (job.started_ms, order.get(job.id, -1)))

    def compare(self, record: JobRecord, job: Job) -> None:
        assert {fact: getattr(record, fact) for fact in FACTS} == {
            fact: getattr(job, fact) for fact in FACTS
        }
        if job.state not in FINISHED:
            assert record.cancel_requested == job.cancel_requested
            if not job.cancel_requested:
                assert record.deferred_failure == job.deferred_failure

    @staticmethod
    def _with_keep(failed: Failed, keep: Keep) -> Failed:
        return Failed(failed.id, failed.token, failed.error, failed.traceback, keep, failed.counts)


class KeysMachine(JobsMachine):
    """Nearly all jobs have one of two deduplication keys."""

    @initialize()
    def begin(self) -> None:
        for step in range(2):
            self.add_all([self.latest_job("send:a"), self.latest_job("send:b")])
            if step == 0:
                self.claim_with(ClaimRequest(1, "t0", "worker", lease_ms=50))

    def latest_job(self, id: str) -> NewJob:
        key = Deduplication(DeduplicationMode.LATEST, id)
        template = JobTemplate.of("send", Options(), now_ms=self.now_ms, deduplication=key)
        return NewJob(QUEUE, template, f'{{"n":{next(self.numbers)}}}')

    def verbs(self) -> list[str]:
        verbs = ["add_keyed"] * 6 + ["claim"] * 4 + ["time_passes"] * 2 + ["add", "requeue"]
        if self.live_runs():
            verbs += ["finish"] * 6 + ["hand_back", "reclaim"]
        if self.model.jobs:
            verbs += ["cancel", "remove", "purge"]
        return verbs + ["remove_key"] * bool(self.model.keys)


def _some_of(items: list[T]) -> st.SearchStrategy[list[T]]:
    if not items:
        return st.just([])
    return st.lists(st.sampled_from(items), unique=True, min_size=1, max_size=4)


@pytest.mark.hypothesis
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("machine", [JobsMachine, KeysMachine])
def test_engine_obeys_the_model(
    machine: type[JobsMachine], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shrinking a failing run ends when pytest's time-out for a test does, not after minutes.
    limit = "hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS"
    monkeypatch.setattr(limit, 60, raising=False)

    class Machine(machine):  # type: ignore[valid-type, misc]  # a class of this test
        pass

    Machine.kind = kind
    Machine.places = (tmp_path / str(n) for n in itertools.count())
    walk = settings(
        effort(EXAMPLES[kind], steps=40),
        report_multiple_bugs=False,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )
    run_state_machine_as_test(Machine, settings=walk)
