"""Workers that are killed while they add the jobs for the end of flows and batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from hasten.jobs._moments import hook_id
from hasten.jobs._states import FINISHED, State
from tests.acceptance import app
from tests.acceptance.site import Site, random_moments

FLOWS: Final = 30
ROUNDS: Final = 4

RUNS: Final = 2 * app.MEMBERS + 3
"""How many jobs run for a flow and a batch: the members, a root, and two jobs for the end."""


async def test_jobs_for_the_end_are_added_exactly_once(site: Site) -> None:
    """The hook jobs of `flow.on_ended` and of `queue.batch(on_ended=…)`."""
    random = random_moments()
    producer = site.start("enqueue-flows", f"--count={FLOWS}")
    await site.until_ended(producer)
    # The root is the job 0 of its flow.
    hooks = {hook_id(id.removesuffix("-0"), "ended") for id in producer.said}
    assert len(hooks) == 2 * FLOWS
    options = "--lease=1", "--concurrency=5", f"--crash-limit={ROUNDS + 1}"
    for _ in range(ROUNDS):
        worker = await site.start_worker(*options)
        # At a random moment within this round's share of the work: a run is two entries.
        share = 2 * RUNS * FLOWS // ROUNDS
        await site.until_entries(len(site.entries()) + random.randrange(share // 2, share))
        await asyncio.sleep(random.uniform(0, 0.02))
        worker.kill()
    await site.start_worker(*options)

    async def ended() -> bool:
        counts = await site.queue.counts()
        return sum(counts.values()) == sum(counts[state] for state in FINISHED)

    await site.until_true(ended)
    assert (await site.queue.counts())[State.FAILED] == 0
    assert await added(site, hooks) == dict.fromkeys(hooks, 1)
    assert {entry.job_id for entry in site.entries() if entry.what == "end"} >= hooks


async def added(site: Site, ids: set[str]) -> dict[str, int]:
    """Return how often each of these jobs was added."""
    found: Counter[str] = Counter()
    last = await site.queue.add(app.step.name)
    async with site.queue.events(after="0-0") as events:
        async for event in events:
            assert event.kind != "missed"
            if event.kind == "added" and event.job_id == last.id:
                break
            if event.kind in {"added", "duplicated"} and event.job_id in ids:
                found[event.job_id] += 1
    return dict(found)
