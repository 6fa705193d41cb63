"""Jobs on Redis with damaged or unusual fields, as other programs may write them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hasten.errors import JobFailed, JobNotFound, StoreError, StoreRejected
from hasten.jobs import Job, Queue, State, Worker
from hasten.jobs._record import ClaimRequest
from hasten.testing import ManualClock
from tests.jobs.eventually import until_true
from tests.servers.redis import shared_redis

pytestmark = pytest.mark.parametrize("url", ["redis"], indirect=True)

ODD_NUMBERS = ["1.5", "nan", "inf", "-inf", "-1e300", "1e25", "9" * 400, "many", ""]


class Keys:
    """Reads and damages the keys of a queue."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.redis = client
        self._base = f"{prefix}:mail:"

    def __call__(self, suffix: str) -> str:
        return self._base + suffix

    def replace(self, suffix: str) -> None:
        """Replace a key by one of a type that no script can read."""
        key = self(suffix)
        self.redis.delete(key)
        self.redis.xadd(key, {"a": "stream"})


@pytest.fixture
def keys(url: str) -> Iterator[Keys]:
    with shared_redis().client() as client:
        yield Keys(client, url.partition("prefix=")[2])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.ERROR, "hasten")
    return caplog


async def three(queue: Queue, **options: Any) -> list[Job[Any]]:
    """Add three jobs. Tests damage the second one."""

    @queue.task
    async def double(number: int) -> int:
        return 2 * number

    return [await queue.add("double", {"number": n}, **options) for n in range(3)]


async def three_with_a_run(queue: Queue, keys: Keys, scheduler: str, opts: str) -> list[Job[Any]]:
    """Add three jobs. The second one is the pending run of a scheduler."""
    first, second, third = await three(queue)
    run_id = f"repeat:{scheduler}:5"
    keys.redis.rename(keys(second.id), keys(run_id))
    keys.redis.linsert(keys("wait"), "before", second.id, run_id)
    keys.redis.lrem(keys("wait"), 1, second.id)
    keys.redis.hset(keys(run_id), mapping={"rjk": scheduler, "opts": opts})
    keys.redis.zadd(keys("repeat"), {scheduler: 5})
    run = await queue.get(run_id)
    assert run is not None
    return [first, run, third]


async def run_all(queue: Queue, jobs: list[Job[Any]]) -> list[Any]:
    """Run all jobs with a worker, and return the result or the error of each."""
    async with Worker(queue, grace=0):
        results = (job.result(timeout=30) for job in jobs)
        return await asyncio.gather(*results, return_exceptions=True)


async def ends_of_all(queue: Queue) -> dict[State, int]:
    """Run all jobs with a worker, and return the ids of those that are kept, by state."""

    async def is_done() -> bool:
        counts = await queue.counts()
        return counts[State.WAITING] == counts[State.ACTIVE] == 0

    async with Worker(queue, grace=0):
        await until_true(is_done)
    return {state: count for state, count in (await queue.counts()).items() if count}


@pytest.mark.parametrize("odd", ODD_NUMBERS)
@pytest.mark.parametrize("field", ["timestamp", "delay", "priority", "atm", "ats", "stc"])
async def test_an_odd_number_costs_no_job(queue: Queue, keys: Keys, field: str, odd: str) -> None:
    """A worker that failed on it would claim and lose the same jobs again and again."""
    jobs = await three(queue)
    keys.redis.hset(keys(jobs[1].id), field, odd)
    assert len(await queue.jobs(State.WAITING)) == 3
    assert await run_all(queue, jobs) == [0, 2, 4]
    found = await jobs[1].refresh()
    assert found.created_at.year < 10_000
    assert found.priority <= 2_097_151


@pytest.mark.parametrize("odd", ODD_NUMBERS)
async def test_odd_priorities_stay(queue: Queue, keys: Keys, clock: ManualClock, odd: str) -> None:
    """The score is computed from the priority each time."""
    fails = 1

    @queue.task(attempts=3, delay=5)
    async def fail_once() -> int:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise ValueError("no")
        return 1

    job = await fail_once.enqueue()
    keys.redis.hset(keys(job.id), "priority", odd)
    clock.advance(5)
    assert await run_all(queue, [job]) == [1]


UNREADABLE = {
    "no json": "the options of the job cannot be read: ",
    "[]": "the options of the job cannot be read: ",
    '{"attempts":{}}': "the options of the job cannot be read: attempts={}: must be a number",
    '{"backoff":' + "[" * 5000: "the options of the job cannot be read: ",
}


@pytest.mark.parametrize("opts", list(UNREADABLE))
async def test_unreadable_options_fail_with_a_reason(queue: Queue, keys: Keys, opts: str) -> None:
    jobs = await three(queue)
    keys.redis.hset(keys(jobs[1].id), "opts", opts)
    first, second, last = await run_all(queue, jobs)
    assert (first, last) == (0, 4)
    assert isinstance(second, JobFailed)
    assert second.error.startswith(UNREADABLE[opts])


