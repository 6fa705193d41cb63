"""Runs the parts: first each contestant's settings, then rounds in which they take turns.

The machine is busier in one minute than in the next. So contestants are compared within a round,
part by part, seconds apart; a round gives one ratio, and the median of those counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.progress import Progress
from benchmarks.queues.comparison import Comparison
from benchmarks.queues.parts import Order, Part, Sample, Sizes
from benchmarks.queues.stage import Stage
from benchmarks.queues.store import Store

TUNED: Final = ("enqueue", "drain")  # the parts that have settings

TRIALS: Final = 3  # of each setting


@dataclass(slots=True)
class Results:
    """settings: contestant → part → the chosen one. samples: part → contestant → one per round."""

    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    trials: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def values(self, part: str, contestant: str, key: str) -> list[float]:
        return [sample[key] for sample in self.samples.get(part, {}).get(contestant, [])]


class Runner:
    def __init__(
        self,
        comparison: Comparison,
        names: Sequence[str],
        parts: Sequence[str],
        *,
        rounds: int,
        sizes: Sizes,
        store: Store,
    ) -> None:
        self._find = comparison.find
        self._known = comparison.parts(sizes)
        self._names = names
        self._parts = {name: self._known[name] for name in parts}
        self._rounds = rounds
        self._sizes = sizes
        self._store = store

    def run(self, progress: Progress) -> Results:
        results = Results()
        for name in self._names:
            results.settings[name] = self._tune(name, results, progress)
        for number in range(1, self._rounds + 1):
            for part_name, part in self._parts.items():
                for name in self._names:
                    if not self._takes_part(name, part_name):
                        continue
                    progress.tell(f"round {number} of {self._rounds}: {part_name}, {name}")
                    order = self._order(name, results.settings[name], seed=number)
                    sample = self._measure(part, name, order)
                    results.samples.setdefault(part_name, {}).setdefault(name, []).append(sample)
        return results

    def steps(self) -> int:
        """How often `run` tells its progress."""
        trials = sum(
            TRIALS * len(self._find(name).settings[part])
            for name in self._names
            for part in self._to_tune(name)
        )
        turns = sum(self._takes_part(name, part) for name in self._names for part in self._parts)
        return trials + turns * self._rounds

    def _tune(self, name: str, results: Results, progress: Progress) -> dict[str, str]:
        """Find the fastest setting of a contestant for each part that has some."""
        settings = self._find(name).settings
        chosen = {part: settings[part][0] for part in TUNED}
        for part in self._to_tune(name):
            rates: dict[str, list[float]] = {setting: [] for setting in settings[part]}
            for trial in range(TRIALS):
                for setting, found in rates.items():
                    progress.tell(f"settings: {part}, {name}, {setting}")
                    order = self._order(name, {**chosen, part: setting}, seed=trial)
                    sample = self._measure(self._known[part], name, order.trial())
                    found.append(sample["per_second"])
            medians = {setting: statistics.median(found) for setting, found in rates.items()}
            chosen[part] = max(medians, key=lambda setting: medians[setting])
            results.trials.setdefault(name, {})[part] = medians
        return chosen

    def _to_tune(self, name: str) -> list[str]:
        """The parts of a contestant that have several settings and that somebody will need."""
        contestant = self._find(name)
        needed = {part for part in self._parts if self._takes_part(name, part)}
        if any(part.startswith("depth") for part in needed):
            needed.update(TUNED)
        return [part for part in TUNED if part in needed and len(contestant.settings[part]) > 1]

    def _takes_part(self, name: str, part: str) -> bool:
        return part.partition(":")[0] in self._find(name).parts

    def _order(self, name: str, settings: dict[str, str], *, seed: int) -> Order:
        return Order(self._sizes, self._find(name).share, settings, seed)

    def _measure(self, part: Part, name: str, order: Order) -> Sample:
        with Stage(self._find(name), self._store) as stage:
            return part(stage, order)
