"""How durations are shown by `hasten schedules`."""

from __future__ import annotations

import pytest

pytest.importorskip("typer")

from hasten._cli.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1.5, "1.5s"),
        (59, "59s"),
        (60, "1m"),
        (90, "1m30s"),
        (600, "10m"),
        (5_400, "1h30m"),
        (86_400, "1d"),
        (90_061, "1d1h1m1s"),
        (3_600.4, "1h"),
    ],
)
def test_a_duration_is_shown_as_it_is_written(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert parse_duration(text) == pytest.approx(seconds, abs=0.5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(90_061, "1d1h"), (61, "1m1s"), (3_601, "1h1s"), (0.2, "0s")]
)
def test_only_the_largest_units_are_shown_on_request(seconds: float, text: str) -> None:
    assert format_duration(seconds, units=2) == text
