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
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as contexts
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import hasten
from hasten._logs import get_logger
from hasten._repeated_errors import ThrottledErrorLog
from hasten.jobs._job import Job
from hasten.jobs._options import decode_options
from hasten.jobs._record import Completed, Failed, JobRecord, JobTemplate, Outcome, Retry
from hasten.jobs._run import Run
from hasten.jobs._trace_context import (
    add_context,
    add_trace_parent,
    read_context,
    read_trace_parent,
)

SYSTEM: Final = "hasten"

CHECK_SECONDS: Final = 1.0  # how soon a tracer provider that is set later is noticed

_NO_PROVIDER: Final = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)

# A key of the stored context: the job was added in bulk. Programs in other languages ignore it.
BULK: Final = "hasten-bulk"

# Contexts are immutable. Not the current one: a run does not belong to the trace of its worker.
_EMPTY: Final = Context()

_DEFAULT_PROPAGATORS: Final = (TraceContextTextMapPropagator, W3CBaggagePropagator)
_decode_carrier: Final = msgspec.json.Decoder(dict[str, str]).decode


class Spans:
    """Makes the spans of this process. It never raises: a job matters more than its span."""

    def __init__(self) -> None:
        self._is_on = False
        self._check_at = 0.0
        self._tracer = trace.get_tracer("hasten", hasten.__version__)
        self._propagation = Propagation()
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
            job = await submit(self._with_context(template, span))
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
            # Jobs with the same template keep sharing one: they are stored faster.
            templates = {id(template): template for template, _ in jobs}
            traced = {
                key: self._with_context(template, span, is_bulk=True)
                for key, template in templates.items()
            }
            added = await submit([(traced[id(template)], data) for template, data in jobs])
        except BaseException as error:
            self._end_send_span(span, error)
            raise
        self._end_send_span(span, None)
        return added

    def _start_send_span(self, queue: str, attribute: str, value: str | int) -> Span | None:
        """Start the span of a call that adds jobs, with an attribute. None if that fails."""
        try:
            name, attributes = _name_and_attributes(queue, "send")
            return self._tracer.start_span(
                name, None, SpanKind.PRODUCER, {**attributes, attribute: value}
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

    def _with_context(
        self, template: JobTemplate, span: Span, *, is_bulk: bool = False
    ) -> JobTemplate:
        """Return the template of jobs with the context of a span."""
        try:
            opts = self._propagation.add_to_options(template.opts, span, is_bulk=is_bulk)
        except Exception:  # noqa: BLE001  # of a propagator of the application
            self._errors.exception("cannot store the trace context of an added job")
            return template
        return replace(template, opts=opts)

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
        parent, is_bulk = self._propagation.from_options(job.opts)
        links: list[Link] | None = None
        if is_bulk or _is_not_first_run_at_once(job):
            sender = trace.get_current_span(parent).get_span_context()
            if sender.is_valid:
                links = [Link(sender)]
                parent = trace.set_span_in_context(trace.INVALID_SPAN, parent)  # baggage stays
        name, attributes = _name_and_attributes(job.queue, "process")
        span = self._tracer.start_span(
            name,
            parent,
            SpanKind.CONSUMER,
            {
                **attributes,
                "messaging.message.id": job.id,
                "hasten.task": job.name,
                "hasten.attempt": job.attempts_made + 1,
                "hasten.worker": job.worker or "",
            },
            links,
        )
        return span, parent

    def ended(self, run: Run, outcome: Outcome | None) -> None:
        """End the span of a run with its outcome."""
        span, run.span = run.span, None
        if span is None:
            return
        try:
            if type(outcome) is not Completed:
                _set_outcome(span, outcome)
            span.end()
        except Exception:  # noqa: BLE001
            self._errors.exception("cannot end the span of a job")

    # Processes ----------------------------------------------------------------------------------

    def carrier_of_run(self, run: Run) -> str | None:
        """Return the context of the span of a run as JSON, for a handler in another process."""
        if run.span is None:
            return None
        try:
            return self._propagation.to_json(run.span)
        except Exception:  # noqa: BLE001  # of a propagator of the application
            self._errors.exception("cannot pass on the trace context of a job")
            return None

    @contextlib.contextmanager
    def use_context(self, carrier: str) -> Iterator[None]:
        """Use a context of another process in this one."""
        token = contexts.attach(self._propagation.from_json(carrier))
        try:
            yield
        finally:
            contexts.detach(token)


class Propagation:
    """Stores the context of a span with a job, and reads it again.

    OpenTelemetry's default propagators, W3C Trace Context and Baggage, take 9 µs for the two
    directions together. Nearly all jobs have only a trace parent: no trace state and no baggage.
    For these the same text is written and read here directly. Everything else, such as propagators
    that the application has set, goes through OpenTelemetry.
    """

    def __init__(self) -> None:
        self._propagator: object = None  # for which _is_default was determined
        self._is_default = False

    def _uses_defaults(self) -> bool:
        """Return whether the application has left the default propagators in place."""
        propagator = propagate.get_global_textmap()
        if propagator is not self._propagator:
            parts = getattr(propagator, "_propagators", ())
            self._is_default = (
                type(propagator) is CompositePropagator
                and tuple(type(part) for part in parts) == _DEFAULT_PROPAGATORS
            )
            self._propagator = propagator
        return self._is_default

    def add_to_options(self, opts: str, span: Span, *, is_bulk: bool = False) -> str:
        """Return the options of a job with the context of a span.

        They are returned as they are if no propagator is configured.
        """
        if not is_bulk and self._uses_defaults() and not baggage.get_all():
            context = span.get_span_context()
            if context.is_valid and not context.trace_state:
                return add_trace_parent(
                    opts, context.trace_id, context.span_id, context.trace_flags
                )
        carrier = self.to_json(span, is_bulk=is_bulk)
        return opts if carrier is None else add_context(opts, carrier)

    def to_json(self, span: Span, *, is_bulk: bool = False) -> str | None:
        """Return the context of a span as a JSON object, None if no propagator is configured."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        if not carrier:
            return None
        if is_bulk:
            carrier[BULK] = "1"
        return msgspec.json.encode(carrier).decode()

    def from_options(self, opts: str) -> tuple[Context, bool]:
        """Return the context in the options of a job, and whether it was added in bulk."""
        parent = read_trace_parent(opts)
        if parent is not None and self._uses_defaults():
            trace_id, span_id, flags = parent
            sender = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
            if sender.is_valid:
                return trace.set_span_in_context(NonRecordingSpan(sender), _EMPTY), False
        text = read_context(opts)
        if text is None:
            return _EMPTY, False
        carrier = _decode(text)
        return propagate.extract(carrier, _EMPTY), BULK in carrier

    def from_json(self, carrier: str) -> Context:
        """Return the context in a JSON object."""
        return propagate.extract(_decode(carrier), _EMPTY)


def _decode(carrier: str) -> dict[str, str]:
    try:
        return _decode_carrier(carrier)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # of another program
        return {}


@lru_cache(256)
def _name_and_attributes(queue: str, operation: str) -> tuple[str, Mapping[str, str]]:
    """Return the name and the attributes of all spans of an operation on a queue."""
    return f"{operation} {queue}", {
        "messaging.system": SYSTEM,
        "messaging.destination.name": queue,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }


def _set_outcome(span: Span, outcome: Outcome | None) -> None:
    """Set the attributes, the status and the event of a run that has not completed."""
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


def _is_not_first_run_at_once(job: JobRecord) -> bool:
    """Return whether the run is a retry, or that of a delayed job or of a scheduler."""
    return (
        job.attempts_started > 1
        or job.attempts_made > 0
        or _was_added_with_delay(job)
        or job.id.startswith("repeat:")  # of a scheduler of BullMQ
    )


def _was_added_with_delay(job: JobRecord) -> bool:
    # In the record, the delay of a job that is due is 0.
    if '"delay"' not in job.opts:
        return False
    try:
        return decode_options(job.opts).delay_ms > 0
    except ValueError:  # of another program
        return False
