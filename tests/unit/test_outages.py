from __future__ import annotations

import logging
import math

import pytest

from hasten.errors import StoreError, StoreUnavailable
from hasten.jobs._outages import MAX_TEXTS, REMIND_SECONDS, OutageLog


class Monotonic:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def outage(monotonic: Monotonic, caplog: pytest.LogCaptureFixture) -> OutageLog:
    caplog.set_level(logging.DEBUG, "hasten.worker")
    return OutageLog("redis://here", monotonic)


DOWN = StoreUnavailable("redis://here", "cannot connect")


def test_an_outage_is_logged_once_and_its_end_with_a_count(
    outage: OutageLog, monotonic: Monotonic, caplog: pytest.LogCaptureFixture
) -> None:
    """For all services together, whatever the number of failed calls."""
    for _ in range(25):
        for activity in ("settle jobs of queue a", "renew the leases of queue a"):
            outage.record_failure(activity, DOWN)
        monotonic.now += 0.5
    outage.record_success("settle jobs of queue a")
    outage.record_success("renew the leases of queue a")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert caplog.messages == [
        f"store unavailable, retrying: cannot settle jobs of queue a: {DOWN}",
        "redis://here: store available again after 12.5 s (failed calls: 50)",
    ]


def test_a_long_outage_is_logged_again_each_minute(
    outage: OutageLog, monotonic: Monotonic, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(121):
        outage.record_failure("settle jobs of queue a", DOWN)
        monotonic.now += 1
    assert len(caplog.records) == 3
    assert caplog.messages[1] == (
        f"store unavailable for {REMIND_SECONDS:.0f} s (failed calls: 61), retrying: "
        "cannot settle jobs of queue a: redis://here: cannot connect"
    )


def test_another_error_is_logged(outage: OutageLog, caplog: pytest.LogCaptureFixture) -> None:
    outage.record_failure("settle jobs of queue a", DOWN)
    outage.record_failure(
        "settle jobs of queue a", StoreUnavailable("redis://here", "it is loading")
    )
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("failing", "seconds", "records"),
    [("renew the leases of queue a", 10, 1), ("settle jobs of queue a", 30, 2)],
    ids=["other activities succeed", "the activity fails again and again"],
)
def test_an_outage_is_logged_once_a_minute_although_calls_succeed(
    outage: OutageLog, caplog: pytest.LogCaptureFixture, monotonic: Monotonic,
    failing: str, seconds: int, records: int,
) -> None:  # fmt: skip
    """Otherwise each failure would be logged as a new outage."""
    for _ in range(seconds):
        outage.record_failure(failing, DOWN)
        outage.record_success("settle jobs of queue a")
        monotonic.now += 1
    assert len(caplog.records) == records


def test_remembered_errors_are_limited(outage: OutageLog, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3 * MAX_TEXTS):
        outage.record_failure("settle jobs of queue a", StoreError("redis://here", str(number)))
    assert len(outage._logged_at) <= MAX_TEXTS


def test_an_outage_lasts_until_no_activity_fails(
    outage: OutageLog, monotonic: Monotonic, caplog: pytest.LogCaptureFixture
) -> None:
    """One queue may recover before another one."""
    outage.record_failure("settle jobs of queue a", DOWN)
    outage.record_failure("settle jobs of queue b", DOWN)
    outage.record_success("settle jobs of queue b")
    for _ in range(61):
        monotonic.now += 1
        outage.record_failure("settle jobs of queue a", DOWN)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    outage.record_success("settle jobs of queue a")
    assert (
        caplog.messages[-1] == "redis://here: store available again after 61.0 s (failed calls: 63)"
    )


def test_it_returns_how_long_no_call_has_failed(outage: OutageLog, monotonic: Monotonic) -> None:
    assert outage.seconds_since_failure() == math.inf
    outage.record_failure("settle jobs of queue a", DOWN)
    monotonic.now += 3
    outage.record_success("settle jobs of queue a")
    assert outage.seconds_since_failure() == 3
    outage.record_slow_call_as_failure()
    monotonic.now += 2
    assert outage.seconds_since_failure() == 2
