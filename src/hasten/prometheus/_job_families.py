"""The metrics of queues and workers, made from reports of processes and readings of queues."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from hasten.jobs._late_schedules import LATE_SECONDS
from hasten.jobs._queue_readings import QueueReading
from hasten.jobs._run_totals import (
    ATTEMPTS,
    BOUNDS,
    COMPLETED,
    FAILED,
    NOT_RUN,
    Histogram,
    RunTotals,
    add_totals,
)
from hasten.jobs._worker_state import WorkerProcessReport, WorkerState


def queue_families(readings: Sequence[QueueReading]) -> Iterator[Metric]:
    """Generate the metrics that are read from the stores.

    A queue whose store cannot be read has only the metric `hasten_store_up`, which is 0.
    """
    up = GaugeMetricFamily(
        "hasten_store_up",
        "Whether the store of the queue could be read for this page: 1, or 0.",
        labels=["queue"],
    )
    jobs = GaugeMetricFamily(
        "hasten_jobs", "Jobs in the queue, by state.", labels=["queue", "state"]
    )
    same = GaugeMetricFamily(
        "bullmq_job_count", "Number of jobs in the queue by state", labels=["queue", "state"]
    )
    oldest = GaugeMetricFamily(
        "hasten_oldest_wait_seconds",
        "How long the job that waits longest has been ready to run; 0 if no job waits. Of the jobs "
        "with a priority, only the first and the last one count.",
        labels=["queue"],
    )
    paused = GaugeMetricFamily(
        "hasten_queue_paused", "Whether the queue is paused: 1, or 0.", labels=["queue"]
    )
    schedules = GaugeMetricFamily(
        "hasten_schedules",
        "Schedules of the queue, including those that are paused or have ended.",
        labels=["queue"],
    )
    late = GaugeMetricFamily(
        "hasten_late_schedules",
        "Schedules whose next run has been due for more than a minute and has not started, "
        "at most 100.",
        labels=["queue"],
    )
    lateness = GaugeMetricFamily(
        "hasten_schedule_lateness_seconds",
        "How long the next run of the latest schedule has been due; 0 if none is due.",
        labels=["queue"],
    )
    for reading in readings:
        up.add_metric([reading.queue], float(reading.error is None))
        if reading.error is not None:
            continue
        for state, count in reading.counts.items():
            jobs.add_metric([reading.queue, state], count)
            same.add_metric([reading.queue, state], count)
        oldest.add_metric([reading.queue], reading.oldest_wait)
        paused.add_metric([reading.queue], float(reading.is_paused))
        schedules.add_metric([reading.queue], reading.schedules)
        late.add_metric([reading.queue], len(reading.find_late(LATE_SECONDS)))
        lateness.add_metric([reading.queue], max((each.seconds for each in reading.due), default=0))
    yield from (up, jobs, same, oldest, paused, schedules, late, lateness)


def job_run_families(reports: Sequence[WorkerProcessReport]) -> Iterator[Metric]:
    """Generate the histograms and counters of runs: the totals of all processes."""
    totals = add_totals(report.totals for report in reports)
    labels = ["queue", "task", "outcome"]
    wait = HistogramMetricFamily(
        "hasten_job_wait_seconds",
        "How long jobs were ready before their first run, by the outcome of this run.",
        labels=labels,
    )
    run = HistogramMetricFamily(
        "hasten_job_run_seconds", "How long runs of jobs took, by outcome.", labels=labels
    )
    for each in totals.runs:
        values = [each.queue, each.task, each.outcome]
        for family, histogram in ((wait, each.wait), (run, each.run)):
            if any(histogram.counts):
                family.add_metric(values, _buckets(histogram), histogram.total)
    yield from (wait, run)
    yield _attempts(totals.runs)
    queues = {each.queue for each in totals.queues} | {each.queue for each in totals.runs}
    yield _make_finished_jobs_counter(
        "bullmq_job_completed", "completed", totals.runs, {COMPLETED}, queues
    )
    yield _make_finished_jobs_counter(
        "bullmq_job_failed", "failed", totals.runs, {FAILED, NOT_RUN}, queues
    )
    reclaimed = CounterMetricFamily(
        "hasten_jobs_reclaimed",
        "Jobs of dead workers that were taken back: each is a crash of a run.",
        labels=["queue"],
    )
    lost = CounterMetricFamily(
        "hasten_leases_lost",
        "Jobs whose lease a worker has lost, so that their outcome was not stored.",
        labels=["queue"],
    )
    dropped = CounterMetricFamily(
        "hasten_schedule_slots_dropped",
        "Slots of schedules that got no run, because they were missed or overlapped another run.",
        labels=["queue"],
    )
    for of_queue in totals.queues:
        reclaimed.add_metric([of_queue.queue], of_queue.reclaimed)
        lost.add_metric([of_queue.queue], of_queue.lost_leases)
        dropped.add_metric([of_queue.queue], of_queue.dropped_slots)
    yield from (reclaimed, lost, dropped)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the upper bound of each bucket as text, and the number of values up to it."""
    bounds = [*map(str, BOUNDS), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))


