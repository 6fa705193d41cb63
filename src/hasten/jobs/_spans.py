"""Spans of OpenTelemetry: ``send mail`` around adding jobs, ``process mail`` around each run.

The first run of a job is a child of the span of the call that added it. Other runs begin a trace of
their own, with a link to that span: retries, delayed jobs, jobs of schedulers, and jobs that were
added in bulk. As children, they would make traces that never end or have thousands of spans.

Names follow the semantic conventions for messaging, ``messaging.*``. ``hasten.*`` is for what these
do not have. Only `_tracing.py` imports this module, because OpenTelemetry is optional.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

import hasten
from hasten._logs import get_logger
from hasten._repeated_errors import ThrottledErrorLog
from hasten.jobs._job import Job
from hasten.jobs._options import decode_options
from hasten.jobs._record import Completed, Failed, JobRecord, JobTemplate, Outcome, Retry
from hasten.jobs._run import Run
from hasten.jobs._trace_context import add_context, read_context

SYSTEM: Final = "hasten"

CHECK_SECONDS: Final = 1.0  # how soon a tracer provider that is set later is noticed

# A key of the stored context: the job was added in bulk. Programs in other languages ignore it.
BULK: Final = "hasten-bulk"

_NO_PROVIDER: Final = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
_decode_carrier: Final = msgspec.json.Decoder(dict[str, str]).decode


class Spans:
    """Makes the spans of this process. It never raises: a job matters more than its span."""

    def __init__(self) -> None:
        self._is_on = False
        self._check_at = 0.0
        self._tracer = trace.get_tracer("hasten", hasten.__version__)
        self._errors = ThrottledErrorLog(get_logger("hasten.tracing"))

    @property
    def is_on(self) -> bool:
        """Whether the application has set a tracer provider. Without one, spans go nowhere.

        It is looked for once a second, because OpenTelemetry reads an environment variable for it,
        which would be a noticeable part of the cost of a job.
        """
        now = monotonic()
        if now >= self._check_at:
            self._check_at = now + CHECK_SECONDS
            self._is_on = not isinstance(trace.get_tracer_provider(), _NO_PROVIDER)
        return self._is_on

    # Adding -------------------------------------------------------------------------------------

    async def send(
        self,
        queue: str,
        template: JobTemplate,
        submit: Callable[[JobTemplate], Awaitable[Job[Any]]],
    ) -> Job[Any]:
        """Add a job in a span, and store the context of the span with the job."""
        span = self._start_send_span(queue, "hasten.task", template.name)
        if span is None:
            return await submit(template)
        try:
            carrier = self._carrier_of(span)
            if carrier is not None:
                template = replace(template, opts=add_context(template.opts, carrier))
            job = await submit(template)
        except BaseException as error:
            self._end_send_span(span, error)
            raise
        self._end_send_span(span, None, job.id)
        return job

    async def send_many(
        self,
        queue: str,
        jobs: Sequence[tuple[JobTemplate, str]],
        submit: Callable[[Sequence[tuple[JobTemplate, str]]], Awaitable[list[Job[Any]]]],
    ) -> list[Job[Any]]:
        """Add jobs in one span, and store the context of the span with each job."""
        span = self._start_send_span(queue, "messaging.batch.message_count", len(jobs))
        if span is None:
            return await submit(jobs)
        try:
            carrier = self._carrier_of(span, {BULK: "1"})
            if carrier is not None:
                # Jobs with the same template keep sharing one: they are stored faster.
                templates = {id(template): template for template, _ in jobs}
                traced = {
                    key: replace(template, opts=add_context(template.opts, carrier))
                    for key, template in templates.items()
                }
                jobs = [(traced[id(template)], data) for template, data in jobs]
            added = await submit(jobs)
        except BaseException as error:
            self._end_send_span(span, error)
            raise
        self._end_send_span(span, None)
        return added

    def _start_send_span(self, queue: str, attribute: str, value: str | int) -> Span | None:
        """Start the span of a call that adds jobs, with an attribute. None if that fails."""
        try:
            return self._tracer.start_span(
                f"send {queue}",
                kind=SpanKind.PRODUCER,
                attributes={**_attributes(queue, "send"), attribute: value},
            )
        except Exception:  # noqa: BLE001  # of a sampler or a processor of the application
            self._errors.exception("cannot start the span of an added job")
            return None

    def _end_send_span(
        self, span: Span, error: BaseException | None, id: str | None = None
    ) -> None:
        """End the span of a call that adds jobs, with its error or the id of its one job."""
        try:
            if error is not None:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
                span.record_exception(error)
            elif id is not None:
                span.set_attribute("messaging.message.id", id)
            span.end()
        except Exception:  # noqa: BLE001  # the job may be stored: the call must not fail
            self._errors.exception("cannot end the span of an added job")

    def _carrier_of(self, span: Span, extra: Mapping[str, str] = {}) -> str | None:
        """Return the context of a span as a JSON object, in the form that is stored with a job.

        extra are further entries of the object. Returns None if no propagator is configured.
        """
        carrier: dict[str, str] = {}
        try:
            propagate.inject(carrier, trace.set_span_in_context(span))
        except Exception:  # noqa: BLE001  # of a propagator of the application
            self._errors.exception("cannot store the trace context of an added job")
        return msgspec.json.encode({**carrier, **extra}).decode() if carrier else None

    # Running ------------------------------------------------------------------------------------

    def started(self, run: Run) -> None:
        """Start the span of a run, and make it the current one in the task of the job."""
        if not self.is_on:
            return
        try:
            run.span, parent = self._start_process_span(run.lease.job)
            contexts.attach(trace.set_span_in_context(run.span, parent))
        except Exception:  # noqa: BLE001
            self._errors.exception("cannot start the span of a job")

    def _start_process_span(self, job: JobRecord) -> tuple[Span, Context]:
        """Start the span "process" of a run. Return it, and the context that it was started in."""
        carrier = _read_carrier(job)
        # Not the context of the code that started the worker: its jobs do not belong to it.
        parent = propagate.extract(carrier, Context())
        sender = trace.get_current_span(parent).get_span_context()
        links: list[Link] | None = None
        if carrier and sender.is_valid and _should_link(job, carrier):
            links = [Link(sender)]
            parent = trace.set_span_in_context(trace.INVALID_SPAN, parent)  # baggage stays
        span = self._tracer.start_span(
            f"process {job.queue}",
            parent,
            kind=SpanKind.CONSUMER,
            attributes={
                **_attributes(job.queue, "process"),
                "messaging.message.id": job.id,
                "hasten.task": job.name,
                "hasten.attempt": job.attempts_made + 1,
                "hasten.worker": job.worker or "",
            },
            links=links,
        )
        return span, parent

    def ended(self, run: Run, outcome: Outcome | None) -> None:
        """End the span of a run with its outcome."""
        span, run.span = run.span, None
        if span is None:
            return
        try:
            if type(outcome) is not Completed:
                name = "lost" if outcome is None else type(outcome).__name__.lower()
                span.set_attribute("hasten.outcome", name)
            if isinstance(outcome, Failed | Retry):
                kind, _, text = outcome.error.partition(": ")
                span.set_attribute("error.type", kind)
                span.set_status(StatusCode.ERROR, outcome.error)
                exception = {"exception.type": kind, "exception.message": text}
                if outcome.traceback:
                    exception["exception.stacktrace"] = outcome.traceback
                span.add_event("exception", exception)
            span.end()
        except Exception:  # noqa: BLE001
            self._errors.exception("cannot end the span of a job")

    # Processes ----------------------------------------------------------------------------------

    def carrier_of_run(self, run: Run) -> str | None:
        """Return the context of the span of a run as JSON, for a handler in another process."""
        return None if run.span is None else self._carrier_of(run.span)

    @contextlib.contextmanager
    def use_context(self, carrier: str) -> Iterator[None]:
        """Use a context of another process in this one."""
        token = contexts.attach(propagate.extract(_decode(carrier), Context()))
        try:
            yield
        finally:
            contexts.detach(token)


@lru_cache(256)
def _attributes(queue: str, operation: str) -> Mapping[str, str]:
    """Return the attributes of all spans of an operation on a queue."""
    return {
        "messaging.system": SYSTEM,
        "messaging.destination.name": queue,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }


def _read_carrier(job: JobRecord) -> dict[str, str]:
    context = read_context(job.opts)
    return {} if context is None else _decode(context)


def _decode(carrier: str) -> dict[str, str]:
    try:
        return _decode_carrier(carrier)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # of another program
        return {}


def _should_link(job: JobRecord, carrier: Mapping[str, str]) -> bool:
    """Return whether the run is linked to the span that added its job, and not a child of it."""
    return (
        BULK in carrier
        or job.attempts_started > 1
        or job.attempts_made > 0
        or _was_added_with_delay(job)
        or job.id.startswith("repeat:")  # of a scheduler of BullMQ
    )


def _was_added_with_delay(job: JobRecord) -> bool:
    # In the record, the delay of a job that is due is 0.
    try:
        return decode_options(job.opts).delay_ms > 0
    except ValueError:  # of another program
        return False
