"""Compare job queues: find the fastest setting of each contestant, then measure in rounds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, Final

from benchmarks.benchmark import Benchmark
from benchmarks.contestants import Contestants
from benchmarks.parts import Part, Report, RoundPart
from benchmarks.progress import Progress
from benchmarks.queues.comparison import Comparison
from benchmarks.queues.contestant import Contestant
from benchmarks.queues.measures import MEASURES, Plan, Sample, Sizes
from benchmarks.queues.tables import Tables
from benchmarks.queues.workspace import Workspace
from benchmarks.stores import Store
from benchmarks.verdicts import Verdict

TUNED: Final = ("enqueue", "drain")  # the parts that have settings
TRIALS: Final = 3  # how many times each setting is tried
TRIAL_SHARE: Final = 0.2  # the fraction of the jobs that a trial uses


class QueueBenchmark(Benchmark[Contestant, Sizes]):
    comparison: ClassVar[Comparison]
    store: ClassVar[type[Store]]
    default_rounds = 5
    quick_help = "fewer jobs"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.settings: dict[str, dict[str, str]] = {}
        """The chosen setting, by contestant and part."""
        self.trials: dict[str, dict[str, dict[str, float]]] = {}
        """The jobs per second of each trial, by contestant, part and setting."""

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--folder", type=Path, metavar="DIR",
            help="a folder on the disk to measure (default: the folder of temporary files)",
        )  # fmt: skip

    def measure(self) -> Sequence[Part]:
        with self.store(self.options.folder) as store:
            self.environment |= store.facts()
            measurer = Measurer(self.contestants, self.sizes, store)
            self._choose_settings(measurer)
            return self.measure_rounds(
                [QueuePart(part, self._contestants_of(part), self.settings, measurer)
                 for part in self.options.parts]
            )  # fmt: skip

    def _contestants_of(self, part: str) -> list[str]:
        kind = part.partition(":")[0]
        return [name for name in self.names if kind in self.contestants.find(name).parts]

    def _choose_settings(self, measurer: Measurer) -> None:
        """Find the fastest setting of each contestant for the parts that need one."""
        needed = {
            name: {part for part in self.options.parts if name in self._contestants_of(part)}
            for name in self.names
        }
        with Progress() as progress:
            for name, parts in needed.items():
                known = self.contestants.find(name).settings
                chosen = self.settings[name] = {part: known[part][0] for part in TUNED}
                has_depths = any(part.startswith("depth") for part in parts)
                for part in TUNED:
                    if (part in parts or has_depths) and len(known[part]) > 1:
                        rates = _try_settings(
                            measurer, part, name, known[part], chosen, progress.report
                        )
                        chosen[part] = max(rates, key=lambda setting: rates[setting])
                        self.trials.setdefault(name, {})[part] = rates

    # Showing ------------------------------------------------------------------------------------

    def remarks(self) -> Mapping[str, str]:
        return {
            self.contestants.title(name): "; ".join(
                [self.contestants.find(name).remark]
                + [f"{part} with {setting}" for part, setting in self.settings[name].items()]
            )
            for name in self.names
        }

    def heading(self) -> str:
        baseline = self.contestants.title(self.comparison.baseline)
        text = super().heading()
        if self.comparison.baseline == self.comparison.ours:
            return text
        return f"{text} A ratio says how many times as good as {baseline} a contestant was."

    def _tables(self) -> Tables:
        samples = {part.name: part.samples() for part in self.parts}
        return Tables(self.comparison, self.contestants, self.names, self.sizes, samples)

    def show_parts(self) -> None:
        self._tables().show()

    def verdicts(self) -> Sequence[Verdict]:
        return self._tables().verdicts()

    def more_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "trials": self.trials,
            "ratios": self._tables().ratios_by_row(),
        }


class Measurer:
    """Measures one contestant in one part, with an empty store."""

    def __init__(self, contestants: Contestants[Contestant], sizes: Sizes, store: Store) -> None:
        self._contestants = contestants
        self._sizes = sizes
        self._store = store

    def measure(
        self, part: str, name: str, settings: Mapping[str, str], *, seed: int, share: float = 1.0
    ) -> Sample:
        contestant = self._contestants.find(name)
        plan = Plan(self._sizes, contestant.share * share, settings, seed)
        with Workspace(contestant, self._store) as workspace:
            return MEASURES[part](workspace, plan)


def _try_settings(
    measurer: Measurer,
    part: str,
    name: str,
    settings: Sequence[str],
    chosen: Mapping[str, str],
    report: Report,
) -> dict[str, float]:
    """Return the jobs per second with each setting: the median of some short trials."""
    found: dict[str, list[float]] = {setting: [] for setting in settings}
    for trial in range(TRIALS):
        for setting, rates in found.items():
            report(f"settings: {part}, {name}, {setting}")
            sample = measurer.measure(
                part, name, {**chosen, part: setting}, seed=trial, share=TRIAL_SHARE
            )
            rates.append(sample["per_second"])
    return {setting: median(rates) for setting, rates in found.items()}


class QueuePart(RoundPart):
    """The numbers of one part. `QueueBenchmark` prints the numbers of all parts together."""

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        settings: Mapping[str, Mapping[str, str]],
        measurer: Measurer,
    ) -> None:
        self.name = name
        self.left_out = {}
        self._samples: dict[str, list[Sample]] = {each: [] for each in names}
        self._settings = settings
        self._measurer = measurer

    def steps(self) -> int:
        return len(self._samples)

    def round(self, number: int, report: Report) -> None:
        for name, samples in self._samples.items():
            report(f"{self.name}: {name}")
            settings = self._settings[name]
            samples.append(self._measurer.measure(self.name, name, settings, seed=number))

    def show(self) -> None:
        """Print nothing: `QueueBenchmark.show_parts` prints all parts."""

    def samples(self) -> Mapping[str, list[Sample]]:
        return self._samples
