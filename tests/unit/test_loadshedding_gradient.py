"""The concurrency limit adapts to the capacity of the process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.loadshedding._gradient import (
    PROBE,
    LimitBounds,
    LimitEstimate,
    MeasurementWindow,
    adapt_limit,
)

BOUNDS = LimitBounds(minimum=5, maximum=200, max_lag_us=100_000)

windows = st.builds(
    MeasurementWindow,
    duration_us=st.floats(0, 1e9),
    in_flight=st.integers(0, 10_000),
    lag_us=st.integers(0, 1_000_000),
)


@given(st.lists(windows, max_size=50))
def test_the_limit_stays_within_its_bounds(seen: list[MeasurementWindow]) -> None:
    level = LimitEstimate(20)
    for window in seen:
        level = adapt_limit(level, window, BOUNDS)
        assert BOUNDS.minimum <= level.limit <= BOUNDS.maximum
        assert level.usual_us >= 0


def test_the_limit_grows_while_durations_are_usual() -> None:
    level = LimitEstimate(20)
    for _ in range(500):
        level = adapt_limit(level, MeasurementWindow(10_000, int(level.limit)), BOUNDS)
    assert level.limit == BOUNDS.maximum


def test_the_limit_falls_when_requests_take_longer() -> None:
    level = LimitEstimate(100, usual_us=10_000, windows=600)
    after = adapt_limit(level, MeasurementWindow(40_000, 100), BOUNDS)
    assert 80 < after.limit < 100


@given(st.floats(1, 1e9), st.integers(5, 200), st.floats(3.2, 1e6))
def test_the_limit_falls_under_a_rising_load(usual_us: float, limit: int, times: float) -> None:
    """If it is high enough not to be dominated by the probes of each window."""
    level = LimitEstimate(limit, usual_us, windows=600)
    for _ in range(60):
        before = level.limit
        level = adapt_limit(
            level, MeasurementWindow(usual_us * times, int(level.limit) + 1), BOUNDS
        )
        assert level.limit <= max(before, 2 * PROBE)
    assert level.limit <= max(BOUNDS.minimum, limit / 2, 3 * PROBE)


@given(st.floats(1, 1e7), st.lists(windows, max_size=30))
def test_the_limit_recovers_from_any_history(took_us: float, seen: list[MeasurementWindow]) -> None:
    level = LimitEstimate(20)
    for window in seen:
        level = adapt_limit(level, window, BOUNDS)
    for _ in range(4000):
        level = adapt_limit(level, MeasurementWindow(took_us, int(level.limit) + 1), BOUNDS)
    assert level.limit == BOUNDS.maximum


@pytest.mark.parametrize(
    "window", [MeasurementWindow(1e9, 200), MeasurementWindow(10_000, 1, lag_us=100_001)]
)
@pytest.mark.parametrize("least", [1, 30])
def test_no_overload_moves_the_limit_below_its_minimum(
    window: MeasurementWindow, least: int
) -> None:
    """Nor does it stop far above: lag lowers it to the minimum, slow requests almost so."""
    level = LimitEstimate(100, usual_us=10_000, windows=600)
    for _ in range(100):
        level = adapt_limit(level, window, LimitBounds(least, maximum=200, max_lag_us=100_000))
    assert least <= level.limit <= max(least, 2 * PROBE + 0.1)


@pytest.mark.parametrize(("took_us", "after"), [(1e9, 90.8), (0, 100.8)])
def test_one_window_moves_the_limit_a_little(took_us: float, after: float) -> None:
    """By at most a tenth down, and by at most a fifth of the probe up."""
    level = LimitEstimate(100, usual_us=10_000, windows=600)
    assert adapt_limit(level, MeasurementWindow(took_us, 100), BOUNDS).limit == pytest.approx(after)


def test_slightly_longer_durations_do_not_lower_the_limit() -> None:
    level = LimitEstimate(100, usual_us=10_000, windows=600)
    assert adapt_limit(level, MeasurementWindow(14_000, 100), BOUNDS).limit > 100


def test_few_requests_do_not_move_the_limit() -> None:
    level = LimitEstimate(100, usual_us=10_000, windows=600)
    assert adapt_limit(level, MeasurementWindow(90_000, 49), BOUNDS).limit == 100


def test_the_limit_falls_if_the_event_loop_lags() -> None:
    """Also with few requests. The usual duration does not change."""
    level = LimitEstimate(100, usual_us=10_000, windows=600)
    late = MeasurementWindow(10_000, 1, lag_us=100_001)
    assert adapt_limit(level, late, BOUNDS) == LimitEstimate(90, 10_000, 600)


def test_the_usual_duration_falls_fast_after_an_overload() -> None:
    level = LimitEstimate(100, usual_us=100_000, windows=600)
    for _ in range(60):
        level = adapt_limit(level, MeasurementWindow(10_000, 100), BOUNDS)
    assert level.usual_us < 25_000


@pytest.mark.parametrize("capacity", [10, 30, 100])
def test_the_limit_converges_to_the_capacity(capacity: int) -> None:
    """Up to the capacity each request takes 10 ms, above it they take longer."""

    def limits(level: LimitEstimate) -> Iterator[float]:
        for _ in range(400):
            in_flight = int(level.limit)
            level = adapt_limit(
                level, MeasurementWindow(10_000 * max(1, in_flight / capacity), in_flight), BOUNDS
            )
            yield level.limit

    found = list(limits(LimitEstimate(20, usual_us=10_000, windows=20)))[-100:]
    assert capacity <= min(found)
    assert max(found) <= 2.5 * capacity + 2 * PROBE


def test_an_overload_that_lasts_raises_the_limit_slowly() -> None:
    """The capacity is 10; 400, 1,000 and 3,000 windows are 40, 100 and 300 seconds."""
    level, found = LimitEstimate(20, usual_us=10_000, windows=20), {}
    for number in range(1, 3_001):
        in_flight = int(level.limit)
        level = adapt_limit(
            level, MeasurementWindow(10_000 * max(1, in_flight / 10), in_flight), BOUNDS
        )
        found[number] = round(level.limit)
    assert (found[400], found[1_000], found[3_000]) == (24, 27, 41)
