"""Levels and estimates agree with each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.compression._effort import BROTLI, ISAL, LEVELS, ZLIB, ZSTD, Effort, with_fixed_level
from hasten.compression._negotiation import Coding

EFFORTS = {"zstd": ZSTD, "brotli": BROTLI, "zlib": ZLIB, "isal": ISAL}

efforts = st.sampled_from(list(EFFORTS.values()))
sizes = st.integers(0, 1 << 30)


@pytest.fixture(params=EFFORTS)
def effort(request: pytest.FixtureRequest) -> Effort:
    return EFFORTS[request.param]


class TestLevels:
    def test_every_chosen_level_exists(self, effort: Effort) -> None:
        chosen = {level for _, level in effort.by_size}
        chosen |= {effort.streaming, effort.live, effort.fastest, effort.smallest}
        assert chosen <= set(effort.levels)
        assert set(effort.ns_per_byte) <= set(effort.levels)

    def test_costs_are_ascending(self, effort: Effort) -> None:
        assert list(effort.ns_per_byte) == sorted(effort.ns_per_byte)
        assert list(effort.ns_per_byte.values()) == sorted(effort.ns_per_byte.values())

    @given(efforts, sizes, sizes)
    def test_larger_bodies_get_no_higher_level(self, effort: Effort, one: int, two: int) -> None:
        small, large = sorted([one, two])
        assert effort.choose_level(small) >= effort.choose_level(large)

    def test_sizes_are_inclusive(self) -> None:
        for at_most, level in ZLIB.by_size[:-1]:
            assert ZLIB.choose_level(at_most) == level
            assert ZLIB.choose_level(at_most + 1) < level

    def test_the_level_under_load_is_not_slower(self, effort: Effort) -> None:
        for size in (0, 10_000, 1 << 20, 1 << 30):
            level = effort.choose_level(size)
            assert effort.fastest <= level <= effort.smallest

    def test_every_coding_has_options(self) -> None:
        assert set(LEVELS) == set(Coding)
        assert LEVELS[Coding.ZSTD] == range(-7, 23)


class TestSeconds:
    @given(efforts, st.data(), sizes, sizes)
    def test_grow_with_size(self, effort: Effort, data: st.DataObject, one: int, two: int) -> None:
        level = data.draw(st.sampled_from(effort.levels))
        small, large = sorted([one, two])
        assert 0 < effort.estimate_seconds(level, small) <= effort.estimate_seconds(level, large)

    @given(efforts, st.data(), sizes)
    def test_costs_grow_with_level(self, effort: Effort, data: st.DataObject, size: int) -> None:
        one, two = sorted(data.draw(st.tuples(*[st.sampled_from(effort.levels)] * 2)))
        assert effort.estimate_seconds(one, size) <= effort.estimate_seconds(two, size)

    @given(efforts, st.data(), st.floats(0, 1))
    def test_seconds_are_the_inverse_of_the_maximum_size(
        self, effort: Effort, data: st.DataObject, seconds: float
    ) -> None:
        level = data.draw(st.sampled_from(effort.levels))
        most = effort.estimate_max_bytes(level, seconds)
        assert most >= 0
        if most:
            assert effort.estimate_seconds(level, most) <= seconds * 1.0001
        beyond = most * 11 // 10 + 50_000
        assert effort.estimate_seconds(level, beyond) > seconds

    def test_no_time_is_enough_for_no_bytes(self, effort: Effort) -> None:
        for level in effort.levels:
            assert effort.estimate_max_bytes(level, 0) == 0


class TestFixedAt:
    @given(efforts, st.data(), sizes)
    def test_is_used_for_all_sizes(self, effort: Effort, data: st.DataObject, size: int) -> None:
        level = data.draw(st.sampled_from(effort.levels))
        fixed = with_fixed_level(level, effort)
        assert {fixed.choose_level(size), fixed.streaming, fixed.live} == {level}
        assert fixed.fastest <= level <= fixed.smallest
        assert fixed.estimate_seconds(level, size) == effort.estimate_seconds(level, size)
        assert fixed.levels == effort.levels
