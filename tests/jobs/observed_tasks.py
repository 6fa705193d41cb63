"""Tasks in processes of their own, of a queue with a middleware that carries a variable."""

from __future__ import annotations

import contextvars
import functools
import logging
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from hasten.jobs import Carry, JobLogFilter, Queue, current_job

queue: Final = Queue("observed", "memory://")

request_id: Final = contextvars.ContextVar[str]("request_id")

queue.use(Carry(request_id))


@queue.task(run_in="process")
def carried() -> str | None:
    return request_id.get(None)


@queue.task(run_in="process")
def traced() -> list[str]:
    if trace._TRACER_PROVIDER is None:
        trace.set_tracer_provider(TracerProvider())
    found = trace.get_current_span().get_span_context()
    return [f"{found.trace_id:032x}", f"{found.span_id:016x}"]


@queue.task(run_in="process")
async def whoami() -> list[object]:
    job = current_job()
    assert job is not None
    job.progress("here")
    record = logging.LogRecord("app", logging.INFO, __file__, 1, "hello", (), None)
    JobLogFilter().filter(record)
    return [job.job.id, job.attempt, record.__dict__["task"], record.__dict__["queue"]]


def decorate(task: Any) -> Any:
    @functools.wraps(task)
    def call(*args: Any, **kwargs: Any) -> Any:
        return task(*args, **kwargs)

    return call


@decorate
@queue.task(run_in="process")
def decorated() -> int:
    return 5
