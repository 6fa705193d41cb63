"""The parts of this benchmark. Each measures every contestant in a new process."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.contestants import Lineup
from benchmarks.parts import Report, RoundPart
from benchmarks.processes import run_json
from benchmarks.ratelimit.contestant import CONTESTANTS, OURS

TIMEOUT_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each part measures: repetitions, seconds for each contestant, and keys."""

    repeats: int = 20
    redis_seconds: float = 2.0
    keys: int = 100_000
    many_keys: int = 1_000_000
    redis_keys: int = 10_000
    overload_seconds: float = 8.0


class StoreRateLimitPart(RoundPart):
    """A part that runs the workload with its name. url is that of the Redis server to use."""

    def __init__(self, names: Sequence[str], url: str, sizes: Sizes) -> None:
        self.lineup = Lineup([name for name in names if self.measures(name)])
        self.left_out = self.lineup.left_out
        self.url = url
        self.sizes = sizes
        self.runs: dict[str, list[Any]] = {}

    @abstractmethod
    def measures(self, name: str) -> bool:
        """Return whether a contestant can be measured in this part."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the workload: see `workloads`."""

    def steps(self) -> int:
        return len(self.lineup.names)

    def round(self, number: int, report: Report) -> None:
        for name in list(self.lineup.names):
            report(f"{self.name}: {name}")
            with self.lineup.leaving_out(name, during=self.name):
                self.runs.setdefault(name, []).append(self.run(name))

    def run(self, name: str, **arguments: Any) -> Any:
        """Measure a contestant once, in a new process."""
        text = json.dumps({**self.arguments(), **arguments})
        command = CONTESTANTS.find(name).command(self.name)
        return run_json([*command, text], timeout=TIMEOUT_SECONDS)

    def samples(self) -> Mapping[str, Any]:
        return self.runs

    def values(self, name: str, *keys: str) -> list[float]:
        """Return one measured number of a contestant, for each round."""
        found = []
        for run in self.runs.get(name, []):
            value = run
            for key in keys:
                value = value[key]
            found.append(value)
        return found

    @property
    def has_ours(self) -> bool:
        return OURS in self.lineup.names and OURS in self.runs