@pytest.mark.parametrize("wire", ["1e25", "1e400", "-1", "1.5", '"5"', "1" * 400])
async def test_any_number_is_a_rule_of_keeping(queue: Queue, keys: Keys, wire: str) -> None:
    """Number.MAX_VALUE, for example, means no limit in Node."""
    jobs = await three(queue)
    opts = '{"attempts":1,"removeOnComplete":N,"removeOnFail":{"count":N,"age":N},"kl":N}'
    keys.redis.hset(keys(jobs[1].id), "opts", opts.replace("N", wire))
    assert await ends_of_all(queue) == {State.COMPLETED: 3 if wire != "1.5" else 2}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (["name"], r"this worker has no task ''"),
        (["data"], r"the data of the job does not fit the task 'double'"),
        (["opts", "timestamp", "delay", "priority"], None),
    ],
)
async def test_missing_fields_fail_no_other_job(
    queue: Queue, keys: Keys, fields: list[str], reason: str | None
) -> None:
    jobs = await three(queue)
    keys.redis.hdel(keys(jobs[1].id), *fields)
    first, second, last = await run_all(queue, jobs)
    assert (first, last) == (0, 4)
    if reason is None:
        assert second == 2
    else:
        assert isinstance(second, JobFailed)
        assert reason in second.error


@pytest.mark.parametrize("how", ["delete", "replace"])
async def test_an_id_without_a_job_is_passed_over(queue: Queue, keys: Keys, how: str) -> None:
    """No worker claims it again and again."""
    jobs = await three(queue)
    if how == "delete":
        keys.redis.delete(keys(jobs[1].id))
    else:
        keys.replace(jobs[1].id)
    assert [job.id for job in await queue.jobs(State.WAITING)] == [jobs[0].id, jobs[2].id]
    first, second, last = await run_all(queue, jobs)
    assert (first, last) == (0, 4)
    assert isinstance(second, JobNotFound)
    assert set((await queue.counts()).items()) >= {(State.WAITING, 0), (State.ACTIVE, 0)}


@pytest.mark.parametrize("state", [State.DELAYED, State.PRIORITIZED])
async def test_an_id_without_a_job_is_passed_over_elsewhere(
    queue: Queue, keys: Keys, clock: ManualClock, state: State
) -> None:
    jobs = await three(queue, **({"delay": 5} if state is State.DELAYED else {"priority": 5}))
    keys.replace(jobs[1].id)
    assert [job.id for job in await queue.jobs(state)] == [jobs[0].id, jobs[2].id]
    clock.advance(5)
    assert await run_all(queue, [jobs[0], jobs[2]]) == [0, 4]


@pytest.mark.parametrize("stored", ["no json", '{"a":1}', "[1e999]", "[null,7,{}]", "[" * 5000])
async def test_odd_traces_are_dropped(queue: Queue, keys: Keys, stored: str) -> None:
    @queue.task(attempts=2)
    async def fail(number: int) -> None:
        raise ValueError(f"no {number}")

    jobs = [await fail.enqueue(number) for number in range(3)]
    keys.redis.hset(keys(jobs[1].id), "stacktrace", stored)
    assert (await jobs[1].refresh()).tracebacks == []
    for job, error in zip(jobs, await run_all(queue, jobs), strict=True):
        assert isinstance(error, JobFailed)
        assert len((await job.refresh()).tracebacks) == 2


@pytest.mark.parametrize(
    ("limit", "kept"), [("-1", 0), ("0", 0), ("1", 1), ("1.5", 1), ("1e400", 3), ('"x"', 3)]
)
async def test_an_odd_limit_of_traces_ends(queue: Queue, keys: Keys, limit: str, kept: int) -> None:
    """An endless loop in a script would block the whole server."""

    @queue.task(attempts=3)
    async def fail() -> None:
        raise ValueError("no")

    job = await fail.enqueue()
    keys.redis.hset(keys(job.id), "opts", '{"attempts":3,"stackTraceLimit":' + limit + "}")
    (error,) = await run_all(queue, [job])
    assert isinstance(error, JobFailed)
    assert len((await job.refresh()).tracebacks) == kept


PARENTS: dict[str, Callable[[Keys], dict[str, str]]] = {
    "no key": lambda keys: {"parentKey": "nonsense", "parent": "nonsense"},
    "of another type": lambda keys: {"parentKey": keys("p"), "parent": '{"fpof":true}'},
    "no object": lambda keys: {"parentKey": keys("p"), "parent": "[]"},
}


