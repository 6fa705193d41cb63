"""How many requests pass a limit wrongly, or are denied wrongly: facts, not targets."""

from __future__ import annotations

from typing import Any

from benchmarks.parts import Report
from benchmarks.ratelimit.contestant import CONTESTANTS, OUR_STORE
from benchmarks.ratelimit.part import RateLimitPart
from benchmarks.ratelimit.workloads.correctness import LOGIN_RATE, PARALLEL, SEAM_RATE
from benchmarks.tables import show_table, show_text


class Correctness(RateLimitPart):
    name = "correctness"

    def measures(self, name: str) -> bool:
        return name != OUR_STORE

    def arguments(self) -> dict[str, Any]:
        return {}

    def round(self, number: int, report: Report) -> None:
        """Measure once: this is not about speed."""
        if number == 1:
            super().round(number, report)

    def show(self) -> None:
        limit = LOGIN_RATE.limit
        show_text(
            f"""
correctness: {PARALLEL} logins of one client at once, under a limit of {limit} failed ones an hour.
Bad: how many of the bad ones are tried ({limit} should be). Good: how many of the good ones get in.
Later: how many of {limit} more good ones, one after the other, get in ({limit} should).
Contestants without numbers can only count all logins. limits and throttled-py have no option for
it: here they check first and count failures later, as Flask-Limiter does.
Seam: the most that passes within one window under a limit of {SEAM_RATE.limit}, for a client that
starts just before the window ends and does not stop."""
        )
        lines = [line for name in self.lineup.names for line in self._lines(name)]
        if lines:
            show_table("What happens", ["", "bad", "good", "later", "algorithm", "seam"], lines)

    def _lines(self, name: str) -> list[list[str]]:
        found = self.runs[name][-1]
        logins = found["logins"] or {}
        cells = [str(logins.get(key, "–")) for key in ("bad_tried", "good_in", "good_later")]
        return [
            [*([CONTESTANTS.title(name), *cells] if row == 0 else [""] * 4), algorithm, str(passed)]
            for row, (algorithm, passed) in enumerate(found["seam"].items())
        ]
