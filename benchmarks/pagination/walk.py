"""Walks by cursor from the first row to the last: the rows returned, and the cost of pages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from benchmarks.pagination.calls import get
from benchmarks.pagination.contestant import LIMIT, MAX_LIMIT, OURS, Contestant, Rows
from benchmarks.pagination.dataset import ORDERS
from benchmarks.pagination.loaded import Loaded
from benchmarks.pagination.part import Case, PaginationPart, Sizes
from benchmarks.parts import Report
from benchmarks.tables import show_table
from benchmarks.verdicts import Verdict, short

START: Final = 10
MAX_GROWTH: Final = 2.0


@dataclass(slots=True)
class WalkResult:
    """The result of a walk by cursor."""

    rows: int = 0
    distinct: int = 0
    seconds: float = 0.0
    ended: str = ""
    """Why the walk ended before the last page; empty if it reached that."""
    cursors: dict[int, str] = field(default_factory=dict)
    """By number of rows before a page: the cursor of that page."""


class Walk(PaginationPart):
    name = "walk"
    about = f"""each walk goes once from the first row to the last, in pages of {MAX_LIMIT:,} rows.
The cost of a page of {LIMIT} rows is measured at three depths."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self._walks: dict[str, dict[str, dict[str, WalkResult]]] = {}
        """The walks by database, order and contestant."""

    async def cases(self, loaded: Loaded, report: Report) -> list[Case]:
        of_database = self._walks.setdefault(loaded.database.name, {})
        cases = []
        for order in ORDERS:
            walks = of_database.setdefault(order, {})
            for name, contestant in loaded.contestants.items():
                if order in contestant.orders:
                    report(f"{self.name} on {loaded.database.title} by {order}: {contestant.title}")
                    walks[name] = await self._walk(loaded, name, order)
            cases += [await self._case(loaded, order, depth) for depth in _depths(loaded.rows)]
        return cases

    async def _walk(self, loaded: Loaded, name: str, order: str) -> WalkResult:
        """Walk until there is no next page, or it takes too long."""
        contestant, app = loaded.contestants[name], loaded.applications[name]
        first = await get(app, contestant.slice_path(order, None, START))
        walk = WalkResult(cursors={START: contestant.read_slice(first)[1] or ""})
        seen: set[int] = set()
        cursor: str | None = None
        start = time.monotonic()
        while True:
            try:
                body = await get(app, contestant.slice_path(order, cursor, MAX_LIMIT))
                rows, cursor = contestant.read_slice(body)
            except Exception as error:  # noqa: BLE001  # any error of the contestant
                walk.ended = repr(error)
                break
            walk.rows += len(rows)
            seen.update(row["id"] for row in rows)
            if cursor is None or not rows:
                break
            if walk.rows in _depths(loaded.rows):
                walk.cursors[walk.rows] = cursor
            if time.monotonic() - start > self.sizes.walk_seconds:
                walk.ended = f"stopped after {self.sizes.walk_seconds:g} s"
                break
        walk.seconds = time.monotonic() - start
        walk.distinct = len(seen)
        return walk

    async def _case(self, loaded: Loaded, order: str, depth: int) -> Case:
        walks = self._walks[loaded.database.name][order]
        return Case(
            _title(order, depth),
            {
                name: loaded.contestants[name].slice_path(order, walk.cursors[depth], LIMIT)
                for name, walk in walks.items()
                if depth in walk.cursors
            },
            ids=await loaded.database.ids(ORDERS[order].sql(), LIMIT, depth),
        )

    def read(self, contestant: Contestant, body: bytes) -> tuple[Rows, object]:
        return contestant.read_slice(body)[0], None

    # Showing --------------------------------------------------------------------------------------

    def show(self) -> None:
        super().show()
        header = ["", "", "rows seen", "lost", "pages/s", ""]
        for loaded in self.databases.values():
            lines = [
                [ORDERS[order].title, loaded.contestants[name].title, *self._result_cells(walk)]
                for order, walks in self._walks[loaded.database.name].items()
                for name, walk in walks.items()
            ]
            title = f"walk of {loaded.rows:,} rows on {loaded.database.title}"
            if lines:
                show_table(title, header, lines)

    def _result_cells(self, walk: WalkResult) -> list[str]:
        lost = self.sizes.rows - walk.distinct
        pages = walk.rows / MAX_LIMIT / walk.seconds
        repeated = walk.rows - walk.distinct
        remark = walk.ended or (f"{repeated:,} rows twice" if repeated else "")
        return [f"{walk.distinct:,}", "–" if walk.ended else f"{lost:,}", short(pages), remark]

    def verdicts_on(self, database: str) -> list[Verdict]:
        found = []
        start, middle, _ = _depths(self.sizes.rows)
        for order in ORDERS:
            walk = self._walks[database][order].get(OURS)
            first = self.find(database, _title(order, start), OURS)
            deep = self.find(database, _title(order, middle), OURS)
            if walk is None:
                continue
            all_seen = walk.distinct == walk.rows == self.sizes.rows and not walk.ended
            measured = f"{walk.distinct:,} of {self.sizes.rows:,} rows"
            target = f"{database}, walk by {ORDERS[order].title}: each row once"
            found.append(Verdict(target, measured, all_seen))
            if first is not None and deep is not None:
                growth = deep.cost.work / first.cost.work
                target = (
                    f"{database}, the same: after {middle:,} rows at most twice what after {start}"
                )
                measured = f"{deep.cost.work:,} and {first.cost.work:,}: {short(growth)}"
                found.append(Verdict(target, measured, growth <= MAX_GROWTH))
        return found

    def samples(self) -> Mapping[str, Any]:
        walks = {
            database: {
                order: {name: asdict(walk) for name, walk in of_order.items()}
                for order, of_order in of_database.items()
            }
            for database, of_database in self._walks.items()
        }
        return {"pages": super().samples(), "walks": walks}


def _depths(rows: int) -> tuple[int, int, int]:
    """Return the depths to measure, in rows: near the start, at a tenth and near the end."""
    return START, _rounded(rows / 10), _rounded(rows * 0.9)


def _rounded(rows: float) -> int:
    return max(1, round(rows / MAX_LIMIT)) * MAX_LIMIT


def _title(order: str, depth: int) -> str:
    return f"{ORDERS[order].title}, after {depth:,} rows"
