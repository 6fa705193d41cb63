"""The page of metrics: its values, formats and what it shows of a store that fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from hasten.compression import CompressionMiddleware, CompressionStats
from hasten.errors import InvalidOption, StoreUnavailable
from hasten.jobs import Job, Queue, RetryAfter, Worker
from hasten.jobs._record import ClaimRequest
from hasten.jobs._run_totals import BOUNDS
from hasten.loadshedding import LoadSheddingStats
from hasten.prometheus import Metrics
from hasten.ratelimit import RateLimitStats
from hasten.testing import ManualClock
from tests.jobs.eventually import until, until_state
from tests.patience import DEADLINE_SECONDS

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Page:
    """The samples of a page of metrics."""

    def __init__(self, values: Values) -> None:
        self._values = values

    @classmethod
    def of(cls, collector: Collector) -> Page:
        return cls(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in collector.collect()
                for sample in family.samples
            }
        )

    def get(self, name: str, **labels: str) -> float | None:
        return self._values.get((name, frozenset(labels.items())))

    def names(self) -> set[str]:
        return {name for name, _ in self._values}

    def labels(self, name: str, label: str) -> set[str]:
        return {dict(labels)[label] for found, labels in self._values if found == name}


async def read_page(metrics: Metrics, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(metrics.asgi())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get("/metrics", headers={"accept-encoding": "identity", **headers})


async def page_of(metrics: Metrics) -> Page:
    """Collect in a thread, as the ASGI application does."""
    return await asyncio.to_thread(Page.of, metrics)


@contextmanager
def failing_store(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    async def count(name: str) -> Any:
        raise StoreUnavailable(queue.engine.url, "refused")

    with monkeypatch.context() as patched:
        patched.setattr(queue.engine, "count", count)
        yield


class TestJobs:
    async def test_the_jobs_of_each_state_are_counted(
        self, queue: Queue, clock: ManualClock
    ) -> None:
        metrics = Metrics(queue, registry=None)
        await queue.add_many([("a", {}), ("a", {}), ("a", {}, {"delay": 60})])
        clock.advance(30)
        page = await page_of(metrics)
        for name in ("hasten_jobs", "bullmq_job_count"):
            assert page.get(name, queue="mail", state="waiting") == 2
            assert page.get(name, queue="mail", state="delayed") == 1
            assert page.get(name, queue="mail", state="failed") == 0
        assert page.get("hasten_store_up", queue="mail") == 1
        assert page.get("hasten_oldest_wait_seconds", queue="mail") == 30
        assert page.get("hasten_queue_paused", queue="mail") == 0
        await queue.pause()
        assert (await page_of(metrics)).get("hasten_queue_paused", queue="mail") == 1

    async def test_a_delayed_job_waits_from_the_time_when_it_is_due(
        self, queue: Queue, clock: ManualClock
    ) -> None:
        @queue.task
        async def send() -> None: ...

        await queue.add("send", delay=100, priority=3)
        await queue.add("send", delay=100, priority=2)
        clock.advance(130)
        metrics = Metrics(queue, registry=None)
        async with Worker(queue) as worker:
            of_worker = Metrics(worker, registry=None)
            await until(lambda: _count(of_worker, "send") == 2)
            page = await page_of(of_worker)
        labels = {"queue": "mail", "task": "send", "outcome": "completed"}
        assert page.get("hasten_job_wait_seconds_sum", **labels) == 60
        assert (await page_of(metrics)).get("hasten_oldest_wait_seconds", queue="mail") == 0

    async def test_the_longest_wait_is_that_of_either_end_of_the_priorities(
        self, queue: Queue, clock: ManualClock
    ) -> None:
        metrics = Metrics(queue, registry=None)
        await queue.add("a", priority=9)
        clock.advance(50)
        await queue.add("a", priority=1)
        clock.advance(10)
        page = await page_of(metrics)
        assert page.get("hasten_oldest_wait_seconds", queue="mail") == 60

    @pytest.mark.parametrize(
        "added",
        [
            [True],
            [True] * 5,
            [False, True],
            [True, False],
            [True, False] * 8,
            [False, True, True] * 5,
        ],
    )
    async def test_the_longest_wait_is_that_of_the_oldest_job_also_with_lifo_jobs(
        self, queue: Queue, clock: ManualClock, added: list[bool]
    ) -> None:
        """Each lifo job is claimed before all older jobs, so the oldest is in the middle."""
        metrics = Metrics(queue, registry=None)
        for lifo in added:
            await queue.add("a", lifo=lifo)
            clock.advance(10)
        page = await page_of(metrics)
        assert page.get("hasten_oldest_wait_seconds", queue="mail") == 10 * len(added)

    async def test_the_longest_wait_is_found_with_few_reads(
        self, queue: Queue, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await queue.add("a")
        for _ in range(2):
            await queue.add_many([("a", {}, {"lifo": True})] * 250)
        clock.advance(10)
        reads: list[int] = []
        get_page = type(queue.engine).get_page

        async def count(*args: Any, **options: Any) -> Any:
            reads.append(options["limit"])
            return await get_page(*args, **options)

        monkeypatch.setattr(type(queue.engine), "get_page", count)
        page = await page_of(Metrics(queue, registry=None))
        assert page.get("hasten_oldest_wait_seconds", queue="mail") == 10
        assert sum(reads) <= 12

    async def test_a_store_that_fails_leaves_the_rest_of_the_page(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with Worker(queue, concurrency=7) as worker:
            metrics = Metrics(worker, registry=None)
            with failing_store(queue, monkeypatch):
                page = await page_of(metrics)
            assert page.get("hasten_store_up", queue="mail") == 0
            assert page.get("hasten_jobs", queue="mail", state="waiting") is None
            assert page.get("hasten_worker_slots", process="1") == 7
            assert (await page_of(metrics)).get("hasten_store_up", queue="mail") == 1

    async def test_a_store_that_hangs_counts_as_failing(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def hang(name: str) -> Any:
            await asyncio.Event().wait()

        metrics = Metrics(queue, store_timeout=0.05, registry=None)
        with monkeypatch.context() as patched:
            patched.setattr(queue.engine, "count", hang)
            page = await page_of(metrics)
        assert page.get("hasten_store_up", queue="mail") == 0


def _count(metrics: Metrics, task: str, outcome: str = "completed", queue: str = "mail") -> float:
    """Return how many runs of a task have ended."""
    page = Page.of(metrics)
    labels = {"queue": queue, "task": task, "outcome": outcome}
    return page.get("hasten_job_run_seconds_count", **labels) or 0


class TestRuns:
    async def test_runs_are_counted_by_task_and_outcome(
        self, queue: Queue, clock: ManualClock
    ) -> None:
        @queue.task
        async def good() -> None: ...

        @queue.task(attempts=2)
        async def bad() -> None:
            raise ValueError

        @queue.task
        async def later() -> None:
            raise RetryAfter(100)

        async with Worker(queue) as worker:
            metrics = Metrics(worker, registry=None)
            for _ in range(3):
                await good.enqueue()
            failed: Job[None] = await bad.enqueue()
            await later.enqueue()
            await queue.add("good", expires=0.001, delay=1)
            await until_state(failed, failed.state.FAILED)
            clock.advance(2)
            await until(lambda: _count(metrics, "good") == 3)
            await until(lambda: _count(metrics, "later", "postponed") == 1)
            await until(lambda: _failed(metrics) == 2)
            page = await page_of(metrics)
        counts = {
            (task, outcome): page.get(
                "hasten_job_run_seconds_count", queue="mail", task=task, outcome=outcome
            )
            for task in ("good", "bad", "later")
            for outcome in ("completed", "retried", "failed", "postponed", "not_run")
        }
        assert {key: count for key, count in counts.items() if count} == {
            ("good", "completed"): 3,
            ("bad", "retried"): 1,
            ("bad", "failed"): 1,
            ("later", "postponed"): 1,
        }
        assert page.get("hasten_job_attempts_total", queue="mail", task="good") == 3
        assert page.get("hasten_job_attempts_total", queue="mail", task="bad") == 2
        assert page.get("bullmq_job_completed_total", queue="mail") == 3
        assert page.get("bullmq_job_failed_total", queue="mail") == 2

    async def test_run_times_are_in_their_buckets(self, memory: Queue) -> None:
        @memory.task
        async def nap() -> None:
            await asyncio.sleep(0.03)

        async with Worker(memory) as worker:
            metrics = Metrics(worker, registry=None)
            await nap.enqueue()
            await until(lambda: _count(metrics, "nap", queue="memory"))
            page = await page_of(metrics)
        labels = {"queue": "memory", "task": "nap", "outcome": "completed"}
        name = "hasten_job_run_seconds"
        assert page.get(f"{name}_bucket", le="0.025", **labels) == 0
        assert page.get(f"{name}_bucket", le="+Inf", **labels) == 1
        took = page.get(f"{name}_sum", **labels)
        assert took is not None
        assert 0.03 <= took < DEADLINE_SECONDS
        assert page.labels(f"{name}_bucket", "le") == {*map(str, BOUNDS), "+Inf"}

    async def test_jobs_of_unknown_tasks_share_one_label(self, queue: Queue) -> None:
        """Other programs choose these names, so there may be any number of them."""

        @queue.task
        async def send() -> None: ...

        await queue.add_many([(f"task-{number}", {}) for number in range(30)])
        await send.enqueue()
        async with Worker(queue) as worker:
            metrics = Metrics(worker, registry=None)
            await until(lambda: _failed(metrics) == 30)
            await until(lambda: _count(metrics, "send"))
            page = await page_of(metrics)
        assert page.labels("hasten_job_wait_seconds_count", "task") == {"send", "(unknown)"}

    async def test_lost_leases_are_counted(self, queue: Queue) -> None:
        started, may_end = asyncio.Event(), asyncio.Event()

        @queue.task
        async def hold() -> None:
            started.set()
            await may_end.wait()

        async with Worker(queue) as worker:
            metrics = Metrics(worker, registry=None)
            await hold.enqueue()
            await started.wait()
            await queue.obliterate(force=True)
            may_end.set()
            await until(lambda: _total(metrics, "hasten_leases_lost_total") == 1)

    async def test_jobs_of_dead_workers_are_counted(self, queue: Queue, clock: ManualClock) -> None:
        @queue.task
        async def send() -> None: ...

        await send.enqueue()
        claim = ClaimRequest(1, "token", "dead", lease_ms=1000)
        await queue.engine.claim("mail", claim, now_ms=clock.now_ms())
        clock.advance(10)
        async with Worker(queue, lease=1) as worker:
            metrics = Metrics(worker, registry=None)

            def is_counted() -> bool:
                clock.advance(1)  # the worker looks for them at intervals
                return _total(metrics, "hasten_jobs_reclaimed_total") == 1

            await until(is_counted)

    async def test_what_was_counted_before_is_kept_when_the_worker_stops(
        self, memory: Queue
    ) -> None:
        @memory.task
        async def send() -> None: ...

        worker = Worker(memory)
        metrics = Metrics(worker, registry=None)
        async with worker:
            await (await send.enqueue()).result(timeout=DEADLINE_SECONDS)
        page = await page_of(metrics)
        assert page.get("bullmq_job_completed_total", queue="memory") == 1
        assert page.get("hasten_worker_slots", process="1") is None


def _failed(metrics: Metrics) -> float | None:
    return _total(metrics, "bullmq_job_failed_total")


def _total(metrics: Metrics, name: str) -> float | None:
    return Page.of(metrics).get(name, queue="mail")


class TestWorkers:
    async def test_slots_lag_and_last_fetch_are_shown(
        self, queue: Queue, clock: ManualClock
    ) -> None:
        may_end = asyncio.Event()

        @queue.task
        async def hold() -> None:
            await may_end.wait()

        async with Worker(queue, concurrency=2) as worker:
            metrics = Metrics(worker, registry=None)
            await hold.enqueue_many([hold.args(), hold.args()])
            await until(lambda: Page.of(metrics).get("hasten_worker_slots_used", process="1") == 2)
            clock.advance(9)
            page = await page_of(metrics)
            assert page.get("hasten_worker_slots", process="1") == 2
            age = page.get("hasten_worker_last_fetch_seconds", queue="mail", process="1")
            assert age == 9
            lag = page.get("hasten_worker_loop_lag_seconds", process="1")
            assert lag is not None
            assert 0 <= lag < DEADLINE_SECONDS
            assert page.get("hasten_worker_up", process="1") == 1
            may_end.set()


class TestHttp:
    async def test_the_counters_of_compression_are_shown(self) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-type", b"text/plain"), (b"content-length", b"5000")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"a" * 5000})

        stats = CompressionStats()
        app = CompressionMiddleware(application, stats=stats)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test"
        ) as client:
            await client.get("/", headers={"accept-encoding": "gzip"})
            await client.get("/", headers={"accept-encoding": "identity"})
        page = Page.of(Metrics(compression=stats, registry=None))
        assert page.get("hasten_compressed_responses_total", encoding="gzip") == 1
        assert page.get("hasten_compression_input_bytes_total", encoding="gzip") == 5000
        after = page.get("hasten_compression_output_bytes_total", encoding="gzip")
        assert after is not None
        assert 0 < after < 200
        assert page.labels("hasten_uncompressed_responses_total", "reason")

    def test_the_counters_of_limits_are_shown(self) -> None:
        stats = RateLimitStats()
        login = stats.get_or_add_limit("login")
        login.allowed, login.limited, login.near_limit, login.shadow, login.unavailable = range(5)
        page = Page.of(Metrics(rate_limits=stats, registry=None))
        name = "hasten_rate_limit_requests_total"
        assert page.get(name, limit="login", decision="allowed") == 0
        assert page.get(name, limit="login", decision="refused") == 1
        assert page.get("hasten_rate_limit_near_limit_total", limit="login") == 2
        assert page.get("hasten_rate_limit_shadow_total", limit="login") == 3
        assert page.get("hasten_rate_limit_unavailable_total", limit="login") == 4

    def test_the_counters_of_load_shedding_are_shown(self) -> None:
        stats = LoadSheddingStats(allowed=5, shed=4, critical=3, in_flight=2, limit=1)
        page = Page.of(Metrics(load_shedding=stats, registry=None))
        assert page.get("hasten_load_shedding_requests_total", decision="accepted") == 5
        assert page.get("hasten_load_shedding_requests_total", decision="refused") == 4
        assert page.get("hasten_load_shedding_critical_total") == 3
        assert page.get("hasten_load_shedding_in_flight") == 2
        assert page.get("hasten_load_shedding_limit") == 1


class TestPage:
    @pytest.mark.parametrize(
        ("accept", "parse", "content_type"),
        [
            ("*/*", parse_text, "text/plain; version=0.0.4"),
            (
                "application/openmetrics-text; version=1.0.0",
                parse_openmetrics,
                "application/openmetrics-text; version=1.0.0",
            ),
        ],
    )
    async def test_the_client_chooses_the_format(
        self, memory: Queue, accept: str, parse: Callable[[str], Any], content_type: str
    ) -> None:
        """All metrics are valid in both, with the name and kind that `describe` says."""

        @memory.task
        async def send() -> None: ...

        async with Worker(memory) as worker:
            metrics = Metrics(
                worker,
                compression=CompressionStats(),
                rate_limits=RateLimitStats(),
                load_shedding=LoadSheddingStats(),
                registry=None,
            )
            await (await send.enqueue()).result(timeout=DEADLINE_SECONDS)
            response = await read_page(metrics, accept=accept)
        assert response.headers["content-type"].startswith(content_type)
        found = {family.name: family.type for family in parse(response.text)}
        if parse is parse_openmetrics:
            assert found == {family.name: family.type for family in metrics.describe()}
        assert "hasten_jobs" in found

    async def test_is_compressed_for_a_client_that_accepts_it(self, memory: Queue) -> None:
        response = await read_page(Metrics(memory, registry=None), **{"accept-encoding": "gzip"})
        assert response.headers["content-encoding"] == "gzip"
        assert 'hasten_store_up{queue="memory"} 1.0' in response.text
        assert "content-encoding" not in (await read_page(Metrics(registry=None))).headers

    async def test_other_methods_are_refused(self) -> None:
        transport = httpx.ASGITransport(Metrics(registry=None).asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.post("/")).status_code == 405
            head = await client.head("/")
            assert (head.status_code, head.content) == (200, b"")

    async def test_has_all_metrics_of_the_registry(self, memory: Queue) -> None:
        registry = CollectorRegistry(auto_describe=True)
        Counter("letters", "Letters sent.", registry=registry).inc()
        text = (await read_page(Metrics(memory, registry=registry))).text
        assert "letters_total 1.0" in text
        assert "hasten_store_up" in text

    async def test_a_second_one_in_a_registry_is_refused(
        self, memory: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And no store is read to find that out."""

        async def count(name: str) -> Any:
            raise AssertionError

        monkeypatch.setattr(memory.engine, "count", count)
        registry = CollectorRegistry(auto_describe=True)
        Metrics(memory, registry=registry)
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            Metrics(memory, registry=registry)

    async def test_can_be_mounted(self, memory: Queue) -> None:
        from starlette.applications import Starlette
        from starlette.routing import Mount

        app = Starlette(routes=[Mount("/metrics", Metrics(memory, registry=None).asgi())])
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", follow_redirects=True
        ) as client:
            assert "hasten_jobs" in (await client.get("/metrics")).text


@pytest.mark.parametrize("source", [None, "mail", 7])
def test_wrong_sources_are_refused(source: Any) -> None:
    with pytest.raises(InvalidOption, match="must be Worker and Queue objects"):
        Metrics(source, registry=None)


def test_wrong_counters_are_refused() -> None:
    stats: Any = {}
    with pytest.raises(InvalidOption, match=r"CompressionStats\(…\) or None"):
        Metrics(compression=stats, registry=None)


def test_without_the_extra_the_error_names_it() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from hasten.errors import MissingExtra\n"
        "try: import hasten.prometheus\n"
        "except MissingExtra as error: print(error)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "its extra 'prometheus'" in found.stdout


async def test_nothing_is_counted_without_metrics(memory: Queue) -> None:
    async with Worker(memory) as worker:
        assert not any(type(each).__name__ == "RunCounters" for each in worker.observers)