@pytest.mark.parametrize("parent", list(PARENTS))
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("keep", [True, False])
async def test_a_damaged_parent_does_not_keep_its_child_from_ending(
    queue: Queue, keys: Keys, log: pytest.LogCaptureFixture, parent: str, fails: bool, keep: bool
) -> None:
    @queue.task(keep_completed=keep, keep_failed=keep)
    async def end(number: int) -> int:
        if fails:
            raise ValueError("no")
        return number

    jobs = [await end.enqueue(number) for number in range(3)]
    keys.redis.hset(keys(jobs[1].id), mapping=PARENTS[parent](keys))
    for suffix in ("p", "p:dependencies", "p:processed", "p:unsuccessful", "p:failed"):
        keys.replace(suffix)
    kept = {State.FAILED if fails else State.COMPLETED: 3} if keep else {}
    assert await ends_of_all(queue) == kept
    if parent == "of another type":
        assert (
            f"queue mail: job {jobs[1].id}: cannot update its parent, scheduler or deduplication: "
            in log.text
        )


@pytest.mark.parametrize("de", [{"ttl": 1.5}, {"ttl": "x"}, {"ttl": 1e25}, 5])
@pytest.mark.parametrize("number", ["1e999", "-1", "1.5", '"x"', "null", "[]"])
async def test_the_follower_of_a_deduplicated_job_may_have_odd_options(
    queue: Queue, keys: Keys, de: object, number: str
) -> None:
    jobs = await three(queue)
    keys.redis.hset(keys(jobs[1].id), "deid", "only")
    opts = f'{{"delay":{number},"priority":{number},"de":{json.dumps(de)}}}'
    keys.redis.hset(
        keys("dn:only"), mapping={"name": "double", "data": '{"number":9}', "opts": opts}
    )
    keys.redis.set(keys("de:only"), jobs[1].id)
    assert await run_all(queue, jobs) == [0, 2, 4]
    (owner,) = [job for job in await _all(queue) if job.id not in {job.id for job in jobs}]
    assert owner.data == {"number": 9}


@pytest.mark.parametrize("damaged", ["de:only", "dn:only"])
async def test_damaged_deduplication_does_not_keep_its_job_from_ending(
    queue: Queue, keys: Keys, damaged: str
) -> None:
    jobs = await three(queue)
    keys.redis.hset(keys(jobs[1].id), "deid", "only")
    keys.replace(damaged)
    assert await run_all(queue, jobs) == [0, 2, 4]
    assert await queue.clean("completed", older_than=0) == [job.id for job in jobs]


@pytest.mark.parametrize("every", ["0", "0.1", "-5", "nan", "1e999"])
async def test_a_schedule_that_makes_no_sense_does_not_keep_its_job_from_running(
    queue: Queue, keys: Keys, log: pytest.LogCaptureFixture, every: str
) -> None:
    opts = {"repeat": {"every": 5, "count": 1}, "attempts": 1}
    jobs = await three_with_a_run(queue, keys, "often", json.dumps(opts))
    keys.redis.hset(keys("repeat:often"), mapping={"name": "double", "every": every})
    assert await run_all(queue, jobs) == [0, 2, 4]
    if every != "1e999":  # the retry is in the distant future
        assert "its scheduler often repeats every" in log.text


@pytest.mark.parametrize(
    "opts",
    [
        '{"attempts":1,"repeat":{"pattern":"* * * * *","count":1},"prevMillis":1e300}',
        '{"attempts":1,"repeat":{"pattern":"nonsense"}}',
        '{"attempts":1,"repeat":{"pattern":7}}',
    ],
)
async def test_an_odd_cron_pattern_does_not_keep_its_job_from_running(
    queue: Queue, keys: Keys, log: pytest.LogCaptureFixture, opts: str
) -> None:
    jobs = await three_with_a_run(queue, keys, "odd", opts)
    assert await run_all(queue, jobs) == [0, 2, 4]
    assert "queue mail: cannot add the next run of scheduler odd" in log.text


@pytest.mark.parametrize("odd", ODD_NUMBERS)
@pytest.mark.parametrize("field", ["concurrency", "opts.maxLenEvents", "max", "duration"])
async def test_odd_settings_stop_no_queue(queue: Queue, keys: Keys, field: str, odd: str) -> None:
    jobs = await three(queue)
    settings = {"max": "3", "duration": "1"} if field in {"max", "duration"} else {}
    keys.redis.hset(keys("meta"), mapping={**settings, field: odd})
    assert await run_all(queue, jobs) == [0, 2, 4]


@pytest.mark.parametrize("score", ["inf", "-inf", "1e300", "9007199254740993"])
async def test_odd_due_times_stop_no_worker_or_list(queue: Queue, keys: Keys, score: str) -> None:
    jobs = await three(queue)
    later = await queue.add("double", {"number": 7}, delay=60)
    keys.redis.zadd(keys("delayed"), {later.id: score})
    assert [job.id for job in await queue.jobs(State.DELAYED)] == [later.id]
    assert (await later.refresh()).record.due_ms is not None
    async with Worker(queue, grace=0):
        assert [await job.result(timeout=30) for job in jobs] == [0, 2, 4]
        keys.redis.zadd(keys("marker"), {"1": score})
        assert await (await queue.add("double", {"number": 5})).result(timeout=30) == 10


