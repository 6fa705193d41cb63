"""Texts are read as they were written."""

from __future__ import annotations

import json

import pytest

from hasten.jobs._engine import VALUE_BYTES, Engine
from hasten.jobs._record import Completed, Failed, LogLine, Progress, Retry
from hasten.jobs._states import State
from tests.contract.steps import (
    NOW,
    QUEUE,
    claim,
    cursor,
    happened_to,
    ids_in,
    job,
    new_job,
    settled,
    start,
    started,
    take,
)

TEXTS = {
    "plain": "hello",
    "empty": "",
    "unicode": "Grüße, мир, 你好, שלום",
    "emoji": "🐇👩‍🚀🏳️‍🌈",
    "quotes": """it's "quoted" \\ `back` '); DROP TABLE hasten_jobs; --""",
    "lines": "one\ntwo\r\nthree\ttab\u2028\u0085",
    "controls": "\x01\x1b[31m\x7f",
    "json": '{"a": [1, null, true]} null 17 %s ?1 :x $y',
    "nul": "before\0after",
    "large": "x€" * 300_000,
}


@pytest.fixture(params=list(TEXTS.values()), ids=list(TEXTS))
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestTexts:
    async def test_of_data_and_result(self, engine: Engine, text: str) -> None:
        """JSON keeps its bytes, because other languages format it differently."""
        data, result = json.dumps({"x": text}, ensure_ascii=False), json.dumps([text])
        await engine.add([new_job("a", data=data)], now_ms=NOW)
        (lease,) = (await engine.claim(QUEUE, claim(), now_ms=NOW)).leases
        assert lease.job.data == data
        now = await cursor(engine)
        await settled(engine, Completed("a", "t1", result))
        record = await job(engine, "a")
        assert (record.data, record.result) == (data, result)
        (event,) = await happened_to(engine, "a", now)
        assert event.value == (result if len(result.encode()) <= VALUE_BYTES else None)

    async def test_of_errors_and_tracebacks(self, engine: Engine, text: str) -> None:
        """Exceptions may have any text."""
        await start(engine, "a")
        await settled(engine, Retry("a", "t1", text, text, 0))
        assert (await job(engine, "a")).error == text
        await take(engine, 1, "t2")
        now = await cursor(engine)
        await settled(engine, Failed("a", "t2", text, text))
        record = await job(engine, "a")
        assert record.error == text
        assert record.tracebacks == [text, text]
        (event,) = await happened_to(engine, "a", now)
        assert event.error == text

    async def test_of_logs_and_progress(self, engine: Engine, text: str) -> None:
        now = await started(engine, "a")
        value = json.dumps(text)
        await engine.update(QUEUE, [LogLine("a", text, 10), Progress("a", value)], now_ms=NOW)
        assert await engine.logs(QUEUE, "a") == [text]
        assert (await job(engine, "a")).progress == value
        (event,) = await happened_to(engine, "a", now)
        assert event.value == (value if len(value.encode()) <= VALUE_BYTES else None)


NAMES = [text for kind, text in TEXTS.items() if kind not in {"empty", "nul", "large"}]


class TestNames:
    @pytest.mark.parametrize("name", [*NAMES, "a" * 512, " ", "*", "%", "_", "null", "e\u0301"])
    async def test_of_queues_jobs_and_ids(self, engine: Engine, name: str) -> None:
        """Stores treat them as plain text. `Queue` refuses colons."""
        name = name.replace(":", ";")
        await engine.add([new_job(name, queue=name, name=name)], now_ms=NOW)
        assert await engine.queues() == [name]
        assert await ids_in(engine, State.WAITING, name) == [name]
        assert (await job(engine, name, name)).name == name
        (lease,) = (await engine.claim(name, claim(1, name), now_ms=NOW)).leases
        assert (lease.job.queue, lease.job.id, lease.job.name) == (name, name, name)
        assert engine.renew(name, {name: name}, lease_ms=10, now_ms=NOW) == set()
        assert (
            await engine.settle(name, [Completed(name, name, "1")], None, now_ms=NOW)
        ).lost == []
        assert await engine.remove(name, [name], now_ms=NOW) == [State.COMPLETED]

    async def test_that_look_alike_are_different(self, engine: Engine) -> None:
        """There is no case folding, normalization or trimming."""
        ids = ["a", "A", "á", "a\u0301", " a", "a ", "ａ"]
        answers = await engine.add([new_job(id) for id in ids], now_ms=NOW)
        assert not any(answer.existing for answer in answers)
        assert await take(engine, 10) == ids
        await engine.add([new_job(queue=id) for id in ids], now_ms=NOW)
        assert await engine.queues() == sorted([*ids, QUEUE])


class TestNumbers:
    async def test_of_times_are_whole_and_large(self, engine: Engine) -> None:
        """Now, and in a hundred years."""
        for id, now_ms in [("a", 1_800_000_000_000), ("b", 5_000_000_000_000)]:
            await engine.add([new_job(id, delay_ms=1)], now_ms=now_ms)
            record = await job(engine, id)
            assert (record.created_ms, record.due_ms) == (now_ms, now_ms + 1)

    async def test_of_zero_are_not_nothing(self, engine: Engine) -> None:
        """A manual clock may start at 0."""
        await engine.add([new_job("a")], now_ms=0)
        await engine.claim(QUEUE, claim(), now_ms=0)
        await settled(engine, Completed("a", "t1", "0"), now_ms=0)
        record = await job(engine, "a")
        assert (record.created_ms, record.started_ms, record.finished_ms) == (0, 0, 0)
        assert record.result == "0"
