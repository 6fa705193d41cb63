"""The effect of load shedding."""

from __future__ import annotations

from statistics import median
from typing import Any, Final

from benchmarks.ratelimit.contestant import OURS
from benchmarks.ratelimit.part import StoreRateLimitPart
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Verdict

WAYS: Final = {"without": "every request", "with": "LoadSheddingMiddleware"}


class Overload(StoreRateLimitPart):
    name = "overload"

    def measures(self, name: str) -> bool:
        return name == OURS

    def arguments(self) -> dict[str, Any]:
        return {"seconds": self.sizes.overload_seconds}

    def show(self) -> None:
        if not self.has_ours:
            return
        show_text(
            f"""
overload: for {self.sizes.overload_seconds:g} s, the application receives twice as many requests as
it can handle: each needs one of ten database connections for 20 ms. No other library sheds load."""
        )
        lines = [[title, *self._cells(way)] for way, title in WAYS.items()]
        header = ["accepts", "of the possible", "median, ms", "99 % within, ms", "refused"]
        show_table("Overload", header, lines)

    def _cells(self, way: str) -> list[str]:
        return [
            f"{self._median(way, 'good_share'):.0%}",
            f"{self._median(way, 'median_ms'):.0f}",
            f"{self._median(way, 'late_ms'):.0f}",
            f"{self._median(way, 'refused_share'):.0%}",
        ]

    def _median(self, way: str, key: str) -> float:
        return median(self.values(OURS, way, key))

    def verdicts(self) -> list[Verdict]:
        if not self.has_ours:
            return []
        ours, theirs = self._median("with", "median_ms"), self._median("without", "median_ms")
        return [
            Verdict(
                "overload: successful responses ten times faster than without shedding",
                f"{ours:.0f} ms, {theirs:.0f} ms", ours * 10 <= theirs,
            )
        ]  # fmt: skip
