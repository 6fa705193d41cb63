"""Every call that takes a number checks its bounds."""

from __future__ import annotations

from typing import Any

import pytest

from hasten.errors import InvalidOption
from hasten.jobs import Queue, State

MOST = 2**53 - 1


async def test_the_largest_page_is_all_jobs(queue: Queue) -> None:
    await queue.add_many([("send", {"n": n}) for n in range(3)])
    for newest_first in (False, True):
        jobs = await queue.jobs("waiting", offset=1, limit=MOST, newest_first=newest_first)
        assert len(jobs) == 2
        assert await queue.jobs("waiting", offset=MOST, limit=MOST, newest_first=newest_first) == []


async def test_the_largest_limit_is_no_limit(queue: Queue) -> None:
    await queue.add_many([("send", {})] * 3)
    assert len(await queue.clean("waiting", older_than=0, limit=MOST)) == 3


@pytest.mark.parametrize("limit", [-1, 1.5, True, MOST + 1, 10**400])
async def test_a_limit_beyond_is_refused(queue: Queue, limit: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^limit=.*: must be a whole number from 0 to 9,007,"):
        await queue.clean("waiting", older_than=0, limit=limit)


@pytest.mark.parametrize("max_size", [0, -1, 1.5, None, True, "1 TB", "257mb", 10**20])
def test_a_size_beyond_is_refused(max_size: Any) -> None:
    with pytest.raises(
        InvalidOption,
        match=r"^max_size=.*: must be (bytes as a number|at least|less than|at most 256mb)",
    ):
        Queue("mail", "memory://", max_size=max_size)


def test_a_size_may_be_a_text() -> None:
    assert Queue("mail", "memory://").max_size == 1024 * 1024
    assert Queue("mail", "memory://", max_size="256mb").max_size == 256 * 1024 * 1024
    assert Queue("mail", "memory://", max_size=10_000).max_size == 10_000


async def test_a_job_keeps_the_largest_numbers_that_it_may_have(queue: Queue) -> None:
    """Both stores return them unchanged."""
    job = await queue.add(
        "send", attempts=1_000_000, priority=2_097_151, keep_completed=MOST, keep_logs=1_000_000
    )
    later = await queue.add("send", delay=100 * 366 * 24 * 3600)
    assert (await job.refresh()).priority == 2_097_151
    assert (await later.refresh()).record.due_ms == later.record.created_ms + later.record.delay_ms
    assert [found.id for found in await queue.jobs(State.DELAYED)] == [later.id]
