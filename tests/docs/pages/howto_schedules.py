"""Run docs/howto/schedules.md: schedules are declared, run, previewed and paused."""

import asyncio
import contextlib
import io
from datetime import UTC, datetime
from typing import Any

from hasten.jobs import Queue
from tests.docs.page_session import Page

# The clocks in Madrid change on these days, at 01:00 UTC. Each list begins an hour before.
SPRING = datetime(2031, 3, 30, 0, tzinfo=UTC)
AUTUMN = datetime(2031, 10, 26, 0, tzinfo=UTC)


async def slots(queue: Queue, start: datetime, pattern: str, count: int) -> list[str]:
    await queue.schedules.upsert(
        "zone", "remind", cron=pattern, tz="Europe/Madrid", start=start, arguments={"customer": 1}
    )
    found = await queue.schedules.preview("zone", count)
    await queue.schedules.remove("zone")
    return [slot.strftime("%H:%M %z") for slot in found]


async def check_rules_for_clock_changes(queue: Queue) -> None:
    async def spring(pattern: str, count: int = 1) -> list[str]:
        return await slots(queue, SPRING, pattern, count)

    async def autumn(pattern: str, count: int = 1) -> list[str]:
        return await slots(queue, AUTUMN, pattern, count)

    assert await spring("30 2 * * *", 2) == ["03:30 +0200", "02:30 +0200"]
    assert await autumn("30 2 * * *", 2) == ["02:30 +0200", "02:30 +0100"]
    assert await spring("*/20 2 * * *", 3) == ["03:00 +0200", "03:20 +0200", "03:40 +0200"]
    assert await autumn("*/20 2 * * *", 4) == [
        *("02:00 +0200", "02:20 +0200", "02:40 +0200"),
        "02:00 +0100",  # on the next day
    ]
    assert await spring("30 * * * *", 2) == ["01:30 +0100", "03:30 +0200"]
    assert await autumn("30 * * * *", 2) == ["02:30 +0200", "02:30 +0100"]


async def until_run(code: Any, *ids: str) -> None:
    async with asyncio.timeout(60):
        for id in ids:
            while (found := await code.shop.schedules.get(id)) is None or found.previous is None:
                await asyncio.sleep(0.01)


async def check(page: Page) -> None:
    code = await page.run()
    async with code.shop:
        async with code.Worker(code.shop):
            await until_run(code, "fetch_prices", "clean-logs", "clean-carts")
            async with asyncio.timeout(60):
                while await code.shop.schedules.get("book_sales") is None:
                    await asyncio.sleep(0.01)
        await check_rules_for_clock_changes(code.shop)
        await code.set_reminder(7, 9, "America/Lima")
        stored = await code.shop.schedules.get("remind-7")
        assert (stored.cron, stored.tz, stored.arguments) == (
            "0 9 * * *",
            "America/Lima",
            {"customer": 7},
        )
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            await code.print_slots()
        assert len(shown.getvalue().splitlines()) == 5
        assert " 07:00:00+0" in shown.getvalue()
        with contextlib.redirect_stdout(shown):
            await code.stop_fetching()
        assert "fetch_prices None True 0" in shown.getvalue()
        assert await code.find_late() == []
        slot = code.Slot(datetime(2026, 12, 2, 1, tzinfo=UTC))
        with contextlib.redirect_stdout(shown):
            await code.book_sales(slot)
        assert "from 2026-12-01 01:00:00+00:00 to 2026-12-02" in shown.getvalue()
