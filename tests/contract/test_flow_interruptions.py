"""Parents whose run ends otherwise than its worker expects, and flows that change meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hasten.errors import InvalidOption, StoreRejected
from hasten.jobs._deduplication import Deduplication, DeduplicationMode
from hasten.jobs._engine import Engine
from hasten.jobs._options import Options
from hasten.jobs._record import (
    Completed,
    Failed,
    JobTemplate,
    NewJob,
    OnFailure,
    ParentLink,
    Parked,
)
from hasten.jobs._states import State
from tests.contract.engines import open_for_test
from tests.contract.steps import NOW, QUEUE, claim, counts, ids_in, job, new_job, settled, take

CHILDREN = "images"


@pytest.fixture
async def engine(kind: str, tmp_path: Path) -> AsyncIterator[Engine]:
    async with open_for_test(kind, tmp_path, one_slot=True) as engine:
        yield engine


def child(id: str, parent: str, on_failure: OnFailure = "fail") -> NewJob:
    plain = new_job(queue=CHILDREN)
    return NewJob(CHILDREN, plain.template, "{}", id, ParentLink(QUEUE, parent, on_failure))


def latest(data: str) -> NewJob:
    rule = Deduplication(DeduplicationMode.LATEST, "send:key")
    return NewJob(QUEUE, JobTemplate.of("send", Options(), now_ms=NOW, deduplication=rule), data)


async def fail_child(engine: Engine, id: str) -> None:
    await engine.settle(CHILDREN, [Failed(id, "kid", "no")], None, now_ms=NOW)


async def test_the_next_job_of_a_key_is_added_when_its_owner_fails_instead_of_waiting(
    engine: Engine,
) -> None:
    """The failed child is found when the owner of the key starts to wait for its children."""
    (owner,) = await engine.add([latest("1")], now_ms=NOW)
    assert await take(engine, 1, "t1") == [owner.id]
    await engine.add([latest("2")], now_ms=NOW)
    children = [child("a", owner.id, "continue"), child("b", owner.id)]
    await settled(engine, Parked(owner.id, "t1", children, 1))
    await engine.claim(CHILDREN, claim(2, "kid"), now_ms=NOW)
    await fail_child(engine, "a")
    assert await take(engine, 1, "t2") == [owner.id]
    await fail_child(engine, "b")
    await settled(engine, Parked(owner.id, "t2", children, 1))
    assert await counts(engine) == {State.FAILED: 1, State.WAITING: 1}
    (next_id,) = await ids_in(engine, State.WAITING)
    assert (await job(engine, next_id)).data == "2"


async def test_a_cancelled_parent_adds_its_children_when_it_runs_again(engine: Engine) -> None:
    """A cancelled run adds no children, so its call of `add` must not count as stored."""
    await engine.add([new_job("parent")], now_ms=NOW)
    assert await take(engine, 1, "t1") == ["parent"]
    await engine.cancel(QUEUE, ["parent"], now_ms=NOW)
    await settled(engine, Parked("parent", "t1", [child("a", "parent")], 1))
    assert await take(engine, 1, "t2") == ["parent"]
    await settled(engine, Failed("parent", "t2", "cancelled"))
    await engine.requeue(QUEUE, ["parent"], {State.FAILED}, now_ms=NOW)
    assert (await engine.count_children(QUEUE, "parent")).add_calls == 0


async def test_a_parent_that_starts_during_a_removal_does_not_wait_for_removed_children(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large flow is removed in several steps. A job that starts between them stays."""
    many = [child(f"many-{n}", "root") for n in range(2_300)]
    template, last = new_job().template, "parent-9999"
    parent = NewJob("parents", template, "{}", last, ParentLink(QUEUE, "root"))
    below = [
        NewJob("below", template, "{}", "a", ParentLink("parents", last, "continue")),
        NewJob("below", template, "{}", "b", ParentLink("parents", last, "fail")),
    ]
    await engine.add_flow([new_job("root"), *many, parent, *below], now_ms=NOW)
    assert await take_from(engine, "below") == ["a"]
    await engine.settle("below", [Failed("a", "t1", "no")], None, now_ms=NOW)
    step = "_run_portion" if hasattr(engine, "_run_portion") else "_run_script"
    run_step = getattr(engine, step)

    async def start_parent_first(*args: Any, **options: Any) -> Any:
        if options.get("is_continuation") or args[0] == "remove_descendants":
            monkeypatch.setattr(engine, step, run_step)
            assert await take_from(engine, "parents") == [last]
        return await run_step(*args, **options)

    monkeypatch.setattr(engine, step, start_parent_first)
    assert await engine.remove(QUEUE, ["root"], now_ms=NOW) == [State.WAITING_CHILDREN]
    assert await engine.get("below", ["b"]) == [None]
    await engine.settle("parents", [Parked(last, "t1", [], 1)], None, now_ms=NOW)
    assert await counts(engine, "parents") == {State.WAITING: 1}


