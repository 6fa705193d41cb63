"""The time that a middleware adds to a request whose response is small or not compressed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.compression.contestant import CONTESTANTS, OURS, PythonContestant
from benchmarks.compression.part import CompressionPart, Sizes
from benchmarks.compression.stepping import CALLS, CASES
from benchmarks.contestants import Failed
from benchmarks.parts import Report
from benchmarks.processes import run_json
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Verdict, short

LIMITS_US: Final = {"200 B JSON": 2.0, "PNG of 20 kB": 2.0, "204": 2.0, "1 kB JSON": 8.0}
TIMEOUT_SECONDS: Final = 300


class Overhead(CompressionPart):
    name = "overhead"

    def __init__(self, names: Sequence[str], folder: Path, sizes: Sizes) -> None:
        super().__init__(
            [name for name in names if issubclass(CONTESTANTS.find(name), PythonContestant)],
            folder,
            sizes,
        )
        self._calls: dict[str, list[dict[str, Any]]] = {}

    def steps(self) -> int:
        return 1

    def round(self, number: int, report: Report) -> None:
        """Measure all contestants in turn, in one new process."""
        report(f"{self.name}: {', '.join(self.lineup.names)}")
        arguments = {
            "modules": {name: CONTESTANTS.find(name).__module__ for name in self.lineup.names},
            "repeats": self.sizes.overhead_repeats,
        }
        command = [sys.executable, "-m", "benchmarks.compression.stepping", str(self.folder)]
        try:
            found = run_json([*command, json.dumps(arguments)], timeout=TIMEOUT_SECONDS)
        except Failed as failure:
            found = {name: {"error": str(failure)} for name in self.lineup.names}
        for name in list(self.lineup.names):
            with self.lineup.leaving_out(name, during=self.name):
                if "error" in found[name]:
                    raise Failed(found[name]["error"])
                self._calls.setdefault(name, []).append(found[name])

    def show(self) -> None:
        show_text(
            f"""
overhead: processor time of a call without a server, with the headers of Chrome: the minimum of
{self.sizes.overhead_repeats} times {CALLS} calls, contestants in turn. Added: minus the time of the
bare application."""
        )
        lines = [self._line(name, case) for case in CASES for name in self.lineup.names]
        if lines:
            show_table("Time of a call", ["", "", "coding", "bytes", "µs", "added, µs"], lines)

    def _line(self, name: str, case: str) -> list[str]:
        call = self._calls[name][-1][case]
        return [
            case if name == self.lineup.names[0] else "",
            CONTESTANTS.title(name),
            call["coding"],
            f"{call['bytes']:,}",
            short(median(self._us(name, case))),
            f"{median(self._added(name, case)):.1f}" if self._has_bare() else "–",
        ]

    def _has_bare(self) -> bool:
        return "bare" in self.lineup.names

    def _us(self, name: str, case: str) -> list[float]:
        return [calls[case]["us"] for calls in self._calls[name]]

    def _added(self, name: str, case: str) -> list[float]:
        pairs = zip(self._us(name, case), self._us("bare", case), strict=True)
        return [taken - bare for taken, bare in pairs]

    def verdicts(self) -> list[Verdict]:
        if OURS not in self.lineup.names or not self._has_bare():
            return []
        return [
            Verdict(
                f"{case}: at most {limit:g} µs added",
                f"{median(self._added(OURS, case)):.1f} µs, "
                f"{self._calls[OURS][-1][case]['bytes']:,} bytes, "
                f"{self._calls[OURS][-1][case]['coding']}",
                median(self._added(OURS, case)) <= limit,
            )
            for case, limit in LIMITS_US.items()
        ]

    def samples(self) -> Mapping[str, Any]:
        return self._calls
