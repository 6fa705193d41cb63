"""`Metrics`: a collector of prometheus_client with the metrics of hasten."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from hasten._asgi import ASGIApp
from hasten._checks import check_instance
from hasten._durations import Duration, to_nearest_ms
from hasten.errors import InvalidOption
from hasten.jobs import Queue, Worker
from hasten.jobs._health_app import DEFAULT_STORE_TIMEOUT, report_of_workers
from hasten.jobs._queue_readings import start_reading_queues
from hasten.prometheus._foreign_families import leaves_out_hasten
from hasten.prometheus._http_families import (
    compression_families,
    load_shedding_families,
    rate_limit_families,
)
from hasten.prometheus._job_families import job_run_families, queue_families, worker_families
from hasten.prometheus._page import MetricsPage

if TYPE_CHECKING:
    from hasten.compression import CompressionStats
    from hasten.loadshedding import LoadSheddingStats
    from hasten.ratelimit import RateLimitStats

T = TypeVar("T")


class Metrics(Collector):
    """The metrics of hasten in this process, as a collector of prometheus_client.

        stats = CompressionStats()
        metrics = Metrics(worker, compression=stats)
        app.mount("/metrics", metrics.asgi())

    Pass the workers of this process, and queues whose jobs another process runs. The number of jobs
    and the longest wait are read from the stores when the page is requested, for at most
    store_timeout; if a store fails, `hasten_store_up` is 0 and the rest of the page is complete.
    compression, rate_limits and load_shedding are the objects that the middlewares count in
    (`stats=`).

    The collector is registered in registry, by default the one that prometheus_client uses itself,
    so its other exporters show these metrics, too. Create one object for each process, because a
    second one is a duplicate: `ValueError`. With registry=None it is not registered.
    """

    def __init__(
        self,
        *sources: Worker | Queue,
        compression: CompressionStats | None = None,
        rate_limits: RateLimitStats | None = None,
        load_shedding: LoadSheddingStats | None = None,
        store_timeout: Duration = DEFAULT_STORE_TIMEOUT,
        registry: CollectorRegistry | None = REGISTRY,
    ) -> None:
        if not all(isinstance(source, Worker | Queue) for source in sources):
            raise InvalidOption("sources", sources, "Worker and Queue objects")
        self._workers = [source for source in sources if isinstance(source, Worker)]
        queues = [source for source in sources if isinstance(source, Queue)]
        queues += [queue for worker in self._workers for queue in worker.queues]
        self._queues = list({queue.name: queue for queue in queues}.values())
        self._compression = _check_stats_option(
            "compression", compression, "hasten.compression", "CompressionStats"
        )
        self._rate_limits = _check_stats_option(
            "rate_limits", rate_limits, "hasten.ratelimit", "RateLimitStats"
        )
        self._load_shedding = _check_stats_option(
            "load_shedding", load_shedding, "hasten.loadshedding", "LoadSheddingStats"
        )
        self._store_seconds = to_nearest_ms("store_timeout", store_timeout, at_least_ms=1) / 1000
        for worker in self._workers:
            worker.start_counting_runs()
        self._registry = registry
        if registry is not None:
            registry.register(self)

    def __repr__(self) -> str:
        names = [*(worker.name for worker in self._workers), *(q.name for q in self._queues)]
        return f"<Metrics of {', '.join(names)}>"

    def describe(self) -> Iterator[Metric]:
        """Generate the metrics without values. A registry checks their names with it."""
        yield from queue_families([])
        yield from job_run_families([])
        yield from worker_families([])
        if self._compression is not None:
            yield from compression_families(type(self._compression)())
        if self._rate_limits is not None:
            yield from rate_limit_families(type(self._rate_limits)())
        if self._load_shedding is not None:
            yield from load_shedding_families(type(self._load_shedding)())

    def collect(self) -> Iterator[Metric]:
        """Generate the metrics. Blocks while the stores are read; see `asgi`."""
        if leaves_out_hasten.get():
            return
        if self._queues:
            # Only the time limit of each reading ends this wait.
            readings = start_reading_queues(self._queues, self._store_seconds).result()
            yield from queue_families(readings)
        if self._workers:
            reports = [report_of_workers(self._workers)]
            yield from job_run_families(reports)
            yield from worker_families(reports)
        if self._compression is not None:
            yield from compression_families(self._compression)
        if self._rate_limits is not None:
            yield from rate_limit_families(self._rate_limits)
        if self._load_shedding is not None:
            yield from load_shedding_families(self._load_shedding)

    def asgi(self) -> ASGIApp:
        """Return an ASGI application that responds with the page of metrics to each request.

        It has all metrics of the registry. Unlike the application of prometheus_client, it
        collects them in a thread, so the event loop is not blocked. The client chooses between
        Prometheus' text format and OpenMetrics.
        """
        return MetricsPage(self._registry or self)


def _check_stats_option(option: str, value: T, module: str, class_name: str) -> T:
    """Return the value if it is None or an object of a class. Else raises `InvalidOption`.

    The class is imported only if the value is not None, so that a worker process does not load the
    packages for HTTP.
    """
    if value is None:
        return value
    return check_instance(option, value, getattr(importlib.import_module(module), class_name))
