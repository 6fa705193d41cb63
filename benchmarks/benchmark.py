"""The base class of all benchmarks: parses options, measures in rounds, prints the results."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from benchmarks import machine
from benchmarks.contestants import Contestant, Contestants, Failed
from benchmarks.options import parser_of
from benchmarks.parts import Part, RoundPart
from benchmarks.progress import Progress
from benchmarks.tables import show_text
from benchmarks.verdicts import Verdict, show_verdicts

C = TypeVar("C", bound=Contestant)
S = TypeVar("S")


class Benchmark(ABC, Generic[C, S]):
    """A comparison of contestants: hasten and other libraries.

    full and quick say how much to measure without and with --quick; S is their type.
    """

    contestants: Contestants[C]
    part_names: ClassVar[Sequence[str]]
    full: S
    quick: S
    default_rounds: ClassVar[int] = 3
    quick_help: ClassVar[str] = "shorter"

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.names = self.contestants.installed(self.wanted(options.only))
        self.sizes: S = self.sizes_of(options)
        self.rounds: int = options.rounds or int(
            os.environ.get("ROUNDS") or (1 if options.quick else self.default_rounds)
        )
        self.parts: Sequence[Part] = ()
        self.environment: dict[str, str] = {}
        """Facts that the numbers depend on, such as the version of a server."""

    # What a benchmark defines ---------------------------------------------------------------------

    @abstractmethod
    def measure(self) -> Sequence[Part]:
        """Measure all rounds, and return the parts. Servers are started and stopped here."""

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options that only this benchmark has."""

    def sizes_of(self, options: argparse.Namespace) -> S:
        return self.quick if options.quick else self.full

    def wanted(self, names: Sequence[str]) -> Sequence[str]:
        """Return the contestants to measure for the names of --only."""
        return names

    def remarks(self) -> Mapping[str, str]:
        """Return the settings of each contestant by its title, to print above the tables."""
        return {
            self.contestants.title(name): self.contestants.find(name).remark for name in self.names
        }

    def heading(self) -> str:
        """Return a text that explains how to read the tables."""
        rounds = "One round" if self.rounds == 1 else f"Medians of {self.rounds} rounds"
        return f"\n{rounds}; ratios: median (lowest–highest)."

    def show_parts(self) -> None:
        for part in self.parts:
            part.show()
            for name, reason in part.left_out.items():
                show_text(f"Not measured in {part.name}: {name}, {reason}")

    def verdicts(self) -> Sequence[Verdict]:
        return [verdict for part in self.parts for verdict in part.verdicts()]

    def more_json(self) -> dict[str, Any]:
        """Return additional members for the output of --json."""
        return {}

    def library_versions(self) -> list[str]:
        return self.contestants.versions(self.names)

    # What all benchmarks do -----------------------------------------------------------------------

    def measure_rounds(self, parts: Sequence[RoundPart]) -> Sequence[Part]:
        """Measure all parts in each round, and return them."""
        with Progress(self.rounds * sum(part.steps() for part in parts)) as progress:
            for number in range(1, self.rounds + 1):
                for part in parts:
                    part.round(number, progress.report)
        return parts

    def show(self, facts: Mapping[str, str]) -> None:
        lines = {**facts, **self.remarks()}
        width = max(map(len, lines))
        show_text("")
        for title, text in lines.items():
            show_text(f"{title:>{width}}: {text}")
        show_text(self.heading())
        self.show_parts()
        show_verdicts(self.verdicts())

    def as_json(self, facts: Mapping[str, str]) -> dict[str, Any]:
        return {
            "facts": facts,
            "rounds": self.rounds,
            "samples": {part.name: part.samples() for part in self.parts},
            "left_out": {part.name: part.left_out for part in self.parts},
            "targets": [
                {"target": verdict.target, "measured": verdict.measured, "met": verdict.met}
                for verdict in self.verdicts()
            ],
            **self.more_json(),
        }


def run(kind: type[Benchmark[Any, Any]], description: str | None) -> int:
    """Run a benchmark by its command line. Return the exit status."""
    parser = parser_of(
        kind.contestants.package.removesuffix(".contestants"), description,
        names=kind.contestants.names(), parts=kind.part_names, rounds=kind.default_rounds,
        quick_help=kind.quick_help,
    )  # fmt: skip
    kind.add_options(parser)
    benchmark = kind(parser.parse_args())
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # so that servers and processes are stopped
    load = machine.load()
    try:
        benchmark.parts = benchmark.measure()
    except Failed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    facts = {
        **machine.facts(benchmark.library_versions()), **benchmark.environment, **load
    }  # fmt: skip
    benchmark.show(facts)
    if benchmark.options.json is not None:
        text = json.dumps(benchmark.as_json(facts), indent=1)
        benchmark.options.json.write_text(text + "\n", "utf-8")
    return 0
