"""The parts of this benchmark. Each has cases: requests that several contestants support."""

from __future__ import annotations

import json
import statistics
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final, TypeAlias

from benchmarks.contestants import Failed
from benchmarks.pagination.calls import Speed, get, measure
from benchmarks.pagination.contestant import OURS, Contestant, Rows
from benchmarks.pagination.database import Cost
from benchmarks.pagination.loaded import Loaded
from benchmarks.parts import Part, Report
from benchmarks.tables import show_table, show_text
from benchmarks.verdicts import Ratios, Verdict, short, to_text

Read: TypeAlias = Callable[[Contestant, bytes], tuple[Rows, object]]

WARM_UP_CALLS: Final = 3


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much to measure: rows of the largest table, and seconds for each case and walk."""

    rows: int
    seconds: float
    walk_seconds: float


@dataclass(slots=True)
class Case:
    """A request that is sent to several contestants."""

    title: str
    paths: dict[str, str]
    """The paths to request, by contestant."""
    total: object = ...
    """The total that all have to return, or ... if the totals may differ."""
    ids: list[int] | None = None
    """The ids of the rows that all have to return. If None, most contestants decide."""


@dataclass(slots=True)
class CaseResult:
    """The measurements of one contestant in one case."""

    cost: Cost
    answer_bytes: int
    database_bytes: int | None = None
    speeds: list[Speed] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return statistics.median(speed.per_second for speed in self.speeds)

    @property
    def cpu_us(self) -> float:
        return statistics.median(speed.cpu_us for speed in self.speeds)


class PaginationPart(Part):
    """Collects the measurements on each database, and prints them."""

    about: ClassVar[str]

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.seen: dict[str, dict[str, dict[str, CaseResult]]] = {}
        """The measurements by database, case and contestant."""
        self.left_out: dict[str, str] = {}
        self.databases: dict[str, Loaded] = {}
        self._cases: dict[str, list[Case]] = {}

    # What a part defines --------------------------------------------------------------------------

    @abstractmethod
    async def cases(self, loaded: Loaded, report: Report) -> list[Case]: ...

    @abstractmethod
    def verdicts_on(self, database: str) -> list[Verdict]: ...

    def read(self, contestant: Contestant, body: bytes) -> tuple[Rows, object]:
        """Return the rows and the total in a response. The rows have to be equal for all."""
        return contestant.read_page(body)

    async def measure_case(self, loaded: Loaded, name: str, path: str) -> CaseResult:
        """Send the request several times to warm up, then once more to measure its cost."""
        app = loaded.applications[name]
        for _ in range(WARM_UP_CALLS):
            await get(app, path)
        body = await get(app, path)
        cost = await loaded.database.cost(lambda: get(app, path))
        return CaseResult(cost, len(body))

    # Measuring ------------------------------------------------------------------------------------

    async def prepare(self, loaded: Loaded, report: Report) -> None:
        """Find the cases, compare the responses, and measure the cost of each."""
        cases = await self.cases(loaded, report)
        self._cases[loaded.database.name] = cases
        self.databases[loaded.database.name] = loaded
        for case in cases:
            report(f"{self.name} on {loaded.database.title}: {case.title}: responses and costs")
            await self._compare(loaded, case)
            of_case = self.seen.setdefault(loaded.database.name, {}).setdefault(case.title, {})
            for name, path in case.paths.items():
                of_case[name] = await self.measure_case(loaded, name, path)

    async def _compare(self, loaded: Loaded, case: Case) -> None:
        """Leave out contestants whose rows or total differ from those of the other contestants."""
        answers: dict[str, str] = {}
        for name, path in list(case.paths.items()):
            try:
                answer = await get(loaded.applications[name], path)
                rows, total = self.read(loaded.contestants[name], answer)
                if case.total is not ... and total != case.total:
                    raise Failed(f"wrong total {total}, expected {case.total}")
                if case.ids is not None and [row["id"] for row in rows] != case.ids:
                    raise Failed("wrong rows")
            except Exception as error:  # noqa: BLE001  # any error of the contestant
                self._leave_out(loaded, case, name, str(error) or repr(error))
            else:
                answers[name] = json.dumps(rows, sort_keys=True)
        if answers:
            usual = statistics.mode(answers.values())
            for name, rows_text in answers.items():
                if rows_text != usual:
                    self._leave_out(loaded, case, name, "different rows than the other contestants")

    def _leave_out(self, loaded: Loaded, case: Case, name: str, reason: str) -> None:
        del case.paths[name]
        title = loaded.contestants[name].title
        self.left_out[f"{title} on {loaded.database.title}, {case.title}"] = reason
        sys.stderr.write(f"{name} is not measured in {self.name}, {case.title}: {reason}\n")

    async def round(self, loaded: Loaded) -> None:
        """Measure each case once, all contestants in turn."""
        for case in self._cases[loaded.database.name]:
            of_case = self.seen[loaded.database.name][case.title]
            speeds = await measure(
                loaded.applications, case.paths,
                seconds=self.sizes.seconds, callers=loaded.database.callers,
            )  # fmt: skip
            for name, speed in speeds.items():
                of_case[name].speeds.append(speed)

    # Showing --------------------------------------------------------------------------------------

    def show(self) -> None:
        show_text(f"\n{self.name}: {self.about}")
        for loaded in self.databases.values():
            unit = loaded.database.unit
            header = [
                "",
                "",
                "requests/s",
                "CPU, µs",
                "statements",
                unit,
                "bytes",
                *self.extra_headers(),
            ]
            header += ["hasten: requests/s", "hasten: CPU"]
            lines = list(self._lines(loaded))
            if lines:
                show_table(f"{self.name} on {loaded.database.title}", header, lines)

    def extra_headers(self) -> list[str]:
        """Return the headers of the additional columns of this part."""
        return []

    def extra_cells(self, seen: CaseResult) -> list[str]:
        return []

    def _lines(self, loaded: Loaded) -> list[list[str]]:
        lines = []
        for case, of_case in self.seen[loaded.database.name].items():
            title = case
            for name, seen in of_case.items():
                database = loaded.database.name
                lines.append(
                    [
                        title,
                        loaded.contestants[name].title,
                        short(seen.per_second),
                        short(seen.cpu_us),
                        str(seen.cost.statements),
                        f"{seen.cost.work:,}",
                        f"{seen.answer_bytes:,}",
                        *self.extra_cells(seen),
                        to_text(self.ratios(database, case, name)),
                        to_text(self.cpu_ratios(database, case, name)),
                    ]
                )
                title = ""
        return lines

    def find(self, database: str, case: str, name: str) -> CaseResult | None:
        return self.seen.get(database, {}).get(case, {}).get(name)

    def ratios(self, database: str, case: str, name: str) -> Ratios | None:
        """Return the requests/s of hasten divided by those of a contestant, for each round."""
        return self._compared(database, case, name, lambda speed: speed.per_second)

    def cpu_ratios(self, database: str, case: str, name: str) -> Ratios | None:
        """Return the processor time of hasten divided by that of a contestant, for each round."""
        return self._compared(database, case, name, lambda speed: speed.cpu_us)

    def _compared(
        self, database: str, case: str, name: str, value: Callable[[Speed], float]
    ) -> Ratios | None:
        ours, other = self.find(database, case, OURS), self.find(database, case, name)
        if name == OURS or ours is None or other is None:
            return None
        return Ratios.of(map(value, ours.speeds), map(value, other.speeds))

    def verdicts(self) -> list[Verdict]:
        return [verdict for database in self.seen for verdict in self.verdicts_on(database)]

    def samples(self) -> Mapping[str, Any]:
        return {
            database: {
                case: {name: asdict(seen) for name, seen in of_case.items()}
                for case, of_case in of_database.items()
            }
            for database, of_database in self.seen.items()
        }


AS_MANY: Final = 0.95
"""The minimum ratio for "as many requests per second": 5 % less counts as noise."""


def at_least(target: str, ratios: Ratios | None, least: float) -> list[Verdict]:
    """Return the target that hasten serves at least this many times the requests per second."""
    if ratios is None:
        return []
    return [Verdict(target, str(ratios), ratios.median >= least)]