def _attempts(runs: Iterable[RunTotals]) -> Metric:
    family = CounterMetricFamily(
        "hasten_job_attempts", "Runs that counted as attempts.", labels=["queue", "task"]
    )
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    for each in runs:
        if each.outcome in ATTEMPTS:
            counts[each.queue, each.task] += sum(each.run.counts)
    for labels, count in counts.items():
        family.add_metric(list(labels), count)
    return family


def _make_finished_jobs_counter(
    name: str,
    help_adjective: str,
    runs: Iterable[RunTotals],
    counted_outcomes: set[str],
    queues_to_show: set[str],
) -> Metric:
    """Return a counter, by queue, of the jobs whose run ended with one of counted_outcomes.

    help_adjective is for its help text, "Total number of … jobs". Each of queues_to_show has a
    sample, which is 0 if no run ended so.
    """
    family = CounterMetricFamily(name, f"Total number of {help_adjective} jobs", labels=["queue"])
    counts = dict.fromkeys(sorted(queues_to_show), 0)
    for each in runs:
        if each.outcome in counted_outcomes:
            counts[each.queue] += each.count
    for queue, count in counts.items():
        family.add_metric([queue], count)
    return family


def worker_families(reports: Sequence[WorkerProcessReport]) -> Iterator[Metric]:
    """Generate the gauges of worker processes, by the number of the process."""
    up = GaugeMetricFamily(
        "hasten_worker_up", "Whether the process has reported: 1, or 0.", labels=["process"]
    )
    slots = GaugeMetricFamily(
        "hasten_worker_slots", "How many jobs the process runs at once.", labels=["process"]
    )
    used = GaugeMetricFamily(
        "hasten_worker_slots_used",
        "How many jobs the process runs at present.",
        labels=["process"],
    )
    lag = GaugeMetricFamily(
        "hasten_worker_loop_lag_seconds",
        "How late the event loop was at worst in the last seconds; grows while it is blocked.",
        labels=["process"],
    )
    memory = GaugeMetricFamily(
        "hasten_worker_memory_bytes", "The resident memory of the process.", labels=["process"]
    )
    fetch = GaugeMetricFamily(
        "hasten_worker_last_fetch_seconds",
        "Seconds since the process last asked the store for jobs of the queue with success.",
        labels=["queue", "process"],
    )
    for report in reports:
        process = str(report.number)
        up.add_metric([process], float(report.problem is None))
        workers = [each for each in report.workers if each.is_running]
        if report.problem is not None or not workers:
            continue
        slots.add_metric([process], sum(each.slots for each in workers))
        used.add_metric([process], sum(each.slots_used for each in workers))
        lag.add_metric([process], max(each.lag_seconds for each in workers))
        if workers[0].memory is not None:
            memory.add_metric([process], workers[0].memory)
        for queue, age in _find_seconds_since_fetch_by_queue(workers).items():
            fetch.add_metric([queue, process], age)
    yield from (up, slots, used, lag, memory, fetch)


def _find_seconds_since_fetch_by_queue(workers: Iterable[WorkerState]) -> dict[str, float]:
    """Return for each queue the seconds since the last fetch by a worker of the process.

    If several workers fetch from a queue, the result is that of the worker with the oldest last
    fetch. Queues that no worker has fetched from are left out.
    """
    ages: dict[str, float] = {}
    for worker in workers:
        for each in worker.queues:
            if each.fetch_age is not None:
                ages[each.queue] = max(each.fetch_age, ages.get(each.queue, 0.0))
    return ages
