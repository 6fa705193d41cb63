"""Jobs that need a worker of a certain release."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidOption
from hasten.jobs import Queue, State, Worker
from hasten.jobs._release_gate import (
    FIRST_PAUSE_MS,
    LAST_PAUSE_MS,
    WINDOW_SECONDS,
    AppReleaseGate,
)
from hasten.jobs._releases import is_at_least
from hasten.testing import ManualClock
from tests.jobs.eventually import until_state

numbers = st.lists(st.integers(0, 3000), min_size=1, max_size=6)


@pytest.mark.parametrize("release", [None, "2026.11", "2026"])
async def test_an_older_worker_hands_the_job_back_for_a_newer_one(
    queue: Queue,
    elsewhere: Queue,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    release: str | None,
) -> None:
    """Also if it does not have the task at all."""

    @queue.task(since="2026.12")
    async def send() -> str:
        return "sent"

    job = await send.enqueue()
    async with Worker(elsewhere, release=release):
        await until_state(job, State.DELAYED)
    assert (job.attempts_made, job.error) == (0, None)
    assert "jobs of task send need a worker of release 2026.12 or later" in caplog.text
    clock.advance(LAST_PAUSE_MS / 1000)
    async with Worker(queue, release="2026.12.1"):
        assert await job.result(timeout=30) == "sent"


async def test_a_job_that_was_handed_back_expires(
    queue: Queue, elsewhere: Queue, clock: ManualClock
) -> None:
    @queue.task(since="2", expires=10)
    async def send() -> str:
        return "sent"

    job = await send.enqueue()
    async with Worker(elsewhere, release="1"):
        await until_state(job, State.DELAYED)
    clock.advance(LAST_PAUSE_MS / 1000)
    async with Worker(queue, release="2"):
        await until_state(job, State.FAILED)
    assert "expired" in str(job.error)


async def test_the_release_is_read_from_the_environment(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASTEN_RELEASE", "3")

    @queue.task(since="2.1")
    async def send() -> str:
        return "sent"

    job = await send.enqueue()
    async with Worker(queue):
        assert await job.result(timeout=30) == "sent"


@pytest.mark.parametrize("wrong", ["", "v1", "1.", "1..2", 1.2, "2026-12"])
def test_a_malformed_release_is_refused(memory: Queue, wrong: object) -> None:
    with pytest.raises(InvalidOption, match=r"since=.*numbers separated by dots"):
        memory.task(since=wrong)(print)  # type: ignore[call-overload]
    if wrong:
        with pytest.raises(InvalidOption, match=r"release=.*numbers separated by dots"):
            Worker(memory, release=wrong)  # type: ignore[arg-type]


@given(numbers, numbers)
def test_releases_are_compared_by_their_numbers(one: list[int], other: list[int]) -> None:
    def text(release: list[int]) -> str:
        return ".".join(map(str, release))

    length = max(len(one), len(other))
    padded = [each + [0] * (length - len(each)) for each in (one, other)]
    assert is_at_least(text(one), text(other)) is (padded[0] >= padded[1])


def test_the_pause_grows_with_the_jobs_of_a_minute() -> None:
    now = 0.0
    gate = AppReleaseGate("1", lambda: now)
    pauses = [gate.find_postponement_ms("mail", "send", "2") or 0 for _ in range(10_000)]
    assert pauses == sorted(pauses)
    assert (pauses[0] // 1000, pauses[-1]) == (FIRST_PAUSE_MS // 1000, LAST_PAUSE_MS)
    now += WINDOW_SECONDS
    assert gate.find_postponement_ms("mail", "send", "2") == pauses[0]
    assert gate.find_postponement_ms("mail", "send", "1.0") is None
    assert gate.find_postponement_ms("mail", "send", "made by another program") is None
