"""Where the monitor gets its reports from: the worker of this process, or child processes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from hasten._cli.reporting import HEALTH, METRICS, ReportClient
from hasten._logs import get_logger
from hasten.jobs import Worker
from hasten.jobs._health_app import report_of_workers
from hasten.jobs._run_totals import Totals, add_totals
from hasten.jobs._worker_state import WorkerProcessReport, decode_report, encode_report
from hasten.prometheus._foreign_families import (
    Family,
    collect_foreign_families,
    decode_families_of_process,
    encode_families,
)

logger = get_logger("hasten.cli")

ANSWER_SECONDS: Final = 1.0  # how long to wait for the report of a process
SEPARATOR: Final = b"\n"  # between a report and metrics; JSON has none


class OwnProcess:
    """The worker of this process. `ReportSource` of a monitor."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        worker.start_counting_runs()

    def read_health(self) -> list[WorkerProcessReport]:
        """Return the report of this process."""
        return [report_of_workers([self._worker])]

    def read_metrics(self) -> tuple[list[WorkerProcessReport], list[Family]]:
        """Return the report of this process, and the metrics of other libraries."""
        return self.read_health(), _collect_other_libraries_metrics()

    def make_report_content(self, request: bytes) -> bytes:
        """Return the content of a response to the supervisor: a report, and encoded metrics.

        For `HEALTH`, the metrics are empty. For `METRICS`, they are those of other libraries.
        """
        (report,) = self.read_health()
        families = encode_families(_collect_other_libraries_metrics() if request == METRICS else [])
        return encode_report(report) + SEPARATOR + families


def _collect_other_libraries_metrics() -> list[Family]:
    """Collect the metrics of other libraries from the registry of prometheus_client.

    Returns none of them if a collector fails.
    """
    try:
        return collect_foreign_families()
    except Exception:
        logger.exception("metrics: a collector of prometheus_client's registry has failed")
        return []


class ChildProcess:
    """The reports of one child of a supervisor, which may be restarted. Thread-safe.

    number is that of the child, from 1.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._lock = threading.Lock()
        self._client: ReportClient | None = None
        self._ended = Totals()  # of all processes that have ended
        self._last = Totals()  # of the present process, when it reported last
        self._problem: str | None = "not started yet"
        self._is_stopping = False

    def on_started(self, client: ReportClient) -> None:
        """Record that a process was started, with this connection."""
        with self._lock:
            self._client = client
            self._problem = None

    def on_stopping(self) -> None:
        """Record that the process was asked to stop. That it ends is no problem from now on."""
        self._is_stopping = True

    def on_ended(self, problem: str | None) -> None:
        """Record that the process has ended. problem says how; None if it was asked to stop."""
        with self._lock:
            self._client = None
            self._problem = problem
            self._ended = add_totals([self._ended, self._last])
            self._last = Totals()

    def read(self, request: bytes) -> tuple[WorkerProcessReport, list[Family]]:
        """Request a report from the process; for `METRICS`, also its metrics of other libraries.

        If the process does not respond, the report names the problem, and there are no metrics.
        """
        client = self._client
        if client is None:
            return self._make_report_without_answer(None), []
        try:
            content = client.request_report(request, ANSWER_SECONDS)
        except ConnectionError:
            return self._make_report_without_answer(None if self._is_stopping else "has ended"), []
        if content is None:
            return self._make_report_without_answer(
                f"does not answer within {ANSWER_SECONDS:g} s"
            ), []
        encoded, _, families = content.partition(SEPARATOR)
        report = decode_report(encoded)
        with self._lock:
            if self._client is client:  # else its totals are those of an earlier process
                self._last = report.totals
            totals = add_totals([self._ended, self._last])
        found = WorkerProcessReport(self.number, report.workers, totals)
        return found, decode_families_of_process(families, self.number)

    def _make_report_without_answer(self, problem: str | None) -> WorkerProcessReport:
        """Return the report of a child that has not answered: the problem, and its known totals.

        These are the totals of the processes that have ended, and the last ones that the present
        process reported.
        """
        with self._lock:
            totals = add_totals([self._ended, self._last])
            return WorkerProcessReport(self.number, [], totals, self._problem or problem)


class ChildProcesses:
    """All children of a supervisor, queried at the same time. `ReportSource` of a monitor."""

    def __init__(self, children: Sequence[ChildProcess]) -> None:
        self._children = children
        self._threads = ThreadPoolExecutor(len(children) * 2, "hasten reports")

    def read_health(self) -> list[WorkerProcessReport]:
        """Return the reports of all children."""
        return [report for report, _ in self._read_all(HEALTH)]

    def read_metrics(self) -> tuple[list[WorkerProcessReport], list[Family]]:
        """Return the reports of all children, and their metrics of other libraries."""
        found = self._read_all(METRICS)
        return [report for report, _ in found], [each for _, metrics in found for each in metrics]

    def _read_all(self, request: bytes) -> list[tuple[WorkerProcessReport, list[Family]]]:
        return list(self._threads.map(lambda child: child.read(request), self._children))
