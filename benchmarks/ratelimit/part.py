"""What is measured: each part is an object that collects rounds, and shows what they say."""

from __future__ import annotations

import json
import statistics
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from benchmarks.ratelimit.lineup import OURS, Failed, Lineup, find
from benchmarks.verdicts import Ratios, Verdict

ROOT: Final = Path(__file__).parents[2]
TIMEOUT_SECONDS: Final = 300

Tell: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a part takes: repetitions, seconds for each contestant and kind, keys."""

    repeats: int = 20
    redis_seconds: float = 2.0
    keys: int = 100_000
    many_keys: int = 1_000_000
    redis_keys: int = 10_000
    overload_seconds: float = 8.0


class Part(ABC):
    """In a round the contestants take turns, each in a new process.

    url is that of a Redis server that nobody else uses.
    """

    name: ClassVar[str]

    def __init__(self, names: Sequence[str], url: str, sizes: Sizes) -> None:
        self.lineup = Lineup([name for name in names if self.takes(name)])
        self.url = url
        self.sizes = sizes
        self.runs: dict[str, list[Any]] = {}

    @abstractmethod
    def takes(self, name: str) -> bool:
        """Whether a contestant has what this part measures."""

    @abstractmethod
    def arguments(self, name: str) -> dict[str, Any]:
        """Those of the work in a contestant's process."""

    @abstractmethod
    def show(self) -> None:
        """Print tables, and how their numbers were measured."""

    def verdicts(self) -> list[Verdict]:
        return []

    def steps(self) -> int:
        """How often a round tells what it does."""
        return len(self.lineup.names)

    def round(self, number: int, tell: Tell) -> None:
        for name in list(self.lineup.names):
            tell(f"{self.name}: {name}")
            with self.lineup.leaving_out(name, during=self.name):
                self.runs.setdefault(name, []).append(self.run(name))

    def run(self, name: str, **arguments: Any) -> Any:
        command = [
            *find(name).command(self.name), json.dumps({**self.arguments(name), **arguments})
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Failed(f"took longer than {TIMEOUT_SECONDS} s") from None
        if done.returncode != 0:
            words = [line for line in done.stderr.strip().splitlines() if line.strip()]
            raise Failed(words[-1] if words else f"ended with {done.returncode}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def samples(self) -> Mapping[str, Any]:
        """All that was measured, as what JSON can hold."""
        return self.runs

    # Reading runs -------------------------------------------------------------------------------

    def values(self, name: str, *keys: str) -> list[float]:
        """What was measured of a contestant, round by round."""
        found = []
        for run in self.runs.get(name, []):
            value = run
            for key in keys:
                value = value[key]
            found.append(value)
        return found

    def compared(self, over: Sequence[float], under: Sequence[float]) -> Ratios | None:
        """None without rounds that both have."""
        pairs = list(zip(over, under, strict=False))
        return Ratios([one / other for one, other in pairs]) if pairs else None

    @property
    def has_ours(self) -> bool:
        return OURS in self.lineup.names and OURS in self.runs


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def shown(ratios: Ratios | None) -> str:
    return "" if ratios is None else str(ratios)
