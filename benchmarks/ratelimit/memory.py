"""The memory that a key takes."""

from __future__ import annotations

from statistics import median
from typing import Any, Final

from benchmarks.parts import Report
from benchmarks.ratelimit.contestant import CONTESTANTS, OUR_STORE, OURS, is_python_peer
from benchmarks.ratelimit.part import StoreRateLimitPart
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Ratios, Verdict, short, to_text

KINDS: Final = {"bytes": "in memory", "redis_bytes": "on Redis"}


class Memory(StoreRateLimitPart):
    name = "memory"
    _many: dict[str, Any] | None = None

    def measures(self, name: str) -> bool:
        return name != OUR_STORE

    def arguments(self) -> dict[str, Any]:
        return {
            "url": self.url, "keys": self.sizes.keys, "redis_keys": self.sizes.redis_keys
        }  # fmt: skip

    def steps(self) -> int:
        return len(self.lineup.names) + (OURS in self.lineup.names)

    def round(self, number: int, report: Report) -> None:
        super().round(number, report)
        if OURS in self.lineup.names:
            report(f"{self.name}: {OURS}, {self.sizes.many_keys:,} keys")
            with self.lineup.leaving_out(OURS, during=self.name):
                self._many = self.run(OURS, keys=self.sizes.many_keys, redis_keys=0)

    def show(self) -> None:
        show_text(
            f"""
memory: one hit by each of {self.sizes.keys:,} addresses, with a rate of 100 in 15 minutes. In
memory: the growth of the resident memory (Node: of the live objects) including the key; for
Litestar, by requests to its application. On Redis: the growth of `used_memory`, with
{self.sizes.redis_keys:,} keys."""
        )
        lines = [self._line(name) for name in self.lineup.names]
        if lines:
            header = ["", "bytes a key", "of hasten's", "on Redis, bytes", "of hasten's"]
            show_table("Memory", header, lines)
        if self._many is not None:
            show_text(
                f"hasten with {self.sizes.many_keys:,} keys: {self._many['total'] / 2**20:.0f} MiB,"
                f" {self._many['bytes']:.0f} bytes a key"
            )

    def _line(self, name: str) -> list[str]:
        cells = [CONTESTANTS.title(name)]
        for kind in KINDS:
            values = self.values(name, kind)
            ratios = None
            if self.has_ours and name != OURS:
                ratios = Ratios.of(values, self.values(OURS, kind))
            cells += [short(median(values)), to_text(ratios)]
        return cells

    def verdicts(self) -> list[Verdict]:
        peers = [name for name in self.lineup.names if is_python_peer(name)]
        if not self.has_ours or not peers:
            return []
        found = []
        for kind, where in KINDS.items():
            ours = median(self.values(OURS, kind))
            best = min(peers, key=lambda name: median(self.values(name, kind)))
            theirs = median(self.values(best, kind))
            found.append(
                Verdict(
                    f"a key {where}: no more bytes than with the best Python peer",
                    f"{ours:.0f}, {CONTESTANTS.title(best)} {theirs:.0f}", ours <= theirs,
                )
            )  # fmt: skip
        return found

    def samples(self) -> dict[str, Any]:
        return {**self.runs, "many_keys": self._many}
