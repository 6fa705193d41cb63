from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from hasten.errors import InvalidOption
from hasten.testing import ManualClock


def test_its_time_changes_only_when_it_is_advanced(clock: ManualClock) -> None:
    """By seconds or by a timedelta, to the millisecond."""
    assert clock.now() == datetime(2030, 1, 1, tzinfo=UTC)
    before = clock.now_ms()
    clock.advance(0.25)
    clock.advance(timedelta(minutes=1))
    assert clock.now_ms() - before == 60_250
    assert repr(clock) == "<ManualClock 2030-01-01T00:01:00.250000+00:00>"


async def test_it_wakes_sleepers_whose_time_has_come(clock: ManualClock) -> None:
    start = clock.now_ms()
    early = asyncio.create_task(clock.sleep_until(start + 1000))
    late = asyncio.create_task(clock.sleep_until(start + 2000))
    await asyncio.sleep(0)
    clock.advance(1)
    await early
    assert not late.done()
    clock.advance(1)
    await late


async def test_sleeping_until_a_past_time_returns_at_once(clock: ManualClock) -> None:
    await clock.sleep_until(clock.now_ms())
    await clock.sleep_until(0)


async def test_it_may_be_advanced_from_another_thread(clock: ManualClock) -> None:
    """Tests of plain functions do that."""
    sleeper = asyncio.create_task(clock.sleep_until(clock.now_ms() + 1000))
    await asyncio.sleep(0)
    thread = threading.Thread(target=clock.advance, args=[1])
    thread.start()
    await sleeper
    thread.join()


async def test_a_sleeper_may_be_cancelled(clock: ManualClock) -> None:
    """The cancelled sleeper is removed from the clock."""
    sleeper = asyncio.create_task(clock.sleep_until(clock.now_ms() + 1000))
    await asyncio.sleep(0)
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    clock.advance(1)


def test_a_sleeper_of_a_closed_loop_is_ignored(clock: ManualClock) -> None:
    async def sleep_briefly() -> None:
        sleeper = asyncio.create_task(clock.sleep_until(clock.now_ms() + 1000))
        await asyncio.sleep(0)
        del sleeper

    asyncio.run(sleep_briefly())
    clock.advance(1)


def test_time_does_not_go_back(clock: ManualClock) -> None:
    with pytest.raises(InvalidOption, match="advance=-1"):
        clock.advance(-1)


def test_its_start_needs_a_time_zone() -> None:
    """Without one, the same start would be another time on another machine."""
    with pytest.raises(InvalidOption, match="a datetime with a time zone"):
        ManualClock(datetime(2030, 1, 1))  # noqa: DTZ001


async def test_it_can_be_slept_for_a_while(clock: ManualClock) -> None:
    sleep = asyncio.create_task(clock.sleep(1.5))
    await asyncio.sleep(0)
    clock.advance(1.4)
    await asyncio.sleep(0)
    assert not sleep.done()
    clock.advance(0.1)
    await sleep
