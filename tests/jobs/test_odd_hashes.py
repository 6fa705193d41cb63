"""Jobs on Redis that somebody wrote by hand, or in a language with other numbers."""

from __future__ import annotations

import pytest

from hasten.jobs import Queue, Worker
from tests.servers.redis import shared_redis


@pytest.mark.parametrize("url", ["redis"], indirect=True)
@pytest.mark.parametrize("odd", ["1.5", "nan", "inf", "-1e300", "many", ""])
@pytest.mark.parametrize("field", ["timestamp", "delay", "priority", "atm", "ats", "stc"])
async def test_an_odd_number_costs_neither_its_job_nor_the_batch(
    queue: Queue, url: str, field: str, odd: str
) -> None:
    """A worker that stumbled over it would take and lose the same jobs for ever."""

    @queue.task
    async def double(number: int) -> int:
        return 2 * number

    jobs = [await double.enqueue(number) for number in range(3)]
    with shared_redis().client() as client:
        client.hset(f"{url.partition('prefix=')[2]}:mail:{jobs[1].id}", field, odd)
    async with Worker(queue):
        assert [await job.result(timeout=10) for job in jobs] == [0, 2, 4]
