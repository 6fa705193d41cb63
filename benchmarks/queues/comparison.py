"""What the numbers are compared with: the rows of the tables, and the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# Twice what short runs differ by; a cost that grows with the queue would be 20 or 200 here.
MAX_GROWTH: Final = 1.5


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: a number of a part's samples."""

    part: str
    key: str
    title: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """ours and rival are contestants: the targets say how ours has to compare with rival.

    baseline is the contestant that the shown ratios compare with. The targets are: `ratios`, how
    many times better than the rival ours has to be; `limits`, what it has to stay below, both by
    part and key; and a job may cost at most `MAX_GROWTH` times as much in a deep queue.
    """

    ours: str
    rival: str
    baseline: str
    rows: Sequence[Row]
    ratios: Mapping[tuple[str, str], float]
    limits: Mapping[tuple[str, str], float]

    def row(self, part: str, key: str) -> Row:
        return next(row for row in self.rows if (row.part, row.key) == (part, key))


def rate_rows(part: str, title: str, *, has_server: bool) -> list[Row]:
    """Return the rows of a part that measures jobs a second."""
    rows = [
        Row(part, "per_second", title, "jobs/s", more_is_better=True),
        Row(part, "cpu_us", "  processor", "µs/job"),
    ]
    return [*rows, Row(part, "server_us", "  server", "µs/job")] if has_server else rows


def time_rows(part: str, title: str) -> list[Row]:
    """Return the rows of a part that measures how long each job takes."""
    return [
        Row(part, "p50_ms", f"{title}, median", "ms"),
        Row(part, "p95_ms", "  95 of 100", "ms"),
        Row(part, "p99_ms", "  99 of 100", "ms"),
    ]
