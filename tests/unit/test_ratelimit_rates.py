"""Rates are parsed as people write them, and errors name the mistake."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import InvalidOption
from hasten.ratelimit._rates import MAX_LIMIT, Rate, parse_rates, to_rates
from hasten.ratelimit._rules import (
    Algorithm,
    Rule,
    make_bucket_name,
    make_concurrency_rule,
    make_rule,
)


class TestReading:
    @pytest.mark.parametrize(
        ("text", "limit", "seconds"),
        [
            ("100/15m", 100, 900),
            ("100 / 15 min", 100, 900),
            ("100 per 15 minutes", 100, 900),
            ("5/h", 5, 3600),
            ("5 PER HOUR", 5, 3600),
            ("5 per 1 hr", 5, 3600),
            ("10/s", 10, 1),
            ("10/second", 10, 1),
            ("1/2d", 1, 2 * 86400),
            ("7/week", 7, 7 * 86400),
            ("0/m", 0, 60),
            ("100 in 15min", 100, 900),
        ],
    )
    def test_one_rate(self, text: str, limit: int, seconds: int) -> None:
        assert parse_rates(text) == (Rate(limit, timedelta(seconds=seconds)),)

    @pytest.mark.parametrize("between", [", ", ";", " and ", " | ", ","])
    def test_several_rates(self, between: str) -> None:
        both = (Rate(10, timedelta(seconds=1), burst=20), Rate(1000, timedelta(hours=1)))
        assert parse_rates(f"10/s burst 20{between}1000/h") == both

    @pytest.mark.parametrize(
        "text",
        [
            "5/fortnight", "x/m", "-1/s", "1/0m", "", "5", "/m", "5/", "5/m,", "1.5/s", "5/m burst",
            "5/m burst 0", "99999999999/s", "1/99999999999999999999d", "٣/m", "5/month",
        ],
    )  # fmt: skip
    def test_an_invalid_rate_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(InvalidOption) as caught:
            parse_rates(text)
        assert str(caught.value).startswith(f"rate={text!r}: must be a rate such as '100/15m'")

    @given(st.text(max_size=20) | st.text("0123456789/ persmhdw,burst", max_size=30))
    def test_never_raises_anything_else(self, text: str) -> None:
        try:
            rates = parse_rates(text)
        except InvalidOption:
            return
        assert parse_rates(", ".join(map(str, rates))) == rates

    @given(st.integers(0, MAX_LIMIT), st.integers(1, 10**6), st.none() | st.integers(1, MAX_LIMIT))
    def test_what_is_written_is_read(self, limit: int, seconds: int, burst: int | None) -> None:
        rate = Rate(limit, timedelta(seconds=seconds), burst)
        assert parse_rates(str(rate)) == (rate,)

    def test_an_object_or_several_do_as_well(self) -> None:
        one, two = Rate(1, 1), Rate(2, timedelta(seconds=2))
        assert to_rates("rate", one) == (one,)
        assert to_rates("rate", [one, two]) == (one, two)
        for wrong in (None, 5, [], [one, "1/s"]):
            with pytest.raises(InvalidOption, match=r"^rate="):
                to_rates("rate", wrong)

    @pytest.mark.parametrize(
        ("option", "arguments"),
        [
            ("limit", (-1, 1)), ("limit", (True, 1)), ("limit", (1.0, 1)), ("per", (1, 0)),
            ("per", (1, 0.0001)), ("per", (1, "1")), ("burst", (1, 1, 0)),
        ],
    )  # fmt: skip
    def test_an_object_is_checked(self, option: str, arguments: tuple[int, int]) -> None:
        with pytest.raises(InvalidOption, match=f"^{option}="):
            Rate(*arguments)


class TestNames:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("100/15m", "100-in-15min"),
            ("5/h", "5-in-1hr"),
            ("10/s burst 20", "10-in-1sec"),
            ("1/90m", "1-in-90min"),
            ("1/48h", "1-in-2day"),
            ("1/14d", "1-in-2week"),
        ],
    )
    def test_of_a_rate(self, text: str, name: str) -> None:
        assert parse_rates(text)[0].name == name

    def test_of_a_part_of_a_second(self) -> None:
        rate = Rate(3, 0.25)
        assert (rate.name, str(rate)) == ("3-in-250ms", "3/250ms")


def only(text: str, algorithm: Algorithm | None = None) -> Rule:
    [rate] = parse_rates(text)
    return make_rule(rate, algorithm)


class TestRules:
    def test_a_burst_needs_gcra(self) -> None:
        assert only("10/s").kind == "fixed"
        assert only("10/s burst 20").kind == "gcra"
        assert only("10/s", "gcra").burst == 10
        with pytest.raises(InvalidOption, match="has a burst"):
            only("10/s burst 20", "sliding")
        with pytest.raises(InvalidOption, match=r"^algorithm='leaky'"):
            make_rule(Rate(1, 1), "leaky")  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="per microsecond"):
            make_rule(Rate(2_000_000, 1), "gcra")
        with pytest.raises(InvalidOption, match="within 100 years"):
            only("1/w burst 1000000")

    def test_gcra_is_never_above_its_rate(self) -> None:
        rule = make_rule(Rate(7, 1), "gcra")
        assert rule.interval_us * 7 >= rule.window_us

    def test_a_changed_rule_is_another_bucket(self) -> None:
        rules = [
            make_rule(Rate(10, 1)), make_rule(Rate(11, 1)), make_rule(Rate(10, 2)),
            make_rule(Rate(10, 1), "sliding"), make_rule(Rate(10, 1), "gcra"),
            make_rule(Rate(10, 1, burst=11)), make_concurrency_rule(10, 1),
        ]  # fmt: skip
        assert len({make_bucket_name("api", rule) for rule in rules}) == len(rules)

    @pytest.mark.parametrize(("limit", "lease"), [(-1, 1), (True, 1), (1, 0), (1, "x")])
    def test_a_concurrency_is_checked(self, limit: int, lease: float) -> None:
        with pytest.raises(InvalidOption):
            make_concurrency_rule(limit, lease)
