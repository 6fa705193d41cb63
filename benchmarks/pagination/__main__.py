"""`python -m benchmarks.pagination`: compare pages, cursors and fields."""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ClassVar, Final

import uvloop

from benchmarks.benchmark import Benchmark, run
from benchmarks.options import add_choice
from benchmarks.pagination.calls import TURNS
from benchmarks.pagination.contestant import CONTESTANTS, MAX_LIMIT, SHARED_PACKAGES, Contestant
from benchmarks.pagination.database import Database
from benchmarks.pagination.fields import FieldsPart
from benchmarks.pagination.loaded import load
from benchmarks.pagination.pages import Pages
from benchmarks.pagination.part import PaginationPart, Sizes
from benchmarks.pagination.postgres import Postgres
from benchmarks.pagination.sqlite import Sqlite
from benchmarks.pagination.totals import Totals
from benchmarks.pagination.walk import Walk
from benchmarks.pagination.whole import Whole
from benchmarks.parts import Part, Report
from benchmarks.progress import Progress

DATABASES: Final[dict[str, type[Database]]] = {each.name: each for each in (Postgres, Sqlite)}
MIN_ROWS: Final = 10 * MAX_LIMIT


class Pagination(Benchmark[Contestant, Sizes]):
    contestants = CONTESTANTS
    known_parts: ClassVar[dict[str, type[PaginationPart]]] = {
        part.name: part for part in (Pages, Walk, Totals, FieldsPart, Whole)
    }
    part_names = tuple(known_parts)
    full = Sizes(rows=1_000_000, seconds=0.4, walk_seconds=60.0)
    quick = Sizes(rows=100_000, seconds=0.05, walk_seconds=10.0)
    quick_help = "fewer rows, shorter"

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add_choice(parser, "--databases", list(DATABASES))
        parser.add_argument(
            "--rows", type=_rows,
            help=f"rows of the largest table, at least {MIN_ROWS:,} (default: {cls.full.rows:,})",
        )  # fmt: skip
        parser.add_argument("--folder", type=Path, help="a folder for the databases of the run")

    def sizes_of(self, options: argparse.Namespace) -> Sizes:
        sizes = super().sizes_of(options)
        return Sizes(options.rows or sizes.rows, sizes.seconds, sizes.walk_seconds)

    def measure(self) -> Sequence[Part]:
        # sqlakeyset warns of the nullable column. The table of walks shows how many rows it loses.
        warnings.filterwarnings("ignore", "Ordering by nullable column", UserWarning)
        parts = [self.known_parts[name](self.sizes) for name in self.options.parts]
        uvloop.run(self._measure(parts))
        return parts

    async def _measure(self, parts: Sequence[PaginationPart]) -> None:
        parent = self.options.folder
        with (
            tempfile.TemporaryDirectory(prefix="hasten-bench-", dir=parent) as folder,
            Progress() as progress,
        ):
            for name in filter(_is_installed, self.options.databases):
                database = DATABASES[name](Path(folder) / name)
                await self._measure_on(database, parts, progress.report)

    async def _measure_on(
        self, database: Database, parts: Sequence[PaginationPart], report: Report
    ) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.stop)
            database.start()
            loaded = await load(database, self.sizes.rows, self.names)
            self.environment |= await database.facts()
            for part in parts:
                await part.prepare(loaded, report)
            for number in range(1, self.rounds + 1):
                for part in parts:
                    report(f"round {number} of {self.rounds}: {part.name} on {database.title}")
                    await part.round(loaded)

    def heading(self) -> str:
        return f"""{super().heading()} requests/s: those of the best of {TURNS} turns, with
several callers on PostgreSQL and one on SQLite. CPU: the processor time of this process for a
request, without that of the database server. hasten: its requests/s and CPU, divided by those of
this contestant."""

    def library_versions(self) -> list[str]:
        shared = [f"{package} {Contestant.version(package)}" for package in SHARED_PACKAGES]
        return [*shared, *super().library_versions()]


def _rows(text: str) -> int:
    if int(text) < MIN_ROWS:
        raise argparse.ArgumentTypeError(f"{text}: must be at least {MIN_ROWS}")
    return int(text)


def _is_installed(name: str) -> bool:
    missing = DATABASES[name].missing()
    if missing is not None:
        sys.stderr.write(f"{name} is not measured: install {missing}\n")
    return missing is None


if __name__ == "__main__":
    raise SystemExit(run(Pagination, __doc__))