async def take_from(engine: Engine, queue: str) -> list[str]:
    batch = await engine.claim(queue, claim(1, "t1"), now_ms=NOW)
    return [lease.job.id for lease in batch.leases]


async def test_children_with_chosen_ids_come_after_those_of_earlier_runs(engine: Engine) -> None:
    """Their ids end with numbers, as the ids do that hasten makes."""
    await engine.add([new_job("parent")], now_ms=NOW)
    ids = ["page-5", "cover-1", "parent-3-0", "parent-4-0"]
    for number, id in enumerate(ids, 1):
        assert await take(engine) == ["parent"]
        await settled(engine, Parked("parent", "t1", [child(id, "parent")], number))
        assert await take_from(engine, CHILDREN) == [id]
        await engine.settle(CHILDREN, [Completed(id, "t1", "1")], None, now_ms=NOW)
    assert [each.id for each in await engine.children(QUEUE, "parent", limit=9)] == ids


async def test_a_job_with_a_deduplication_key_is_no_member_of_a_flow(engine: Engine) -> None:
    keyed = NewJob(QUEUE, latest("1").template, "{}", "kid", ParentLink(QUEUE, "parent"))
    with pytest.raises(InvalidOption, match="latest"):
        await engine.add_flow([new_job("parent"), keyed], now_ms=NOW)
    assert await counts(engine) == {}
    await engine.add([new_job("parent")], now_ms=NOW)
    assert await take(engine) == ["parent"]
    with pytest.raises(StoreRejected, match="latest"):
        await settled(engine, Parked("parent", "t1", [keyed], 1))
    assert await counts(engine) == {State.ACTIVE: 1}


async def test_a_parent_that_runs_because_its_child_was_removed_has_no_delay(
    engine: Engine,
) -> None:
    """It runs at once, without the delay that it has had when it was added."""
    await engine.add_flow([new_job("parent", delay_ms=5_000), child("a", "parent")], now_ms=NOW)
    await engine.remove(CHILDREN, ["a"], now_ms=NOW)
    record = await job(engine, "parent")
    assert (record.state, record.delay_ms) == (State.WAITING, 0)


async def test_a_child_that_fails_together_with_its_parent_does_not_mark_it(
    engine: Engine,
) -> None:
    """The parent may complete, because it ignores the failure of another child."""
    kid = new_job().template
    links = {"a": ParentLink(QUEUE, "p", "continue"), "b": ParentLink(QUEUE, "p", "fail")}
    kids = [NewJob(QUEUE, kid, "{}", id, link) for id, link in links.items()]
    await engine.add_flow([new_job("p"), *kids], now_ms=NOW)
    assert await take(engine, 2) == ["a", "b"]
    await settled(engine, Failed("a", "t1", "no"))
    assert await take(engine) == ["p"]
    await settled(engine, Completed("p", "t1", "1"), Failed("b", "t1", "no"))
    record = await job(engine, "p")
    assert (record.state, record.deferred_failure) == (State.COMPLETED, None)
