"""The list of workers, with real processes that die and hang."""

from __future__ import annotations

import signal

from tests.acceptance.site import Site


async def test_a_killed_worker_disappears_and_a_living_one_stays(site: Site) -> None:
    dies = await site.start_worker("--lease=1")
    lives = await site.start_worker("--lease=1")

    async def pids() -> set[int]:
        return {info.pid for info in await site.queue.workers()}

    async def both() -> bool:
        return await pids() == {dies.pid, lives.pid}

    async def one() -> bool:
        return await pids() == {lives.pid}

    async def none() -> bool:
        return not await pids()

    await site.until_true(both)
    dies.kill()
    await site.until_true(one)
    lives.send(signal.SIGSTOP)
    await site.until_true(none)
    lives.send(signal.SIGCONT)
    await site.until_true(one)
    lives.send(signal.SIGTERM)
    await site.until_ended(lives)
    assert await pids() == set()
