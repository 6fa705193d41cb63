"""`python -m benchmarks.pagination`: measure pages, cursors and fields side by side."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import uvloop

from benchmarks import machine
from benchmarks.options import choice, chosen_rounds, standard_parser
from benchmarks.pagination import arena
from benchmarks.pagination.arena import Arena
from benchmarks.pagination.calls import TURNS
from benchmarks.pagination.contestant import MAX_LIMIT
from benchmarks.pagination.database import Database
from benchmarks.pagination.fields import FieldsPart
from benchmarks.pagination.pages import Pages
from benchmarks.pagination.part import Part, Sizes
from benchmarks.pagination.postgres import Postgres
from benchmarks.pagination.sqlite import Sqlite
from benchmarks.pagination.totals import Totals
from benchmarks.pagination.walk import Walk
from benchmarks.pagination.whole import Whole
from benchmarks.progress import Progress
from benchmarks.tables import show_text
from benchmarks.verdicts import show_verdicts

ROUNDS: Final = 3
FULL: Final = Sizes(rows=1_000_000, seconds=0.4, walk_seconds=60.0)
QUICK: Final = Sizes(rows=100_000, seconds=0.05, walk_seconds=10.0)
PARTS: Final[dict[str, type[Part]]] = {
    part.name: part for part in (Pages, Walk, Totals, FieldsPart, Whole)
}
DATABASES: Final[dict[str, type[Database]]] = {each.name: each for each in (Postgres, Sqlite)}
MIN_ROWS: Final = 10 * MAX_LIMIT


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what we have started has to end
    # sqlakeyset says of the nullable column what the walk shows in numbers.
    warnings.filterwarnings("ignore", "Ordering by nullable column", UserWarning)
    try:
        uvloop.run(_run(options))
    except KeyboardInterrupt:
        return 130
    return 0


def _options() -> argparse.Namespace:
    parser = standard_parser(
        "benchmarks.pagination", __doc__,
        names=arena.all_names(), parts=list(PARTS), rounds=ROUNDS, quick="fewer rows, shorter",
    )  # fmt: skip
    parser.add_argument(
        "--databases", type=choice(list(DATABASES)), default=list(DATABASES),
        metavar="NAME,…", help=f"of {', '.join(DATABASES)}",
    )  # fmt: skip
    parser.add_argument(
        "--rows", type=int,
        help=f"of the largest table, {MIN_ROWS:,} at least (default: {FULL.rows:,})",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where the databases go, for the time of a run")
    options = parser.parse_args()
    if options.rows is not None and options.rows < MIN_ROWS:
        parser.error(f"--rows: at least {MIN_ROWS}")
    return options


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = QUICK if options.quick else FULL
    return Sizes(options.rows or sizes.rows, sizes.seconds, sizes.walk_seconds)


async def _run(options: argparse.Namespace) -> None:
    sizes = _sizes(options)
    rounds = chosen_rounds(options, full=ROUNDS)
    contestants = arena.installed(options.only)
    parts = [PARTS[name](sizes) for name in options.parts]
    arenas: list[Arena] = []
    others: dict[str, str] = {}
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="hasten-bench-", dir=options.folder) as folder:
        for name in filter(_is_there, options.databases):
            async with AsyncExitStack() as stack:
                database = DATABASES[name](Path(folder) / name)
                stack.push_async_callback(database.stop)
                database.start()
                await database.load(sizes.rows)
                others |= await database.facts()
                arenas.append(await arena.build(database, sizes.rows, contestants))
                await _measure(parts, arenas[-1], rounds, progress)
    facts = machine.facts(arena.versions(contestants), others)
    _show(parts, arenas, facts, rounds)
    if options.json is not None:
        found = _as_json(parts, facts, rounds)
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def _is_there(name: str) -> bool:
    missing = DATABASES[name].missing()
    if missing is not None:
        sys.stderr.write(f"{name} is left out: install {missing}\n")
    return missing is None


async def _measure(parts: Sequence[Part], where: Arena, rounds: int, progress: Progress) -> None:
    try:
        for part in parts:
            await part.prepare(where, progress.tell)
        for number in range(1, rounds + 1):
            for part in parts:
                progress.tell(f"round {number} of {rounds}: {part.name} on {where.database.title}")
                await part.round(where)
    finally:
        progress.end()


def _show(
    parts: Sequence[Part], arenas: Sequence[Arena], facts: dict[str, str], rounds: int
) -> None:
    titles = {each.title: each.remark for one in arenas for each in one.contestants.values()}
    width = max(map(len, [*titles, *facts]))
    show_text("")
    for title, text in [*facts.items(), *titles.items()]:
        show_text(f"{title:>{width}}: {text}")
    heading = "One round;" if rounds == 1 else f"Medians of {rounds} rounds;"
    show_text(
        f"""
{heading} ratios: median (lowest–highest). requests/s: of the best of {TURNS} turns, in which
several callers ask PostgreSQL, and one asks SQLite. CPU: of this process by request, without that
of a server of the database. hasten: how many times as many requests, and as much CPU."""
    )
    for part in parts:
        part.show(arenas)
    show_verdicts([verdict for part in parts for verdict in part.verdicts()])


def _as_json(parts: Sequence[Part], facts: dict[str, str], rounds: int) -> dict[str, object]:
    return {
        "facts": facts,
        "rounds": rounds,
        "samples": {part.name: part.samples() for part in parts},
        "left_out": {part.name: part.left_out for part in parts},
        "targets": [
            {"target": verdict.target, "measured": verdict.measured, "met": verdict.met}
            for part in parts
            for verdict in part.verdicts()
        ],
    }


if __name__ == "__main__":
    raise SystemExit(main())
