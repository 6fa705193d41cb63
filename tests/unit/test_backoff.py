"""Waits between attempts: the formulas of BullMQ, and bounds for any input."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten._durations import MAX_MS
from hasten.errors import InvalidOption
from hasten.jobs._backoff import DEFAULT_CAP, Custom, Exponential, Fixed, retry_delay_ms

timedeltas = st.timedeltas(timedelta(0), timedelta(days=36_000))
seconds = st.floats(0, MAX_MS / 1000) | timedeltas
jitters = st.floats(0, 1)
attempts = st.integers(1, 10**9)
randoms = st.floats(0, 1, exclude_max=True)


def wait(backoff: Fixed | Exponential | None, attempt: int = 1, random: float = 0.5) -> int:
    return retry_delay_ms(backoff, failed_attempt=attempt, random=random)


class TestNone:
    @given(attempts, randoms)
    def test_does_not_wait(self, attempt: int, random: float) -> None:
        assert wait(None, attempt, random) == 0


class TestFixed:
    def test_waits_the_same_each_time(self) -> None:
        assert [wait(Fixed(2), attempt) for attempt in (1, 2, 50)] == [2000, 2000, 2000]

    @pytest.mark.parametrize(("random", "ms"), [(0.0, 5000), (0.5, 7500), (0.9999, 9999)])
    def test_jitter_takes_away_up_to_its_share(self, random: float, ms: int) -> None:
        """BullMQ: floor(random x delay x jitter + delay x (1 - jitter))."""
        assert wait(Fixed(10, jitter=0.5), random=random) == ms

    @given(seconds, jitters, attempts, randoms)
    def test_stays_between_its_bounds(
        self, delay: float | timedelta, jitter: float, attempt: int, random: float
    ) -> None:
        full = wait(Fixed(delay))
        least = full * (1 - jitter)
        assert least - 1 <= wait(Fixed(delay, jitter), attempt, random) <= full


class TestExponential:
    def test_doubles(self) -> None:
        """As in BullMQ, the first retry waits for the delay itself."""
        backoff = Exponential(1, jitter=0)
        assert [wait(backoff, attempt) for attempt in (1, 2, 3, 4)] == [1000, 2000, 4000, 8000]

    def test_stops_at_the_cap(self) -> None:
        backoff = Exponential(1, cap=timedelta(seconds=5), jitter=0)
        assert [wait(backoff, attempt) for attempt in (3, 4, 5, 1000)] == [4000, 5000, 5000, 5000]

    def test_spreads_and_is_capped_unless_told_otherwise(self) -> None:
        """So that jobs that failed together are not retried together, or after a year."""
        assert Exponential() == Exponential(1.0, cap=DEFAULT_CAP, jitter=0.5)

    @given(seconds, st.none() | seconds, jitters, attempts, randoms)
    def test_stays_between_its_bounds(
        self,
        delay: float | timedelta,
        cap: float | timedelta | None,
        jitter: float,
        attempt: int,
        random: float,
    ) -> None:
        """Large attempt numbers do not overflow, and jitter never exceeds the cap."""
        full = wait(Exponential(delay, cap, jitter=0), attempt)
        assert full <= (MAX_MS if cap is None else wait(Fixed(cap)))
        least = full * (1 - jitter)
        assert least - 1 <= wait(Exponential(delay, cap, jitter), attempt, random) <= full

    @given(seconds, attempts)
    def test_never_shrinks(self, delay: float | timedelta, attempt: int) -> None:
        backoff = Exponential(delay, cap=None, jitter=0)
        assert wait(backoff, attempt) <= wait(backoff, attempt + 1)

    def test_reaches_the_longest_wait_without_a_cap(self) -> None:
        """The doubling stops only where it would exceed the longest wait."""
        assert wait(Exponential(0.001, cap=None, jitter=0), 10**9) == MAX_MS


class TestWrongValues:
    """They are found when the backoff is created."""

    @pytest.mark.parametrize("kind", [Fixed, Exponential])
    def test_delay(self, kind: type[Fixed | Exponential]) -> None:
        with pytest.raises(InvalidOption, match=r"^backoff=-1: must be at least 0 seconds"):
            kind(-1)

    def test_cap(self) -> None:
        with pytest.raises(InvalidOption, match=r"^backoff cap='an hour': must be seconds"):
            Exponential(1, cap="an hour")

    @pytest.mark.parametrize("kind", [Fixed, Exponential])
    @pytest.mark.parametrize("jitter", [-0.1, 1.1, True, float("nan")])
    def test_jitter(self, kind: type[Fixed | Exponential], jitter: float) -> None:
        with pytest.raises(InvalidOption) as caught:
            kind(1, jitter=jitter)
        assert str(caught.value) == f"jitter={jitter!r}: must be a number from 0 to 1"

    @pytest.mark.parametrize("jitter", [None, "0.5"])
    def test_jitter_of_another_type(self, jitter: object) -> None:
        with pytest.raises(InvalidOption, match=r"^jitter=.*: must be a number from 0 to 1$"):
            Fixed(1, jitter=jitter)  # type: ignore[arg-type]


class TestCustom:
    def test_has_a_name_to_be_stored_by(self) -> None:
        assert Custom().name == "custom"
