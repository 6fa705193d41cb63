"""Run docs/howto/flows.md: flows and batches are added, and their jobs are run."""

from __future__ import annotations

import asyncio
import contextlib
import io

from hasten.jobs import Queue, State, Worker
from tests.docs.page_session import Page
from tests.patience import DEADLINE_SECONDS


async def check(page: Page) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = await page.run()
        async with Worker(code.reports):
            async with asyncio.timeout(DEADLINE_SECONDS):
                while await count_unfinished(code.reports):
                    await asyncio.sleep(0.01)
    lines = printed.getvalue().splitlines()
    for expected in [
        "story: 6 words",
        "{'counted': 1, 'failed': 1}",
        "6",
        "ValueError: the chapter is empty",
        "a chapter cannot be counted",
        "the flow has ended",
        "3",
        "ChildProgress(pending=0, completed=3, failed=0)",
        "import 7 has ended",
    ]:
        assert expected in lines, (expected, lines)
    assert "all chapters are counted" not in lines
    assert any(line.startswith("publish ") and " waiting-children" in line for line in lines)
    await code.reports.aclose()


async def count_unfinished(queue: Queue) -> int:
    counts = await queue.counts()
    return sum(counts[state] for state in State if state not in {State.COMPLETED, State.FAILED})
