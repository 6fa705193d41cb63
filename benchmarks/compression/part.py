"""The base class of the parts of this benchmark, which measure responses with files of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compression.contestant import CONTESTANTS
from benchmarks.contestants import Lineup
from benchmarks.parts import RoundPart


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much to measure: seconds for each contestant and case, streams, and repetitions."""

    pareto_seconds: float = 0.25
    overhead_repeats: int = 40
    stalls_seconds: float = 4.0
    streams: int = 1_000
    events: int = 20
    interval_seconds: float = 0.2


class CompressionPart(RoundPart):
    def __init__(self, names: Sequence[str], folder: Path, sizes: Sizes) -> None:
        self.lineup = Lineup(names)
        self.left_out = self.lineup.left_out
        self.folder = folder
        self.sizes = sizes


def titles(names: Sequence[str]) -> str:
    return ", ".join(map(CONTESTANTS.title, names))
