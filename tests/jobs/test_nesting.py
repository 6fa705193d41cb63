"""JSON that is nested too deeply to be decoded fails its own job only."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from hasten.jobs import Job, Queue, State, Worker
from hasten.jobs import _options as options
from hasten.jobs._options import Options, decode_options
from hasten.jobs._record import ClaimRequest, Completed, Failed, JobTemplate, NewJob, Progress
from hasten.ratelimit._http.addresses import AddressKeys
from hasten.ratelimit._http.proxies import Proxies
from tests.jobs.eventually import fails
from tests.servers.redis import shared_redis

DEEP = "[" * 100_000 + "]" * 100_000

# Some of these are valid to SQLite and too deep for Python.
DEPTHS = range(900, 1_010, 10)


async def add(queue: Queue, data: str = "{}", opts: str = "{}") -> Job[Any]:
    """Add a job as another program would."""
    new = NewJob("mail", JobTemplate("send", opts, Options()), data)
    (added,) = await queue.engine.add([new], now_ms=queue.clock.now_ms())
    job = await queue.get(added.id)
    assert job is not None
    return job


async def run(queue: Queue, job: Job[Any]) -> str:
    """Run a job together with a valid one, and return the error of the job."""

    @queue.task
    async def send(to: object = None) -> None: ...

    healthy = await send.enqueue()
    async with Worker(queue, grace=0):
        error = await fails(job.result(timeout=30))
        await healthy.result(timeout=30)
    assert (await job.refresh()).record.attempts_started == 1
    return error


async def test_options_fail_their_job_once(queue: Queue) -> None:
    job = await add(queue, opts='{"hasten":' + DEEP + "}")
    assert await run(queue, job) == "the options of the job cannot be read: it is nested too deeply"


async def test_data_fails_its_job_once(queue: Queue) -> None:
    job = await add(queue, '{"to":' + DEEP + "}")
    reason = await run(queue, job)
    assert reason == "the data of the job does not fit the task 'send': it is nested too deeply"


async def test_too_much_memory_fails_once(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    class Decoder:
        def decode(self, text: str) -> object:
            if "large" in text:
                raise MemoryError
            return real.decode(text)

    real = options._decoder
    monkeypatch.setattr(options, "_decoder", Decoder())
    job = await add(queue, opts='{"large":1}')
    reason = await run(queue, job)
    assert (
        reason
        == "the options of the job cannot be read: decoding it takes more memory than available"
    )


async def test_values_raise_what_other_invalid_json_raises(queue: Queue) -> None:
    job = await add(queue, DEEP)
    now_ms = queue.clock.now_ms()
    await queue.engine.claim("mail", ClaimRequest(1, "t", "w", 60_000), now_ms=now_ms)
    await queue.engine.update("mail", [Progress(job.id, DEEP)], now_ms=now_ms)
    await queue.engine.settle("mail", [Completed(job.id, "t", DEEP)], None, now_ms=now_ms)
    await job.refresh()
    for name in ("data", "progress", "value"):
        with pytest.raises(ValueError, match="nested too deeply"):
            getattr(job, name)
    with pytest.raises(ValueError, match="nested too deeply"):
        await job.result(timeout=30)

    @queue.task
    async def send() -> list[int]:  # its type is known now
        return []

    with pytest.raises(ValueError, match="nested too deeply"):
        await job.result(timeout=30)


async def fail_all(queue: Queue, count: int) -> list[str]:
    """Run that many jobs, and return the ids of the failed ones."""
    ids = [(await add(queue)).id for _ in range(count)]
    now_ms = queue.clock.now_ms()
    await queue.engine.claim("mail", ClaimRequest(count, "t", "w", 60_000), now_ms=now_ms)
    failures = [Failed(id, "t", "no", "trace") for id in ids]
    await queue.engine.settle("mail", failures, None, now_ms=now_ms)
    return ids


@pytest.mark.parametrize("url", ["redis"], indirect=True)
async def test_traces_on_redis_are_left_out(queue: Queue, url: str) -> None:
    ids = await fail_all(queue, len(DEPTHS) + 1)
    with shared_redis().client() as client:
        for id, depth in zip(ids[1:], DEPTHS, strict=True):
            key = f"{url.partition('prefix=')[2]}:mail:{id}"
            client.hset(key, "stacktrace", "[" * depth + "]" * depth)
    listed = await queue.jobs(State.FAILED)
    assert [job.tracebacks for job in listed] == [["trace"], *[[]] * len(DEPTHS)]


async def test_traces_and_events_on_sqlite_are_left_out(tmp_path: Path) -> None:
    queue = Queue("mail", f"sqlite:///{tmp_path}/jobs.db")
    start = (await queue.engine.events("mail", after=None)).cursor
    ids = await fail_all(queue, len(DEPTHS) + 1)
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection, connection:
        events = connection.execute("SELECT seq FROM hasten_events ORDER BY seq").fetchall()
        for id, depth, (seq,) in zip(ids[1:], DEPTHS, events, strict=False):
            deep = "[" * depth + "]" * depth
            connection.execute("UPDATE hasten_jobs SET stacktrace = ? WHERE seq = ?", (deep, id))
            body = json.dumps([["added", ["7"]]])
            connection.execute(
                "UPDATE hasten_events SET body = ? WHERE seq = ?", (body.replace('"7"', deep), seq)
            )
    listed = await queue.jobs(State.FAILED)
    assert [job.tracebacks for job in listed] == [["trace"], *[[]] * len(DEPTHS)]
    page = await queue.engine.events("mail", after=start)
    assert [event.job_id for event in page.events if event.kind == "failed"] == ids
    await queue.aclose()


def test_long_texts_are_not_remembered() -> None:
    """Stores and clients may send any number of long texts."""
    tracemalloc.start()
    addresses, proxies = AddressKeys(), Proxies(["10.0.0.0/8"])
    before, _ = tracemalloc.get_traced_memory()
    for number in range(200):
        text = f"{number}" + "x" * 20_000
        decode_options(json.dumps({"jobId": text}))
        assert addresses.get_key(text) == text
        assert not proxies._is_trusted(text)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 500_000
