"""The time that limits add to a request of an application."""

from __future__ import annotations

from statistics import median
from typing import Any, Final

from benchmarks.ratelimit.contestant import CONTESTANTS, OURS
from benchmarks.ratelimit.part import StoreRateLimitPart
from benchmarks.ratelimit.workloads.overhead import CALLS, CLIENTS
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Ratios, Verdict, short

CASES: Final = {
    "/free": "no policy matches",
    "/one": "one policy",
    "/three": "three policies",
    "/denied": "denied",
}
LIMITS_US: Final = {"/free": 1.0, "/one": 5.0}
LEAST_US: Final = 0.1  # a shorter time is noise, and useless as a divisor


class Overhead(StoreRateLimitPart):
    name = "overhead"

    def measures(self, name: str) -> bool:
        return CONTESTANTS.find(name).has_application

    def arguments(self) -> dict[str, Any]:
        return {"repeats": self.sizes.repeats}

    def show(self) -> None:
        show_text(
            f"""
overhead: processor time of a call of the application without a server, with limits in memory and
{len(CLIENTS):,} clients: the minimum of {self.sizes.repeats} times {CALLS} calls (Node: 5 times as
many). Over bare: minus the time of the same application in the same framework without limits. A
denied request does not reach the application. Headers: those that limits add to a response."""
        )
        lines = [self._line(name, path) for path in CASES for name in self.lineup.names]
        if lines:
            header = ["", "", "µs", "over bare, µs", "of hasten's", "headers"]
            show_table("Time of a call", header, lines)

    def _line(self, name: str, path: str) -> list[str]:
        added = self._added(name, path)
        has_ratio = self.has_ours and name != OURS and path != "/free"
        return [
            CASES[path] if name == self.lineup.names[0] else "",
            CONTESTANTS.title(name),
            short(median(self.values(name, path, "us"))),
            f"{median(added):.1f}",
            str(self._times_ours(added, path)) if has_ratio else "",
            self._headers(name, path),
        ]

    def _times_ours(self, added: list[float], path: str) -> Ratios:
        pairs = zip(added, self._added(OURS, path), strict=False)
        return Ratios([theirs / max(ours, LEAST_US) for theirs, ours in pairs])

    def _headers(self, name: str, path: str) -> str:
        return str(
            sum(
                "ratelimit" in header or header == "retry-after"
                for header in self.runs[name][-1][path]["headers"]
            )
        )

    def _added(self, name: str, path: str) -> list[float]:
        pairs = zip(self.values(name, path, "us"), self.values(name, path, "bare_us"), strict=True)
        return [taken - bare for taken, bare in pairs]

    def verdicts(self) -> list[Verdict]:
        if not self.has_ours:
            return []
        return [
            Verdict(
                f"{CASES[path]}: at most {limit:g} µs over the bare application",
                f"{median(self._added(OURS, path)):.2f} µs",
                median(self._added(OURS, path)) <= limit,
            )
            for path, limit in LIMITS_US.items()
        ]
