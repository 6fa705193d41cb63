"""Parents whose run ends otherwise than its worker expects, and flows that change meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hasten.jobs._deduplication import Deduplication, DeduplicationMode
from hasten.jobs._engine import Engine
from hasten.jobs._options import Options
from hasten.jobs._record import Failed, JobTemplate, NewJob, OnFailure, ParentLink, Parked
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
