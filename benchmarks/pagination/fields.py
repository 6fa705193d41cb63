"""The cost of three columns that the client selects, in rows with twelve columns."""

from __future__ import annotations

import json
from typing import Final

from benchmarks.pagination.contestant import FIELDS, FLOOR, LIMIT, Contestant, Rows
from benchmarks.pagination.loaded import Loaded
from benchmarks.pagination.part import Case, CaseResult, PaginationPart, at_least
from benchmarks.parts import Report
from benchmarks.verdicts import Verdict

ONE: Final = "1 row"
FEW: Final = f"{LIMIT} rows"
LEAST: Final = 1 / 1.3


class FieldsPart(PaginationPart):
    name = "fields"
    about = f"""fields={",".join(FIELDS)} of rows with twelve columns: one row by its id, and
the first page without a total. bytes read: the bytes that PostgreSQL sent for the request."""

    async def cases(self, loaded: Loaded, report: Report) -> list[Case]:
        able = {name: each for name, each in loaded.contestants.items() if each.has_fields}
        return [
            Case(ONE, {name: each.one_path(loaded.rows // 2) for name, each in able.items()}),
            Case(FEW, {name: each.few_path() for name, each in able.items()}),
        ]

    def read(self, contestant: Contestant, body: bytes) -> tuple[Rows, object]:
        answer = json.loads(body)
        return answer.get("data", [answer]), None

    async def measure_case(self, loaded: Loaded, name: str, path: str) -> CaseResult:
        seen = await super().measure_case(loaded, name, path)
        seen.database_bytes = await loaded.database.bytes_read(loaded.contestants[name].build, path)
        return seen

    def extra_headers(self) -> list[str]:
        return ["bytes read"]

    def extra_cells(self, seen: CaseResult) -> list[str]:
        return ["–" if seen.database_bytes is None else f"{seen.database_bytes:,}"]

    def verdicts_on(self, database: str) -> list[Verdict]:
        found = []
        for case in (ONE, FEW):
            target = f"{database}, fields of {case}: within 1.3 times of the raw driver"
            found += at_least(target, self.ratios(database, case, FLOOR), LEAST)
        return found
