"""`queue.schedules`, schedules above tasks, and the slots that handlers get."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from hasten import Store
from hasten.errors import InvalidArgument, InvalidOption, ScheduleNotFound, UsageError
from hasten.jobs import Context, Job, Queue, Slot, State, Worker
from hasten.testing import ManualClock
from tests.jobs import process_tasks
from tests.jobs.eventually import until

HOUR: Final = timedelta(hours=1)


@pytest.fixture
def slots() -> list[Slot | None]:
    return []


@pytest.fixture
def report(queue: Queue, slots: list[Slot | None]) -> Any:
    @queue.task(attempts=3)
    async def report(name: str = "all", *, slot: Slot | None = None) -> str:
        slots.append(slot)
        return name

    return report


def now(queue: Queue) -> datetime:
    return datetime.fromtimestamp(queue.clock.now_ms() / 1000, UTC)


class TestUpsert:
    async def test_all_that_was_given_can_be_read(self, queue: Queue, report: Any) -> None:
        start = now(queue) + HOUR
        made = await queue.schedules.upsert(
            "reports", report, every="10m", offset="1m", limit=5, start=start, end=start + HOUR,
            jitter=30, arguments={"name": "sales"}, options={"attempts": 7}, overlap="skip",
        )  # fmt: skip
        assert made == await queue.schedules.get("reports")
        assert (made.id, made.task, made.arguments) == ("reports", "report", {"name": "sales"})
        assert (made.every, made.offset) == (timedelta(minutes=10), timedelta(minutes=1))
        assert (made.cron, made.tz, made.limit) == (None, None, 5)
        assert (made.start, made.end) == (start, start + HOUR)
        assert (made.missed, made.overlap, made.jitter) == ("last", "skip", timedelta(seconds=30))
        assert made.next is not None
        assert start <= made.next < start + timedelta(minutes=10)
        assert made.next.minute % 10 == 1
        assert (made.count, made.previous, made.dropped) == (1, None, 0)
        assert not (made.is_paused)
        assert not (made.has_ended)
        assert not (made.is_broken)
        assert not (made.is_held)
        assert not (made.is_declared)
        assert not (made.no_longer_declared)

    async def test_the_time_zone_is_always_stored(self, queue: Queue, report: Any) -> None:
        assert (await queue.schedules.upsert("a", report, cron="0 7 * * *")).tz == "UTC"
        zone = "Europe/Madrid"
        assert (await queue.schedules.upsert("b", "report", cron="0 7 * * *", tz=zone)).tz == zone

    async def test_the_job_has_the_options_of_the_task(self, queue: Queue, report: Any) -> None:
        await queue.schedules.upsert("a", report, every=60)
        (job,) = await queue.jobs("waiting")
        assert '"attempts":3' in job.record.opts.replace(" ", "")

    async def test_arguments_made_by_the_task(self, queue: Queue, report: Any) -> None:
        made = await queue.schedules.upsert("a", report, every=60, arguments=report.args("x"))
        assert made.arguments == {"name": "x"}

    async def test_a_task_of_another_program(self, elsewhere: Queue) -> None:
        made = await elsewhere.schedules.upsert("a", "unknown", every=60, arguments={"a": [1]})
        assert made.arguments == {"a": [1]}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "every=None: must be given if cron is not, and only then"),
            ({"every": 60, "cron": "* * * * *"}, "every=60: must be given if cron is not"),
            ({"every": 0.5}, "every=0.5: must be at least 1"),
            ({"every": 60, "tz": "UTC"}, "tz='UTC': cannot be combined with every"),
            ({"every": 60, "offset": 60}, "offset=60: must be less than the interval"),
            ({"cron": "* * * * *", "offset": 1}, "offset=1: cannot be combined with cron"),
            ({"cron": "* * *"}, "cron='\\* \\* \\*': must be a cron pattern: .*five fields"),
            ({"cron": "0 0 31 2 *"}, "cron='0 0 31 2 \\*': must be a cron pattern"),
            ({"cron": "61 * * * *"}, "cron='61 \\* \\* \\* \\*': must be a cron pattern"),
            ({"cron": "* * * * *", "tz": "Mars"}, "tz='Mars': must be the IANA name .*tzdata"),
            ({"cron": "* * * * *", "tz": ""}, "tz='': must be the IANA name"),
            ({"cron": "* * * * *", "tz": "../x"}, "tz='../x': must be the IANA name"),
            ({"cron": "* * * * *", "tz": "localtime"}, "tz='localtime': must be the IANA name"),
            ({"cron": "* * * * *", "tz": "posix/UTC"}, "tz='posix/UTC': must be the IANA name"),
            ({"cron": "R * * * *"}, "cron='R \\* \\* \\* \\*': must be a cron pattern"),
            ({"every": 60, "limit": 0}, "limit=0: must be a whole number from 1"),
            (
                {"every": 60, "missed": "some"},
                "missed='some': must be one of 'last', 'skip', 'all'",
            ),
            ({"every": 60, "overlap": True}, "overlap=True: must be one of 'allow', 'skip'"),
            ({"every": 60, "missed": "all", "overlap": "skip"}, "missed='all': cannot be .*queue"),
            ({"every": 60, "missed": "all", "limit": 3}, "missed='all': cannot be .*limit"),
            ({"every": 60, "jitter": 60}, "jitter=60: must be shorter than the time between"),
            ({"cron": "* * * * *", "jitter": "2m"}, "jitter='2m': must be shorter than the time"),
            ({"every": 60, "start": datetime(2026, 1, 1)}, "start=.*: must be a datetime with a"),  # noqa: DTZ001
            ({"every": 60, "end": datetime(2020, 1, 1, tzinfo=UTC)}, "end=.*later than the next"),
            ({"every": 60, "options": {"delay": 5}}, "delay=5: cannot be combined with a schedule"),
            ({"every": 60, "options": {"job_id": "a"}}, "job_id='a': cannot be combined with a"),
            ({"every": 60, "options": {"unique": "a"}}, "unique='a': cannot be combined with a"),
            ({"every": 60, "options": {"attempts": 0}}, "attempts=0: must be"),
            ({"every": 60, "options": {"color": 1}}, "color=1: must be one of the options"),
            ({"every": 60, "options": [1]}, "options=\\[1\\]: must be a dict"),
        ],
    )
    async def test_mistakes(
        self, queue: Queue, report: Any, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InvalidOption, match=message):
            await queue.schedules.upsert("a", report, **options)
        assert await queue.schedules.list() == []

    @pytest.mark.parametrize("hour", [8, 12, 20])
    def test_the_longest_jitter_does_not_depend_on_the_time(self, hour: int) -> None:
        """Otherwise the same code would be accepted or rejected when it is imported."""
        clock = ManualClock(datetime(2026, 12, 4, hour, tzinfo=UTC))
        queue = Queue("shop", Store("memory://", clock=clock))

        @queue.task
        async def task() -> None: ...

        queue.cron("0 9,17 * * *", id="a", jitter="7h")(task)
        queue.cron("0 7 * * mon-fri", id="b", jitter="23h")(task)
        with pytest.raises(InvalidOption, match=r"jitter='10h': must be .* may be 28800 s"):
            queue.cron("0 9,17 * * *", id="c", jitter="10h")(task)
        with pytest.raises(InvalidOption, match=r"jitter='30h': must be .* may be 86400 s"):
            queue.cron("0 7 * * mon-fri", id="d", jitter="30h")(task)

    async def test_a_task_with_a_deduplication_key(self, queue: Queue) -> None:
        @queue.task(unique="report")
        async def once() -> None: ...

        expected = (
            r"unique='report': cannot be combined with a schedule of task 'once': .*unique=None"
        )
        with pytest.raises(InvalidOption, match=expected):
            await queue.schedules.upsert("a", once, every=60)
        made = await queue.schedules.upsert("a", once, every=60, options={"unique": None})
        assert made.task == "once"

    @pytest.mark.parametrize("id", ["", "a:b", "a\n", "x" * 256, 7, None])
    async def test_wrong_ids(self, queue: Queue, report: Any, id: Any) -> None:
        with pytest.raises(InvalidOption, match=r"^id="):
            await queue.schedules.upsert(id, report, every=60)

    async def test_wrong_tasks(self, queue: Queue, memory: Queue, report: Any) -> None:
        @memory.task
        def other() -> None: ...

        with pytest.raises(InvalidOption, match="must be a task of queue 'mail'"):
            await queue.schedules.upsert("a", other, every=60)
        with pytest.raises(InvalidOption, match="its options belong into options="):
            await queue.schedules.upsert("a", report.using(attempts=2), every=60)

    async def test_wrong_arguments(self, queue: Queue, report: Any) -> None:
        with pytest.raises(InvalidArgument):
            await queue.schedules.upsert("a", report, every=60, arguments={"nmae": "x"})
        with pytest.raises(InvalidArgument):
            await queue.schedules.upsert("a", report, every=60, arguments={"name": 7})


class TestVerbs:
    async def test_pause_and_resume(self, queue: Queue, report: Any) -> None:
        await queue.schedules.upsert("a", report, every=60)
        await queue.schedules.pause("a")
        found = await queue.schedules.get("a")
        assert found is not None
        assert (found.is_paused, found.next) == (True, None)
        await queue.schedules.resume("a")
        found = await queue.schedules.get("a")
        assert found is not None
        assert not found.is_paused
        assert found.next is not None
        assert found.next > now(queue)

    async def test_unknown_ids(self, queue: Queue) -> None:
        assert await queue.schedules.get("a") is None
        for call in (
            queue.schedules.pause, queue.schedules.resume, queue.schedules.run_now,
            queue.schedules.preview,
        ):  # fmt: skip
            with pytest.raises(ScheduleNotFound, match="queue 'mail' has no schedule 'a'"):
                await call("a")
        assert await queue.schedules.remove("a") == []

    async def test_remove(self, queue: Queue, report: Any) -> None:
        for id in "abc":
            await queue.schedules.upsert(id, report, every=60)
        assert await queue.schedules.remove("a", "x", "c", "a") == ["a", "c"]
        assert [schedule.id for schedule in await queue.schedules.list()] == ["b"]

    async def test_list_is_paged(self, queue: Queue, report: Any) -> None:
        for number in range(5):
            await queue.schedules.upsert(f"s{number}", report, every=60)
        page = await queue.schedules.list(offset=1, limit=2)
        assert [schedule.id for schedule in page] == ["s1", "s2"]

    async def test_run_now(self, queue: Queue, report: Any, slots: list[Slot | None]) -> None:
        await queue.schedules.upsert("a", report, every=3600, arguments={"name": "x"})
        await queue.schedules.pause("a")
        job = await queue.schedules.run_now("a")
        assert isinstance(job, Job)
        async with Worker(queue):
            assert await job.result(timeout=30) == "x"
        assert slots == [Slot(now(queue))]

    async def test_late(self, queue: Queue, report: Any, clock: ManualClock) -> None:
        await queue.schedules.upsert("a", report, every=3600)
        await queue.schedules.upsert("b", report, every=60, start=now(queue) + HOUR)
        clock.advance(100)
        assert [schedule.id for schedule in await queue.schedules.late("99s")] == ["a"]
        assert await queue.schedules.late("101s") == []
        (late,) = await queue.schedules.late()
        assert late.late_by(now(queue)) == timedelta(seconds=100)
        found = await queue.schedules.get("b")
        assert found is not None
        assert found.late_by(now(queue)) is None

    def test_sync(self, url: str) -> None:
        queue = Queue("mail", url)

        @queue.task
        def report() -> None: ...

        schedules = queue.sync.schedules
        made = schedules.upsert("a", report, cron="0 0 1 1 *")
        assert [made] == schedules.list()
        schedules.pause("a")
        schedules.resume("a")
        assert made == schedules.get("a")
        assert len(schedules.preview("a")) == 10
        assert schedules.run_now("a").state is State.WAITING
        assert schedules.late() == []
        assert schedules.prune() == []
        assert schedules.remove("a") == ["a"]
        queue.sync.close()


class TestPreview:
    async def test_an_interval(self, queue: Queue, report: Any) -> None:
        await queue.schedules.upsert("a", report, every=60)
        first = now(queue)
        expected = [first + timedelta(minutes=number) for number in range(3)]
        assert await queue.schedules.preview("a", 3) == expected

    @pytest.mark.parametrize(
        ("missed", "minutes"),
        [("last", [1, 5, 6]), ("skip", [5, 6, 7]), ("all", [1, 2, 3])],
    )
    async def test_a_late_schedule(
        self, queue: Queue, clock: ManualClock, report: Any, missed: Any, minutes: list[int]
    ) -> None:
        """The slots are those that get runs."""
        start = now(queue) + timedelta(minutes=1)
        await queue.schedules.upsert("a", report, every=60, start=start, missed=missed)
        clock.advance(4 * 60 + 5)
        expected = [start + timedelta(minutes=minute - 1) for minute in minutes]
        assert await queue.schedules.preview("a", 3) == expected

    async def test_a_pattern_in_its_time_zone(self, queue: Queue, report: Any) -> None:
        zone = ZoneInfo("Europe/Madrid")
        start = datetime(2030, 3, 30, tzinfo=zone)
        await queue.schedules.upsert(
            "a", report, cron="30 2 * * *", tz="Europe/Madrid", start=start
        )
        found = await queue.schedules.preview("a", 3)
        assert [f"{slot:%d %H:%M %Z}" for slot in found] == [
            "30 02:30 CET", "31 03:30 CEST", "01 02:30 CEST",
        ]  # fmt: skip

    async def test_it_ends_with_the_schedule(self, queue: Queue, report: Any) -> None:
        await queue.schedules.upsert("limit", report, every=60, limit=2)
        await queue.schedules.upsert("end", report, every=60, end=now(queue) + HOUR)
        assert len(await queue.schedules.preview("limit")) == 2
        assert len(await queue.schedules.preview("end", 100)) == 61

    async def test_a_paused_one(self, queue: Queue, report: Any, clock: ManualClock) -> None:
        await queue.schedules.upsert("a", report, every=60)
        await queue.schedules.pause("a")
        clock.advance(90)
        (first, _) = await queue.schedules.preview("a", 2)
        await queue.schedules.resume("a")
        found = await queue.schedules.get("a")
        assert found is not None
        assert found.next == first


class TestDeclared:
    async def test_they_are_above_a_task(self, queue: Queue) -> None:
        @queue.cron("0 7 * * mon-fri", tz="Europe/Madrid", missed="skip")
        @queue.every("10m", id="often", arguments={"name": "x"}, attempts=5)
        @queue.task
        async def send(name: str = "all") -> str:
            return name

        assert await send("direct") == "direct"
        assert list(queue.schedules.declared) == ["often", "send"]
        new = queue.schedules.make_declared(queue.schedules.declared["often"])
        assert (new.id, new.task, new.data, new.is_declared) == (
            "often",
            "send",
            '{"name":"x"}',
            True,
        )
        assert new.options.attempts == 5
        new = queue.schedules.make_declared(queue.schedules.declared["send"])
        assert (new.rule.cron, new.rule.tz, new.policy.missed) == (
            "0 7 * * mon-fri", "Europe/Madrid", "skip",
        )  # fmt: skip

    def test_mistakes_are_found_at_once(self, queue: Queue) -> None:
        with pytest.raises(InvalidOption, match="cron='0 25"):

            @queue.cron("0 25 * * *")
            @queue.task
            def one() -> None: ...

        with pytest.raises(InvalidOption, match=r"above @queue\.task$"):

            @queue.every("1m")  # type: ignore[type-var]
            def two() -> None: ...

        with pytest.raises(InvalidOption, match=r"id=.three.: must be unique .*set another one"):

            @queue.every("1m")
            @queue.every("2m")
            @queue.task
            def three() -> None: ...

    async def test_wrong_arguments_are_found_when_a_worker_starts(self, queue: Queue) -> None:
        @queue.every("1m", arguments={"nmae": 1})
        @queue.task
        def one(name: int = 0) -> None: ...

        with pytest.raises(InvalidArgument, match="nmae"):
            await Worker(queue).start()

    def test_a_producer_needs_no_croniter(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hasten.jobs._cron.is_croniter_installed", lambda: False)

        @queue.cron("0 7 * * *")
        @queue.task
        def one() -> None: ...

        assert list(queue.schedules.declared) == ["one"]

    async def test_those_that_are_no_longer_declared_are_pruned(
        self, store: Store, queue: Queue
    ) -> None:
        before = Queue("mail", store)

        @before.every("1m", id="gone")
        @before.every("1m", id="kept")
        @before.task
        def one() -> None: ...

        for declaration in before.schedules.declared.values():
            new = before.schedules.make_declared(declaration)
            await before.engine.upsert_schedule("mail", new, now_ms=0)
        await before.schedules.upsert("by hand", "one", every=60)

        @queue.every("1m", id="kept")
        @queue.task(name="one")
        def now_one() -> None: ...

        found = {schedule.id: schedule for schedule in await queue.schedules.list()}
        assert {id for id, each in found.items() if each.no_longer_declared} == {"gone"}
        assert {id for id, each in found.items() if each.is_declared} == {"gone", "kept"}
        assert await queue.schedules.prune() == ["gone"]
        assert await queue.schedules.prune() == []
        assert {schedule.id for schedule in await queue.schedules.list()} == {"kept", "by hand"}

    async def test_a_program_without_tasks_prunes_nothing(self, elsewhere: Queue) -> None:
        with pytest.raises(UsageError, match="import the modules that define its tasks"):
            await elsewhere.schedules.prune()


class TestSlot:
    async def test_a_handler_gets_its_slot(
        self, queue: Queue, report: Any, slots: list[Slot | None], clock: ManualClock
    ) -> None:
        first = now(queue)
        await queue.schedules.upsert("a", report, every=60)
        async with Worker(queue):
            await until(lambda: len(slots) == 1)
            clock.advance(60)
            await until(lambda: len(slots) == 2)
        clock.advance(600)
        async with Worker(queue):
            await until(lambda: len(slots) == 3)
        minute = timedelta(minutes=1)
        assert slots == [
            Slot(first),
            Slot(first + minute, first),
            Slot(first + 2 * minute, first + minute, missed=9),
        ]

    async def test_all_attempts_get_the_same_slot(self, queue: Queue, clock: ManualClock) -> None:
        found: list[tuple[int, Slot]] = []

        @queue.task(attempts=3)
        async def fail(ctx: Context, slot: Slot) -> None:
            found.append((ctx.attempt, slot))
            raise ValueError

        await queue.schedules.upsert("a", fail, every=3600)
        async with Worker(queue):
            await until(lambda: len(found) == 3)
        assert [attempt for attempt, _ in found] == [1, 2, 3]
        assert len({slot for _, slot in found}) == 1

    async def test_a_handler_in_a_thread(self, queue: Queue) -> None:
        found: list[Slot] = []

        @queue.task
        def note(slot: Slot) -> None:
            found.append(slot)

        await queue.schedules.upsert("a", note, every=3600)
        async with Worker(queue):
            await until(lambda: found)
        assert found == [Slot(now(queue))]

    async def test_a_handler_in_a_process(self) -> None:
        queue = process_tasks.queue
        async with Worker(queue, handler_processes=1):
            made = await queue.schedules.upsert("slots", process_tasks.tell_slot, every=3600)
            assert made.next is not None
            job = await queue.get(f"repeat:slots:{round(made.next.timestamp() * 1000)}")
            assert job is not None
            assert await job.result(timeout=30) == [made.next.isoformat(), "None", "0"]
        await queue.aclose()

    async def test_without_a_schedule_it_is_when_the_job_was_added(
        self, queue: Queue, report: Any, slots: list[Slot | None], clock: ManualClock
    ) -> None:
        added = now(queue)
        job = await report.using(delay=60).enqueue("x")
        clock.advance(60)
        async with Worker(queue):
            assert await job.result(timeout=30) == "x"
        assert slots == [Slot(added)]


async def test_a_worker_runs_a_schedule_of_another_process(
    store: Store, elsewhere: Queue, queue: Queue, report: Any, slots: list[Slot | None]
) -> None:
    """It is woken by the new schedule."""
    async with Worker(queue):
        await asyncio.sleep(0)
        await elsewhere.schedules.upsert("a", "report", every=3600)
        await until(lambda: len(slots) == 1)
