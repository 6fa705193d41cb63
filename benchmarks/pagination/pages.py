"""The cost of pages by number, near the start and far from it."""

from __future__ import annotations

from typing import Final

from benchmarks.pagination.contestant import BY_HAND, LIMIT, OURS, RIVAL
from benchmarks.pagination.dataset import WHOLE
from benchmarks.pagination.loaded import Loaded
from benchmarks.pagination.part import AS_MANY, Case, PaginationPart, at_least
from benchmarks.pagination.postgres import Postgres
from benchmarks.parts import Report
from benchmarks.verdicts import Verdict, short

NUMBERS: Final = (1, 100, 5_000, 50_000)
COUNTS: Final = {"exact": "exact total", "capped": "capped total", "none": "no total"}
DEEP: Final = 5_000


def _title(number: int, count: str) -> str:
    return f"page {number:,}, {COUNTS[count]}"


class Pages(PaginationPart):
    name = "pages"
    about = f"""pages of {LIMIT} rows with all columns, newest first. bytes: the size of a response.
Requests pass through the whole application in this process, without network and HTTP server."""

    async def cases(self, loaded: Loaded, report: Report) -> list[Case]:
        numbers = [number for number in NUMBERS if number * LIMIT <= loaded.rows]
        return [
            Case(
                _title(number, count),
                {
                    name: contestant.page_path(WHOLE, count, number)
                    for name, contestant in loaded.contestants.items()
                    if count in contestant.counts
                },
                total={"exact": loaded.rows, "none": None}.get(count, ...),
            )
            for count in COUNTS
            for number in numbers
        ]

    def verdicts_on(self, database: str) -> list[Verdict]:
        found = []
        for count in ("exact", "none"):
            target = f"{database}, page 1, {COUNTS[count]}: no slower than by hand"
            found += at_least(target, self.ratios(database, _title(1, count), BY_HAND), AS_MANY)
        if database == Postgres.name:  # the work on SQLite is not measured in buffers
            found += self._deep(database)
        return found

    def _deep(self, database: str) -> list[Verdict]:
        found = []
        for count in ("exact", "none"):
            ours = self.find(database, _title(DEEP, count), OURS)
            theirs = self.find(database, _title(DEEP, count), RIVAL)
            if ours is not None and theirs is not None:
                work, rival = ours.cost.work, theirs.cost.work
                target = f"{database}, page {DEEP:,}, {COUNTS[count]}"
                found.append(
                    Verdict(
                        f"{target}: a tenth of fastapi-pagination's buffers",
                        f"{work:,} of {rival:,}: {short(rival / work)} times fewer",
                        work * 10 <= rival,
                    )
                )
        return found
