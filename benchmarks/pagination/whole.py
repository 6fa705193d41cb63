"""The throughput of the most frequent request: the first page of twenty rows."""

from __future__ import annotations

from typing import Final

from benchmarks.pagination.contestant import BY_HAND, FLOOR, LIMIT, RIVAL
from benchmarks.pagination.dataset import SMALL, WHOLE, sizes
from benchmarks.pagination.loaded import Loaded
from benchmarks.pagination.part import AS_MANY, Case, PaginationPart, Sizes, at_least
from benchmarks.parts import Report
from benchmarks.verdicts import Verdict

SECONDS: Final = 4  # times as long as other parts, because this number matters most


class Whole(PaginationPart):
    name = "whole"
    about = f"""the first {LIMIT} rows with all columns: of the smallest table with an exact total,
and of the largest table without one, because counting a million rows takes longest."""

    def __init__(self, sizes: Sizes) -> None:
        longer = Sizes(sizes.rows, sizes.seconds * SECONDS, sizes.walk_seconds)
        super().__init__(longer)

    async def cases(self, loaded: Loaded, report: Report) -> list[Case]:
        return [
            Case(
                _title(sizes(loaded.rows)[table], count),
                {
                    name: contestant.page_path(table, count)
                    for name, contestant in loaded.contestants.items()
                    if count in contestant.counts
                },
                total=sizes(loaded.rows)[table] if count == "exact" else None,
            )
            for table, count in ((SMALL, "exact"), (WHOLE, "none"))
        ]

    def verdicts_on(self, database: str) -> list[Verdict]:
        of_rows = sizes(self.sizes.rows)
        found = []
        for case in (_title(of_rows[SMALL], "exact"), _title(of_rows[WHOLE], "none")):
            for name, least, target in (
                (RIVAL, 2.0, "2 times fastapi-pagination"),
                (BY_HAND, AS_MANY, "no fewer than by hand"),
                (FLOOR, 1 / 1.5, "within 1.5 times of the raw driver"),
            ):
                ratios = self.ratios(database, case, name)
                found += at_least(f"{database}, requests/s, {case}: {target}", ratios, least)
        return found


def _title(rows: int, count: str) -> str:
    return f"{rows:,} rows, {'exact total' if count == 'exact' else 'no total'}"
