"""How many requests a limit allows or denies wrongly. There are no targets for this."""

from __future__ import annotations

from typing import Any

from benchmarks.parts import Report
from benchmarks.ratelimit.contestant import CONTESTANTS, OUR_STORE
from benchmarks.ratelimit.part import StoreRateLimitPart
from benchmarks.ratelimit.workloads.correctness import LOGIN_RATE, PARALLEL, SEAM_RATE
from benchmarks.tables import show_table, show_text


class Correctness(StoreRateLimitPart):
    name = "correctness"

    def measures(self, name: str) -> bool:
        return name != OUR_STORE

    def arguments(self) -> dict[str, Any]:
        return {}

    def round(self, number: int, report: Report) -> None:
        """Measure in the first round only, because this part does not measure speed."""
        if number == 1:
            super().round(number, report)

    def show(self) -> None:
        limit = LOGIN_RATE.limit
        show_text(
            f"""
correctness: {PARALLEL} logins of one client at once, with a limit of {limit} failed logins an hour.
Bad: how many wrong passwords are checked (correct: {limit}). Good: how many correct logins succeed.
Later: how many of {limit} more correct logins, one after the other, succeed (correct: {limit}).
Contestants without numbers can only limit all logins. limits and throttled-py have no option to
count failures: here they check before the login, and count after a failure, like Flask-Limiter.
Seam: how many requests pass within the length of one window, with a limit of {SEAM_RATE.limit}, if
a client starts just before the window ends and continues."""
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
