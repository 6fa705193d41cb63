"""Run docs/howto/jobs.md: jobs are queued, run, followed and cancelled."""

import asyncio

from hasten.jobs import State
from tests.docs.page_session import Page


async def check(page: Page) -> None:
    code = await page.run()
    await asyncio.to_thread(code.in_flask_or_a_script)
    assert code.again.is_duplicate
    assert [await job.result(timeout=10) for job in code.many] == [
        "Hello, bob@example.org",
        "Hello, eve@example.org",
    ]
    assert (await code.later.refresh()).state is State.FAILED
    await code.worker.aclose()
    await code.mail.aclose()
    await code.store.aclose()
