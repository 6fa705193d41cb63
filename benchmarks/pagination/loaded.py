"""A loaded database, and the applications of the contestants that read from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.asgi import Application
from benchmarks.pagination.contestant import CONTESTANTS, Contestant
from benchmarks.pagination.database import Database


@dataclass(frozen=True, slots=True)
class Loaded:
    database: Database
    rows: int
    contestants: Mapping[str, Contestant]
    applications: Mapping[str, Application]


async def load(database: Database, rows: int, names: Sequence[str]) -> Loaded:
    """Fill the database, and build the applications."""
    await database.load(rows)
    contestants = {name: CONTESTANTS.find(name)() for name in names}
    applications = {name: await each.build(database) for name, each in contestants.items()}
    return Loaded(database, rows, contestants, applications)
