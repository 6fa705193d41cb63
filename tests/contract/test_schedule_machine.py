"""Random operations on a schedule, side by side with a model of a few lines.

The clock goes forward and back, workers die, runs fail and last long. After each operation the
stored schedule is that of the model, and no slot has had two runs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hasten.jobs._epoch import to_datetime
from hasten.jobs._options import DEFAULT_OPTIONS
from hasten.jobs._record import ClaimRequest, Completed, Failed, Outcome, Retry
from hasten.jobs._schedule_ids import job_id_of
from hasten.jobs._schedule_record import Missed, NewSchedule, Overlap, SchedulePolicy, ScheduleRule
from hasten.jobs._schedule_wire import slot_of
from tests.contract.engines import KINDS, open_for_test
from tests.contract.steps import LEASE_MS, QUEUE
from tests.effort import effort

T = TypeVar("T")

EXAMPLES: Final = {"sqlite-memory": 40, "sqlite-file": 10, "redis": 40, "redis-cluster": 4}

GRID: Final = 10_000
START: Final = 100 * GRID

RULES: Final = (
    ScheduleRule(every_ms=GRID, offset_ms=0),
    ScheduleRule(cron="*/10 * * * * *", tz="UTC"),
)

# All that are allowed, without what depends on when a held job is examined again.
POLICIES: Final = tuple(
    SchedulePolicy(missed, overlap)
    for missed, overlap in itertools.product(get_args(Missed), get_args(Overlap))
    if (missed, overlap) not in {("all", "skip"), ("skip", "queue")}
)

moves = st.sampled_from(
    [GRID, 0, 1, 5_000, GRID, 2 * GRID, 3 * GRID + 1, 9 * GRID, -2 * GRID, -GRID - 1]
)
rarely = st.sampled_from([False, False, False, True])


@dataclass
class Model:
    """A schedule, as the documentation describes it."""

    policy: SchedulePolicy
    limit: int | None
    data: str
    count: int = 0
    slot_ms: int | None = None  # of the job that has not started
    is_ready: bool = False  # this job waits no more for its time
    is_held: bool = False
    is_paused: bool = False
    previous_ms: int | None = None
    dropped: int = 0
    skipped: int = 0
    runs: list[str] = field(default_factory=list)


class ScheduleMachine(RuleBasedStateMachine):
    kind: str
    places: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self.place = next(self.places)
        self.place.mkdir()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.engine = self.run(self.stack.enter_async_context(open_for_test(self.kind, self.place)))
        self.model: Model | None = None
        self.now_ms = START
        self.tokens = (f"t{number}" for number in itertools.count())
        self.unfinished: dict[str, str] = {}  # runs that have started: id → token, "" if none
        self.had_runs: set[str] = set()  # the jobs that have started
        self.ready: list[str] = []  # jobs that are ready and belong to no slot to come

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()

    def run(self, call: Awaitable[T]) -> T:
        return self.loop.run_until_complete(call)

    @initialize(of=st.sampled_from(RULES), policy=st.sampled_from(POLICIES))
    def begin(self, of: ScheduleRule, policy: SchedulePolicy) -> None:
        self.rule_of_schedule = of
        self.upsert(policy, None, "{}")

    # Operations ---------------------------------------------------------------------------------

    @rule(
        policy=st.sampled_from(POLICIES),
        limit=st.sampled_from([None, None, 3]),
        data=st.sampled_from(["{}", '{"a":1}']),
    )
    def upsert(self, policy: SchedulePolicy, limit: int | None, data: str) -> None:
        if policy.missed == "all":
            limit = None
        of = ScheduleRule(
            self.rule_of_schedule.every_ms, self.rule_of_schedule.cron, self.rule_of_schedule.tz,
            self.rule_of_schedule.offset_ms, limit=limit,
        )  # fmt: skip
        new = NewSchedule("tick", of, policy, "send", data, DEFAULT_OPTIONS)
        self.run(self.engine.upsert_schedule(QUEUE, new, now_ms=self.now_ms))
        model = self.model
        if model is None:
            model = self.model = Model(policy, limit, data)
            self.add(model, self.now_ms)
            return
        if (model.policy, model.limit, model.data) == (policy, limit, data):
            return
        had_ended = model.slot_ms is None
        model.policy, model.limit, model.data = policy, limit, data
        if model.is_paused:
            return
        if had_ended:
            after_ms = max(self.now_ms, model.previous_ms or 0)
        else:
            assert model.slot_ms is not None
            model.count -= 1
            after_ms = model.slot_ms - 1
        self.add(model, after_ms)

    @rule()
    def upsert_again(self) -> None:
        if self.model is not None:
            self.upsert(self.model.policy, self.model.limit, self.model.data)

    @precondition(lambda self: self.model is not None)
    @rule(really=rarely)
    def pause(self, really: bool) -> None:
        model = self.model
        assert model is not None
        if not really:
            return
        self.run(self.engine.pause_schedule(QUEUE, "tick", now_ms=self.now_ms))
        if not model.is_paused:
            model.is_paused = True
            model.count -= model.slot_ms is not None
            model.slot_ms, model.is_held = None, False

    @precondition(lambda self: self.model is not None and self.model.is_paused)
    @rule()
    def resume(self) -> None:
        model = self.model
        assert model is not None
        self.run(self.engine.resume_schedule(QUEUE, "tick", now_ms=self.now_ms))
        if model.is_paused:
            model.is_paused = False
            self.add(model, max(self.now_ms, model.previous_ms or 0))

    @precondition(lambda self: self.model is not None)
    @rule(really=rarely)
    def remove(self, really: bool) -> None:
        assert self.model is not None
        if not really:
            return
        self.run(self.engine.remove_schedules(QUEUE, ["tick"], now_ms=self.now_ms))
        if self.model.slot_ms is not None and self.model.is_ready:
            self.ready.append(job_id_of("tick", self.model.slot_ms))
        self.model = None

    @precondition(lambda self: self.model is not None and len(self.unfinished) < 5)
    @rule()
    def run_now(self) -> None:
        assert self.model is not None
        id = self.run(self.engine.run_schedule(QUEUE, "tick", now_ms=self.now_ms))
        assert id is not None
        self.ready.append(id)
        self.unfinished[id] = ""
        self.model.runs.append(id)

    @rule(ms=moves)
    def set_clock_and_claim(self, ms: int) -> None:
        self.now_ms += ms
        self.claim()

    def claim(self) -> None:
        """Claim all that is ready, as several workers do one after the other."""
        token = next(self.tokens)
        claimed: dict[str, Any] = {}
        while True:
            request = ClaimRequest(3, token, "worker", LEASE_MS)
            batch = self.run(self.engine.claim(QUEUE, request, now_ms=self.now_ms))
            if not batch.leases:
                break
            for lease in batch.leases:
                assert lease.job.id not in claimed
                assert lease.job.id in self.ready or lease.job.id not in self.had_runs
                claimed[lease.job.id] = slot_of(lease.job)
        expected = self.claim_in_model()
        assert claimed.keys() == expected.keys()
        for id, facts in expected.items():
            if facts is not None:
                slot = claimed[id]
                previous_ms, missed = facts
                previous = None if previous_ms is None else to_datetime(previous_ms)
                assert (slot.previous, slot.missed) == (previous, missed), id
        self.unfinished |= dict.fromkeys(claimed, token)
        self.had_runs |= claimed.keys()

    @precondition(lambda self: any(self.unfinished.values()))
    @rule(data=st.data(), how=st.sampled_from(["complete", "complete", "fail", "retry", "again"]))
    def end_run(self, data: st.DataObject, how: str) -> None:
        id = data.draw(st.sampled_from([id for id, token in self.unfinished.items() if token]))
        token = self.unfinished[id]
        outcomes: dict[str, Outcome] = {
            "complete": Completed(id, token, "null"),
            "fail": Failed(id, token, "no"),
            "retry": Retry(id, token, "no", "", 10**9),
            "again": Retry(id, token, "no", "", 0),
        }
        batch = self.run(self.engine.settle(QUEUE, [outcomes[how]], None, now_ms=self.now_ms))
        assert batch.lost == []
        self.unfinished[id] = ""
        if how in {"complete", "fail"}:
            del self.unfinished[id]
            self.release()
        elif how == "again":
            self.ready.append(id)

    @precondition(lambda self: any(not token for token in self.unfinished.values()))
    @rule(data=st.data())
    def cancel_run(self, data: st.DataObject) -> None:
        """A run that waits for another attempt."""
        id = data.draw(st.sampled_from([id for id, token in self.unfinished.items() if not token]))
        self.run(self.engine.cancel(QUEUE, [id], now_ms=self.now_ms))
        del self.unfinished[id]
        if id in self.ready:
            self.ready.remove(id)
        self.release()

    @precondition(lambda self: any(self.unfinished.values()))
    @rule()
    def workers_die(self) -> None:
        self.now_ms += LEASE_MS
        ids = self.run(self.engine.reclaim(QUEUE, crash_limit=10**6, now_ms=self.now_ms))
        for id in ids:
            self.unfinished[id] = ""
            self.ready.append(id)

    # The model ----------------------------------------------------------------------------------

    def add(self, model: Model, after_ms: int) -> None:
        """Add the job for the first slot after a time that has had no run."""
        model.slot_ms, model.is_held, model.is_ready = None, False, False
        if model.limit is not None and model.count >= model.limit:
            return
        slot_ms = (after_ms // GRID + 1) * GRID
        while (id := job_id_of("tick", slot_ms)) in self.had_runs or id in self.ready:
            slot_ms += GRID
        model.slot_ms, model.is_ready = slot_ms, slot_ms <= self.now_ms
        model.count += 1

    def claim_in_model(self) -> dict[str, tuple[int | None, int] | None]:
        """Return the jobs that start, those of slots with the previous slot and missed ones."""
        started: dict[str, tuple[int | None, int] | None] = dict.fromkeys(self.ready)
        # They have started before those that the schedule adds, and are unfinished.
        self.unfinished |= {id: "" for id in self.ready if id not in self.unfinished}
        self.ready.clear()
        model = self.model
        while model is not None and model.slot_ms is not None and not model.is_held:
            if not model.is_ready and model.slot_ms > self.now_ms:
                break
            slot_ms = model.slot_ms
            overlaps = any(id in self.unfinished for id in model.runs)
            is_late = slot_ms + GRID <= self.now_ms
            is_dropped = is_late and model.policy.missed == "skip"
            if overlaps and model.policy.overlap == "queue":
                model.is_held, model.is_ready = True, False
                break
            is_dropped |= overlaps and model.policy.overlap == "skip"
            after_ms = slot_ms
            passed = 0
            if is_late and model.policy.missed != "all":
                after_ms = self.now_ms
                passed = self.now_ms // GRID - slot_ms // GRID
            model.dropped += passed + is_dropped
            if is_dropped:
                model.count -= 1
                model.skipped += passed + 1
            else:
                id = job_id_of("tick", slot_ms)
                started[id] = model.previous_ms, model.skipped + passed
                model.previous_ms, model.skipped = slot_ms, 0
                model.runs.append(id)
                self.unfinished[id] = ""
                self.had_runs.add(id)
            self.add(model, after_ms)
        return started

    def release(self) -> None:
        """Make the held job ready if nothing keeps it any more."""
        model = self.model
        if model is None or not model.is_held:
            return
        if not any(id in self.unfinished for id in model.runs):
            model.is_held, model.is_ready = False, True

    @invariant()
    def agrees(self) -> None:
        (record,) = self.run(self.engine.get_schedules(QUEUE, ["tick"]))
        model = self.model
        if model is None or record is None:
            assert record is None
            assert model is None
            return
        assert (record.policy, record.rule.limit, record.data) == (
            model.policy, model.limit, model.data,
        )  # fmt: skip
        assert record.is_pending == (model.slot_ms is not None)
        if model.slot_ms is not None:
            assert record.slot_ms == model.slot_ms
        assert record.is_paused == model.is_paused
        assert record.has_ended == (model.slot_ms is None and not model.is_paused)
        assert not record.is_broken
        assert (record.count, record.previous_ms) == (model.count, model.previous_ms)
        assert (record.dropped, record.is_held) == (model.dropped, model.is_held)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_is_as_in_the_model(kind: str, tmp_path: Path) -> None:
    class Machine(ScheduleMachine):
        pass

    Machine.kind = kind
    Machine.places = (tmp_path / str(number) for number in itertools.count())
    run_state_machine_as_test(Machine, settings=effort(EXAMPLES[kind], steps=40))
