"""The base class of the contestants of hasten, for all engines."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, ClassVar

from benchmarks.queues.asynchronous import AsyncContestant
from benchmarks.queues.load import Cost, Meter


class Hasten(AsyncContestant):
    title = "hasten"
    worker_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, location: str) -> None:
        from hasten.jobs import Queue, Worker

        super().__init__(location)
        self._queue = Queue("bench", self.url())
        self._worker = Worker

        @self._queue.task
        async def noop(number: int) -> None:
            self.ran(number)

        self._task = noop
        self._later = noop.using(delay=timedelta(days=1))

    @abstractmethod
    def url(self) -> str:
        """Return the URL of the store at `self.location`."""

    async def open(self) -> None:
        await self._queue.counts()

    async def close(self) -> None:
        await self._queue.aclose()

    def add(self, number: int) -> Awaitable[object]:
        return self._task.enqueue(number)

    def add_many(self, numbers: Sequence[int], *, delayed: bool) -> Awaitable[object]:
        task = self._later if delayed else self._task
        return task.enqueue_many(map(task.args, numbers))

    def count_runs(self, count: int) -> Cost:
        return asyncio.run(self._count_runs(count))

    async def _count_runs(self, count: int) -> Cost:
        """Call the observer of runs as the worker does: with a job that has waited and has run."""
        from hasten.jobs._record import ClaimRequest, Completed
        from hasten.jobs._run import Run

        job = await self._task.enqueue(1)
        engine, now_ms = self._queue.engine, self._queue.clock.now_ms()
        claim = ClaimRequest(1, "token", "bench", 60_000)
        batch = await engine.claim(self._queue.name, claim, now_ms=now_ms)
        run = Run(batch.leases[0], asyncio.get_running_loop(), lambda _: None)  # type: ignore[arg-type, return-value]  # no handler uses the context
        run.began_at = run.loop.time()
        outcome = Completed(job.id, "token", "null")
        counters = self._worker(self._queue).start_counting_runs()
        meter = Meter()
        for _ in range(count):
            counters.started(run)
            counters.ended(run, outcome)
        cost = meter.read(count)
        await self.close()
        return cost

    def trace_runs(self, count: int) -> tuple[Cost, Cost]:
        return asyncio.run(self._trace_runs(count))

    async def _trace_runs(self, count: int) -> tuple[Cost, Cost]:
        """Make the spans of jobs, and then the same spans with the SDK of OpenTelemetry alone."""
        from opentelemetry import propagate, trace
        from opentelemetry.context import Context
        from opentelemetry.sdk.trace import TracerProvider

        from hasten.jobs._record import ClaimRequest, Completed, JobTemplate
        from hasten.jobs._run import Run
        from hasten.jobs._spans import Spans

        trace.set_tracer_provider(TracerProvider())
        job = await self._task.enqueue(1)
        engine, now_ms = self._queue.engine, self._queue.clock.now_ms()
        claim = ClaimRequest(1, "token", "bench", 60_000)
        batch = await engine.claim(self._queue.name, claim, now_ms=now_ms)
        run = Run(batch.leases[0], asyncio.get_running_loop(), lambda _: None)  # type: ignore[arg-type, return-value]  # no handler uses the context
        outcome = Completed(job.id, "token", "null")
        template = self._queue.producer.make_template("noop", self._task.definition.options)

        async def submit(_: JobTemplate) -> Any:
            return job

        spans = Spans()
        meter = Meter()
        for _ in range(count):
            await spans.send("bench", template, submit)
            spans.started(run)
            spans.ended(run, outcome)
        ours = meter.read(count)
        tracer = trace.get_tracer("bench")
        attributes = {f"messaging.{number}": "value" for number in range(6)}
        meter = Meter()
        for _ in range(count):
            sent = tracer.start_span("send bench", attributes=attributes)
            carrier: dict[str, str] = {}
            propagate.inject(carrier, trace.set_span_in_context(sent))
            sent.end()
            parent = propagate.extract(carrier, Context())
            tracer.start_span("process bench", parent, attributes=attributes).end()
        sdk = meter.read(count)
        await self.close()
        return ours, sdk

    def working(self, concurrency: int) -> AbstractAsyncContextManager[object]:
        return self._worker(self._queue, concurrency=concurrency, **self.worker_options)
