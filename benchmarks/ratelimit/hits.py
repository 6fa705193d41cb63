"""A hit of the library alone, without HTTP."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.ratelimit.lineup import OUR_STORE, OURS, find
from benchmarks.ratelimit.part import Part, median, shown
from benchmarks.ratelimit.works.hits import KEYS, MANY_KEYS
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Verdict, short

MOST_NS: Final = 1_000


class Hits(Part):
    name = "hits"

    def takes(self, name: str) -> bool:
        return bool(find(name).algorithms)

    def arguments(self, name: str) -> dict[str, Any]:
        return {"repeats": self.sizes.repeats}

    def show(self) -> None:
        show_text(
            f"""
hits: processor time of one rate in memory, {KEYS:,} keys in turn, awaited where it is a coroutine;
the least of {self.sizes.repeats} times (Node: 5 times as many). Of hasten's: times what its
Limiter.hit with a fixed window takes. Turning: the median of a hit while {MANY_KEYS:,} keys are
known, with what it leaves to an event loop that comes round after it (alone: 1 to 2 µs)."""
        )
        lines = [
            self._line(name, algorithm)
            for name in self.lineup.names
            for algorithm in find(name).algorithms
        ]
        if lines:
            show_table("A hit", ["", "", "ns", "of hasten's", "turning, µs"], lines)

    def _line(self, name: str, algorithm: str) -> list[str]:
        ns = self.values(name, algorithm, "ns")
        ours = self.values(OURS, find(OURS).algorithms[0], "ns")
        is_ours = name == OURS and algorithm == find(OURS).algorithms[0]
        return [
            find(name).title if algorithm == find(name).algorithms[0] else "",
            algorithm,
            short(median(ns)),
            "" if is_ours else shown(self.compared(ns, ours)),
            short(median(self.values(name, algorithm, "turning_us"))),
        ]

    def verdicts(self) -> list[Verdict]:
        found = []
        for name in (OURS, OUR_STORE):
            for_all = self.values(name, find(name).algorithms[0], "ns")
            if for_all:
                found.append(
                    Verdict(
                        f"{find(name).title}: a hit of a fixed window in at most {MOST_NS:,} ns",
                        f"{short(median(for_all))} ns", median(for_all) <= MOST_NS,
                    )
                )  # fmt: skip
        return found
