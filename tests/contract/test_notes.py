from __future__ import annotations

from hasten.jobs.engine import Engine
from hasten.jobs.options import KEEP_NONE
from hasten.jobs.record import Completed, LogLine, Note, Progress
from hasten.jobs.states import State
from tests.contract.steps import NOW, QUEUE, add, job, new_job, settled, start


async def note(engine: Engine, *notes: Note) -> None:
    await engine.note(QUEUE, notes, now_ms=NOW)


class TestProgress:
    async def test_is_the_latest(self, engine: Engine) -> None:
        await start(engine, "a", "b")
        await note(engine, Progress("a", "1"), Progress("b", '{"of":2}'), Progress("a", "2"))
        assert (await job(engine, "a")).progress == "2"
        assert (await job(engine, "b")).progress == '{"of":2}'

    async def test_stays_with_the_finished_job(self, engine: Engine) -> None:
        await start(engine, "a")
        await note(engine, Progress("a", "100"))
        await settled(engine, Completed("a", "t1", "1"))
        assert (await job(engine, "a")).progress == "100"


class TestLogs:
    async def test_are_kept_in_order(self, engine: Engine) -> None:
        await start(engine, "a", "b")
        await note(engine, LogLine("a", "1", 10), LogLine("b", "other", 10), LogLine("a", "2", 10))
        await note(engine, LogLine("a", "3", 10))
        assert await engine.logs(QUEUE, "a") == ["1", "2", "3"]
        assert await engine.logs(QUEUE, "b") == ["other"]

    async def test_keep_the_newest(self, engine: Engine) -> None:
        """A handler that logs in a loop must not fill the store."""
        await start(engine, "a", "b")
        await note(engine, *(LogLine("a", str(n), 3) for n in range(10)), LogLine("b", "x", 3))
        assert await engine.logs(QUEUE, "a") == ["7", "8", "9"]
        await note(engine, LogLine("a", "10", 2))
        assert await engine.logs(QUEUE, "a") == ["9", "10"]
        assert await engine.logs(QUEUE, "b") == ["x"]

    async def test_of_a_job_that_is_not_there_are_none(self, engine: Engine) -> None:
        assert await engine.logs(QUEUE, "gone") == []
        assert await engine.logs(QUEUE, "17") == []
        await add(engine, "a", queue="other")
        assert await engine.logs(QUEUE, "a") == []

    async def test_outlive_the_finish(self, engine: Engine) -> None:
        """They are read when somebody asks why."""
        await start(engine, "a")
        await note(engine, LogLine("a", "line", 10))
        await settled(engine, Completed("a", "t1", "1"))
        assert await engine.logs(QUEUE, "a") == ["line"]

    async def test_are_deleted_with_their_job(self, engine: Engine) -> None:
        """In each of the ways in which a job goes; a new job of that id starts without."""
        await start(engine, *"abcd")
        await note(engine, *(LogLine(id, "old", 10) for id in "abcd"))
        await settled(engine, Completed("a", "t1", "1", KEEP_NONE))
        await settled(engine, Completed("b", "t1", "1"))
        await engine.remove(QUEUE, ["b"], now_ms=NOW)
        await settled(engine, Completed("c", "t1", "1"))
        await engine.purge(QUEUE, [State.COMPLETED], before_ms=None, limit=None, now_ms=NOW)
        await engine.forget(QUEUE)
        assert [await engine.logs(QUEUE, id) for id in "abcd"] == [[]] * 4
        await add(engine, *"abcd")
        assert [await engine.logs(QUEUE, id) for id in "abcd"] == [[]] * 4


class TestNotes:
    async def test_of_jobs_that_are_gone_are_dropped(self, engine: Engine) -> None:
        """A note may come late; the others of its call are stored."""
        await start(engine, "a")
        await note(
            engine,
            Progress("gone", "1"),
            LogLine("gone", "line", 10),
            Progress("17", "1"),
            LogLine("17", "line", 10),
            Progress("a", "5"),
        )
        assert await engine.get(QUEUE, ["gone", "17"]) == [None, None]
        assert (await job(engine, "a")).progress == "5"
        assert await engine.logs(QUEUE, "gone") == []

    async def test_go_by_ids_and_not_by_rows(self, engine: Engine) -> None:
        """A job with an id of its own does not answer to a number."""
        await start(engine, "a")
        numbers = [str(n) for n in range(10)]
        await note(engine, *(Progress(n, "1") for n in numbers))
        await note(engine, *(LogLine(n, "line", 10) for n in numbers))
        assert (await job(engine, "a")).progress is None
        assert await engine.logs(QUEUE, "a") == []

    async def test_stay_within_their_queue(self, engine: Engine) -> None:
        (answer,) = await engine.add([new_job(queue="other")], now_ms=NOW)
        await note(engine, Progress(answer.id, "1"), LogLine(answer.id, "line", 10))
        assert (await job(engine, answer.id, "other")).progress is None
        assert await engine.logs("other", answer.id) == []

    async def test_of_no_number_do_nothing(self, engine: Engine) -> None:
        await note(engine)
