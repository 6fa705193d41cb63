"""The page of metrics that the command `hasten worker` serves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from hasten.jobs._queue_readings import QueueReading
from hasten.jobs._worker_state import WorkerProcessReport
from hasten.prometheus._foreign_families import merge_families_with_same_name
from hasten.prometheus._job_families import job_run_families, queue_families, worker_families
from hasten.prometheus._page import Page, make_page


class _Families(Collector):
    """A collector of given metrics."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def make_worker_command_page(
    readings: Sequence[QueueReading],
    reports: Sequence[WorkerProcessReport],
    foreign: Sequence[Metric],
    *,
    accept: str,
    accept_encoding: str,
) -> Page:
    """Return the metrics page of the command `hasten worker`, for all of its processes.

    foreign are the metrics of other libraries.
    """
    ours = [*queue_families(readings), *job_run_families(reports), *worker_families(reports)]
    names = {family.name for family in ours}
    others = [
        family for family in merge_families_with_same_name(foreign) if family.name not in names
    ]
    return make_page(_Families([*ours, *others]), accept, accept_encoding)
