"""The cost of a total, in tables of three sizes."""

from __future__ import annotations

from typing import Final

from benchmarks.pagination.contestant import OURS
from benchmarks.pagination.dataset import sizes
from benchmarks.pagination.loaded import Loaded
from benchmarks.pagination.part import Case, PaginationPart
from benchmarks.parts import Report
from benchmarks.verdicts import Ratios, Verdict

COUNTS: Final = ("exact", "capped", "estimated", "none")
CAP: Final = 10_000
MAX_WORK: Final = 1.5  # the index of a larger table has one more level
MAX_GROWTH: Final = 2.0  # of the time: less than this may be noise


class Totals(PaginationPart):
    name = "totals"
    about = """the first page of tables of three sizes, with a total that is exact, capped at
10,000, estimated by PostgreSQL (on SQLite, hasten counts instead), or left out."""

    async def cases(self, loaded: Loaded, report: Report) -> list[Case]:
        return [
            Case(
                _title(rows, count),
                {
                    name: contestant.page_path(table, count)
                    for name, contestant in loaded.contestants.items()
                    if count in contestant.counts
                },
                total={"exact": rows, "none": None}.get(count, ...),
            )
            for count in COUNTS
            for table, rows in sizes(loaded.rows).items()
        ]

    def verdicts_on(self, database: str) -> list[Verdict]:
        """Compare the largest table with the smallest one that has more rows than the cap."""
        full = [rows for rows in sizes(self.sizes.rows).values() if rows >= CAP]
        small, large = full[0], full[-1]
        one = self.find(database, _title(small, "capped"), OURS)
        two = self.find(database, _title(large, "capped"), OURS)
        if one is None or two is None or small == large:
            return []
        pairs = zip(one.speeds, two.speeds, strict=True)
        growth = Ratios([few.per_second / many.per_second for few, many in pairs])
        target = (
            f"{database}, capped total: as much work for {large:,} rows as for {small:,}, "
            "and not twice the time"
        )
        measured = f"{two.cost.work:,} and {one.cost.work:,}, time {growth}"
        met = two.cost.work <= one.cost.work * MAX_WORK and growth.median <= MAX_GROWTH
        return [Verdict(target, measured, met)]


def _title(rows: int, count: str) -> str:
    return f"{rows:,} rows, {count}"
