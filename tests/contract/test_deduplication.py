"""Deduplication keys: who owns them, what happens to duplicates, and when a key is free again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from hasten.jobs._deduplication import Deduplication, DeduplicationMode
from hasten.jobs._engine import Engine
from hasten.jobs._engines.redis import RedisEngine, script_requests
from hasten.jobs._engines.redis.decoding import decode_add_reply
from hasten.jobs._options import KEEP_NONE, Keep, Options
from hasten.jobs._record import (
    AddResult,
    Completed,
    Event,
    Failed,
    JobTemplate,
    NewJob,
    Postponed,
    Released,
    Retry,
)
from hasten.jobs._states import FINISHED, State
from tests.contract.engines import DURABLE, open_for_test
from tests.contract.steps import (
    NOW,
    QUEUE,
    claim,
    counts,
    cursor,
    exists,
    happened,
    ids_in,
    job,
    new_job,
    settled,
    take,
    waiting,
)

MODES: Final = tuple(DeduplicationMode)
UNIQUE, THROTTLE, DEBOUNCE, LATEST = MODES
WINDOW_MS: Final = 5_000
MAX_WAIT_MS: Final = 12_000


def keyed(
    mode: DeduplicationMode,
    key: str = "ada",
    *,
    data: str = "{}",
    task: str = "send",
    queue: str = QUEUE,
    window_ms: int = WINDOW_MS,
    max_wait_ms: int = MAX_WAIT_MS,
    **options: Any,
) -> NewJob:
    """Return a new job with a deduplication key, as the producer makes it."""
    if mode in {UNIQUE, LATEST}:
        window_ms = 0
    if mode is not DEBOUNCE:
        max_wait_ms = 0
    deduplication = Deduplication(mode, f"{task}:{key}", window_ms, max_wait_ms)
    template = JobTemplate.of(task, Options(**options), now_ms=NOW, deduplication=deduplication)
    return NewJob(queue, template, data)


async def enqueue(
    engine: Engine, mode: DeduplicationMode, *, now_ms: int = NOW, **options: Any
) -> AddResult:
    (added,) = await engine.add([keyed(mode, **options)], now_ms=now_ms)
    return added


def is_duplicate_of(added: AddResult, owner: AddResult) -> bool:
    return added.existing is not None and added.id == owner.id == added.existing.id


async def finish(
    engine: Engine, id: str, outcome: str = "completed", *, now_ms: int = NOW, token: str = "t1"
) -> None:
    """End a job that was claimed, or is claimed now."""
    if (await job(engine, id)).state is not State.ACTIVE:
        assert await take(engine, 1, token, now_ms=now_ms) == [id]
    match outcome:
        case "completed":
            await settled(engine, Completed(id, token, "7"), now_ms=now_ms)
        case "failed":
            await settled(engine, Failed(id, token, "no"), now_ms=now_ms)
        case "not kept":
            await settled(engine, Completed(id, token, "7", KEEP_NONE), now_ms=now_ms)
        case "failed, not kept":
            await settled(engine, Failed(id, token, "no", keep=KEEP_NONE), now_ms=now_ms)
        case _:
            raise LookupError(outcome)


def is_about_keys(event: Event) -> bool:
    return event.kind in {"deduplicated", "debounced"}


class TestKeys:
    @pytest.mark.parametrize("mode", MODES)
    async def test_keep_out_a_second_job(self, engine: Engine, mode: DeduplicationMode) -> None:
        first = await enqueue(engine, mode)
        second = await enqueue(engine, mode)
        assert first.existing is None
        assert is_duplicate_of(second, first)
        assert sum((await counts(engine)).values()) == 1

    @pytest.mark.parametrize("mode", MODES)
    async def test_belong_to_a_task_and_a_queue(
        self, engine: Engine, mode: DeduplicationMode
    ) -> None:
        await enqueue(engine, mode)
        assert (await enqueue(engine, mode, key="bob")).existing is None
        assert (await enqueue(engine, mode, task="receive")).existing is None
        assert (await enqueue(engine, mode, queue="other")).existing is None

    @pytest.mark.parametrize("mode", MODES)
    async def test_are_taken_within_one_call(self, engine: Engine, mode: DeduplicationMode) -> None:
        """The jobs of concurrent calls are added together."""
        jobs = [keyed(mode, key, data=f"[{n}]") for n, key in enumerate(["a", "b", "a", "a", "b"])]
        added = await engine.add(jobs, now_ms=NOW)
        assert [each.existing is None for each in added] == [True, True, False, False, False]
        assert [each.id for each in added] == [added[n].id for n in (0, 1, 0, 0, 1)]
        is_replaced = mode in {DEBOUNCE, LATEST}
        assert (await job(engine, added[0].id)).data == ("[3]" if is_replaced else "[0]")
        assert (await job(engine, added[1].id)).data == ("[4]" if is_replaced else "[1]")

    @pytest.mark.parametrize("mode", MODES)
    async def test_may_have_any_characters(self, engine: Engine, mode: DeduplicationMode) -> None:
        key = "a:b {c}*?[d] \"'\\ é 日本 🎈 \u200d" + "x" * 480
        first = await enqueue(engine, mode, key=key)
        assert is_duplicate_of(await enqueue(engine, mode, key=key), first)
        assert (await enqueue(engine, mode, key=key[:-1])).existing is None

    @pytest.mark.parametrize("mode", MODES)
    async def test_do_not_concern_jobs_without_one(
        self, engine: Engine, mode: DeduplicationMode
    ) -> None:
        await enqueue(engine, mode)
        plain = NewJob(QUEUE, JobTemplate.of("send", Options(), now_ms=NOW), "{}")
        added = await engine.add([plain, keyed(mode), plain], now_ms=NOW)
        assert [each.existing is None for each in added] == [True, False, True]

    async def test_of_many_jobs_are_taken_in_one_call(self, engine: Engine) -> None:
        jobs = [keyed(UNIQUE, f"{n % 500}") for n in range(1000)]
        added = await engine.add(jobs, now_ms=NOW)
        assert [each.existing is None for each in added] == [True] * 500 + [False] * 500
        assert [each.id for each in added[500:]] == [each.id for each in added[:500]]

    async def test_of_concurrent_calls_have_one_owner(self, engine: Engine) -> None:
        calls = [enqueue(engine, UNIQUE, key=f"{n % 3}") for n in range(60)]
        added = await asyncio.gather(*calls)
        assert [each.existing for each in added].count(None) == 3
        assert len({each.id for each in added}) == 3

    async def test_of_a_large_owner_are_answered_once(self, engine: Engine) -> None:
        """The reply for a thousand duplicates has the data of the owner once, not 1,000 times."""
        data = f'"{"x" * 200_000}"'
        await enqueue(engine, UNIQUE, data=data)
        added = await engine.add([keyed(UNIQUE) for _ in range(1000)], now_ms=NOW)
        assert {each.existing.data for each in added if each.existing} == {data}

    async def test_are_stored(self, kind: str, tmp_path: Path) -> None:
        if kind not in DURABLE:
            pytest.skip("the store is gone with its engine")
        async with open_for_test(kind, tmp_path) as engine:
            first = await enqueue(engine, UNIQUE)
        async with open_for_test(kind, tmp_path) as engine:
            assert is_duplicate_of(await enqueue(engine, UNIQUE), first)

    async def test_are_shared_by_processes(self, kind: str, tmp_path: Path) -> None:
        """Two engines stand for two processes: both add, one runs."""
        if kind not in DURABLE:
            pytest.skip("the store belongs to one engine")
        async with open_for_test(kind, tmp_path) as one, open_for_test(kind, tmp_path) as other:
            calls = [
                enqueue(each, LATEST, data=f"[{n}]") for n in range(30) for each in (one, other)
            ]
            added = await asyncio.gather(*calls)
            assert [each.existing for each in added].count(None) == 1
            (owner,) = await ids_in(one, State.WAITING)
            assert await take(other) == [owner]
            await enqueue(one, LATEST, data="[99]")
            await finish(other, owner)
            (follower,) = await ids_in(one, State.WAITING)
            assert (await job(one, follower)).data == "[99]"

    async def test_come_with_the_owner_as_it_is_now(self, engine: Engine) -> None:
        first = await enqueue(engine, UNIQUE, data="[1]", priority=3)
        await take(engine)
        second = await enqueue(engine, UNIQUE, data="[2]")
        assert second.existing is not None
        assert (second.existing.state, second.existing.data) == (State.ACTIVE, "[1]")
        assert second.existing == await job(engine, first.id)


class TestUnique:
    @pytest.mark.parametrize("outcome", ["completed", "failed", "not kept", "failed, not kept"])
    async def test_is_free_when_its_owner_has_ended(self, engine: Engine, outcome: str) -> None:
        first = await enqueue(engine, UNIQUE)
        await finish(engine, first.id, outcome)
        second = await enqueue(engine, UNIQUE)
        assert second.existing is None
        assert second.id != first.id

    @pytest.mark.parametrize(
        "outcome",
        [
            lambda id: Retry(id, "t1", "no", "trace", 0),
            lambda id: Retry(id, "t1", "no", "trace", 1000),
            lambda id: Postponed(id, "t1", 1000),
            lambda id: Released(id, "t1"),
        ],
        ids=["retry", "backoff", "postponed", "released"],
    )
    async def test_stays_taken_between_runs(
        self, engine: Engine, outcome: Callable[[str], Any]
    ) -> None:
        first = await enqueue(engine, UNIQUE)
        await take(engine)
        await settled(engine, outcome(first.id))
        assert is_duplicate_of(await enqueue(engine, UNIQUE), first)

    async def test_stays_taken_when_its_worker_dies(self, engine: Engine) -> None:
        first = await enqueue(engine, UNIQUE)
        await take(engine, lease_ms=10)
        assert await engine.reclaim(QUEUE, crash_limit=3, now_ms=NOW + 10) == [first.id]
        assert is_duplicate_of(await enqueue(engine, UNIQUE, now_ms=NOW + 10), first)

    async def test_is_not_freed_by_a_lost_lease(self, engine: Engine) -> None:
        first = await enqueue(engine, UNIQUE)
        await take(engine)
        batch = await engine.settle(QUEUE, [Completed(first.id, "other", "7")], None, now_ms=NOW)
        assert batch.lost == [first.id]
        assert is_duplicate_of(await enqueue(engine, UNIQUE), first)

    async def test_keeps_data_and_delay_of_the_owner(self, engine: Engine) -> None:
        first = await enqueue(engine, UNIQUE, data="[1]", delay_ms=100)
        await enqueue(engine, UNIQUE, data="[2]", now_ms=NOW + 50)
        record = await job(engine, first.id)
        assert (record.data, record.due_ms) == ("[1]", NOW + 100)

    async def test_of_another_owner_is_left_alone(self, engine: Engine) -> None:
        """The key was removed and taken again before its first owner ended."""
        first = await enqueue(engine, UNIQUE)
        await take(engine)
        assert await remove_key(engine)
        second = await enqueue(engine, UNIQUE)
        await finish(engine, first.id)
        assert is_duplicate_of(await enqueue(engine, UNIQUE), second)

    async def test_is_not_taken_again_by_a_retry(self, engine: Engine) -> None:
        first = await enqueue(engine, UNIQUE)
        await finish(engine, first.id)
        assert await engine.requeue(QUEUE, [first.id], FINISHED, now_ms=NOW) == [State.COMPLETED]
        second = await enqueue(engine, UNIQUE)
        assert second.existing is None
        await finish(engine, first.id)  # does not free the key of the second
        assert is_duplicate_of(await enqueue(engine, UNIQUE), second)


class TestThrottle:
    @pytest.mark.parametrize("outcome", ["completed", "failed", "not kept", "failed, not kept"])
    async def test_is_taken_for_its_time(self, engine: Engine, outcome: str) -> None:
        """The end of the owner, and even its deletion, makes no difference."""
        first = await enqueue(engine, THROTTLE)
        await finish(engine, first.id, outcome)
        second = await enqueue(engine, THROTTLE, now_ms=NOW + WINDOW_MS - 1)
        assert is_duplicate_of(second, first)
        third = await enqueue(engine, THROTTLE, now_ms=NOW + WINDOW_MS)
        assert third.existing is None

    async def test_ends_while_its_owner_waits(self, engine: Engine) -> None:
        first = await enqueue(engine, THROTTLE)
        second = await enqueue(engine, THROTTLE, now_ms=NOW + WINDOW_MS)
        assert second.existing is None
        await finish(engine, first.id, now_ms=NOW + WINDOW_MS)
        third = await enqueue(engine, THROTTLE, now_ms=NOW + WINDOW_MS + 1)
        assert is_duplicate_of(third, second)

    async def test_is_not_prolonged_by_duplicates(self, engine: Engine) -> None:
        await enqueue(engine, THROTTLE)
        await enqueue(engine, THROTTLE, now_ms=NOW + WINDOW_MS - 1)
        assert (await enqueue(engine, THROTTLE, now_ms=NOW + WINDOW_MS)).existing is None

    async def test_ends_when_the_clock_is_set_back(self, kind: str, engine: Engine) -> None:
        """Otherwise jobs would be dropped until the clock has caught up."""
        if kind not in {"sqlite-memory", "sqlite-file"}:
            pytest.skip("the time counts by the clock of the server")
        await enqueue(engine, THROTTLE)
        second = await enqueue(engine, THROTTLE, now_ms=NOW - WINDOW_MS)
        assert second.existing is None

    async def test_names_an_owner_that_was_deleted(self, engine: Engine) -> None:
        first = await enqueue(engine, THROTTLE, data="[1]")
        await finish(engine, first.id, "not kept")
        second = await enqueue(engine, THROTTLE, data="[2]")
        assert second.existing is not None
        assert (second.existing.id, second.existing.name) == (first.id, "send")
        assert (second.existing.state, second.existing.data) == (State.COMPLETED, "[2]")

    async def test_outlives_retention(self, engine: Engine) -> None:
        first = await enqueue(engine, THROTTLE)
        await finish(engine, first.id)
        await engine.add([keyed(UNIQUE, "other")], now_ms=NOW)
        (other,) = await take(engine, 1, "t2")
        await settled(engine, Completed(other, "t2", "7", Keep(count=1)))
        assert not await exists(engine, first.id)
        assert is_duplicate_of(await enqueue(engine, THROTTLE), first)


class TestDebounce:
    async def test_delays_the_job(self, engine: Engine) -> None:
        first = await enqueue(engine, DEBOUNCE)
        record = await job(engine, first.id)
        assert (record.state, record.due_ms) == (State.DELAYED, NOW + WINDOW_MS)
        assert record.delay_ms == WINDOW_MS

    async def test_starts_the_delay_again_with_the_newest_data(self, engine: Engine) -> None:
        first = await enqueue(engine, DEBOUNCE, data="[1]")
        second = await enqueue(engine, DEBOUNCE, data="[2]", now_ms=NOW + 3000)
        record = await job(engine, first.id)
        assert (record.state, record.data) == (State.DELAYED, "[2]")
        assert (record.due_ms, record.delay_ms) == (NOW + 3000 + WINDOW_MS, WINDOW_MS)
        assert record.created_ms == NOW
        assert second.existing == record

    async def test_waits_for_the_longest_wait_at_most(self, engine: Engine) -> None:
        first = await enqueue(engine, DEBOUNCE)
        for after_ms in range(4000, MAX_WAIT_MS, 4000):
            await enqueue(engine, DEBOUNCE, data=f"[{after_ms}]", now_ms=NOW + after_ms)
        record = await job(engine, first.id)
        assert (record.due_ms, record.data) == (NOW + MAX_WAIT_MS, "[8000]")
        assert record.delay_ms == 4000
        assert await take(engine, now_ms=NOW + MAX_WAIT_MS) == [first.id]

    async def test_replaces_data_of_an_overdue_job(self, engine: Engine) -> None:
        """No worker has claimed it: it stays due, however often it is enqueued."""
        first = await enqueue(engine, DEBOUNCE)
        late_ms = NOW + MAX_WAIT_MS + 1
        await enqueue(engine, DEBOUNCE, data="[2]", now_ms=late_ms)
        record = await job(engine, first.id)
        assert (record.data, record.due_ms) == ("[2]", NOW + WINDOW_MS)
        assert await take(engine, now_ms=late_ms) == [first.id]

    async def test_does_not_delay_a_job_that_is_ready(self, engine: Engine) -> None:
        """Its quiet time is over, and the queue is paused, or its workers are busy."""
        await engine.pause(QUEUE, now_ms=NOW)
        first = await enqueue(engine, DEBOUNCE, data="[1]")
        assert await take(engine, now_ms=NOW + WINDOW_MS) == []
        assert await ids_in(engine, State.WAITING) == [first.id]
        second = await enqueue(engine, DEBOUNCE, data="[2]", now_ms=NOW + WINDOW_MS)
        assert is_duplicate_of(second, first)
        record = await job(engine, first.id)
        assert (record.state, record.data) == (State.WAITING, "[2]")

    async def test_adds_a_new_job_while_the_first_one_runs(self, engine: Engine) -> None:
        first = await enqueue(engine, DEBOUNCE, data="[1]")
        due_ms = NOW + WINDOW_MS
        await take(engine, now_ms=due_ms)
        second = await enqueue(engine, DEBOUNCE, data="[2]", now_ms=due_ms)
        assert second.existing is None
        assert (await job(engine, second.id)).due_ms == due_ms + WINDOW_MS
        assert (await job(engine, first.id)).data == "[1]"
        await finish(engine, first.id, now_ms=due_ms)
        third = await enqueue(engine, DEBOUNCE, data="[3]", now_ms=due_ms)
        assert is_duplicate_of(third, second)

    async def test_does_not_touch_a_job_that_waits_for_its_next_attempt(
        self, engine: Engine
    ) -> None:
        """BullMQ would delete it."""
        first = await enqueue(engine, DEBOUNCE, data="[1]")
        due_ms = NOW + WINDOW_MS
        await take(engine, now_ms=due_ms)
        await settled(engine, Retry(first.id, "t1", "no", "trace", 60_000), now_ms=due_ms)
        second = await enqueue(engine, DEBOUNCE, data="[2]", now_ms=due_ms)
        assert second.existing is None
        record = await job(engine, first.id)
        assert (record.data, record.due_ms) == ("[1]", due_ms + 60_000)

    async def test_wakes_workers_for_the_new_due_time(self, engine: Engine) -> None:
        """A shorter quiet time than before makes the job due earlier."""
        await enqueue(engine, DEBOUNCE)
        async with waiting(engine, next_due_ms=NOW + WINDOW_MS) as task:
            await enqueue(engine, DEBOUNCE, window_ms=100)
            await asyncio.wait_for(task, 10)
        assert len(await take(engine, now_ms=NOW + 100)) == 1

    async def test_keeps_the_priority(self, engine: Engine) -> None:
        first = await enqueue(engine, DEBOUNCE, priority=7)
        await enqueue(engine, DEBOUNCE, priority=1, now_ms=NOW + 1)
        await engine.requeue(QUEUE, [first.id], {State.DELAYED}, now_ms=NOW + 2)
        assert (await job(engine, first.id)).priority == 7
        assert await ids_in(engine, State.PRIORITIZED) == [first.id]

    async def test_does_not_expire_early(self, engine: Engine) -> None:
        """The time of expiry counts from the latest time at which the job becomes due."""
        first = await enqueue(engine, DEBOUNCE, expires_ms=1000)
        opts = (await job(engine, first.id)).opts
        assert f'"expiresAt":{NOW + MAX_WAIT_MS + 1000}' in opts


class TestLatest:
    async def test_replaces_the_data_of_a_waiting_job(self, engine: Engine) -> None:
        first = await enqueue(engine, LATEST, data="[1]")
        second = await enqueue(engine, LATEST, data="[2]")
        assert is_duplicate_of(second, first)
        assert (await job(engine, first.id)).data == "[2]"

    async def test_does_not_move_a_delayed_job(self, engine: Engine) -> None:
        first = await enqueue(engine, LATEST, data="[1]", delay_ms=100)
        await enqueue(engine, LATEST, data="[2]", delay_ms=900, now_ms=NOW + 50)
        record = await job(engine, first.id)
        assert (record.data, record.due_ms, record.delay_ms) == ("[2]", NOW + 100, 100)

    @pytest.mark.parametrize("outcome", ["completed", "failed", "not kept", "failed, not kept"])
    async def test_runs_once_more_after_the_active_job(self, engine: Engine, outcome: str) -> None:
        """Three are enqueued while one runs. One more runs, with the data of the last."""
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine)
        for n in (2, 3, 4):
            kept = await enqueue(engine, LATEST, data=f"[{n}]", now_ms=NOW + n)
            assert is_duplicate_of(kept, first)
        assert await counts(engine) == {State.ACTIVE: 1}
        await finish(engine, first.id, outcome, now_ms=NOW + 10)
        (follower,) = await ids_in(engine, State.WAITING)
        record = await job(engine, follower)
        assert (record.data, record.name, record.created_ms) == ("[4]", "send", NOW + 10)
        assert record.attempts_started == 0

    async def test_follower_owns_the_key(self, engine: Engine) -> None:
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine)
        await enqueue(engine, LATEST, data="[2]")
        await finish(engine, first.id)
        replaced = await enqueue(engine, LATEST, data="[3]")
        (follower,) = await ids_in(engine, State.WAITING)
        assert replaced.id == follower
        assert (await job(engine, follower)).data == "[3]"
        await finish(engine, follower)
        assert (await enqueue(engine, LATEST)).existing is None

    async def test_follower_is_claimed_in_the_same_step(self, engine: Engine) -> None:
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine)
        await enqueue(engine, LATEST, data="[2]")
        end = Completed(first.id, "t1", "7")
        batch = await engine.settle(QUEUE, [end], claim(5, "t2"), now_ms=NOW)
        assert [lease.job.data for lease in batch.leases] == ["[2]"]

    async def test_follower_has_its_own_options(self, engine: Engine) -> None:
        first = await enqueue(engine, LATEST)
        await take(engine)
        await enqueue(engine, LATEST, delay_ms=60_000, priority=3, attempts=9, timeout_ms=500)
        await finish(engine, first.id, now_ms=NOW + 5)
        (follower,) = await ids_in(engine, State.DELAYED)
        record = await job(engine, follower)
        assert (record.priority, record.due_ms) == (3, NOW + 5 + 60_000)
        assert '"attempts":9' in record.opts
        assert '"timeout":500' in record.opts

    async def test_without_another_call_nothing_follows(self, engine: Engine) -> None:
        first = await enqueue(engine, LATEST)
        await finish(engine, first.id)
        assert await counts(engine) == {State.COMPLETED: 1}

    @pytest.mark.parametrize(
        "outcome",
        [
            lambda id: Retry(id, "t1", "no", "trace", 0),
            lambda id: Retry(id, "t1", "no", "trace", 1000),
            lambda id: Postponed(id, "t1", 1000),
            lambda id: Released(id, "t1"),
        ],
        ids=["retry", "backoff", "postponed", "released"],
    )
    async def test_data_of_a_started_job_is_not_replaced(
        self, engine: Engine, outcome: Callable[[str], Any]
    ) -> None:
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine)
        await settled(engine, outcome(first.id))
        await enqueue(engine, LATEST, data="[2]")
        assert (await job(engine, first.id)).data == "[1]"
        assert sum((await counts(engine)).values()) == 1
        assert await take(engine, 1, "t2", now_ms=NOW + 1000) == [first.id]
        await finish(engine, first.id, token="t2", now_ms=NOW + 1000)
        (follower,) = await ids_in(engine, State.WAITING)
        assert (await job(engine, follower)).data == "[2]"

    async def test_runs_after_a_job_that_was_cancelled_between_attempts(
        self, engine: Engine
    ) -> None:
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine)
        await settled(engine, Retry(first.id, "t1", "no", "trace", 1000))
        await enqueue(engine, LATEST, data="[2]")
        await engine.cancel(QUEUE, [first.id], now_ms=NOW)
        (follower,) = await ids_in(engine, State.WAITING)
        assert (await job(engine, follower)).data == "[2]"
        await finish(engine, follower)
        assert (await enqueue(engine, LATEST)).existing is None

    async def test_runs_after_a_job_that_crashed_too_often(self, engine: Engine) -> None:
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine, lease_ms=10)
        await enqueue(engine, LATEST, data="[2]")
        await engine.reclaim(QUEUE, crash_limit=1, now_ms=NOW + 10)
        assert await take(engine, 1, "t2", now_ms=NOW + 10) == [first.id]
        await finish(engine, first.id, "failed", token="t2", now_ms=NOW + 10)
        assert len(await ids_in(engine, State.WAITING)) == 1


async def remove_key(engine: Engine, key: str = "ada", *, now_ms: int = NOW) -> bool:
    return await engine.remove_deduplication_key(QUEUE, f"send:{key}", now_ms=now_ms)


class TestRemovingAKey:
    @pytest.mark.parametrize("mode", MODES)
    async def test_lets_in_the_next_job(self, engine: Engine, mode: DeduplicationMode) -> None:
        first = await enqueue(engine, mode)
        assert await remove_key(engine)
        second = await enqueue(engine, mode)
        assert second.existing is None
        assert second.id != first.id

    async def test_says_whether_it_was_taken(self, engine: Engine) -> None:
        assert not await remove_key(engine)
        first = await enqueue(engine, UNIQUE)
        assert await remove_key(engine)
        assert not await remove_key(engine)
        await finish(engine, first.id)
        second = await enqueue(engine, UNIQUE)
        await finish(engine, second.id)
        assert not await remove_key(engine)

    async def test_whose_time_has_passed_was_not_taken(self, engine: Engine) -> None:
        await enqueue(engine, THROTTLE)
        assert not await remove_key(engine, now_ms=NOW + WINDOW_MS)

    async def test_still_lets_the_kept_job_run(self, engine: Engine) -> None:
        """Its caller was told that it would."""
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine)
        await enqueue(engine, LATEST, data="[2]")
        assert await remove_key(engine)
        assert not await remove_key(engine)
        await finish(engine, first.id)
        (follower,) = await ids_in(engine, State.WAITING)
        assert (await job(engine, follower)).data == "[2]"
        assert is_duplicate_of(await enqueue(engine, LATEST), AddResult(follower))

    async def test_then_another_job_replaces_the_kept_one(self, engine: Engine) -> None:
        """The kept data is older than that of the new owner, and would run after it."""
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine)
        await enqueue(engine, LATEST, data="[2]")
        await remove_key(engine)
        third = await enqueue(engine, LATEST, data="[3]")
        assert third.existing is None
        await finish(engine, first.id)
        assert await ids_in(engine, State.WAITING) == [third.id]


class TestKeptJobsAndOtherJobsOfTheKey:
    """A kept job waits for the owner of its key, whatever happens to earlier owners."""

    async def keep_one(self, engine: Engine) -> str:
        """Let a running job own the key, and keep a next one. Returns the id of the owner."""
        owner = await enqueue(engine, LATEST, data="[1]")
        assert await take(engine, 1, "t-owner") == [owner.id]
        await enqueue(engine, LATEST, data="[2]")
        return owner.id

    @pytest.mark.parametrize("is_removed", [False, True], ids=["taken", "removed"])
    async def test_the_end_of_an_earlier_owner_adds_nothing(
        self, engine: Engine, is_removed: bool
    ) -> None:
        earlier = await enqueue(engine, UNIQUE)
        await take(engine)
        await remove_key(engine)
        owner = await self.keep_one(engine)
        if is_removed:
            await remove_key(engine)
        await finish(engine, earlier.id)
        assert await counts(engine) == {State.ACTIVE: 1, State.COMPLETED: 1}
        await finish(engine, owner, token="t-owner")
        (follower,) = await ids_in(engine, State.WAITING)
        assert (await job(engine, follower)).data == "[2]"

    @pytest.mark.parametrize("is_removed", [False, True], ids=["taken", "removed"])
    @pytest.mark.parametrize("how", ["remove", "purge"])
    async def test_deleting_an_earlier_owner_does_not_delete_it(
        self, engine: Engine, how: str, is_removed: bool
    ) -> None:
        earlier = await enqueue(engine, UNIQUE)
        await finish(engine, earlier.id)
        owner = await self.keep_one(engine)
        if is_removed:
            await remove_key(engine)
        if how == "remove":
            await engine.remove(QUEUE, [earlier.id], now_ms=NOW)
        else:
            assert await purge(engine, State.COMPLETED) == [earlier.id]
        await finish(engine, owner, token="t-owner")
        assert len(await ids_in(engine, State.WAITING)) == 1


class TestDeletingTheOwner:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("how", ["remove", "cancel", "purge", "purge finished", "obliterate"])
    async def test_frees_the_key(self, engine: Engine, mode: DeduplicationMode, how: str) -> None:
        first = await enqueue(engine, mode)
        match how:
            case "remove":
                await engine.remove(QUEUE, [first.id], now_ms=NOW)
            case "cancel":
                await engine.cancel(QUEUE, [first.id], now_ms=NOW)
            case "purge":
                await purge(engine, State.WAITING, State.DELAYED)
            case "purge finished":
                await engine.requeue(QUEUE, [first.id], {State.DELAYED}, now_ms=NOW)
                await finish(engine, first.id)
                await purge(engine, State.COMPLETED)
            case "obliterate":
                await engine.obliterate(QUEUE)
        second = await enqueue(engine, mode)
        assert second.existing is None

    async def test_frees_keys_of_jobs_that_were_deleted_before(self, engine: Engine) -> None:
        """The ids of a deleted queue begin again: the owner would be an unrelated job."""
        first = await enqueue(engine, THROTTLE)
        await enqueue(engine, THROTTLE, queue="other")
        await finish(engine, first.id, "not kept")
        await engine.obliterate(QUEUE)
        await engine.add([new_job()], now_ms=NOW)
        assert (await enqueue(engine, THROTTLE)).existing is None
        assert (await enqueue(engine, THROTTLE, queue="other")).existing is not None

    async def test_deletes_the_kept_job(self, engine: Engine) -> None:
        """As in BullMQ: what is deleted is all that was to run under this key."""
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine)
        await settled(engine, Retry(first.id, "t1", "no", "trace", 1000))
        await enqueue(engine, LATEST, data="[2]")
        await engine.remove(QUEUE, [first.id], now_ms=NOW)
        assert await counts(engine) == {}
        second = await enqueue(engine, LATEST, data="[3]")
        await finish(engine, second.id)
        assert await counts(engine) == {State.COMPLETED: 1}

    async def test_deletes_the_kept_job_of_a_removed_key(self, engine: Engine) -> None:
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine)
        await settled(engine, Retry(first.id, "t1", "no", "trace", 1000))
        await enqueue(engine, LATEST, data="[2]")
        await remove_key(engine)
        await engine.remove(QUEUE, [first.id], now_ms=NOW)
        second = await enqueue(engine, LATEST, data="[3]")
        await finish(engine, second.id)
        assert await counts(engine) == {State.COMPLETED: 1}

    async def test_does_not_free_a_key_of_another_job(self, engine: Engine) -> None:
        first = await enqueue(engine, UNIQUE)
        await remove_key(engine)
        second = await enqueue(engine, UNIQUE)
        await engine.remove(QUEUE, [first.id], now_ms=NOW)
        assert is_duplicate_of(await enqueue(engine, UNIQUE), second)

    async def test_of_many_keys_frees_all(self, engine: Engine) -> None:
        jobs = [keyed(UNIQUE, f"{n}") for n in range(3000)]
        await engine.add(jobs[:1500], now_ms=NOW)
        await engine.add(jobs[1500:], now_ms=NOW)
        assert len(await purge(engine, State.WAITING)) == 3000
        added = await engine.add(jobs[::100], now_ms=NOW)
        assert [each.existing for each in added] == [None] * 30


async def purge(engine: Engine, *states: State) -> list[str]:
    return await engine.purge(QUEUE, states, before_ms=None, limit=None, now_ms=NOW)


class TestMixedModes:
    """Calls with different modes may use the same key."""

    async def test_the_window_of_a_throttle_keeps_out_unique_jobs(self, engine: Engine) -> None:
        first = await enqueue(engine, THROTTLE)
        await finish(engine, first.id)
        assert is_duplicate_of(await enqueue(engine, UNIQUE), first)
        late = await enqueue(engine, UNIQUE, now_ms=NOW + WINDOW_MS)
        assert late.existing is None

    @pytest.mark.parametrize("mode", [DEBOUNCE, LATEST])
    async def test_newest_data_is_not_lost_in_a_window(
        self, engine: Engine, mode: DeduplicationMode
    ) -> None:
        first = await enqueue(engine, THROTTLE, data="[1]")
        second = await enqueue(engine, mode, data="[2]")
        assert is_duplicate_of(second, first)
        assert (await job(engine, first.id)).data == "[2]"
        await finish(engine, first.id)
        third = await enqueue(engine, mode, data="[3]")
        assert third.existing is None

    async def test_newest_data_runs_after_the_owner_of_a_window_ended(self, engine: Engine) -> None:
        first = await enqueue(engine, THROTTLE)
        await finish(engine, first.id)
        assert (await enqueue(engine, LATEST)).existing is None

    async def test_a_debounced_job_replaces_the_kept_one(self, engine: Engine) -> None:
        first = await enqueue(engine, LATEST, data="[1]")
        await take(engine)
        await enqueue(engine, LATEST, data="[2]")
        second = await enqueue(engine, DEBOUNCE, data="[3]")
        assert second.existing is None
        await finish(engine, first.id)
        assert await counts(engine) == {State.COMPLETED: 1, State.DELAYED: 1}


async def test_a_repeated_call_of_a_producer_gets_the_same_answer(tmp_path: Path) -> None:
    """With `?wait=` in the URL, a call whose reply was lost is repeated. Redis remembers the reply.

    Meanwhile the owner has ended: without the memory, the call would add a job that its caller does
    not know of.
    """
    async with open_for_test("redis", tmp_path) as engine:
        assert isinstance(engine, RedisEngine)
        first = await enqueue(engine, UNIQUE)
        request = script_requests.make_add_request([keyed(UNIQUE)], NOW, ("m", 60_000))
        assert await answers(engine, request) == [(1, first.id)]
        await finish(engine, first.id)
        assert await answers(engine, request) == [(1, first.id)]
        assert await counts(engine) == {State.COMPLETED: 1}


async def answers(engine: RedisEngine, request: dict[str, object]) -> list[tuple[int, str]]:
    """Send a request of the script add, and return the duplicates in its reply."""
    return decode_add_reply(await engine._run_script("add", QUEUE, request)).duplicates


class TestEvents:
    @pytest.mark.parametrize("mode", [UNIQUE, THROTTLE, LATEST])
    async def test_a_dropped_job_is_deduplicated(
        self, engine: Engine, mode: DeduplicationMode
    ) -> None:
        first = await enqueue(engine, mode)
        after = await cursor(engine)
        await enqueue(engine, mode)
        (event,) = await happened(engine, after)
        assert (event.kind, event.job_id) == ("deduplicated", first.id)

    async def test_a_debounced_job_is_delayed_and_debounced(self, engine: Engine) -> None:
        first = await enqueue(engine, DEBOUNCE)
        after = await cursor(engine)
        await enqueue(engine, DEBOUNCE, now_ms=NOW + 1000)
        delayed, debounced = await happened(engine, after)
        assert (delayed.kind, delayed.job_id, delayed.due_ms) == (
            "delayed", first.id, NOW + 1000 + WINDOW_MS,
        )  # fmt: skip
        assert (debounced.kind, debounced.job_id) == ("debounced", first.id)

    async def test_they_name_the_key_and_the_id_that_was_not_used(self, engine: Engine) -> None:
        first = await enqueue(engine, UNIQUE, key="ada:1")
        page = await engine.events(QUEUE, after=None)
        await enqueue(engine, UNIQUE, key="ada:1")
        (event,) = (await engine.events(QUEUE, after=page.cursor)).events
        assert event.details == {
            "deduplicationId": "send:ada:1",
            "deduplicatedJobId": str(int(first.id) + 1),
        }

    async def test_of_several_jobs_in_one_call(self, engine: Engine) -> None:
        a, b, *_ = await engine.add([keyed(UNIQUE, key) for key in "abba"], now_ms=NOW)
        events = [each for each in await happened(engine, a.cursor) if is_about_keys(each)]
        assert [(each.kind, each.job_id) for each in events] == [
            ("deduplicated", b.id), ("deduplicated", a.id),
        ]  # fmt: skip

    async def test_the_next_job_is_added_before_the_end_of_the_owner(self, engine: Engine) -> None:
        """As in BullMQ: a reader that sees the end finds the next job."""
        first = await enqueue(engine, LATEST)
        await take(engine)
        await enqueue(engine, LATEST)
        after = await cursor(engine)
        await finish(engine, first.id)
        kinds = [(each.kind, each.job_id == first.id) for each in await happened(engine, after)]
        assert kinds == [("added", False), ("waiting", False), ("completed", True)]

    async def test_a_new_owner_has_the_usual_ones(self, engine: Engine) -> None:
        after = await cursor(engine)
        first = await enqueue(engine, UNIQUE)
        kinds = [(each.kind, each.job_id) for each in await happened(engine, after)]
        assert kinds == [("added", first.id), ("waiting", first.id)]


class TestOptions:
    async def test_are_stored_as_bullmq_writes_them(self, engine: Engine) -> None:
        found = {}
        for mode in MODES:
            added = await enqueue(engine, mode)
            found[mode] = (await job(engine, added.id)).opts
            await engine.obliterate(QUEUE)
        assert found == {
            UNIQUE: '{"attempts":1,"de":{"id":"send:ada"}}',
            THROTTLE: '{"attempts":1,"de":{"id":"send:ada","ttl":5000}}',
            DEBOUNCE: '{"attempts":1,"delay":5000,"de":{"id":"send:ada","replace":true}}',
            LATEST: '{"attempts":1,"de":{"id":"send:ada","keepLastIfActive":true}}',
        }
