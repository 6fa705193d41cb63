"""Requests under limits that are counted on Redis."""

from __future__ import annotations

from statistics import median
from typing import Any, Final

from benchmarks.ratelimit.contestant import CONTESTANTS, OURS, is_python_peer
from benchmarks.ratelimit.part import StoreRateLimitPart
from benchmarks.ratelimit.workloads.client_requests import CLIENTS
from benchmarks.ratelimit.workloads.redis import CONCURRENT, COUNTED, POLICIES
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Ratios, Verdict, short, to_text

MANY_TIMES: Final = 5.0
WAYS: Final = {"library": "the library alone", "application": "around an application"}


class OnRedis(StoreRateLimitPart):
    name = "redis"

    def measures(self, name: str) -> bool:
        return CONTESTANTS.find(name).uses_redis

    def arguments(self) -> dict[str, Any]:
        return {"url": self.url, "seconds": self.sizes.redis_seconds}

    def show(self) -> None:
        show_text(
            f"""
redis: {CONCURRENT} concurrent requests of {len(CLIENTS):,} clients, each with {len(POLICIES)}
policies, for {self.sizes.redis_seconds:g} s, without HTTP server. Checks: requests times policies.
Processor: the time of the contestant's process for a request; server: that of Redis. Commands:
those that reach Redis for a request, counted with {COUNTED:,} more requests; executed: with those
of scripts; denied: those for a request of a client that has been denied before."""
        )
        for way, title in WAYS.items():
            names = [name for name in self.lineup.names if way in self.runs[name][-1]]
            lines = [self._line(name, way) for name in names]
            if lines:
                show_table(title, HEADER, lines)

    def _line(self, name: str, way: str) -> list[str]:
        rates = self.values(name, way, "per_second")
        is_compared = self.has_ours and name != OURS
        ratios = Ratios.of(self.values(OURS, way, "per_second"), rates) if is_compared else None
        return [
            CONTESTANTS.title(name),
            short(median(rates) * len(POLICIES)),
            to_text(ratios),
            short(median(self.values(name, way, "cpu_us"))),
            short(median(self.values(name, way, "server_us"))),
            *(
                f"{median(self.values(name, way, what)):.2f}"
                for what in ("sent", "executed", "denied_sent")
            ),
        ]

    def verdicts(self) -> list[Verdict]:
        if not self.has_ours:
            return []
        found = []
        for way, title in WAYS.items():
            peers = {
                name: self.values(name, way, "per_second")
                for name in self.lineup.names
                if is_python_peer(name) and way in self.runs[name][-1]
            }
            if peers:
                best = max(peers, key=lambda name: median(peers[name]))
                ratios = Ratios.of(self.values(OURS, way, "per_second"), peers[best])
                assert ratios is not None
                found.append(
                    Verdict(
                        f"Redis, {title}: at least {MANY_TIMES:g} times the checks/s of the best "
                        "Python peer",
                        f"{ratios} {CONTESTANTS.title(best)}'s", ratios.median >= MANY_TIMES,
                    )
                )  # fmt: skip
        sent = median(self.values(OURS, "application", "sent"))
        denied = median(self.values(OURS, "application", "denied_sent"))
        return [
            *found,
            Verdict("Redis: at most one command for a request", f"{sent:.2f}", sent <= 1),
            Verdict("Redis: none for a denied client", f"{denied:.2f}", denied == 0),
        ]


HEADER: Final = (
    "", "checks/s", "hasten's are", "processor, µs", "server, µs", "commands", "executed", "denied",
)  # fmt: skip
