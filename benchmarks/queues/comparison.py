"""What is compared: which contestants, by which numbers, and what the targets are."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.queues.contestant import Contestant
from benchmarks.queues.parts import Part, Sizes
from benchmarks.queues.store import Store

# Twice what short runs differ by; a cost that grows with the queue would be 20 or 200 here.
MAX_GROWTH: Final = 1.5


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the main table: a number of a part's samples."""

    part: str
    key: str
    title: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """package holds a module for each contestant, which names its class `CONTESTANT`.

    ours and rival are two of them: the targets are about the first, measured by the second.
    yardstick is the one that the shown ratios compare with. The targets: `ratios`, how many times
    better than the rival we have to be, `limits`, what we have to stay below, both by part and
    key; and that no job costs more than `MAX_GROWTH` times as much in a deep queue.
    """

    package: str
    ours: str
    rival: str
    yardstick: str
    full: Sizes
    quick: Sizes
    parts: Callable[[Sizes], dict[str, Part]]
    rows: Sequence[Row]
    ratios: Mapping[tuple[str, str], float]
    limits: Mapping[tuple[str, str], float]
    store: Callable[[Path | None], AbstractContextManager[Store]]

    def names(self) -> list[str]:
        """The names of all contestants, ours first, then its rival."""
        package = importlib.import_module(self.package)
        found = [module.name for module in pkgutil.iter_modules(package.__path__)]
        first = [self.ours, self.rival]
        return [*first, *sorted(name for name in found if name not in first)]

    def find(self, name: str) -> type[Contestant]:
        module = importlib.import_module(f"{self.package}.{name}")
        contestant: type[Contestant] = module.CONTESTANT
        return contestant

    def row(self, part: str, key: str) -> Row:
        return next(row for row in self.rows if (row.part, row.key) == (part, key))
