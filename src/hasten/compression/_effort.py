"""How hard to compress, and what that costs: levels by size, processor time by estimate.

The costs were measured on one x86-64 core (JSON and HTML, 1 kB to 1 MB) and tell slow from fast,
not microseconds from microseconds: they decide what is done at once and what goes to a thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hasten.compression._negotiation import Coding


@dataclass(frozen=True, slots=True)
class Effort:
    """The levels of one compressor."""

    levels: range
    """All that it has."""

    ns_per_byte: Mapping[int, float]
    """By level, ascending; a level in between costs what the next one costs."""

    fixed_ns: int
    """For the smallest of bodies."""

    by_size: Sequence[tuple[int, int]]
    """What is chosen for a body of at most so many bytes; the last is for all that are larger."""

    streaming: int
    """What is chosen where the size is not known."""

    live: int
    """What is chosen for events, which are small and share a context."""

    fastest: int
    """What is chosen under load."""

    smallest: int
    """What is chosen where the time does not matter."""

    def level_for(self, size: int) -> int:
        for at_most, level in self.by_size:
            if size <= at_most:
                return level
        return self.by_size[-1][1]

    def seconds(self, level: int, size: int) -> float:
        """About how long one core takes for a body of so many bytes."""
        levels = list(self.ns_per_byte)
        nearest = levels[min(bisect_left(levels, level), len(levels) - 1)]
        return (self.fixed_ns + self.ns_per_byte[nearest] * size) * 1e-9

    def most_bytes_within(self, level: int, seconds: float) -> int:
        """The largest body that takes no longer. The reverse of `seconds`."""
        per_byte = self.seconds(level, 1_000_000) / 1_000_000
        return max(int((seconds - self.fixed_ns * 1e-9) / per_byte), 0)


KIB: Final = 1024

# Level 1 of zstd beats 3 where there is much to find; below that 3 is smaller, and as fast.
ZSTD: Final = Effort(
    levels=range(-7, 23),
    ns_per_byte={-1: 0.8, 1: 1.0, 3: 1.3, 4: 1.5, 6: 4, 9: 7, 12: 20, 15: 40, 19: 250, 22: 400},
    fixed_ns=3_000,
    by_size=((8 * KIB, 3), (0, 1)),
    streaming=1,
    live=1,
    fastest=1,
    smallest=19,
)
BROTLI: Final = Effort(
    levels=range(12),
    ns_per_byte={0: 1.3, 1: 1.7, 3: 3, 4: 4.5, 5: 9, 6: 12, 7: 18, 9: 40, 10: 400, 11: 1500},
    fixed_ns=12_000,
    by_size=((16 * KIB, 5), (0, 4)),
    streaming=4,
    live=5,
    fastest=1,
    smallest=9,
)
ZLIB: Final = Effort(
    levels=range(1, 10),
    ns_per_byte={1: 4.5, 3: 6, 4: 7, 5: 9, 6: 12, 7: 15, 9: 38},
    fixed_ns=5_000,
    by_size=((32 * KIB, 6), (256 * KIB, 4), (0, 1)),
    streaming=4,
    live=6,
    fastest=1,
    smallest=9,
)
# Level 3 takes three times as long as 1, for two parts in a hundred.
ISAL: Final = Effort(
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
"""What may be asked for by option."""


def fixed_at(level: int, effort: Effort) -> Effort:
    """The same compressor, at one level whatever comes. Load may still lower it."""
    return Effort(
        effort.levels,
        effort.ns_per_byte,
        effort.fixed_ns,
        by_size=((0, level),),
        streaming=level,
        live=level,
        fastest=min(level, effort.fastest),
        smallest=max(level, effort.smallest),
    )
