"""Hits of several processes that share one SQLite file."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from benchmarks.parts import Report
from benchmarks.processes import Process
from benchmarks.ratelimit.contestant import CONTESTANTS, OURS
from benchmarks.ratelimit.part import TIMEOUT_SECONDS, StoreRateLimitPart
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import short

CASES: Final = list(product((1, 4), (1, 50)))
"""The number of processes, and of concurrent hits in each."""


class OnSqlite(StoreRateLimitPart):
    name = "sqlite"

    def measures(self, name: str) -> bool:
        return name == OURS

    def arguments(self) -> dict[str, Any]:
        return {"seconds": self.sizes.redis_seconds}

    def steps(self) -> int:
        return len(CASES) * len(self.lineup.names)

    def round(self, number: int, report: Report) -> None:
        for name in list(self.lineup.names):
            with self.lineup.leaving_out(name, during=self.name):
                found = {}
                for processes, concurrent in CASES:
                    report(f"{self.name}: {processes} processes, {concurrent} at a time")
                    found[f"{processes}, {concurrent}"] = self._measure(processes, concurrent)
                self.runs.setdefault(name, []).append(found)

    def _measure(self, processes: int, concurrent: int) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="hasten-bench-") as folder, ExitStack() as stack:
            url = f"sqlite:///{Path(folder) / 'limits.db'}"
            arguments = {**self.arguments(), "url": url, "concurrent": concurrent}
            command = [*CONTESTANTS.find(OURS).command(self.name), json.dumps(arguments)]
            started = [Process(command) for _ in range(processes)]
            for process in started:
                stack.callback(process.kill)
            results = [process.result(TIMEOUT_SECONDS) for process in started]
        return {
            "per_second": sum(result["per_second"] for result in results),
            "cpu_us": mean(result["cpu_us"] for result in results),
        }

    def show(self) -> None:
        if not self.has_ours:
            return
        show_text(
            f"""
sqlite: processes share one file for {self.sizes.redis_seconds:g} s, each with some concurrent hits.
hits/s: those of all processes together. processor: the time for one hit."""
        )
        lines = [
            [str(processes), str(concurrent), *self._cells(f"{processes}, {concurrent}")]
            for processes, concurrent in CASES
        ]
        header = ["processes", "at a time", "hits/s", "processor, µs"]
        show_table("Hits on a SQLite file", header, lines)

    def _cells(self, case: str) -> list[str]:
        return [
            short(median(self.values(OURS, case, key))) for key in ("per_second", "cpu_us")
        ]  # fmt: skip
