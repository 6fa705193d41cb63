"""The rows of the tables, and the targets, of a comparison of job queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# Short runs differ by up to half of this. If the cost grew with the length of the queue, the factor
# would be 20 or 200.
MAX_GROWTH: Final = 1.5


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: the number with this key in the samples of a part."""

    part: str
    key: str
    title: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, and the targets.

    - ours, rival: the contestant of hasten, and the one that it is compared with in targets.
    - baseline: the contestant to which the printed ratios refer.
    - ratios: how many times better than rival ours has to be, by part and key.
    - limits: the value that ours has to stay below, by part and key.

    A job may also cost at most `MAX_GROWTH` times as much in a long queue as in a short one.
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
    """Return the rows of a part that measures jobs per second."""
    rows = [
        Row(part, "per_second", title, "jobs/s", more_is_better=True),
        Row(part, "cpu_us", "  processor", "µs/job"),
    ]
    return [*rows, Row(part, "server_us", "  server", "µs/job")] if has_server else rows


def time_rows(part: str, title: str) -> list[Row]:
    """Return the rows of a part that measures how long each job takes."""
    return [
        Row(part, "p50_ms", f"{title}, median", "ms"),
        Row(part, "p95_ms", "  95th percentile", "ms"),
        Row(part, "p99_ms", "  99th percentile", "ms"),
    ]
