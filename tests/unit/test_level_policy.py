"""Levels and estimates agree with each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.compression._level_policy import (
    BROTLI,
    ISAL,
    LEVELS,
    ZLIB,
    ZSTD,
    LevelPolicy,
    with_fixed_level,
)
from hasten.compression._negotiation import Coding

LEVEL_POLICIES = {"zstd": ZSTD, "brotli": BROTLI, "zlib": ZLIB, "isal": ISAL}

level_policies = st.sampled_from(list(LEVEL_POLICIES.values()))
sizes = st.integers(0, 1 << 30)


@pytest.fixture(params=LEVEL_POLICIES)
def level_policy(request: pytest.FixtureRequest) -> LevelPolicy:
    return LEVEL_POLICIES[request.param]


class TestLevels:
    def test_every_chosen_level_exists(self, level_policy: LevelPolicy) -> None:
        chosen = {level for _, level in level_policy.by_size}
        chosen |= {
            level_policy.streaming,
            level_policy.live,
            level_policy.fastest,
            level_policy.smallest,
        }
        assert chosen <= set(level_policy.levels)
        assert set(level_policy.ns_per_byte) <= set(level_policy.levels)

    def test_costs_are_ascending(self, level_policy: LevelPolicy) -> None:
        assert list(level_policy.ns_per_byte) == sorted(level_policy.ns_per_byte)
        assert list(level_policy.ns_per_byte.values()) == sorted(level_policy.ns_per_byte.values())

    @given(level_policies, sizes, sizes)
    def test_larger_bodies_get_no_higher_level(
        self, level_policy: LevelPolicy, one: int, two: int
    ) -> None:
        small, large = sorted([one, two])
        assert level_policy.choose_level(small) >= level_policy.choose_level(large)

    def test_sizes_are_inclusive(self) -> None:
        for at_most, level in ZLIB.by_size[:-1]:
            assert ZLIB.choose_level(at_most) == level
            assert ZLIB.choose_level(at_most + 1) < level

    def test_the_level_under_load_is_not_slower(self, level_policy: LevelPolicy) -> None:
        for size in (0, 10_000, 1 << 20, 1 << 30):
            level = level_policy.choose_level(size)
            assert level_policy.fastest <= level <= level_policy.smallest

    def test_every_coding_has_options(self) -> None:
        assert set(LEVELS) == set(Coding)
        assert LEVELS[Coding.ZSTD] == range(-7, 23)


class TestSeconds:
    @given(level_policies, st.data(), sizes, sizes)
    def test_grow_with_size(
        self, level_policy: LevelPolicy, data: st.DataObject, one: int, two: int
    ) -> None:
        level = data.draw(st.sampled_from(level_policy.levels))
        small, large = sorted([one, two])
        assert (
            0
            < level_policy.estimate_seconds(level, small)
            <= level_policy.estimate_seconds(level, large)
        )

    @given(level_policies, st.data(), sizes)
    def test_costs_grow_with_level(
        self, level_policy: LevelPolicy, data: st.DataObject, size: int
    ) -> None:
        one, two = sorted(data.draw(st.tuples(*[st.sampled_from(level_policy.levels)] * 2)))
        assert level_policy.estimate_seconds(one, size) <= level_policy.estimate_seconds(two, size)

    @given(level_policies, st.data(), st.floats(0, 1))
    def test_seconds_are_the_inverse_of_the_maximum_size(
        self, level_policy: LevelPolicy, data: st.DataObject, seconds: float
    ) -> None:
        level = data.draw(st.sampled_from(level_policy.levels))
        most = level_policy.estimate_max_bytes(level, seconds)
        assert most >= 0
        if most:
            assert level_policy.estimate_seconds(level, most) <= seconds * 1.0001
        beyond = most * 11 // 10 + 50_000
        assert level_policy.estimate_seconds(level, beyond) > seconds

    def test_no_time_is_enough_for_no_bytes(self, level_policy: LevelPolicy) -> None:
        for level in level_policy.levels:
            assert level_policy.estimate_max_bytes(level, 0) == 0


class TestFixedAt:
    @given(level_policies, st.data(), sizes)
    def test_is_used_for_all_sizes(
        self, level_policy: LevelPolicy, data: st.DataObject, size: int
    ) -> None:
        level = data.draw(st.sampled_from(level_policy.levels))
        fixed = with_fixed_level(level, level_policy)
        assert {fixed.choose_level(size), fixed.streaming, fixed.live} == {level}
        assert fixed.fastest <= level <= fixed.smallest
        assert fixed.estimate_seconds(level, size) == level_policy.estimate_seconds(level, size)
        assert fixed.levels == level_policy.levels
