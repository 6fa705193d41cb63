"""The compression level for each body size, and estimates of the processor time it takes.

The costs were measured on one x86-64 core with JSON and HTML of 1 kB to 1 MB. They are rough, but
good enough to decide whether to compress a body on the event loop or in a thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hasten.compression._negotiation import Coding


@dataclass(frozen=True, slots=True)
class LevelPolicy:
    """Which level a compressor uses when, and how much time each level takes."""

    levels: range
    """All levels that the compressor supports."""

    ns_per_byte: Mapping[int, float]
    """The cost of each level, in ascending order. A missing level costs as much as the next one."""

    fixed_ns: int
    """The processor time of an empty body, in nanoseconds."""

    by_size: Sequence[tuple[int, int]]
    """Pairs of a maximum body size and a level; the last level is for all larger bodies."""

    streaming: int
    """The level for a body of unknown size."""

    live: int
    """The level for live streams, whose events are small and similar to each other."""

    fastest: int
    """The level when many bodies wait for a thread."""

    smallest: int
    """The level with the smallest output that is worth its time, for work in the background."""

    def choose_level(self, size: int) -> int:
        """Return the level for a body of this size, in bytes."""
        for max_output_bytes, level in self.by_size:
            if size <= max_output_bytes:
                return level
        return self.by_size[-1][1]

    def estimate_seconds(self, level: int, size: int) -> float:
        """Return about how many seconds a core needs to compress size bytes at this level."""
        levels = list(self.ns_per_byte)
        nearest = levels[min(bisect_left(levels, level), len(levels) - 1)]
        return (self.fixed_ns + self.ns_per_byte[nearest] * size) * 1e-9

    def estimate_max_bytes(self, level: int, seconds: float) -> int:
        """Return the size of the largest body that can be compressed in this time.

        It is the inverse of `estimate_seconds`.
        """
        per_byte = self.estimate_seconds(level, 1_000_000) / 1_000_000
        return max(int((seconds - self.fixed_ns * 1e-9) / per_byte), 0)


KIB: Final = 1024

# Level 1 of zstd is faster than 3 for large bodies. For small ones, 3 is as fast, and its output is
# smaller.
ZSTD: Final = LevelPolicy(
    levels=range(-7, 23),
    ns_per_byte={-1: 0.8, 1: 1.0, 3: 1.3, 4: 1.5, 6: 4, 9: 7, 12: 20, 15: 40, 19: 250, 22: 400},
    fixed_ns=3_000,
    by_size=((8 * KIB, 3), (0, 1)),
    streaming=1,
    live=1,
    fastest=1,
    smallest=19,
)
BROTLI: Final = LevelPolicy(
    levels=range(12),
    ns_per_byte={0: 1.3, 1: 1.7, 3: 3, 4: 4.5, 5: 9, 6: 12, 7: 18, 9: 40, 10: 400, 11: 1500},
    fixed_ns=12_000,
    by_size=((16 * KIB, 5), (0, 4)),
    streaming=4,
    live=5,
    fastest=1,
    smallest=9,
)
ZLIB: Final = LevelPolicy(
    levels=range(1, 10),
    ns_per_byte={1: 4.5, 3: 6, 4: 7, 5: 9, 6: 12, 7: 15, 9: 38},
    fixed_ns=5_000,
    by_size=((32 * KIB, 6), (256 * KIB, 4), (0, 1)),
    streaming=4,
    live=6,
    fastest=1,
    smallest=9,
)
# Level 3 takes three times as long as 1, and its output is only 2 % smaller.
ISAL: Final = LevelPolicy(
    levels=range(4),
    ns_per_byte={0: 0.7, 1: 0.8, 2: 0.8, 3: 2.5},
    fixed_ns=4_000,
    by_size=((0, 1),),
    streaming=1,
    live=1,
    fastest=1,
    smallest=3,
)

LEVELS: Final = {
    Coding.ZSTD: ZSTD.levels,
    Coding.BROTLI: BROTLI.levels,
    Coding.GZIP: ZLIB.levels,
    Coding.DEFLATE: ZLIB.levels,
}
"""The numbers that the option level of `CompressionMiddleware` accepts."""


def with_fixed_level(level: int, level_policy: LevelPolicy) -> LevelPolicy:
    """Return a copy of level_policy that uses one level for all body sizes.

    The level is still lowered under load, and raised for work in the background.
    """
    return LevelPolicy(
        level_policy.levels,
        level_policy.ns_per_byte,
        level_policy.fixed_ns,
        by_size=((0, level),),
        streaming=level,
        live=level,
        fastest=min(level, level_policy.fastest),
        smallest=max(level, level_policy.smallest),
    )
