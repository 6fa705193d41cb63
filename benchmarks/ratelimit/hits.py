"""The time of one hit without an application."""

from __future__ import annotations

from statistics import median
from typing import Any, Final

from benchmarks.ratelimit.contestant import CONTESTANTS, OUR_STORE, OURS
from benchmarks.ratelimit.part import StoreRateLimitPart
from benchmarks.ratelimit.workloads.hits import KEYS, MANY_KEYS
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Ratios, Verdict, short, to_text

MOST_NS: Final = 1_000


class Hits(StoreRateLimitPart):
    name = "hits"

    def measures(self, name: str) -> bool:
        return bool(CONTESTANTS.find(name).algorithms)

    def arguments(self) -> dict[str, Any]:
        return {"repeats": self.sizes.repeats}

    def show(self) -> None:
        show_text(
            f"""
hits: processor time to count a hit of one rate in memory, with {KEYS:,} keys in turn: the minimum
of {self.sizes.repeats} repetitions (Node: 5 times as many). Of hasten's: the time divided by that
of hasten's Limiter.hit with a fixed window. Turning: the median time of a hit if {MANY_KEYS:,} keys
are stored, with the work that it schedules on the event loop (an idle loop takes 1 to 2 µs)."""
        )
        lines = [
            self._line(name, algorithm)
            for name in self.lineup.names
            for algorithm in CONTESTANTS.find(name).algorithms
        ]
        if lines:
            show_table("A hit", ["", "", "ns", "of hasten's", "turning, µs"], lines)

    def _line(self, name: str, algorithm: str) -> list[str]:
        ns = self.values(name, algorithm, "ns")
        ours = self.values(OURS, CONTESTANTS.find(OURS).algorithms[0], "ns")
        is_ours = name == OURS and algorithm == CONTESTANTS.find(OURS).algorithms[0]
        return [
            CONTESTANTS.title(name) if algorithm == CONTESTANTS.find(name).algorithms[0] else "",
            algorithm,
            short(median(ns)),
            "" if is_ours else to_text(Ratios.of(ns, ours)),
            short(median(self.values(name, algorithm, "turning_us"))),
        ]

    def verdicts(self) -> list[Verdict]:
        found = []
        for name in (OURS, OUR_STORE):
            for_all = self.values(name, CONTESTANTS.find(name).algorithms[0], "ns")
            if for_all:
                found.append(
                    Verdict(
                        f"{CONTESTANTS.title(name)}: a hit of a fixed window takes at most "
                        f"{MOST_NS:,} ns",
                        f"{short(median(for_all))} ns", median(for_all) <= MOST_NS,
                    )
                )  # fmt: skip
        return found
