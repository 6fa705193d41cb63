"""`python -m benchmarks.compression`: compare response compression."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.benchmark import Benchmark, run
from benchmarks.compression import corpora
from benchmarks.compression.contestant import CONTESTANTS, Contestant, baseline
from benchmarks.compression.correctness import Correctness
from benchmarks.compression.overhead import Overhead
from benchmarks.compression.pareto import Pareto
from benchmarks.compression.part import CompressionPart, Sizes
from benchmarks.compression.stalls import Stalls
from benchmarks.compression.streams import Streams
from benchmarks.machine import allow_open_files
from benchmarks.parts import Part


class Compression(Benchmark[Contestant, Sizes]):
    contestants = CONTESTANTS
    known_parts: ClassVar[dict[str, type[CompressionPart]]] = {
        part.name: part for part in (Pareto, Overhead, Stalls, Streams, Correctness)
    }
    part_names = tuple(known_parts)
    full = Sizes()
    quick = Sizes(
        pareto_seconds=0.03, overhead_repeats=8, stalls_seconds=1.0,
        streams=300, events=10, interval_seconds=0.1,
    )  # fmt: skip

    def wanted(self, names: Sequence[str]) -> Sequence[str]:
        """Return names, and the baselines that these contestants are compared with."""
        wanted = {*names, *(baseline(name) for name in names)}
        return [name for name in CONTESTANTS.names() if name in wanted]

    def measure(self) -> Sequence[Part]:
        allow_open_files()  # a stream needs one here and one in the server, a child
        with tempfile.TemporaryDirectory(prefix="hasten-bench-") as name:
            folder = Path(name)
            corpora.write(folder)
            kinds = [self.known_parts[part] for part in self.options.parts]
            return self.measure_rounds([part(self.names, folder, self.sizes) for part in kinds])


if __name__ == "__main__":
    raise SystemExit(run(Compression, __doc__))