async def test_a_lock_of_another_type_loses_no_other_lease(queue: Queue, keys: Keys) -> None:
    """One call renews all leases. The damaged one counts as expired, and is created again."""
    jobs = await three(queue)
    keys.replace(f"{jobs[1].id}:lock")
    assert await run_all(queue, jobs) == [0, 2, 4]
    again = await queue.add_many([("double", {"number": 1})] * 3)
    await queue.engine.claim("mail", ClaimRequest(3, "t", "w", 60_000), now_ms=queue.clock.now_ms())
    keys.replace(f"{again[1].id}:lock")
    leases = {job.id: "t" for job in again}
    renew = queue.engine.renew
    lost = await asyncio.to_thread(renew, "mail", leases, lease_ms=60_000, now_ms=0)
    assert lost == set()
    assert keys.redis.get(keys(f"{again[1].id}:lock")) is not None


@pytest.mark.parametrize("how", ["replace", "unlocked"])
async def test_a_damaged_job_is_taken_back_as_none(queue: Queue, keys: Keys, how: str) -> None:
    """The workers of the other jobs have died, too."""
    jobs = await three(queue)
    await queue.engine.claim("mail", ClaimRequest(3, "t", "w", 60_000), now_ms=queue.clock.now_ms())
    for job in jobs:
        keys.redis.delete(keys(f"{job.id}:lock"))
    if how == "replace":
        keys.replace(jobs[1].id)
    else:
        keys.redis.hset(keys(jobs[1].id), "stc", "x")
    ids = await queue.engine.reclaim("mail", crash_limit=3, now_ms=queue.clock.now_ms())
    expected = [job.id for job in jobs if how != "replace" or job is not jobs[1]]
    assert ids == expected
    assert (await queue.counts())[State.ACTIVE] == 0


async def test_a_damaged_job_can_be_removed_with_the_others(queue: Queue, keys: Keys) -> None:
    jobs = await three(queue)
    for suffix in ("", ":dependencies", ":processed", ":failed", ":unsuccessful", ":logs"):
        keys.replace(jobs[1].id + suffix)
    assert await queue.get(jobs[1].id) is None
    assert not await queue.cancel(jobs[1].id)
    assert await queue.drain() == 3
    assert not keys.redis.exists(keys(jobs[1].id))


async def test_bogus_children_do_not_prevent_removal(queue: Queue, keys: Keys) -> None:
    jobs = await three(queue)
    keys.redis.sadd(keys(f"{jobs[0].id}:dependencies"), "nonsense")
    for suffix in (":dependencies", ":processed", ":failed", ":unsuccessful", ":logs"):
        keys.replace(jobs[1].id + suffix)
    assert await jobs[0].remove()
    assert await jobs[1].remove()
    assert [job.id for job in await queue.jobs(State.WAITING)] == [jobs[2].id]


@pytest.mark.parametrize(
    "damaged", ["meta", "wait", "active", "completed", "delayed", "prioritized", "repeat"]
)
async def test_a_damaged_queue_can_be_obliterated(queue: Queue, keys: Keys, damaged: str) -> None:
    """Obliterate works even then. All other calls say what is wrong."""
    await three(queue)
    keys.replace(damaged)
    await queue.obliterate(force=True)
    assert set((await queue.counts()).values()) == {0}
    jobs = await three(queue)
    assert await run_all(queue, jobs) == [0, 2, 4]


async def test_a_missing_permission_is_not_odd_data(queue: Queue, url: str, keys: Keys) -> None:
    """A worker must not fail its jobs because of it."""
    jobs = await three(queue)
    name = f"no-{keys('')}".strip(":")
    keys.redis.execute_command(
        "ACL", "SETUSER", name, "on", ">secret", "~*", "&*", "+@all", "-hmget", "-hset"
    )
    try:
        limited = Queue("mail", url.replace("redis://", f"redis://{name}:secret@"))
        with pytest.raises(StoreError) as caught:
            await run_claim(limited)
        assert not isinstance(caught.value, StoreRejected)
        await limited.aclose()
    finally:
        keys.redis.execute_command("ACL", "DELUSER", name)
    assert len(await queue.jobs(State.WAITING)) == len(jobs)


async def run_claim(queue: Queue) -> None:
    await queue.engine.claim("mail", ClaimRequest(3, "t", "w", 60_000), now_ms=0)


async def _all(queue: Queue) -> list[Job[Any]]:
    return [job for state in State for job in await queue.jobs(state)]
