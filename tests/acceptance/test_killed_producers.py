"""Producers that are killed in the middle of adding jobs."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from hasten.jobs._states import State
from tests.acceptance import app
from tests.acceptance.site import Runs, Site, random_moments


async def kill_while_adding(site: Site, role: str, *, lines: int) -> list[str]:
    """Return the output of the producer before it was killed: the accepted jobs."""
    random = random_moments()
    producer = site.start(role, "--count=1000000")
    await site.until(lambda: len(producer.said) > lines)
    await asyncio.sleep(random.uniform(0, 0.01))
    producer.kill()
    site.check_store()
    return producer.said


@pytest.mark.parametrize(("role", "at_once"), [("enqueue", 1), ("enqueue-together", app.BATCH)])
async def test_killed_producers_lose_no_accepted_job(site: Site, role: str, at_once: int) -> None:
    """When `enqueue` returns, the job is on the disk."""
    accepted = await kill_while_adding(site, role, lines=150)
    stored = await site.records(State.WAITING)
    assert set(accepted) <= {job.id for job in stored}
    assert len(stored) <= len(accepted) + at_once
    await site.start_worker()
    await site.until_settled(len(stored))
    Runs(site).check(await site.records())


async def test_kill_9_of_a_producer_leaves_no_half_of_a_batch(site: Site) -> None:
    """`enqueue_many` adds all jobs or none."""
    accepted = await kill_while_adding(site, "enqueue-many", lines=10)
    stored = await site.records(State.WAITING)
    batches = Counter(msgspec.json.decode(job.data)["number"] for job in stored)
    assert {int(number) for number in accepted} <= set(batches)
    assert set(batches.values()) == {app.BATCH}
    assert len(batches) <= len(accepted) + 1
    await site.start_worker("--concurrency=200")
    await site.until_settled(len(stored))
    Runs(site).check(await site.records())
