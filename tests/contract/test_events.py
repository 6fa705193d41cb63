"""The stream of events: each kind with its fields, in the order in which things happened.

Those of one job come in the order of their happening. Those of several jobs that one call has moved
come in any.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Final

import pytest

from hasten import _portal
from hasten._store_url import SqliteFile
from hasten.jobs._engine import (
    BRIEFLY_MS,
    CANCELLED_ERROR,
    EVENT_BYTES,
    FEW_KEPT,
    VALUE_BYTES,
    Engine,
)
from hasten.jobs._engines.sqlite import SqliteEngine
from hasten.jobs._engines.sqlite.job_statements import MIGRATIONS
from hasten.jobs._options import KEEP_ALL, KEEP_NONE, Keep
from hasten.jobs._record import (
    Completed,
    Event,
    Failed,
    JobChange,
    Postponed,
    Progress,
    Released,
    Retry,
)
from hasten.jobs._states import State
from tests.contract.engines import event_bytes
from tests.contract.steps import (
    NOW,
    QUEUE,
    add,
    claim,
    cursor,
    event,
    happened,
    happened_to,
    job,
    new_job,
    settled,
    soon,
    start,
    started,
    take,
)

ADDED = event("added", "a")
ACTIVE = event("active", "a", previous="waiting")


ONE_OF_EACH: Final = ("sqlite-memory", "redis")
"""Tens of thousands of events take long, and a file or a cluster keeps them by the same code."""


class TestOfAdding:
    @pytest.mark.parametrize("priority", [0, 5])
    async def test_ready_jobs(self, engine: Engine, priority: int) -> None:
        """A prioritized job emits waiting, as in BullMQ."""
        now = await cursor(engine)
        await add(engine, "a", priority=priority)
        assert await happened(engine, now) == [ADDED, event("waiting", "a")]

    async def test_delayed_jobs(self, engine: Engine) -> None:
        now = await cursor(engine)
        await add(engine, "a", delay_ms=500)
        assert await happened(engine, now) == [ADDED, event("delayed", "a", due_ms=NOW + 500)]

    async def test_jobs_that_exist(self, engine: Engine) -> None:
        await add(engine, "a")
        now = await cursor(engine)
        await add(engine, "a", delay_ms=500)
        assert await happened(engine, now) == [event("duplicated", "a")]

    async def test_many_jobs(self, engine: Engine) -> None:
        """All events of each job are emitted."""
        now = await cursor(engine)
        await engine.add([new_job("a"), new_job("b", delay_ms=5), new_job("a")], now_ms=NOW)
        found = await happened(engine, now)
        kinds = {id: [event.kind for event in found if event.job_id == id] for id in "ab"}
        assert kinds == {"a": ["added", "waiting", "duplicated"], "b": ["added", "delayed"]}


class TestOfWorking:
    async def test_a_job_that_completes(self, engine: Engine) -> None:
        """`drained` shows that it was the last job."""
        now = await cursor(engine)
        await start(engine, "a")
        await settled(engine, Completed("a", "t1", '{"sent":true}'))
        assert await happened(engine, now) == [
            ADDED,
            event("waiting", "a"),
            ACTIVE,
            event("completed", "a", value='{"sent":true}', previous="active"),
            event("drained"),
        ]

    async def test_a_job_that_is_not_kept(self, engine: Engine) -> None:
        """Only the event has its result."""
        now = await started(engine, "a")
        await settled(engine, Completed("a", "t1", "7", KEEP_NONE))
        assert await happened_to(engine, "a", now) == [
            event("completed", "a", value="7", previous="active")
        ]

    async def test_a_job_that_fails(self, engine: Engine) -> None:
        now = await started(engine, "a")
        await settled(engine, Failed("a", "t1", "no such address", "trace"))
        assert await happened_to(engine, "a", now) == [
            event("failed", "a", error="no such address", previous="active")
        ]

    async def test_a_job_that_has_used_up_its_attempts(self, engine: Engine) -> None:
        now = await started(engine, "a")
        await settled(engine, Failed("a", "t1", "no", "trace", exhausted=True))
        assert await happened_to(engine, "a", now) == [
            event("failed", "a", error="no", previous="active"),
            event("retries-exhausted", "a"),
        ]

    async def test_a_job_that_is_retried(self, engine: Engine) -> None:
        """First at once, then after a backoff. A failed attempt emits no `failed`."""
        now = await started(engine, "a")
        await settled(engine, Retry("a", "t1", "oops", "trace", 0))
        await take(engine, 1, "t2")
        await settled(engine, Retry("a", "t2", "oops", "trace", 70))
        await take(engine, 1, "t3", now_ms=NOW + 70)
        found = await happened_to(engine, "a", now)
        assert [event for event in found if event.kind != "delayed"] == [
            event("waiting", "a", previous="active"),
            ACTIVE,
            event("waiting", "a", previous="delayed"),
            ACTIVE,
        ]
        (delayed,) = [event for event in found if event.kind == "delayed"]
        assert delayed.due_ms == NOW + 70
        assert found.index(delayed) == 2

    async def test_a_job_that_is_postponed(self, engine: Engine) -> None:
        now = await started(engine, "a")
        await settled(engine, Postponed("a", "t1", 70))
        (delayed,) = await happened_to(engine, "a", now)
        assert (delayed.kind, delayed.due_ms) == ("delayed", NOW + 70)

    async def test_a_job_that_is_released(self, engine: Engine) -> None:
        now = await started(engine, "a")
        await settled(engine, Released("a", "t1"))
        assert await happened_to(engine, "a", now) == [event("waiting", "a", previous="active")]

    async def test_a_job_whose_worker_died(self, engine: Engine) -> None:
        now = await started(engine, "a", lease_ms=10)
        await engine.reclaim(QUEUE, crash_limit=5, now_ms=NOW + 11)
        assert await happened_to(engine, "a", now) == [
            event("waiting", "a", previous="active"),
            event("stalled", "a"),
        ]

    async def test_a_job_that_reports_progress(self, engine: Engine) -> None:
        """Every step has an event, although the job keeps the last one only."""
        now = await started(engine, "a")
        notes = [Progress("a", "1"), Progress("gone", "5"), Progress("a", '{"of":2}')]
        await engine.update(QUEUE, notes, now_ms=NOW)
        assert await happened(engine, now) == [
            event("progress", "a", value="1"),
            event("progress", "a", value='{"of":2}'),
        ]

    async def test_a_run_that_was_replaced(self, engine: Engine) -> None:
        """An outcome that is not stored emits no event."""
        await start(engine, "a", token="old", lease_ms=10)
        await engine.reclaim(QUEUE, crash_limit=5, now_ms=NOW + 11)
        await take(engine, 1, "new")
        now = await cursor(engine)
        await engine.settle(QUEUE, [Completed("a", "old", "1")], None, now_ms=NOW)
        assert await happened_to(engine, "a", now) == []


class TestDrained:
    async def test_is_emitted_by_the_call_whose_claim_returns_nothing(self, engine: Engine) -> None:
        now = await started(engine, "a")
        await engine.settle(QUEUE, [Completed("a", "t1", "1")], claim(1, "t2"), now_ms=NOW)
        assert [event.kind for event in await happened(engine, now)] == ["completed", "drained"]

    @pytest.mark.parametrize("left", ["waiting", "prioritized", "active"])
    async def test_is_not_emitted_while_jobs_are_left(self, engine: Engine, left: str) -> None:
        await start(engine, "a")
        await add(engine, "b", priority=int(left == "prioritized"))
        if left == "active":
            await take(engine, 1, "t2")
        now = await cursor(engine)
        await settled(engine, Completed("a", "t1", "1"))
        assert [event.kind for event in await happened(engine, now)] == ["completed"]

    async def test_is_not_emitted_by_an_idle_claim(self, engine: Engine) -> None:
        """An idle worker emits nothing, however often it claims."""
        now = await cursor(engine)
        await take(engine)
        await take(engine)
        assert await happened(engine, now) == []


class TestOfAdministration:
    async def test_cancelling_what_waits(self, engine: Engine) -> None:
        await add(engine, "a")
        now = await cursor(engine)
        await engine.cancel(QUEUE, ["a"], now_ms=NOW)
        assert await happened_to(engine, "a", now) == [
            event("failed", "a", error=CANCELLED_ERROR, previous="waiting")
        ]

    async def test_removing(self, engine: Engine) -> None:
        await add(engine, "a")
        await add(engine, "p", priority=1)
        await add(engine, "d", delay_ms=10)
        now = await cursor(engine)
        await engine.remove(QUEUE, ["a", "p", "d", "gone"], now_ms=NOW)
        assert await happened(engine, now) == [
            event("removed", "a", previous="waiting"),
            event("removed", "p", previous="prioritized"),
            event("removed", "d", previous="delayed"),
        ]

    async def test_promoting(self, engine: Engine) -> None:
        await add(engine, "a", delay_ms=10)
        now = await cursor(engine)
        await engine.requeue(QUEUE, ["a"], {State.DELAYED}, now_ms=NOW)
        assert await happened(engine, now) == [event("waiting", "a", previous="delayed")]

    async def test_running_again(self, engine: Engine) -> None:
        await start(engine, "a", "b")
        await settled(engine, Completed("a", "t1", "1"), Failed("b", "t1", "no"))
        now = await cursor(engine)
        await engine.requeue(QUEUE, ["a"], {State.COMPLETED}, now_ms=NOW)
        await engine.requeue(QUEUE, ["b"], {State.FAILED}, now_ms=NOW)
        assert await happened(engine, now) == [
            event("waiting", "a", previous="completed"),
            event("waiting", "b", previous="failed"),
        ]

    async def test_purging(self, engine: Engine) -> None:
        """As in BullMQ, the event has the number only."""
        await add(engine, "a", "b", "c")
        now = await cursor(engine)
        await engine.purge(QUEUE, [State.WAITING], before_ms=None, limit=2, now_ms=NOW)
        assert await happened(engine, now) == [event("cleaned", count=2)]

    async def test_pausing_and_resuming(self, engine: Engine) -> None:
        now = await cursor(engine)
        await engine.pause(QUEUE, now_ms=NOW)
        await engine.resume(QUEUE, now_ms=NOW)
        assert await happened(engine, now) == [event("paused"), event("resumed")]


class TestReading:
    async def test_begins_now(self, engine: Engine) -> None:
        """Without a cursor, the current one is returned at once, and no events."""
        await add(engine, "before")
        now = await cursor(engine)
        await add(engine, "after")
        page = await soon(engine.events(QUEUE, after=now))
        assert {event.job_id for event in page.events} == {"after"}

    async def test_continues_after_each_event(self, engine: Engine) -> None:
        """A reader may stop after any event, also within a page, and misses none."""
        now = await cursor(engine)
        await add(engine, *(f"j{n}" for n in range(5)))
        page = await soon(engine.events(QUEUE, after=now))
        assert len(page.events) == 10
        for n, seen in enumerate(page.events[:-1]):
            rest = await soon(engine.events(QUEUE, after=seen.cursor))
            assert rest.events == page.events[n + 1 :]

    async def test_waits_for_the_next_event(self, engine: Engine) -> None:
        now = await cursor(engine)
        reading = asyncio.create_task(engine.events(QUEUE, after=now))
        await asyncio.sleep(0)
        await add(engine, "x", queue="other")
        done, _ = await asyncio.wait([reading], timeout=0.05)
        assert not done
        await add(engine, "a")
        page = await soon(reading)
        assert page.events[0].kind == "added"
        assert page.events[0].job_id == "a"

    async def test_is_the_same_for_every_reader(self, engine: Engine) -> None:
        now = await cursor(engine)
        readers = [asyncio.create_task(engine.events(QUEUE, after=now)) for _ in range(5)]
        await asyncio.sleep(0)
        await add(engine, "a")
        pages = [await soon(reader) for reader in readers]
        assert all(page == pages[0] for page in pages)

    async def test_of_a_queue_without_any_begins_with_its_first(self, engine: Engine) -> None:
        now = await cursor(engine, "new")
        await add(engine, "a", queue="new")
        assert [event.kind for event in await happened(engine, now, "new")] == ["added", "waiting"]

    async def test_finds_the_record_behind_the_event(self, engine: Engine) -> None:
        """A reader of `completed` finds the result stored."""
        now = await started(engine, "a")
        reading = asyncio.create_task(engine.events(QUEUE, after=now))
        await settled(engine, Completed("a", "t1", "7"))
        page = await soon(reading)
        assert page.events[0].kind == "completed"
        assert (await job(engine, "a")).result == "7"

    async def test_without_waiting_returns_what_there_is(self, engine: Engine) -> None:
        now = await cursor(engine)
        page = await soon(engine.events(QUEUE, after=now, wait=False))
        assert (page.events, page.cursor) == ([], now)
        await add(engine, "a")
        page = await soon(engine.events(QUEUE, after=now, wait=False))
        assert [event.kind for event in page.events] == ["added", "waiting"]
        assert page.cursor == page.events[-1].cursor


class TestBeginning:
    """A requested cursor comes before all later events, even if it is not awaited yet."""

    async def test_comes_before_what_this_loop_does_next(self, engine: Engine) -> None:
        for n in range(20):
            beginning = engine.start_reading_latest_cursor(QUEUE)
            await add(engine, f"j{n}")
            found = await happened(engine, await soon(asyncio.wrap_future(beginning)))
            assert found == [event("added", f"j{n}"), event("waiting", f"j{n}")]

    async def test_comes_before_what_another_thread_does_next(self, engine: Engine) -> None:
        """Even while the event loop that requested it is blocked."""
        for n in range(20):
            beginning = engine.start_reading_latest_cursor(QUEUE)
            _portal.run_without_loop_check(add(engine, f"j{n}"))
            found = await happened(engine, await soon(asyncio.wrap_future(beginning)))
            assert found == [event("added", f"j{n}"), event("waiting", f"j{n}")]

    async def test_comes_after_what_has_been_done(self, engine: Engine) -> None:
        await add(engine, "before")
        beginning = engine.start_reading_latest_cursor(QUEUE)
        await add(engine, "after")
        found = await happened(engine, await soon(asyncio.wrap_future(beginning)))
        assert {event.job_id for event in found} == {"after"}

    async def test_outlives_a_caller_who_leaves(self, engine: Engine) -> None:
        """A cancelled caller does not cancel it for others."""
        beginning = engine.start_reading_latest_cursor(QUEUE)
        adding = asyncio.create_task(add(engine, "a"))
        await asyncio.sleep(0)
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        assert await soon(asyncio.wrap_future(beginning)) == "0-0"


async def tell_progress(engine: Engine, count: int) -> None:
    """Emit numbered progress events of the running job a."""
    for first in range(0, count, 500):
        numbers = range(first, min(first + 500, count))
        await engine.update(QUEUE, [Progress("a", str(n)) for n in numbers], now_ms=NOW)


def text_of(size: int) -> str:
    """Return a JSON string of that many bytes."""
    return f'"{"x" * (size - 2)}"'


@pytest.mark.parametrize("kind", ONE_OF_EACH)
class TestKeeping:
    async def test_keeps_ten_thousand_at_least_and_not_for_ever(self, engine: Engine) -> None:
        """A reader may be late, but events must not fill the store."""
        beginning = await started(engine, "a")
        total = 40_000
        await tell_progress(engine, total)
        values = [int(event.value or "") for event in await happened_to(engine, "a", beginning)]
        assert values == list(range(values[0], total))
        assert 10_000 <= len(values) <= 20_000

    async def test_keeps_large_values_up_to_a_limit(self, engine: Engine) -> None:
        """Results of a megabyte would fill the store long before there are 10,000 events."""
        beginning = await cursor(engine)
        size, total, at_once = 1_000_000, 64, 8
        for first in range(0, total, at_once):
            ids = [f"j{n}" for n in range(first, first + at_once)]
            await start(engine, *ids)
            await settled(engine, *(Completed(id, "t1", text_of(size), KEEP_NONE) for id in ids))
        missed, *found = await happened(engine, beginning)
        assert missed.kind == "missed"
        ids = [event.job_id for event in found if event.kind == "completed"]
        assert ids == [f"j{n}" for n in range(total - len(ids), total)]
        assert EVENT_BYTES // 2 <= len(ids) * size <= EVENT_BYTES + 2 * at_once * size
        assert await event_bytes(engine, QUEUE) <= EVENT_BYTES + 2 * at_once * size

    async def test_keeps_all_that_one_call_has_stored(self, engine: Engine) -> None:
        """No reader could have read them before, however large they are."""
        size = 1_000_000
        ids = [f"j{n}" for n in range(EVENT_BYTES // size + 8)]
        now = await started(engine, *ids)
        await settled(engine, *(Completed(id, "t1", text_of(size), KEEP_NONE) for id in ids))
        found = [event for event in await happened(engine, now) if event.kind == "completed"]
        assert [event.job_id for event in found] == ids
        assert {len(event.value or "") for event in found} == {size}

    async def test_keeps_those_of_each_queue(self, engine: Engine) -> None:
        """The events of a busy queue do not displace those of another one."""
        quiet = await cursor(engine, "quiet")
        await add(engine, "a", queue="quiet")
        await start(engine, "a")
        await tell_progress(engine, 20_000)
        assert await happened(engine, quiet, "quiet") == [ADDED, event("waiting", "a")]


class TestLargeValues:
    """Values that a job has are not stored twice. Others are in the event, up to a limit."""

    async def test_of_kept_jobs_stay_with_them(self, engine: Engine) -> None:
        """The event has the size instead, which differs from a result of None."""
        now = await started(engine, "fits", "large", "umlauts", "none")
        results = {
            "fits": text_of(VALUE_BYTES),
            "large": text_of(VALUE_BYTES + 1),
            "umlauts": f'"{"ü" * (VALUE_BYTES // 2)}"',
            "none": "null",
        }
        await settled(engine, *(Completed(id, "t1", value) for id, value in results.items()))
        found = [event for event in await happened(engine, now) if event.kind == "completed"]
        assert found == [
            event("completed", "fits", value=results["fits"], previous="active"),
            event("completed", "large", omitted_bytes=VALUE_BYTES + 1, previous="active"),
            event("completed", "umlauts", omitted_bytes=VALUE_BYTES + 2, previous="active"),
            event("completed", "none", value="null", previous="active"),
        ]
        assert {id: (await job(engine, id)).result for id in results} == results

    async def test_of_progress_stay_with_the_job(self, engine: Engine) -> None:
        """Progress from the handler and from other callers."""
        now = await started(engine, "a")
        value = text_of(VALUE_BYTES + 1)
        await engine.update(
            QUEUE, [Progress("a", value), JobChange("a", progress=value)], now_ms=NOW
        )
        told = event("progress", "a", omitted_bytes=VALUE_BYTES + 1)
        assert await happened_to(engine, "a", now) == [told, told]
        assert (await job(engine, "a")).progress == value

    @pytest.mark.parametrize(
        ("keep", "is_in_event"),
        [
            (KEEP_NONE, True),
            (Keep(count=FEW_KEPT - 1), True),
            (Keep(age=BRIEFLY_MS / 1000 - 1), True),
            (Keep(count=FEW_KEPT), False),
            (Keep(age=BRIEFLY_MS / 1000), False),
            (KEEP_ALL, False),
        ],
    )
    async def test_are_in_the_event_where_the_job_may_be_gone(
        self, engine: Engine, keep: Keep, is_in_event: bool
    ) -> None:
        """Until the callers that wait for the result have read it."""
        now = await started(engine, "a")
        value = text_of(VALUE_BYTES + 1)
        await settled(engine, Completed("a", "t1", value, keep))
        (told,) = await happened_to(engine, "a", now)
        expected = (value, None) if is_in_event else (None, VALUE_BYTES + 1)
        assert (told.value, told.omitted_bytes) == expected

    async def test_are_lost_if_neither_job_nor_events_can_hold_them(self, engine: Engine) -> None:
        now = await started(engine, "a")
        await settled(engine, Completed("a", "t1", text_of(EVENT_BYTES + 1), KEEP_NONE))
        (told,) = await happened_to(engine, "a", now)
        assert (told.value, told.omitted_bytes) == (None, EVENT_BYTES + 1)

    async def test_take_no_more_room_the_larger_they_are(self, engine: Engine) -> None:
        """For results and progress of kept jobs."""
        sizes = []
        for size in (100_000, 900_000):
            queue = f"q{size}"
            ids = [f"{size}-{n}" for n in range(12)]
            await add(engine, *ids, queue=queue)
            await engine.claim(queue, claim(12), now_ms=NOW)
            updates = [Progress(id, text_of(size)) for id in ids]
            await engine.update(queue, updates, now_ms=NOW)
            ends = [Completed(id, "t1", text_of(size)) for id in ids]
            await engine.settle(queue, ends, None, now_ms=NOW)
            sizes.append(await event_bytes(engine, queue))
        small, large = sizes
        assert small == large < 10_000


@pytest.mark.parametrize("kind", ONE_OF_EACH)
class TestMissed:
    """A reader that is too late gets one event `missed`, and continues from there."""

    async def test_comes_in_place_of_the_deleted_events(self, engine: Engine) -> None:
        before = await started(engine, "a")
        await tell_progress(engine, 500)
        page = await soon(engine.events(QUEUE, after=before))
        within = page.events[len(page.events) // 2].cursor
        await tell_progress(engine, 30_000)
        for behind in (before, within, page.cursor):
            read = await soon(engine.events(QUEUE, after=behind))
            missed, first = read.events[:2]
            assert (missed.kind, missed.job_id, missed.value) == ("missed", "", None)
            assert first.kind == "progress"
            rest = await soon(engine.events(QUEUE, after=missed.cursor))
            assert rest.events[0] == first

    async def test_reaches_a_reader_that_began_before_the_first_event(self, engine: Engine) -> None:
        nothing = await cursor(engine)
        await start(engine, "a")
        await tell_progress(engine, 30_000)
        page = await soon(engine.events(QUEUE, after=nothing))
        assert [event.kind for event in page.events[:2]] == ["missed", "progress"]

    async def test_comes_wherever_events_were_deleted(self, engine: Engine) -> None:
        """A store may delete the events of one call together, wherever the reader is."""
        await start(engine, "a")
        seen: list[Event] = []
        for _ in range(13):
            before = await cursor(engine)
            await tell_progress(engine, 100)
            page = await soon(engine.events(QUEUE, after=before))
            seen += [page.events[50], page.events[-1]]
            await tell_progress(engine, 1900)
        told: list[bool] = []
        for last in seen:
            page = await soon(engine.events(QUEUE, after=last.cursor))
            told.append(page.events[0].kind == "missed")
            follows = int(page.events[0].value or "-1") == (int(last.value or "") + 1) % 100
            assert told[-1] or follows
        assert told == sorted(told, reverse=True)
        assert set(told) == {True, False}

    async def test_does_not_come_to_a_reader_that_keeps_up(self, engine: Engine) -> None:
        behind = await started(engine, "a")
        for _ in range(60):
            await tell_progress(engine, 500)
            page = await soon(engine.events(QUEUE, after=behind))
            while page.events[-1].value != "499":
                assert {event.kind for event in page.events} == {"progress"}
                page = await soon(engine.events(QUEUE, after=page.cursor))
            assert {event.kind for event in page.events} == {"progress"}
            behind = page.cursor


async def test_of_a_file_of_the_first_version_are_read_on(tmp_path: Path) -> None:
    """The first version did not store their size."""
    path = tmp_path / "jobs.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(MIGRATIONS[0])
        connection.execute("INSERT INTO hasten_meta VALUES ('schema', 1)")
        connection.execute("INSERT INTO hasten_queues VALUES (?, 0, 0, 0, 7)", [QUEUE])
        body = '[{"k":"added","i":["é"]},{"k":"waiting","i":["é"]}]'
        connection.execute("INSERT INTO hasten_events VALUES (?, 7, 2, ?)", [QUEUE, body])
        connection.commit()
    engine = SqliteEngine(SqliteFile(path))
    await add(engine, "a")
    found = await happened(engine, "7-1")
    assert found == [event("waiting", "é"), ADDED, event("waiting", "a")]
    await engine.aclose()
